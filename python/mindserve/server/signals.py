"""SIGINT and SIGTERM while a server runs."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class SignalWatch:
    """Tells a server of SIGINT and SIGTERM, and when it has stopped, lets the main thread have them as before.

    Handlers belong to the main thread: installed from another, there are none, and the signals do what they did. The
    handler itself only hands the signal on. When the server has stopped because of one, and the main thread still runs
    the user's code, `deliver` brings it there: SIGINT as ``KeyboardInterrupt``, SIGTERM as ``SystemExit(0)``, or the
    handler that was there before.
    """

    def __init__(self, on_signal: Callable[[int], None]) -> None:
        self._on_signal: Callable[[int], None] | None = on_signal
        self._previous: dict[int, Any] = {}
        # A child made by os.fork has the handlers but no server.
        self._pid = os.getpid()

    def install(self) -> None:
        """Takes the signals over, if called from the main thread and not done before."""
        if threading.current_thread() is not threading.main_thread() or self._previous:
            return
        for number in _SIGNALS:
            self._previous[number] = signal.signal(number, self._handle)

    def deliver(self, number: int) -> None:
        """From any thread: gives the main thread, if it still runs, the signal that ended the server."""
        self._on_signal = None
        main = threading.main_thread()
        if self._previous and main.is_alive() and main.ident is not None:
            signal.pthread_kill(main.ident, number)

    def restore(self) -> None:
        """Gives the signals back to those who had them. From another thread than the main: at the next signal."""
        self._on_signal = None
        if threading.current_thread() is not threading.main_thread():
            return
        for number, previous in self._previous.items():
            # Someone may have taken it since; then it is theirs.
            if signal.getsignal(number) == self._handle:
                signal.signal(number, signal.SIG_DFL if previous is None else previous)
        self._previous.clear()

    def _handle(self, number: int, frame: FrameType | None) -> None:
        on_signal = self._on_signal
        if on_signal is not None and os.getpid() == self._pid:
            on_signal(number)
            return
        if not threading.main_thread().is_alive():
            return  # The interpreter is ending already.
        previous = self._previous.get(number)
        self.restore()
        if callable(previous):
            previous(number, frame)
        elif previous != signal.SIG_IGN:
            raise SystemExit(0) if os.getpid() == self._pid else SystemExit(128 + number)
