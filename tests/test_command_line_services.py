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


def test_run_says_where_a_function_is_wrong(shell: Shell, servables: Servables) -> None:
    directory = servables.add("greeter", CONFIG)
    compile_protos(directory, greetings=PROTO)
    (shell.directory / "config.yaml").write_text(
        f"servables: [{{directory: {servables.directory}, name: greeter}}]\n"
        f"grpc:\n  port: 0\n  grpc_servicer_functions:\n    - {ADDS_GREETER}s\n"
    )
    done = shell.run("run", "config.yaml")
    assert done.returncode == 1
    assert f"Error: config.yaml:5:7: The item '{ADDS_GREETER}s'" in done.stderr
    assert f"did you mean '{ADDS_GREETER.partition('.')[2]}'?" in done.stderr
    assert "Traceback" not in done.stderr
