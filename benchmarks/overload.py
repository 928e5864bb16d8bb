"""Overload and fairness: ``python benchmarks/overload.py [overload] [fairness]``.

Overload: calls with deadlines are offered to a function of 5 ms at 1, 2, 5 and 10 times what it can do, for each way of
saying no. Fairness: what a client with few calls waits alone, beside a flood, and beside huge
requests; and beside those on another server, which takes as much of the cores.

Clients are grpcio's, in processes of their own. What is said is medians over rounds, in each of which everything is
measured once; on a busy machine the ratios tell more than the times.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import itertools
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import grpc
import numpy as np
from processes import process_tree, resident_bytes

from mindserve.proto import PREDICT, messages

_CONFIG = """
import time
from mindserve.server import register

def slow(x):
    time.sleep(0.005)
    return x

def same(x):
    return x

@register.register_method(output_names=["y"])
def work(x):
    return register.add_stage(slow, x, outputs_count=1)

@register.register_method(output_names=["y"])
def echo(x):
    return register.add_stage(same, x, outputs_count=1)
"""
_SERVER = """
import sys
from mindserve import server
server.start_servables(server.ServableStartConfig({directory!r}, "bench", refuse_late={refuse_late!r}))
print(server.start_grpc_server("127.0.0.1:0", limits=server.Limits(max_enqueued_requests={limit},
      max_msg_mb_size=512))[0], flush=True)
sys.stdin.read()
server.stop()
"""
_UNLIMITED = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
_DEADLINE_S = 0.5
_STAGE_S = 0.005
# How the server says no: its limit of waiting requests, and whether it refuses what would be late.
_WAYS = {"max_enqueued_requests=50": (50, False), "deadlines alone": (100_000, False), "refuse_late": (100_000, True)}
_LEVELS = (1, 2, 5, 10)
_LIGHT_INTERVAL_S = 0.02
_FLOOD = 64


def main() -> None:
    """Measure, and print a table for each."""
    if len(sys.argv) > 1 and sys.argv[1] == "client":
        asyncio.run(_ROLES[sys.argv[2]](*sys.argv[3:]))
        return
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", nargs="*", help="overload, fairness; both if nothing is said")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=4.0, help="for each measurement")
    options = parser.parse_args()
    for what in options.what or ("overload", "fairness"):
        {"overload": _overload, "fairness": _fairness}[what](options.rounds, options.seconds)


# -- what is measured --------------------------------------------------------------------------------------------------


def _overload(rounds: int, seconds: float) -> None:
    samples: dict[tuple[str, int], list[dict[str, float]]] = {}
    with contextlib.ExitStack() as stack:
        servers = {way: stack.enter_context(_served(*options)) for way, options in _WAYS.items()}
        for _ in range(rounds):
            for (way, (address, pid)), level in itertools.product(servers.items(), _LEVELS):
                sample = _client("offer", address, level / _STAGE_S, seconds)
                sizes = [resident_bytes(process) / 2**20 for process in process_tree(pid)]
                sample["master"], sample["worker"] = sizes[0], sum(sizes[1:])
                samples.setdefault((way, level), []).append(sample)
    names = ("good", "refused_p50_ms", "refused_p99_ms", "master", "worker")
    print("| says no by | offered | goodput/s | of the peak | refusals: p50 ms | p99 ms | master MB | worker MB |")
    print("| --- " * 8 + "|")
    for way in _WAYS:
        rows = {level: {name: _median(samples[way, level], name) for name in names} for level in _LEVELS}
        peak = max(row["good"] for row in rows.values())
        for level, row in rows.items():
            good, *others = (row[name] for name in names)
            cells = [f"{good:.0f}", f"{good / peak:.0%}", *(f"{value:.1f}" for value in others)]
            print(f"| {way} | {level}x | {' | '.join(cells)} |")


def _fairness(rounds: int, seconds: float) -> None:
    flood, tensors, instances = ("work", 1, 1), ("echo", 1, 50_000_000), ("echo", 50_000, 1)
    # What a client calls, what is called beside, and whether that is on a server of its own.
    cases: dict[str, tuple[str, tuple[str, int, int] | None, bool]] = {
        "alone, work": ("work", None, False),
        "beside a flood, work": ("work", flood, False),
        "alone, echo": ("echo", None, False),
        "beside a flood, echo": ("echo", ("echo", 1, 1), False),
        "beside requests of 50 MB": ("echo", tensors, False),
        "the same on another server": ("echo", tensors, True),
        "beside requests of 50,000 instances": ("echo", instances, False),
        "these on another server": ("echo", instances, True),
    }
    samples: dict[str, list[dict[str, float]]] = {name: [] for name in cases}
    with _served(100_000, False) as (address, _), _served(100_000, False) as (another, _):
        for _ in range(rounds):
            for name, (method, load, elsewhere) in cases.items():
                with contextlib.ExitStack() as stack:
                    if load is not None:
                        stack.enter_context(_running("flood", another if elsewhere else address, *load))
                    samples[name].append(_client("light", address, method, seconds))
    alone = {name.rsplit(" ", 1)[1]: samples[name] for name in cases if name.startswith("alone")}
    print("| a light client | p50 ms | p99 ms | p99 to that alone |")
    print("| --- " * 4 + "|")
    for name, (method, _, _) in cases.items():
        ratio = statistics.median(
            mine["p99_ms"] / other["p99_ms"] for mine, other in zip(samples[name], alone[method], strict=True)
        )
        p50, p99 = (_median(samples[name], key) for key in ("p50_ms", "p99_ms"))
        print(f"| {name} | {p50:.1f} | {p99:.1f} | {ratio:.1f} |")


def _median(samples: Sequence[dict[str, float]], name: str) -> float:
    return statistics.median(sample[name] for sample in samples)


# -- processes ---------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def _served(limit: int, refuse_late: bool) -> Iterator[tuple[str, int]]:
    """The address of a server, and its master's process id."""
    with tempfile.TemporaryDirectory() as directory:
        servable = Path(directory) / "bench"
        servable.mkdir()
        (servable / "servable_config.py").write_text(_CONFIG)
        script = Path(directory) / "start.py"
        script.write_text(_SERVER.format(directory=directory, limit=limit, refuse_late=refuse_late))
        with subprocess.Popen(
            [sys.executable, str(script)], cwd=directory, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        ) as process:
            assert process.stdin is not None
            assert process.stdout is not None
            try:
                yield process.stdout.readline().strip(), process.pid
            finally:
                process.stdin.close()
                process.wait(60)


