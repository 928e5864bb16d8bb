"""Bodies that nobody means well by: each gets one exact answer, on every kind of route, and never a 500."""

from __future__ import annotations

import contextlib
import gzip
import re
from collections.abc import Iterator
from typing import Any

import pytest
import requests

from attacker import resident
from mindserve.auth.hashing import hash_secret
from mindserve.auth.keys import ClientKey, Keys, save_keys
from openapi_support import serving_sorts
from rest_support import RawAnswer, Rest, head, is_closed, read_answer

PREDICT = "/model/sorts:same"
UNARY = "/sorts.v1.SortService/Echo"
STREAM = "/sorts.v1.SortService/Both"
CLASSIFY = "/js/predict"
TOKEN = "/token"
NOWHERE = "/nowhere"
RPCS = (UNARY, STREAM)
# Of which a body is not asked for.
GET_ONLY = ("/healthz/live", "/healthz/ready", "/servables", "/servables/sorts", "/openapi.json", "/docs")
TAKING = (PREDICT, UNARY, STREAM, CLASSIFY, TOKEN)
ROUTES = (*TAKING, NOWHERE, *GET_ONLY)
SECRET = "a secret of theirs"
FORM = "application/x-www-form-urlencoded"
NO_FORM = f"the fields are not in the form of {FORM}, or are more than 20"
NO_PATH = (
    "please check url, the keyword:[model] must contain; expected /model/{servable}[/version/{version}]:{method}, or "
    "/{package.Service}/{Method}"
)


@pytest.fixture(scope="module")
def rest(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rest]:
    """A server that has every route: it asks for tokens, and all requests of the session carry one."""
    folder = tmp_path_factory.mktemp("rest")
    keys = str(folder / "keys.yaml")
    save_keys(Keys({"app": ClientKey(key="app", secrets=(hash_secret(SECRET),))}), keys)
    limits = (
        "limits=server.Limits(max_msg_mb_size=1, max_instances_per_request=100, body_idle_timeout=1, header_timeout=1)"
    )
    with serving_sorts(folder, f"'127.0.0.1:0', {limits}", keys=keys) as rest:
        answer = rest.get(TOKEN, params={"consumer_key": "app", "consumer_secret": SECRET})
        rest.session.headers["oauth_token"] = answer.json()["access_token"]
        yield rest
        assert "[ERROR]" not in rest.process.errors()


def begin(rest: Rest, route: str, *headers: str, method: str = "POST") -> bytes:
    """A request's beginning, with what the route asks for."""
    token = f"oauth_token: {rest.session.headers['oauth_token']!s}"
    return head(route, token, f"Content-Type: {FORM}", *headers, method=method)


def refusal(route: str, status: int, text: str, fault: str = "INVALID_ARGUMENT") -> tuple[int, Any]:
    """The answer to a request that a route refuses, by what is wrong with it."""
    if route in RPCS:
        return status, {"error": {"code": status, "status": fault, "message": text}}
    if route == TOKEN:
        return status, {"error": "invalid_request", "error_description": text}
    if route == NOWHERE:
        return 200, {"error_msg": NO_PATH}
    if route in GET_ONLY:
        return 405, {"error_msg": f"{route} takes GET, HEAD, but actually POST"}
    return status, {"error_msg": text}


def said(answer: RawAnswer | requests.Response) -> tuple[int, Any]:
    if isinstance(answer, RawAnswer):
        return answer.status, answer.json
    return answer.status_code, answer.json()


def deep(around: tuple[bytes, bytes], levels: int = 10_000) -> bytes:
    opening, closing = around
    return opening * levels + closing * levels


