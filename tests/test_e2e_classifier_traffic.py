"""The Classifier behind a name that is split: weights, sticky keys, copies, and what is counted."""

from __future__ import annotations

import collections
import contextlib
import json
import pathlib
import struct
from collections.abc import Iterator
from typing import Any

import grpc
import pytest

from command_line import Shell
from conftest import ServerProcess
from e2e_support import server_process, until, write_servable
from mindserve.proto.seldon import ClassificationRequest, ClassifierStub
from stubs import compile_protos

PATH = "/io.seldon.api.rpc.Classifier/Predict"
FLOWERS = """
package flowers;
message Flower { float f1 = 1; }
"""
# Answers with the number that it is sent, and notes the puids that its handler is given.
CONFIG = """
import numpy as np
from flowers_pb2 import Flower
from mindserve.server import register


@register.register_method(output_names="prediction")
def predict(x):
    return x


register.classifier(model_name="model_{name}")


@register.data_handler(Flower)
class Handler:
    def getData(self, request):
        flower = Flower()
        request.data.Unpack(flower)
        with open({notes!r}, "a", encoding="utf-8") as notes:
            notes.write(request.meta.puid + "\\n")
        if flower.f1 < 0:
            raise ValueError("below zero")
        return np.array([flower.f1])
"""
NAMES = ("one", "two", "shadow")
SCRIPT = """
import json, sys
from mindserve import server
from mindserve.server import Mirror, Variation

server.start_servables([server.ServableStartConfig({directory!r}, name) for name in {names!r}])
print(server.start_grpc_server("127.0.0.1:0")[0], flush=True)
for line in sys.stdin:
    print(json.dumps(eval(line), default=lambda each: each.as_dict()), flush=True)
"""


def write_servables(folder: pathlib.Path) -> None:
    for name in NAMES:
        write_servable(folder / "servables", name, CONFIG.format(name=name, notes=str(folder / f"{name}.puids")))
        compile_protos(folder / "servables" / name, flowers=FLOWERS)


class Iris:
    """The name "iris", which is split; and its server."""

    def __init__(self, process: ServerProcess, channel: grpc.Channel, folder: pathlib.Path) -> None:
        self._process = process
        self._stub = ClassifierStub(channel)
        self._folder = folder

    def run(self, expression: str) -> Any:
        """What an expression gives, in the server's start script."""
        self._process.tell(expression)
        return json.loads(self._process.line())

    def split(self, weights: tuple[float, float], options: str = "") -> None:
        parts = [
            f"Variation({name!r}, {name!r}, weight={weight})" for name, weight in zip(NAMES, weights, strict=False)
        ]
        self.run(f"server.set_traffic('iris', [{', '.join(parts)}], {options})")

    def ask(self, *metadata: tuple[str, str], puid: str = "", number: float = 1.5) -> Any:
        """The reply, if it and its metadata name the same variation."""
        data = {"type_url": "type.googleapis.com/flowers.Flower", "value": b"\x0d" + struct.pack("<f", number)}
        message = ClassificationRequest(meta={"puid": puid}, data=data)
        reply, call = self._stub.Predict.with_call(message, timeout=60, metadata=(("application", "iris"), *metadata))
        assert dict(call.trailing_metadata())["mindserve-variation"] == reply.meta.variation
        assert reply.meta.modelName == f"model_{reply.meta.variation}"
        assert [each.prediction for each in reply.predictions] == [number]
        return reply

    def who(self, *metadata: tuple[str, str]) -> str:
        return str(self.ask(*metadata).meta.variation)

    def noted(self, name: str) -> list[str]:
        """The puids that the handler of a servable was given."""
        path = self._folder / f"{name}.puids"
        return path.read_text(encoding="utf-8").splitlines() if path.exists() else []

    def rows(self, **wanted: Any) -> list[dict[str, Any]]:
        """What is counted of the Classifier's calls."""
        methods = self.run("server.stats()")["methods"]
        return [each for each in methods if PATH in (each["path"], each["method"]) and wanted.items() <= each.items()]


