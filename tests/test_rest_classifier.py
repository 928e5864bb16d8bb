"""``POST /js/predict``: the Classifier by HTTP with JSON, and what each bad body gets."""

from __future__ import annotations

import base64
import re
from collections.abc import Iterator
from typing import Any

import grpc
import pytest
import requests

from e2e_support import server_process, status_of, write_servable
from mindserve.auth.hashing import hash_secret
from mindserve.auth.keys import ClientKey, Keys, save_keys
from mindserve.proto.seldon import ClassificationRequest, ClassifierStub
from rest_support import Rest, head, read_answer
from stubs import compile_protos

PATH = "/js/predict"
FLOWERS = """
package flowers;
message Flower { float f1 = 1; float f2 = 2; double f3 = 3; int32 f4 = 4; }
message Note { string text = 1; int64 number = 2; }
"""

# Shares of numbers in their sum: "flower" by the fields alone, "noted" with all that a reply may have, "plain" by
# nothing but instances.
FLOWER = """
import numpy as np
from flowers_pb2 import Flower
from mindserve.server import register


def shares(x):
    return x[:3] / x.sum()


@register.register_method(output_names="prediction")
def predict(x):
    return register.add_stage(shares, x, outputs_count=1)


register.classifier(classes=["a", "b", "c"], model_name={model!r})
register.data_handler(Flower)
"""
NOTED = """
import numpy as np
from flowers_pb2 import Flower, Note
from mindserve.server import register


def sums(f1, f2):
    return f1 + f2, f1 - f2


@register.register_method(output_names=["sum", "difference"])
def both(f1, f2):
    return register.add_stage(sums, f1, f2, outputs_count=2)


def reply(sum, difference):
    entries = [0.5, (float(sum), "sum", 1.0), {"prediction": float(difference), "predictedClass": "difference"}]
    if sum < 0:
        return entries
    return entries, Note(text="größer", number=2**60)


register.classifier(mapping=reply)
register.data_handler(Flower, fields=["f2", "f1"])


@register.data_handler(Note)
def from_note(note):
    return float("nan"), np.float32(note.number)
"""
PLAIN = """
from mindserve.server import register


@register.register_method(output_names=["probabilities", "other"])
def same(x, y):
    return x, y


@register.register_method(output_names=["label", "scores"])
def unused(x, y):
    return x, y


register.classifier("same")
"""
# With two classes for four numbers.
BROKEN = """
from flowers_pb2 import Flower
from mindserve.server import register


@register.register_method(output_names="y")
def predict(x):
    return x


register.classifier(classes=["a", "b"])
register.data_handler(Flower)
"""
# As many predictions as there are numbers, for two classes.
MAPPED = """
import numpy as np
from flowers_pb2 import Flower
from mindserve.server import register


@register.register_method(output_names="y")
def predict(x):
    return x


register.classifier(mapping=lambda y: [float(each) for each in np.ravel(y)], classes=["a", "b"])
register.data_handler(Flower)
"""
PASSING = """
from flowers_pb2 import Note
from mindserve.server import register


@register.register_method(output_names=["prediction", "custom"])
def predict(x, custom):
    return x, custom


register.classifier(custom=Note)
"""
# Takes messages that have a form of their own in JSON, and gives their bytes back.
WRAPPED = """
import numpy as np
from google.protobuf.{module} import {name}
from mindserve.server import register


def reply(size):
    return [float(size[0])], {name}.FromString(bytes(size[1:].astype(np.uint8)))


@register.register_method(output_names="size")
def predict(data):
    return data


register.classifier(mapping=reply)


@register.data_handler({name})
def take(message):
    data = message.SerializeToString()
    return np.array([len(data), *data], np.float32)
"""
REPLY = {"f1": 1, "f2": 2, "f3": 1, "f4": 4}


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Rest, str]]:
    folder = tmp_path_factory.mktemp("classifiers")
    configs = {
        "flower": FLOWER.format(model="one"),
        "newer": FLOWER.format(model="two"),
        "noted": NOTED,
        "plain": PLAIN,
        "broken": BROKEN,
        "mapped": MAPPED,
        "passing": PASSING,
        "bytes": WRAPPED.format(module="wrappers_pb2", name="BytesValue"),
        "struct": WRAPPED.format(module="struct_pb2", name="Struct"),
        "duration": WRAPPED.format(module="duration_pb2", name="Duration"),
    }
    for name, config in configs.items():
        write_servable(folder / "servables", name, config)
        compile_protos(folder / "servables" / name, flowers=FLOWERS)
    keys = str(folder / "keys.yaml")
    clients = [
        ClientKey(key="all", secrets=(hash_secret("s"),)),
        ClientKey(key="narrow", secrets=(hash_secret("s"),), servables=("plain", "split")),
    ]
    save_keys(Keys({each.key: each for each in clients}), keys)
    script = f"""
from mindserve import server
names = {list(configs)!r}
server.start_servables([server.ServableStartConfig({str(folder / "servables")!r}, name) for name in names])
server.set_traffic("split", [server.Variation("old", "flower"), server.Variation("new", "newer")])
auth = server.AuthConfig({keys!r})
print(server.start_grpc_server("127.0.0.1:0", auth=auth)[0], flush=True)
print(server.start_restful_server("127.0.0.1:0", auth=auth), flush=True)
"""
    with server_process(folder / "run", script) as process:
        address = process.line()
        rest = Rest(process, process.line())
        try:
            yield rest, address
        finally:
            rest.close()


