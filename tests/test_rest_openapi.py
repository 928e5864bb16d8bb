"""The OpenAPI document: it is valid, says what is served, and what it says is so."""

from __future__ import annotations

import base64
import gzip
import json
import pathlib
from collections.abc import Iterator
from typing import Any

import jsonschema
import numpy as np
import onnx
import pytest
from openapi_spec_validator import OpenAPIV31SpecValidator, validate

from conftest import ECHO_SERVABLE, add_model
from e2e_support import until, write_servable
from openapi_support import schemathesis, serving_sorts
from rest_support import Rest, serving_rest


@pytest.fixture(scope="module")
def rest(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rest]:
    with serving_sorts(tmp_path_factory.mktemp("rest")) as rest:
        yield rest


@pytest.fixture(scope="module")
def document(rest: Rest) -> Any:
    return rest.get("/openapi.json").json()


def accepts(document: Any, schema: Any, value: Any) -> bool:
    """Whether a value is as a schema of the document says."""
    whole = {**schema, "components": document["components"]}
    return bool(jsonschema.Draft202012Validator(whole).is_valid(value))


def request_of(document: Any, path: str) -> Any:
    (content,) = document["paths"][path]["post"]["requestBody"]["content"].values()
    return content["schema"]


def answer_of(document: Any, path: str, method: str = "post", status: int = 200) -> Any:
    answer = document["paths"][path][method]["responses"][str(status)]
    if "$ref" in answer:
        answer = document["components"]["responses"][answer["$ref"].rpartition("/")[2]]
    (content,) = answer["content"].values()
    return content["schema"]


# -- the whole document ------------------------------------------------------------------------------------------------


def test_it_is_valid(document: Any) -> None:
    validate(document, cls=OpenAPIV31SpecValidator)
    assert document["openapi"].startswith("3.1.")


def test_paths(document: Any) -> None:
    servables = ["add:add_common", "add:add_cast", "sorts:same", "sorts:size", "sorts:scores", "sorts:thrice"]
    versions = [each.replace(":", "/version/1:") for each in servables]
    rpcs = ["Echo", "Scalar", "Tell", "Down", "Up", "Both"]
    own = ["/healthz", "/healthz/live", "/healthz/ready", "/servables", "/servables/{name}", "/openapi.json", "/docs"]
    own += ["/js/predict"]
    assert sorted(document["paths"]) == sorted(
        [
            *(f"/model/{each}" for each in servables + versions),
            *(f"/sorts.v1.SortService/{each}" for each in rpcs),
            *own,
        ]
    )
    ids = [operation["operationId"] for item in document["paths"].values() for operation in item.values()]
    assert len(ids) == len(set(ids))


def test_a_server_without_anything_has_a_document(tmp_path: pathlib.Path) -> None:
    with serving_rest(tmp_path) as rest:
        document = rest.get("/openapi.json").json()
        validate(document, cls=OpenAPIV31SpecValidator)
        assert not [path for path in document["paths"] if path.startswith("/model")]


@pytest.mark.timeout(960)
def test_schemathesis_finds_nothing(rest: Rest, tmp_path: pathlib.Path) -> None:
    """No status of 500 and above but 504, and no answer that is not as the document says."""
    operations = schemathesis(rest, tmp_path)
    paths = rest.get("/openapi.json").json()["paths"]
    assert operations == sum(len(item) for path, item in paths.items() if path != "/openapi.json")  # its own
    assert "[ERROR]" not in rest.process.errors()


# -- servables' methods ------------------------------------------------------------------------------------------------