# What is wrong, by the reason that RPCs and the Classifier give. A body for all of them, which is no JSON that can be
# read; Predict's own body, if it is another one, its status and its text.
UNREADABLE: dict[str, tuple[bytes, str, bytes | None, int, str]] = {
    "arrays 10,000 deep": (
        b'{"colors": ' + deep((b"[", b"]")) + b"}",
        "expected at most 100 levels, one inside the other",
        b'{"instances": [{"x": ' + deep((b"[", b"]")) + b"}]}",
        400,
        "the JSON text has more than 64 arrays and objects in each other (at about byte 83)",
    ),
    "objects 10,000 deep": (
        b'{"one": {"again": ' * 10_000 + b"{}" + b"}}" * 10_000,
        "expected at most 100 levels, one inside the other",
        b'{"instances": [' + b'{"x": ' * 10_000 + b"1" + b"}" * 10_000 + b"]}",
        400,
        "the JSON text has more than 64 arrays and objects in each other (at about byte 388)",
    ),
    "never closed": (
        b"[" * 10_000,
        "expected at most 100 levels, one inside the other",
        None,
        200,
        "Illegal JSON format: a bracket, comma, colon, key or value is missing, superfluous or misspelt (at about "
        "byte 0)",
    ),
    "NaN": (
        b'{"byName": {"a": NaN}}',
        'NaN is no JSON: write "NaN" in quotes',
        b'{"instances": [{"x": NaN}]}',
        200,
        'Illegal JSON format: NaN is no JSON; send such values as {"b64": …, "type": "float32", "shape": […]} (at '
        "about byte 21)",
    ),
    "Infinity": (
        b'{"byName": {"a": -Infinity}}',
        '-Infinity is no JSON: write "-Infinity" in quotes',
        b'{"instances": [{"x": [-Infinity]}]}',
        200,
        'Illegal JSON format: -Infinity is no JSON; send such values as {"b64": …, "type": "float32", "shape": […]} '
        "(at about byte 22)",
    ),
    "keys twice": (
        b'{"text": "a", "text": "b"}',
        "the key 'text' is given twice, expected once",
        b'{"instances": [{"x": 1}], "instances": [{"x": 2}]}',
        200,
        "Parser request failed, key 'instances' expects to exist once, but actually 2 times",
    ),
    "an input twice": (
        b'{"scalars": {"aBool": true, "aBool": false}}',
        "the key 'aBool' is given twice, expected once",
        b'{"instances": [{"x": 1, "x": 2}]}',
        400,
        "the input 'x' stands twice (instance 0)",
    ),
    "not UTF-8": (
        b'{"text": "\xff\xfe"}',
        "'utf-8' codec can't decode byte 0xff in position 10: invalid start byte",
        b'{"instances": [{"x": "\xff\xfe"}]}',
        200,
        "Illegal JSON format: the text is not valid UTF-8",
    ),
    "UTF-16": (
        '{"instances": [{"x": 1}]}'.encode("utf-16"),
        "'utf-8' codec can't decode byte 0xff in position 0: invalid start byte",
        None,
        200,
        "Illegal JSON format: a string holds a control character that is not escaped",
    ),
    "zeros": (
        bytes(1000),
        "Expecting value: line 1 column 1 (char 0)",
        None,
        200,
        "Illegal JSON format: '" + "\0" * 64 + "…' is no value (at about byte 0)",
    ),
    "a form": (
        b"instances=1&x=2",
        "Expecting value: line 1 column 1 (char 0)",
        None,
        200,
        "Illegal JSON format: 'instances=1&x=2' is no value (at about byte 0)",
    ),
    "XML": (
        b"<instances/>",
        "Expecting value: line 1 column 1 (char 0)",
        None,
        200,
        "Illegal JSON format: '<instances/>' is no value (at about byte 0)",
    ),
    "more behind it": (
        b'{"instances": [{"x": 1}]} {}',
        "Extra data: line 1 column 27 (char 26)",
        None,
        200,
        "Illegal JSON format: something comes after the end of the value (at about byte 26)",
    ),
    "a number of 100,000 digits": (
        b'{"scalars": {"anInt64": ' + b"9" * 100_000 + b"}}",
        "a number has more than 4300 digits",
        b'{"instances": [{"x": ' + b"9" * 100_000 + b"}]}",
        400,
        "the number " + "9" * 64 + '… does not fit int32; send larger types as {"b64": …, "type": …, "shape": […]} '
        "(input 'x' of instance 0)",
    ),
}


def reason(route: str, text: str) -> str:
    """As routes begin it that read JSON in Python."""
    if route == CLASSIFY:
        return f"the body is no request for a classification: {text}"
    kind, where = ("Sorts", "") if route == UNARY else ("Scalars", "line 1: ")
    return f"{where}the body is no sorts.v1.{kind} in JSON: {text}"


