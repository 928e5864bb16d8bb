"""Keeps the workers of servables that run up to date with the servables' directories."""

from __future__ import annotations

import concurrent.futures
import dataclasses
import enum
import os
import threading
import time
from collections.abc import Callable, Hashable, Mapping, Sequence
from pathlib import Path

from mindserve import config, logs
from mindserve.config import ServableStartConfig
from mindserve.errors import ConfigError, MindserveError, StartError
from mindserve.server.servables import Key, Started, make_specs, resolve
from mindserve.server.statistics import ServableStats
from mindserve.server.watch import FileWatch, snapshot_files
from mindserve.supervisor import Supervisor

# Seconds without a change after which what is in the file system counts as whole.
_SETTLE = 1.0
# Seconds that `Reloader.join` waits in all: a file system of the network may hang.
_JOIN_TIMEOUT = 10.0

# No newer version than the one that is loaded.
_NO_VERSION: tuple[int, tuple[Hashable, ...]] = (0, ())

_log = logs.get_logger("reload")


class Scope(enum.IntEnum):
    """What a reload is for; a greater one includes the smaller."""

    NEW_VERSION = 1  # a new version directory: those that were started with version number 0 and `hot_reload`
    SOURCES = 2  # other ``*.py`` files: all with `hot_reload`
    ALL = 3  # the user says so


@dataclasses.dataclass(eq=False)
class _Servable:
    """A servable that was started. Guarded by the reloader's lock, apart from the thread's own.

    Attributes:
        name: of it.
        directory: its own.
        started: what was asked for, and what is served for it.
        keys: of the workers.
        sources: its ``*.py`` files as they were when they were last loaded, or could not be.
        settled: the newest version that has come to rest; 0: none since the start.
        waiting: reloads that were asked for and have not begun.
        thread: does them; None while there are none.
    """

    name: str
    directory: Path
    sources: Hashable
    started: list[Started] = dataclasses.field(default_factory=list)
    keys: frozenset[Key] = frozenset()
    settled: int = 0
    waiting: list[tuple[Scope, concurrent.futures.Future[None]]] = dataclasses.field(default_factory=list)
    thread: threading.Thread | None = None
    watches_sources: bool = False
    watches_versions: bool = False
    reloads: int = 0
    failed: int = 0
    error: str = ""

    def loaded_version(self) -> int:
        """What is served for version number 0 where new versions are looked for."""
        return min((each.version for each in self.started if _follows_versions(each.config)), default=0)


