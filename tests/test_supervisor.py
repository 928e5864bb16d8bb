"""Servers as processes: how they start, outlive their start scripts, replace workers, and end."""

from __future__ import annotations

import os
import pathlib
import pty
import re
import signal
import textwrap
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from conftest import ADD_SERVABLE, ECHO_SERVABLE, Servables, ServerProcess, is_alive, wait_gone
from e2e_support import until
from mindserve.client import Client
from mindserve.control import WorkerParameters
from mindserve.supervisor import StartJob, WorkerSpec
from mindserve.supervisor.progress import wait_with_progress

StartScript = Callable[..., ServerProcess]


def serve(directory: pathlib.Path, *names: str, after: str = "", **options: Any) -> str:
    """A start script that prints its address."""
    given = "".join(f", {name}={value!r}" for name, value in options.items())
    configs = "".join(f"server.ServableStartConfig({str(directory)!r}, {name!r}{given})," for name in names)
    return (
        "import sys\n"
        "from mindserve import server\n"
        f"server.start_servables(({configs}))\n"
        "print(server.start_grpc_server('127.0.0.1:0')[0], flush=True)\n" + textwrap.dedent(after)
    )


# Tells through a FIFO that its import has begun, and never ends it.
SLOW_SERVABLE = """
import os, threading
os.write(os.open({fifo!r}, os.O_WRONLY), b"x")
threading.Event().wait()
"""


def ask_until(client: Client, right: Callable[[Any], bool]) -> Any:
    """Asks until the answer is right; fails with the last one after a minute."""
    # Not as fast as it can: what it waits for needs the processors too.
    return until(lambda: client.infer({"x": 1}), right)


def pid_of(answer: Any) -> int:
    return int(answer[0]["pid"]) if isinstance(answer, list) else 0


# -- life and death of a server ----------------------------------------------------------------------------------------


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


BLOCKING_SERVABLE = """
import os, threading
from mindserve.server import register


def block(fifo):
    with open(fifo, "w") as stream:
        stream.write("running")
    with open(fifo) as stream:
        return stream.read()


@register.register_method(output_names="text")
def method(fifo):
    return register.add_stage(block, fifo, outputs_count=1)
"""


def test_a_signal_lets_calls_in_flight_finish(servables: Servables, start_script: StartScript) -> None:
    servables.add("block", BLOCKING_SERVABLE)
    fifo = servables.directory / "fifo"
    os.mkfifo(fifo)
    server = start_script(serve(servables.directory, "block"))
    address = server.line()
    with Client(address, "block", "method") as client:
        future = client.infer_async({"fifo": str(fifo)})
        assert fifo.read_text() == "running"
        server.send(signal.SIGTERM)
        fifo.write_text("late answer")
        assert future.result() == [{"text": "late answer"}]
        assert server.wait() == 0


def test_a_second_signal_gives_up_what_is_in_flight(servables: Servables, start_script: StartScript) -> None:
    servables.add("block", BLOCKING_SERVABLE)
    fifo = servables.directory / "fifo"
    os.mkfifo(fifo)
    server = start_script(serve(servables.directory, "block"))
    address = server.line()
    with Client(address, "block", "method") as client:
        future = client.infer_async({"fifo": str(fifo)})
        assert fifo.read_text() == "running"
        server.send(signal.SIGTERM)
        server.send(signal.SIGINT)
        assert "Grpc Error, (14, 'unavailable')" in future.result()["error"]
        assert server.wait() == 0
    assert "is lost" not in server.errors()


# -- workers that die --------------------------------------------------------------------------------------------------


def test_a_killed_worker_is_replaced(servables: Servables, start_script: StartScript) -> None:
    servables.add("echo", ECHO_SERVABLE)
    server = start_script(serve(servables.directory, "echo"))
    with Client(server.line(), "echo", "worker_pid") as client:
        first = pid_of(client.infer({"x": 1}))
        for _ in range(2):
            os.kill(first, signal.SIGKILL)
            second = pid_of(ask_until(client, lambda answer, old=first: pid_of(answer) not in (0, old)))
            # The first may not have been waited for yet.
            assert set(server.workers()) - {first} == {second}
            first = second
    assert "was ended by SIGKILL" in server.errors()


