"""Users' gRPC services and the servables that answer them: checked when both are there, whichever came first."""

from __future__ import annotations

import ast
import os
import signal

import pytest

from conftest import ECHO_SERVABLE, Servables, ServerProcess, StartScript, pid_of
from e2e_support import until
from mindserve.client import Client
from proto_support import compile_protos

# Answers each line of its input: the value of an expression, or the text of an error.
SCRIPT = """
import sys
from mindserve import server

def start(*names, **options):
    server.start_servables([server.ServableStartConfig({directory!r}, name, **options) for name in names])

def listen(*functions):
    return server.start_grpc_server("127.0.0.1:0", grpc_servicer_functions=list(functions))[0]

for line in sys.stdin:
    try:
        print(repr(eval(line)), flush=True)
    except RuntimeError as error:
        print(repr(str(error)), flush=True)
"""

# Has the worker say that it answers services of these methods: (name, server_streaming) each.
ANSWERS = """
from mindserve import control


class Answering(control.Ready):
    def __init__(self, methods, services=()):
        super().__init__(methods, tuple(
            control.ReadyService(service, tuple(
                control.ReadyRpc(method, False, stream, "pets.Ask", "pets.Answer")
                for method, stream in answered.items()
            ))
            for service, answered in {services!r}.items()
        ))


control.Ready = Answering
"""
CATS = {"pets.Cats": {"Say": False}}
DOGS = {"pets.Dogs": {"Say": False, "Bark": True}}
OTHER_DOGS = {"pets.Dogs": {"Say": True}}
ADD_CATS = "pets_pb2_grpc.add_CatsServicer_to_server"
ADD_DOGS = "pets_pb2_grpc.add_DogsServicer_to_server"
PETS = """
package pets;
message Ask { string text = 1; }
message Answer { string text = 1; }
service Cats { rpc Say(Ask) returns (Answer); }
service Dogs { rpc Say(Ask) returns (Answer); rpc Bark(Ask) returns (stream Answer); }
"""
UNANSWERED = (
    f"Service 'pets.Dogs' of '{ADD_DOGS}' is answered by no servable: a servable_config.py has to register a handler "
    "for one of its methods, 'Say', 'Bark'\nStarted are: servable 'cats' answers 'pets.Cats'"
)
OTHERWISE = (
    "servable 'dogs' answers method 'pets.Dogs/Say' as (pets.Ask) returns (stream pets.Answer), but "
    f"'{ADD_DOGS}' has it as (pets.Ask) returns (pets.Answer): generate their modules from one proto file"
)


def answering(services: dict[str, dict[str, bool]]) -> str:
    return ECHO_SERVABLE + ANSWERS.replace("{services!r}", repr(services))


class Pets:
    """A server that does what it is told, and servables beside which generated modules lie: cats, dogs and echo."""

    def __init__(self, servables: Servables, server: ServerProcess) -> None:
        self.directory = servables.directory
        self.server = server
        for name in ("cats", "dogs"):
            compile_protos(servables.add(name, ""), pets=PETS)
        servables.add("echo", ECHO_SERVABLE)
        self.write("cats", CATS)
        self.write("dogs", DOGS)

    def write(self, name: str, services: dict[str, dict[str, bool]]) -> None:
        (self.directory / name / "servable_config.py").write_text(answering(services), encoding="utf-8")

    def tell(self, line: str) -> str:
        """What the server's script answers; None is ""."""
        self.server.tell(line)
        return str(ast.literal_eval(self.server.line()) or "")


@pytest.fixture
def pets(servables: Servables, start_script: StartScript) -> Pets:
    return Pets(servables, start_script(SCRIPT.replace("{directory!r}", repr(str(servables.directory)))))


def test_servables_first(pets: Pets) -> None:
    assert pets.tell("start('cats', 'dogs', 'echo')") == ""
    address = pets.tell(f"listen('{ADD_CATS}', '{ADD_DOGS}')")
    assert address.startswith("127.0.0.1:")
    with Client(address, "dogs", "worker_pid") as client:
        assert pid_of(client.infer({"x": 1})) in pets.server.workers()


def test_the_server_first(pets: Pets) -> None:
    assert pets.tell(f"listen('{ADD_CATS}', '{ADD_DOGS}')").startswith("127.0.0.1:")
    assert f"'{ADD_CATS}': there is no module 'pets_pb2_grpc'; it is looked for again" in pets.server.errors()
    assert pets.tell("start('cats', 'dogs')") == ""
    assert pets.tell("start('echo')") == ""
    assert len(pets.server.workers()) == 3
    assert "[ERROR]" not in pets.server.errors()


def test_servables_that_do_not_answer_a_service_start_not_at_all(pets: Pets) -> None:
    pets.tell(f"listen('{ADD_CATS}', '{ADD_DOGS}')")
    for _ in range(2):
        assert pets.tell("start('cats')") == UNANSWERED
        assert pets.server.workers() == []
    assert pets.tell("start('cats', 'dogs')") == ""


