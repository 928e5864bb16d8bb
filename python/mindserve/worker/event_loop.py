"""Answers calls on an event loop, in a thread of its own: coroutines and async generators, a task for each call."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import sys
import threading
from collections.abc import AsyncIterator, Callable, Mapping
from typing import TYPE_CHECKING, Any

from mindserve import logs
from mindserve.worker.answering import Ends, Handler
from mindserve.worker.grpc_context import GrpcContext, end_of_stream
from mindserve.worker.loop_watch import LoopWatch

if TYPE_CHECKING:
    from mindserve._native import Runtime, ServiceCall

OPENED, READABLE, WRITABLE, CANCELLED = 1, 2, 4, 8

# Where there are such tasks (3.12): one whose coroutine never has to wait costs little more than the coroutine.
_EAGER: dict[str, Any] = {"eager_start": True} if sys.version_info >= (3, 12) else {}

_log = logs.get_logger("worker")


class LoopHandlers:
    """The event loop, and what it does with calls.

    Args:
        runtime: where calls come from; `loop_fd` and `take_loop_events` of it are used.
        servable_name: for the log.
        handlers: by their numbers.
        ends: how calls end.
        current: set to the call before its handler's code runs.
        on_death: called in the loop's thread with what ended it against all expectation.
    """

    def __init__(
        self,
        runtime: Runtime,
        servable_name: str,
        handlers: Mapping[int, Handler],
        ends: Ends,
        current: contextvars.ContextVar[Any],
        on_death: Callable[[BaseException], None],
    ) -> None:
        self.loop = asyncio.new_event_loop()
        self._runtime = runtime
        self._handlers = handlers
        self._ends = ends
        self._current = current
        self._on_death = on_death
        self._fd = runtime.loop_fd()
        self._thread = threading.Thread(target=self._run, name="event-loop", daemon=True)
        self._answers: set[_Answer] = set()
        self._watched: dict[ServiceCall, GrpcContext] = {}
        self._watch = LoopWatch(self.loop, self._fd, lambda: bool(self._answers), f"servable '{servable_name}'")

    def start(self) -> None:
        """Begins to answer."""
        self._thread.start()
        self._watch.start(self._thread)

    def stop(self, timeout: float) -> bool:
        """Cancels what still runs, and waits for the end of it; False: it takes longer than ``timeout`` seconds."""
        self._watch.stop()
        with contextlib.suppress(RuntimeError):  # it has ended by itself
            self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join(timeout)
        return not self._thread.is_alive()

    def _run(self) -> None:
        asyncio.set_event_loop(self.loop)
        self.loop.add_reader(self._fd, self._take)
        try:
            self.loop.run_forever()
            self.loop.remove_reader(self._fd)
            rest = asyncio.all_tasks(self.loop)
            for task in rest:
                task.cancel()
            self.loop.run_until_complete(asyncio.gather(*rest, return_exceptions=True))
            self.loop.run_until_complete(self.loop.shutdown_asyncgens())
        except BaseException as error:
            self._on_death(error)
        finally:
            self.loop.close()

    def _take(self) -> None:
        try:
            for call, events in self._runtime.take_loop_events():
                answer = call.state
                if isinstance(answer, _Answer):
                    answer.wake(events)
                elif events & CANCELLED:
                    watched = self._watched.get(call)
                    if watched is not None:
                        watched.over()
                elif events & OPENED:
                    self._open(call)
        except BaseException as error:
            # Calls may have been lost, which nothing here can mend.
            self._on_death(error)

    def _open(self, call: ServiceCall) -> None:
        handler = self._handlers[call.method]
        answer = _Answer(self, call, handler)
        call.state = answer
        # The loop knows its tasks only weakly.
        self._answers.add(answer)
        self._watch.busy()
        # The task takes its context from here.
        self._current.set(call)
        task = asyncio.Task(answer.run(), loop=self.loop, name=handler.label, **_EAGER)
        self._current.set(None)
        if not task.done():
            answer.task = task

    def add(self, call: ServiceCall, context: GrpcContext) -> None:
        """Tells a context of a call that is answered on a handler's thread when the call is cancelled. Any thread."""
        self._watched[call] = context
        call.watch_cancel()
        if call.cancelled:
            # It may have been before.
            context.over()

    def remove(self, call: ServiceCall) -> None:
        """The call is over. Any thread."""
        self._watched.pop(call, None)

    def closed(self, answer: _Answer) -> None:
        answer.call.state = None
        answer.task = None
        self._answers.discard(answer)

    def raised(self, answer: _Answer, error: BaseException) -> None:
        self._ends.raised(answer.call, answer.handler, answer.context, error)

    def returned(self, answer: _Answer) -> None:
        self._ends.returned(answer.call, answer.context)

    def answer_one(self, answer: _Answer, response: Any) -> None:
        self._ends.answer_one(answer.call, answer.handler, answer.context, response)

    @property
    def cancelled(self) -> type[BaseException]:
        return self._ends.native.Cancelled


