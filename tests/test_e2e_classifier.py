"""The Classifier end to end: Seldon's document, message by message, and what each bad request gets."""

from __future__ import annotations

import concurrent.futures
import contextlib
import importlib
import os
import pathlib
import re
import signal
import sys
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import grpc
import numpy as np
import pytest
from google.protobuf import any_pb2

from e2e_support import Served, server_process, status_of, tensor, until, write_servable
from mindserve.proto import messages
from mindserve.proto.seldon import ClassifierStub
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
message Seldons { float f1 = 1; float f2 = 2; float f3 = 3; float f4 = 4; }
message Asked { float f1 = 1; }
message Note { string text = 1; }
"""

# "iris": the shares that four numbers have in their sum, for the three classes; the fourth's is nobody's.
CONFIG = """
import os
import numpy as np
import pandas as pd
from iris_pb2 import Handled, IrisPredictRequest, Seldons
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

# What `getData` is given, as the classes' names: puid, type_url, and all of it.
TELLER = """
import numpy as np
import pandas as pd
from iris_pb2 import Asked, Handled
from mindserve.server import register


@register.register_method(output_names=["prediction", "predictedClass"])
def tell(number, names):
    return number, names


@register.data_handler(Asked)
class Teller:
    def getData(self, request):
        told = request.meta.puid, request.data.type_url, request.SerializeToString().hex()
        return np.zeros(3), np.array(told)


@register.data_handler(Handled)
def framed(message):
    # Columns are told by their names, and those that are no inputs do no harm.
    columns = {"names": "first", "more": 1, "number": message.f1}
    columns.pop(message.how, None)
    return pd.DataFrame([columns])
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


@contextlib.contextmanager
def serving_iris(folder: pathlib.Path, options: str = "", config: str = CONFIG) -> Iterator[Served]:
    """A server of the servable, with further arguments of ``ServableStartConfig``, as text."""
    write_servable(folder / "servables", "iris", config)
    compile_protos(folder / "servables" / "iris", iris=IRIS)
    script = START.format(directory=str(folder / "servables"), options=options)
    with server_process(folder / "run", script) as process:
        server = Served(process, [process.line()], "iris")
        try:
            yield server
        finally:
            server.close()


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with serving_iris(tmp_path_factory.mktemp("classifier"), "device_ids=(0, 1)") as server:
        yield server


@pytest.fixture(scope="module")
def stub(served: Served, document: Document) -> Iterator[Any]:
    with grpc.insecure_channel(served.address) as channel:
        yield document.stub(channel)


SHARES = np.array([1.0, 0.2, 2.1], np.float32) / np.float32(4.5)
FEATURES = {"f1": 1.0, "f2": 0.2, "f3": 2.1, "f4": 1.2}


def check(reply: Any) -> None:
    """It is the answer to `FEATURES`."""
    assert [each.predictedClass for each in reply.predictions] == ["Iris-setosa", "Iris-versicolor", "Iris-virginica"]
    np.testing.assert_allclose([each.prediction for each in reply.predictions], SHARES, rtol=1e-6)
    assert all(each.prediction == each.confidence for each in reply.predictions)


def test_the_documents_call(stub: Any, document: Document) -> None:
    data = document.iris.IrisPredictRequest(**FEATURES)
    reply = stub.Predict(document.request(data, puid="12345"), 999)
    assert reply.meta.puid == "12345"
    assert reply.meta.modelName == "model_xgb"
    assert reply.meta.variation == "default"
    check(reply)
    # As the document prints it: it is there, and empty.
    assert reply.HasField("custom")
    assert reply.custom == any_pb2.Any()


def test_a_puid_is_made_where_none_is_given(stub: Any, document: Document) -> None:
    request = document.request(document.iris.IrisPredictRequest(**FEATURES))
    puids = {stub.Predict(request, 60).meta.puid for _ in range(20)}
    assert len(puids) == 20
    assert all(re.fullmatch("[0-9a-f]{40}", puid) for puid in puids)
    request.ClearField("meta")
    assert re.fullmatch("[0-9a-f]{40}", stub.Predict(request, 60).meta.puid)


def test_the_packages_own_messages(served: Served, document: Document) -> None:
    """They take what the document's client makes them of, and are the same on the wire."""
    from mindserve.proto.seldon import ClassificationRequest, ClassificationRequestMeta

    data = any_pb2.Any()
    data.Pack(document.iris.IrisPredictRequest(**FEATURES))
    meta = ClassificationRequestMeta(puid="1")
    request = ClassificationRequest(meta=meta, data=data)
    assert isinstance(request.data, any_pb2.Any)
    packed = ClassificationRequest(meta=meta)
    packed.data.Pack(document.iris.IrisPredictRequest(**FEATURES))
    assert packed == request
    theirs = document.request(document.iris.IrisPredictRequest(**FEATURES), puid="1")
    assert request.SerializeToString(deterministic=True) == theirs.SerializeToString(deterministic=True)
    with grpc.insecure_channel(served.address) as channel:
        reply = ClassifierStub(channel).Predict(request, 60)
    check(reply)
    assert reply.meta.puid == "1"


