"""A place for a worker and its successors."""

from __future__ import annotations

import dataclasses

from mindserve.control import ReadyMethod, ReadyService
from mindserve.supervisor.job import StartJob, WorkerSpec
from mindserve.supervisor.process import WorkerProcess
from mindserve.supervisor.restart import RestartPolicy


@dataclasses.dataclass(eq=False)
class Slot:
    """A place for a worker and its successors. Owned by the supervisor's thread. Times by ``time.monotonic``.

    Attributes:
        spec: what runs there.
        origin: the start that made it, which ends it if another worker of that start fails; None once it is retired.
        job: the start that waits for it; None once nothing waits.
        policy: says when a successor is started.
        process: the worker; None between two of them.
        restart_at: when a successor is started; None: not to be started.
        drain_until: when a worker that is retired is told to end though it holds requests; None: it is not retired, or
            has been told.
        kill_at: when a worker that was told to end is killed.
        starts: how many workers have been started here.
        retired: another slot has taken its place: its worker finishes what it holds, and has no successor.
        services: the gRPC services that its latest worker that was ready answers; None: there has been none.
        methods: of its latest worker that was ready.
        streaming: the names of those of them whose results come one by one.
    """

    spec: WorkerSpec
    origin: StartJob | None
    job: StartJob | None
    policy: RestartPolicy = dataclasses.field(default_factory=RestartPolicy)
    process: WorkerProcess | None = None
    restart_at: float | None = None
    drain_until: float | None = None
    kill_at: float | None = None
    starts: int = 0
    retired: bool = False
    services: tuple[ReadyService, ...] | None = None
    methods: tuple[ReadyMethod, ...] = ()
    streaming: frozenset[str] = frozenset()

    def state(self) -> WorkerState:
        process = self.process
        name, version, device_id = self.spec.key
        ready = process is not None and process.attached and not process.error and self.kill_at is None
        return WorkerState(
            servable=name,
            version=version,
            device_id=device_id,
            number=process.number if process else None,
            pid=process.pid if process else None,
            ready=ready and not self.retired,
            draining=self.retired,
            restarts=max(0, self.starts - 1),
        )


@dataclasses.dataclass(frozen=True)
class WorkerState:
    """How it stands with a worker, or with the place for one.

    Attributes:
        servable: what it serves.
        version: of it.
        device_id: where.
        number: by which the gateway knows it; None between two workers.
        pid: of its process; None between two workers.
        ready: whether it takes requests.
        draining: whether another has taken its place, so that it finishes what it holds and ends.
        restarts: how often a successor was started.
    """

    servable: str
    version: int
    device_id: int
    number: int | None
    pid: int | None
    ready: bool
    draining: bool
    restarts: int
