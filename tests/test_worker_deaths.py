"""Workers that die, are stopped or are killed by a request, under load: who gets which answer."""

from __future__ import annotations

import contextlib
import itertools
import os
import pathlib
import signal
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import numpy as np
import pytest

from conftest import ServerProcess, is_alive, wait_gone
from e2e_support import PREAMBLE, Served, request, serving, tensor, until
from mindserve.client import Client
from mindserve.proto import PREDICT
from test_e2e_stats import LISTEN, stats_of

CONFIG = (
    PREAMBLE
    + '''
import ctypes
import os
import time

# What kills: a way for each of a value's last digits.
WAYS = ("exit", "kill", "segv", "abort", "memory")


@method()
def double(x):
    time.sleep(0.002)
    return 2 * x


@method()
def pid(x):
    return os.getpid()


@method()
def poison(x):
    """Negative: takes the worker with it."""
    if x >= 0:
        return x
    way = WAYS[-int(np.ravel(x)[0]) % len(WAYS)]
    if way == "exit":
        os._exit(3)
    if way == "segv":
        ctypes.string_at(8)
    if way == "abort":
        os.abort()
    if way == "memory":
        # Takes more than there is for it, and is ended as the kernel does it then.
        taken = []
        while len(taken) < 8:
            taken.append(bytearray(8 << 20))
    os.kill(os.getpid(), 9)


def count(file, text, fifo):
    with open(file, "a") as stream:
        stream.write(text + "\\n")
    with open(fifo, "w") as stream:
        stream.write(str(os.getpid()))
    with open(fifo) as stream:
        return stream.read()


@register.register_method(output_names="y", idempotent=False)
def once(file, text, fifo):
    return register.add_stage(count, file, text, fifo, outputs_count=1)
'''
)


@contextlib.contextmanager
def workers(tmp_path: pathlib.Path, count: int, **options: Any) -> Iterator[Served]:
    """A server of so many workers, ready."""
    devices = tuple(range(count))
    start = f"device_ids={devices}, device_type='CPU'" + "".join(
        f", {name}={value!r}" for name, value in options.items()
    )
    with serving(tmp_path / "server", "deaths", CONFIG, start=start, after=LISTEN) as served:
        yield served


def ready(process: ServerProcess, count: int) -> list[int]:
    """The workers' pids, once so many take requests."""
    states = until(
        lambda: [worker for worker in stats_of(process)["workers"] if worker["ready"]],
        lambda found: len(found) == count,
    )
    return [worker["pid"] for worker in states]


class Load:
    """Clients that ask all the time, each on a connection of its own, and check every answer.

    Attributes:
        answers: how many were right.
        wrong: the others.
        slowest: seconds that the slowest answer took.
    """

    def __init__(self, address: str, clients: int) -> None:
        self.answers = 0
        self.wrong: list[Any] = []
        self.slowest = 0.0
        self._lock = threading.Lock()
        self._end = threading.Event()
        self._numbers = itertools.count(1)
        self._clients = [Client(address, "deaths", "double") for _ in range(clients)]
        for client in self._clients:
            assert client.infer({"x": 1}, timeout=60) == [{"y": 2}]
        self._threads = [threading.Thread(target=self._run, args=(client,)) for client in self._clients]

    def _run(self, client: Client) -> None:
        while not self._end.is_set():
            first = next(self._numbers) * 10
            # Some are split between workers.
            values = range(first, first + (1 if first % 20 else 6))
            begun = time.monotonic()
            result = client.infer([{"x": value} for value in values], timeout=60)
            with self._lock:
                self.slowest = max(self.slowest, time.monotonic() - begun)
                if result == [{"y": 2 * value} for value in values]:
                    self.answers += 1
                else:
                    self.wrong.append(result)

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        for thread in self._threads:
            thread.join()
        for client in self._clients:
            client.close()

    def goes_on(self) -> None:
        """Waits for some answers more."""
        with self._lock:
            wanted = self.answers + 50
        until(lambda: self.answers, lambda answers: answers >= wanted)


def test_no_client_notices_that_a_worker_dies(tmp_path: pathlib.Path) -> None:
    with workers(tmp_path, 2) as served, Load(served.address, 4) as load:
        for number in (signal.SIGKILL, signal.SIGSEGV, signal.SIGKILL, signal.SIGABRT):
            load.goes_on()
            victim = ready(served.process, 2)[0]
            os.kill(victim, number)
            wait_gone([victim])
            load.goes_on()
        ready(served.process, 2)
        stats = stats_of(served.process)
    assert load.wrong == []
    assert stats["refused"]["max_attempts"] == stats["refused"]["quarantine"] == 0
    assert sum(worker["restarts"] for worker in stats["workers"]) == 4


