"""Whose error it is when a stage or a model fails on what a client sent, as each way of asking tells it."""

from __future__ import annotations

import dataclasses
import pathlib
import struct
from collections.abc import Iterator
from typing import Any

import grpc
import numpy as np
import onnx
import pytest
from google.protobuf import any_pb2
from onnx import TensorProto, helper

from e2e_support import request, server_process, status_of, tensor, write_servable
from mindserve.client import Client
from mindserve.proto import messages
from mindserve.proto.seldon import ClassificationRequest, ClassifierStub
from rest_support import Rest
from stubs import compile_protos

ASKED = """
package asked;
message Told { float number = 1; }
message Handled { float number = 1; }
message Whole { float number = 1; }
"""

# Each function refuses one number and fails at another; see REFUSED.
CHAIN = """
import numpy as np
from asked_pb2 import Handled, Told, Whole
from mindserve.server import register

class Refused(register.InvalidInput):
    pass


class Mute(register.InvalidInput):
    def __str__(self):
        raise TypeError("no text")


def look(number, refused):
    if number == refused:
        raise register.InvalidInput(f"{number:g} is not größer than 0")
    if number == refused - 100:
        raise KeyError("a defect")
    return number


def one(x):
    if x == -21:
        raise register.InvalidInput
    if x == -22:
        raise Mute("?")
    if x == -23:
        raise register.InvalidInput("ß" * 5000)
    return np.float32(look(np.ravel(x)[0], -1))


def some(instances):
    if any(x == -2 for (x,) in instances):
        raise Refused("-2 is not größer than 0")
    for (x,) in instances:
        yield look(x, -2)


@register.register_method(output_names="y")
def predict(x):
    x = register.add_stage(one, x, outputs_count=1, tag="Preprocess")
    return register.add_stage(some, x, outputs_count=1, batch_size=8)


def count(x):
    yield 0
    look(np.ravel(x)[0], -4)


async def count_on_loop(x):
    yield 0
    look(np.ravel(x)[0], -4)


@register.register_method(output_names="y", streaming=True)
def counted(x):
    x = register.add_stage(one, x, outputs_count=1)
    return register.add_stage(count, x, outputs_count=1)


@register.register_method(output_names="y", streaming=True)
def counted_on_loop(x):
    return register.add_stage(count_on_loop, x, outputs_count=1)


register.classifier("predict", mapping=lambda y: [float(look(y, -3))])
register.data_handler(Told)


@register.data_handler(Handled)
def handled(message):
    return np.float32(look(message.number, -5))


@register.data_handler(Whole)
class Handler:
    def getData(self, request):
        whole = Whole()
        request.data.Unpack(whole)
        return np.float32(look(whole.number, -6))
"""

# Models that take shapes, or texts, of which an operator makes nothing; and a handler that gives what it is told to.
MODEL = """
import numpy as np
from asked_pb2 import Handled
from mindserve.server import register

model = register.declare_model("net.onnx", "ONNX", with_batch_dim={batched}{options})


@register.register_method(output_names="y")
def predict({inputs}):
    return register.add_stage(model, {inputs}, outputs_count=1)


register.classifier(mapping=lambda y: [float(np.ravel(y)[0])] if np.size(y) else [])
"""
HANDLED = """

@register.data_handler(Handled)
def handled(message):
    if message.number == 0:
        return np.zeros(2, np.float32)
    return np.zeros(3, np.float32) if message.number == 1 else np.array(["text", "text"])
"""


@dataclasses.dataclass(frozen=True)
class Net:
    """A model of one node."""

    operator: str
    inputs: dict[str, tuple[int, list[str | int] | None]]
    attributes: dict[str, Any] = dataclasses.field(default_factory=dict)
    batched: bool = False
    options: str = ""
    more: str = ""

    def config(self) -> str:
        text = MODEL.format(batched=self.batched, options=self.options, inputs=", ".join(self.inputs))
        return text + self.more

    def model(self) -> onnx.ModelProto:
        node = helper.make_node(self.operator, list(self.inputs), ["y"], **self.attributes)
        inputs = [helper.make_tensor_value_info(name, *kind) for name, kind in self.inputs.items()]
        outputs = [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)]
        graph = helper.make_graph([node], "graph", inputs, outputs)
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)


