"""Workers and servers that end, in the middle of work: who gets which answer, and what is left."""

from __future__ import annotations

import os
import pathlib
import signal
from collections.abc import Iterator

import numpy as np
import onnx
import pytest

from conftest import ADD_SERVABLE, add_model, is_alive, wait_gone
from e2e_support import PREAMBLE, Served, server_process, serving, until, write_servable
from mindserve.client import Client

CONFIG = (
    PREAMBLE
    + '''
import ctypes
import os
import subprocess
import sys
import threading


@method()
def echo(x):
    return x


@method()
def pid(x):
    return os.getpid()


@method()
def end(how):
    """Takes the worker with it."""
    if how == "exit":
        os._exit(3)
    if how == "abort":
        os.abort()
    if how == "segv":
        ctypes.string_at(8)
    if how == "kill":
        os.kill(os.getpid(), 9)
    return "it lives"


@method()
def block(fifo):
    with open(fifo, "w") as stream:
        stream.write(str(os.getpid()))
    with open(fifo) as stream:
        return stream.read()


@method()
def side_effects(what):
    if what == "subprocess":
        return subprocess.run([sys.executable, "-c", "print(1)"], capture_output=True, check=True).stdout
    if what == "fork":
        child = os.fork()
        if child == 0:
            os._exit(7)
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if what == "thread":
        found = []
        thread = threading.Thread(target=lambda: found.append(threading.current_thread().name), name="mine")
        thread.start()
        thread.join()
        return found[0]
    if what == "print":
        print("to the log", flush=True)
        sys.stderr.write("to the log as well\\n")
        return "printed"
    if what == "close":
        sys.stdout.close()
        return "closed"
    if what == "stdin":
        return sys.stdin.read()
    if what == "cwd":
        return os.getcwd()
'''
)


@pytest.fixture
def two_workers(tmp_path: pathlib.Path) -> Iterator[Served]:
    with serving(tmp_path / "server", "lives", CONFIG, start="device_ids=(0, 1)") as server:
        yield server


def fifo_in(folder: pathlib.Path, name: str) -> pathlib.Path:
    os.mkfifo(folder / name)
    return folder / name


# -- workers -----------------------------------------------------------------------------------------------------------


def test_functions_that_end_their_worker(tmp_path: pathlib.Path) -> None:
    with serving(tmp_path / "server", "lives", CONFIG) as served:
        first = served.value("pid", x=0)
        for how in ("exit", "kill", "segv"):
            result = served.client("end").infer({"how": how}, timeout=60)
            assert "Grpc Error, (14, 'unavailable')" in result["error"]
            # Back without anybody's help.
            pid = until(
                lambda: served.client("pid").infer({"x": 0}, timeout=60),
                lambda result, old=first: isinstance(result, list) and result[0]["y"] != old,
            )[0]["y"]
            assert [pid] == until(served.process.workers, lambda workers, pid=pid: workers == [pid])
            first = pid
        assert served.value("end", how="not at all") == "it lives"


def test_a_request_of_a_worker_that_dies_goes_to_the_other(two_workers: Served, tmp_path: pathlib.Path) -> None:
    fifo = fifo_in(tmp_path, "fifo")
    call = two_workers.client("block").infer_async({"fifo": str(fifo)}, timeout=120)
    first = int(fifo.read_text())
    os.kill(first, signal.SIGKILL)
    second = int(fifo.read_text())
    assert second != first
    fifo.write_text("by the second")
    assert call.result() == [{"y": "by the second"}]


def test_a_request_that_kills_workers_is_given_up(two_workers: Served) -> None:
    result = two_workers.client("end").infer({"how": "kill"}, timeout=60)
    assert "Grpc Error, (14, 'unavailable')" in result["error"]
    assert "max_attempts" in result["error"] or "no worker" in result["error"]
    until(lambda: len(two_workers.process.workers()), lambda count: count == 2)
    until(lambda: two_workers.client("echo").infer({"x": "x"}, timeout=60), lambda result: result == [{"y": "x"}])


