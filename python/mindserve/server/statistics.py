"""What `mindserve.server.stats` returns."""

from __future__ import annotations

import dataclasses
import datetime
from collections.abc import Mapping, Sequence
from typing import Any

from mindserve.supervisor import WorkerState


@dataclasses.dataclass(frozen=True)
class Histogram:
    """How often values of which size came.

    Values in a bucket are at most an eighth apart; whole numbers up to 15 have one each.

    Attributes:
        count: how many values.
        sum: of all values.
        buckets: (upper bound, how many values), ascending, without the empty ones.
    """

    count: int
    sum: float
    buckets: tuple[tuple[float, int], ...]

    @property
    def mean(self) -> float:
        """0.0 without values."""
        return self.sum / self.count if self.count else 0.0

    def quantile(self, q: float) -> float:
        """An upper bound, at most an eighth too high, of the smallest share ``q`` of the values; 0.0 without values.

        Times beyond 18 minutes share a bucket without an end: its bound is of no use.

        Args:
            q: 0 to 1; 0.5 for the median.
        """
        seen = 0
        for upper, count in self.buckets:
            seen += count
            if seen >= q * self.count:
                return upper
        return 0.0


@dataclasses.dataclass(frozen=True)
class MethodStats:
    """Calls of one method that are over, since the server began, whatever workers have come and gone.

    Attributes:
        path: of the gRPC method, "/mindspore.serving.proto.MSService/Predict"; empty for calls of unknown ones.
        servable: for Predict and for users' services; empty where the request named none that is served.
        version: that answered; 0 where there was none, and for versions that were served long ago.
        method: of the servable; for users' services the gRPC method's name without the service. Empty where no method
            was found to answer.
        split: the name that the client asked for, where its calls are split between variations; else empty.
        variation: which of them this is; ``servable`` and ``version`` are its own. Calls are counted in one place only:
            those that come by a split are not counted as the servable's own.
        mirrored: these are copies of calls of ``split``; they are no part of what `Stats` counts in all.
        ended: calls by gRPC status code, such as "OK" or "DEADLINE_EXCEEDED"; one that its client cancelled counts as
            "CANCELLED".
        with_errors: of those that ended "OK", how many had an error for an instance or for the whole request.
        errors: those errors by the code that the client saw: "INVALID_INPUT" (2), "FAILED" (1), "SYSTEM_ERROR" (3),
            "WORKER_UNAVAILABLE" (4), "SERVABLE_UNAVAILABLE" (5).
        instances: that were sent to workers.
        bytes_in: of the request messages.
        bytes_out: of the reply messages.
        latency: seconds from a call's headers to its answer.
    """

    path: str
    servable: str
    version: int
    method: str
    split: str
    variation: str
    mirrored: bool
    ended: Mapping[str, int]
    with_errors: int
    errors: Mapping[str, int]
    instances: int
    bytes_in: int
    bytes_out: int
    latency: Histogram


@dataclasses.dataclass(frozen=True)
class ServableStats:
    """How it stands with the reloading of a servable.

    Attributes:
        servable: its name.
        directory: its own, which holds ``servable_config.py``.
        versions: that are served from there.
        reloads: how often other workers have taken the place of those that ran.
        reloads_failed: how often this failed, so that those that ran went on.
        reload_error: why the last one failed; empty if it did not, or there was none.
    """

    servable: str
    directory: str
    versions: tuple[int, ...]
    reloads: int
    reloads_failed: int
    reload_error: str


@dataclasses.dataclass(frozen=True)
class StageStats:
    """What a model, or a stage function with its batch size, has done in one worker, for all methods that use it.

    Handlers of users' services are told of in the same way: a call that has ended, if it was not cancelled, is a batch
    of one.

    Attributes:
        kind: "model", "function" or "handler".
        name: the model's file, the function's name, or the path that the handler answers, "/pkg.Service/Method".
        batches: how many were run.
        instances: that were in them.
        batch_sizes: instances in a batch.
        queue: seconds that an instance waited for its batch.
        run: seconds that a batch took.
        failed: instances that it answered with an error.
        expired: instances that were dropped before they ran, since their deadline had passed or could not be kept any
            more, and those that ``refuse_late`` refused.
    """

    kind: str
    name: str
    batches: int
    instances: int
    batch_sizes: Histogram
    queue: Histogram
    run: Histogram
    failed: int
    expired: int


@dataclasses.dataclass(frozen=True)
class WorkerStats:
    """A worker, or the place for one that is being started again.

    Attributes:
        servable: what it serves.
        version: of it.
        device_id: where.
        pid: process id; None between two workers.
        ready: whether it takes requests.
        draining: whether another has taken its place after a reload, so that it finishes what it holds and ends.
        restarts: how often a successor was started here after a death.
        requests: that were sent to this worker, or parts of them.
        in_flight: instances that it holds.
        stages: of this worker; a successor begins anew.
    """

    servable: str
    version: int
    device_id: int
    pid: int | None
    ready: bool
    draining: bool
    restarts: int
    requests: int
    in_flight: int
    stages: tuple[StageStats, ...]