FLOAT, INT64, STRING = TensorProto.FLOAT, TensorProto.INT64, TensorProto.STRING
NETS = {
    "add": Net("Add", {"a": (FLOAT, ["N", "K"]), "b": (FLOAT, ["N", "M"])}),
    "matmul": Net("MatMul", {"a": (FLOAT, ["N", "K"]), "b": (FLOAT, ["L", "M"])}),
    "concat": Net("Concat", {"a": (FLOAT, None), "b": (FLOAT, None)}, {"axis": 1}),
    "pool": Net("MaxPool", {"a": (FLOAT, ["N", "C", "H", "W"])}, {"kernel_shape": [5, 5]}),
    "cast": Net("Cast", {"a": (STRING, ["N"])}, {"to": FLOAT}),
    "reshape": Net("Reshape", {"a": (FLOAT, [4]), "shape": (INT64, [2])}),
    # An instance's own second input decides how many rows come out of its batch.
    "whole": Net(
        "Add",
        {"a": (FLOAT, ["N", "K"]), "b": (FLOAT, ["M", "K"])},
        batched=True,
        options=", without_batch_dim_inputs=[1]",
    ),
    "pair": Net("Neg", {"a": (FLOAT, [2])}, more=HANDLED),
}


@dataclasses.dataclass(frozen=True)
class Server:
    """One that serves all of them, by each way."""

    grpc: str
    rest: Rest
    stub: ClassifierStub
    logs: pathlib.Path

    def classify(self, servable: str, kind: str, value: bytes) -> Any:
        data = any_pb2.Any(type_url=f"type.googleapis.com/{kind}", value=value)
        return self.stub.Predict(ClassificationRequest(data=data), 60, metadata=[("application", servable)])

    def told(self, number: float, kind: str = "Told") -> Any:
        return self.classify("chain", f"asked.{kind}", b"\x0d" + struct.pack("<f", number))

    def instance(self, servable: str, **inputs: Any) -> Any:
        instance = messages.Instance(items={name: tensor(value) for name, value in inputs.items()})
        return self.classify(servable, "mindspore.serving.proto.Instance", instance.SerializeToString())

    def ask(self, **inputs: Any) -> Any:
        with Client(self.grpc, "chain", "predict") as client:
            return client.infer(inputs)

    def log(self, servable: str = "chain") -> str:
        return (self.logs / f"log_{servable}_device0_version1.log").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("invalid")
    write_servable(folder / "servables", "chain", CHAIN)
    compile_protos(folder / "servables" / "chain", asked=ASKED)
    for name, net in NETS.items():
        write_servable(folder / "servables", name, net.config(), {"net.onnx": net.model()})
        compile_protos(folder / "servables" / name, asked=ASKED)
    names = ["chain", *NETS]
    script = f"""
from mindserve import server
server.start_servables([server.ServableStartConfig({str(folder / "servables")!r}, name) for name in {names!r}])
print(server.start_grpc_server("127.0.0.1:0")[0], flush=True)
print(server.start_restful_server("127.0.0.1:0"), flush=True)
"""
    with server_process(folder / "run", script) as process:
        address = process.line()
        rest = Rest(process, process.line())
        with grpc.insecure_channel(address) as channel:
            yield Server(address, rest, ClassifierStub(channel), process.cwd / "serving_logs")
        rest.close()


SAID = "is not größer than 0"
# What each number is refused by: the message it comes in, and the answer's text.
REFUSED = {
    -1: ("Told", f"Preprocess Failed: Call Function 'chain.one' Failed: -1 {SAID}"),
    -2: ("Told", f"Call Function 'chain.some' Failed: -2 {SAID}"),
    -3: ("Told", f"Call Function 'chain.<lambda>' Failed: -3 {SAID}"),
    -5: ("Handled", f"Call Function 'chain.handled' Failed: -5 {SAID}"),
    -6: ("Whole", f"Call Function 'chain.Handler' Failed: -6 {SAID}"),
}


