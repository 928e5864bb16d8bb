"""Cases (h) to (j): a user's gRPC service in Python, against the bare loop of its handler and against grpcio."""

from __future__ import annotations

import asyncio
import importlib
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
from calls import CHANNEL_OPTIONS
from load import PREFIX_BYTES, Pattern, Running, run_h2load, write_body
from processes import cpu_seconds, process_tree, proportional_bytes
from report import Column, Section
from rounds import Timing, median_ratio, progress
from servers import Servers

_SERVICE = "/mindserve.bench.Bench"
_PATTERN = Pattern(4, 16)
_MESSAGES = 2000  # of a stream
_NATIVE_MESSAGES = 20_000
_BARE_CALLS = 20_000
_OPEN_STREAMS = 10_000
_STREAMS_PER_CONNECTION = 1000

_UNARY_COLUMNS: list[Column] = [
    ("server", "server", ""),
    ("calls/s", "rate", ",.0f"),
    ("ratio to grpcio", "rate_ratio", ".2f"),
    ("CPU µs/call", "cpu_us", ",.1f"),
    ("gateway's", "gateway_us", ",.1f"),
    ("worker's", "worker_us", ",.1f"),
    ("bare loop's", "bare_us", ",.1f"),
    ("(bare loop + gateway) ratio", "bare_ratio", ".2f"),
    ("p50 µs", "p50_us", ",.0f"),
]

_STREAM_COLUMNS: list[Column] = [
    ("source", "server", ""),
    ("messages/s", "rate", ",.0f"),
    ("CPU µs/message", "cpu_us", ",.2f"),
    ("gateway's", "gateway_us", ",.2f"),
    ("worker's", "worker_us", ",.2f"),
]

_OPEN_COLUMNS: list[Column] = [
    ("open streams", "streams", ",d"),
    ("MB before", "before_mb", ",.0f"),
    ("MB with them", "mb", ",.0f"),
    ("KB a stream", "kb_each", ",.1f"),
    ("seconds to open", "open_s", ".1f"),
    ("seconds for a message through each", "echo_s", ".1f"),
]


