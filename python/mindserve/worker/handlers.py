"""Answers calls on handler threads: plain functions, and generators, which give their thread back while they wait."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from mindserve import logs
from mindserve.worker.answering import Ends, Handler, Requests
from mindserve.worker.grpc_context import GrpcContext, Watch

if TYPE_CHECKING:
    from mindserve._native import ServiceCall

_log = logs.get_logger("worker")


class ThreadHandlers:
    """What handler threads do with calls; see ``Runtime.run_handlers``. Any thread, for a call one at a time.

    Args:
        handlers: by their numbers.
        ends: how calls end.
        watch: tells contexts with callbacks that their calls have been cancelled.
    """

    def __init__(self, handlers: Mapping[int, Handler], ends: Ends, watch: Watch) -> None:
        self._handlers = handlers
        self._ends = ends
        self._watch = watch

    def dispatch(self, call: ServiceCall) -> None:
        """Answers a call that is new, or goes on with a stream of which a message has been refused for the time."""
        stream: _Stream | None = call.state
        if stream is not None:
            stream.resume(call)
            return
        handler = self._handlers[call.method]
        context = GrpcContext(call, handler, self._watch) if handler.context is not None else None
        try:
            argument: Any = Requests(call, handler) if handler.client_streaming else handler.parse_only(call.read(True))
            result = handler.call(argument, context)
            if not handler.server_streaming:
                self._ends.answer_one(call, handler, context, result)
                return
            # The generator has not begun: what it raises is the stream's affair.
            stream = _start(handler, context, result, self._ends)
            if stream is None:
                self._ends.returned(call, context)
        except BaseException as error:
            self._ends.raised(call, handler, context, error)
            return
        if stream is not None:
            # Before the first write: once one is refused another thread may go on with it.
            call.state = stream
            stream.run(call)

    def failed(self, call: ServiceCall, error: BaseException, stage: str) -> None:
        """Ends a call of a function that native code calls: it raised, or ``stage`` says what went wrong around it."""
        handler = self._handlers[call.method]
        if stage == "parse":
            error = handler.not_parsed(error)
        self._ends.raised(call, handler, None, error)


def _start(handler: Handler, context: GrpcContext | None, result: Any, ends: Ends) -> _Stream | None:
    """The stream of what a handler returned; None: it has set a status, and returned nothing."""
    if result is None and context is not None and context.fails:
        return None
    try:
        items = iter(result)
    except TypeError:
        raise handler.wrong_type(result) from None
    return _Stream(handler, context, items, ends)


class _Stream:
    """The answer of a call whose server streams."""

    __slots__ = ("_context", "_ends", "_handler", "_items")

    def __init__(self, handler: Handler, context: GrpcContext | None, items: Iterator[Any], ends: Ends) -> None:
        self._handler = handler
        self._context = context
        self._items = items
        self._ends = ends

    def resume(self, call: ServiceCall) -> None:
        """There is room again for messages, or the call is gone."""
        if call.cancelled:
            call.state = None
            self._close()
            if self._context is not None:
                self._context.over()
        else:
            self.run(call)

    def run(self, call: ServiceCall) -> None:
        """Writes what comes until there is no room, which leaves the call to another `resume`, or nothing comes."""
        try:
            if self._context is None:
                over = self._ends.native.run_generator(call, self._items, self._handler.response_type)
            else:
                over = self._run_with(self._context)
            if not over:
                # From here on the call, and with it all of this, may be another thread's.
                return
            call.state = None
            self._ends.returned(call, self._context)
        except BaseException as error:
            call.state = None
            self._close()
            self._ends.raised(call, self._handler, self._context, error)

    def _run_with(self, context: GrpcContext) -> bool:
        """The same as native code does without a context; False: there is no room."""
        for item in self._items:
            if not isinstance(item, self._handler.response_type):
                raise self._handler.wrong_type(item, "yielded")
            if not context.send(item.SerializeToString(), False):
                return False
        return True

    def _close(self) -> None:
        """Lets the generator's ``finally`` run."""
        close = getattr(self._items, "close", None)
        if close is None:
            return
        try:
            close()
        except BaseException as error:
            _log.error(
                "handler %s of method %s raised when its call was over: %s",
                self._handler.label, self._handler.path, f"{type(error).__name__}: {error}",
            )  # fmt: skip
