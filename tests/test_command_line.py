"""Serving from a file and from the shell, and checking a file: whole processes."""

from __future__ import annotations

import json
import os
import pathlib
import re
import signal
import socket
import stat
import sys
from typing import Any

import pytest

from certificates import Files
from command_line import Shell
from conftest import ADD_SERVABLE, BLOCKING_SERVABLE, ECHO_SERVABLE, PACKAGE, Servables, is_alive, wait_gone
from e2e_support import until
from mindserve.client import Client, SSLConfig
from stubs import compile_protos

PROTO = "message Text { string text = 1; } service Service { rpc Echo(Text) returns (Text); }"

PAGE = PACKAGE.parent / "docs" / "command_line.md"


@pytest.fixture
def shell(tmp_path: pathlib.Path) -> Shell:
    return Shell(tmp_path / "shell")


def echo(address: str, servable: str = "echo", ssl_config: SSLConfig | None = None) -> Any:
    with Client(address, servable, "same", ssl_config=ssl_config) as client:
        return client.infer({"x": "hello"}, timeout=60)


def write(shell: Shell, text: str) -> str:
    (shell.directory / "config.yaml").write_text(text, encoding="utf-8")
    return "config.yaml"


# -- run ---------------------------------------------------------------------------------------------------------------


def test_the_documented_file_serves(shell: Shell, servables: Servables, own_files: Files) -> None:
    (text, _) = re.findall(r"```yaml\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    shell.directory.joinpath("models").symlink_to(servables.directory)
    shell.directory.joinpath("certs").symlink_to(pathlib.Path(own_files.server).parent)
    servables.add("detector", ECHO_SERVABLE)
    servables.add("classifier", ECHO_SERVABLE, versions=(1, 2))
    config = write(shell, text.replace("0.0.0.0:5500", "127.0.0.1:0"))
    done = shell.run("validate", config)
    assert done.returncode == 0, done.stdout + done.stderr
    with shell.serving("run", config) as server:
        tls = server.line()
        assert tls.endswith(" (TLS)")
        unix = server.address()
        address = tls.removeprefix("Listening on ").removesuffix(" (TLS)")
        ssl_config = SSLConfig(own_files.client, own_files.client_key, own_files.ca)
        assert echo(address, "detector", ssl_config) == [{"x": "hello"}]
        assert "error" in echo(address, "detector", SSLConfig(custom_ca=own_files.ca))
        # Relative paths are those of the file.
        assert unix == f"unix:{shell.directory}/mindserve.sock"
        assert stat.S_IMODE((shell.directory / "mindserve.sock").stat().st_mode) == 0o660
        assert echo(unix, "classifier") == [{"x": "hello"}]
        status = shell.json("status")
        workers = {(each["servable"], each["version"], each["device_id"]) for each in status["workers"]}
        assert workers == {("detector", 1, 0), ("detector", 1, 1), ("classifier", 2, 0)}
        assert server.stop() == 0
    assert not (shell.directory / "mindserve.sock").exists()


def test_run_tells_machines_where_it_listens(shell: Shell, servables: Servables) -> None:
    servables.add("echo", ECHO_SERVABLE)
    config = {"servables": [{"directory": str(servables.directory), "name": "echo"}], "grpc": {"port": 0}}
    (shell.directory / "config.json").write_text(json.dumps(config))
    with shell.serving("run", "config.json", "--json") as server:
        told = json.loads(server.line())
        (address,) = told["addresses"]
        assert told == {"pid": server.pid, "addresses": [address], "servables": ["echo"]}
        assert address.startswith("127.0.0.1:")
        assert echo(address) == [{"x": "hello"}]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signals_end_it_when_calls_are_done(shell: Shell, servables: Servables, number: signal.Signals) -> None:
    servables.add("block", BLOCKING_SERVABLE)
    fifo = shell.directory / "fifo"
    os.mkfifo(fifo)
    with (
        shell.serving("start", "--servable", servables.directory, "--grpc-port", 0) as server,
        Client(server.address(), "block", "method") as client,
    ):
        pending = client.infer_async({"fifo": str(fifo)}, timeout=60)
        assert fifo.read_text() == "running"
        server.process.send_signal(number)
        until(lambda: "the server stops" in server.errors())
        fifo.write_text("done")
        assert pending.result() == [{"text": "done"}]
        assert server.process.wait(60) == 0


def test_reload_and_handover(shell: Shell, servables: Servables) -> None:
    servables.add("echo", ECHO_SERVABLE)
    config = write(
        shell,
        f"servables: [{{directory: {servables.directory}, name: echo, hot_reload: false}}]\ngrpc: {{port: 0}}\n",
    )
    with shell.serving("run", config) as server:
        address = server.address()
        (before,) = shell.json("status")["workers"]
        assert shell.run("reload").stdout == "loading\nservable 'echo' version 1 serves\n"
        (after,) = shell.json("status")["workers"]
        assert after["pid"] != before["pid"]
        # A file that is wrong by then: the old server goes on, and the command tells why.
        write(shell, "servables: [{directory: nowhere, nam: echo}]")
        failed = shell.run("handover")
        assert failed.returncode == 1
        assert "config.yaml:1:34: the key 'nam' is not known in 'servables[0]'; did you mean 'name'?" in failed.stderr
        assert echo(address) == [{"x": "hello"}]
        # One that says something else.
        servables.add("other", ECHO_SERVABLE)
        write(shell, f"servables: [{{directory: {servables.directory}, name: other}}]\ngrpc: {{port: 0}}\n")
        done = shell.run("handover")
        assert done.returncode == 0, done.stdout + done.stderr
        successor = int(re.findall(r"^process (\d+) serves", done.stdout, re.MULTILINE)[0])
        assert server.process.wait(60) == 0
        try:
            assert server.address() == address
            assert echo(address, "other") == [{"x": "hello"}]
            status = shell.json("status", successor)
            assert status["pid"] == successor
            (worker,) = status["workers"]
        finally:
            os.kill(successor, signal.SIGTERM)
        wait_gone([successor, worker["pid"]])


def test_a_start_that_fails_leaves_nothing(shell: Shell, servables: Servables) -> None:
    servables.add("bad", "import nothing_of_this_name\n")
    servables.add("echo", ECHO_SERVABLE)
    failed = shell.run("start", "-s", servables.directory / "bad", "--grpc-port", 0)
    assert failed.returncode == 1
    assert "Error: " in failed.stderr
    assert "No module named 'nothing_of_this_name'" in failed.stderr
    assert "Traceback" not in failed.stderr.partition("log")[0]
    assert failed.stdout == ""
    # Its workers run by the time that it can't listen.
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        failed = shell.run("start", "-s", servables.directory / "echo", "--grpc-port", port)
    assert failed.returncode == 1
    assert f"127.0.0.1:{port}" in failed.stderr
    workers = [int(pid) for pid in re.findall(r"is ready, process (\d+)", failed.stderr)]
    assert len(workers) == 1
    assert not any(map(is_alive, workers))


def test_interrupted_while_it_starts(shell: Shell, servables: Servables) -> None:
    directory = servables.add("slow", "")
    fifo = shell.directory / "fifo"
    os.mkfifo(fifo)
    (directory / "servable_config.py").write_text(f"open({str(fifo)!r}).read()\n{ECHO_SERVABLE}")
    with shell.serving("start", "-s", directory, "--grpc-port", 0) as server, fifo.open("w"):
        server.process.send_signal(signal.SIGINT)
        assert server.process.wait(60) == 130
        assert "Traceback" not in server.errors()


def test_missing_directories_are_told_with_their_lines(shell: Shell, servables: Servables) -> None:
    servables.add("echo", ECHO_SERVABLE)
    config = write(
        shell,
        f"servables:\n- directory: {servables.directory}\n  name: ecko\n- directory: nowhere\n  name: echo2\n",
    )
    for command in ("run", "validate"):
        failed = shell.run(command, config)
        assert failed.returncode == 1
        assert f"config.yaml:3:3: Check servable config failed, directory '{servables.directory}/ecko' not exist" in (
            failed.stderr
        )
        assert f"config.yaml:4:3: Check servable config failed, directory '{shell.directory}/nowhere' not exist" in (
            failed.stderr
        )


def test_wrong_calls(shell: Shell) -> None:
    for arguments, text in (
        (("run",), "Missing argument 'CONFIG.YAML'"),
        (("start",), "Missing option '--servable'"),
        (("start", "-s", ".", "--grpc-prot", "1"), "No such option"),
        (("validate",), "expected the name of a config file"),
        (("status", "--interval", "0"), "0"),
        (("serve",), "No such command 'serve'"),
    ):
        done = shell.run(*arguments)
        assert done.returncode == 2, done
        assert text in done.stderr
    for command in ("run", "validate"):
        done = shell.run(command, "none.yaml")
        assert done.returncode == 1
        assert "none.yaml: the file can't be read: No such file or directory" in done.stderr
    for command in ("run", "start", "validate", "infer", "status", "reload", "handover", "certs"):
        done = shell.run(command, "--help")
        assert done.returncode == 0
        assert f"Usage: mindserve {command}" in done.stdout.replace("python -m ", "")


# -- start -------------------------------------------------------------------------------------------------------------


def test_start_with_every_option(shell: Shell, servables: Servables, own_files: Files) -> None:
    servables.add("add", ADD_SERVABLE, versions=(1, 2))
    servables.add("echo", ECHO_SERVABLE)
    with shell.serving(
        "start",
        *("--servable", servables.directory),
        *("--grpc-address", "127.0.0.1:0", "--grpc-address", f"unix:{shell.directory}/s.sock"),
        *("--device-ids", "0,1", "--device-type", "cpu", "--version-number", 1),
        *("--servable-option", "max_batch_size=4", "--limit", "max_instances_per_request=1"),
        *("--tls-cert", own_files.server, "--tls-key", own_files.server_key, "--tls-ca", own_files.ca),
    ) as server:
        ssl_config = SSLConfig(own_files.client, own_files.client_key, own_files.ca)
        for address in (server.address(), server.address()):
            with Client(address, "echo", "same", ssl_config=ssl_config) as client:
                assert client.infer({"x": "hello"}, timeout=60) == [{"x": "hello"}]
                assert "max_instances_per_request" in client.infer([{"x": "a"}] * 2, timeout=60)["error"]
            assert "error" in echo(address, "echo", SSLConfig(custom_ca=own_files.ca))
        workers = shell.json("status")["workers"]
        assert {(each["servable"], each["version"], each["device_id"]) for each in workers} == {
            (name, 1, device) for name in ("add", "echo") for device in (0, 1)
        }
        assert server.stop() == 0


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["-s", "SERVABLES/ecko"], "--servable: 'SERVABLES/ecko' should be a directory with a servable_config.py, or"
         " one with such directories in it, but such a directory is not there; did you mean 'echo'?"),
        (["-s", "SERVABLES/empty"], "but in this one there is no servable_config.py"),
        (["-s", "SERVABLES/echo/servable_config.py"], "but this is a file"),
        (["-s", "SERVABLES/echo", "--device-ids", "0,x"], "--device-ids: 'servables[0].device_ids[1]' should be a whole"
         " number, but is the text 'x'"),
        (["-s", "SERVABLES/echo", "--device-type", "TPU"], "'servables[0].device_type' should be one of"),
        (["-s", "SERVABLES/echo", "--version-number", "-1"], "--version-number: 'servables[0]."
         "version_number' should be >= 0"),
        (["-s", "SERVABLES/echo", "--limit", "max_conections=5"], "--limit: the key 'max_conections' is not known in"
         " 'limits'; did you mean 'max_connections'?"),
        (["-s", "SERVABLES/echo", "--limit", "drain_timeout"], "--limit: 'drain_timeout' should be NAME=VALUE"),
        (["-s", "SERVABLES/echo", "--limit", "drain_timeout=1", "--limit", "drain_timeout=2"],
         "--limit: 'drain_timeout' is given twice: expected once"),
        (["-s", "SERVABLES/echo", "--servable-option", "hot_reload=yes"], "--servable-option: 'servables[0].hot_reload'"
         " should be true or false, but is the text 'yes': write true"),
        (["-s", "SERVABLES/echo", "--grpc-port", "1", "--grpc-address", "a:1"], "'port' is given besides 'listeners'"),
        (["-s", "SERVABLES/echo", "--grpc-port", "99999"], "--grpc-port: 'grpc.port' should be in range [0,65535]"),
        (["-s", "SERVABLES/echo", "--tls-cert", "a"], "--tls-cert: the key 'private_key' is missing in"),
        (["-s", "SERVABLES/echo", "--grpc-servicer-functions", "add me"], "--grpc-servicer-functions:"
         " 'grpc.grpc_servicer_functions[0]' should be an import path"),
    ],
)  # fmt: skip
def test_start_with_wrong_options(shell: Shell, servables: Servables, arguments: list[str], text: str) -> None:
    servables.add("echo", ECHO_SERVABLE)
    (servables.directory / "empty").mkdir()
    given = [argument.replace("SERVABLES", str(servables.directory)) for argument in arguments]
    failed = shell.run("start", *given)
    assert failed.returncode == 1
    assert text.replace("SERVABLES", str(servables.directory)) in failed.stderr
    assert "Traceback" not in failed.stderr


