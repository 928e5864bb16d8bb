"""When a worker that died is started again."""

from __future__ import annotations

import signal

from mindserve.control import STAGE_TIMEOUT_STATUS

# A worker that ends within so many seconds of becoming ready, without an answer, may do so again and again.
_CRASH_WINDOW = 1.0
# So many of them in a row may.
_CRASHES_FREE = 1
_FIRST_DELAY = 5.0
_LONGEST_DELAY = 60.0

_TOLD_TO_END = (-signal.SIGINT, -signal.SIGTERM)


class RestartPolicy:
    """How the deaths of one worker and its successors are answered. Times in seconds."""

    def __init__(self) -> None:
        self._delay = 0.0
        self._crashes = 0

    def after_death(self, returncode: int, *, ready_for: float | None, answered: bool) -> float | None:
        """How long to wait before the next start; None: it was told to end, and so it shall be.

        Args:
            returncode: the exit status, the signal negated if one ended it.
            ready_for: how long it had been ready; None: it never was.
            answered: it may have answered a request.
        """
        if returncode in _TOLD_TO_END:
            return None
        if ready_for is not None:
            crashed = ready_for < _CRASH_WINDOW and not answered
            self._crashes = self._crashes + 1 if crashed else 0
            if self._crashes <= _CRASHES_FREE:
                self._delay = 0.0
                return 0.0
        self._delay = min(max(_FIRST_DELAY, 2 * self._delay), _LONGEST_DELAY)
        return self._delay


def describe_exit(returncode: int) -> str:
    """An exit status in words."""
    if returncode == STAGE_TIMEOUT_STATUS:
        return f"exited with status {returncode}: a stage went beyond its timeout, the worker's log says which"
    if returncode >= 0:
        return f"exited with status {returncode}"
    try:
        return f"was ended by {signal.Signals(-returncode).name}"
    except ValueError:
        return f"was ended by signal {-returncode}"