@pytest.fixture
def iris(tmp_path: pathlib.Path) -> Iterator[Iris]:
    write_servables(tmp_path)
    script = SCRIPT.format(directory=str(tmp_path / "servables"), names=NAMES)
    with server_process(tmp_path / "run", script) as process, contextlib.ExitStack() as stack:
        channel = stack.enter_context(grpc.insecure_channel(process.line()))
        yield Iris(process, channel, tmp_path)


def test_calls_are_split_by_weight_and_counted_apart(iris: Iris) -> None:
    iris.split((0.75, 0.25))
    assert collections.Counter(iris.who() for _ in range(40)) == {"one": 30, "two": 10}
    for _ in range(4):
        with pytest.raises(grpc.RpcError, match="below zero"):
            iris.ask(number=-1)
    (one,), (two,) = (iris.rows(split="iris", variation=name) for name in ("one", "two"))
    assert (one["servable"], one["version"], one["ended"]) == ("one", 1, {"OK": 30, "INTERNAL": 3})
    assert (two["servable"], two["version"], two["ended"]) == ("two", 1, {"OK": 10, "INTERNAL": 1})
    assert (one["instances"], one["latency"]["count"]) == (33, 33)
    assert (two["instances"], two["latency"]["count"]) == (11, 11)
    assert not any(each["ended"] for each in iris.rows(split=""))


def test_the_same_metadata_goes_to_the_same_variation(iris: Iris) -> None:
    iris.split((1, 1), "sticky='user'")
    homes = {user: iris.who(("user", user)) for user in map(str, range(30))}
    assert set(homes.values()) == {"one", "two"}
    assert {user: iris.who(("user", user)) for user in homes} == homes
    iris.split((1, 3), "sticky='user'")
    after = {user: iris.who(("user", user)) for user in homes}
    assert {after[user] for user in homes if after[user] != homes[user]} <= {"two"}
    # Without it they take turns.
    assert collections.Counter(iris.who() for _ in range(8)) == {"one": 2, "two": 6}


def test_mirrors_get_copies_with_the_puid_that_is_answered(iris: Iris) -> None:
    iris.split((1, 0), "mirrors=[Mirror('shadow', fraction=0.5)]")
    answered = [iris.ask(puid=puid).meta.puid for puid in ("", "mine") * 10]
    assert iris.noted("one") == answered
    until(lambda: len(iris.noted("shadow")) == 10)
    # Every other call is copied.
    assert iris.noted("shadow") in (answered[::2], answered[1::2])
    until(lambda: [each["ended"] for each in iris.rows(mirrored=True)] == [{"OK": 10}])
    (copies,) = iris.rows(mirrored=True)
    assert (copies["split"], copies["servable"], copies["instances"]) == ("iris", "shadow", 10)
    (one,) = iris.rows(split="iris", variation="one")
    assert one["ended"] == {"OK": 20}


def test_copies_have_the_puids_that_are_made(iris: Iris) -> None:
    iris.split((1, 1), "mirrors=[Mirror('shadow')]")
    answered = [iris.ask().meta.puid for _ in range(6)]
    until(lambda: len(iris.noted("shadow")) == 6)
    assert sorted(iris.noted("shadow")) == sorted(answered)
    assert len(set(answered)) == 6


def test_it_is_deployed_by_a_name_and_a_share(tmp_path: pathlib.Path) -> None:
    """As `start-microservice … -i xgboostrpc … rpc 1.0` does, after which replies name the variation "xgboostrpc"."""
    write_servables(tmp_path)
    shell = Shell(tmp_path)
    with shell.serving("start", "--servable", "servables/one", "--grpc-port", 0) as server:
        address = server.address()
        done = shell.run("traffic", "set", "iris", "xgboostrpc=1.0:one")
        assert done.returncode == 0, done.stderr
        with grpc.insecure_channel(address) as channel:
            data = {"type_url": "type.googleapis.com/flowers.Flower", "value": b""}
            reply = ClassifierStub(channel).Predict(ClassificationRequest(data=data), 60)
        assert (reply.meta.modelName, reply.meta.variation) == ("model_one", "xgboostrpc")
