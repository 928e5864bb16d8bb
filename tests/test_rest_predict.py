"""`POST /model/…`: values, versions, and every text that clients of MindSpore Serving's RESTful interface match on."""

from __future__ import annotations

import base64
import json
import pathlib
import re
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
PATHS = "expected /model/{servable}[/version/{version}]:{method}"
NO_MODEL = f"please check url, the keyword:[model] must contain; {PATHS}, or /{{package.Service}}/{{Method}}"
NO_METHOD = f"please check url, the keyword:[service method] must contain. {PATHS}"
NO_VERSION = "please check url, version number range failed: expected 1 to 9223372036854775807, but actually "


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("/", NO_MODEL),
        ("/models/add:add_common", NO_MODEL),
        ("/modeladd:add_common", NO_MODEL),
        ("/model", NO_METHOD),
        ("/model/add", NO_METHOD),
        ("/model/add:", NO_METHOD),
        ("/model/add/version/1", NO_METHOD),
        ("/model/:add_common", f"please check url, the keyword:[model] must contain a servable's name; {PATHS}"),
        ("/model/add/version/0:add_common", NO_VERSION + "'0'"),
        ("/model/add/version/-1:add_common", NO_VERSION + "'-1'"),
        ("/model/add/version/:add_common", NO_VERSION + "''"),
        ("/model/add/version/x:add_common", NO_VERSION + "'x'"),
        ("/model/add/version/99999999999999999999:add_common", NO_VERSION + "'99999999999999999999'"),
        ("/model/none:add_common", "Request Servable(none) method(add_common), servable is not available"),
        ("/model/add:none", "Request Servable(add) method(none), method is not available"),
        (
            "/model/add/version/2:add_common",
            "Request Servable(add) method(add_common) version(2), servable is not available",
        ),
    ],
)
def test_texts_of_urls(rest: Rest, path: str, text: str) -> None:
    assert rest.error(path, ONE) == text


def test_a_url_that_has_no_text(rest: Rest) -> None:
    assert rest.error("/model/add/1:add_common", ONE, 404) == f"please check url, '1' is not known; {PATHS}"


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "HEAD", "OPTIONS"])
def test_other_methods_than_post(rest: Rest, method: str) -> None:
    answer = rest.session.request(method, rest.url + "/model/add:add_common", timeout=60)
    assert answer.status_code == 200
    if method != "HEAD":
        text = f"http message only support POST right now, but actually {method}"
        assert answer.json() == {"error_msg": text}


def of_x(value: Any) -> Any:
    return {"instances": [{"x": value}]}


def of_x_by_text(value: str) -> bytes:
    return b'{"instances": [{"x": %s}]}' % value.encode()