def token(rest: Rest, key: str = "all") -> str:
    answer = rest.get("/token", params={"consumer_key": key, "consumer_secret": "s"})
    assert answer.status_code == 200, answer.text
    return str(answer.json()["access_token"])


@pytest.fixture(scope="module")
def rest(servers: tuple[Rest, str]) -> Rest:
    server = servers[0]
    server.session.headers["oauth_token"] = token(server)
    return server


def post(rest: Rest, body: Any, application: str = "flower", **headers: str) -> requests.Response:
    return rest.post(PATH, body, headers={"application": application, **headers})


def error(rest: Rest, body: Any, status: int = 400, application: str = "flower") -> str:
    answer = post(rest, body, application)
    assert answer.status_code == status, answer.text
    assert list(answer.json()) == ["error_msg"]
    return str(answer.json()["error_msg"])


def test_the_documents_form(rest: Rest) -> None:
    reply = post(rest, {"data": REPLY}).json()
    assert list(reply) == ["meta", "predictions", "custom"]
    assert re.fullmatch("[0-9a-f]{40}", reply["meta"].pop("puid"))
    assert reply["meta"] == {"modelName": "one", "variation": "default"}
    assert reply["predictions"] == [
        {"prediction": 0.125, "predictedClass": "a", "confidence": 0.125},
        {"prediction": 0.25, "predictedClass": "b", "confidence": 0.25},
        {"prediction": 0.125, "predictedClass": "c", "confidence": 0.125},
    ]
    assert reply["custom"] is None


def test_a_puid_that_is_given_comes_back(rest: Rest) -> None:
    for meta, expected in (({"puid": "größer"}, "größer"), ({"puid": ""}, None), ({}, None), (None, None)):
        puid = post(rest, {"meta": meta, "data": REPLY}).json()["meta"]["puid"]
        assert puid == expected if expected else re.fullmatch("[0-9a-f]{40}", puid)


@pytest.mark.parametrize("name", ["flowers.Flower", "type.googleapis.com/flowers.Flower"])
def test_data_may_say_its_type(rest: Rest, name: str) -> None:
    assert post(rest, {"data": {"@type": name, **REPLY}}).json()["predictions"][1]["prediction"] == 0.25


