"""Notices that files have changed."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Hashable, Iterable

from mindserve import logs

# Seconds that `FileWatch.close` waits: a file system of the network may hang, and an end of the server must not.
_CLOSE_TIMEOUT = 10.0

_log = logs.get_logger("watch")

Snapshot = Callable[[], Hashable]


class WatchHandle:
    """What `FileWatch.add` watches. For `FileWatch.remove`; the rest is its watch's."""

    def __init__(self, snapshot: Snapshot, on_change: Callable[[], None], settle: float, accepted: Hashable) -> None:
        self._snapshot = snapshot
        self._on_change = on_change
        self._settle = settle
        self._accepted = accepted
        self._pending: Hashable = accepted
        self._since = 0.0
        self._fault = ""
        self.removed = False

    def poll(self, now: float) -> None:
        """Looks once, and calls ``on_change`` if something else than before has been there for long enough."""
        try:
            seen = self._snapshot()
        except Exception as error:
            self._report(f"can't look for changes, the last known state holds: {type(error).__name__}: {error}")
            return
        self._fault = ""
        if seen == self._accepted:
            self._pending = seen
            return
        if seen != self._pending:
            self._pending, self._since = seen, now
        # Accepted before the call: what changes during it counts, and what fails isn't tried for ever.
        if now - self._since >= self._settle and not self.removed:
            self._accepted = seen
            try:
                self._on_change()
            except Exception:
                _log.exception("a fault in taking in a change")

    def _report(self, fault: str) -> None:
        # Not at each look.
        if fault != self._fault:
            self._fault = fault
            _log.warning("%s", fault)


class FileWatch:
    """Calls back when files have changed, once they have come to rest.

    It looks again and again, in one daemon thread that exists only while something is watched: what the kernel tells of
    changes (inotify) doesn't cover network file systems, nor a symbolic link that is pointed elsewhere, as Kubernetes
    does with config maps and secrets. Thread-safe.

    Args:
        interval: seconds between looks. Default 0.5.
        now: the time in seconds. Default ``time.monotonic``.
    """

    def __init__(self, *, interval: float = 0.5, now: Callable[[], float] = time.monotonic) -> None:
        self._interval = interval
        self._now = now
        self._changed = threading.Condition()
        # Guarded by the condition:
        self._watched: list[WatchHandle] = []
        self._thread: threading.Thread | None = None
        self._closed = False

    def add(
        self,
        snapshot: Snapshot,
        on_change: Callable[[], None],
        settle: float = 1.0,
        *,
        accepted: Hashable | None = None,
    ) -> WatchHandle:
        """Watches what ``snapshot`` tells of; see `snapshot_files`.

        Both functions are called from the watch's thread, and hold up all else that is watched while they run. An
        exception of theirs is logged: after one of ``snapshot`` the last known state holds; one of ``on_change`` is no
        reason to call it again before the next change.

        Args:
            snapshot: the present state.
            on_change: called when the state is another than at the last call and has been the same for ``settle``
                seconds.
            settle: seconds. Default 1; 0: at once.
            accepted: the state that is known already. Default None: the present one; if ``snapshot`` fails now, the
                first one that it gives is a change.

        Returns:
            What `remove` takes. After `close` it is watched no more than anything else.
        """
        if accepted is None:
            try:
                accepted = snapshot()
            except Exception as error:
                _log.warning("can't look for changes: %s: %s", type(error).__name__, error)
                accepted = object()
        handle = WatchHandle(snapshot, on_change, settle, accepted)
        with self._changed:
            if self._closed:
                return handle
            self._watched.append(handle)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="mindserve-watch", daemon=True)
                self._thread.start()
        return handle

    def remove(self, handle: WatchHandle) -> None:
        """Watches it no more. A call of its ``on_change`` that has begun goes on. No-op if it was removed before."""
        with self._changed:
            handle.removed = True
            if handle in self._watched:
                self._watched.remove(handle)
            self._changed.notify_all()

    def close(self) -> None:
        """Watches nothing any more. Waits a while for an ``on_change`` that has begun, unless called by that one."""
        with self._changed:
            self._closed = True
            for handle in self._watched:
                handle.removed = True
            self._watched.clear()
            thread = self._thread
            self._changed.notify_all()
        if thread is not None and thread is not threading.current_thread():
            thread.join(_CLOSE_TIMEOUT)

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: not self._watched, self._interval)
                if not self._watched:
                    self._thread = None
                    return
                watched = list(self._watched)
            for handle in watched:
                if not handle.removed:
                    handle.poll(self._now())


def snapshot_files(paths: Iterable[str | os.PathLike[str]]) -> tuple[Hashable, ...]:
    """What tells one state of files from another, in the order of ``paths``; one that is missing is a state too.

    Links are followed. It is by size, time of last change, permissions and identity, not by content: a file that is
    replaced by an equal one has changed.
    """
    return tuple((os.fspath(path), _file_state(path)) for path in paths)


def _file_state(path: str | os.PathLike[str]) -> Hashable:
    try:
        status = os.stat(path)
    except OSError as error:
        return error.errno
    return (status.st_dev, status.st_ino, status.st_mode, status.st_size, status.st_mtime_ns)