def test_a_worker_is_replaced_at_once_however_often_it_is_killed(
    servables: Servables, start_script: StartScript
) -> None:
    servables.add("echo", ECHO_SERVABLE)
    server = start_script(serve(servables.directory, "echo"))
    with Client(server.line(), "echo", "worker_pid") as client:
        worker = pid_of(client.infer({"x": 1}))
        for _ in range(8):
            os.kill(worker, signal.SIGKILL)
            worker = pid_of(ask_until(client, lambda answer, old=worker: pid_of(answer) not in (0, old)))
    assert server.errors().count("was ended by SIGKILL") == 8
    assert "is started again in" not in server.errors()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_worker_that_is_told_to_end_is_not_replaced(
    servables: Servables, start_script: StartScript, number: signal.Signals
) -> None:
    servables.add("echo", ECHO_SERVABLE)
    server = start_script(serve(servables.directory, "echo"))
    with Client(server.line(), "echo", "worker_pid") as client:
        worker = pid_of(client.infer({"x": 1}))
        os.kill(worker, number)
        wait_gone([worker])
        answer = ask_until(client, lambda answer: pid_of(answer) == 0)
        assert "Grpc Error, (14, 'unavailable')" in answer["error"]
    server.send(signal.SIGINT)
    assert server.wait() == 0
    assert "was told to end and is not started again" in server.errors()
    assert server.errors().count("is ready") == 1


def test_one_worker_of_two_is_killed(servables: Servables, start_script: StartScript) -> None:
    servables.add("echo", ECHO_SERVABLE)
    server = start_script(serve(servables.directory, "echo", device_ids=(0, 1)))
    with Client(server.line(), "echo", "worker_pid") as client:
        workers = server.workers()
        os.kill(workers[0], signal.SIGTERM)
        wait_gone(workers[:1])
        ask_until(client, lambda answer: pid_of(answer) == workers[1])


# -- starts that fail --------------------------------------------------------------------------------------------------


def failing(directory: pathlib.Path, *configs: str) -> str:
    """A start script that prints the error's text on one line and how many children are left, and waits."""
    return (
        "import pathlib, sys\n"
        "from mindserve import server\n"
        f"directory = {str(directory)!r}\n"
        "try:\n"
        f"    server.start_servables(({', '.join(configs)},))\n"
        "except RuntimeError as error:\n"
        "    print(repr(str(error)), flush=True)\n"
        "    sys.stdin.readline()\n"
        "    server.stop()\n"
    )


def error_of(server: ServerProcess) -> str:
    text = str(eval(server.line()))
    assert server.workers() == []
    server.tell("end")
    assert server.wait() == 0, server.errors()
    return text


def test_a_failed_start_tells_the_workers_own_error(servables: Servables, start_script: StartScript) -> None:
    servables.add("echo", ECHO_SERVABLE)
    servables.add("broken", "print('a line for the log')\nraise ValueError('my own text')\n")
    configs = [f"server.ServableStartConfig(directory, {name!r}, (0, 1))" for name in ("echo", "broken")]
    server = start_script(failing(servables.directory, *configs))
    text = error_of(server)
    log = server.cwd / "serving_logs" / f"log_broken_device{re.search(r'device ([01])', text)[1]}_version1.log"
    assert "Start of servable 'broken' version 1 on device" in text
    assert "ValueError: my own text; while importing file" in text
    assert f"Its log is {log}" in text
    assert text.count("Traceback (most recent call last)") == 1
    assert text.endswith(", in <module>\n    raise ValueError('my own text')\nValueError: my own text")
    assert "a line for the log" in log.read_text()
    assert "is lost" not in server.errors()


def test_a_worker_that_dies_while_it_starts(servables: Servables, start_script: StartScript) -> None:
    servables.add("dying", "import os, signal\nprint('last words')\nos.kill(os.getpid(), signal.SIGSEGV)\n")
    text = error_of(start_script(failing(servables.directory, "server.ServableStartConfig(directory, 'dying')")))
    assert "its process was ended by SIGSEGV" in text
    assert "last words" in text


def test_a_start_that_takes_too_long(servables: Servables, start_script: StartScript) -> None:
    servables.add("slow", "import threading\nthreading.Event().wait()\n")
    config = "server.ServableStartConfig(directory, 'slow', start_timeout=0.5)"
    text = error_of(start_script(failing(servables.directory, config)))
    assert "not ready within the start_timeout of 0.5 s" in text