def test_without_another_worker_callers_hear_of_it_at_once(tmp_path: pathlib.Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    file = tmp_path / "file"
    with workers(tmp_path, 1) as served:
        for _ in range(3):
            call = served.client("once").infer_async({"file": str(file), "text": "x", "fifo": str(tmp_path / "fifo")})
            worker = int((tmp_path / "fifo").read_text())
            killed = time.monotonic()
            os.kill(worker, signal.SIGKILL)
            assert "Grpc Error, (14, 'unavailable')" in call.result()["error"]
            assert time.monotonic() - killed < 5  # long before heartbeat_timeout
            until(lambda: served.client("double").infer({"x": 1}, timeout=60), lambda result: result == [{"y": 2}])
        assert sum(worker["restarts"] for worker in stats_of(served.process)["workers"]) == 3
        assert "is started again in" not in served.process.errors(), "it waits for no time"


def test_a_stopped_worker_is_replaced(tmp_path: pathlib.Path) -> None:
    with workers(tmp_path, 2, heartbeat_timeout=2) as served, Load(served.address, 4) as load:
        load.goes_on()
        victim = ready(served.process, 2)[0]
        os.kill(victim, signal.SIGSTOP)
        wait_gone([victim])
        assert victim not in ready(served.process, 2)
        load.goes_on()
    assert load.wrong == []
    assert load.slowest < 30
    assert "did not come round for its heartbeat_timeout of 2 s" in served.process.errors()


def test_workers_that_have_nothing_to_do_are_alive(tmp_path: pathlib.Path) -> None:
    with workers(tmp_path, 1, heartbeat_timeout=2.5) as served:
        (worker,) = ready(served.process, 1)
        # The only way to see that it isn't noticed is to let the time pass.
        time.sleep(6)
        assert ready(served.process, 1) == [worker]
        assert served.value("double", x=2) == 4


def test_a_master_that_was_stopped_keeps_its_workers(tmp_path: pathlib.Path) -> None:
    with workers(tmp_path, 1, heartbeat_timeout=2.5) as served:
        (worker,) = ready(served.process, 1)
        # Both, as a debugger or a suspended virtual machine does it.
        for pid in (served.process.pid, worker):
            os.kill(pid, signal.SIGSTOP)
        time.sleep(5)
        os.kill(served.process.pid, signal.SIGCONT)
        os.kill(worker, signal.SIGCONT)
        assert served.value("double", x=2) == 4
        assert ready(served.process, 1) == [worker]


def test_a_request_that_kills_workers_is_named(tmp_path: pathlib.Path) -> None:
    with workers(tmp_path, 3) as served:
        result = served.client("poison").infer({"x": -1}, timeout=60)
        assert "Request Servable(deaths) method(poison) of client ipv4:127.0.0.1" in result["error"]
        assert "is set aside: 2 workers died while executing it (max_attempts 2)" in result["error"]
        assert result["error"].partition("Request")[2].partition("'")[0] in served.process.errors()
        # Not tried again, whoever sends it.
        with Client(served.address, "deaths", "poison") as other:
            assert "is the same as one that killed workers" in other.infer({"x": -1}, timeout=60)["error"]
        stats = stats_of(served.process)
        assert (stats["refused"]["max_attempts"], stats["refused"]["quarantine"]) == (1, 1)


class Flood:
    """Sends requests that kill, over connections of its own: `Client`s of one process share one."""

    def __init__(self, address: str) -> None:
        self._address = address
        self._numbers = itertools.count(1)
        self._channel = self._connect()

    def _connect(self) -> grpc.Channel:
        return grpc.insecure_channel(self._address, [("grpc.use_local_subchannel_pool", 1)])

    def send(self, *, same_connection: bool) -> str:
        """What another such request is told, which is never the same as one before."""
        message = request("deaths", "poison", {"x": tensor(np.array([-next(self._numbers)]))})
        channel = self._channel if same_connection else self._connect()
        try:
            channel.unary_unary(PREDICT)(message.SerializeToString(), timeout=60)
        except grpc.RpcError as error:
            assert error.code() == grpc.StatusCode.UNAVAILABLE, error
            return str(error.details())
        finally:
            if channel is not self._channel:
                channel.close()
        raise AssertionError("a request that kills was answered")

    def close(self) -> None:
        self._channel.close()


@pytest.mark.parametrize("same_connection", [True, False], ids=["one connection", "many connections"])
def test_a_flood_of_requests_that_kill_leaves_others_alone(tmp_path: pathlib.Path, same_connection: bool) -> None:
    with (
        workers(tmp_path, 3) as served,
        contextlib.closing(Flood(served.address)) as flood,
        Load(served.address, 2) as load,
    ):
        # One by itself, so that this is about the flood and not about its first burst, which may take all workers.
        errors = [flood.send(same_connection=True)]
        load.goes_on()
        before = load.answers
        with ThreadPoolExecutor(8) as pool:
            errors += pool.map(lambda _: flood.send(same_connection=same_connection), range(16))
        during = load.answers - before
        load.goes_on()
    assert load.wrong == []
    assert during > 100
    # Each was tried and set aside, or waited in vain for a worker to be tried on.
    assert all("is set aside" in error or "requests have killed workers" in error for error in errors), errors
    assert sum("is set aside" in error for error in errors) >= 3


def test_what_is_not_idempotent_is_not_executed_twice(tmp_path: pathlib.Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    file = tmp_path / "file"

    with workers(tmp_path, 2) as served:
        ready(served.process, 2)
        inputs = {"file": str(file), "text": "x", "fifo": str(tmp_path / "fifo")}
        call = served.client("once").infer_async(inputs, timeout=60)
        os.kill(int((tmp_path / "fifo").read_text()), signal.SIGKILL)
        error = call.result()["error"]
        assert "(14, 'unavailable')" in error
        assert "not idempotent, so it is not sent again" in error
        ready(served.process, 2)
        assert file.read_text() == "x\n"


def test_what_is_not_idempotent_and_was_only_queued_is_executed_by_another(tmp_path: pathlib.Path) -> None:
    fifos = [tmp_path / name for name in ("a", "b", "c")]
    for fifo in fifos:
        os.mkfifo(fifo)
    file = tmp_path / "file"

    def begin(text: str, fifo: pathlib.Path) -> Any:
        return served.client("once").infer_async({"file": str(file), "text": text, "fifo": str(fifo)}, timeout=60)

    with workers(tmp_path, 2) as served:
        ready(served.process, 2)
        # The third waits in the queue of one of the workers that execute the first two.
        first = begin("first", fifos[0])
        one = int(fifos[0].read_text())
        second = begin("second", fifos[1])
        two = int(fifos[1].read_text())
        third = begin("third", fifos[2])
        until(
            lambda: [worker["in_flight"] for worker in stats_of(served.process)["workers"]],
            lambda held: sorted(held) == [1, 2],
        )
        states = {worker["pid"]: worker["in_flight"] for worker in stats_of(served.process)["workers"]}
        loaded = one if states[one] == 2 else two
        other_fifo, lost, kept = (fifos[1], first, second) if loaded == one else (fifos[0], second, first)
        os.kill(loaded, signal.SIGKILL)
        assert "not idempotent" in lost.result()["error"]
        other_fifo.write_text("kept")
        assert kept.result() == [{"y": "kept"}]
        assert is_alive(int(fifos[2].read_text()))
        fifos[2].write_text("done")
        assert third.result() == [{"y": "done"}]
    assert file.read_text().split() == ["first", "second", "third"]


def test_a_servable_has_limits_of_its_own(tmp_path: pathlib.Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    with workers(tmp_path, 1, max_enqueued_requests=1, max_enqueued_bytes=100_000) as served:
        large = served.client("double").infer({"x": b"x" * 200_000}, timeout=60)
        assert "exceeds the limit 100000 (max_enqueued_bytes) of servable 'deaths'" in large["error"]
        call = served.client("once").infer_async(
            {"file": str(tmp_path / "f"), "text": "t", "fifo": str(fifo)}, timeout=60
        )
        fifo.read_text()
        refused = served.client("double").infer({"x": 1}, timeout=60)
        assert "Grpc Error, (8, 'resource exhausted')" in refused["error"]
        assert "exceeds the limit 1 (max_enqueued_requests) of servable 'deaths'" in refused["error"]
        fifo.write_text("done")
        assert call.result() == [{"y": "done"}]
        assert served.value("double", x=2) == 4
        refused_by = stats_of(served.process)["refused"]
    assert (refused_by["max_enqueued_requests"], refused_by["max_enqueued_bytes"]) == (1, 1)