# -- validate ----------------------------------------------------------------------------------------------------------


def test_validate_tells_what_would_be_served(shell: Shell, servables: Servables, own_files: Files) -> None:
    servables.add("add", ADD_SERVABLE, versions=(1, 3))
    servables.add("fruit", "from mindserve.server import register\n\n\n@register.driver\ndef buy(input): ...\n")
    config = write(
        shell,
        f"""
servables:
  - {{directory: {servables.directory}, name: add, device_ids: [0, 1]}}
  - {{directory: {servables.directory}, name: fruit}}
grpc: {{address: "0.0.0.0:5500", ssl_config: {{certificate: {own_files.server}, private_key: {own_files.server_key}}}}}
""",
    )
    done = shell.run("validate", config)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        "servable 'add' version 3 on device 0, 1",
        "  add_common(x1, x2) -> y",
        "  add_cast(x1, x2) -> y",
        "servable 'fruit' version 1 on device 0",
        "  gRPC handlers: buy",
        "listens on 0.0.0.0:5500 (TLS)",
        "config.yaml is valid",
    ]
    assert shell.json("validate", config) == {
        "valid": True,
        "file": config,
        "problems": [],
        "warnings": [],
        "servables": [
            {
                "directory": str(servables.directory),
                "name": "add",
                "version": 3,
                "device_ids": [0, 1],
                "models": ["add.onnx"],
                "methods": [
                    {"name": "add_common", "inputs": ["x1", "x2"], "outputs": ["y"]},
                    {"name": "add_cast", "inputs": ["x1", "x2"], "outputs": ["y"]},
                ],
                "handlers": [],
                "classifier": None,
            },
            {
                "directory": str(servables.directory),
                "name": "fruit",
                "version": 1,
                "device_ids": [0],
                "models": [],
                "methods": [],
                "handlers": ["buy"],
                "classifier": None,
            },
        ],
        "listeners": [{"address": "0.0.0.0:5500", "tls": True}],
    }


