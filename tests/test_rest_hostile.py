"""Bodies that nobody means well by: each gets one clear answer, on every kind of route, and never a 500."""

from __future__ import annotations

import json
import pathlib
from collections.abc import Iterator
from typing import Any

import pytest

from openapi_support import serving_sorts
from rest_support import RawAnswer, Rest, head, is_closed, read_answer

PREDICT = "/model/sorts:same"
UNARY = "/sorts.v1.SortService/Echo"
STREAM = "/sorts.v1.SortService/Both"
NOWHERE = "/nowhere"
# Of which a body is not asked for.
GET_ONLY = ("/healthz/live", "/healthz/ready", "/servables", "/servables/sorts", "/openapi.json", "/docs")
ROUTES = (PREDICT, UNARY, STREAM, NOWHERE, *GET_ONLY)


@pytest.fixture(scope="module")
def rest(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rest]:
    with serving_sorts(tmp_path_factory.mktemp("rest"), "'127.0.0.1:0', max_msg_mb_size=1") as rest:
        yield rest
        assert "[ERROR]" not in rest.process.errors()


def refused(answer: Any, route: str, status: int, text: str) -> None:
    """Checks that a request was refused: by this status where the route has statuses, with an error that says this."""
    body = answer.json if isinstance(answer, RawAnswer) else answer.json()
    code = answer.status if isinstance(answer, RawAnswer) else answer.status_code
    if route in (UNARY, STREAM):
        assert (code, list(body), body["error"]["code"]) == (status, ["error"], status), body
        shown = body["error"]["message"]
    elif route in GET_ONLY:
        assert (code, list(body)) == (405, ["error_msg"]), body
        shown, text = body["error_msg"], f"{route} takes GET, HEAD, but actually POST"
    else:
        assert list(body) == ["error_msg"], body
        assert code in (200, status), body
        shown = body["error_msg"]
        if route == NOWHERE:
            text = "please check url, the keyword:[model] must contain"
    assert text in shown, shown


def deep(around: tuple[bytes, bytes], levels: int = 10_000) -> bytes:
    opening, closing = around
    return opening * levels + closing * levels


# By route: what of it is wrong. A body of each for Predict and for RPCs, and the texts.
BODIES: dict[str, tuple[bytes, str, bytes, str]] = {
    "arrays 10,000 deep": (
        b'{"instances": [{"x": ' + deep((b"[", b"]")) + b"}]}",
        "the JSON text has more than 64 arrays and objects in each other",
        b'{"colors": ' + deep((b"[", b"]")) + b"}",
        "expected at most 100 levels",
    ),
    "objects 10,000 deep": (
        b'{"instances": [' + b'{"x": ' * 10_000 + b"1" + b"}" * 10_000 + b"]}",
        "the JSON text has more than 64 arrays and objects in each other",
        b'{"one": {"again": ' * 10_000 + b"{}" + b"}}" * 10_000,
        "expected at most 100 levels",
    ),
    "never closed": (b'{"instances": ' + b"[" * 10_000, "Illegal JSON format", b"[" * 10_000, "expected at most 100"),
    "NaN": (b'{"instances": [{"x": NaN}]}', "Illegal JSON format", b'{"byName": {"a": NaN}}', "NaN is no JSON"),
    "Infinity": (
        b'{"instances": [{"x": [-Infinity]}]}',
        "Illegal JSON format",
        b'{"byName": {"a": -Infinity}}',
        "-Infinity is no JSON",
    ),
    "keys twice": (
        b'{"instances": [{"x": 1}], "instances": [{"x": 2}]}',
        "key 'instances' expects to exist once, but actually 2 times",
        b'{"text": "a", "text": "b"}',
        "the key 'text' is given twice",
    ),
    "an input twice": (
        b'{"instances": [{"x": 1, "x": 2}]}',
        "the input 'x' stands twice (instance 0)",
        b'{"scalars": {"aBool": true, "aBool": false}}',
        "the key 'aBool' is given twice",
    ),
    "wrong base64": (
        b'{"instances": [{"x": {"b64": "A-?="}}]}',
        "is illegal b64 encode string",
        b'{"scalars": {"someBytes": "A"}}',
        "someBytes",
    ),
    "not UTF-8": (
        b'{"instances": [{"x": "\xff\xfe"}]}',
        "Illegal JSON format",
        b'{"text": "\xff\xfe"}',
        "utf-8",
    ),
    "UTF-16": (
        '{"instances": [{"x": 1}]}'.encode("utf-16"),
        "Illegal JSON format",
        '{"text": "a"}'.encode("utf-16"),
        "utf-8",
    ),
    "zeros": (bytes(1000), "Illegal JSON format", bytes(1000), "Expecting value"),
    "a form": (b"instances=1&x=2", "Illegal JSON format", b"text=a", "Expecting value"),
    "XML": (b"<instances/>", "Illegal JSON format", b"<text/>", "Expecting value"),
    "more behind it": (
        b'{"instances": [{"x": 1}]} {}',
        "Illegal JSON format",
        b"{} {}",
        "Extra data",
    ),
    "a number of 100,000 digits": (
        b'{"instances": [{"x": ' + b"9" * 100_000 + b"}]}",
        "does not fit int32",
        b'{"scalars": {"anInt64": ' + b"9" * 100_000 + b"}}",
        "Exceeds the limit",
    ),
    "a key of 100,000 characters": (
        b'{"instances": [{"' + b"k" * 100_000 + b'": 1}]}',
        "Cannot find input x in instance input",
        b'{"' + b"k" * 100_000 + b'": 1}',
        "no field named",
    ),
}