def test_an_instance_as_predict_takes_it(rest: Rest) -> None:
    instance = {"@type": "mindspore.serving.proto.Instance", "x": [1.0, 2.0, 1.0, 4.0]}
    assert post(rest, {"data": instance}).json()["predictions"][1]["prediction"] == 0.25
    # Where nothing else is taken, its type goes without saying.
    reply = post(rest, {"data": {"x": [0.0, 2.5], "y": 1}}, "plain").json()
    assert [(each["prediction"], each["predictedClass"]) for each in reply["predictions"]] == [(0, "0"), (2.5, "1")]
    assert reply["meta"]["modelName"] == "plain"


def test_a_mapping_gives_predictions_and_custom(rest: Rest) -> None:
    data = {"@type": "flowers.Flower", "f1": 1, "f2": 2}
    reply = post(rest, {"data": data}, "noted").json()
    assert reply["predictions"] == [
        {"prediction": 0.5, "predictedClass": "0", "confidence": 0.5},
        {"prediction": 3.0, "predictedClass": "sum", "confidence": 1.0},
        {"prediction": -1.0, "predictedClass": "difference", "confidence": -1.0},
    ]
    assert reply["custom"] == {"@type": "type.googleapis.com/flowers.Note", "text": "größer", "number": str(2**60)}
    assert post(rest, {"data": {**data, "f1": -9}}, "noted").json()["custom"] is None


@pytest.mark.parametrize(
    ("application", "name", "value", "size"),
    [
        ("bytes", "BytesValue", "AAAA", 5),
        ("duration", "Duration", "1.500s", 8),
        ("struct", "Struct", {"value": 1.0}, 20),
    ],
)
def test_data_with_a_form_of_its_own(rest: Rest, application: str, name: str, value: Any, size: int) -> None:
    """In `value`, as protobuf's JSON has any of them in an Any; and back."""
    data = {"@type": f"type.googleapis.com/google.protobuf.{name}", "value": value}
    reply = post(rest, {"data": data}, application).json()
    assert [each["prediction"] for each in reply["predictions"]] == [size]
    assert reply["custom"] == data
    # The only type that is taken goes without saying; of a Struct the fields then, too.
    bare = value if name == "Struct" else {"value": value}
    assert post(rest, {"data": bare}, application).json()["custom"] == data


def test_data_with_another_form_than_its_own(rest: Rest) -> None:
    name = "google.protobuf.BytesValue"
    text = error(rest, {"data": {"@type": name, "value": {"a": 1}}}, application="bytes")
    assert text.endswith(f"'data' is no {name} in JSON: the message should be base64 text, but is an object")
    for data in ({"@type": name}, {"@type": name, "value": "AAAA", "more": 1}, {"b64": "AAAA"}):
        text = error(rest, {"data": data}, application="bytes")
        assert text.endswith(f"'data' should have 'value', and beside it nothing but '@type', as it is a {name}")


def test_numbers_that_json_has_not(rest: Rest) -> None:
    reply = post(rest, {"data": {"@type": "flowers.Note", "number": 1}}, "noted").json()
    assert reply["predictions"][1]["prediction"] == "NaN"


def test_several_types_need_a_name(rest: Rest) -> None:
    text = error(rest, {"data": {"f1": 1}}, application="noted")
    assert "'flowers.Flower', 'flowers.Note'" in text
    assert "'@type'" in text


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (b"", "expected {"),
        (b"{", "Expecting property name"),
        (b"\xff", "utf-8"),
        (b"[]", "expected {"),
        (b'{"data": 1}', "expected {"),
        (b'{"data": {}, "more": 1}', "there is no 'more'"),
        (b'{"data": {}, "meta": {"uid": "1"}}', "'meta' is wrong"),
        (b'{"data": {}, "meta": {"puid": 1}}', "'puid' is no string"),
        (b'{"data": {}, "meta": {"puid": "\\ud800"}}', "half a surrogate pair, '\\ud800'"),
        (b'{"data": {}, "data": {}}', "the key 'data' is given twice"),
        (b'{"data": {}, "\\ud800": 1}', "half a surrogate pair, '\\ud800'"),
        (b'{"data": {"\\ud800": 1, "\\ud800": 2}}', "the key '\ud800' is given twice"),
        (b'{"data": {"f1": NaN}}', "NaN is no JSON"),
        (b'{"data": {"f1": 1e999}}', "too large"),
        (b'{"data": {"f1": "wide"}}', "'data' is no flowers.Flower in JSON"),
        (b'{"data": {"f9": 1}}', "flowers.Flower has no field 'f9'; it has 'f1', 'f2', 'f3', 'f4'"),
        (b'{"data": {"@type": 1}}', "'@type' is no string"),
        (b'{"data": {"@type": "a.B"}}', "does not take 'a.B', it takes 'flowers.Flower', 'mindspore"),
        (b'{"data": {"@type": "flowers.Note"}}', "does not take 'flowers.Note'"),
        (b'{"data": {"@type": "mindspore.serving.proto.Instance", "x": {}}}', "'data' is no instance"),
        (b'{"data": {"f1": ' + b"[" * 10_000 + b"]" * 10_000 + b"}}", "levels"),
    ],
)
def test_each_bad_body_gets_its_answer(rest: Rest, body: bytes, text: str) -> None:
    assert text in error(rest, body)