@dataclasses.dataclass(frozen=True)
class CertificateStats:
    """The certificate that a listener shows, and what it verifies its clients by. Times are in UTC.

    Attributes:
        address: the listener's.
        file: the certificate's.
        expires: when.
        ca_expires: when the first of the authorities' certificates does; None: clients are not verified.
        crl_next_update: when the first of the revocation lists has to be replaced; None: there is none, or it says no
            such time.
        loaded: when what new connections get now was read.
        reload_error: why what is in the files now was not taken; None: it was.
    """

    address: str
    file: str
    expires: datetime.datetime
    ca_expires: datetime.datetime | None
    crl_next_update: datetime.datetime | None
    loaded: datetime.datetime
    reload_error: str | None


@dataclasses.dataclass(frozen=True)
class Stats:
    """What the server has done since it began, and holds now.

    Attributes:
        requests: gRPC calls begun, of every service.
        replies: of them, ended with status OK.
        errors: ended otherwise, or cancelled.
        in_flight: Predict requests held now, as max_enqueued_requests counts them.
        enqueued_bytes: held now, as max_enqueued_bytes counts them.
        connections: open now.
        connections_accepted: so far.
        refused: how often each limit refused or ended something, by its name.
        methods: every method that a worker served or a client called.
        workers: every worker.
        servables: every servable that was started.
        certificates: of the listeners with TLS.
    """

    requests: int
    replies: int
    errors: int
    in_flight: int
    enqueued_bytes: int
    connections: int
    connections_accepted: int
    refused: Mapping[str, int]
    methods: tuple[MethodStats, ...]
    workers: tuple[WorkerStats, ...]
    servables: tuple[ServableStats, ...]
    certificates: tuple[CertificateStats, ...]

    def as_dict(self) -> dict[str, Any]:
        """The same as plain dicts, tuples and strings, for JSON."""
        values = dataclasses.asdict(self)
        for certificate in values["certificates"]:
            for name, value in certificate.items():
                if isinstance(value, datetime.datetime):
                    certificate[name] = value.isoformat()
        return values


def make_stats(
    native: Mapping[str, Any],
    workers: Sequence[WorkerState],
    servables: Sequence[ServableStats],
    certificates: Sequence[CertificateStats],
) -> Stats:
    """Puts together what the native gateway counts and what the supervisor knows.

    Args:
        native: of the gateway; csrc/bindings/gateway.cc makes it.
        workers: of the supervisor.
        servables: of the reloader.
        certificates: of the listeners.
    """
    counted = {worker["id"]: worker for worker in native["workers"]}
    return Stats(
        requests=native["requests"],
        replies=native["replies"],
        errors=native["errors"],
        in_flight=native["in_flight"],
        enqueued_bytes=native["enqueued_bytes"],
        connections=native["connections"],
        connections_accepted=native["accepted"],
        refused=native["refused"],
        methods=tuple(_method(method) for method in native["methods"]),
        workers=tuple(_worker(state, counted.get(state.number)) for state in workers),
        servables=tuple(servables),
        certificates=tuple(certificates),
    )


def _method(native: Mapping[str, Any]) -> MethodStats:
    values = dict(native)
    return MethodStats(latency=_seconds(values.pop("latency_ns")), **values)


def _worker(state: WorkerState, native: Mapping[str, Any] | None) -> WorkerStats:
    return WorkerStats(
        servable=state.servable,
        version=state.version,
        device_id=state.device_id,
        pid=state.pid,
        ready=state.ready,
        draining=state.draining,
        restarts=state.restarts,
        requests=native["requests"] if native else 0,
        in_flight=native["load"] if native else 0,
        stages=tuple(_stage(stage) for stage in native["stages"]) if native else (),
    )


def _stage(native: Mapping[str, Any]) -> StageStats:
    count, total, buckets = native["batch_sizes"]
    return StageStats(
        kind=native["kind"],
        name=native["name"],
        batches=count,
        instances=total,
        batch_sizes=Histogram(count, total, tuple(buckets)),
        queue=_seconds(native["queue_ns"]),
        run=_seconds(native["run_ns"]),
        failed=native["failed"],
        expired=native["expired"],
    )


def _seconds(native: tuple[int, int, list[tuple[int, int]]]) -> Histogram:
    count, total, buckets = native
    return Histogram(count, total / 1e9, tuple((upper / 1e9, number) for upper, number in buckets))