def test_start_again_after_a_failed_start(servables: Servables, start_script: StartScript) -> None:
    flag = servables.directory / "flag"
    servables.add("echo", f"import os\nassert os.path.exists({str(flag)!r}), 'not yet'\n{ECHO_SERVABLE}")
    script = f"""
    import pathlib
    from mindserve import server
    config = server.ServableStartConfig({str(servables.directory)!r}, "echo")
    try:
        server.start_servables(config)
    except RuntimeError as error:
        assert "not yet" in str(error), error
    pathlib.Path({str(flag)!r}).touch()
    server.start_servables(config)
    try:
        server.start_servables(config)
    except RuntimeError as error:
        assert "servable 'echo' version 1 on device 0 is already running" in str(error), error
    print(server.start_grpc_server("127.0.0.1:0")[0], flush=True)
    """
    server = start_script(script)
    address = server.line()
    with Client(address, "echo", "worker_pid") as client:
        assert [pid_of(client.infer({"x": 1}))] == server.workers()


def test_one_that_runs_already_lets_no_other_start(servables: Servables, start_script: StartScript) -> None:
    for name in ("echo", "other"):
        servables.add(name, ECHO_SERVABLE)
    after = f"""
    configs = [server.ServableStartConfig({str(servables.directory)!r}, name) for name in ("other", "echo")]
    try:
        server.start_servables(configs)
    except RuntimeError as error:
        print(error, flush=True)
    sys.stdin.readline()
    server.start_servables(configs[:1])
    print("started", flush=True)
    """
    server = start_script(serve(servables.directory, "echo", after=after))
    with Client(address := server.line(), "echo", "worker_pid") as echo, Client(address, "other", "same") as other:
        assert server.line() == "servable 'echo' version 1 on device 0 is already running"
        assert [pid_of(echo.infer({"x": 1}))] == server.workers()
        assert "servable is not available" in other.infer({"x": "text"})["error"]
        server.tell("start")
        assert server.line() == "started"
        assert other.infer({"x": "text"}) == [{"x": "text"}]


def test_a_script_that_lives_with_a_failed_start_can_end(servables: Servables, start_script: StartScript) -> None:
    script = """
    from mindserve import server
    for start in (
        lambda: server.start_servables(server.ServableStartConfig("nowhere", "add")),
        lambda: server.start_grpc_server("127.0.0.1"),
    ):
        try:
            start()
        except RuntimeError as error:
            print(error, flush=True)
    """
    server = start_script(script)
    assert "Check servable config failed, directory '" in server.line()
    assert "The format of the Serving gRPC server address '127.0.0.1' is illegal" in server.line()
    assert server.wait() == 0


# -- progress ----------------------------------------------------------------------------------------------------------


def spec(device: int) -> WorkerSpec:
    parameters = WorkerParameters(
        servable_directory="/d",
        servable_name="add",
        version=1,
        version_asked=0,
        device_id=device,
        device_type=None,
        intra_op_threads=1,
        max_batch_size=32,
        max_queue_delay_us=0,
    )
    return WorkerSpec(parameters, pathlib.Path("log"), 1.0)


def test_a_job_ends_when_all_are_ready() -> None:
    job = StartJob([spec(0), spec(1)])
    assert not job.set_ready(spec(1))
    job.set_phase(spec(0), "loading model add.onnx")
    assert [line.phase for line in job.progress()] == ["loading model add.onnx", "ready"]
    assert job.set_ready(spec(0))
    assert not job.wait(0)
    job.end()
    assert job.wait()
    assert job.error == ""


def test_a_jobs_first_error_is_its_error() -> None:
    job = StartJob([spec(0), spec(1)])
    job.set_failed(spec(0), "first")
    job.set_failed(spec(1), "second")
    assert job.error == "first"


def test_progress_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    ours, theirs = pty.openpty()
    with open(ours, "rb", buffering=0) as screen, open(theirs, "w") as terminal:
        monkeypatch.setattr("sys.stderr", terminal)
        job = StartJob([spec(0), spec(1)])
        job.set_ready(spec(0))
        job.set_failed(spec(1), "error")
        job.end()
        wait_with_progress(job)
        shown = b""
        while b"failed" not in shown:
            shown += screen.read(65536)
    assert b"servable 'add' version 1 on device 0" in shown
    assert b"ready" in shown


def test_no_progress_elsewhere(capsys: pytest.CaptureFixture[str]) -> None:
    job = StartJob([spec(0)])
    job.end()
    wait_with_progress(job)
    assert capsys.readouterr().err == ""


# -- the gRPC server ---------------------------------------------------------------------------------------------------


