"""Notices that something holds up the event loop, and says what."""

from __future__ import annotations

import asyncio
import contextlib
import os
import select
import sys
import threading
import time
import traceback
from collections.abc import Callable

from mindserve import logs

# How long the loop may take to come round. It is asked so much later than it has last answered.
LIMIT = 1.0
_PERIOD = 0.5
_MAX_FRAMES = 30

_log = logs.get_logger("worker")


class LoopWatch:
    """A thread that asks the loop whether it comes round, while calls are open or wait to be taken; else it sleeps.

    Args:
        loop: what to watch.
        fd: readable while calls wait for the loop.
        is_busy: whether calls are open; from any thread.
        name: whose loop it is, for the log.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, fd: int, is_busy: Callable[[], bool], name: str) -> None:
        self._loop = loop
        self._fd = fd
        self._is_busy = is_busy
        self._name = name
        self._asleep = False
        self._wake_fd = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._stopped = threading.Event()
        self._came_round = threading.Event()
        self._watched: threading.Thread | None = None
        self._thread = threading.Thread(target=self._run, name="event-loop-watch", daemon=True)

    def start(self, thread: threading.Thread) -> None:
        """Begins to watch; ``thread`` runs the loop."""
        self._watched = thread
        self._thread.start()

    def stop(self) -> None:
        """Stops watching. Doesn't wait."""
        self._stopped.set()
        self._came_round.set()
        os.eventfd_write(self._wake_fd, 1)

    def busy(self) -> None:
        """Calls are open from now on. Costs nothing if there were some already, or just now."""
        if self._asleep:
            self._asleep = False
            os.eventfd_write(self._wake_fd, 1)

    def _run(self) -> None:
        poller = select.poll()
        poller.register(self._fd, select.POLLIN)
        poller.register(self._wake_fd, select.POLLIN)
        while not self._stopped.is_set():
            self._asleep = True
            # In this order: what becomes busy in between wakes it.
            if not self._is_busy():
                poller.poll()
            self._asleep = False
            with contextlib.suppress(BlockingIOError):
                os.eventfd_read(self._wake_fd)
            self._watch()

    def _watch(self) -> None:
        """Watches for as long as there are calls."""
        while not self._stopped.is_set():
            asked = time.monotonic()
            self._came_round.clear()
            try:
                self._loop.call_soon_threadsafe(self._came_round.set)
            except RuntimeError:  # it is closed
                self._stopped.set()
                return
            if not self._came_round.wait(LIMIT) and not self._stopped.is_set():
                self._report()
                self._came_round.wait()
                if not self._stopped.is_set():
                    _log.warning(
                        "the event loop of %s goes on, after %.1f s", self._name, time.monotonic() - asked
                    )  # fmt: skip
            self._stopped.wait(_PERIOD)
            if not self._is_busy():
                return

    def _report(self) -> None:
        assert self._watched is not None
        frame = sys._current_frames().get(self._watched.ident or 0)
        stack = "".join(traceback.format_stack(frame, _MAX_FRAMES)) if frame is not None else "  (none)\n"
        _log.error(
            "the event loop of %s has not come round for %.0f s: all its calls wait for what its thread does. What "
            "computes or waits without 'await' belongs into a plain function, which gets a thread, or into "
            "asyncio.to_thread. The thread's stack:\n%s",
            self._name, LIMIT, stack.rstrip(),
        )  # fmt: skip