@pytest.mark.parametrize(
    ("servable", "versions", "text"),
    [
        ("import nothing_of_this_name\n", (), "No module named 'nothing_of_this_name'; while importing file *, line 1"),
        ("x = \n", (), "SyntaxError"),
        (
            "print('some output')\nx = 1\n",
            (),
            "There is no method registered for servable 'it'*Its output:\nsome output",
        ),
        (
            "import os, sys\nprint('bye', flush=True)\nos._exit(3)\n",
            (),
            "ended its process, with status 3\nIts output:\nbye",
        ),
        ("import os, signal\nos.kill(os.getpid(), signal.SIGSEGV)\n", (), "ended its process, with signal 11"),
        ("import sys\nsys.exit(0)\n", (), "SystemExit"),
        ("import threading\nthreading.Event().wait()\n", (), "has not ended within 2 s"),
        (ADD_SERVABLE, (), "There is no valid version directory of models"),
        (ADD_SERVABLE.replace('"add.onnx"', '"other.onnx"'), (1,), "model file '*/it/1/other.onnx' not exist"),
    ],
)
def test_validate_finds_servables_that_would_not_start(
    shell: Shell, servables: Servables, servable: str, versions: tuple[int, ...], text: str
) -> None:
    servables.add("it", servable, versions=versions)
    config = write(shell, f"servables:\n  - directory: {servables.directory}\n    name: it\n")
    done = shell.run("validate", config, "--json", "--timeout", "2" if "within 2 s" in text else "60")
    assert done.returncode == 1
    answer = json.loads(done.stdout)
    (problem,) = answer["problems"]
    assert not answer["valid"]
    assert re.search(".*".join(map(re.escape, text.split("*"))), problem["text"], re.DOTALL), problem
    assert (problem["file"], problem["line"], problem["column"]) in ((config, 3, 5), (config, 2, 5))
    assert problem["key"].startswith("servables[0].")


