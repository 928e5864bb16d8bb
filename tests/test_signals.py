"""How a server ends: by signals, by ``stop()``, and with its start script."""

from __future__ import annotations

import contextlib
import os
import pathlib
import re
import signal
from collections.abc import Iterator

import pytest

from conftest import (
    BLOCKING_SERVABLE,
    ECHO_SERVABLE,
    Servables,
    ServerProcess,
    StartScript,
    is_alive,
    pid_of,
    serve,
    wait_gone,
)
from mindserve.client import Client
from mindserve.client.client import PendingResults

# Tells through a FIFO that its import has begun, and never ends it.
SLOW_SERVABLE = """
import os, threading
os.write(os.open({fifo!r}, os.O_WRONLY), b"x")
threading.Event().wait()
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_server_outlives_its_start_script(
    servables: Servables, start_script: StartScript, number: signal.Signals
) -> None:
    servables.add("echo", ECHO_SERVABLE)
    server = start_script(serve(servables.directory, "echo", device_ids=(0, 1)))
    address = server.line()
    workers = server.workers()
    assert len(workers) == 2
    with Client(address, "echo", "worker_pid") as client:
        assert pid_of(client.infer({"x": 1})) in workers
    server.send(number)
    assert server.wait() == 0, server.errors()
    wait_gone(workers)


def test_a_stop_is_nothing_to_warn_of(servables: Servables, start_script: StartScript) -> None:
    servables.add("echo", ECHO_SERVABLE)
    server = start_script(serve(servables.directory, "echo", device_ids=(0, 1)), GLOG_v="1")
    with Client(server.line(), "echo", "same") as client:
        assert client.infer({"x": "text"}) == [{"x": "text"}]
    server.send(signal.SIGTERM)
    assert server.wait() == 0
    assert "[INFO]" in server.errors()
    assert not re.search(r"\[(WARNING|ERROR|CRITICAL)\]", server.errors()), server.errors()


def test_workers_do_not_outlive_a_killed_master(servables: Servables, start_script: StartScript) -> None:
    servables.add("echo", ECHO_SERVABLE)
    server = start_script(serve(servables.directory, "echo", device_ids=(0, 1)))
    server.line()
    workers = server.workers()
    assert len(workers) == 2
    server.send(signal.SIGKILL)
    server.wait()
    wait_gone(workers)


def test_workers_do_not_outlive_a_master_killed_while_they_start(
    servables: Servables, start_script: StartScript
) -> None:
    fifo = servables.directory / "fifo"
    servables.add("slow", SLOW_SERVABLE.format(fifo=str(fifo)))
    os.mkfifo(fifo)
    server = start_script(serve(servables.directory, "slow"))
    with open(fifo, "rb") as stream:
        assert stream.read(1) == b"x"
        server.send(signal.SIGKILL)
        server.wait()
        # The end of the stream: the worker, which never becomes ready, is gone.
        assert stream.read() == b""


def test_stop_and_start_again(servables: Servables, start_script: StartScript) -> None:
    servables.add("echo", ECHO_SERVABLE)
    again = """
    sys.stdin.readline()
    server.stop()
    server.stop()
    print("stopped", flush=True)
    sys.stdin.readline()
    address = server.start_grpc_server('127.0.0.1:0')[0]
    server.start_servables(server.ServableStartConfig({directory!r}, "echo"))
    print(address, flush=True)
    sys.stdin.readline()
    server.stop()
    print("stopped", flush=True)
    sys.stdin.readline()
    """
    server = start_script(serve(servables.directory, "echo", after=again.format(directory=str(servables.directory))))
    for _ in range(2):
        address = server.line()
        (worker,) = server.workers()
        with Client(address, "echo", "worker_pid") as client:
            assert pid_of(client.infer({"x": 1})) == worker
        server.tell("stop")
        assert server.line() == "stopped"
        assert not is_alive(worker)
        assert server.workers() == []
        server.tell("go on")
    assert server.wait() == 0


def test_stop_from_another_thread(servables: Servables, start_script: StartScript) -> None:
    servables.add("echo", ECHO_SERVABLE)
    after = """
    import threading
    thread = threading.Thread(target=lambda: (sys.stdin.readline(), server.stop()))
    thread.start()
    """
    server = start_script(serve(servables.directory, "echo", after=after))
    server.line()
    workers = server.workers()
    server.tell("stop")
    assert server.wait() == 0
    wait_gone(workers)


def test_a_start_script_that_fails_takes_its_server_with_it(servables: Servables, start_script: StartScript) -> None:
    servables.add("echo", ECHO_SERVABLE)
    server = start_script(
        serve(servables.directory, "echo", after="sys.stdin.readline()\nraise ValueError('my error')")
    )
    server.line()
    workers = server.workers()
    server.tell("fail")
    assert server.wait() == 1
    assert "my error" in server.errors()
    wait_gone(workers)


WAIT_FOR_SIGNAL = """
import threading
try:
    threading.Event().wait()
except BaseException as error:
    print(type(error).__name__, error, flush=True)
    sys.stdin.readline()
    raise
"""


@pytest.mark.parametrize(
    ("number", "said", "status"),
    [(signal.SIGINT, "KeyboardInterrupt ", -signal.SIGINT), (signal.SIGTERM, "SystemExit 0", 0)],
)
def test_signals_reach_a_start_script_that_still_runs(
    servables: Servables, start_script: StartScript, number: signal.Signals, said: str, status: int
) -> None:
    servables.add("echo", ECHO_SERVABLE)
    server = start_script(serve(servables.directory, "echo", after=WAIT_FOR_SIGNAL))
    server.line()
    workers = server.workers()
    server.send(number)
    assert server.line() == said
    assert not any(is_alive(worker) for worker in workers)
    server.tell("end")
    assert server.wait() == status


FROM_A_THREAD = """
import threading
from mindserve import server
def start():
    server.start_servables(server.ServableStartConfig({directory!r}, "echo"))
    print(server.start_grpc_server("127.0.0.1:0")[0], flush=True)
