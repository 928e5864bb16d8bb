"""What happened between two answers of a server to ``status``, or since it began."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from mindserve.server.statistics import Histogram

Status = Mapping[str, Any]


@dataclasses.dataclass(frozen=True)
class Calls:
    """Calls of a method.

    Attributes:
        name: "servable.method version N", or the gRPC path; behind "split, variation b: " of a variation's, and
            behind "split, copies: " of mirrored ones.
        calls: how many have ended.
        errors: of them, otherwise than "OK", or with an error in the reply.
        rate: that ended, each second.
        error_rate: errors, each second.
        latency: seconds.
    """

    name: str
    calls: int
    errors: int
    rate: float
    error_rate: float
    latency: Histogram


@dataclasses.dataclass(frozen=True)
class Stage:
    """A model or function in one worker.

    Attributes:
        worker: the worker's process.
        name: "model add.onnx".
        batches: run each second.
        sizes: instances in a batch.
        queue: seconds that instances waited.
        run: seconds that batches took.
        failed: instances, in all.
        expired: instances, in all.
    """

    worker: int | None
    name: str
    batches: float
    sizes: Histogram
    queue: Histogram
    run: Histogram
    failed: int
    expired: int


@dataclasses.dataclass(frozen=True)
class Worker:
    """A worker as its server sees it; ``rate`` is of requests, or parts of them, each second."""

    servable: str
    version: int
    device_id: int
    pid: int | None
    state: str
    restarts: int
    in_flight: int
    rate: float
    stages: tuple[Stage, ...]


@dataclasses.dataclass(frozen=True)
class Window:
    """What happened.

    Attributes:
        seconds: in which.
        calls: by method; those that nobody has called are left out.
        workers: all.
        rate: calls of every kind, each second.
        error_rate: of them.
    """

    seconds: float
    calls: tuple[Calls, ...]
    workers: tuple[Worker, ...]
    rate: float
    error_rate: float


def window(now: Status, before: Status | None) -> Window:
    """From ``before`` to ``now``; from the server's beginning if that is None."""
    seconds = now["time"] - before["time"] if before else now["seconds"]
    # As a rate, nothing happens in no time.
    seconds = max(seconds, 1e-3)
    stats, old = now["stats"], before["stats"] if before else None
    methods = {_method_key(each): each for each in old["methods"]} if old else {}
    workers = {each["pid"]: each for each in old["workers"] if each["pid"]} if old else {}
    return Window(
        seconds=seconds,
        calls=tuple(
            _calls(each, methods.get(_method_key(each)), seconds) for each in stats["methods"] if each["ended"]
        ),
        workers=tuple(_worker(each, workers.get(each["pid"]), seconds) for each in stats["workers"]),
        rate=_since(stats, old, "requests") / seconds,
        error_rate=_since(stats, old, "errors") / seconds,
    )


def _method_key(method: Mapping[str, Any]) -> tuple[Any, ...]:
    # A server of an older version knows no variations.
    return tuple(
        method.get(name) for name in ("path", "servable", "version", "method", "split", "variation", "mirrored")
    )


def _calls(now: Mapping[str, Any], before: Mapping[str, Any] | None, seconds: float) -> Calls:
    def count(method: Mapping[str, Any]) -> tuple[int, int]:
        ended = sum(method["ended"].values())
        return ended, ended - method["ended"].get("OK", 0) + method["with_errors"]

    (calls, errors), (calls_before, errors_before) = count(now), count(before) if before else (0, 0)
    name = now["path"]
    if now["servable"]:
        method = f"{now['servable']}.{now['method']}" if now["method"] else f"{now['servable']}, not answered,"
        name = f"{method} version {now['version']}"
    if now.get("split"):
        part = "copies" if now["mirrored"] else f"variation {now['variation']}"
        name = f"{now['split']}, {part}: {name}"
    return Calls(
        name=name or "(unknown methods)",
        calls=calls,
        errors=errors,
        rate=max(0, calls - calls_before) / seconds,
        error_rate=max(0, errors - errors_before) / seconds,
        latency=_histogram(now, before, "latency"),
    )


def _worker(now: Mapping[str, Any], before: Mapping[str, Any] | None, seconds: float) -> Worker:
    # In the order of the worker's making, so that their places tell two functions of one name apart.
    stages = before["stages"] if before else []
    old = [*stages, *[None] * (len(now["stages"]) - len(stages))]
    state = (
        "down" if now["pid"] is None else "draining" if now["draining"] else "ready" if now["ready"] else "not ready"
    )
    return Worker(
        servable=now["servable"],
        version=now["version"],
        device_id=now["device_id"],
        pid=now["pid"],
        state=state,
        restarts=now["restarts"],
        in_flight=now["in_flight"],
        rate=_since(now, before, "requests") / seconds,
        stages=tuple(
            Stage(
                worker=now["pid"],
                name=f"{stage['kind']} {stage['name']}",
                batches=_since(stage, stage_before, "batches") / seconds,
                sizes=_histogram(stage, stage_before, "batch_sizes"),
                queue=_histogram(stage, stage_before, "queue"),
                run=_histogram(stage, stage_before, "run"),
                failed=stage["failed"],
                expired=stage["expired"],
            )
            for stage, stage_before in zip(now["stages"], old, strict=False)
        ),
    )


def _since(now: Mapping[str, Any], before: Mapping[str, Any] | None, name: str) -> int:
    return max(0, int(now[name]) - (int(before[name]) if before else 0))


def _histogram(now: Mapping[str, Any], before: Mapping[str, Any] | None, name: str) -> Histogram:
    values: Mapping[str, Any] = now[name]
    old: Mapping[str, Any] = before[name] if before else {"sum": 0, "buckets": ()}
    known = dict(old["buckets"])
    buckets = ((upper, count - known.get(upper, 0)) for upper, count in values["buckets"])
    kept = tuple((upper, count) for upper, count in buckets if count > 0)
    return Histogram(sum(count for _, count in kept), max(0.0, values["sum"] - old["sum"]), kept)
