"""The Classifier end to end: Seldon's document, message by message, and what each bad request gets."""

from __future__ import annotations

import importlib
import pathlib
import sys
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import grpc
import numpy as np
import pytest
from google.protobuf import any_pb2

from e2e_support import Served, server_process, write_servable
from stubs import compile_protos

# As Seldon's document shows it.
SELDON = """
import "google/protobuf/any.proto";
option java_multiple_files = true;
option java_package = "io.seldon.api.rpc";
option java_outer_classname = "PredictionAPI";
package io.seldon.api.rpc;
service Classifier {
  rpc Predict (ClassificationRequest) returns (ClassificationReply) {}
}
//Classification Request
message ClassificationRequest {
 ClassificationRequestMeta meta = 1;
 google.protobuf.Any data = 2;
}
message ClassificationRequestMeta {
  string puid = 1;
}
// Classification Reply
message ClassificationReply {
 ClassificationReplyMeta meta = 1;
 repeated ClassificationResult predictions = 2;
 google.protobuf.Any custom = 3;
}
message ClassificationReplyMeta {
  string puid = 1;
  string modelName = 2;
  string variation = 3;
}
message ClassificationResult {
  double prediction  = 1;
  string predictedClass = 2;
  double confidence = 3;
}
"""
IRIS = """
package io.seldon.microservice.iris;
message IrisPredictRequest {
  float f1 = 1;
  float f2 = 2;
  float f3 = 3;
  float f4 = 4;
}
message Handled { float f1 = 1; float f2 = 2; float f3 = 3; float f4 = 4; string how = 5; }
message Framed { repeated float f = 1; }
message Seldons { float f1 = 1; float f2 = 2; float f3 = 3; float f4 = 4; }
message Note { string text = 1; }
"""

# "iris": the shares that four numbers have in their sum, for the three classes; the fourth's is nobody's.
CONFIG = """
import os
import numpy as np
import pandas as pd
from iris_pb2 import Framed, Handled, IrisPredictRequest, Seldons
from mindserve.server import register

sizes = []


def shares(instances):
    sizes.append(len(instances))
    for (x,) in instances:
        assert x.shape == (4,), x.shape
        yield x[:3] / x.sum()


@register.register_method(output_names="probabilities")
def predict(x):
    return register.add_stage(shares, x, outputs_count=1, batch_size=64, tag="Shares")


register.classifier(classes=["Iris-setosa", "Iris-versicolor", "Iris-virginica"], model_name="model_xgb")
register.data_handler(IrisPredictRequest)


@register.data_handler(Handled)
def handled(message):
    if message.how == "dict":
        return {"x": [message.f1, message.f2, message.f3, message.f4]}
    if message.how == "tuple":
        return (np.array([message.f1, message.f2, message.f3, message.f4]),)
    if message.how == "array":
        return np.array([message.f1, message.f2, message.f3, message.f4], np.float32)
    if message.how == "frame":
        return pd.DataFrame([{"f1": message.f1, "f2": message.f2, "f3": message.f3, "f4": message.f4}])
    if message.how == "frames":
        return pd.DataFrame([{"f1": 1.0}, {"f1": 2.0}])
    if message.how == "none":
        return {"y": 1}
    if message.how == "die":
        os._exit(3)
    if message.how == "few":
        return np.ones(3)
    raise KeyError(f"no way '{message.how}'")


@register.data_handler(Seldons)
class IrisCustomDataHandler:
    def getData(self, request):
        dc = Seldons()
        assert request.data.Unpack(dc)
        return pd.DataFrame([{"f1": dc.f1, "f2": dc.f2, "f3": dc.f3, "f4": dc.f4}])
"""

START = """
from mindserve import server

server.start_servables(server.ServableStartConfig({directory!r}, "iris", {options}))
print(server.start_grpc_server("127.0.0.1:0")[0], flush=True)
"""


class Document:
    """Modules generated from the document's files, and its client's call."""

    def __init__(self, folder: pathlib.Path) -> None:
        compile_protos(folder, seldon=SELDON, iris=IRIS)
        sys.path.insert(0, str(folder))
        self.seldon: ModuleType = importlib.import_module("seldon_pb2")
        self.iris: ModuleType = importlib.import_module("iris_pb2")
        stubs = importlib.import_module("seldon_pb2_grpc")
        sys.path.remove(str(folder))
        self.stub = stubs.ClassifierStub

    def request(self, message: Any, puid: str = "") -> Any:
        data = any_pb2.Any()
        data.Pack(message)
        return self.seldon.ClassificationRequest(meta=self.seldon.ClassificationRequestMeta(puid=puid), data=data)


@pytest.fixture(scope="module")
def document(tmp_path_factory: pytest.TempPathFactory) -> Document:
    return Document(tmp_path_factory.mktemp("document"))


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("classifier")
    write_servable(folder / "servables", "iris", CONFIG)
    compile_protos(folder / "servables" / "iris", iris=IRIS)
    script = START.format(directory=str(folder / "servables"), options="device_ids=(0, 1)")
    with server_process(folder / "run", script) as process:
        server = Served(process, [process.line()], "iris")
        yield server
        server.close()


@pytest.fixture(scope="module")
def stub(served: Served, document: Document) -> Iterator[Any]:
    with grpc.insecure_channel(served.address) as channel:
        yield document.stub(channel)


def test_the_documents_call(stub: Any, document: Document) -> None:
    data = document.iris.IrisPredictRequest(f1=1.0, f2=0.2, f3=2.1, f4=1.2)
    reply = stub.Predict(document.request(data, puid="12345"), 999)
    assert reply.meta.puid == "12345"
    assert reply.meta.modelName == "model_xgb"
    assert reply.meta.variation == "default"
    shares = np.array([1.0, 0.2, 2.1], np.float32) / np.float32(4.5)
    assert [each.predictedClass for each in reply.predictions] == ["Iris-setosa", "Iris-versicolor", "Iris-virginica"]
    np.testing.assert_allclose([each.prediction for each in reply.predictions], shares, rtol=1e-6)
    assert all(each.prediction == each.confidence for each in reply.predictions)
    # As the document prints it: it is there, and empty.
    assert reply.HasField("custom")
    assert reply.custom == any_pb2.Any()