def test_any_depth_of_an_instance_is_the_clients_error(rest: Rest) -> None:
    """Reading a body and writing it anew end at the same depth, or nearly so."""
    for depth in range(880, 1000):
        body = b'{"data": {"@type": "mindspore.serving.proto.Instance", "x": ' + b"[" * depth + b"]" * depth + b"}}"
        assert rest.post(PATH, body, headers={"application": "flower"}).status_code == 400, depth


def test_an_instance_that_lacks_an_input(rest: Rest) -> None:
    assert "Cannot find input y" in error(rest, {"data": {"x": 1}}, application="plain")


def test_data_that_leads_to_no_reply_is_the_clients_error(rest: Rest) -> None:
    """An instance's types and shapes are its client's choice."""
    text = error(rest, {"data": {"x": "text", "y": 1}}, 400, "plain")
    assert "the data of the ClassificationRequest leads to no reply: " in text
    assert "output 'probabilities' is kMSI_String (1,), expected numbers" in text
    text = error(rest, {"data": {"x": [[1.0, 2.0], [3.0, 4.0]], "y": 1}}, 400, "plain")
    assert "output 'probabilities' is kMSI_Float32 (2, 2)" in text
    instance = {"@type": "mindspore.serving.proto.Instance", "x": [1.0, 2.0]}
    text = error(rest, {"data": instance}, 400)
    assert "output 'prediction' is kMSI_Float32 (2,), expected 3 numbers, one for each of the classes" in text


def test_outputs_that_never_make_a_reply_are_the_servables_error(rest: Rest) -> None:
    """Of four single numbers no client can make anything else."""
    text = error(rest, {"data": REPLY}, 500, "broken")
    assert (
        text == "output 'y' is kMSI_Float64 (4,), expected 2 numbers, one for each of the classes that are registered"
    )


def test_a_mapping_that_gives_not_as_many_as_classes(rest: Rest) -> None:
    instance = {"@type": "mindspore.serving.proto.Instance"}
    reply = post(rest, {"data": {**instance, "x": [0.5, 1.0]}}, "mapped").json()
    assert [(each["prediction"], each["predictedClass"]) for each in reply["predictions"]] == [(0.5, "a"), (1.0, "b")]
    assert "expected 2 numbers, one for each" in error(rest, {"data": {**instance, "x": [0.5]}}, 400, "mapped")
    assert "expected 2 numbers, one for each" in error(rest, {"data": REPLY}, 500, "mapped")


@pytest.mark.parametrize("sent", [b"\x0a\x05cut", b"\x0a\x01\xff", b"no message"])
def test_custom_that_is_no_such_message_comes_as_bytes(rest: Rest, sent: bytes) -> None:
    """What a servable passes on of its client's data."""
    packed = base64.b64encode(sent).decode()
    reply = post(rest, {"data": {"x": 1.0, "custom": {"b64": packed}}}, "passing").json()
    assert reply["custom"] == {"@type": "type.googleapis.com/flowers.Note", "value": packed}
    reply = post(rest, {"data": {"x": 1.0, "custom": {"b64": "CgJoaQ=="}}}, "passing").json()
    assert reply["custom"] == {"@type": "type.googleapis.com/flowers.Note", "text": "hi"}


