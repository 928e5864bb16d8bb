"""The sweeps: how cost grows with the work."""

from __future__ import annotations

import functools
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from typing import Any

import numpy as np
from calls import Call, add
from cases import small_add
from idle import IdleConnections, idle_connections
from load import Pattern, Running
from models import FIRST, make_copies
from processes import available_bytes, process_tree, proportional_bytes, resident_bytes
from report import FIGURES, Column, Panel, Plot, Section
from rounds import Case, Timing, measure, progress
from servers import Served, Servers

_MB = 1e6

_RATE = Panel("rate", "requests/s")
_CPU = Panel("cpu_us", "CPU µs/request")
_P50 = Panel("p50_us", "p50, µs")


def run_sweeps(names: Sequence[str], servers: Servers, timing: Timing) -> Iterator[tuple[str, Section]]:
    """Measures the sweeps of these names, one after the other."""
    for name in names:
        yield name, SWEEPS[name](servers, timing)


def _connections(servers: Servers, timing: Timing) -> Section:
    loads = small_add(servers, servers.mindserve("small").tcp)
    cases = [Case({"x": count}, Pattern(count, 1), loads) for count in (1, 2, 4, 16, 64, 256, 1000)]
    rows = measure("connections", cases, timing)
    return _section("connections", rows, timing, "connections, one call at a time on each")


def _idle(servers: Servers, timing: Timing) -> Section:
    loads = small_add(servers, servers.mindserve("small").tcp)
    cases = [
        Case({"x": count}, Pattern(4, 16), loads, beside=functools.partial(idle_connections, count=count))
        for count in (1, 10, 100, 1000)
    ]
    rows = measure("idle connections", cases, timing)
    return _section("idle connections", rows, timing, "idle connections beside 4x16")


def _in_flight(servers: Servers, timing: Timing) -> Section:
    loads = small_add(servers, servers.mindserve("small").tcp)
    # A server takes 1,000 calls at a time on a connection.
    patterns = [(1, 1), (4, 1), (4, 4), (4, 16), (4, 64), (4, 256), (16, 256)]
    cases = [Case({"x": pattern.in_flight}, pattern, loads) for pattern in (Pattern(*pair) for pair in patterns)]
    rows = measure("calls in flight", cases, timing)
    columns: list[Column] = [("connections x calls", "pattern", "")]
    return _section("calls in flight", rows, timing, "calls in flight", more=columns)


def _instances(servers: Servers, timing: Timing) -> Section:
    server = servers.mindserve("instances").tcp
    cases = []
    for count in (1, 10, 100, 1000, 10_000):
        load = servers.load("mindserve", server, add(count=count))
        cases.append(Case({"x": count}, Pattern(4, 4), [servers.ceiling(load), load], units=count))
    rows = measure("instances", cases, timing)
    return _section(
        "instances a request",
        rows,
        timing,
        "instances in each request, 4x4",
        panels=[Panel("unit_rate", "instances/s"), Panel("unit_cpu_us", "CPU µs/instance"), _P50],
        more=[("instances/s", "unit_rate", ",.0f"), ("CPU µs/instance", "unit_cpu_us", ",.2f")],
    )