@pytest.mark.parametrize("number", REFUSED)
def test_the_classifier_says_that_the_input_is_wrong(server: Server, number: int) -> None:
    kind, text = REFUSED[number]
    assert server.told(1, kind).predictions[0].prediction == 1
    assert status_of(lambda: server.told(number, kind)) == (grpc.StatusCode.INVALID_ARGUMENT, text)
    body = {"data": {"@type": f"asked.{kind}", "number": number}}
    answer = server.rest.post("/js/predict", body, headers={"application": "chain"})
    assert (answer.status_code, answer.json()) == (400, {"error_msg": text})


@pytest.mark.parametrize("number", REFUSED)
def test_what_is_raised_otherwise_is_internal(server: Server, number: int) -> None:
    kind, _ = REFUSED[number]
    code, details = status_of(lambda: server.told(number - 100, kind))
    assert code is grpc.StatusCode.INTERNAL
    assert details.endswith("Failed: KeyError: 'a defect'")
    body = {"data": {"@type": f"asked.{kind}", "number": number - 100}}
    assert server.rest.post("/js/predict", body, headers={"application": "chain"}).status_code == 500


@pytest.mark.parametrize("number", [-1, -2])
def test_predict_and_rest_have_it_as_the_instances_error(server: Server, number: int) -> None:
    """The batch is split until it is known whose it is."""
    _, text = REFUSED[number]
    numbers = [1, number, 3, 4]
    with Client(server.grpc, "chain", "predict") as client:
        given = client.infer([{"x": np.float32(each)} for each in numbers])
    assert given == [{"y": 1.0}, {"error": text}, {"y": 3.0}, {"y": 4.0}]
    answer = server.rest.ask("/model/chain:predict", *({"x": float(each)} for each in numbers))
    assert answer == [{"y": 1.0}, {"error_msg": text}, {"y": 3.0}, {"y": 4.0}]


def test_the_errors_code_is_that_of_invalid_input(server: Server) -> None:
    with grpc.insecure_channel(server.grpc) as channel:
        call = channel.unary_unary("/mindspore.serving.proto.MSService/Predict")
        instances = [{"x": tensor(np.float32(number))} for number in (-1, -101)]
        body = request("chain", "predict", *instances).SerializeToString()
        reply = messages.PredictReply.FromString(call(body, timeout=60))
    assert [each.error_code for each in reply.error_msg] == [2, 1]


@pytest.mark.parametrize("method", ["counted", "counted_on_loop"])
def test_a_generator_that_refuses(server: Server, method: str) -> None:
    function = "count" if method == "counted" else "count_on_loop"
    with Client(server.grpc, "chain", method) as client:
        with client.infer_stream({"x": np.float32(-4)}) as items:
            assert list(items) == [{"y": 0}, {"error": f"Call Function 'chain.{function}' Failed: -4 {SAID}"}]
        with client.infer_stream({"x": np.float32(-104)}) as items:
            assert list(items)[1] == {"error": f"Call Function 'chain.{function}' Failed: KeyError: 'a defect'"}
    assert f"stage function 'chain.{function}' raised:" in server.log()
    assert "InvalidInput" not in server.log()


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (-21, "Call Function 'chain.one' Failed: InvalidInput"),
        (-22, "Call Function 'chain.one' Failed: Mute (whose text can't be had)"),
    ],
)
def test_texts_that_are_none_or_too_long(server: Server, number: int, text: str) -> None:
    code, details = status_of(lambda: server.told(number))
    assert (code, details) == (grpc.StatusCode.INVALID_ARGUMENT, f"Preprocess Failed: {text}")
    code, details = status_of(lambda: server.told(-23))
    assert code is grpc.StatusCode.INVALID_ARGUMENT
    assert f"Call Function 'chain.one' Failed: {'ß' * 1000}" in details
    assert len(details) < 2100


