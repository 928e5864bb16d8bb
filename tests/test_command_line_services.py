"""Services of one's own, from a file and from the shell."""

from __future__ import annotations

import json
import pathlib
from typing import Any

import grpc
import pytest

from command_line import Shell
from conftest import Servables
from stubs import compile_protos

PROTO = """
package greetings;
message Name { string text = 1; }
message Greeting { string text = 1; }
service Greeter { rpc Greet(Name) returns (Greeting); }
"""

CONFIG = """
from greetings_pb2 import Greeting
from mindserve.server import register


@register.grpc_method
def Greet(request):
    return Greeting(text=f"Hello {request.text}")
"""

ADDS_GREETER = "greetings_pb2_grpc.add_GreeterServicer_to_server"


@pytest.fixture
def shell(tmp_path: pathlib.Path) -> Shell:
    return Shell(tmp_path / "shell")


def write(shell: Shell, servables: Servables, *functions: str) -> str:
    """A file of servable 'greeter' with these functions, the first in line 5."""
    lines = "".join(f"    - {function}\n" for function in functions)
    (shell.directory / "config.yaml").write_text(
        f"servables: [{{directory: {servables.directory}, name: greeter}}]\n"
        f"grpc:\n  port: 0\n  grpc_servicer_functions:\n{lines}"
    )
    return "config.yaml"


def greet(address: str, name: str) -> str:
    # By hand: both messages have one field of text.
    with grpc.insecure_channel(address) as channel:
        call: Any = channel.unary_unary("/greetings.Greeter/Greet")
        reply: bytes = call(b"\x0a" + bytes([len(name)]) + name.encode(), timeout=60)
    return reply[2:].decode()


@pytest.mark.parametrize("beside", ["servable_config.py", "config.yaml"])
def test_from_a_file(shell: Shell, servables: Servables, beside: str) -> None:
    directory = servables.add("greeter", CONFIG)
    compile_protos(directory, greetings=PROTO)
    if beside == "config.yaml":
        # The worker has its own; the server finds those in the file's directory, wherever it is started.
        compile_protos(shell.directory / "config", greetings=PROTO)
    (shell.directory / "config").mkdir(exist_ok=True)
    (shell.directory / "config" / "config.yaml").write_text(
        f"servables: [{{directory: {servables.directory}, name: greeter}}]\n"
        f"grpc_options: {{port: 0, grpc_servicer_functions: [{ADDS_GREETER}]}}\n"
    )
    assert shell.run("validate", "config/config.yaml").returncode == 0
    with shell.serving("run", "config/config.yaml") as server:
        assert greet(server.address(), "you") == "Hello you"
        names = {each["path"]: each["ended"] for each in shell.json("status")["stats"]["methods"]}
        assert names["/greetings.Greeter/Greet"] == {"OK": 1}


def test_from_the_shell(shell: Shell, servables: Servables) -> None:
    directory = servables.add("greeter", CONFIG)
    compile_protos(directory, greetings=PROTO)
    functions = ("--grpc-servicer-functions", ADDS_GREETER)
    with shell.serving("start", "--servable", directory, "--grpc-port", 0, *functions) as server:
        assert greet(server.address(), "you") == "Hello you"
    failed = shell.run("start", "-s", directory, "--grpc-port", 0, "--grpc-servicer-functions", f"{ADDS_GREETER}s")
    assert failed.returncode == 1
    assert ADDS_GREETER in failed.stderr
    assert "Traceback" not in failed.stderr


@pytest.mark.parametrize(
    ("function", "text"),
    [
        ("greetings_pb2_grpc.add_GreetrServicer_to_server", "add_GreeterServicer_to_server"),
        ("greeting_pb2_grpc.add_GreeterServicer_to_server", "the servables' directories: "),
        ("greetings_pb2_grpc.GreeterServicer", "GreeterServicer"),
    ],
)
def test_validate_finds_functions_that_are_not_there(
    shell: Shell, servables: Servables, function: str, text: str
) -> None:
    directory = servables.add("greeter", CONFIG)
    compile_protos(directory, greetings=PROTO)
    (shell.directory / "config.yaml").write_text(
        f"servables: [{{directory: {servables.directory}, name: greeter}}]\n"
        f"grpc:\n  grpc_servicer_functions:\n    - {ADDS_GREETER}\n    - {function}\n"
    )
    done = shell.run("validate", "config.yaml", "--json")
    assert done.returncode == 1
    (problem,) = json.loads(done.stdout)["problems"]
    assert (problem["line"], problem["column"]) == (5, 7)
    assert text in problem["text"]


@pytest.mark.parametrize("command", ["run", "start"])
def test_a_wrong_function_is_told_before_anything_is_started(shell: Shell, servables: Servables, command: str) -> None:
    started = shell.directory / "started"
    directory = servables.add("greeter", f"open({str(started)!r}, 'w')\n{CONFIG}")
    compile_protos(directory, greetings=PROTO)
    where = "config.yaml:5:7"
    if command == "run":
        arguments = [write(shell, servables, f"{ADDS_GREETER}s", "no_module.add_X")]
    else:
        where = "--grpc-servicer-functions"
        functions = ("--grpc-servicer-functions", f"{ADDS_GREETER}s", "--grpc-servicer-functions", "no_module.add_X")
        arguments = ["--servable", str(directory), "--grpc-port", "0", *functions]
    done = shell.run(command, *arguments)
    assert done.returncode == 1
    assert f"{where}: The item '{ADDS_GREETER}s'" in done.stderr
    assert f"did you mean '{ADDS_GREETER.partition('.')[2]}'?" in done.stderr
    assert "The item 'no_module.add_X'" in done.stderr
    assert "Traceback" not in done.stderr
    assert not started.exists()
    assert not (shell.directory / "serving_logs").exists()


def test_a_module_that_may_lie_where_nothing_is_yet_is_not_told(shell: Shell, servables: Servables) -> None:
    config = write(shell, servables, ADDS_GREETER, "sys.add_X")
    done = shell.run("validate", config, "--json")
    directory, function = json.loads(done.stdout)["problems"]
    assert "not exist" in directory["text"]
    assert "module 'sys' has no 'add_X'" in function["text"]


def test_validate_without_imports_runs_no_code(shell: Shell, servables: Servables) -> None:
    directory = servables.add("greeter", "1 / 0\n")
    (directory / "noisy_pb2_grpc.py").write_text("1 / 0\n")
    config = write(shell, servables, "noisy_pb2_grpc.add_X")
    problems = json.loads(shell.run("validate", config, "--json").stdout)["problems"]
    assert [("ZeroDivisionError" in problem["text"]) for problem in problems] == [True, True]
    assert shell.json("validate", config, "--no-imports")["servables"] == []
    # What needs no import is looked at all the same.
    problems = json.loads(shell.run("validate", write(shell, servables, "no path"), "--no-imports", "--json").stdout)
    assert [problem["key"] for problem in problems["problems"]] == ["grpc.grpc_servicer_functions[0]"]