def _bytes(servers: Servers, timing: Timing) -> Section:
    server = servers.mindserve("bytes").tcp
    cases = []
    for size in (16, 256, 4096, 65_536, 2**20, 2**24, 2**26):
        value = np.ones(size // np.dtype(np.float32).itemsize, np.float32)
        load = servers.load("mindserve", server, Call("bench", "take_first", [{"x": value}], [value[:FIRST]]))
        cases.append(Case({"x": size}, Pattern(1, 1), [servers.ceiling(load), load], units=size / _MB))
    rows = measure("tensor bytes", cases, timing)
    return _section(
        "tensor bytes",
        rows,
        timing,
        "bytes of the request's tensor, 1x1",
        panels=[Panel("unit_rate", "MB/s"), _CPU, _P50],
        more=[("MB/s", "unit_rate", ",.1f")],
    )


def _servables(servers: Servers, timing: Timing) -> Section:
    counts = (1, 10, 30, 100)
    names = make_copies(servers.servables, counts[-1])
    rows: list[dict[str, Any]] = []
    per_servable = 0.0
    for count in counts:
        # One server after the other: those of all points together would take more memory than most machines have.
        if per_servable * count > available_bytes() / 2:
            progress(f"servables: {count} would take more than half of the memory that is left, and are left out")
            break
        progress(f"servables: starting {count}")
        with ExitStack() as stack:
            begin = time.monotonic()
            served = servers.start_mindserve(stack, names[:count])
            start_s = time.monotonic() - begin
            load = servers.load("mindserve", served.tcp, add(names[count - 1]))
            case = Case({"x": count}, Pattern(4, 16), [servers.start_ceiling(stack, load), load])
            own = measure(f"{count} servables", [case], timing)
            for row, load in zip(own, case.loads, strict=True):
                pids = process_tree(load.server.pid)
                row["master_mb"] = resident_bytes(load.server.pid) / _MB
                row["all_mb"] = proportional_bytes(pids) / _MB
                row["start_s"] = None
            own[-1]["start_s"] = start_s
            per_servable = own[-1]["all_mb"] * _MB / count
            rows += own
    return _section(
        "servables",
        rows,
        timing,
        "servables, 4x16 on one of them",
        panels=[_RATE, _CPU, Panel("all_mb", "memory, MB")],
        more=[("master MB", "master_mb", ",.0f"), ("all MB", "all_mb", ",.0f"), ("start s", "start_s", ",.1f")],
    )


def _workers(servers: Servers, timing: Timing) -> Section:
    cases = []
    for count in (1, 2, 4, 8):
        served = servers.mindserve(f"{count} workers", workers=count)
        cases.append(Case({"x": count}, Pattern(4, 16), small_add(servers, served.tcp)))
    rows = measure("workers", cases, timing)
    return _section("workers", rows, timing, "workers of the servable, 4x16")


def _memory(servers: Servers, timing: Timing) -> Section:
    kinds: dict[str, Callable[[Served], Running]] = {
        "TCP": lambda served: served.tcp,
        "TLS": lambda served: served.tls,
    }
    counts = (0, 100, 300, 1000)
    resident: dict[tuple[str, int], list[int]] = {(kind, count): [] for kind in kinds for count in counts}
    for number in range(timing.rounds):
        progress(f"memory: round {number + 1} of {timing.rounds}")
        for kind, choose in kinds.items():
            # A fresh server: one that had connections before takes the next ones into memory that it has.
            with ExitStack() as stack:
                server = choose(servers.start_mindserve(stack))
                connections = stack.enter_context(IdleConnections(server))
                for count in counts:
                    connections.grow(count)
                    resident[kind, count].append(resident_bytes(server.pid))
    rows = []
    for (kind, count), sizes in resident.items():
        grown = [size - empty for size, empty in zip(sizes, resident[kind, 0], strict=True)]
        each = statistics.median(grown) / count / 1000 if count else None
        rows.append({"x": count, "server": kind, "master_mb": statistics.median(sizes) / _MB, "each_kb": each})
    columns: list[Column] = [
        ("connections", "server", ""),
        ("idle", "x", ","),
        ("resident MB", "master_mb", ",.1f"),
        ("KB each", "each_kb", ",.1f"),
    ]
    made = f"Medians over {timing.rounds} fresh servers of one servable for each kind."
    plot = Plot("idle connections", [Panel("master_mb", "resident memory of the master, MB", log=False)], log=False)
    return Section(columns, rows, made, plot)


def _section(
    heading: str,
    rows: list[dict[str, Any]],
    timing: Timing,
    x_label: str,
    panels: Sequence[Panel] = (_RATE, _CPU, _P50),
    more: Sequence[Column] = (),
) -> Section:
    columns = [(heading, "x", ","), ("server", "server", ""), *FIGURES, *more]
    return Section(columns, rows, timing.made, Plot(x_label, list(panels)))


SWEEPS: dict[str, Callable[[Servers, Timing], Section]] = {
    "connections": _connections,
    "idle": _idle,
    "in-flight": _in_flight,
    "instances": _instances,
    "bytes": _bytes,
    "servables": _servables,
    "workers": _workers,
    "memory": _memory,
}
