"""Warnings that clients can cause: so many of them at most that they don't fill the disk."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

_LINES_A_SECOND = 10


class LimitedLog:
    """Ten lines a second; what is left out is counted. For one thread.

    Args:
        log: where they go.
        now: the time in seconds. Default ``time.monotonic``.
    """

    def __init__(self, log: logging.Logger, now: Callable[[], float] = time.monotonic) -> None:
        self._log = log
        self._now = now
        self._second = 0.0
        self._lines = 0
        self._dropped = 0

    def warn(self, line: str) -> None:
        """Writes a line, or counts it."""
        now = self._now()
        if now - self._second >= 1:
            if self._dropped:
                self._log.warning("%d more warnings like it were left out", self._dropped)
            self._second = now
            self._lines = self._dropped = 0
        if self._lines == _LINES_A_SECOND:
            self._dropped += 1
            return
        self._lines += 1
        self._log.warning("%s", line)