def test_it_is_no_defect_for_the_log(server: Server) -> None:
    for number, (kind, _) in REFUSED.items():
        status_of(lambda number=number, kind=kind: server.told(number, kind))
    status_of(lambda: server.told(-101))
    assert "stage function 'chain.one' raised:\nKeyError: 'a defect'" in server.log()
    assert "InvalidInput" not in server.log()
    assert SAID not in server.log()


ONES = np.ones((1, 2), np.float32)
WRONG: list[tuple[str, dict[str, Any], str]] = [
    ("add", {"a": ONES, "b": np.ones((1, 3), np.float32)}, "running Add node"),
    ("add", {"a": ONES, "b": np.ones((1, 0), np.float32)}, "running Add node"),
    ("add", {"a": ONES, "b": np.ones(2, np.float32)}, "Given model input 1 shape (2,) not match the shape (-1, -1)"),
    ("add", {"a": ONES, "b": ONES.astype(np.float64)}, "Given model input 1 data type kMSI_Float64 not match"),
    ("add", {"a": ONES, "b": "text"}, "Given model input 1 data type kMSI_String not match"),
    ("add", {"a": ONES}, "Cannot find input b in instance input"),
    ("matmul", {"a": ONES, "b": np.ones((3, 1), np.float32)}, "running MatMul node"),
    ("concat", {"a": np.float32(1), "b": ONES}, "running Concat node"),
    ("concat", {"a": np.ones((2, 2), np.float32), "b": ONES}, "running Concat node"),
    ("pool", {"a": np.ones((1, 1, 2, 2), np.float32)}, "running MaxPool node"),
    ("pool", {"a": np.ones((0, 0, 0, 0), np.float32)}, "running MaxPool node"),
    ("cast", {"a": "no number"}, "running Cast node"),
    ("reshape", {"a": np.ones(4, np.float32), "shape": np.array([3, 3])}, "running Reshape node"),
    ("whole", {"a": np.ones(2, np.float32), "b": np.ones((3, 2), np.float32)}, "not the batch's size 1"),
    ("pair", {"a": np.ones(3, np.float32)}, "Given model input 0 size 12 not match the size 8 defined in model"),
]


@pytest.mark.parametrize(("servable", "inputs", "text"), WRONG)
def test_what_a_model_makes_nothing_of_is_the_clients_error(
    server: Server, servable: str, inputs: dict[str, Any], text: str
) -> None:
    code, details = status_of(lambda: server.instance(servable, **inputs))
    assert (code, text in details) == (grpc.StatusCode.INVALID_ARGUMENT, True), details


def test_the_same_by_http(server: Server) -> None:
    for body, text in (
        ({"a": [[1.0, 2.0]], "b": [[1.0, 2.0, 3.0]]}, "running Add node"),
        ({"a": [[1.0, 2.0]], "b": [["1", "2"]]}, "json array, string or bytes type only support one item"),
        ({"a": [[1.0, 2.0]], "b": [[1, 2]]}, "Given model input 1 data type kMSI_Int32 not match"),
        ({"a": [[1.0, 2.0]]}, "Cannot find input b in instance input"),
    ):
        answer = server.rest.post("/js/predict", {"data": body}, headers={"application": "add"})
        assert answer.status_code == 400, answer.text
        assert text in answer.json()["error_msg"]
    reply = server.rest.post("/js/predict", {"data": {"a": [[1.0]], "b": [[2.0]]}}, headers={"application": "add"})
    assert reply.json()["predictions"][0]["prediction"] == 3


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (1, "Given model input 0 size 12 not match the size 8 defined in model"),
        (2, "Given model input 0 data type kMSI_String not match the data type kMSI_Float32 defined in model"),
    ],
)
def test_what_a_handler_gives_has_to_fit_the_model(server: Server, number: int, text: str) -> None:
    code, details = status_of(lambda: server.classify("pair", "asked.Handled", b"\x0d" + struct.pack("<f", number)))
    assert (code, details) == (grpc.StatusCode.INVALID_ARGUMENT, text)
    server.classify("pair", "asked.Handled", b"")