@pytest.mark.parametrize("route", [each for each in ROUTES if each != TOKEN])
@pytest.mark.parametrize("what", UNREADABLE)
def test_bodies_that_can_not_be_read(rest: Rest, route: str, what: str) -> None:
    body, text, for_predict, status, predict_text = UNREADABLE[what]
    if route == PREDICT:
        answer = rest.post(route, body if for_predict is None else for_predict)
        assert said(answer) == (status, {"error_msg": predict_text})
    else:
        expected = reason(route, text) if route in (*RPCS, CLASSIFY) else ""
        assert said(rest.post(route, body)) == refusal(route, 400, expected)


_BASE64 = "Invalid base64-encoded string: number of data characters (1) cannot be 1 more than a multiple of 4."
_KEY = b"k" * 100_000
_NO_FIELD = "sorts.v1.{} has no field '" + "k" * 80 + "'; it has {}"
_OF_SORTS = "'scalars', 'known', 'inner', 'colors', 'byName', 'byNumber', 'byBool', 'byUint64', 'text', 'number', 'one'"
_OF_SCALARS = (
    "'aDouble', 'aFloat', 'anInt32', 'anInt64', 'aUint32', 'aUint64', 'aSint64', 'aFixed32', 'anSfixed32', 'aBool', "
    "'aString', 'someBytes', 'color', 'maybe', 'otherName'"
)
# What can be read and is wrong all the same, by its route.
MISTAKEN: dict[str, tuple[str, bytes, int, str]] = {
    "Predict: wrong base64": (
        PREDICT,
        b'{"instances": [{"x": {"b64": "A-?="}}]}',
        200,
        "Parser request failed, 'A-?=' is illegal b64 encode string (input 'x' of instance 0)",
    ),
    "unary: wrong base64": (
        UNARY,
        b'{"scalars": {"someBytes": "A"}}',
        400,
        reason(UNARY, f"Failed to parse scalars field: Failed to parse someBytes field: {_BASE64}."),
    ),
    "stream: wrong base64": (
        STREAM,
        b'{"someBytes": "A"}',
        400,
        reason(STREAM, f"Failed to parse someBytes field: {_BASE64}"),
    ),
    "a later line of a stream": (
        STREAM,
        b'{"aString": "good"}\n\n{"someBytes": "A"}',
        400,
        reason(STREAM, f"Failed to parse someBytes field: {_BASE64}").replace("line 1", "line 3"),
    ),
    "Classifier: wrong base64": (
        CLASSIFY,
        b'{"data": {"someBytes": "A"}}',
        400,
        reason(CLASSIFY, f"'data' is no sorts.v1.Scalars in JSON: Failed to parse someBytes field: {_BASE64}"),
    ),
    "Classifier: wrong base64 of an instance": (
        CLASSIFY,
        b'{"data": {"@type": "mindspore.serving.proto.Instance", "x": {"b64": "A-?="}}}',
        400,
        reason(
            CLASSIFY,
            "'data' is no instance: Parser request failed, 'A-?=' is illegal b64 encode string (input 'x' of instance "
            "0)",
        ),
    ),
    "unary: a long key": (
        UNARY,
        b'{"' + _KEY + b'": 1}',
        400,
        reason(UNARY, _NO_FIELD.format("Sorts", _OF_SORTS)),
    ),
    "stream: a long key": (
        STREAM,
        b'{"' + _KEY + b'": 1}',
        400,
        reason(STREAM, _NO_FIELD.format("Scalars", _OF_SCALARS)),
    ),
    "Classifier: a long key": (
        CLASSIFY,
        b'{"data": {}, "' + _KEY + b'": 1}',
        400,
        reason(
            CLASSIFY,
            "there is no '" + "k" * 80 + """', expected {"data": {…}} and, if there is one, {"meta": {"puid": "…"}}""",
        ),
    ),
    "Classifier: a long key of the data": (
        CLASSIFY,
        b'{"data": {"' + _KEY + b'": 1}}',
        400,
        reason(CLASSIFY, "'data' is no sorts.v1.Scalars in JSON: " + _NO_FIELD.format("Scalars", _OF_SCALARS)),
    ),
}


@pytest.mark.parametrize("what", MISTAKEN)
def test_bodies_that_are_mistaken(rest: Rest, what: str) -> None:
    route, body, status, text = MISTAKEN[what]
    assert said(rest.post(route, body)) == refusal(route, status, text)


