"""What answers a call, and how a call ends, whichever thread or task it is answered by."""

from __future__ import annotations

import asyncio
import dataclasses
import inspect
from collections.abc import AsyncIterator, Callable, Iterator
from typing import TYPE_CHECKING, Any, Protocol

from mindserve import logs
from mindserve.register.invalid_input import InvalidInput
from mindserve.worker.status import (
    CANCELLED,
    INTERNAL,
    INVALID_ARGUMENT,
    MAX_LOGGED_BYTES,
    UNIMPLEMENTED,
    StatusError,
    describe_error,
    describe_refusal,
    end_of,
    trace_of,
)

if TYPE_CHECKING:
    from google.protobuf.message import Message

    from mindserve._native import ServiceCall
    from mindserve.worker.grpc_context import GrpcContext

# Characters of a value in an error's text, and bits of a number.
_MAX_SHOWN = 200
_DECLARE_ASYNC = "; a function that returns {} should be declared with 'async def'"

_log = logs.get_logger("worker")


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Handler:
    """A user's function with the method that it answers.

    Attributes:
        path: "/pkg.Service/Method".
        label: the function's name, for messages.
        function: called with the request, or an iterator of them, and the context as ``context`` says.
        request_type: class of the client's messages.
        response_type: of the server's.
        client_streaming: the client sends a stream of messages.
        server_streaming: the answer is one.
        context: name of the parameter that takes the context; "" for the second one by its position; None: none does.
        on_loop: it is a coroutine function or an async generator function, for the event loop.
        idempotent: to execute a call again does no harm.
    """

    path: str
    label: str
    function: Callable[..., Any]
    request_type: type[Message]
    response_type: type[Message]
    client_streaming: bool
    server_streaming: bool
    context: str | None
    on_loop: bool
    idempotent: bool

    def parse(self, data: bytes) -> Message:
        """A message of the client's.

        Raises:
            StatusError: the bytes are none; INVALID_ARGUMENT.
        """
        try:
            return self.request_type.FromString(data)
        except Exception as error:
            raise self.not_parsed(error) from error

    def parse_only(self, data: bytes | bool | None) -> Message:
        """The one message of a client that doesn't stream, as `ServiceCall.read` gave it."""
        if not isinstance(data, bytes):
            raise StatusError(UNIMPLEMENTED, f"method {self.path} takes exactly one message, the client sent none")
        return self.parse(data)

    def call(self, argument: Any, context: GrpcContext | None) -> Any:
        """Calls the function, as it wants to be."""
        if self.context is None:
            return self.function(argument)
        if self.context:
            return self.function(argument, **{self.context: context})
        return self.function(argument, context)

    def not_parsed(self, error: BaseException) -> StatusError:
        name = self.request_type.DESCRIPTOR.full_name
        return StatusError(INVALID_ARGUMENT, f"method {self.path}: the message is no {name}: {error}")

    def wrong_type(self, given: Any, verb: str = "returned") -> StatusError:
        """The error for a value that is not what the method answers with; also ends what would go unfinished."""
        expected = self.response_type.DESCRIPTOR.full_name
        if self.server_streaming and verb == "returned":
            expected = f"an iterator of {expected}"
        hint = ""
        if inspect.iscoroutine(given):
            given.close()
            hint = _DECLARE_ASYNC.format("a coroutine")
        elif isinstance(given, AsyncIterator):
            hint = _DECLARE_ASYNC.format("an async iterator")
        elif inspect.isgenerator(given):
            given.close()
        return StatusError(
            INTERNAL, f"method {self.path}: handler {self.label} {verb} {_shown(given)}, expected {expected}{hint}"
        )

    def not_serialized(self, error: BaseException) -> StatusError:
        """The error for what native code says of a value: it is not what the method answers with, or no whole one."""
        text = f"method {self.path}, handler {self.label}: {error}"
        if error.__cause__ is not None:
            text += f": {error.__cause__}"
        hint = _DECLARE_ASYNC.format("a coroutine") if "'coroutine'" in text else ""
        return StatusError(INTERNAL, text + hint)


def _shown(value: Any) -> str:
    """A value's type, and itself where that is short whatever it is."""
    if value is None or isinstance(value, bool | float) or (isinstance(value, int) and value.bit_length() < _MAX_SHOWN):
        return f"{type(value)} ({value!r})"
    if isinstance(value, str):
        return f"{type(value)} ({value[:_MAX_SHOWN]!r}{'…' if len(value) > _MAX_SHOWN else ''})"
    return str(type(value))


class Native(Protocol):
    """What is used of the native module."""

    Cancelled: type[BaseException]
    ResultError: type[BaseException]

    def run_generator(self, call: ServiceCall, iterator: Iterator[Any], response_class: type) -> bool: ...


class Requests:
    """The messages of a client that streams, for a handler on a thread of its own; ends when the client does."""

    __slots__ = ("_call", "_handler")

    def __init__(self, call: ServiceCall, handler: Handler) -> None:
        self._call = call
        self._handler = handler

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        data = self._call.read(True)
        if data is None:
            raise StopIteration
        assert isinstance(data, bytes)
        return self._handler.parse(data)


class Ends:
    """Ends calls: with what their handlers have set, or raised.

    Args:
        native: the native module.
        send_tracebacks: whether an INTERNAL for what a handler raised has the end of its stack trace.
    """

    def __init__(self, native: Native, *, send_tracebacks: bool) -> None:
        self.native = native
        self._send_tracebacks = send_tracebacks

    def returned(self, call: ServiceCall, context: GrpcContext | None) -> None:
        """The handler has returned, and what it gave is written. Raises what it has aborted with."""
        if context is None:
            call.finish()
        else:
            context.finish()

    def answer_one(self, call: ServiceCall, handler: Handler, context: GrpcContext | None, response: Any) -> None:
        """The handler has returned the one message of its answer, or should have. Raises what it has aborted with."""
        if context is not None and context.fails:
            context.finish()
            return
        if not isinstance(response, handler.response_type):
            raise handler.wrong_type(response)
        message = response.SerializeToString()
        if context is None:
            call.write_last(message)
        else:
            context.send(message, False)
            context.finish()

    def raised(self, call: ServiceCall, handler: Handler, context: GrpcContext | None, error: BaseException) -> None:
        """The handler has raised ``error``, which is logged unless it was meant to end the call."""
        if context is not None and context.aborted is not None:
            error = context.aborted
        if isinstance(error, self.native.ResultError):
            error = handler.not_serialized(error)
        if isinstance(error, StatusError):
            code, details = error.code, error.details
            if code == INTERNAL and (context is None or error is not context.aborted):
                _log.error("%s", details)
        elif isinstance(error, self.native.Cancelled):
            code, details = CANCELLED, "the call is gone"
        elif isinstance(error, InvalidInput):
            code, details = INVALID_ARGUMENT, describe_refusal(error)
        elif isinstance(error, asyncio.CancelledError):
            code, details = CANCELLED, f"handler {handler.label} was cancelled"
        else:
            trace = trace_of(error)
            logged = end_of(trace, MAX_LOGGED_BYTES)
            _log.error("handler %s of method %s raised:\n%s", handler.label, handler.path, logged)
            code, details = INTERNAL, describe_error(error, trace, send_traceback=self._send_tracebacks)
        if context is None:
            call.finish(code, details)
        else:
            context.end(code, details)