def test_models_say_what_they_take(rest: Rest, document: Any) -> None:
    schema = request_of(document, "/model/add:add_common")
    x = [[1.5, 2.5], [3.5, 4.5]]
    encoded = {
        "b64": base64.b64encode(np.ones((2, 2), np.float32).tobytes()).decode(),
        "type": "float32",
        "shape": [2, 2],
    }
    for instance in ({"x1": x, "x2": x}, {"x1": x, "x2": encoded}):
        assert accepts(document, schema, {"instances": [instance]})
        answer = rest.post("/model/add:add_common", {"instances": [instance]}).json()
        assert accepts(document, answer_of(document, "/model/add:add_common"), answer)
        assert list(answer["instances"][0]) == ["y"]
    for wrong in ({"x1": x}, {"x1": x, "x2": [x]}, {"x1": x, "x2": "text"}, {"x1": x, "x2": [[1.5], [2.5]]}):
        assert not accepts(document, schema, {"instances": [wrong]})
    assert not accepts(document, schema, {})
    # A function takes anything.
    assert accepts(document, request_of(document, "/model/add:add_cast"), {"instances": [{"x1": 1, "x2": [[[True]]]}]})
    for name, known in (("add_common", {"x1", "x2"}), ("add_cast", set())):
        (method,) = [
            each for each in rest.get("/servables/add").json()["versions"][0]["methods"] if each["name"] == name
        ]
        assert method["input_types"] == {each: {"type": "float32", "shape": [2, 2]} for each in known}
        assert method["output_types"] == {"y": {"type": "float32", "shape": [2, 2]}}


def test_examples_are_answered(rest: Rest, document: Any) -> None:
    example = document["paths"]["/model/add:add_common"]["post"]["requestBody"]["content"]["application/json"][
        "example"
    ]
    assert accepts(document, request_of(document, "/model/add:add_common"), example)
    assert rest.post("/model/add:add_common", example).json() == {"instances": [{"y": [[1.0, 1.0], [1.0, 1.0]]}]}


TYPES = """
from mindserve.server import register

model = register.declare_model(model_file="types.onnx", model_format="ONNX", with_batch_dim={batched})


@register.register_method(output_names=["long", "flag", "half"])
def same(long, flag, half):
    return register.add_stage(model, long, flag, half, outputs_count=3)


@register.register_method(output_names=["flag"])
def some(half, flag, long):
    _, flag, _ = register.add_stage(model, long, flag, half, outputs_count=3)
    return flag
"""


def types_model() -> onnx.ModelProto:
    """Three inputs of types that JSON has not or that vary in size, handed on."""
    sorts = {"long": onnx.TensorProto.INT64, "flag": onnx.TensorProto.BOOL, "half": onnx.TensorProto.FLOAT16}
    value = lambda name, end: onnx.helper.make_tensor_value_info(name + end, sorts[name], ["n", 2])  # noqa: E731
    nodes = [onnx.helper.make_node("Identity", [name], [name + "_out"]) for name in sorts]
    ends = [[value(name, end) for name in sorts] for end in ("", "_out")]
    return onnx.helper.make_model(
        onnx.helper.make_graph(nodes, "types", *ends),
        opset_imports=[onnx.helper.make_opsetid("", 13)],
        ir_version=8,
    )


@pytest.mark.parametrize(("batched", "shape"), [(True, [2]), (False, [-1, 2])])
def test_types_of_all_sorts(tmp_path: pathlib.Path, batched: bool, shape: list[int]) -> None:
    write_servable(tmp_path / "servables", "types", TYPES.format(batched=batched), {"types.onnx": types_model()})
    with serving_rest(tmp_path, "types") as rest:
        first, second = rest.get("/servables/types").json()["versions"][0]["methods"]
        known = {"long": "int64", "flag": "bool", "half": "float16"}
        expected = {name: {"type": kind, "shape": shape} for name, kind in known.items()}
        assert first["input_types"] == second["input_types"] == first["output_types"] == expected
        assert second["output_types"] == {"flag": expected["flag"]}
        document = rest.get("/openapi.json").json()
        for name in ("same", "some"):
            path = f"/model/types:{name}"
            example = document["paths"][path]["post"]["requestBody"]["content"]["application/json"]["example"]
            assert accepts(document, request_of(document, path), example)
            answer = rest.post(path, example).json()
            assert accepts(document, answer_of(document, path), answer)
            sizes = [2] if batched else [1, 2]
            assert answer["instances"][0]["flag"] == np.ones(sizes, bool).tolist()