# Of the body as such.
TEXTS: list[tuple[Any, str]] = [
    (b"", "Illegal JSON format: there is no text"),
    (
        b"{",
        "Illegal JSON format: a bracket, comma, colon, key or value is missing, superfluous or misspelt (at about "
        "byte 0)",
    ),
    (b"\xff\xfe{}", "Illegal JSON format: the text is not valid UTF-8"),
    (
        of_x_by_text("NaN"),
        'Illegal JSON format: NaN is no JSON; send such values as {"b64": …, "type": "float32", "shape": […]} (at '
        "about byte 21)",
    ),
    (
        of_x_by_text("1") + b" more",
        "Illegal JSON format: a bracket, comma, colon, key or value is missing, superfluous or misspelt (at about "
        "byte 0)",
    ),
    (b"{}", "key 'instances' expects to exist once, but actually 0 times"),
    (b"[]", "key 'instances' expects to exist once, but actually 0 times"),
    (b'{"instances": [{"x": 1}], "instances": []}', "key 'instances' expects to exist once, but actually 2 times"),
    ({"instances": []}, "instances value is array type, but no value"),
    ({"instances": 5}, "instances no key mode is not supported"),
    ({"instances": [5]}, "instances no key mode is not supported"),
    ({"instances": [{"x": 1}, 5]}, "json array, instance is not object type"),
    ({"instances": [{}]}, "json array, instance is object type, but no value (instance 0)"),
    ({"instances": [{"": 1}]}, "string key is empty (instance 0)"),
]
# Of one input's value.
TEXTS_OF_VALUES: list[tuple[Any, str]] = [
    (None, "json value is null, it is not supported"),
    ([], "json array, shape is empty"),
    ([[]], "json array, data type is unknown: an array in it is empty"),
    ([None], "json array, data type is unknown: an element is null"),
    ([1, "a"], 'json array, elements type is not equal: the first is of type int32, "a" of type str'),
    ([1, 2.5], "json array, elements type is not equal: the first is of type int32, 2.5 of type float32"),
    ([2.5, 1], "json array, elements type is not equal: the first is of type float32, 1 of type int32"),
    ([True, 1], "json array, elements type is not equal: the first is of type bool, 1 of type int32"),
    (["a", "b"], "json array, string or bytes type only support one item"),
    ([{"b64": "AA=="}, {"b64": "AA=="}], "json array, string or bytes type only support one item"),
    (
        [{"b64": "AA==", "type": "int8"}],
        "json array, item is object type, object only support string or bytes type",
    ),
    ([1, [2]], "json array, data should be number, bool, string or bytes"),
    ([1, None], "json array, data should be number, bool, string or bytes"),
    ([[1], 2], "invalid json array: json type is not array"),
    ([[1, 2], [3]], "invalid json array: json size is 1, the dim 1 expected to be 2"),
    ([[1], [2, 3]], "invalid json array: json size is 2, the dim 1 expected to be 1"),
    (
        [["a"]],
        "Instance tensor check failed: bytes or string type input  shape can only be (1,) or empty, but given shape is "
        "[1, 1]",
    ),
    ({}, "json object, value is empty"),
    ({"b64": "AA==", "other": 1}, "json object, key is not ['b64', 'type', 'shape'], fail key:other"),
    ({"type": "int8"}, "json object, 'b64' should be specified only one time, but it is missing"),
    ('{"b64": "AAAA", "b64": "AAAA"}', "json object, 'b64' should be specified only one time"),
    (
        '{"b64": "AA==", "type": "int8", "type": "int8"}',
        "json object, 'type' should be specified no more than one time",
    ),
    ('{"b64": "AA==", "shape": [1], "shape": [1]}', "json object, 'shape' should be specified no more than one time"),
    ({"b64": 1}, "get scalar data failed, type is string, but json is not string type"),
    ({"b64": "AA==", "type": 1}, "json object, key is 'type', value should be string type"),
    (b64(bytes(4), "int31", 1), "json object, specified type:'int31' is illegal"),
    ({"b64": "AA==", "shape": 1}, "json object, key is 'shape', value should be array type"),
    ({"b64": "AAAA", "shape": [-1]}, "json object, key is 'shape', array value should be unsigned integer"),
    ({"b64": "AAAA", "shape": [2.0]}, "json object, key is 'shape', array value should be unsigned integer"),
    (
        {"b64": "AAAA", "type": "int8", "shape": [2**62, 4]},
        "json object, key is 'shape', invalid shape value []: the next dimension is larger than 2147483647",
    ),
    (
        {"b64": "AAAA", "type": "int8", "shape": [0, 1]},
        "json object, key is 'shape', invalid shape value [0, 1]: a dimension that is 0 has to be the last",
    ),
    (
        {"b64": "AA==", "type": "int8", "shape": [1] * 33},
        f"json object, key is 'shape', invalid shape value {[1] * 32}: there are more than 32 dimensions",
    ),
    ({"b64": "wrong!"}, "'wrong!' is illegal b64 encode string"),
    (
        b64(bytes(3), "int32", 1),
        "size is not matched, decode base64 size:3; Given info: type:int32; type size:4; element nums:1",
    ),
    (
        b64(bytes(5), "int32", 1),
        "size is not matched, decode base64 size:5; Given info: type:int32; type size:4; element nums:1",
    ),
    (
        b64(bytes(4), "str", 2),
        "json object, only support scalar when data type is string or bytes, please check 'type' or 'shape'",
    ),
    (
        b64(bytes(4), "bytes", 2),
        "json object, only support scalar when data type is string or bytes, please check 'type' or 'shape'",
    ),
]
# For which MindSpore Serving has none.
OTHER_TEXTS: list[tuple[bytes, str]] = [
    (
        of_x_by_text("[" * 10_000 + "]" * 10_000),
        "the JSON text has more than 64 arrays and objects in each other (at about byte 83)",
    ),
    (of_x_by_text("[" * 33 + "1" + "]" * 33), "the array has more than 32 dimensions (input 'x' of instance 0)"),
    *(
        (
            of_x_by_text(number),
            f"the number {shown} does not fit {kind}; send larger types as "
            """{"b64": …, "type": …, "shape": […]} (input 'x' of instance 0)""",
        )
        for number, shown, kind in (
            ("2147483648", "2147483648", "int32"),
            ("-2147483649", "-2147483649", "int32"),
            ("[1, 2147483648]", "2147483648", "int32"),
            ("1e400", "1e400", "float32"),
        )
    ),
    (b'{"instances": [{"x": 1, "x": 2}]}', "the input 'x' stands twice (instance 0)"),
]


@pytest.mark.parametrize(("body", "text"), TEXTS)
def test_texts_of_bodies(rest: Rest, body: Any, text: str) -> None:
    begin = "" if text.startswith("Illegal JSON format") else "Parser request failed, "
    assert rest.error("/model/values:same", body) == begin + text


@pytest.mark.parametrize(("value", "text"), TEXTS_OF_VALUES)
def test_texts_of_values(rest: Rest, value: Any, text: str) -> None:
    body = of_x_by_text(value) if isinstance(value, str) else of_x(value)
    assert rest.error("/model/values:same", body) == f"Parser request failed, {text} (input 'x' of instance 0)"


@pytest.mark.parametrize(("body", "text"), OTHER_TEXTS)
def test_what_has_no_text_is_a_client_error(rest: Rest, body: bytes, text: str) -> None:
    assert rest.error("/model/values:same", body, 400) == text


def test_every_text_of_the_page_is_shown_here() -> None:
    """docs/rest_values.md has each of them, and what of them varies."""
    page = pathlib.Path(__file__).parent.parent / "docs" / "rest_values.md"
    refused = page.read_text(encoding="utf-8").partition("## What is refused")[2]
    rows = re.findall(r"^\| ((?:`[^`]+`(?:, and |, |))+) \|", refused, re.MULTILINE)
    shown = [f"Parser request failed, {text}" for _, text in (*TEXTS, *TEXTS_OF_VALUES, *OTHER_TEXTS)]
    listed = [text for row in rows for text in re.findall(r"`([^`]+)`", row)]
    assert len(listed) > 30
    for text in listed:
        pattern = re.sub(r"\bN\b|(?<=')X(?=')", lambda _: r"[-\w.]+", re.escape(text))
        assert any(re.search(pattern, each) for each in shown), text


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
