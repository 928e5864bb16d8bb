"""Many clients at a time: every answer is the right one, whatever else goes on."""

from __future__ import annotations

import asyncio
import os
import pathlib
import signal
import threading
import time
from collections.abc import Callable, Iterator

import numpy as np
import pytest

from e2e_support import PREAMBLE, Served, onnx_models, same, serving, until
from mindserve.client import AsyncClient, Client

CONFIG = (
    PREAMBLE
    + '''
import faulthandler
import os
import random
import signal

faulthandler.register(signal.SIGUSR1)  # see stacks()

add = register.declare_model("add.onnx", "ONNX")
lengths = register.declare_model("dynamic_inner.onnx", "ONNX")
kept = []


@method()
def echo(x):
    return x


@method()
def pid(x):
    return os.getpid()


@method("x", batch_size=0)
def negate(instances):
    return [-x for (x,) in instances]


@method()
def odd_fails(x):
    if x.item() % 2:
        raise ValueError(f"{x.item()} is odd")
    return x


@method()
def keep_some(x):
    """Holds on to its inputs for a while."""
    kept.append((x, x.sum()))
    if len(kept) > 200:
        del kept[random.randrange(100):]
    for array, total in random.sample(kept, min(3, len(kept))):
        if array.sum() != total:
            raise AssertionError("a kept array has changed")
    return x


def half(x):
    return (x / 2).astype(np.float32)


@register.register_method(output_names=["y", "x1"])
def sums(x1, x2):
    y = register.add_stage(add, x1, x2, outputs_count=1)
    y = register.add_stage(half, y, outputs_count=1)
    y = register.add_stage(add, y, x1, outputs_count=1)
    return y, x1


@register.register_method(output_names=["y"])
def minus(x):
    return register.add_stage(lengths, x, outputs_count=1)
'''
)


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    made = onnx_models()
    models = {"add.onnx": made.add(), "dynamic_inner.onnx": made.dynamic_inner()}
    folder = tmp_path_factory.mktemp("load")
    listen = f"[server.Listener('127.0.0.1:0'), server.Listener('unix:{folder}/load.sock')]"
    with serving(folder / "server", "load", CONFIG, models, start="device_ids=(0, 1)", listen=listen) as server:
        yield server


def bytes_of(random: np.random.Generator) -> dict[str, object]:
    return {"x": random.integers(0, 256, random.choice([1, 100, 5000, 200_000]), np.uint8)}


def square(random: np.random.Generator) -> np.ndarray:
    return random.integers(0, 1000, (2, 2)).astype(np.float32)


def y_is(expected: Callable[[dict[str, object]], object]) -> Callable[[dict[str, object], dict[str, object]], bool]:
    return lambda given, result: "y" in result and same(result["y"], expected(given))


# For each method: what makes an instance, and whether a result is right for it.
METHODS = {
    "echo": (bytes_of, y_is(lambda given: given["x"])),
    "keep_some": (bytes_of, y_is(lambda given: given["x"])),
    "negate": (lambda random: {"x": random.normal(size=random.integers(0, 5))}, y_is(lambda given: -given["x"])),
    "odd_fails": (
        lambda random: {"x": int(random.integers(0, 1000))},
        lambda given, result: (
            f"ValueError: {given['x']} is odd" in result.get("error", "")
            if given["x"] % 2
            else same(result["y"], np.array([given["x"]]))
        ),
    ),
    "sums": (
        lambda random: {"x1": square(random), "x2": square(random)},
        lambda given, result: (
            same(result["y"], (given["x1"] + given["x2"]) / 2 + given["x1"]) and same(result["x1"], given["x1"])
        ),
    ),
    "minus": (
        lambda random: {"x": random.normal(size=(random.integers(0, 9), 2)).astype(np.float32)},
        y_is(lambda given: -given["x"]),
    ),
}


def wrong(instances: list[dict[str, object]], results: object, name: str) -> str:
    """What is wrong with these results; "" if nothing."""
    if isinstance(results, dict) and len(instances) == 1:
        results = [results]  # the error of the only instance
    if not isinstance(results, list) or len(results) != len(instances):
        return f"{name}: {results}"
    for place, (given, result) in enumerate(zip(instances, results, strict=True)):
        if not METHODS[name][1](given, result):
            return f"{name}: instance {place} of {len(instances)}: {str(given)[:200]} gave {str(result)[:200]}"
    return ""