def _command(role: str, *arguments: object) -> list[str]:
    return [sys.executable, __file__, "client", role, *map(str, arguments)]


def _client(role: str, *arguments: object) -> dict[str, float]:
    run = subprocess.run(_command(role, *arguments), stdout=subprocess.PIPE, text=True, check=True)
    sample: dict[str, float] = json.loads(run.stdout)
    return sample


@contextlib.contextmanager
def _running(role: str, *arguments: object) -> Iterator[None]:
    """A client that says when it has begun, and goes on until it is ended."""
    with subprocess.Popen(_command(role, *arguments), stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            process.stdout.readline()
            yield
        finally:
            process.kill()


# -- clients -----------------------------------------------------------------------------------------------------------


def _request(method: str, instances: int, elements: int) -> bytes:
    data = np.ones(elements, np.uint8)
    value = messages.Tensor(shape={"dims": data.shape}, dtype=messages.DATA_TYPES["MS_UINT8"], data=data.tobytes())
    request = messages.PredictRequest(
        servable_spec=messages.ServableSpec(name="bench", method_name=method),
        instances=[messages.Instance(items={"x": value})] * instances,
    )
    text: bytes = request.SerializeToString()
    return text


async def _offer(address: str, rate: str, seconds: str) -> None:
    """Calls at a fixed rate, whatever comes back."""
    body = _request("work", 1, 1)
    good = 0
    refused: list[float] = []
    async with grpc.aio.insecure_channel(address) as channel:
        await channel.channel_ready()
        predict = channel.unary_unary(PREDICT)

        async def call() -> None:
            nonlocal good
            begin = time.perf_counter()
            try:
                reply = await predict(body, timeout=_DEADLINE_S)
                good += not messages.PredictReply.FromString(reply).error_msg
            except grpc.aio.AioRpcError as error:
                # What was not refused but came too late is neither.
                if error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED or "refuse_late" in (error.details() or ""):
                    refused.append(1000 * (time.perf_counter() - begin))

        begin = time.perf_counter()
        calls: list[asyncio.Task[None]] = []
        while (elapsed := time.perf_counter() - begin) < float(seconds):
            while len(calls) < elapsed * float(rate):
                calls.append(asyncio.create_task(call()))
            await asyncio.sleep(0.001)
        await asyncio.gather(*calls)
        took = time.perf_counter() - begin
    print(json.dumps({"good": good / took, **_percentiles("refused_", refused)}))


async def _light(address: str, method: str, seconds: str) -> None:
    """A call at a time, now and then."""
    body = _request(method, 1, 1)
    latencies: list[float] = []
    async with grpc.aio.insecure_channel(address) as channel:
        predict = channel.unary_unary(PREDICT)
        for _ in range(5):
            await predict(body)
        end = time.perf_counter() + float(seconds)
        while (begin := time.perf_counter()) < end:
            await predict(body)
            latencies.append(1000 * (time.perf_counter() - begin))
            await asyncio.sleep(_LIGHT_INTERVAL_S)
    print(json.dumps(_percentiles("", latencies)))


async def _flood(address: str, method: str, instances: str, elements: str) -> None:
    """As many calls at once as a flood has on one connection; two, if they are huge."""
    body = _request(method, int(instances), int(elements))
    async with grpc.aio.insecure_channel(address, options=_UNLIMITED) as channel:
        predict = channel.unary_unary(PREDICT)
        await predict(body)
        print("begun", flush=True)

        async def again() -> None:
            while True:
                await predict(body)

        os.nice(5)  # it is the server's turns that are measured, not the client's cores
        huge = int(instances) * int(elements) > 1
        await asyncio.gather(*(again() for _ in range(2 if huge else _FLOOD)))


def _percentiles(prefix: str, values: list[float]) -> dict[str, float]:
    p50, p99 = np.percentile(values, (50, 99)) if values else (0.0, 0.0)
    return {f"{prefix}p50_ms": float(p50), f"{prefix}p99_ms": float(p99)}


_ROLES: dict[str, Any] = {"offer": _offer, "light": _light, "flood": _flood}


if __name__ == "__main__":
    main()
