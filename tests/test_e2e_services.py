"""Users' gRPC services and the servables that answer them: checked when both are there, whichever came first."""

from __future__ import annotations

import ast
import os
import pathlib
import re
import signal
from collections.abc import Mapping
from typing import Any

import grpc
import pytest

from conftest import ECHO_SERVABLE, Servables, ServerProcess, StartScript, pid_of
from e2e_support import ROOT, server_process, status_of, until
from mindserve.client import Client
from mindserve.server.services import Described, check_functions
from stubs import compile_protos

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

# Methods of the services of pets.proto, and whether the server streams.
CATS = {"pets.Cats": {"Say": False}}
DOGS = {"pets.Dogs": {"Say": False, "Bark": True}}
OTHER_DOGS = {"pets.Dogs": {"Say": True}}
ADD_CATS = "pets_pb2_grpc.add_CatsServicer_to_server"
ADD_DOGS = "pets_pb2_grpc.add_DogsServicer_to_server"
UNANSWERED = (
    f"Service 'pets.Dogs' of '{ADD_DOGS}' is answered by no servable: a servable_config.py has to register a handler "
    "for one of its methods, 'Say', 'Bark'\nStarted are: servable 'cats' answers 'pets.Cats'"
)
OTHERWISE = (
    "servable 'dogs' answers method 'pets.Dogs/Say' as (pets.Ask) returns (stream pets.Answer), but "
    f"'{ADD_DOGS}' has it as (pets.Ask) returns (pets.Answer): generate their modules from one proto file"
)


def proto(changed: Mapping[str, Mapping[str, bool]]) -> str:
    """pets.proto, or another version of it in which some methods are of other kinds."""
    services = [
        f"service {service.removeprefix('pets.')} {{ "
        + "".join(
            f"rpc {name}(Ask) returns ({'stream ' if changed.get(service, {}).get(name, stream) else ''}Answer); "
            for name, stream in methods.items()
        )
        + "}"
        for service, methods in {**CATS, **DOGS}.items()
    ]
    return "\n".join(["package pets; message Ask { string text = 1; } message Answer { string text = 1; }", *services])


def config(services: Mapping[str, Mapping[str, bool]]) -> str:
    """A servable_config.py that answers these methods with their own names, and Predict."""
    handlers = "".join(
        f"\n\n@register.grpc_method({name!r}, service={service!r})\n"
        f"def {service.removeprefix('pets.')}{name}(request):\n"
        f"    {'yield' if stream else 'return'} Answer(text=f'{service}/{name} {{request.text}}')\n"
        for service, methods in services.items()
        for name, stream in methods.items()
    )
    return f"{ECHO_SERVABLE}\nfrom pets_pb2 import Answer\n{handlers}"


class Pets:
    """A server that does what it is told, and servables beside which generated modules lie: cats, dogs and echo."""

    def __init__(self, servables: Servables, server: ServerProcess) -> None:
        self.directory = servables.directory
        self.server = server
        servables.add("echo", ECHO_SERVABLE)
        self.write("cats", CATS)
        self.write("dogs", DOGS)

    def write(self, name: str, services: Mapping[str, Mapping[str, bool]]) -> None:
        """A servable that answers these methods, with generated modules in which they are of these kinds."""
        compile_protos(self.directory / name, pets=proto(services))
        (self.directory / name / "servable_config.py").write_text(config(services), encoding="utf-8")

    def value(self, line: str) -> Any:
        """What the server's script answers."""
        self.server.tell(line)
        return ast.literal_eval(self.server.line())

    def tell(self, line: str) -> str:
        """The text that it answers; None is ""."""
        return str(self.value(line) or "")


def say(address: str, path: str, *, stream: bool = False, **metadata: str) -> list[str]:
    """The texts that a method answers to "you"."""
    with grpc.insecure_channel(address) as channel:
        call = channel.unary_stream(path) if stream else channel.unary_unary(path)
        answer = call(b"\x0a\x03you", timeout=60, metadata=list(metadata.items()))
        # Field 1, its length, the text.
        return [message[2:].decode() for message in (answer if stream else [answer])]


@pytest.fixture
def pets(servables: Servables, start_script: StartScript) -> Pets:
    return Pets(servables, start_script(SCRIPT.replace("{directory!r}", repr(str(servables.directory)))))


