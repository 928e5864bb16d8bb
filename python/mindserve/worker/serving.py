"""The threads that answer gRPC calls: those of plain functions, and the event loop's."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from mindserve.control import WorkerParameters
from mindserve.register.request import current
from mindserve.worker.answering import Ends, Handler, Native
from mindserve.worker.event_loop import LoopHandlers
from mindserve.worker.handler_watch import HandlerWatch
from mindserve.worker.handlers import ThreadHandlers

if TYPE_CHECKING:
    from mindserve._native import Runtime, ServiceCall
    from mindserve.worker.grpc_context import GrpcContext


class Answering:
    """What there is of threads for the handlers of a worker; none for what it has none of.

    The event loop also hears of calls on handlers' threads that are cancelled, once a handler wants to know.

    Args:
        runtime: with these handlers.
        handlers: by their numbers.
        parameters: how many threads, and what clients are told of errors.
        native: the native module.
        on_death: told of a thread that has ended, and of what; it ends the process.

    Attributes:
        threads: for plain functions, and the one that looks after them; not started.
    """

    def __init__(
        self,
        runtime: Runtime,
        handlers: Mapping[int, Handler],
        parameters: WorkerParameters,
        *,
        native: Native,
        on_death: Callable[[str, BaseException], None],
    ) -> None:
        self._runtime = runtime
        self._handlers = handlers
        self._servable_name = parameters.servable_name
        self._on_death = on_death
        self._ends = Ends(native, send_tracebacks=parameters.send_tracebacks)
        self._plain = ThreadHandlers(handlers, self._ends, self)
        needed = any(not handler.on_loop for handler in handlers.values())
        self.threads = [
            threading.Thread(target=self._run, name=f"handler-{number}", daemon=True)
            for number in range(parameters.handler_threads if needed else 0)
        ]
        self._watch = HandlerWatch(
            runtime,
            f"servable '{parameters.servable_name}'",
            lambda: self._run(extra=True),
            lambda error: on_death("the thread that looks after the handlers'", error),
        )
        if needed:
            self.threads.append(self._watch.thread)
        self._loop_lock = threading.Lock()
        self._loop: LoopHandlers | None = None

    def start_loop(self) -> None:
        """Starts the event loop if there are handlers for it."""
        if any(handler.on_loop for handler in self._handlers.values()):
            self._need_loop()

    def stop_loop(self, timeout: float) -> bool:
        """Cancels what runs on the loop; False: it takes longer than ``timeout`` seconds."""
        with self._loop_lock:
            return self._loop is None or self._loop.stop(timeout)

    def extra_threads(self) -> list[threading.Thread]:
        """Threads that have been started besides; once ``threads`` have ended there come no more."""
        return self._watch.extra_threads()

    def add(self, call: ServiceCall, context: GrpcContext) -> None:
        """Tells a context of a call on a handler's thread when the call is cancelled. Any thread."""
        self._need_loop().add(call, context)

    def remove(self, call: ServiceCall) -> None:
        """The call is over. Any thread."""
        self._need_loop().remove(call)

    def _need_loop(self) -> LoopHandlers:
        with self._loop_lock:
            if self._loop is None:
                self._loop = LoopHandlers(
                    self._runtime,
                    self._servable_name,
                    self._handlers,
                    self._ends,
                    current,
                    lambda error: self._on_death("the event loop", error),
                )
                self._loop.start()
            return self._loop

    def _run(self, extra: bool = False) -> None:
        try:
            self._runtime.run_handlers(self._plain.dispatch, self._plain.failed, current, extra=extra)
        except BaseException as error:
            # With all of them gone calls would wait for ever.
            self._on_death("a handler's thread", error)