def test_a_long_key_of_an_instance(rest: Rest) -> None:
    """What is no input is passed over; it is the input that is missed."""
    answer = rest.post(PREDICT, b'{"instances": [{"' + _KEY + b'": 1}]}')
    assert said(answer) == (200, {"instances": [{"error_msg": "Cannot find input x in instance input"}]})


def test_lines_without_end(rest: Rest) -> None:
    """As many as a request may have instances."""
    lines = b'{"aString": "a"}\n \r\n' * 50
    answer = rest.post(STREAM, lines)
    assert (answer.status_code, answer.text) == (200, '{"aString": "a"}\n' * 50)
    text = "the body has more lines than max_instances_per_request 100 allows"
    for more in (b"{}", b"\n" * 500_000):
        assert said(rest.post(STREAM, lines + more)) == refusal(STREAM, 413, text, "RESOURCE_EXHAUSTED")


# Forms of which no token comes, with their errors.
FORMS: dict[bytes, tuple[int, str, str]] = {
    b"": (400, "invalid_request", "expected 'grant_type' once, but there is none"),
    b'{"grant_type": "client_credentials"}': (400, "invalid_request", NO_FORM),
    b"grant_type=" + deep((b"[", b"]"), 5000): (
        400,
        "unsupported_grant_type",
        f"'grant_type' should be 'client_credentials', but is '{'[' * 80}'",
    ),
    b"grant_type=NaN": (400, "unsupported_grant_type", "'grant_type' should be 'client_credentials', but is 'NaN'"),
    b"grant_type=client_credentials&grant_type=client_credentials": (
        400,
        "invalid_request",
        "expected 'grant_type' once, but there is 2",
    ),
    b"grant_type=client_credentials&client_id=a&client_id=b&client_secret=c": (
        400,
        "invalid_request",
        "expected 'client_id' once, but there is 2",
    ),
    b"grant_type=\xff\xfe": (400, "invalid_request", NO_FORM),
    b"grant_type=%ff%fe": (400, "invalid_request", NO_FORM),
    "grant_type=client_credentials".encode("utf-16"): (400, "invalid_request", NO_FORM),
    bytes(1000): (400, "invalid_request", NO_FORM),
    b"a=1&" * 2000 + b"grant_type=client_credentials": (400, "invalid_request", NO_FORM),
    b"a" * 16_385: (413, "invalid_request", "the body is larger than 16384 bytes"),
}


@pytest.mark.parametrize("body", FORMS, ids=lambda body: repr(body[:40]))
def test_forms(rest: Rest, body: bytes) -> None:
    status, fault, text = FORMS[body]
    answer = rest.post(TOKEN, body, headers={"content-type": FORM})
    assert said(answer) == (status, {"error": fault, "error_description": text})


@pytest.mark.parametrize("value", ["A", "A-?=", "/w==", "YXBw", "=" * 4000])
def test_secrets_that_are_no_base64(rest: Rest, value: str) -> None:
    body = b"grant_type=client_credentials"
    answer = rest.post(TOKEN, body, headers={"content-type": FORM, "authorization": f"Basic {value}"})
    text = "header 'authorization' should be 'Basic' and base64 of the consumer key, a colon and the secret"
    assert said(answer) == (401, {"error": "invalid_client", "error_description": text})


@pytest.mark.parametrize("route", TAKING)
def test_a_gzip_bomb(rest: Rest, route: str) -> None:
    """A thousand times larger than it comes; the desk for tokens unpacks nothing."""
    bomb = gzip.compress(b"[" * (64 << 20), 9)
    before = resident(rest.process.pid)
    answer = rest.post(route, bomb, headers={"content-encoding": "gzip", "content-type": FORM})
    if route == TOKEN:
        assert said(answer) == refusal(route, 415, "content-encoding 'gzip' is not supported here: send none")
    else:
        status = 200 if route == PREDICT else 413
        assert said(answer) == refusal(route, status, "http message is bigger than 1048576", "RESOURCE_EXHAUSTED")
    assert resident(rest.process.pid) < before + (32 << 20)


@pytest.mark.parametrize("route", [*TAKING, NOWHERE])
def test_a_body_that_stops(rest: Rest, route: str) -> None:
    with rest.connect() as connection:
        connection.sendall(begin(rest, route, "Content-Length: 100") + b"{")
        if route == NOWHERE:  # answered without it
            assert said(read_answer(connection)) == refusal(route, 400, "")
        else:
            text = "nothing came of the request's body for body_idle_timeout, 1 s"
            assert said(read_answer(connection)) == (408, {"error_msg": text})
        assert is_closed(connection)


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


