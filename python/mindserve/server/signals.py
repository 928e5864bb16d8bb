"""SIGINT and SIGTERM while a server runs."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any

from mindserve import logs

_SIGNALS = (signal.SIGINT, signal.SIGTERM)

_log = logs.get_logger("server")


class SignalWatch:
    """Tells the server that runs of SIGINT and SIGTERM; lives as long as the process.

    Handlers belong to the main thread: until `install` has been called there, the signals do what they did. A signal is
    heard of through a socket that Python's own handler writes to (``signal.set_wakeup_fd``), since what is written in
    Python runs only when the main thread comes to it: late in a long native call, and perhaps never while it waits for
    the other threads at the end of the start script.

    When a server has stopped because of a signal, and the main thread still runs the user's code, `deliver` brings it
    there: to the handler that was there before (``KeyboardInterrupt`` for SIGINT), or as ``SystemExit(0)`` for SIGTERM.
    """

    def __init__(self) -> None:
        self._on_signal: Callable[[int], None] | None = None
        self._previous: dict[int, Any] = {}
        self._read, self._write = socket.socketpair()
        self._write.setblocking(False)
        self._thread: threading.Thread | None = None
        self._warned = False

    def begin(self, on_signal: Callable[[int], None]) -> None:
        """From now on ``on_signal`` is called for each signal, from a thread of this object's."""
        self._on_signal = on_signal

    def install(self) -> None:
        """Takes the signals over, if not done before. From another thread than the main it only warns, once."""
        if self._previous:
            return
        if threading.current_thread() is not threading.main_thread():
            if not self._warned:
                self._warned = True
                _log.warning(
                    "the server is started from thread '%s': SIGINT and SIGTERM, which only the main thread can take "
                    "over, do what they did before, and calls in flight are not waited for; have the main thread start "
                    "something too, or call mindserve.server.stop() before the process ends",
                    threading.current_thread().name,
                )
            return
        if self._thread is None:
            self._thread = threading.Thread(target=self._listen, name="mindserve-signals", daemon=True)
            self._thread.start()
            # A child made by os.fork has the handlers but no server; its signals must not be taken for this process's.
            os.register_at_fork(after_in_child=self._give_back)
        for number in _SIGNALS:
            self._previous[number] = signal.signal(number, self._handle)
        before = signal.set_wakeup_fd(self._write.fileno(), warn_on_full_buffer=False)
        if before != -1:
            signal.set_wakeup_fd(before)  # An event loop's; then the handler has to do.

    def end(self) -> None:
        """The server has stopped: gives the signals back. From another thread than the main: at the next signal."""
        self._on_signal = None
        if threading.current_thread() is threading.main_thread():
            self._give_back()

    def deliver(self, number: int) -> None:
        """The server has stopped because of a signal: gives it to the main thread, if it still runs.

        After a handover, too, of a server that has not taken the signals over: then it does there what it always did.
        """
        self._on_signal = None
        main = threading.main_thread()
        if main.is_alive() and main.ident is not None:
            signal.pthread_kill(main.ident, number)

    def _listen(self) -> None:
        while True:
            for number in self._read.recv(64):
                self._tell(number)

    def _tell(self, number: int) -> None:
        on_signal = self._on_signal
        # Other signals come too, if they have handlers in Python.
        if on_signal is None or number not in _SIGNALS:
            return
        try:
            on_signal(number)
        except Exception:
            _log.exception("a fault in handling a signal")

    def _handle(self, number: int, frame: FrameType | None) -> None:
        """The main thread has come to the signal."""
        if self._on_signal is not None:
            if not self._owns_wakeup():
                with contextlib.suppress(BlockingIOError):
                    self._write.send(bytes((number,)))
            return
        if not threading.main_thread().is_alive():
            return  # The interpreter is ending already.
        previous = self._previous.get(number)
        self._give_back()
        if callable(previous):
            previous(number, frame)
        elif previous != signal.SIG_IGN:
            raise SystemExit(0)

    def _owns_wakeup(self) -> bool:
        """Whether the interpreter writes to this object's socket; only an exchange tells. Main thread."""
        ours = self._write.fileno()
        current = signal.set_wakeup_fd(ours, warn_on_full_buffer=False)
        if current != ours:
            signal.set_wakeup_fd(current)
        return current == ours

    def _give_back(self) -> None:
        """Main thread, or the only one of a new child."""
        self._on_signal = None
        previous, self._previous = self._previous, {}
        if not previous:
            return
        for number, handler in previous.items():
            # Someone may have taken it since; then it is theirs.
            if signal.getsignal(number) == self._handle:
                signal.signal(number, signal.SIG_DFL if handler is None else handler)
        current = signal.set_wakeup_fd(-1)
        if current != self._write.fileno():
            signal.set_wakeup_fd(current)
