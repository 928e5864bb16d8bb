"""Starting servables and the gRPC server: what fails and how it is told, and what each option comes to."""

from __future__ import annotations

import os
import pathlib
import re
import textwrap

import numpy as np
import pytest

from conftest import (
    ADD_SERVABLE,
    BLOCKING_SERVABLE,
    ECHO_SERVABLE,
    Servables,
    ServerProcess,
    StartScript,
    pid_of,
    serve,
)
from mindserve.client import Client

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


@pytest.mark.parametrize("hang", ["threading.Event().wait()", "re.match('(a|a)*b', 'a' * 99)"])
def test_a_start_that_hangs(servables: Servables, start_script: StartScript, hang: str) -> None:
    """The log says so long before the end, and what is at work; the error has the stack, also if the lock is held."""
    config = f"print('a line for the log')\nimport re, threading\ndef deeper():\n    {hang}\ndeeper()\n"
    path = servables.add("slow", config) / "servable_config.py"
    script = failing(servables.directory, "server.ServableStartConfig(directory, 'slow', start_timeout=6)")
    patch = "from mindserve.supervisor import process\nprocess._FIRST_REMINDER = 1.0\n"
    server = start_script(patch + script)
    text = error_of(server)
    log = server.cwd / "serving_logs" / "log_slow_device0_version1.log"
    assert "not ready within the start_timeout of 6 s: it was still importing servable_config.py" in text
    assert "a line for the log" in text
    assert re.search(rf'File "{path}", line 4 in deeper\n  File "{path}", line 5 in <module>', text)
    said = re.findall(
        r"\[WARNING\] .* (servable 'slow' .*), process \d+, is still starting after (\d+) s: (.*)", server.errors()
    )
    assert {who for who, _, _ in said} == {"servable 'slow' version 1 on device 0"}
    seconds = [int(each) for _, each, _ in said]
    assert 2 <= len(seconds) <= 3
    assert seconds == sorted({*seconds})
    assert said[-1][2] == f"importing servable_config.py; it has 6 s, its start_timeout; its log: {log}"


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
    # What never ran has not stopped.
    assert "the server" not in server.errors()


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


# -- what a worker imports ---------------------------------------------------------------------------------------------

IMPORTING_SERVABLE = """
import os, sys
import beside
from mindserve.server import register


def look(x):
    beside.look()
    import later
    return [str(os.getcwd() in sys.path or "" in sys.path), later.WHERE]


@register.register_method(output_names=["current_directory", "later"])
def imports(x):
    return register.add_stage(look, x, outputs_count=2)
"""


def test_modules_in_the_current_directory_are_not_a_workers(servables: Servables, start_script: StartScript) -> None:
    directory = servables.add("importing", IMPORTING_SERVABLE)
    (directory / "beside.py").write_text("def look():\n    pass\n")
    (directory / "later.py").write_text("WHERE = 'beside'\n")
    # All that a worker's first lines import, by whatever way; the start script has imported the real ones.
    script = """
    import argparse, ctypes, logging, os, pathlib, pkgutil, runpy, socket, subprocess, warnings
    os.mkdir("full")
    os.chdir("full")
    for name in ("argparse", "ctypes", "later", "logging", "mindserve", "pkgutil", "runpy", "socket", "warnings"):
        pathlib.Path(f"{name}.py").write_text(f"raise SystemExit('this {name} is not the one')")
    """
    server = start_script(textwrap.dedent(script) + serve(servables.directory, "importing"))
    with Client(server.line(), "importing", "imports") as client:
        answer = client.infer({"x": 1})
    assert answer == [{"current_directory": "False", "later": "beside"}]


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
    assert any("mindserve.worker" in argument for argument in arguments)
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