def too_large(route: str) -> tuple[int, Any]:
    if route == TOKEN:
        return refusal(route, 413, "the body is larger than 16384 bytes")
    status = 200 if route == PREDICT else 413
    return refusal(route, status, "http message is bigger than 1048576", "RESOURCE_EXHAUSTED")


@pytest.mark.parametrize("route", ROUTES)
def test_a_gigabyte_is_refused_before_it_comes(rest: Rest, route: str) -> None:
    with rest.connect() as connection:
        connection.sendall(begin(rest, route, "Content-Length: 1073741824"))
        assert said(read_answer(connection)) == too_large(route)


@pytest.mark.parametrize("route", TAKING)
def test_a_body_that_does_not_end(rest: Rest, route: str) -> None:
    """It says nothing of its length, and is more than may be."""
    chunk = b"10000\r\n" + b"[" * 65536 + b"\r\n"
    before = resident(rest.process.pid)
    with rest.connect() as connection:
        connection.sendall(begin(rest, route, "Transfer-Encoding: chunked") + chunk * 17)
        assert said(read_answer(connection)) == too_large(route)
        # A gigabyte of it is not taken either.
        with contextlib.suppress(ConnectionError):
            for _ in range(16 * 1024):
                connection.sendall(chunk)
            raise AssertionError("it took a gigabyte")
    assert resident(rest.process.pid) < before + (32 << 20)


_NO = "this is no HTTP/1.1 request: "
WRONG = {
    "POST {} HTTP/3.7\r\nHost: x\r\n\r\n": "Invalid HTTP version",
    "POST {} SPDY/1\r\n\r\n": "Expected HTTP/, RTSP/ or ICE/",
    "PO\0ST {} HTTP/1.1\r\nHost: x\r\n\r\n": "Invalid method encountered",
    "POST {} HTTP/1.1\r\nHost: x\r\nContent-Length: many\r\n\r\n": "Invalid character in Content-Length",
    "POST {} HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n": (
        "Transfer-Encoding can't be present with Content-Length"
    ),
    "POST {} HTTP/1.1\r\nHo st: x\r\n\r\n": "Invalid header token",
}


@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize("wrong", WRONG)
def test_what_is_no_http(rest: Rest, route: str, wrong: str) -> None:
    with rest.connect() as connection:
        connection.sendall(wrong.format(route).encode("latin-1"))
        assert said(read_answer(connection)) == (400, {"error_msg": _NO + WRONG[wrong]})
        assert is_closed(connection)


@pytest.mark.parametrize("route", TAKING)
def test_a_body_that_is_no_http(rest: Rest, route: str) -> None:
    with rest.connect() as connection:
        connection.sendall(begin(rest, route, "Transfer-Encoding: chunked") + b"zz\r\n")
        assert said(read_answer(connection)) == (400, {"error_msg": f"{_NO}Invalid character in chunk size"})
        assert is_closed(connection)


def nothing_at(path: str) -> tuple[int, Any]:
    known = "/healthz/live, /healthz/ready, /healthz, /servables, /servables/{name}, /openapi.json, /docs, "
    known += "/docs/page.css, /docs/page.js, /token"
    return 404, {"error_msg": f"there is nothing at '{path}'; GET answers {known}"}


def no_model(text: str) -> dict[str, tuple[int, Any]]:
    only_post = "http message only support POST right now, but actually {}"
    return {
        "GET": (200, {"error_msg": only_post.format("GET")}),
        "DELETE": (200, {"error_msg": only_post.format("DELETE")}),
        "POST": (404 if "is not known" in text else 200, {"error_msg": text}),
    }


def no_path(path: str) -> dict[str, tuple[int, Any]]:
    return {"GET": nothing_at(path), "POST": refusal(NOWHERE, 404, ""), "DELETE": nothing_at(path)}


def no_rpc(text: str) -> dict[str, tuple[int, Any]]:
    return dict.fromkeys(("GET", "POST", "DELETE"), refusal(UNARY, 404, text, "NOT_FOUND"))