@pytest.mark.parametrize("how", ["dict", "tuple", "array", "frame"])
def test_what_a_data_handler_may_give(stub: Any, document: Document, how: str) -> None:
    check(stub.Predict(document.request(document.iris.Handled(**FEATURES, how=how)), 60))


def test_the_documents_custom_data_handler(stub: Any, document: Document) -> None:
    check(stub.Predict(document.request(document.iris.Seldons(**FEATURES)), 60))


@pytest.fixture(scope="module")
def teller(tmp_path_factory: pytest.TempPathFactory, document: Document) -> Iterator[Any]:
    with (
        serving_iris(tmp_path_factory.mktemp("teller"), config=TELLER) as server,
        grpc.insecure_channel(server.address) as channel,
    ):
        yield document.stub(channel)


def told(reply: Any) -> list[str]:
    return [each.predictedClass for each in reply.predictions]


def test_get_data_is_given_the_request_as_it_came(teller: Any, document: Document) -> None:
    """With its puid, its own URL of the type, and what only newer clients know of."""
    request = document.request(document.iris.Asked(f1=1), puid="12345")
    request.data.type_url = "example.com/of/ours/io.seldon.microservice.iris.Asked"
    sent = document.seldon.ClassificationRequest.FromString(request.SerializeToString() + b"\x7a\x01?")
    reply = teller.Predict(sent, 60)
    puid, url, given = told(reply)
    assert puid == reply.meta.puid == "12345"
    assert url == request.data.type_url
    assert bytes.fromhex(given) == sent.SerializeToString()


@pytest.mark.parametrize("metadata", [(), (("request_id", "mine"),)])
def test_get_data_is_given_the_puid_that_is_answered(teller: Any, document: Document, metadata: Any) -> None:
    request = document.request(document.iris.Asked(f1=1))
    replies = [teller.Predict(request, 60, metadata=metadata) for _ in range(3)]
    assert all(told(reply)[0] == reply.meta.puid for reply in replies)
    puids = {reply.meta.puid for reply in replies}
    assert len(puids) == 3
    assert all(re.fullmatch("[0-9a-f]{40}", puid) for puid in puids)


def test_a_data_frame_has_to_have_the_columns_that_the_method_takes(teller: Any, document: Document) -> None:
    (prediction,) = teller.Predict(document.request(document.iris.Handled(f1=0.5)), 60).predictions
    assert (prediction.prediction, prediction.predictedClass) == (0.5, "first")
    code, details = status_of(lambda: teller.Predict(document.request(document.iris.Handled(how="names")), 60))
    assert code is grpc.StatusCode.INTERNAL
    assert "iris.framed gave a DataFrame without column 'names', the inputs are number, names" in details


def test_an_instance_needs_no_handler(stub: Any, document: Document) -> None:
    instance = messages.Instance(items={"x": tensor(np.array([1.0, 0.2, 2.1, 1.2], np.float32))})
    check(stub.Predict(document.request(instance), 60))


@pytest.mark.parametrize(
    ("how", "text"),
    [
        ("frames", "a DataFrame of 2 rows, expected one"),
        ("none", "gave no 'x', the inputs are x"),
        ("few", "Shares Failed"),
        ("other", "iris.handled' Failed: KeyError: \"no way 'other'\""),
    ],
)
def test_a_handler_or_stage_that_fails_is_internal(stub: Any, document: Document, how: str, text: str) -> None:
    code, details = status_of(lambda: stub.Predict(document.request(document.iris.Handled(**FEATURES, how=how)), 60))
    assert code is grpc.StatusCode.INTERNAL
    assert text in details


def test_an_unknown_type_is_told_what_is_known(stub: Any, document: Document) -> None:
    code, details = status_of(lambda: stub.Predict(document.request(document.iris.Note(text="?")), 60))
    assert code is grpc.StatusCode.INVALID_ARGUMENT
    assert "'io.seldon.microservice.iris.Note'" in details
    known = ("Handled", "IrisPredictRequest", "Seldons")
    assert all(f"'io.seldon.microservice.iris.{name}'" in details for name in known)
    assert "'mindspore.serving.proto.Instance'" in details


@pytest.mark.parametrize("name", ["IrisPredictRequest", "Handled", "Seldons"])
def test_bytes_that_do_not_parse_are_the_clients_error(stub: Any, document: Document, name: str) -> None:
    url = f"type.googleapis.com/io.seldon.microservice.iris.{name}"
    request = document.seldon.ClassificationRequest(data=any_pb2.Any(type_url=url, value=b"\x0d\x00"))
    code, details = status_of(lambda: stub.Predict(request, 60))
    assert code is grpc.StatusCode.INVALID_ARGUMENT
    assert f"'io.seldon.microservice.iris.{name}', is wrong: " in details


@pytest.mark.parametrize("name", ["IrisPredictRequest", "Handled", "Seldons"])
def test_a_types_name_alone_is_no_type_url(stub: Any, document: Document, name: str) -> None:
    url = f"io.seldon.microservice.iris.{name}"
    request = document.seldon.ClassificationRequest(data=any_pb2.Any(type_url=url))
    code, details = status_of(lambda: stub.Predict(request, 60))
    assert code is grpc.StatusCode.INVALID_ARGUMENT
    assert f"has no '/': expected a prefix, as type.googleapis.com/{url}" in details


