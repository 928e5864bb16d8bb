"""Tells the gateway which models loaded on demand this worker holds, so that requests for them come here."""

from __future__ import annotations

import collections
import threading
from collections.abc import Callable, Iterable

from mindserve.register.multiplexing import Multiplexed


def announce_models(loaders: Iterable[Multiplexed], set_model: Callable[[str, bool], None]) -> None:
    """Has ``set_model(id, True)`` called when a model comes to be held, and with False when it is held no more.

    Args:
        loaders: which may hold models of the same ids: each counts.
        set_model: takes what is to be told; quick, any thread.
    """
    held = _Held(set_model)
    for loader in loaders:
        loader.announce = held.announce


class _Held:
    def __init__(self, set_model: Callable[[str, bool], None]) -> None:
        self._set_model = set_model
        self._lock = threading.Lock()
        self._counts: collections.Counter[str] = collections.Counter()

    def announce(self, model_id: str, loaded: bool) -> None:
        # What is told is in the order of the counts: so under their lock.
        with self._lock:
            before = self._counts[model_id]
            after = before + (1 if loaded else -1)
            if after:
                self._counts[model_id] = after
            else:
                del self._counts[model_id]
            if (before == 0) != (after == 0):
                self._set_model(model_id, loaded)
