"""How a server's status looks: as tables for a terminal, as lines elsewhere."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mindserve.cli.rates import Status, Window, window

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.table import Table

    from mindserve.server.statistics import Histogram

_STYLES = {"ready": "green", "not ready": "yellow", "draining": "yellow", "down": "red"}


def lines(status: Status) -> list[str]:
    """Everything since the server began, a line for each thing."""
    seen = window(status, None)
    shown = _head(status, seen)
    for worker in seen.workers:
        where = f"servable '{worker.servable}' version {worker.version} on device {worker.device_id}"
        process = f"process {worker.pid}, {worker.state}" if worker.pid else worker.state
        shown.append(f"{where}: {process}, restarted {worker.restarts} times")
        shown += [
            f"  {stage.name}: {stage.sizes.count} batches of {stage.sizes.mean:.1f}, "
            f"queue p50/p99 {_times(stage.queue)}, run p50/p99 {_times(stage.run)}, "
            f"{stage.failed} failed, {stage.expired} late"
            for stage in worker.stages
        ]
    shown += [
        f"{calls.name}: {calls.calls} calls, {calls.errors} with errors, latency p50/p99 {_times(calls.latency)}"
        for calls in seen.calls
    ]
    return shown + _troubles(status)


def render(now: Status, before: Status | None) -> RenderableType:
    """What happened from ``before``, or since the server began, to ``now``, as tables."""
    from rich.console import Group
    from rich.text import Text

    seen = window(now, before)
    parts: list[RenderableType] = [Text("\n".join(_head(now, seen)))]
    parts += [Text(""), _workers(seen), Text(""), _stages(seen)]
    if seen.calls:
        parts += [Text(""), _calls(seen)]
    parts += [Text(trouble, "yellow") for trouble in _troubles(now)]
    return Group(*parts)


def _head(status: Status, seen: Window) -> list[str]:
    return [
        f"process {status['pid']}: {status['state']}, for {status['seconds']:.0f} s",
        f"listens on {', '.join(status['addresses']) or 'nothing'}",
        f"{status['connections']} connections, {status['in_flight']} requests in flight, "
        f"{status['stats']['enqueued_bytes'] / 2**20:.1f} MiB",
        f"{seen.rate:.1f} calls/s, {seen.error_rate:.1f} errors/s, over {seen.seconds:.0f} s",
    ]


def _troubles(status: Status) -> list[str]:
    stats = status["stats"]
    shown = [f"refused by {name}: {count}" for name, count in stats["refused"].items() if count]
    for servable in stats["servables"]:
        if servable["reload_error"]:
            shown.append(f"servable '{servable['servable']}' could not be reloaded: {servable['reload_error']}")
    for certificate in stats["certificates"]:
        if certificate["reload_error"]:
            shown.append(f"certificate of {certificate['address']} was not reloaded: {certificate['reload_error']}")
    return shown


def _table(*columns: str) -> Table:
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold", show_edge=False)
    for number, column in enumerate(columns):
        table.add_column(column.removeprefix("<"), justify="left" if column.startswith("<") or not number else "right")
    return table


def _workers(seen: Window) -> Table:
    from rich.text import Text

    table = _table("worker", "<state", "process", "restarts", "in flight", "requests/s")
    for worker in seen.workers:
        table.add_row(
            Text(f"{worker.servable} v{worker.version} device {worker.device_id}"),
            Text(worker.state, _STYLES[worker.state]),
            str(worker.pid or "–"),
            str(worker.restarts),
            str(worker.in_flight),
            f"{worker.rate:.1f}",
        )
    return table


def _stages(seen: Window) -> Table:
    from rich.text import Text

    table = _table("stage", "process", "batches/s", "size", "queue p50/p99", "run p50/p99", "failed", "late")
    for worker in seen.workers:
        for stage in worker.stages:
            table.add_row(
                Text(stage.name),
                str(worker.pid or "–"),
                f"{stage.batches:.1f}",
                f"{stage.sizes.mean:.1f}",
                _times(stage.queue),
                _times(stage.run),
                str(stage.failed),
                str(stage.expired),
            )
    return table


def _calls(seen: Window) -> Table:
    from rich.text import Text

    table = _table("method", "calls", "calls/s", "errors", "errors/s", "p50/p99")
    for calls in seen.calls:
        table.add_row(
            Text(calls.name),
            str(calls.calls),
            f"{calls.rate:.1f}",
            str(calls.errors),
            f"{calls.error_rate:.1f}",
            _times(calls.latency),
        )
    return table


def _times(times: Histogram) -> str:
    """The median and the 99th of 100, with a unit; a dash without values."""
    if not times.count:
        return "–"
    values = times.quantile(0.5), times.quantile(0.99)
    for factor, unit in ((1, "s"), (1e3, "ms"), (1e6, "µs")):
        if values[1] * factor >= 1 or unit == "µs":
            break
    return "/".join(f"{value * factor:.3g}" for value in values) + f" {unit}"
