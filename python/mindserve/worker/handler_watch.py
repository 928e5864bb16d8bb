"""Looks after the handler threads: starts extra ones when they are needed, and says when all are stuck."""

from __future__ import annotations

import sys
import threading
import time
import traceback
from collections.abc import Callable
from typing import TYPE_CHECKING

from mindserve import logs

if TYPE_CHECKING:
    from mindserve._native import Runtime

# Slow handlers under load may be called stuck again and again: so many seconds are kept between two reports.
QUIET = 60.0
_MAX_FRAMES = 30
_MAX_STACKS = 8

_log = logs.get_logger("worker")


class HandlerWatch:
    """A thread that sleeps until the native side needs it.

    Args:
        runtime: whose handlers.
        name: whose they are, for the log.
        run: the body of an extra thread.
        on_death: told of what has ended this thread against all expectation.
    """

    def __init__(
        self,
        runtime: Runtime,
        name: str,
        run: Callable[[], None],
        on_death: Callable[[BaseException], None],
    ) -> None:
        self._runtime = runtime
        self._name = name
        self._run_extra = run
        self._on_death = on_death
        self._extra: list[threading.Thread] = []
        self._started = 0
        self._reported = -QUIET
        self.thread = threading.Thread(target=self._run, name="handler-watch", daemon=True)

    def extra_threads(self) -> list[threading.Thread]:
        """Those that run. After the runtime's end and this thread's there come no more."""
        return [thread for thread in self._extra if thread.is_alive()]

    def _run(self) -> None:
        try:
            stuck, since = False, None
            while (needs := self._runtime.await_needs(stuck)) is not None:
                threads, stuck = needs
                if threads:
                    self._start(threads)
                if stuck and since is None and time.monotonic() - self._reported >= QUIET:
                    since = self._reported = time.monotonic()
                    self._report()
                elif not stuck and since is not None:
                    _log.warning(
                        "the handler threads of %s go on, after %.1f s more", self._name, time.monotonic() - since
                    )
                    since = None
        except BaseException as error:
            self._on_death(error)

    def _start(self, count: int) -> None:
        self._extra = self.extra_threads()
        for begun in range(count):
            thread = threading.Thread(target=self._run_extra, name=f"handler-extra-{self._started}", daemon=True)
            try:
                thread.start()
            except RuntimeError as error:
                _log.error(
                    "%s needs %d more threads for calls that come back from servables which its handlers have called, "
                    "but none can be started: %s. They wait for ordinary threads, or until it works",
                    self._name, count - begun, error,
                )  # fmt: skip
                self._runtime.threads_failed(count - begun)
                return
            self._started += 1
            self._extra.append(thread)

    def _report(self) -> None:
        waiting, held = self._runtime.held_handlers()
        frames = sys._current_frames()
        # What threads do that do the same is said once.
        groups: dict[tuple[str, str], list[float]] = {}
        for thread, path, seconds in held:
            frame = frames.get(thread)
            stack = "".join(traceback.format_stack(frame, _MAX_FRAMES)) if frame is not None else "  (none)\n"
            groups.setdefault((path, stack), []).append(seconds)
        del frames
        largest = sorted(groups.items(), key=lambda group: -len(group[1]))
        told = "".join(
            f"{len(times)} in the handler of {path}, for {min(times):.1f} to {max(times):.1f} s:\n{stack}"
            for (path, stack), times in largest[:_MAX_STACKS]
        )
        if len(largest) > _MAX_STACKS:
            told += f"and {sum(len(times) for _, times in largest[_MAX_STACKS:])} others\n"
        _log.error(
            "none of the handler threads of %s has taken a call for some seconds, and %d wait: all are held by their "
            "handlers. If these only wait, 'handler_threads' may be more, or they may be coroutines. %d threads:\n%s",
            self._name, waiting, len(held), told.rstrip(),
        )  # fmt: skip