class Reloader:
    """Loads servables anew while they are served: when told to, and when their files have changed.

    For each servable one reload runs at a time; what is asked for meanwhile is done in one more. Thread-safe.

    Args:
        supervisor: of the workers.
        watch: looks at the files. Its owner's to close.
        drain_timeout: tells the seconds that replaced workers have to finish what they hold.
        internal_address: tells where the gateway answers its own workers; empty: nowhere.
    """

    def __init__(
        self,
        supervisor: Supervisor,
        watch: FileWatch,
        drain_timeout: Callable[[], float],
        internal_address: Callable[[], str],
    ) -> None:
        self._supervisor = supervisor
        self._watch = watch
        self._drain_timeout = drain_timeout
        self._internal_address = internal_address
        self._lock = threading.Lock()
        # By their directories: the name alone may have been started from several.
        self._servables: dict[Path, _Servable] = {}
        self._threads: list[threading.Thread] = []
        self._closed = False

    def look(self, configs: Sequence[ServableStartConfig]) -> Mapping[Path, Hashable]:
        """The sources of servables that are about to be started: what changes from now on is a change."""
        return {directory: _snapshot_sources(directory) for directory in map(_directory, configs)}

    def add(self, started: Sequence[Started], sources: Mapping[Path, Hashable]) -> None:
        """Takes over servables that have been started, with what `look` told before."""
        with self._lock:
            for each in started:
                directory = _directory(each.config)
                servable = self._servables.get(directory)
                if servable is None:
                    servable = _Servable(each.config.servable_name, directory, sources[directory])
                    self._servables[directory] = servable
                # Once more after its workers have been told to end.
                servable.started = [other for other in servable.started if other.config != each.config]
                servable.started.append(each)
                servable.keys |= frozenset(each.worker_keys())
                self._watch_files(servable, each.config)

    def reload(self, name: str | None) -> None:
        """See `mindserve.server.reload`."""
        with self._lock:
            servables = [each for each in self._servables.values() if name in (None, each.name)]
            if name is not None and not servables:
                known = ", ".join(f"'{each}'" for each in sorted({each.name for each in self._servables.values()}))
                raise ConfigError(
                    f"Parameter 'servable_name' should be a servable that has been started, but actually '{name}'; "
                    f"started are: {known or 'none'}"
                )
            futures = [self._ask(each, Scope.ALL) for each in servables]
        while concurrent.futures.wait(futures, timeout=1).not_done:
            pass  # In slices, so that a signal's handler runs in between.
        errors = [str(error) for future in futures if (error := future.exception()) is not None]
        if errors:
            raise StartError("\n".join(errors))

    def stats(self) -> list[ServableStats]:
        """Of each servable, by name and directory."""
        with self._lock:
            return [
                ServableStats(
                    servable=servable.name,
                    directory=str(servable.directory),
                    versions=tuple(sorted({each.version for each in servable.started})),
                    reloads=servable.reloads,
                    reloads_failed=servable.failed,
                    reload_error=servable.error,
                )
                for servable in sorted(self._servables.values(), key=lambda each: (each.name, each.directory))
            ]

    def close(self) -> None:
        """Begins nothing any more. Returns at once; see `join`."""
        with self._lock:
            self._closed = True

    def join(self) -> None:
        """Waits a while for the reload that is under way, which ends with the supervisor."""
        deadline = time.monotonic() + _JOIN_TIMEOUT
        with self._lock:
            threads = list(self._threads)
        for thread in threads:
            thread.join(max(0.0, deadline - time.monotonic()))

    def _watch_files(self, servable: _Servable, item: ServableStartConfig) -> None:
        if item.hot_reload and not servable.watches_sources:
            servable.watches_sources = True
            self._watch.add(
                lambda: _snapshot_sources(servable.directory),
                lambda: self._on_sources(servable),
                _SETTLE,
                accepted=servable.sources,
            )
        if _follows_versions(item) and not servable.watches_versions:
            servable.watches_versions = True
            self._watch.add(
                lambda: self._snapshot_newer_version(servable),
                lambda: self._on_version(servable),
                _SETTLE,
                accepted=_NO_VERSION,
            )

    def _snapshot_newer_version(self, servable: _Servable) -> tuple[int, tuple[Hashable, ...]]:
        with self._lock:
            loaded = servable.loaded_version()
        newest = config.find_version(str(servable.directory.parent), servable.name, 0)
        if newest is None or newest <= loaded:
            return _NO_VERSION
        files = _snapshot_tree(servable.directory / str(newest))
        return (newest, files) if files else _NO_VERSION

    def _on_sources(self, servable: _Servable) -> None:
        now = _snapshot_sources(servable.directory)
        with self._lock:
            # `reload` may have been told of the change already.
            if now == servable.sources or self._closed:
                return
            self._ask(servable, Scope.SOURCES)
        _log.info("servable '%s' has changed, and is loaded anew", servable.name)

    def _on_version(self, servable: _Servable) -> None:
        version, _ = self._snapshot_newer_version(servable)
        with self._lock:
            # Also that there is none any more: one of the same number that comes later has to come to rest anew.
            servable.settled = version
            if not version or self._closed:
                return
            self._ask(servable, Scope.NEW_VERSION)
        _log.info("servable '%s' has the new version %d, which is loaded", servable.name, version)

    def _ask(self, servable: _Servable, scope: Scope) -> concurrent.futures.Future[None]:
        """Has a reload done. Under the lock."""
        if self._closed:
            raise StartError("the server is being stopped")
        future: concurrent.futures.Future[None] = concurrent.futures.Future()
        servable.waiting.append((scope, future))
        if servable.thread is None:
            servable.thread = threading.Thread(
                target=self._work, args=(servable,), name="mindserve-reload", daemon=True
            )
            self._threads = [thread for thread in self._threads if thread.is_alive()]
            self._threads.append(servable.thread)
            servable.thread.start()
        return future

    def _work(self, servable: _Servable) -> None:
        """Thread of its own: does what has been asked for."""
        while True:
            with self._lock:
                asked, servable.waiting = servable.waiting, []
                if not asked:
                    servable.thread = None
                    return
                closed = self._closed
            error = "the server is being stopped" if closed else self._attempt(servable, max(each for each, _ in asked))
            for _, future in asked:
                if error:
                    future.set_exception(StartError(error))
                else:
                    future.set_result(None)

    def _attempt(self, servable: _Servable, scope: Scope) -> str:
        """Reloads once. Returns why it failed; empty if it did not."""
        error = ""
        try:
            done = self._reload(servable, scope)
        except MindserveError as caught:
            error = f"Reload of servable '{servable.name}' failed, the workers that ran before go on: {caught}"
        except Exception as caught:
            _log.exception("a fault in reloading servable '%s'", servable.name)
            error = f"Reload of servable '{servable.name}' failed: {type(caught).__name__}: {caught}"
        with self._lock:
            if error:
                servable.failed += 1
            elif done:
                servable.reloads += 1
            servable.error = error
            closed = self._closed
        if error and not closed:
            _log.error("%s", error)
        return error

    def _reload(self, servable: _Servable, scope: Scope) -> bool:
        """Returns whether there was anything to do."""
        with self._lock:
            before, running = list(servable.started), servable.keys
        after = [self._update(servable, each, scope) for each in before]
        if scope >= Scope.SOURCES:
            sources = _snapshot_sources(servable.directory)
            with self._lock:
                servable.sources = sources
        # Workers whose sources have not changed, and whose version stays, go on.
        renewed = [each for each in after if scope >= Scope.SOURCES and _takes_part(each.config, scope)]
        kept = running - {key for each in renewed for key in each.worker_keys()}
        others = [state for state in self._supervisor.states() if state.servable != servable.name and state.pid]
        specs = [spec for spec in make_specs(after, len(others), self._internal_address()) if spec.key not in kept]
        replaced = running - (kept & {key for each in after for key in each.worker_keys()})
        if not specs and not replaced:
            return False
        job = self._supervisor.replace(replaced, specs, self._drain_timeout())
        job.wait()
        if job.error:
            raise StartError(job.error)
        with self._lock:
            # Others may have been started meanwhile.
            for old, new in zip(before, after, strict=True):
                servable.started = [new if each is old else each for each in servable.started]
            servable.keys = (servable.keys - replaced) | {spec.key for spec in specs}
        versions = ", ".join(str(version) for version in sorted({spec.key[1] for spec in specs}))
        _log.info("servable '%s' is loaded anew, version %s", servable.name, versions or "as before")
        return True

    def _update(self, servable: _Servable, each: Started, scope: Scope) -> Started:
        """What is to be served for a config from now on."""
        if not _takes_part(each.config, scope):
            return each
        new = dataclasses.replace(resolve(each.config), directory=each.directory)
        # A version that is still being written is left alone, unless the user says otherwise.
        unfinished = new.version > each.version and new.version != servable.settled
        return each if scope < Scope.ALL and unfinished else new


def _takes_part(item: ServableStartConfig, scope: Scope) -> bool:
    if scope == Scope.NEW_VERSION:
        return _follows_versions(item)
    return item.hot_reload or scope == Scope.ALL


def _follows_versions(item: ServableStartConfig) -> bool:
    return item.hot_reload and item.version_number == 0


def _directory(item: ServableStartConfig) -> Path:
    return Path(item.servable_directory) / item.servable_name


def _snapshot_sources(directory: Path) -> tuple[Hashable, ...]:
    """Of the ``*.py`` files that lie in a servable's directory."""
    names = {entry.name for entry in os.scandir(directory) if entry.name.endswith(".py")}
    return snapshot_files(directory / name for name in sorted(names | {"servable_config.py"}))


def _snapshot_tree(directory: Path) -> tuple[Hashable, ...]:
    """Of all that lies in a version directory; empty if it holds no file: then it is only about to be filled."""
    files: list[str] = []
    folders: list[str] = []
    for folder, subfolders, names in os.walk(directory):
        files += (os.path.join(folder, name) for name in names)
        folders += (os.path.join(folder, name) for name in subfolders)
    return snapshot_files(sorted(files) + sorted(folders)) if files else ()
