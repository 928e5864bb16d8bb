"""How often somebody may fail to get a token."""

from __future__ import annotations

import collections
import math
import time
from collections.abc import Callable, Hashable

# Of one key by one peer, and of one peer by any keys: at once, and each minute again.
PER_KEY = 10
PER_PEER = 60
# Peers and keys that are remembered; of more, those that failed last.
_MOST = 10_000


class Attempts:
    """Counts failures, by key and peer. For one thread.

    Args:
        now: the time in seconds. Default ``time.monotonic``.
    """

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        # When each will have made up for its failures, one each 60 / limit seconds; the last that failed at the end.
        self._even: collections.OrderedDict[Hashable, float] = collections.OrderedDict()

    def wait(self, key: str, peer: str) -> int:
        """Seconds until another attempt; 0: now."""
        now = self._now()
        longest = 0.0
        for place, limit in _places(key, peer):
            each = 60 / limit
            longest = max(longest, self._even.get(place, now) - now - (limit - 1) * each)
        return math.ceil(longest) if longest > 1e-6 else 0

    def failed(self, key: str, peer: str) -> None:
        """Counts one that failed."""
        now = self._now()
        for place, limit in _places(key, peer):
            self._even[place] = max(self._even.get(place, now), now) + 60 / limit
            self._even.move_to_end(place)
        while len(self._even) > _MOST:
            self._even.popitem(last=False)


def _places(key: str, peer: str) -> tuple[tuple[Hashable, int], tuple[Hashable, int]]:
    return ((peer, key), PER_KEY), ((peer,), PER_PEER)
