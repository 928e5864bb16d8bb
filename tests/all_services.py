"""A server that answers calls of every kind, and a right message for each: what one of them bounds, all have to."""

from __future__ import annotations

import contextlib
import pathlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from google.protobuf import any_pb2, wrappers_pb2
from google.protobuf.message import DecodeError

import stubs
from conftest import ECHO_SERVABLE
from e2e_support import Served, request, serving, tensor
from mindserve.proto import CLASSIFY, PREDICT, PREDICT_STREAM, messages
from mindserve.proto.pool import message_class
from mindserve.proto.seldon import ClassificationRequest, ClassificationRequestMeta

HEALTH = "/grpc.health.v1.Health/"
REFLECTION = "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo"
ADDERS = ["kinds_pb2_grpc.add_KindsServicer_to_server"]

# Each answer is as large as its request, and streams have a hundred; of Down they are packed if the text says so.
CONFIG = (
    ECHO_SERVABLE
    + """
import grpc
import numpy as np
from google.protobuf.wrappers_pb2 import BytesValue
from kinds_pb2 import Answer


def again(x):
    for _ in range(100):
        yield x


@register.register_method(output_names="x", streaming=True)
def stream(x):
    return register.add_stage(again, x, outputs_count=1)


def likely(data):
    return np.ones(2), data


@register.register_method(output_names=["probabilities", "custom"])
def classify(data):
    return register.add_stage(likely, data, outputs_count=2)


register.classifier(method="classify", classes=["no", "yes"], output="probabilities", custom=BytesValue)


@register.data_handler(BytesValue)
def packed(message):
    return {"data": message.SerializeToString()}


@register.grpc_service("kinds.Kinds")
class Kinds:
    async def One(self, request):
        return Answer(data=request.data)

    async def Down(self, request, grpc_context):
        if request.text == "packed":
            grpc_context.set_compression(grpc.Compression.Gzip)
        for _ in range(100):
            yield Answer(data=request.data)

    async def Up(self, requests):
        data = b""
        async for request in requests:
            data = request.data
        return Answer(data=data)

    async def Both(self, requests):
        async for request in requests:
            yield Answer(data=request.data)
"""
)


@dataclass(frozen=True)
class Kind:
    """A kind of call.

    Attributes:
        path: of its method.
        echoes: whether each answer is as large as its request.
        streams: whether a client may send messages one after the other.
    """

    path: str
    echoes: bool = True
    streams: bool = False


KINDS: Mapping[str, Kind] = {
    "Predict": Kind(PREDICT),
    "PredictStream": Kind(PREDICT_STREAM),
    "Classifier": Kind(CLASSIFY),
    "user's unary": Kind("/kinds.Kinds/One"),
    "user's answers": Kind("/kinds.Kinds/Down"),
    "user's requests": Kind("/kinds.Kinds/Up", streams=True),
    "user's both": Kind("/kinds.Kinds/Both", streams=True),
    "health": Kind(HEALTH + "Check", echoes=False),
    "watch": Kind(HEALTH + "Watch", echoes=False),
    "reflection": Kind(REFLECTION, echoes=False, streams=True),
}


class Everything:
    """The server, and messages for each kind of call."""

    def __init__(self, served: Served, kinds_pb2: Any) -> None:
        self.served = served
        self._ask = kinds_pb2.Ask

    def message(self, name: str, data: bytes = b"text") -> bytes:
        """A right one, with that much in it if its method echoes."""
        kind, message = KINDS[name], b""
        if name.startswith("Predict"):
            method = "same" if name == "Predict" else "stream"
            message = request("echo", method, {"x": tensor(np.frombuffer(data, np.uint8))}).SerializeToString()
        elif name == "Classifier":
            packed = any_pb2.Any()
            packed.Pack(wrappers_pb2.BytesValue(value=data))
            meta = ClassificationRequestMeta(puid="a puid")
            message = ClassificationRequest(meta=meta, data=packed).SerializeToString()
        elif kind.echoes:
            message = self._ask(text="text", number=7, data=data).SerializeToString()
        elif name == "reflection":
            message = self._type(name)(host="test", file_containing_symbol="kinds.Kinds").SerializeToString()
        else:
            message = self._type(name)(service="echo").SerializeToString()
        assert self.parses(name, message)
        return message

    def parses(self, name: str, data: bytes) -> bool:
        """Whether protobuf takes that for a request."""
        try:
            self._type(name).FromString(data)
        except DecodeError:
            return False
        return True

    def _type(self, name: str) -> Any:
        if name.startswith("Predict"):
            return messages.PredictRequest
        if name == "Classifier":
            return ClassificationRequest
        if name == "reflection":
            return message_class("grpc.reflection.v1.ServerReflectionRequest")
        return self._ask if KINDS[name].echoes else message_class("grpc.health.v1.HealthCheckRequest")


@contextlib.contextmanager
def serving_everything(folder: pathlib.Path, limits: str, generated: tuple[Any, Any]) -> Iterator[Everything]:
    """A server with these arguments of ``Limits``; `generated` are the modules of kinds.proto."""
    (folder / "servables" / "echo").mkdir(parents=True)
    stubs.generate(folder / "servables" / "echo")
    listen = f"'127.0.0.1:0', limits=server.Limits({limits}), grpc_servicer_functions={ADDERS!r}"
    with serving(folder, "echo", CONFIG, listen=listen) as served:
        yield Everything(served, generated[0])
