"""`POST /model/…`: values, versions, and every text that clients of MindSpore Serving's RESTful interface match on."""

from __future__ import annotations

import base64
import json
import pathlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import onnx
import pytest

from conftest import ADD_SERVABLE, add_model
from e2e_support import PREAMBLE, write_servable
from rest_support import Rest, serving_rest

X1, X2 = [[1.0, 2.0], [3.0, 4.0]], [[1.0, 1.0], [1.0, 1.0]]

VALUES = (
    PREAMBLE
    + """
@method()
def same(x):
    return x


@method()
def kind(x):
    return f"{x.dtype}{list(x.shape)}" if hasattr(x, "dtype") else type(x).__name__


@method()
def fail(x):
    raise ValueError("my own text")


@method()
def pick(x):
    if int(x) < 0:
        raise ValueError("below zero")
    return int(x) * 2
"""
)


@pytest.fixture(scope="module")
def rest(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rest]:
    folder = tmp_path_factory.mktemp("rest")
    write_servable(folder / "servables", "add", ADD_SERVABLE, {"add.onnx": add_model()})
    (folder / "servables" / "add" / "3").mkdir()
    onnx.save(add_model(), folder / "servables" / "add" / "3" / "add.onnx")
    write_servable(folder / "servables", "values", VALUES)
    listen = (
        "server.start_servables(server.ServableStartConfig("
        + repr(str(folder / "servables"))
        + ", 'add', version_number=1))\n"
    )
    with serving_rest(folder, "add", "values", before=listen) as rest:
        yield rest


def b64(array: Any, kind: str, *shape: int) -> dict[str, Any]:
    data = array if isinstance(array, bytes) else np.asarray(array).tobytes()
    return {"b64": base64.b64encode(data).decode(), "type": kind, **({"shape": list(shape)} if shape else {})}


def test_a_model(rest: Rest) -> None:
    assert rest.ask("/model/add:add_common", {"x1": X1, "x2": X2}) == [{"y": [[2.0, 3.0], [4.0, 5.0]]}]
    for version in (1, 3):
        assert rest.ask(f"/model/add/version/{version}:add_common", {"x1": X1, "x2": X2}) == [
            {"y": [[2.0, 3.0], [4.0, 5.0]]}
        ]
    many = [{"x1": [[float(number), 0.5], [0.5, 0.5]], "x2": X2} for number in range(500)]
    assert [each["y"][0][0] for each in rest.ask("/model/add:add_cast", *many)] == [
        number + 1.0 for number in range(500)
    ]


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (7, "int32[]"),
        (1.5, "float32[]"),
        (True, "bool[]"),
        ("text", "str"),
        ([1, 2, 3], "int32[3]"),
        ([[1.0, 2.0]], "float32[1, 2]"),
        ([True, False], "bool[2]"),
        (b64(np.int8([1, 2]), "int8", 2), "int8[2]"),
        (b64(np.float16([[1, 2]]), "fp16", 1, 2), "float16[1, 2]"),
        (b64(np.float64([1]), "float64", 1), "float64[1]"),
        (b64(b"raw", "bytes"), "bytes"),
        ({"b64": "cmF3"}, "bytes"),
        (b64(b"text", "str"), "str"),
    ],
)
def test_types_of_values(rest: Rest, value: Any, expected: str) -> None:
    (result,) = rest.ask("/model/values:kind", {"x": value})
    assert result["y"].replace("[1]", "[]") == expected.replace("[1]", "[]")


def test_values_come_back(rest: Rest) -> None:
    for value in (7, 1.5, True, "text ä€😀", [1, 2, 3], [[1.5, 2.5]], {"b64": "cmF3"}):
        assert rest.ask("/model/values:same", {"x": value}) == [{"y": value}]


def test_instances_fail_alone(rest: Rest) -> None:
    first, second, third = rest.ask("/model/values:pick", {"x": 1}, {"x": -1}, {"x": 3})
    assert (first, third) == ({"y": 2}, {"y": 6})
    assert list(second) == ["error_msg"]
    assert "below zero" in second["error_msg"]