def test_a_worker_that_is_told_to_end_has_no_successor(two_workers: Served) -> None:
    first, second = two_workers.process.workers()
    os.kill(first, signal.SIGTERM)
    wait_gone([first])
    until(
        lambda: two_workers.client("pid").infer([{"x": 0}] * 10, timeout=60),
        lambda result: isinstance(result, list) and {each["y"] for each in result} == {second},
    )
    os.kill(second, signal.SIGTERM)
    wait_gone([second])
    error = until(
        lambda: two_workers.client("echo").infer({"x": 0}, timeout=60), lambda result: isinstance(result, dict)
    )["error"]
    assert "Grpc Error, (14, 'unavailable')" in error
    # Gone for the client is not yet decided by the master, which learns of it by itself.
    until(lambda: two_workers.process.errors().count("was told to end and is not started again") == 2)
    assert two_workers.process.workers() == []


def test_what_functions_may_do(tmp_path: pathlib.Path) -> None:
    with serving(tmp_path / "server", "lives", CONFIG) as served:
        pid = served.value("pid", x=0)
        assert served.value("side_effects", what="subprocess") == b"1\n"
        assert served.value("side_effects", what="fork") == 7
        assert served.value("side_effects", what="thread") == "mine"
        assert served.value("side_effects", what="print") == "printed"
        (log,) = (served.process.cwd / "serving_logs").glob("log_lives_device0_version1.log")
        for text in ("to the log\n", "to the log as well\n"):
            assert text in log.read_text()
        assert served.value("side_effects", what="stdin") == ""
        assert served.value("side_effects", what="cwd") == str(served.process.cwd)
        assert served.value("side_effects", what="close") == "closed"
        # An exception is logged, or not, where nothing can be printed any more: it is an answer all the same.
        assert "NoneType" in served.error("side_effects", what="nothing")
        assert served.value("pid", x=0) == pid


# -- servers -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_nothing_is_left(tmp_path: pathlib.Path, number: signal.Signals) -> None:
    shared_before = set(os.listdir("/dev/shm"))
    listen = f"[server.Listener('127.0.0.1:0'), server.Listener('unix:{tmp_path}/s.sock')]"
    with serving(tmp_path / "server", "lives", CONFIG, start="device_ids=(0, 1)", listen=listen) as served:
        assert served.ask("echo", *({"x": n} for n in range(100)))
        workers = served.process.workers()
        assert len(workers) == 2
        served.process.send(number)
        assert served.process.wait() == (-signal.SIGKILL if number == signal.SIGKILL else 0), served.process.errors()
        wait_gone(workers)
        assert not any(is_alive(worker) for worker in workers)
        assert "Traceback" not in served.process.errors()
        if number != signal.SIGKILL:
            assert not (tmp_path / "s.sock").exists()
        assert set(os.listdir("/dev/shm")) - shared_before == set()


def test_a_successor_takes_the_address_of_a_killed_server(tmp_path: pathlib.Path) -> None:
    address = f"unix:{tmp_path}/s.sock"
    for name in ("first", "second"):
        with serving(tmp_path / name, "lives", CONFIG, listen=f"'{address}'") as served:
            assert served.value("echo", x=name) == name
            served.process.send(signal.SIGKILL)
            served.process.wait()


def test_answers_in_flight_are_given_when_the_server_stops(two_workers: Served, tmp_path: pathlib.Path) -> None:
    fifo = fifo_in(tmp_path, "fifo")
    call = two_workers.client("block").infer_async({"fifo": str(fifo)}, timeout=120)
    assert fifo.read_text()
    two_workers.process.send(signal.SIGTERM)
    # No new calls meanwhile; grpcio reports the refused connection.
    with Client(two_workers.address, "lives", "echo") as late:
        until(lambda: late.infer({"x": 1}, timeout=60), lambda result: isinstance(result, dict))
    fifo.write_text("still")
    assert call.result() == [{"y": "still"}]
    assert two_workers.process.wait() == 0


