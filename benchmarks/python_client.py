"""Case (g): what the Python client adds to a bare call of grpcio."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from calls import add, channel_to
from report import Column, Section
from rounds import Timing, median_ratio, progress
from servers import Servers

from mindserve.client import Client
from mindserve.proto import PREDICT

_COLUMNS: list[Column] = [
    ("caller", "caller", ""),
    ("µs/call", "wall_us", ",.1f"),
    ("ratio", "wall_ratio", ".2f"),
    ("CPU µs/call", "cpu_us", ",.1f"),
    ("ratio", "cpu_ratio", ".2f"),
]

_PROBE_CALLS = 50


@dataclass
class _Caller:
    name: str
    call: Callable[[], object]
    wall_us: list[float] = field(default_factory=list)
    cpu_us: list[float] = field(default_factory=list)

    def run(self, count: int) -> None:
        """``count`` calls, one after the other. CPU is this process's, with gRPC's threads."""
        wall, cpu = time.perf_counter(), time.process_time()
        for _ in range(count):
            self.call()
        self.wall_us.append((time.perf_counter() - wall) / count * 1e6)
        self.cpu_us.append((time.process_time() - cpu) / count * 1e6)


def measure_client(servers: Servers, timing: Timing) -> Section:
    """A stub that is given the request's bytes and gives the reply's, then `Client.infer`; in one process, in turn."""
    server = servers.mindserve("small").tcp
    call = add()
    call.answer(server)
    request, instance = call.request(), call.instances[0]
    with channel_to(server) as channel, Client(server.address, call.servable, call.method) as client:
        stub = channel.unary_unary(PREDICT)
        callers = [
            _Caller("bare grpcio stub", lambda: stub(request)),
            _Caller("Client.infer", lambda: client.infer(instance)),
        ]
        for caller in callers:
            caller.run(_PROBE_CALLS)
        count = max(_PROBE_CALLS, int(timing.seconds * 1e6 / callers[0].wall_us.pop()))
        for caller in callers:
            caller.wall_us.clear()
            caller.cpu_us.clear()
        for number in range(timing.rounds):
            progress(f"(g): round {number + 1} of {timing.rounds}")
            for caller in callers:
                caller.run(count)
    rows = [
        {
            "caller": caller.name,
            "wall_us": statistics.median(caller.wall_us),
            "wall_ratio": median_ratio(caller.wall_us, callers[0].wall_us),
            "cpu_us": statistics.median(caller.cpu_us),
            "cpu_ratio": median_ratio(caller.cpu_us, callers[0].cpu_us),
        }
        for caller in callers
    ]
    return Section(_COLUMNS, rows, timing.made)