def test_addresses_that_do_not_work(start_script: StartScript) -> None:
    script = """
    from mindserve import server
    def error(*arguments):
        try:
            server.start_grpc_server(*arguments)
        except RuntimeError as error:
            print(error, flush=True)
    error("127.0.0.1")
    error("127.0.0.1:70000")
    error("unix:")
    address = server.start_grpc_server("127.0.0.1:0")[0]
    print(address, flush=True)
    error("127.0.0.1:0")
    server.stop()
    import socket
    taken = socket.create_server(("127.0.0.1", 0))
    error(f"127.0.0.1:{taken.getsockname()[1]}")
    server.stop()
    """
    server = start_script(script)
    assert "The format of the Serving gRPC server address '127.0.0.1' is illegal" in server.line()
    assert (
        "The port of the Serving gRPC server address '127.0.0.1:70000' is out of legal range [1 ~ 65535]"
        in server.line()
    )
    assert "Empty grpc server unix domain socket address" in server.line()
    assert server.line().startswith("127.0.0.1:")
    assert server.line() == "Serving Error: Serving gRPC server is already running"
    assert "Serving Error: Serving gRPC server start failed, create server failed, address 127.0.0.1:" in server.line()
    assert server.wait() == 0, server.errors()


def test_every_limit_is_known_to_the_core(start_script: StartScript) -> None:
    script = """
    import dataclasses
    from mindserve import server
    defaults = dataclasses.asdict(server.Limits())
    changed = {name: 50 if value == 100 else value + 1 for name, value in defaults.items()}
    limits = server.Limits(**changed)
    assert limits.as_native().keys() == changed.keys()
    print(server.start_grpc_server("127.0.0.1:0", limits=limits)[0], flush=True)
    server.stop()
    """
    server = start_script(script)
    assert server.line().startswith("127.0.0.1:")
    assert server.wait() == 0, server.errors()


def test_several_listeners(servables: Servables, start_script: StartScript) -> None:
    servables.add("echo", ECHO_SERVABLE)
    script = f"""
    from mindserve import server
    print(*server.start_grpc_server([server.Listener("127.0.0.1:0"), server.Listener("unix:s.sock", mode=0o660)]))
    server.start_servables(server.ServableStartConfig({str(servables.directory)!r}, "echo"))
    print("ready", flush=True)
    """
    server = start_script(script)
    tcp, unix = server.line().split()
    assert server.line() == "ready"
    assert (server.cwd / "s.sock").stat().st_mode & 0o777 == 0o660
    assert unix.endswith("s.sock")
    for address in (tcp, f"unix:{server.cwd}/s.sock"):
        with Client(address, "echo", "same") as client:
            assert client.infer({"x": "text"}) == [{"x": "text"}]


def test_the_limit_of_enqueued_requests(servables: Servables, start_script: StartScript) -> None:
    servables.add("block", BLOCKING_SERVABLE)
    fifo = servables.directory / "fifo"
    os.mkfifo(fifo)
    script = "from mindserve.server.master import context\ncontext.set_max_enqueued_requests(1)\n"
    server = start_script(script + serve(servables.directory, "block"))
    with Client(server.line(), "block", "method") as client:
        future = client.infer_async({"fifo": str(fifo)})
        assert fifo.read_text() == "running"
        refused = client.infer({"fifo": "none"})
        assert "enqueued requests count exceeds the limit 1" in refused["error"]
        assert "Grpc Error, (8, 'resource exhausted')" in refused["error"]
        fifo.write_text("done")
        assert future.result() == [{"text": "done"}]


# -- logs --------------------------------------------------------------------------------------------------------------


def test_a_workers_log(servables: Servables, start_script: StartScript) -> None:
    servables.add(
        "echo",
        "import logging\nprint('printed')\nlogging.getLogger('own').warning('own line')\n"
        "logging.getLogger('own').info('own detail')\n"
        "import warnings\nwarnings.warn('old ways', DeprecationWarning)\n" + ECHO_SERVABLE,
    )
    server = start_script(
        serve(servables.directory, "echo", device_ids=3), GLOG_v="1", MS_SUBMODULE_LOG_v="{SERVING:2}"
    )
    server.line()
    log = (server.cwd / "serving_logs" / "log_echo_device3_version1.log").read_text()
    assert "printed" in log
    assert re.search(r"^\[WARNING\] .* own: own line$", log, re.MULTILINE)
    assert re.search(r"^\[WARNING\] .*DeprecationWarning: old ways", log, re.MULTILINE)
    assert "[INFO]" not in log


def test_nothing_secret_on_a_workers_command_line(servables: Servables, start_script: StartScript) -> None:
    servables.add("echo", ECHO_SERVABLE)
    server = start_script(serve(servables.directory, "echo"))
    server.line()
    (worker,) = server.workers()
    arguments = pathlib.Path(f"/proc/{worker}/cmdline").read_text().split("\0")
    assert arguments[1:3] == ["-m", "mindserve.worker"]
    assert str(servables.directory) not in " ".join(arguments)
    environment = pathlib.Path(f"/proc/{worker}/environ").read_bytes()
    assert str(servables.directory).encode() not in environment