def test_start_stop_and_start_again(tmp_path: pathlib.Path) -> None:
    write_servable(tmp_path / "servables", "add", ADD_SERVABLE, {"add.onnx": add_model()})
    script = f"""
import os, sys
import numpy as np
from mindserve import server
from mindserve.client import Client

config = server.ServableStartConfig({str(tmp_path / "servables")!r}, "add", device_ids=(0, 1))
ones = {{"x1": np.ones((2, 2), np.float32), "x2": np.ones((2, 2), np.float32)}}


def descriptors():
    return len(os.listdir("/proc/self/fd"))


counts = []
for turn in range(4):
    if turn % 2:
        server.start_servables(config)
        (address,) = server.start_grpc_server("127.0.0.1:0")
    else:
        (address,) = server.start_grpc_server("127.0.0.1:0")
        server.start_servables(config)
    for method in ("add_common", "add_cast"):
        with Client(address, "add", method) as client:
            assert all((each["y"] == 2).all() for each in client.infer([ones] * 20)), turn
    server.stop()
    counts.append(descriptors())
assert counts[3] <= counts[1] + 2, counts
print("done", flush=True)
"""
    with server_process(tmp_path / "run", script) as process:
        assert process.line() == "done"
        assert process.wait() == 0
        assert process.workers() == []


def test_a_servable_that_cannot_be_imported(tmp_path: pathlib.Path) -> None:
    write_servable(tmp_path / "servables", "broken", "import no_such_module_at_all\n")
    write_servable(tmp_path / "servables", "good", CONFIG)
    script = f"""
from mindserve import server
directory = {str(tmp_path / "servables")!r}
(address,) = server.start_grpc_server("127.0.0.1:0")
server.start_servables(server.ServableStartConfig(directory, "good"))
try:
    server.start_servables(server.ServableStartConfig(directory, "broken"))
except RuntimeError as error:
    print(repr(str(error)), flush=True)
print(address, flush=True)
"""
    with server_process(tmp_path / "run", script) as process:
        text = process.line()
        assert "No module named \\'no_such_module_at_all\\'" in text or "No module named 'no_such_module" in text
        assert "servable_config.py" in text
        # The others stay.
        with Client(process.line(), "good", "echo") as client:
            assert client.infer({"x": "x"}, timeout=60) == [{"y": "x"}]
        with Client(client._endpoint.address, "broken", "echo") as client:
            assert "servable is not available" in client.infer({"x": "x"}, timeout=60)["error"]


def test_versions_side_by_side(tmp_path: pathlib.Path) -> None:
    write_servable(tmp_path / "servables", "add", ADD_SERVABLE, {"add.onnx": add_model()})
    for version in (2, 10):
        folder = tmp_path / "servables" / "add" / str(version)
        folder.mkdir()
        model = add_model()
        model.graph.node[0].op_type = {2: "Sub", 10: "Mul"}[version]
        onnx.save(model, folder / "add.onnx")
    script = f"""
from mindserve import server
directory = {str(tmp_path / "servables")!r}
server.start_servables([server.ServableStartConfig(directory, "add", version_number=v) for v in (1, 2, 0)])
print(server.start_grpc_server("127.0.0.1:0")[0], flush=True)
"""
    with server_process(tmp_path / "run", script) as process:
        address = process.line()
        values = {"x1": np.full((2, 2), 6, np.float32), "x2": np.full((2, 2), 3, np.float32)}
        for version, expected in ((1, 9), (2, 3), (10, 18), (0, 18)):
            with Client(address, "add", "add_common", version) as client:
                assert (client.infer(values, timeout=60)[0]["y"] == expected).all(), version
        with Client(address, "add", "add_common", 3) as client:
            assert client.infer(values, timeout=60) == {
                "error": "Request Servable(add) method(add_common) version(3), servable is not available"
            }