NO_METHOD = "service 'sorts.v1.SortService' has no method '{}'; it has 'Echo', 'Scalar', 'Tell', 'Down', 'Up', 'Both'"
UNKNOWN = "please check url, '{}' is not known; expected /model/{{servable}}[/version/{{version}}]:{{method}}"
LONG = "a" * 5000
PATHS: dict[str, dict[str, tuple[int, Any]]] = {
    "/model/%ff%fe:same": no_model("Request Servable(\ufffd\ufffd) method(same), servable is not available"),
    "/model/sorts:%00": no_model("Request Servable(sorts) method(\0), method is not available"),
    "/model/../../etc/passwd:same": no_model(UNKNOWN.format("../etc/passwd")),
    "/model/%2e%2e/%2e%2e:same": no_model(UNKNOWN.format("..")),
    f"/model/sorts/{LONG}:same": no_model(UNKNOWN.format(LONG[:80])),
    f"/model/sorts/version/{LONG}:same": no_model(
        f"please check url, version number range failed: expected 1 to 9223372036854775807, but actually '{LONG[:80]}'"
    ),
    "/servables/%2e%2e%2fadd": no_path("/servables/../add"),
    "/servables/%00": {
        "GET": (404, {"error_msg": "there is no servable '\0'; there are: 'add', 'sorts'"}),
        "POST": (405, {"error_msg": "/servables/\0 takes GET, HEAD, but actually POST"}),
        "DELETE": (405, {"error_msg": "/servables/\0 takes GET, HEAD, but actually DELETE"}),
    },
    "/docs/../../server.py": no_path("/docs/../../server.py"),
    "/docs/%2e%2e/page.py": no_path("/docs/../page.py"),
    "/sorts.v1.SortService/%45cho%00": no_rpc(NO_METHOD.format("Echo\0")),
    "/sorts.v1.SortService/Echo/": no_rpc(NO_METHOD.format("Echo/")),
    "/openapi.json/": no_rpc("there is no service 'openapi.json'; there are: 'sorts.v1.SortService'"),
    "//docs": no_path("//docs"),
    "/?" + "q" * 5000: no_path("/"),
    "/" + LONG: no_path("/" + LONG[:79]),
    "*": no_path("*"),
}


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path[:40])
def test_paths(rest: Rest, path: str) -> None:
    body = b'{"instances": [{"x": 1}]}'
    for method, expected in PATHS[path].items():
        answer = rest.raw(begin(rest, path, f"Content-Length: {len(body)}", method=method) + body)
        assert said(answer) == expected


def test_a_servable_of_a_long_name(rest: Rest) -> None:
    """In texts it is cut; what the gateway does not carry is the client's error."""
    status, answer = said(rest.post(f"/model/{LONG[:3000]}:same", {"instances": [{"x": 1}]}))
    assert (status, list(answer)) == (200, ["error_msg"])
    assert re.fullmatch(r"Request Servable\(a{256}\) method\(same\), servable is not available", answer["error_msg"])
    status, answer = said(rest.post(f"/model/{LONG}:same", {"instances": [{"x": 1}]}))
    assert (status, list(answer)) == (400, ["error_msg"])
    assert re.fullmatch(r".* servable_spec .* \d+ bytes, expected at most 4096", answer["error_msg"])


@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize("method", ["PATCH", "OPTIONS", "PROPFIND"])
def test_other_methods(rest: Rest, route: str, method: str) -> None:
    answer = rest.raw(begin(rest, route, method=method))
    if route == PREDICT:
        text = f"http message only support POST right now, but actually {method}"
        assert said(answer) == (200, {"error_msg": text})
    elif route == NOWHERE:
        assert said(answer) == nothing_at(NOWHERE)
    else:
        allowed = "POST" if route in (*RPCS, CLASSIFY) else "GET, HEAD, POST" if route == TOKEN else "GET, HEAD"
        text = f"{route} takes {allowed}, but actually {method}"
        expected = refusal(route, 405, text, "UNIMPLEMENTED") if route in RPCS else (405, {"error_msg": text})
        assert said(answer) == expected
        assert answer.headers["allow"] == allowed


@pytest.mark.parametrize("route", GET_ONLY)
def test_head(rest: Rest, route: str) -> None:
    answer = rest.session.head(rest.url + route, timeout=60)
    assert (answer.status_code, answer.content) == (200, b"")


def test_the_server_goes_on(rest: Rest) -> None:
    assert rest.ask(PREDICT, {"x": 1}) == [{"y": 1}]
    assert rest.get("/healthz/ready").status_code == 200
