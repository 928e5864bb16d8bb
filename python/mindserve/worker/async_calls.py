"""Calls that event loops wait for. Apart from the rest, since it imports asyncio."""

from __future__ import annotations

import asyncio
import itertools
import threading
import weakref
from typing import TYPE_CHECKING, Any

from mindserve import native

if TYPE_CHECKING:
    from mindserve._native import DoneCalls, LocalMethod, StreamMethod


class Loops:
    """The event loops whose tasks have made calls. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._loops: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, _Loop] = weakref.WeakKeyDictionary()

    def current(self) -> _Loop:
        """That of the running task."""
        loop = asyncio.get_running_loop()
        known = self._loops.get(loop)
        if known is None:
            known = _Loop(loop, native.load().DoneCalls())
            with self._lock:
                self._loops[loop] = known
        return known


class _Loop:
    """The calls that one loop's tasks wait for. The loop's thread's."""

    def __init__(self, loop: asyncio.AbstractEventLoop, done: DoneCalls) -> None:
        self._done = done
        self._waiting: dict[int, asyncio.Future[None]] = {}
        self._tags = itertools.count()
        # The runtime's thread writes to a descriptor: to schedule something here it would need the interpreter's lock.
        loop.add_reader(done.fd(), self._wake)

    async def run(self, method: LocalMethod | StreamMethod, arguments: Any, *terms: Any) -> Any:
        """What the method gives; ``terms`` as its ``start`` takes them."""
        tag = next(self._tags)
        pending = method.start(arguments, self._done, tag, *terms)
        future = self._waiting[tag] = asyncio.get_running_loop().create_future()
        try:
            await future
        except BaseException:
            self._waiting.pop(tag, None)
            pending.cancel()
            raise
        return pending.result()

    def _wake(self) -> None:
        for tag in self._done.take():
            future = self._waiting.pop(tag, None)
            if future is not None and not future.done():
                future.set_result(None)