@dataclass
class _Source:
    """A method of a server under load, and what came of it, round by round."""

    name: str
    server: Running
    path: str
    body: Path
    reply_bytes: int
    messages: int = 1
    requests: int = 0
    rate: list[float] = field(default_factory=list)
    gateway_us: list[float] = field(default_factory=list)
    worker_us: list[float] = field(default_factory=list)
    p50_us: list[float] = field(default_factory=list)

    def run(self, requests: int) -> float:
        """One run; returns the seconds that it took about."""
        workers = [pid for pid in process_tree(self.server.pid) if pid != self.server.pid]
        gateway, worker = cpu_seconds([self.server.pid]), cpu_seconds(workers)
        sample = run_h2load(
            self.server.address, self.body, _PATTERN, requests, self.server.pid, self.reply_bytes, path=self.path
        )
        count = requests * self.messages
        self.rate.append(sample.rate * self.messages)
        self.gateway_us.append((cpu_seconds([self.server.pid]) - gateway) / count * 1e6)
        self.worker_us.append((cpu_seconds(workers) - worker) / count * 1e6)
        self.p50_us.append(sample.p50_us)
        return requests / sample.rate

    def calibrate(self, seconds: float) -> None:
        flight = _PATTERN.in_flight
        requests = flight
        while (took := self.run(requests)) < seconds / 10:
            requests *= 4
        self.requests = max(int(requests * seconds / took) // flight, 1) * flight
        for figures in (self.rate, self.gateway_us, self.worker_us, self.p50_us):
            figures.clear()

    def row(self) -> dict[str, Any]:
        middle = statistics.median
        gateway, worker = middle(self.gateway_us), middle(self.worker_us)
        return {
            "server": self.name,
            "rate": middle(self.rate),
            "cpu_us": middle(a + b for a, b in zip(self.gateway_us, self.worker_us, strict=True)),
            "gateway_us": gateway if worker else None,
            "worker_us": worker or None,
            "p50_us": middle(self.p50_us),
        }


def measure_unary(servers: Servers, timing: Timing) -> Section:
    """Small messages answered by Python: the handler in a worker, on grpcio, and in a loop that has nothing else."""
    bench = _modules(servers)
    request = bench.Item(name="foo", num=30)
    reply = bench.Item(name="Hello foo", num=60)
    body = _body(servers, "greet", request)
    served, other = servers.services(), servers.grpcio_services()
    size = PREFIX_BYTES + reply.ByteSize()
    sources = [
        _Source("grpcio", other, f"{_SERVICE}/Greet", body, size),
        _Source("mindserve, function", served, f"{_SERVICE}/Greet", body, size),
        _Source("mindserve, coroutine", served, f"{_SERVICE}/GreetAsync", body, size),
    ]
    for source in sources:
        _check(source, request, bench.Item, [reply])
        source.calibrate(timing.seconds)
    bare: list[float] = []
    for number in range(timing.rounds):
        progress(f"(h): round {number + 1} of {timing.rounds}")
        bare.append(_bare_loop(bench.Item, importlib.import_module("handlers").Greet, request.SerializeToString()))
        for source in sources:
            source.run(source.requests)
    rows = []
    for source in sources:
        row = source.row()
        row["rate_ratio"] = median_ratio(source.rate, sources[0].rate)
        row["bare_us"] = statistics.median(bare)
        totals = [a + b for a, b in zip(source.gateway_us, source.worker_us, strict=True)]
        allowed = [a + b for a, b in zip(source.gateway_us, bare, strict=True)]
        row["bare_ratio"] = median_ratio(totals, allowed) if source is not sources[0] else None
        rows.append(row)
    return Section(_UNARY_COLUMNS, rows, timing.made)


def measure_streams(servers: Servers, timing: Timing) -> Section:
    """Small messages out of generators, and from a native source."""
    bench = _modules(servers)
    request = bench.Item(name="foo", num=_MESSAGES)
    replies = [bench.Item(name="foo", num=number) for number in range(_MESSAGES)]
    size = sum(PREFIX_BYTES + reply.ByteSize() for reply in replies)
    body = _body(servers, "count", request)
    served, other = servers.services(), servers.grpcio_services()
    sources = [
        _Source("grpcio, generator", other, f"{_SERVICE}/Count", body, size, _MESSAGES),
        _Source("mindserve, generator", served, f"{_SERVICE}/Count", body, size, _MESSAGES),
        _Source("mindserve, async generator", served, f"{_SERVICE}/CountAsync", body, size, _MESSAGES),
    ]
    for source in sources:
        _check(source, request, bench.Item, replies)
    native = servers.native_stream(_NATIVE_MESSAGES, len(replies[0].SerializeToString()))
    size = _NATIVE_MESSAGES * (PREFIX_BYTES + len(replies[0].SerializeToString()))
    source_path = "/mindserve.bench.Source/Stream"
    sources.append(_Source("native source", native, source_path, body, size, _NATIVE_MESSAGES))
    for source in sources:
        source.calibrate(timing.seconds)
    for number in range(timing.rounds):
        progress(f"(i): round {number + 1} of {timing.rounds}")
        for source in sources:
            source.run(source.requests)
    return Section(_STREAM_COLUMNS, [source.row() for source in sources], timing.made)


def measure_open_streams(servers: Servers, timing: Timing) -> Section:
    """Streams that are open and wait, on an asynchronous handler: memory of the master and the worker together."""
    del timing
    bench = _modules(servers)
    served = servers.services()
    row = asyncio.run(_open_streams(served, bench.Item))
    return Section(_OPEN_COLUMNS, [row], "Once; memory is the processes' proportional set size.")


async def _open_streams(served: Running, item: Any) -> dict[str, Any]:
    pids = process_tree(served.pid)
    before = proportional_bytes(pids)
    # Channels with equal options would share a connection.
    channels = [
        grpc.aio.insecure_channel(served.address, [*CHANNEL_OPTIONS, ("bench.number", number)])
        for number in range(_OPEN_STREAMS // _STREAMS_PER_CONNECTION)
    ]
    try:
        begun = time.monotonic()
        calls = [
            channel.stream_stream(f"{_SERVICE}/Echo", item.SerializeToString, item.FromString)()
            for channel in channels
            for _ in range(_STREAMS_PER_CONNECTION)
        ]

        async def echo(number: int) -> None:
            await calls[number].write(item(num=number))
            answer = await calls[number].read()
            if answer.num != number:
                raise RuntimeError(f"stream {number} answered {answer}")

        async def echo_all() -> None:
            await asyncio.gather(*(echo(number) for number in range(len(calls))))

        await echo_all()
        opened = time.monotonic()
        used = proportional_bytes(pids)
        await echo_all()
        echoed = time.monotonic()
        for call in calls:
            call.cancel()
    finally:
        for channel in channels:
            await channel.close()
    return {
        "streams": _OPEN_STREAMS,
        "before_mb": before / 1e6,
        "mb": used / 1e6,
        "kb_each": (used - before) / _OPEN_STREAMS / 1e3,
        "open_s": opened - begun,
        "echo_s": echoed - opened,
    }


def _modules(servers: Servers) -> Any:
    """The generated module of the benchmark's proto."""
    directory = str(servers.services_directory())
    if directory not in sys.path:
        sys.path.insert(0, directory)
    return importlib.import_module("bench_pb2")


def _body(servers: Servers, name: str, request: Any) -> Path:
    return write_body(servers.scratch / f"body-{name}", request.SerializeToString())


def _check(source: _Source, request: Any, item: Any, expected: list[Any]) -> None:
    """Everything that is measured has been seen to be right first."""
    with grpc.insecure_channel(source.server.address, CHANNEL_OPTIONS) as channel:
        method = channel.unary_stream(source.path, item.SerializeToString, item.FromString)
        answers = list(method(request, timeout=60, wait_for_ready=True))
    if answers != expected:
        raise RuntimeError(f"{source.name}: {len(answers)} messages, the first {answers[:1]}; expected {expected[:1]}")


def _bare_loop(item: Any, handler: Callable[[Any], Any], request: bytes) -> float:
    """CPU microseconds of parsing, calling and serializing."""
    parse = item.FromString
    begun = time.process_time()
    for _ in range(_BARE_CALLS):
        handler(parse(request)).SerializeToString()
    return (time.process_time() - begun) / _BARE_CALLS * 1e6