def test_a_server_whose_services_no_servable_answers_does_not_listen(pets: Pets) -> None:
    assert pets.tell("start('cats')") == ""
    assert pets.tell(f"listen('{ADD_CATS}', '{ADD_DOGS}')") == UNANSWERED
    assert pets.tell("start('dogs')") == ""
    assert pets.tell(f"listen('{ADD_CATS}', '{ADD_DOGS}')").startswith("127.0.0.1:")


def test_servables_that_answer_otherwise(pets: Pets) -> None:
    pets.write("dogs", {"pets.Dogs": {"Say": True}})
    pets.tell(f"listen('{ADD_CATS}', '{ADD_DOGS}')")
    text = pets.tell("start('cats', 'dogs')")
    assert text.startswith(f"Start of servable 'dogs' version 1 on device 0 failed: {OTHERWISE}\nIts log is ")
    assert pets.server.workers() == []
    pets.write("dogs", DOGS)
    assert pets.tell("start('cats', 'dogs')") == ""


def test_a_server_does_not_listen_where_servables_answer_otherwise(pets: Pets) -> None:
    pets.write("dogs", {"pets.Dogs": {"Say": True}})
    assert pets.tell("start('cats', 'dogs')") == ""
    assert pets.tell(f"listen('{ADD_CATS}', '{ADD_DOGS}')") == OTHERWISE
    assert len(pets.server.workers()) == 2


def test_paths_that_lead_nowhere_with_servables_either(pets: Pets) -> None:
    pets.tell("listen('pets_pb2_grpc.add_Cats')")
    text = pets.tell("start('cats')")
    assert "module 'pets_pb2_grpc' has no 'add_Cats' (file '" in text
    assert text.endswith("; it has 'add_CatsServicer_to_server', 'add_DogsServicer_to_server'")
    assert pets.server.workers() == []
    text = pets.tell("start('echo')")
    assert "there is no module 'pets_pb2_grpc'; looked for in the start script's sys.path and in the" in text
    assert text.endswith(f" directories: '{pets.directory / 'echo'}'")


def test_paths_that_lead_nowhere_with_servables_that_run(pets: Pets) -> None:
    assert pets.tell("start('cats')") == ""
    text = pets.tell("listen('cats_pb2_grpc.add_CatsServicer_to_server')")
    assert "there is no module 'cats_pb2_grpc'; did you mean 'pets_pb2_grpc'?" in text
    assert pets.tell(f"listen('{ADD_CATS}')").startswith("127.0.0.1:")


def test_a_function_object(pets: Pets) -> None:
    path = f"sys.path.insert(0, {str(pets.directory / 'cats')!r})"
    pets.tell(path)
    assert pets.tell("start('dogs')") == ""
    text = pets.tell("listen(__import__('pets_pb2_grpc').add_CatsServicer_to_server)")
    assert text.startswith("Service 'pets.Cats' of pets_pb2_grpc.add_CatsServicer_to_server is answered by no servable")
    pets.tell("listen(__import__('pets_pb2_grpc').add_DogsServicer_to_server)")


def test_what_servables_answer_in_vain_is_told(pets: Pets) -> None:
    pets.tell("start('cats', 'dogs')")
    assert "in vain" not in pets.server.errors()
    pets.tell(f"listen('{ADD_CATS}')")
    assert "[WARNING]" in pets.server.errors()
    assert "servable 'dogs' answers service 'pets.Dogs', which clients can't call" in pets.server.errors()
    assert "'pets.Cats', which" not in pets.server.errors()


@pytest.mark.parametrize(("services", "text"), [({}, "is answered by no servable"), (OTHER_DOGS, OTHERWISE)])
def test_a_reload_keeps_the_services(pets: Pets, services: dict[str, dict[str, bool]], text: str) -> None:
    pets.tell("start('cats', 'dogs', hot_reload=False)")
    address = pets.tell(f"listen('{ADD_CATS}', '{ADD_DOGS}')")
    with Client(address, "dogs", "worker_pid") as client:
        before = client.infer({"x": 1})
        pets.write("dogs", services)
        error = pets.tell("server.reload('dogs')")
        assert error.startswith("Reload of servable 'dogs' failed, the workers that ran before go on: ")
        assert text in error
        assert client.infer({"x": 1}) == before
        pets.write("dogs", {"pets.Dogs": {"Say": False}})
        assert pets.tell("server.reload('dogs')") == ""
        assert client.infer({"x": 1}) != before


def test_a_worker_that_comes_back_otherwise_serves_nothing(pets: Pets) -> None:
    pets.tell("start('dogs', hot_reload=False)")
    address = pets.tell(f"listen('{ADD_DOGS}')")
    with Client(address, "dogs", "worker_pid") as client:
        worker = pid_of(client.infer({"x": 1}))
        pets.write("dogs", OTHER_DOGS)
        os.kill(worker, signal.SIGKILL)
        until(lambda: OTHERWISE in pets.server.errors())
        assert "is started again in 5 s" in until(pets.server.errors, lambda text: "is started again in" in text)