def ask_for(address: str, seed: int, end: float, complaints: list[str], may_fail: bool = False) -> int:
    """Asks one thing after the other until `end`; how many."""
    random = np.random.default_rng(seed)
    clients = {name: Client(address, "load", name) for name in METHODS}
    count = 0
    try:
        while time.monotonic() < end and not complaints:
            name = list(METHODS)[random.integers(len(METHODS))]
            instances = [METHODS[name][0](random) for _ in range(random.choice([1, 1, 1, 2, 5, 40]))]
            results = clients[name].infer(instances, timeout=60)
            count += 1
            if may_fail and isinstance(results, dict) and "Grpc Error, (14, 'unavailable')" in results["error"]:
                continue
            if complaint := wrong(instances, results, name):
                complaints.append(complaint)
    except BaseException as error:
        complaints.append(repr(error))
        raise
    finally:
        for client in clients.values():
            client.close()
    return count


def run_threads(served: Served, seconds: float, may_fail: bool = False) -> tuple[list[threading.Thread], list[str]]:
    complaints: list[str] = []
    end = time.monotonic() + seconds
    threads = [
        threading.Thread(target=ask_for, args=(served.addresses[seed % 2], seed, end, complaints, may_fail))
        for seed in range(16)
    ]
    for thread in threads:
        thread.start()
    return threads, complaints


def stacks(served: Served) -> str:
    """Where the workers' Python threads are, by faulthandler in their logs: tells why a call got no answer."""
    workers = served.process.workers()
    for pid in workers:
        os.kill(pid, signal.SIGUSR1)
    logs = sorted((served.process.cwd / "serving_logs").iterdir())
    # Of a worker's threads the main one comes last.
    return until(
        lambda: "\n".join(f"{log.name}:\n{log.read_text(errors='replace')[-20_000:]}" for log in logs),
        lambda text: text.count(" in _serve\n") >= len(workers),
    )


def test_sixteen_clients_of_all_methods(served: Served) -> None:
    threads, complaints = run_threads(served, 5)
    for thread in threads:
        thread.join()
    assert complaints == [], stacks(served)
    assert "[ERROR]" not in served.process.errors()


def test_calls_that_overlap(served: Served) -> None:
    async def ask(name: str, instances: list[dict[str, object]]) -> str:
        async with AsyncClient(served.address, "load", name) as client:
            return wrong(instances, await client.infer(instances, timeout=60), name)

    async def all_at_once() -> list[str]:
        random = np.random.default_rng(99)
        names = [list(METHODS)[number % len(METHODS)] for number in range(300)]
        requests = [[METHODS[name][0](random) for _ in range(place % 4 + 1)] for place, name in enumerate(names)]
        return await asyncio.gather(*map(ask, names, requests))

    assert [complaint for complaint in asyncio.run(all_at_once()) if complaint] == []


def test_cancelled_calls_between_others(served: Served) -> None:
    threads, complaints = run_threads(served, 2)
    random = np.random.default_rng(5)
    with Client(served.address, "load", "sums") as client:
        while any(thread.is_alive() for thread in threads):
            calls = [client.infer_async([METHODS["sums"][0](random) for _ in range(30)]) for _ in range(10)]
            for call in calls[::2]:
                call.cancel()
            for call in calls[1::2]:
                assert len(call.result()) == 30
    for thread in threads:
        thread.join()
    assert complaints == [], stacks(served)


def test_workers_that_die_under_load(served: Served) -> None:
    threads, complaints = run_threads(served, 5, may_fail=True)
    killed: set[int] = set()
    while any(thread.is_alive() for thread in threads):
        workers = served.process.workers()
        if len(workers) == 2 and not killed & set(workers):
            os.kill(workers[0], signal.SIGKILL)
            killed.add(workers[0])
    for thread in threads:
        thread.join()
    assert complaints == []
    assert killed
    until(lambda: len(served.process.workers()), lambda count: count == 2)
    results = until(
        lambda: served.client("pid").infer([{"x": 0}] * 100, timeout=60),
        lambda results: isinstance(results, list) and len({result["y"] for result in results}) == 2,
    )
    assert not killed & {result["y"] for result in results}


def test_memory_comes_to_rest(served: Served) -> None:
    """The same work again takes no more memory than before."""

    def resident() -> int:
        total = 0
        for pid in (served.process.pid, *served.process.workers()):
            for line in pathlib.Path(f"/proc/{pid}/status").read_text().splitlines():
                if line.startswith("RssAnon:"):
                    total += int(line.split()[1])
        return total

    instances = [{"x": np.zeros(20_000, np.uint8)} for _ in range(50)]

    def work() -> None:
        for _ in range(20):
            assert len(served.ask("echo", *instances)) == 50
            assert len(served.ask("negate", *({"x": np.zeros(2500)} for _ in range(50)))) == 50

    work()
    work()
    before = resident()
    for _ in range(3):
        work()
    # 120 MB have gone through in between.
    assert resident() - before < 20_000