def test_only_post(rest: Rest) -> None:
    answer = rest.get(PATH)
    assert answer.status_code == 405
    assert answer.headers["allow"] == "POST"


def test_one_of_several_servables_has_to_be_named(rest: Rest) -> None:
    answer = rest.post(PATH, {"data": {}})
    assert answer.status_code == 404
    # A name that is split stands for those that answer for it.
    named = "'broken', 'bytes', 'duration', 'mapped', 'noted', 'passing', 'plain', 'split', 'struct'"
    assert named in answer.json()["error_msg"]
    assert post(rest, {"data": {"x": 1}}, "rose").status_code == 404


def test_a_name_that_is_split_says_which_variation_answered(rest: Rest) -> None:
    seen = set()
    for _ in range(4):
        answer = post(rest, {"data": REPLY}, "split")
        meta = answer.json()["meta"]
        assert answer.headers["mindserve-variation"] == meta["variation"]
        seen.add((meta["variation"], meta["modelName"]))
    assert seen == {("old", "one"), ("new", "two")}


def test_tokens_are_asked_for(servers: tuple[Rest, str]) -> None:
    rest, address = servers
    body = {"data": {"x": 1.0, "y": 1}}
    narrow = token(rest, "narrow")
    own = requests.Session()
    assert own.post(rest.url + PATH, json=body, timeout=60).status_code == 401
    headers = {"oauth_token": narrow, "application": "plain"}
    assert own.post(rest.url + PATH, json=body, headers=headers, timeout=60).status_code == 200
    # What it may not call tells it nothing of itself.
    for wrong in (body, {"data": {"@type": "a.B"}}):
        answer = own.post(rest.url + PATH, json=wrong, headers={**headers, "application": "flower"}, timeout=60)
        assert answer.status_code == 403, answer.text
        assert "flowers.Flower" not in answer.text
    # Nor does it have to send a body to hear so.
    with rest.connect() as connection:
        connection.sendall(head(PATH, f"oauth_token: {narrow}", "application: flower", "Content-Length: 1000000"))
        refused = read_answer(connection)
    assert (refused.status, "may not call servable 'flower'" in refused.json["error_msg"]) == (403, True)
    # A name that is split is allowed by itself.
    answer = own.post(rest.url + PATH, json={"data": REPLY}, headers={**headers, "application": "split"}, timeout=60)
    assert answer.status_code == 200
    request = ClassificationRequest(data={"type_url": "type.googleapis.com/flowers.Flower"})
    with grpc.insecure_channel(address) as channel:
        stub = ClassifierStub(channel)

        def status(*metadata: tuple[str, str]) -> grpc.StatusCode:
            return status_of(lambda: stub.Predict(request, 60, metadata=metadata))[0]

        assert status() is grpc.StatusCode.UNAUTHENTICATED
        assert status(("oauth_token", narrow), ("application", "flower")) is grpc.StatusCode.PERMISSION_DENIED
        metadata = [("oauth_token", narrow), ("application", "split")]
        assert stub.Predict(request, 60, metadata=metadata).meta.variation in ("old", "new")


def test_the_openapi_document_has_it(rest: Rest) -> None:
    document = rest.get("/openapi.json").json()
    operation = document["paths"][PATH]["post"]
    data = operation["requestBody"]["content"]["application/json"]["schema"]["properties"]["data"]
    referred = re.findall(r"#/components/schemas/([\w.]+)", str(data))
    assert {"flowers.Flower", "flowers.Note"} <= set(referred)
    (application,) = [each for each in operation["parameters"] if each.get("name") == "application"]
    names = ["broken", "bytes", "duration", "mapped", "noted", "passing", "plain", "split", "struct"]
    assert application["schema"]["enum"] == names
    assert operation["responses"]["200"]