class _Answer:
    """The answer of one call. Only for the loop's thread."""

    __slots__ = ("_begun", "_cancelled", "_owner", "_readable", "_writable", "call", "context", "handler", "task")

    def __init__(self, owner: LoopHandlers, call: ServiceCall, handler: Handler) -> None:
        self.call = call
        self.handler = handler
        self.context: LoopContext | None = None
        self.task: asyncio.Task[None] | None = None
        self._owner = owner
        self._begun = False
        self._cancelled = False
        self._readable: asyncio.Future[None] | None = None
        self._writable: asyncio.Future[None] | None = None

    def wake(self, events: int) -> None:
        """Something has happened to the call."""
        if events & CANCELLED:
            self._cancelled = True
            if self.context is not None:
                self.context.over()
            if self.task is not None:
                self.task.cancel()
                if not self._begun:
                    # The task throws the cancellation into `run` before its first line.
                    self._owner.closed(self)
            return
        if events & READABLE and self._readable is not None and not self._readable.done():
            self._readable.set_result(None)
        if events & WRITABLE and self._writable is not None and not self._writable.done():
            self._writable.set_result(None)

    def wake_waiting(self) -> None:
        """The call has been ended: whoever waits for it to go on learns so by trying again. Any thread."""
        with contextlib.suppress(RuntimeError):  # the loop is closed
            self._owner.loop.call_soon_threadsafe(self.wake, READABLE | WRITABLE)

    async def run(self) -> None:
        """The body of the call's task."""
        self._begun = True
        handler = self.handler
        try:
            if handler.context is not None:
                self.context = LoopContext(self)
            argument: Any
            if handler.client_streaming:
                argument = LoopRequests(self)
            else:
                data = self.call.read(False)
                argument = handler.parse_only(await self.read() if data is False else data)
            result = handler.call(argument, self.context)
            if handler.server_streaming:
                await self._stream(result)
                self._owner.returned(self)
            else:
                self._owner.answer_one(self, await result)
        except BaseException as error:
            self._owner.raised(self, error)
        finally:
            self._owner.closed(self)

    async def read(self) -> bytes | None:
        """The client's next message; None: it has sent its last one."""
        data = self.call.read(False)
        while data is False:
            if self._readable is not None:
                raise RuntimeError(f"the messages of method {self.handler.path} are being read by another task")
            self._readable = self._owner.loop.create_future()
            try:
                await self._readable
            finally:
                self._readable = None
            data = self.call.read(False)
        assert not isinstance(data, bool)
        return data

    async def until_writable(self) -> None:
        """Waits for room after a write that gave False."""
        if self._writable is not None:
            # Another task waits for it, too, and is not to be cancelled with this one.
            await asyncio.shield(self._writable)
            return
        self._writable = self._owner.loop.create_future()
        try:
            await self._writable
        finally:
            self._writable = None

    async def _stream(self, result: Any) -> None:
        if not hasattr(result, "__aiter__"):
            result = await result
        if hasattr(result, "__aiter__"):
            await self._stream_async(result)
        elif result is None and self.context is not None:
            return  # it has written by its context, or set a status
        else:
            try:
                items = iter(result)
            except TypeError:
                raise self.handler.wrong_type(result) from None
            for item in items:
                if not self._write(item):
                    await self.until_writable()

    async def _stream_async(self, items: AsyncIterator[Any]) -> None:
        try:
            async for item in items:
                if not self._write(item):
                    await self.until_writable()
        except BaseException as error:
            if self._cancelled and isinstance(error, self._owner.cancelled):
                _log.error("handler %s of method %s yielded after its call was cancelled", *self._names())
            await self._close(items)
            raise

    def _write(self, item: Any) -> bool:
        if not isinstance(item, self.handler.response_type):
            raise self.handler.wrong_type(item, "yielded")
        send = self.call.write if self.context is None else self.context.send
        return send(item.SerializeToString(), False)

    async def _close(self, items: Any) -> None:
        """Lets the generator's ``finally`` run, if it hasn't."""
        close = getattr(items, "aclose", None)
        if close is None:
            return
        try:
            await close()
        except BaseException as error:
            _log.error(
                "handler %s of method %s raised when its call was over: %s",
                *self._names(), f"{type(error).__name__}: {error}",
            )  # fmt: skip

    def _names(self) -> tuple[str, str]:
        return self.handler.label, self.handler.path


class LoopRequests:
    """The messages of a client that streams, for ``async for``; ends when the client does."""

    __slots__ = ("_answer",)

    def __init__(self, answer: _Answer) -> None:
        self._answer = answer

    def __aiter__(self) -> AsyncIterator[Any]:
        return self

    async def __anext__(self) -> Any:
        data = await self._answer.read()
        if data is None:
            raise StopAsyncIteration
        return self._answer.handler.parse(data)


class LoopContext(GrpcContext):
    """The context of a call that is answered on the event loop."""

    __slots__ = ("_answer",)

    def __init__(self, answer: _Answer) -> None:
        super().__init__(answer.call, answer.handler)
        self._answer = answer

    def cancel(self) -> bool:
        ended = super().cancel()
        if ended:
            self._answer.wake_waiting()
        return ended

    async def read(self) -> Any:
        """The client's next message; ``grpc.aio.EOF`` when it has sent its last one."""
        data = await self._answer.read()
        return end_of_stream() if data is None else self._answer.handler.parse(data)

    async def write(self, message: Any) -> None:
        """Sends a message of a stream; waits while the client has not taken what it was sent."""
        if not isinstance(message, self._answer.handler.response_type):
            raise self._answer.handler.wrong_type(message, "wrote")
        if not self.send(message.SerializeToString(), False):
            await self._answer.until_writable()