# -- RPCs --------------------------------------------------------------------------------------------------------------

GOOD: list[Any] = [
    {},
    {"scalars": {"aDouble": 1e300, "aFloat": 3.4028234e38, "anInt32": -(2**31), "aUint32": 2**32 - 1}},
    {"scalars": {"aDouble": "NaN", "aFloat": "-Infinity", "anInt64": str(-(2**63)), "aUint64": str(2**64 - 1)}},
    {"scalars": {"anInt64": 5, "aBool": True, "aString": "é", "someBytes": "AP8=", "color": "RED", "otherName": "x"}},
    {"scalars": {"color": 7, "maybe": 0}},
    {"known": {"any": {"@type": "type.googleapis.com/sorts.v1.Scalars", "aBool": True}, "duration": "-1.5s"}},
    {"known": {"any": {"@type": "type.googleapis.com/google.protobuf.Duration", "value": "1s"}, "empty": {}}},
    {"known": {"mask": "a.b,c", "struct": {"a": [1.5, None]}, "value": None, "list": [1.5, {}], "nothing": None}},
    {"known": {"at": "2024-02-29T12:00:00.000000001Z", "int64": "5", "bytes": "AA==", "bool": False}},
    {"inner": [{"text": "a", "again": {"inner": [{}]}}], "colors": ["RED", "GREEN", 9]},
    {"byName": {"a": 1.5, "": "Infinity"}, "byNumber": {"-1": {"text": "x"}}, "byBool": {"true": "RED"}},
    {"byUint64": {str(2**64 - 1): "AA=="}},
    {"text": "chosen"},
    {"number": 3},
    {"one": {}},
]
BAD: list[Any] = [
    [],
    {"other": 1},
    {"scalars": {"anInt32": 2**31}},
    {"scalars": {"anInt32": 1.5}},
    {"scalars": {"anInt64": "x"}},
    {"scalars": {"aUint32": -1}},
    {"scalars": {"aBool": "true"}},
    {"scalars": {"aString": 1}},
    {"scalars": {"color": "BLUE"}},
    {"scalars": {"aDouble": "many"}},
    {"known": {"duration": "1"}},
    {"known": {"any": {"@type": 1}}},
    {"known": {"struct": []}},
    {"known": {"list": {}}},
    {"known": {"empty": {"a": 1}}},
    {"known": {"bool": "true"}},
    {"inner": {}},
    {"colors": ["BLUE"]},
    {"byName": []},
    {"byNumber": {"a": {}}},
    {"byBool": {"yes": "RED"}},
    {"text": "both", "number": 1},
    {"number": 1, "one": {}},
]


@pytest.mark.parametrize("value", GOOD, ids=json.dumps)
def test_messages_that_are_taken(rest: Rest, document: Any, value: Any) -> None:
    path = "/sorts.v1.SortService/Echo"
    assert accepts(document, request_of(document, path), value)
    answer = rest.post(path, value)
    assert answer.status_code == 200, answer.text
    assert accepts(document, answer_of(document, path), answer.json()), answer.text


@pytest.mark.parametrize("value", BAD, ids=json.dumps)
def test_messages_that_are_not(rest: Rest, document: Any, value: Any) -> None:
    path = "/sorts.v1.SortService/Echo"
    assert not accepts(document, request_of(document, path), value)
    answer = rest.post(path, value)
    assert answer.status_code == 400, answer.text
    assert accepts(document, answer_of(document, path, status=400), answer.json())