@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize("what", BODIES)
def test_bodies(rest: Rest, route: str, what: str) -> None:
    for_predict, text, for_rpc, rpc_text = BODIES[what]
    rpc = route in (UNARY, STREAM)
    answer = rest.post(route, for_rpc if rpc else for_predict)
    if route == PREDICT and answer.json().keys() == {"instances"}:  # an instance's error
        (result,) = answer.json()["instances"]
        assert answer.status_code == 200
        assert text in result["error_msg"]
    else:
        refused(answer, route, 400, rpc_text if rpc else text)


@pytest.mark.parametrize(
    "kind", ["", "text/plain", "application/x-www-form-urlencoded", "multipart/form-data", "a/\xe4"]
)
def test_types_of_bodies_are_not_looked_at(rest: Rest, kind: str) -> None:
    """curl sends JSON as a form's, by default."""
    headers: Any = {"content-type": kind.encode("latin-1")}
    answer = rest.post(PREDICT, {"instances": [{"x": 1}]}, headers=headers)
    assert answer.json() == {"instances": [{"y": 1}]}
    assert rest.post(UNARY, {"text": "a"}, headers=headers).json() == {"text": "a"}
    assert rest.post(STREAM, {"aString": "a"}, headers=headers).json() == {"aString": "a"}
    for path in GET_ONLY:
        assert rest.get(path, headers=headers).status_code == 200


@pytest.mark.parametrize("route", ROUTES)
def test_a_gigabyte_is_refused_before_it_comes(rest: Rest, route: str) -> None:
    with rest.connect() as connection:
        connection.sendall(head(route, "Content-Length: 1073741824"))
        refused(read_answer(connection), route, 413, "http message is bigger than 1048576")


@pytest.mark.parametrize("route", [PREDICT, UNARY, STREAM])
def test_a_body_that_does_not_end(rest: Rest, route: str) -> None:
    """It says nothing of its length, and is more than may be."""
    chunk = b"10000\r\n" + b"[" * 65536 + b"\r\n"
    with rest.connect() as connection:
        connection.sendall(head(route, "Transfer-Encoding: chunked") + chunk * 17)
        refused(read_answer(connection), route, 413, "http message is bigger than 1048576")


@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize(
    "wrong",
    [
        "POST {} HTTP/3.7\r\nHost: x\r\n\r\n",
        "POST {} SPDY/1\r\n\r\n",
        "PO\0ST {} HTTP/1.1\r\nHost: x\r\n\r\n",
        "POST {} HTTP/1.1\r\nHost: x\r\nContent-Length: many\r\n\r\n",
        "POST {} HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "POST {} HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        "POST {} HTTP/1.1\r\nHo st: x\r\n\r\n",
    ],
)
def test_what_is_no_http(rest: Rest, route: str, wrong: str) -> None:
    with rest.connect() as connection:
        connection.sendall(wrong.format(route).encode("latin-1"))
        answer = read_answer(connection)
        if answer.status == 405 and route in GET_ONLY:  # its body was not waited for
            return
        assert answer.status == 400, answer
        assert list(answer.json) == ["error_msg"]
        assert is_closed(connection)


@pytest.mark.parametrize(
    "path",
    [
        "/model/%ff%fe:same",
        "/model/sorts:%00",
        "/model/../../etc/passwd:same",
        "/model/" + "a" * 5000 + ":same",
        "/model/%2e%2e/%2e%2e:same",
        "/servables/%2e%2e%2fadd",
        "/servables/%00",
        "/docs/../../server.py",
        "/docs/%2e%2e/page.py",
        "/sorts.v1.SortService/%45cho%00",
        "/sorts.v1.SortService/Echo/",
        "//docs",
        "/openapi.json/",
        "/?" + "q" * 5000,
        "*",
    ],
)
def test_paths(rest: Rest, path: str) -> None:
    for method in ("GET", "POST", "DELETE"):
        body = b'{"instances": [{"x": 1}]}'
        answer = rest.raw(head(path, f"Content-Length: {len(body)}", method=method) + body)
        assert answer.status in (200, 400, 404, 405), answer
        assert list(answer.json) in (["error_msg"], ["error"]), answer


def test_a_method_of_ones_own_and_head(rest: Rest) -> None:
    for route in ROUTES:
        for method in ("PATCH", "OPTIONS", "PROPFIND"):
            answer = rest.raw(head(route, method=method))
            assert answer.status in (200, 404, 405), (route, method, answer)
            assert json.loads(answer.body).keys() <= {"error_msg", "error"}
    for route in GET_ONLY:
        answer = rest.session.head(rest.url + route, timeout=60)
        assert (answer.status_code, answer.content) == (200, b"")


def test_the_server_goes_on(rest: Rest, tmp_path: pathlib.Path) -> None:
    assert rest.ask(PREDICT, {"x": 1}) == [{"y": 1}]
    assert rest.get("/healthz/ready").status_code == 200
