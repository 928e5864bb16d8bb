"""Log lines that clients can cause: so many of them at most that they don't fill the disk."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

_LINES_A_SECOND = 10
_CHARACTERS_A_SECOND = 64 * 1024


class _Allowance:
    """Ten lines a second, and no other behind 64 Ki characters. For one thread."""

    def __init__(self) -> None:
        self._second = 0.0
        self._lines = 0
        self._characters = 0
        self._dropped = 0

    def take(self, characters: int, now: float) -> int | None:
        """None: the line is to be left out. Else how many were since the last one that was not, in a second before."""
        dropped = 0
        if now - self._second >= 1:
            dropped = self._dropped
            self._second = now
            self._lines = self._characters = self._dropped = 0
        if self._lines == _LINES_A_SECOND or self._characters >= _CHARACTERS_A_SECOND:
            self._dropped += 1
            return None
        self._lines += 1
        self._characters += characters
        return dropped


class LimitedLog:
    """Ten warnings a second; what is left out is counted. For one thread.

    Args:
        log: where they go.
        now: the time in seconds. Default ``time.monotonic``.
    """

    def __init__(self, log: logging.Logger, now: Callable[[], float] = time.monotonic) -> None:
        self._log = log
        self._now = now
        self._allowance = _Allowance()

    def warn(self, line: str) -> None:
        """Writes a line, or counts it."""
        dropped = self._allowance.take(len(line), self._now())
        if dropped is None:
            return
        if dropped:
            self._log.warning("%d more warnings like it were left out", dropped)
        self._log.warning("%s", line)


class LimitedLines(logging.Filter):
    """Of each kind of line, which is the text that is formatted, ten a second; what is left out is counted.

    For a handler. Thread-safe.

    Args:
        name: of the logger whose lines these are, which are of a few kinds; others' are written as they are.
        now: the time in seconds. Default ``time.monotonic``.
    """

    def __init__(self, name: str, now: Callable[[], float] = time.monotonic) -> None:
        super().__init__(name)
        self._now = now
        self._lock = threading.Lock()
        self._kinds: dict[str, _Allowance] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether the line is written; one that follows others that were not says so."""
        if not super().filter(record):
            return True
        text = record.getMessage()
        with self._lock:
            dropped = self._kinds.setdefault(str(record.msg), _Allowance()).take(len(text), self._now())
        if dropped:
            record.msg, record.args = "%s\n%d more like it were left out before", (text, dropped)
        return dropped is not None
