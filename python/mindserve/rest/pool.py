"""Threads for what would hold up the event loop."""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import Callable
from typing import Any, TypeVar

T = TypeVar("T")


class _Work:
    """A call; without its function when nobody waits for it any more."""

    __slots__ = ("done", "function")

    def __init__(self, function: Callable[[], Any], done: asyncio.Future[Any]) -> None:
        self.function: Callable[[], Any] | None = function
        self.done = done


class Pool:
    """A few threads that call functions for an event loop, in the order in which they were asked.

    Those of ``concurrent.futures`` take nothing more once the main thread has ended, and a start script ends before its
    server does.

    Args:
        threads: how many.
    """

    def __init__(self, threads: int) -> None:
        self._queue: queue.SimpleQueue[_Work | None] = queue.SimpleQueue()
        self._threads = [
            threading.Thread(target=self._run, name=f"mindserve-rest-{number}", daemon=True)
            for number in range(threads)
        ]
        for thread in self._threads:
            thread.start()

    async def call(self, function: Callable[[], T]) -> T:
        """What the function gives, called in one of the threads. One that is not waited for any more may not be."""
        done: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        work = _Work(function, done)
        self._queue.put(work)
        try:
            return await done
        finally:
            # What the function holds is not to wait for its turn when nobody does, nor with what was raised here.
            work.function = None
            del function, work, done

    def close(self) -> None:
        """Ends the threads, after what they do now."""
        for _ in self._threads:
            self._queue.put(None)
        for thread in self._threads:
            thread.join()

    def _run(self) -> None:
        while (work := self._queue.get()) is not None:
            function, done = work.function, work.done
            if function is None or done.cancelled():
                del work, function, done
                continue
            try:
                result, error = function(), None
            except Exception as caught:
                result, error = None, caught
            loop = done.get_loop()
            if not loop.is_closed():
                loop.call_soon_threadsafe(_settle, done, result, error)
            del work, function, done, result, error


def _settle(done: asyncio.Future[Any], result: Any, error: Exception | None) -> None:
    if done.cancelled():
        return
    if error is None:
        done.set_result(result)
    else:
        done.set_exception(error)