def test_an_instance_that_is_wrong_says_how(stub: Any, document: Document) -> None:
    code, details = status_of(lambda: stub.Predict(document.request(messages.Instance()), 60))
    assert code is grpc.StatusCode.INVALID_ARGUMENT
    assert "Cannot find input x in instance input" in details


@pytest.mark.parametrize("request_bytes", [b"", b"\x0a\x03\x0a\x011", b"\x12\x00"])
def test_a_request_without_data_says_so(served: Served, request_bytes: bytes) -> None:
    path = "/io.seldon.api.rpc.Classifier/Predict"
    code, details = status_of(lambda: served.raw(request_bytes, path))
    assert code is grpc.StatusCode.INVALID_ARGUMENT
    assert "has no data" in details


def test_a_request_that_is_none(served: Served) -> None:
    code, details = status_of(lambda: served.raw(b"\x12\x7f", "/io.seldon.api.rpc.Classifier/Predict"))
    assert code is grpc.StatusCode.INVALID_ARGUMENT
    assert "the ClassificationRequest doesn't parse at byte" in details


def test_application_names_the_servable(stub: Any, document: Document) -> None:
    request = document.request(document.iris.IrisPredictRequest(**FEATURES))
    check(stub.Predict(request, 60, metadata=[("application", "iris")]))
    code, details = status_of(lambda: stub.Predict(request, 60, metadata=[("application", "rose")]))
    assert code is grpc.StatusCode.NOT_FOUND
    assert "'rose' not found" in details
    assert "'iris'" in details


def test_the_method_is_predicts_too_but_its_path_is_not(served: Served) -> None:
    (result,) = served.ask("predict", {"x": np.array([1.0, 0.2, 2.1, 1.2], np.float32)})
    np.testing.assert_allclose(result["probabilities"], SHARES, rtol=1e-6)
    error = served.error("/io.seldon.api.rpc.Classifier/Predict", x=1)
    assert "method is not available" in error


def test_a_workers_death_goes_unnoticed(served: Served, stub: Any, document: Document) -> None:
    """What it had goes to the other one."""
    request = document.request(document.iris.IrisPredictRequest(**FEATURES))
    futures = [stub.Predict.future(request, 60) for _ in range(50)]
    os.kill(served.process.workers()[0], signal.SIGKILL)
    futures += [stub.Predict.future(request, 60) for _ in range(50)]
    for future in futures:
        check(future.result())


def test_a_request_that_kills_workers_is_told_so(tmp_path: pathlib.Path, document: Document) -> None:
    with serving_iris(tmp_path, "device_ids=(0, 1)") as served, grpc.insecure_channel(served.address) as channel:
        stub = document.stub(channel)
        fatal = document.request(document.iris.Handled(**FEATURES, how="die"), puid="fatal")
        code, details = status_of(lambda: stub.Predict(fatal, 60))
        assert code is grpc.StatusCode.UNAVAILABLE
        assert "Classification by servable 'iris' puid 'fatal'" in details
        request = document.request(document.iris.IrisPredictRequest(**FEATURES))
        until(lambda: _answers(stub, request))


def _answers(stub: Any, request: Any) -> bool:
    """Whether it does, or else has no worker at the time."""
    try:
        check(stub.Predict(request, 60))
    except grpc.RpcError as error:
        assert error.code() is grpc.StatusCode.UNAVAILABLE  # type: ignore[attr-defined]
        return False
    return True


BATCHES = """
import numpy as np
from iris_pb2 import IrisPredictRequest
from mindserve.server import register


def sized(instances):
    for _ in instances:
        yield np.array([len(instances)], np.float32)


@register.register_method(output_names="prediction")
def predict(x):
    return register.add_stage(sized, x, outputs_count=1, batch_size=6)


register.data_handler(IrisPredictRequest)
"""


def test_requests_share_batches_with_predict(tmp_path: pathlib.Path, document: Document) -> None:
    """The stage waits for six, which come by both ways."""
    row = {"x": np.array([1.0, 0.2, 2.1, 1.2], np.float32)}
    with (
        serving_iris(tmp_path, "max_queue_delay_us=60_000_000", BATCHES) as served,
        grpc.insecure_channel(served.address) as channel,
        concurrent.futures.ThreadPoolExecutor(3) as pool,
    ):
        client = served.client("predict")
        request = document.request(document.iris.IrisPredictRequest(**FEATURES))
        classified = [document.stub(channel).Predict.future(request, 60) for _ in range(3)]
        predicted = [pool.submit(client.infer, row, timeout=60) for _ in range(3)]
        for future in classified:
            (prediction,) = future.result().predictions
            # The method's only output has the numbers; classes without names have numbers.
            assert (prediction.prediction, prediction.predictedClass) == (6, "0")
            assert future.result().meta.modelName == "iris"
        for each in predicted:
            result = each.result()
            assert isinstance(result, list)
            assert result[0]["prediction"] == 6
