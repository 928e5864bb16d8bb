"""When a worker that died is started again."""

from __future__ import annotations

import signal

# A worker that was ready is replaced at once, unless so many have died within so many seconds.
_QUICK_DEATHS = 5
_QUICK_WINDOW = 60.0
_FIRST_DELAY = 5.0
_LONGEST_DELAY = 60.0

_TOLD_TO_END = (-signal.SIGINT, -signal.SIGTERM)


class RestartPolicy:
    """How the deaths of one worker and its successors are answered. Times in seconds, by one monotonic clock."""

    def __init__(self) -> None:
        self._delay = 0.0
        self._deaths: list[float] = []

    def after_death(self, returncode: int, *, was_ready: bool, now: float) -> float | None:
        """How long to wait before the next start; None: it was told to end, and so it shall be.

        Args:
            returncode: the exit status, the signal negated if one ended it.
            was_ready: it had been serving.
            now: the time of its death.
        """
        if returncode in _TOLD_TO_END:
            return None
        self._deaths = [death for death in self._deaths if now - death < _QUICK_WINDOW] + [now]
        if was_ready and len(self._deaths) < _QUICK_DEATHS:
            self._delay = 0.0
            return 0.0
        self._delay = min(max(_FIRST_DELAY, 2 * self._delay), _LONGEST_DELAY)
        return self._delay


def describe_exit(returncode: int) -> str:
    """An exit status in words."""
    if returncode >= 0:
        return f"exited with status {returncode}"
    try:
        return f"was ended by {signal.Signals(-returncode).name}"
    except ValueError:
        return f"was ended by signal {-returncode}"