thread = threading.Thread(target=start, name="starter")
thread.start()
thread.join()
"""
WARNING = "the server is started from thread 'starter': SIGINT and SIGTERM, which only the main thread can take over"


def test_signals_of_a_server_started_from_another_thread(servables: Servables, start_script: StartScript) -> None:
    servables.add("echo", ECHO_SERVABLE)
    server = start_script(FROM_A_THREAD.format(directory=str(servables.directory)))
    server.line()
    workers = server.workers()
    assert server.errors().count(WARNING) == 1
    server.send(signal.SIGTERM)
    assert server.wait() == -signal.SIGTERM
    wait_gone(workers)


def test_another_thread_may_start_more(servables: Servables, start_script: StartScript) -> None:
    servables.add("first", ECHO_SERVABLE)
    servables.add("echo", ECHO_SERVABLE)
    directory = str(servables.directory)
    first = (
        f"from mindserve import server\nserver.start_servables(server.ServableStartConfig({directory!r}, 'first'))\n"
    )
    server = start_script(first + FROM_A_THREAD.format(directory=directory))
    server.line()
    server.send(signal.SIGTERM)
    assert server.wait() == 0, server.errors()
    assert WARNING not in server.errors()


def test_handlers_are_given_back(servables: Servables, start_script: StartScript) -> None:
    servables.add("echo", ECHO_SERVABLE)
    script = f"""
    import signal
    signal.signal(signal.SIGTERM, lambda *_: print("mine", flush=True))
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    from mindserve import server
    server.start_servables(server.ServableStartConfig({str(servables.directory)!r}, "echo"))
    assert signal.getsignal(signal.SIGTERM) is not before[1]
    server.stop()
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before
    signal.raise_signal(signal.SIGTERM)
    """
    server = start_script(script)
    assert server.line() == "mine"
    assert server.wait() == 0, server.errors()


def test_signals_of_a_forked_child_are_its_own(servables: Servables, start_script: StartScript) -> None:
    servables.add("echo", ECHO_SERVABLE)
    after = """
    import os, signal
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(write, b"x")
        signal.pause()
    os.read(read, 1)
    os.kill(child, signal.SIGTERM)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
    """
    server = start_script(serve(servables.directory, "echo", after=after))
    with Client(server.line(), "echo", "same") as client:
        assert server.line() == str(-signal.SIGTERM)
        assert client.infer({"x": "still here"}) == [{"x": "still here"}]


def test_signals_beside_an_event_loop(servables: Servables, start_script: StartScript) -> None:
    servables.add("echo", ECHO_SERVABLE)
    after = """
    import asyncio, signal
    async def main():
        asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, lambda: print("user", flush=True))
        print("loop", flush=True)
        await asyncio.Event().wait()
    try:
        asyncio.run(main())
    except (KeyboardInterrupt, SystemExit) as error:
        print(type(error).__name__, flush=True)
    """
    server = start_script(serve(servables.directory, "echo", after=after))
    server.line()
    assert server.line() == "loop"
    server.send(signal.SIGUSR1)
    assert server.line() == "user"
    workers = server.workers()
    server.send(signal.SIGTERM)
    assert server.line() == "SystemExit"
    assert server.wait() == 0
    wait_gone(workers)


def test_a_signal_while_workers_start(servables: Servables, start_script: StartScript) -> None:
    fifo = servables.directory / "fifo"
    servables.add("slow", SLOW_SERVABLE.format(fifo=str(fifo)))
    os.mkfifo(fifo)
    server = start_script(serve(servables.directory, "slow"))
    with open(fifo, "rb") as stream:
        assert stream.read(1) == b"x"
        workers = server.workers()
        server.send(signal.SIGINT)
        assert server.wait() == -signal.SIGINT, server.errors()
    assert "KeyboardInterrupt" in server.errors()
    wait_gone(workers)


@contextlib.contextmanager
def call_in_flight(
    servables: Servables, start_script: StartScript
) -> Iterator[tuple[ServerProcess, PendingResults, pathlib.Path]]:
    """A server, a call that it is running, and the fifo from which that call takes its answer."""
    servables.add("block", BLOCKING_SERVABLE)
    fifo = servables.directory / "fifo"
    os.mkfifo(fifo)
    server = start_script(serve(servables.directory, "block"))
    with Client(server.line(), "block", "method") as client:
        future = client.infer_async({"fifo": str(fifo)})
        assert fifo.read_text() == "running"
        yield server, future, fifo


def test_a_signal_lets_calls_in_flight_finish(servables: Servables, start_script: StartScript) -> None:
    with call_in_flight(servables, start_script) as (server, future, fifo):
        server.send(signal.SIGTERM)
        fifo.write_text("late answer")
        assert future.result() == [{"text": "late answer"}]
        assert server.wait() == 0


def test_a_second_signal_gives_up_what_is_in_flight(servables: Servables, start_script: StartScript) -> None:
    with call_in_flight(servables, start_script) as (server, future, _):
        server.send(signal.SIGTERM)
        server.send(signal.SIGINT)
        assert "Grpc Error, (14, 'unavailable')" in future.result()["error"]
        assert server.wait() == 0
    assert "is lost" not in server.errors()