def test_servables_first(pets: Pets) -> None:
    assert pets.tell("start('cats', 'dogs', 'echo')") == ""
    address = pets.tell(f"listen('{ADD_CATS}', '{ADD_DOGS}')")
    assert address.startswith("127.0.0.1:")
    with Client(address, "dogs", "worker_pid") as client:
        assert pid_of(client.infer({"x": 1})) in pets.server.workers()
    assert say(address, "/pets.Cats/Say") == ["pets.Cats/Say you"]
    assert say(address, "/pets.Dogs/Bark", stream=True) == ["pets.Dogs/Bark you"]


def test_the_server_first(pets: Pets) -> None:
    address = pets.tell(f"listen('{ADD_CATS}', '{ADD_DOGS}')")
    assert address.startswith("127.0.0.1:")
    assert f"'{ADD_CATS}': there is no module 'pets_pb2_grpc'; it is looked for again" in pets.server.errors()
    assert pets.tell("start('cats', 'dogs')") == ""
    assert pets.tell("start('echo')") == ""
    assert len(pets.server.workers()) == 3
    assert say(address, "/pets.Dogs/Say") == ["pets.Dogs/Say you"]
    assert "[ERROR]" not in pets.server.errors()


def test_a_method_without_a_handler(pets: Pets) -> None:
    pets.write("dogs", {"pets.Dogs": {"Say": False}})
    pets.tell("start('dogs')")
    address = pets.tell(f"listen('{ADD_DOGS}')")
    assert say(address, "/pets.Dogs/Say") == ["pets.Dogs/Say you"]
    code, details = status_of(lambda: say(address, "/pets.Dogs/Bark", stream=True))
    assert code == grpc.StatusCode.UNIMPLEMENTED
    assert "dogs" in details


def test_calls_are_counted_by_servable_and_method(pets: Pets) -> None:
    pets.tell("start('cats', 'dogs')")
    address = pets.tell(f"listen('{ADD_CATS}', '{ADD_DOGS}')")
    for _ in range(3):
        say(address, "/pets.Dogs/Say")
    say(address, "/pets.Dogs/Bark", stream=True)
    methods = pets.value("[each for each in server.stats().as_dict()['methods'] if each['servable'] == 'dogs']")
    counted = {each["path"]: each for each in methods}
    for name, count in (("Say", 3), ("Bark", 1)):
        method = counted[f"/pets.Dogs/{name}"]
        assert (method["version"], method["method"], method["ended"]) == (1, name, {"OK": count})
        assert (method["bytes_in"], method["bytes_out"]) == (5 * count, (2 + len(f"pets.Dogs/{name} you")) * count)
        assert method["latency"]["count"] == count
    assert pets.value("[each['method'] for each in server.stats().as_dict()['methods'] if '/' in each['method']]") == []


LOGGING = """
import asyncio, logging
from pets_pb2 import Answer
from mindserve.server import register

log = logging.getLogger("mine")
log.info("while it is imported")


@register.grpc_method("Say", service="pets.Cats")
def plain(request):
    log.info("plain %s", request.text)
    return Answer(text="plain")


@register.grpc_method("Say", service="pets.Dogs")
async def on_the_loop(request):
    await asyncio.sleep(0)
    log.info("loop %s", request.text)
    return Answer(text="loop")


@register.grpc_method("Bark", service="pets.Dogs")
def stream(request):
    log.info("stream %s", request.text)
    yield Answer(text="stream")
"""


DEADLY = """
import os
import pets_pb2
from mindserve.server import register


@register.grpc_method("Say", service="pets.Dogs")
def die(request):
    os.kill(os.getpid(), 9)
"""


def test_log_lines_of_a_request_carry_its_id(pets: Pets) -> None:
    (pets.directory / "dogs" / "servable_config.py").write_text(LOGGING, encoding="utf-8")
    pets.tell("start('dogs')")
    address = pets.tell(f"listen('{ADD_CATS}', '{ADD_DOGS}')")
    say(address, "/pets.Cats/Say", request_id="id-1")
    say(address, "/pets.Dogs/Say", request_id="id-2")
    say(address, "/pets.Dogs/Bark", request_id="id-3", stream=True)
    log = (pets.server.cwd / "serving_logs" / "log_dogs_device0_version1.log").read_text()
    mine = [line.partition(" mine")[2] for line in log.splitlines() if " mine" in line]
    assert mine == [": while it is imported", " [id-1]: plain you", " [id-2]: loop you", " [id-3]: stream you"]