# -- models ------------------------------------------------------------------------------------------------------------


def test_add(servables: Servables, start_script: StartScript) -> None:
    servables.add("add", ADD_SERVABLE, versions=(1, 2))
    server = start_script(serve(servables.directory, "add"))
    address = server.line()
    assert (server.cwd / "serving_logs" / "log_add_device0_version2.log").is_file()
    ones = np.ones((2, 2), np.float32)
    with Client(address, "add", "add_common") as client:
        np.testing.assert_array_equal(client.infer({"x1": ones, "x2": ones})[0]["y"], ones + ones)
    with Client(address, "add", "add_cast", version_number=2) as client:
        y = client.infer({"x1": ones.astype(np.int32), "x2": ones.astype(np.int8)})[0]["y"]
        np.testing.assert_array_equal(y, ones + ones)
    with Client(address, "add", "add_common", version_number=1) as client:
        assert "Request Servable(add) method(add_common) version(1)" in client.infer({"x1": ones, "x2": ones})["error"]


CONTEXT_SERVABLE = """
from mindserve.server import register

context = register.Context(graph_optimization="off")
context.append_device_info(register.CPUDeviceInfo(precision_mode="fp16"))
model = register.declare_model("add.onnx", "ONNX", with_batch_dim=False, context=context)


@register.register_method(output_names=["y"])
def add(x1, x2):
    return register.add_stage(model, x1, x2, outputs_count=1)
"""


def test_the_options_of_a_context(servables: Servables, start_script: StartScript) -> None:
    servables.add("add", CONTEXT_SERVABLE, versions=(1,))
    server = start_script(serve(servables.directory, "add", device_type="CPU"), GLOG_v="0")
    ones = np.ones((2, 2), np.float32)
    with Client(server.line(), "add", "add") as client:
        np.testing.assert_array_equal(client.infer({"x1": ones, "x2": ones})[0]["y"], ones + ones)
    log = (server.cwd / "serving_logs" / "log_add_device0_version1.log").read_text()
    assert re.search(r"^\[WARNING\] .* precision_mode fp16: on CPU ONNX Runtime computes in", log, re.MULTILINE)
    # So the engine's own account of what it was told: 0 is off.
    assert "graph_optimization_level:0 " in log


WRONG_COUNTS = """
from mindserve.server import register

model = register.declare_model(model_file="add.onnx", model_format="ONNX", with_batch_dim=False)


@register.register_method(output_names=["y"])
def method(x1, x2, x3):
    outputs = register.add_stage(model, {arguments})
    return outputs[0] if isinstance(outputs, tuple) else outputs
"""


@pytest.mark.parametrize(
    ("config", "options", "versions", "text"),
    [
        (
            ADD_SERVABLE,
            "version_number=2",
            (1,),
            "There is no specified version directory of models, specified version number: 2",
        ),
        (ADD_SERVABLE, "", (), "There is no valid version directory of models"),
        (ADD_SERVABLE.replace("add.onnx", "not.onnx"), "", (1,), "Load model failed, servable directory: "),
        (
            WRONG_COUNTS.format(arguments="x1, x2, x3, outputs_count=1"),
            "",
            (1,),
            "The inputs count 3 in register_method not equal to the count 2 defined in model",
        ),
        (
            WRONG_COUNTS.format(arguments="x1, x2, outputs_count=2"),
            "",
            (1,),
            "The outputs count 2 in register_method not equal to the count 1 defined in model",
        ),
        (
            ADD_SERVABLE,
            "device_type='Ascend'",
            (1,),
            "The device type 'Ascend' of servable name add is inconsistent with current running environment",
        ),
    ],
)
def test_models_that_cannot_be_served(
    servables: Servables,
    start_script: StartScript,
    config: str,
    options: str,
    versions: tuple[int, ...],
    text: str,
) -> None:
    servables.add("add", config, versions=versions)
    script = failing(servables.directory, f"server.ServableStartConfig(directory, 'add', {options})")
    assert text in error_of(start_script(script))


def test_a_model_file_that_is_none(servables: Servables, start_script: StartScript) -> None:
    directory = servables.add("add", ADD_SERVABLE, versions=(1,))
    (directory / "1" / "add.onnx").write_bytes(b"no model")
    text = error_of(start_script(failing(servables.directory, "server.ServableStartConfig(directory, 'add')")))
    assert "Load model failed, servable directory: " in text
    assert "add.onnx" in text