def test_streams_are_lines(rest: Rest, document: Any) -> None:
    for name, takes, gives in (
        ("Echo", "application/json", "application/json"),
        ("Down", "application/json", "application/x-ndjson"),
        ("Up", "application/x-ndjson", "application/json"),
        ("Both", "application/x-ndjson", "application/x-ndjson"),
    ):
        path = f"/sorts.v1.SortService/{name}"
        operation = document["paths"][path]["post"]
        assert list(operation["requestBody"]["content"]) == [takes]
        assert list(operation["responses"]["200"]["content"]) == [gives]
        answer = rest.post(path, {})
        assert answer.headers["content-type"] == gives
        for line in answer.text.splitlines():
            assert accepts(document, answer_of(document, path), json.loads(line))


def test_who_answers_an_rpc(document: Any) -> None:
    operation = document["paths"]["/sorts.v1.SortService/Echo"]["post"]
    (application,) = [each for each in operation["parameters"] if each.get("name") == "application"]
    assert application["schema"]["enum"] == ["sorts"]


def test_messages_of_one_name_in_two_services(tmp_path: pathlib.Path) -> None:
    from mindserve.control import ReadyRpc, ReadyService
    from mindserve.rest.context import ServedService
    from mindserve.rest.openapi import make_document

    served = []
    for name, field in (("A", "left"), ("B", "right"), ("C", "left")):
        file = _file(field)
        rpc = ReadyRpc("Do", False, False, "same.Message", "same.Message")
        served.append(ServedService(ReadyService(f"same.{name}", (rpc,)), (file,)))
    document = make_document([], served)
    validate(document, cls=OpenAPIV31SpecValidator)
    for name, field in (("A", "left"), ("B", "right"), ("C", "left")):
        schema = request_of(document, f"/same.{name}/Do")
        assert accepts(document, schema, {field: {field: {}}})
        assert not accepts(document, schema, {"none": {}})
        assert accepts(document, schema, {"left": {}}) == (field == "left")


def _file(field: str) -> bytes:
    """A file with a message that has this field, of its own type."""
    from google.protobuf import descriptor_pb2

    file = descriptor_pb2.FileDescriptorProto(name="same.proto", package="same", syntax="proto3")
    message = file.message_type.add(name="Message")
    message.field.add(name=field, number=1, type=11, label=1, type_name=".same.Message", json_name=field)
    return file.SerializeToString()


# -- the route ---------------------------------------------------------------------------------------------------------


def test_it_is_sent_once(rest: Rest) -> None:
    answer = rest.get("/openapi.json", headers={"accept-encoding": "identity"})
    tag = answer.headers["etag"]
    same = rest.get("/openapi.json", headers={"if-none-match": tag})
    assert (same.status_code, same.content, same.headers["etag"]) == (304, b"", tag)
    assert rest.get("/openapi.json", headers={"if-none-match": '"other"'}).status_code == 200
    packed = rest.get("/openapi.json", headers={"accept-encoding": "gzip"}, stream=True)
    assert gzip.decompress(packed.raw.read(decode_content=False)) == answer.content


def test_it_changes_with_what_is_served(tmp_path: pathlib.Path) -> None:
    write_servable(tmp_path / "servables", "echo", ECHO_SERVABLE)
    add = f"""
sys.stdin.readline()
server.start_servables([server.ServableStartConfig({str(tmp_path / "servables")!r}, "late")])
"""
    late = (
        "from mindserve.server import register\n"
        'model = register.declare_model(model_file="add.onnx", model_format="ONNX", with_batch_dim=False)\n'
        '@register.register_method(output_names=["y"])\n'
        "def plus(x1, x2):\n"
        "    return register.add_stage(model, x1, x2, outputs_count=1)\n"
    )
    write_servable(tmp_path / "servables", "late", late, {"add.onnx": add_model()})
    with serving_rest(tmp_path, "echo", after=add) as rest:
        before = rest.get("/openapi.json")
        assert "/model/echo:same" in before.json()["paths"]
        assert "/model/late:plus" not in before.json()["paths"]
        rest.process.tell("")
        until(lambda: "/model/late:plus" in rest.get("/openapi.json").json()["paths"])
        assert rest.get("/openapi.json").headers["etag"] != before.headers["etag"]