def test_validate_runs_no_server_and_reports_everything(shell: Shell, servables: Servables, own_files: Files) -> None:
    servables.add("echo", ECHO_SERVABLE)
    servables.add("bad", "1 / 0\n")
    config = write(
        shell,
        f"""
servables:
  - {{directory: {servables.directory}, name: echo}}
  - {{directory: {servables.directory}, name: bad}}
  - {{directory: {servables.directory}, name: none}}
grpc:
  listeners:
    - address: "127.0.0.1:5500"
      ssl_config: {{certificate: {own_files.server}, private_key: {own_files.client_key}}}
    - {{address: "127.0.0.1:5501", ssl_config: {{certificate: none.crt, private_key: none.key}}}}
""",
    )
    done = shell.run("validate", config)
    assert done.returncode == 1
    lines = [line for line in done.stderr.splitlines() if line.startswith("config.yaml:")]
    assert [re.match(r"config\.yaml:(\d+)", line)[1] for line in lines[:-1]] == ["4", "5", "9", "10"]
    assert "ZeroDivisionError: division by zero" in lines[0]
    assert "directory" in lines[1]
    assert "private_key" in lines[2]
    assert f"{shell.directory}/none.crt" in lines[3]
    assert lines[-1] == "config.yaml: 4 problems"
    assert "same(x) -> x" in done.stdout
    assert not (shell.directory / "serving_logs").exists()