def test_the_masters_log_names_calls_whose_worker_died(pets: Pets) -> None:
    (pets.directory / "dogs" / "servable_config.py").write_text(DEADLY, encoding="utf-8")
    pets.tell("start('dogs')")
    address = pets.tell(f"listen('{ADD_DOGS}')")
    with pytest.raises(grpc.RpcError) as caught:
        say(address, "/pets.Dogs/Say", request_id="id-1")
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
    assert f"mindserve.native: {caught.value.details()}" in until(pets.server.errors, lambda text: "id-1" in text)


def test_reflection_tells_of_services_when_they_are_found(pets: Pets) -> None:
    address = pets.tell(f"listen('{ADD_CATS}')")
    everything, cats = b"\x3a\x00", b"\x22\x09pets.Cats"  # list_services and file_containing_symbol
    (item,) = check_functions([ADD_CATS])
    _, description = Described().add([item], [pets.directory / "cats"]).services["pets.Cats"]
    (file,) = description.files
    with grpc.insecure_channel(address) as channel:
        ask = channel.stream_stream("/grpc.reflection.v1.ServerReflection/ServerReflectionInfo")
        before = list(ask(iter([everything, cats]), timeout=60))
        assert pets.tell("start('cats')") == ""
        after = list(ask(iter([everything, cats]), timeout=60))
    assert [b"pets.Cats" in before[0], file.descriptor in before[1]] == [False, False]
    assert [b"pets.Cats" in after[0], file.descriptor in after[1]] == [True, True]


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
    pets.write("dogs", OTHER_DOGS)
    pets.tell(f"listen('{ADD_CATS}', '{ADD_DOGS}')")
    text = pets.tell("start('cats', 'dogs')")
    assert text.startswith(f"Start of servable 'dogs' version 1 on device 0 failed: {OTHERWISE}\nIts log is ")
    assert pets.server.workers() == []
    pets.write("dogs", DOGS)
    assert pets.tell("start('cats', 'dogs')") == ""


def test_a_server_does_not_listen_where_servables_answer_otherwise(pets: Pets) -> None:
    pets.write("dogs", OTHER_DOGS)
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
def test_a_reload_keeps_the_services(pets: Pets, services: Mapping[str, Mapping[str, bool]], text: str) -> None:
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


def test_a_servable_that_is_gone_keeps_no_other_from_starting(pets: Pets) -> None:
    pets.tell("start('cats', 'dogs', hot_reload=False)")
    address = pets.tell(f"listen('{ADD_CATS}', '{ADD_DOGS}')")
    with Client(address, "dogs", "worker_pid") as client:
        os.kill(pid_of(client.infer({"x": 1})), signal.SIGTERM)
    until(lambda: len(pets.server.workers()) == 1)
    assert pets.tell("server.reload('cats')") == ""
    assert pets.tell("start('echo')") == ""


def test_a_worker_that_comes_back_otherwise_serves_nothing(pets: Pets) -> None:
    pets.tell("start('dogs', hot_reload=False)")
    address = pets.tell(f"listen('{ADD_DOGS}')")
    with Client(address, "dogs", "worker_pid") as client:
        worker = pid_of(client.infer({"x": 1}))
        pets.write("dogs", OTHER_DOGS)
        os.kill(worker, signal.SIGKILL)
        until(lambda: OTHERWISE in pets.server.errors())
        assert "is started again in 5 s" in until(pets.server.errors, lambda text: "is started again in" in text)


def test_the_pages_example(tmp_path: pathlib.Path) -> None:
    page = (ROOT / "docs" / "services.md").read_text(encoding="utf-8")
    files = dict(re.findall(r"^```\w+\n(?:#|//) (\S+)\n(.*?)^```$", page, re.MULTILINE | re.DOTALL))
    folder = tmp_path / "servables" / "hello"
    compile_protos(folder, greeter=files["greeter.proto"].replace('syntax = "proto3";\n', ""))
    (folder / "servable_config.py").write_text(files["servables/hello/servable_config.py"], encoding="utf-8")
    script = files["start.py"].replace("server.start_grpc_server(", "addresses = server.start_grpc_server(")
    script = script.replace("127.0.0.1:9000", "127.0.0.1:0") + "print(addresses[0], flush=True)\n"
    with server_process(tmp_path, script) as server:
        address = server.line()
        assert say(address, "/greeter.Greeter/Greet") == ["Hello you"]
        assert say(address, "/greeter.Greeter/Count", stream=True) == [f"{number}: hello you" for number in range(3)]
