"""What the native module's calls do, as far as handlers see, for tests of handlers without a link."""

from __future__ import annotations

import collections
import contextvars
import os
import threading
import time
from collections.abc import Callable
from typing import Any

OPENED, READABLE, WRITABLE, CANCELLED = 1, 2, 4, 8


class Gone(Exception):
    """As the native ``Cancelled``."""


class ResultError(TypeError):
    """As the native one."""


class StandIn:
    """As the native module."""

    Cancelled = Gone
    ResultError = ResultError

    @staticmethod
    def run_generator(call: StandInCall, iterator: Any, response_class: type) -> bool:
        for item in iterator:
            if not isinstance(item, response_class):
                raise ResultError(f"the handler gave a value of type '{type(item).__name__}', expected '…'")
            if not call.write(item.SerializeToString(), False):
                return False
        return True


class StandInCall:
    """A call of which the test is the client and the gateway.

    Args:
        runtime: where its events go.
        method: number of the handler.
        messages: what the client sends at once.
        ends: the client sends no more.
        room: messages that may be written before a write gives False; each `take` makes room for one more.
    """

    def __init__(
        self,
        runtime: StandInRuntime,
        method: int,
        messages: tuple[bytes, ...] = (),
        *,
        ends: bool = True,
        room: int = 1000,
        metadata: tuple[tuple[str, str | bytes], ...] = (),
        auth: dict[str, list[bytes]] | None = None,
        seconds: float | None = None,
        request_id: str = "id-1",
        model_id: str = "",
        plain: bool = False,
    ) -> None:
        self.method = method
        self.request_id = request_id
        self.model_id = model_id
        self.plain = plain  # takes nothing compressed
        self.peer = "ipv4:127.0.0.1:1"
        self.client = 7
        self.deadline = None if seconds is None else time.monotonic() + seconds
        self.state: Any = None
        self.cancelled = False
        self.initial: tuple[list[tuple[str, str | bytes]], bool] | None = None
        self.end: tuple[int, str, list[tuple[str, str | bytes]]] | None = None
        self.compressed: list[bool] = []
        self.on_loop = runtime.on_loop[method]
        self.refused = False
        self._runtime = runtime
        self._metadata = metadata
        self._auth = auth or {}
        self._in = collections.deque(messages)
        self._half_closed = ends
        self._out: collections.deque[bytes] = collections.deque()
        self._room = room
        self._wants = False
        self._watched = False
        self._changed = threading.Condition()

    # -- The handler's side --------------------------------------------------------------------------------------------

    def watch_cancel(self) -> None:
        with self._changed:
            self._watched = True

    def metadata(self) -> list[tuple[str, str | bytes]]:
        return list(self._metadata)

    def auth(self) -> dict[str, list[bytes]]:
        return self._auth

    def read(self, wait: bool) -> bytes | bool | None:
        with self._changed:
            while True:
                if self._gone():
                    raise Gone
                if self._in:
                    return self._in.popleft()
                if self._half_closed:
                    return None
                if not wait:
                    self._wants = True
                    return False
                assert self._changed.wait(60)

    def write(self, message: bytes, wait: bool, compressed: bool = False) -> bool:
        assert type(message) is bytes
        with self._changed:
            if self._gone():
                raise Gone
            self._out.append(message)
            self.compressed.append(compressed)
            self._room -= 1
            self._changed.notify_all()
            self.refused = self._room <= 0
            return not self.refused

    def write_last(self, message: bytes, /) -> None:
        with self._changed:
            if not self._gone():
                self.write(message, False)
                self.finish()

    def send_initial(self, metadata: Any, compressed: bool) -> None:
        with self._changed:
            assert self.initial is None
            assert not self._out
            self.initial = list(metadata), compressed
            self._changed.notify_all()

    def finish(self, code: int = 0, details: str = "", trailing: Any = ()) -> None:
        with self._changed:
            if not self._gone():
                self.end = code, details, list(trailing)
                self._changed.notify_all()

    def _gone(self) -> bool:
        return self.cancelled or self.end is not None

    # -- The client's side ---------------------------------------------------------------------------------------------

    def send(self, message: bytes | None) -> None:
        """A message; None: no more come."""
        with self._changed:
            if message is None:
                self._half_closed = True
            else:
                self._in.append(message)
            wanted, self._wants = self._wants, False
            self._changed.notify_all()
        if wanted and self.on_loop:
            self._runtime.notify(self, READABLE)

    def take(self) -> bytes:
        """The next message of the answer; waits for it."""
        with self._changed:
            assert self._changed.wait_for(lambda: self._out, 60), self.end
            message = self._out.popleft()
            self._room += 1
            resumes = self.refused and self._room > 0
            if resumes:
                self.refused = False
        if resumes:
            self._runtime.notify(self, WRITABLE)
        return message

    def taken(self) -> int:
        """Messages of the answer that are there."""
        with self._changed:
            return len(self._out)

    def cancel(self) -> None:
        with self._changed:
            self.cancelled = True
            resumes, self.refused = self.refused, False
            self._changed.notify_all()
        if self.on_loop or resumes:
            self._runtime.notify(self, CANCELLED)
        if self._watched and not self.on_loop:
            self._runtime.notify_loop(self, CANCELLED)

    def ended(self) -> tuple[int, str, list[tuple[str, str | bytes]]]:
        """How it has ended; waits for that."""
        with self._changed:
            assert self._changed.wait_for(lambda: self.end is not None, 60)
        assert self.end is not None
        return self.end


class StandInRuntime:
    """Threads that take calls, and events for a loop. ``on_loop``: of each handler, by its number."""

    def __init__(self, on_loop: list[bool]) -> None:
        self.on_loop = on_loop
        self.models: list[tuple[str, bool]] = []
        self._fd = os.eventfd(0, os.EFD_NONBLOCK)
        self._events: dict[StandInCall, int] = {}
        self._line: collections.deque[StandInCall] = collections.deque()
        self._changed = threading.Condition()
        self._stopped = False

    def open(self, call: StandInCall) -> StandInCall:
        self.notify(call, OPENED)
        return call

    def notify(self, call: StandInCall, events: int) -> None:
        if call.on_loop:
            return self.notify_loop(call, events)
        with self._changed:
            self._line.append(call)
            self._changed.notify_all()

    def notify_loop(self, call: StandInCall, events: int) -> None:
        with self._changed:
            self._events[call] = self._events.get(call, 0) | events
            os.eventfd_write(self._fd, 1)

    def stop(self) -> None:
        with self._changed:
            self._stopped = True
            self._changed.notify_all()

    # -- As the native runtime -----------------------------------------------------------------------------------------

    def loop_fd(self) -> int:
        return self._fd

    def take_loop_events(self) -> list[tuple[StandInCall, int]]:
        with self._changed:
            if self._events:
                os.eventfd_read(self._fd)
            events, self._events = self._events, {}
        return list(events.items())

    def set_model(self, model_id: str, loaded: bool) -> None:
        self.models.append((model_id, loaded))

    def await_needs(self, stuck: bool) -> None:
        with self._changed:
            self._changed.wait_for(lambda: self._stopped)

    def run_handlers(
        self,
        dispatch: Callable[[Any], None],
        on_error: Callable[[Any, BaseException, str], None],
        current: Any,
        *,
        extra: bool,
    ) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._line or self._stopped)
                if not self._line:
                    return
                call = self._line.popleft()
            current.set(call)
            # As native code does: an error here is nobody's.
            contextvars.copy_context().run(dispatch, call)
            current.set(None)