ONE = {"instances": [{"x": 1}]}


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("/", "please check url, the keyword:[model] must contain"),
        ("/models/add:add_common", "please check url, the keyword:[model] must contain"),
        ("/modeladd:add_common", "please check url, the keyword:[model] must contain"),
        ("/model", "please check url, the keyword:[service method] must contain."),
        ("/model/add", "please check url, the keyword:[service method] must contain."),
        ("/model/add:", "please check url, the keyword:[service method] must contain."),
        ("/model/add/version/1", "please check url, the keyword:[service method] must contain."),
        ("/model/:add_common", "please check url, the keyword:[model] must contain"),
        ("/model/add/version/0:add_common", "please check url, version number range failed"),
        ("/model/add/version/-1:add_common", "please check url, version number range failed"),
        ("/model/add/version/:add_common", "please check url, version number range failed"),
        ("/model/add/version/x:add_common", "please check url, version number range failed"),
        ("/model/add/version/99999999999999999999:add_common", "please check url, version number range failed"),
        ("/model/none:add_common", "Request Servable(none) method(add_common), servable is not available"),
        ("/model/add:none", "Request Servable(add) method(none), method is not available"),
        (
            "/model/add/version/2:add_common",
            "Request Servable(add) method(add_common) version(2), servable is not available",
        ),
        ("/model/add/1:add_common", ""),
    ],
)
def test_texts_of_urls(rest: Rest, path: str, text: str) -> None:
    assert text in rest.error(path, ONE, 200 if text else 404)


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "HEAD", "OPTIONS"])
def test_other_methods_than_post(rest: Rest, method: str) -> None:
    answer = rest.session.request(method, rest.url + "/model/add:add_common", timeout=60)
    assert answer.status_code == 200
    if method != "HEAD":
        assert "http message only support POST right now" in answer.json()["error_msg"]


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (b"", "Illegal JSON format"),
        (b"{", "Illegal JSON format"),
        (b"\xff\xfe{}", "Illegal JSON format"),
        (b'{"instances": [{"x": NaN}]}', "Illegal JSON format"),
        (b'{"instances": [{"x": 1}]} more', "Illegal JSON format"),
        (b"{}", "key 'instances' expects to exist once, but actually 0 times"),
        (b'{"instances": [{"x": 1}], "instances": []}', "key 'instances' expects to exist once, but actually 2 times"),
        ({"instances": [{"x": [1, "a"]}]}, "json array, elements type is not equal"),
        ({"instances": [{"x": [1, [2]]}]}, "json array"),
        ({"instances": [{"x": []}]}, "json array, shape is empty"),
        ({"instances": [{"x": ["a", "b"]}]}, "json array, string or bytes type only support one item"),
        ({"instances": [{"x": [1, None]}]}, "json array, data should be number, bool, string or bytes"),
        ({"instances": [{"x": [[1, 2], [3]]}]}, "invalid json array: json size is 1, the dim 1 expected to be 2"),
        (
            {"instances": [{"x": {"b64": "AAAA", "shape": [-1]}}]},
            "json object, key is 'shape', array value should be unsigned integer",
        ),
        (
            {"instances": [{"x": {"b64": "AAAA", "type": "int8", "shape": [2**62, 4]}}]},
            "json object, key is 'shape', invalid shape value",
        ),
        (b'{"instances": [{"x": {"b64": "AAAA", "b64": "AAAA"}}]}', "'b64' should be specified only one time"),
        ({"instances": [{"x": {"b64": "wrong!"}}]}, "is illegal b64 encode string"),
        ({"instances": [{"x": b64(bytes(3), "int32", 1)}]}, "Parser request failed, size is not matched"),
        ({"instances": [{"x": b64(bytes(4), "int31", 1)}]}, "json object, specified type:'int31' is illegal"),
        (
            {"instances": [{"x": b64(bytes(4), "str", 2)}]},
            "json object, only support scalar when data type is string or bytes, please check 'type' or 'shape'",
        ),
    ],
)
def test_texts_of_bodies(rest: Rest, body: Any, text: str) -> None:
    assert text in rest.error("/model/values:same", body)


@pytest.mark.parametrize(
    "body",
    [
        b'{"instances": [{"x": ' + b"[" * 10_000 + b"]" * 10_000 + b"}]}",
        b'{"instances": [{"x": 2147483648}]}',
        b'{"instances": [{"x": 1, "x": 2}]}',
        b'{"instances": [{"x": 1e400}]}',
    ],
)
def test_what_has_no_text_is_a_client_error(rest: Rest, body: bytes) -> None:
    answer = rest.post("/model/values:same", body)
    assert answer.status_code in (200, 400), answer.text
    assert list(answer.json()) == ["error_msg"]


def test_errors_of_models_and_functions(rest: Rest) -> None:
    (result,) = rest.ask("/model/add:add_common", {"x1": [1.0], "x2": X2})
    assert result == {"error_msg": "Given model input 0 size 4 not match the size 16 defined in model"}
    (result,) = rest.ask("/model/values:same", {"other": 1})
    assert result == {"error_msg": "Cannot find input x in instance input"}
    (result,) = rest.ask("/model/values:fail", {"x": 1})
    text = result["error_msg"]
    assert "Call Function 'values.fail' Failed" in text
    assert "my own text" in text


def test_limits_answer_413_and_429(tmp_path: pathlib.Path) -> None:
    write_servable(tmp_path / "servables", "values", VALUES)
    limits = "limits=server.Limits(max_instances_per_request=2)"
    with serving_rest(tmp_path, "values", listen=f"'127.0.0.1:0', {limits}") as rest:
        assert "max_instances_per_request" in rest.error("/model/values:same", {"instances": [{"x": 1}] * 3}, 413)
        assert rest.ask("/model/values:same", {"x": 1}, {"x": 2}) == [{"y": 1}, {"y": 2}]


def test_too_many_at_a_time(tmp_path: pathlib.Path) -> None:
    slow = VALUES + "\nimport time\n@method()\ndef slow(x):\n    time.sleep(1)\n    return x\n"
    write_servable(tmp_path / "servables", "values", slow)
    limits = "limits=server.Limits(max_enqueued_requests=1)"
    with serving_rest(tmp_path, "values", listen=f"'127.0.0.1:0', {limits}") as rest, ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda _: rest.post("/model/values:slow", ONE), range(4)))
        assert {answer.status_code for answer in answers} == {200, 429}
        refused = next(answer for answer in answers if answer.status_code == 429)
        assert "enqueued requests count exceeds the limit 1" in refused.json()["error_msg"]
        assert int(refused.headers["retry-after"]) >= 1


def test_a_picture_of_numbers_stalls_nobody(rest: Rest) -> None:
    """Eight of 150,528 numbers each, while small requests go on beside them."""
    array = np.arange(224 * 224 * 3, dtype=np.float32).reshape(224, 224, 3) / 7
    body = json.dumps({"instances": [{"x": array.tolist()}]}).encode()
    with ThreadPoolExecutor(2) as pool:
        large = [pool.submit(rest.post, "/model/values:kind", body) for _ in range(8)]
        while not all(each.done() for each in large):
            assert rest.ask("/model/values:same", {"x": 1}) == [{"y": 1}]
        assert all(each.result().json() == {"instances": [{"y": "float32[224, 224, 3]"}]} for each in large)