def test_run_and_validate_tell_everything_at_once(shell: Shell, servables: Servables, own_files: Files) -> None:
    servables.add("echo", ECHO_SERVABLE)
    servables.add("bad", "1 / 0\n")
    config = write(
        shell,
        f"""
servables:
  - {{directory: {servables.directory}, name: echo, max_batch_size: 0}}
  - {{directory: {servables.directory}, name: none, hot_reload: yes}}
  - {{directory: {servables.directory}, name: bad, device_idss: 1}}
grpc:
  port: 70000
  ssl_config: {{certificate: {own_files.server}, private_key: {own_files.client_key}}}
  grpc_servicer_functions: [add me]
limits: {{max_connections: 1, max_connections: 2, drain_timeot: 5}}
""",
    )
    texts = {
        "3": ["should be in range [1,1048576], but is the number 0"],
        "4": ["directory '", "should be true or false, but is the text 'yes'"],
        "5": ["did you mean 'device_ids'?"],
        "7": ["should be in range [0,65535], but is the number 70000"],
        "8": ["private_key"],
        "9": ["an import path"],
        "10": ["is given twice, first in line 10", "did you mean 'drain_timeout'?"],
    }
    for command in ("run", "validate"):
        done = shell.run(command, config)
        assert done.returncode == 1
        found = re.findall(r"config\.yaml:(\d+):\d+: (.*)", done.stderr)
        # What an import runs is only looked at by `validate`.
        expected = {**texts, "5": ["ZeroDivisionError", *texts["5"]]} if command == "validate" else texts
        lines = [line for line, _ in found]
        assert lines == sorted(lines, key=int)
        assert {line: lines.count(line) for line in lines} == {line: len(each) for line, each in expected.items()}
        for line, each in expected.items():
            assert all(any(line == at and text in told for at, told in found) for text in each), (line, found)
    assert not (shell.directory / "serving_logs").exists()


def test_the_schema_is_printed(shell: Shell) -> None:
    done = shell.run("validate", "--schema")
    assert done.stdout == (PACKAGE.parent / "docs" / "config.schema.json").read_text(encoding="utf-8")


# -- what is passed on -------------------------------------------------------------------------------------------------


def test_services_are_passed_on(monkeypatch: pytest.MonkeyPatch, servables: Servables, tmp_path: pathlib.Path) -> None:
    from typer.testing import CliRunner

    from mindserve import server
    from mindserve.cli import app
    from mindserve.server.services import check_functions

    calls: list[dict[str, Any]] = []
    monkeypatch.setattr(server, "start_servables", lambda configs: None)
    monkeypatch.setattr(server, "start_grpc_server", lambda address, **options: calls.append(options) or ["a:1"])
    monkeypatch.setattr(sys, "path", [*sys.path])
    servables.add("echo", ECHO_SERVABLE)
    compile_protos(tmp_path, **{name: PROTO.replace("Service", name.upper()) for name in ("a", "b")})
    paths = ["a_pb2_grpc.add_AServicer_to_server", "b_pb2_grpc:add_BServicer_to_server"]
    config = tmp_path / "config.yaml"
    config.write_text(
        f"servables: [{{directory: {servables.directory}, name: echo}}]\n"
        f"grpc_options: {{port: 9000, grpc_servicer_functions: {json.dumps(paths)}}}\n"
    )
    runner = CliRunner()
    assert runner.invoke(app, ["run", str(config)]).output == "Listening on a:1\n"
    # What they lead to has been found by now.
    assert [str(item) for item in check_functions(calls.pop()["grpc_servicer_functions"])] == [*map(repr, paths)]
    # Where generated modules may lie, after everything that is installed.
    assert str(tmp_path) in sys.path[1:]
    functions = [argument for path in paths for argument in ("--grpc-servicer-functions", path)]
    assert runner.invoke(app, ["start", "-s", str(servables.directory), *functions]).exit_code == 0
    assert [str(item) for item in check_functions(calls.pop()["grpc_servicer_functions"])] == [*map(repr, paths)]
    assert runner.invoke(app, ["start", "-s", str(servables.directory)]).exit_code == 0
    assert "grpc_servicer_functions" not in calls.pop()
