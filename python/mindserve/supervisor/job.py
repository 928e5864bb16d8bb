"""Workers that are started together: which they are, and how far."""

from __future__ import annotations

import dataclasses
import threading
import time
from collections.abc import Sequence
from enum import Enum
from pathlib import Path

from mindserve.control import WorkerParameters


@dataclasses.dataclass(frozen=True)
class WorkerSpec:
    """A worker to run.

    Attributes:
        parameters: what it serves.
        log_path: where it logs.
        start_timeout: seconds that it has to become ready.
        heartbeat_timeout: seconds without a sign of life after which it is replaced.
    """

    parameters: WorkerParameters
    log_path: Path
    start_timeout: float
    heartbeat_timeout: float

    @property
    def key(self) -> tuple[str, int, int]:
        """Servable, version and device: there is at most one worker for each."""
        return (self.parameters.servable_name, self.parameters.version, self.parameters.device_id)

    def __str__(self) -> str:
        name, version, device = self.key
        return f"servable '{name}' version {version} on device {device}"


class Outcome(Enum):
    """How the start of a worker has ended."""

    READY = "ready"
    FAILED = "failed"
    ENDED = "ended"


@dataclasses.dataclass(frozen=True)
class Progress:
    """How far a worker is. Times by ``time.monotonic``.

    Attributes:
        worker: which one.
        phase: what it does.
        begun: when its start began.
        ended: when it became ready, failed, or was ended because another one failed; None while it starts.
        outcome: which of these it was; None while it starts.
    """

    worker: str
    phase: str
    begun: float
    ended: float | None = None
    outcome: Outcome | None = None


@dataclasses.dataclass(frozen=True)
class Replacement:
    """What workers that are started together take the place of.

    Attributes:
        keys: of the workers that are retired once all the new ones take requests.
        drain_timeout: seconds that these have to finish what they hold.
    """

    keys: frozenset[tuple[str, int, int]]
    drain_timeout: float


class StartJob:
    """The workers that are started together: all become ready, or all are ended. Thread-safe.

    Args:
        specs: of the workers.
        replaces: what they take the place of: then none takes requests before all can. Default None: of nothing.
    """

    def __init__(self, specs: Sequence[WorkerSpec], replaces: Replacement | None = None) -> None:
        self.specs = tuple(specs)
        self.replaces = replaces
        self._lock = threading.Lock()
        self._ended = threading.Event()
        now = time.monotonic()
        self._progress = {spec.key: Progress(str(spec), "starting", now) for spec in self.specs}
        self._error = ""

    def wait(self, timeout: float | None = None) -> bool:
        """Whether the job has ended, waiting up to ``timeout`` seconds."""
        return self._ended.wait(timeout)

    @property
    def error(self) -> str:
        """Why it failed; empty if it didn't (yet)."""
        with self._lock:
            return self._error

    def progress(self) -> list[Progress]:
        """How far each worker is, in the order of ``specs``."""
        with self._lock:
            return list(self._progress.values())

    # What follows is for the supervisor's thread.

    def set_phase(self, spec: WorkerSpec, phase: str) -> None:
        self._update(spec, phase=phase)

    def set_ready(self, spec: WorkerSpec) -> bool:
        """Notes that a worker is ready. Returns whether all are now."""
        self._set_outcome(spec, Outcome.READY)
        return all(progress.ended is not None for progress in self.progress())

    def set_failed(self, spec: WorkerSpec, error: str) -> None:
        """Notes that a worker has failed. The first error is the job's."""
        self._set_outcome(spec, Outcome.FAILED)
        self.fail(error)

    def set_ended(self, spec: WorkerSpec) -> None:
        """Notes that a worker is gone because another one has failed."""
        self._set_outcome(spec, Outcome.ENDED)

    def fail(self, error: str) -> None:
        with self._lock:
            self._error = self._error or error

    def end(self) -> None:
        """All workers are ready, or, after an error, all are gone."""
        self._ended.set()

    def _set_outcome(self, spec: WorkerSpec, outcome: Outcome) -> None:
        self._update(spec, phase=outcome.value, ended=time.monotonic(), outcome=outcome)

    def _update(self, spec: WorkerSpec, **changes: object) -> None:
        with self._lock:
            self._progress[spec.key] = dataclasses.replace(self._progress[spec.key], **changes)  # type: ignore[arg-type]
