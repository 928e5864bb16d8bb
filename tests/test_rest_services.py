"""Users' RPCs by HTTP: messages in protobuf's JSON mapping, streams as lines."""

from __future__ import annotations

import json
import pathlib
from collections.abc import Iterator
from typing import Any

import pytest

from conftest import ECHO_SERVABLE
from e2e_support import until, write_servable
from rest_support import Rest, head, serving_rest
from stubs import compile_protos

PROTO = """
package kinds.v1;
import "google/protobuf/any.proto";
import "google/protobuf/struct.proto";
import "google/protobuf/timestamp.proto";
import "google/protobuf/wrappers.proto";
import "other.proto";

enum Color { UNKNOWN = 0; RED = 1; }

message Ask {
  string text = 1;
  int64 big_number = 2;
  bytes data = 3;
  Color color = 4;
  google.protobuf.Timestamp at = 5;
  map<string, double> by_name = 6;
  google.protobuf.Any any = 7;
  google.protobuf.Int32Value maybe = 8;
  repeated Ask inner = 9;
  other.Other other = 10;
  google.protobuf.Value value = 11;
  google.protobuf.NullValue nothing = 12;
  google.protobuf.BytesValue wrapped = 13;
  repeated google.protobuf.BytesValue many = 14;
  map<string, google.protobuf.BytesValue> wrapped_by_name = 15;
  google.protobuf.Struct struct = 16;
  bool flag = 17;
  map<int32, string> by_number = 18;
}

service Kinds {
  rpc Echo(Ask) returns (Ask);
  rpc Fail(Ask) returns (Ask);
  rpc Down(Ask) returns (stream Ask);
  rpc Up(stream Ask) returns (Ask);
  rpc Both(stream Ask) returns (stream Ask);
  rpc Context(Ask) returns (Ask);
  rpc Wait(Ask) returns (Ask);
}
"""
OTHER = "package other; message Other { float number = 1; bytes raw = 2; }"
ADD = "kinds_pb2_grpc.add_KindsServicer_to_server"

CONFIG = (
    ECHO_SERVABLE
    + """
import json
import time

import grpc

from kinds_pb2 import Ask


@register.grpc_method
def Echo(request):
    return request


@register.grpc_method
def Fail(request, grpc_context):
    grpc_context.set_trailing_metadata((("why", "told"), ("raw-bin", b"\\x00\\xff")))
    if request.text == "raise":
        raise ValueError("my own text")
    grpc_context.abort(getattr(grpc.StatusCode, request.text), f"details of {request.text}")


@register.grpc_method
def Down(request, grpc_context):
    grpc_context.send_initial_metadata((("first", "sent"),))
    for number in range(request.big_number):
        yield Ask(text=request.text, big_number=number)
    if request.text == "fail":
        grpc_context.abort(grpc.StatusCode.DATA_LOSS, "half way")


@register.grpc_method
def Up(requests):
    texts = [each.text for each in requests]
    return Ask(text=" ".join(texts), big_number=len(texts))


@register.grpc_method
def Both(requests):
    for each in requests:
        yield Ask(text=each.text.upper())


@register.grpc_method
def Context(request, grpc_context):
    seen = {key: value if isinstance(value, str) else value.hex() for key, value in grpc_context.invocation_metadata()}
    seen["time_remaining"] = grpc_context.time_remaining()
    seen["peer"] = grpc_context.peer()
    seen["id"] = register.get_request_id()
    return Ask(text=json.dumps(seen))


@register.grpc_method
def Wait(request, grpc_context):
    with open(request.text, "w") as stream:
        stream.write("running")
    while grpc_context.is_active():
        time.sleep(0.01)
    with open(request.text + ".ended", "w") as stream:
        stream.write("cancelled")
    return request
"""
)


@pytest.fixture(scope="module")
def rest(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rest]:
    folder = tmp_path_factory.mktemp("rest")
    write_servable(folder / "servables", "kinds", CONFIG)
    compile_protos(folder / "servables" / "kinds", kinds=PROTO, other=OTHER)
    listen = f"server.start_grpc_server('127.0.0.1:0', grpc_servicer_functions=['{ADD}'])\n"
    with serving_rest(folder, "kinds", before=listen) as rest:
        yield rest


def lines(text: str) -> list[Any]:
    assert text.endswith("\n") or not text
    return [json.loads(line) for line in text.splitlines()]


def error(rest: Rest, path: str, body: Any, status: int, **options: Any) -> dict[str, Any]:
    """The error object of an answer with this status."""
    answer = rest.post(path, body, **options)
    assert answer.status_code == status, answer.text
    found = answer.json()["error"]
    assert found["code"] == status
    assert isinstance(found, dict)
    return found


MESSAGE = {
    "text": "äöü \u20ac",
    "bigNumber": "9007199254740993",
    "data": "AAECAw==",
    "color": "RED",
    "at": "2024-05-01T12:00:00.500Z",
    "byName": {"a": 1.5},
    "any": {"@type": "type.googleapis.com/other.Other", "number": 2.5},
    "maybe": 7,
    "inner": [{"text": "inside"}, {}],
    "other": {"number": 0.25},
}


def test_the_json_mapping(rest: Rest) -> None:
    answer = rest.post("/kinds.v1.Kinds/Echo", MESSAGE)
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == "application/json"
    assert answer.json() == MESSAGE
    # Also by the names of the proto file, with numbers for text and for names.
    given = {"big_number": 5, "color": 1, "by_name": {}, "data": "AAEC", "at": None}
    assert rest.post("/kinds.v1.Kinds/Echo", given).json() == {"bigNumber": "5", "color": "RED", "data": "AAEC"}
    assert rest.post("/kinds.v1.Kinds/Echo", b"").json() == {}


@pytest.mark.parametrize(
    "body",
    [
        {"wrapped": "AAE="},
        {"many": ["AAE=", ""], "wrappedByName": {"a": "AAE="}},
        {"any": {"@type": "type.googleapis.com/other.Other", "raw": "AAE="}},
        {"any": {"@type": "type.googleapis.com/google.protobuf.BytesValue", "value": "AAE="}},
        {
            "any": {
                "@type": "type.googleapis.com/google.protobuf.Any",
                "value": {"@type": "type.googleapis.com/kinds.v1.Ask", "data": "AAE="},
            }
        },
        {"any": {"@type": "type.googleapis.com/google.protobuf.Struct", "value": {"data": "AAE!", "a": [None]}}},
        {"any": {}, "struct": {"data": "AAE!", "nothing": None}},
    ],
)
def test_forms_of_their_own(rest: Rest, body: Any) -> None:
    """Nothing in them is taken for base64 that is none."""
    assert rest.post("/kinds.v1.Kinds/Echo", body).json() == body
    assert rest.post("/kinds.v1.Kinds/Echo", {"wrapped": None, "any": None, "value": None}).status_code == 200


def test_large_messages(rest: Rest) -> None:
    body = {"inner": [{"text": "x" * 100}] * 3000}
    assert rest.post("/kinds.v1.Kinds/Echo", body).json() == body


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"{", "Expecting property name"),
        (b"[]", ""),
        (b"1", ""),
        (b'{"text": "a", "text": "b"}', "the key 'text' is given twice, expected once"),
        (b'{"unknown": 1}', "kinds.v1.Ask has no field 'unknown'; it has 'text', 'bigNumber', 'data', "),
        (b'{"text": 1}', ""),
        (b'{"bigNumber": 9223372036854775808}', ""),
        (b'{"bigNumber": ' + b"9" * 5000 + b"}", ""),
        (b'{"byName": {"a": NaN}}', "NaN is no JSON"),
        (b'{"data": "wrong!"}', ""),
        # What protobuf's parser lets pass.
        (b'{"data": "AAE!"}', "the field 'data' is no base64: 'AAE!'"),
        (b'{"data": "AA==="}', "the field 'data' is no base64: 'AA==='"),
        (b'{"inner": [{"data": "!"}]}', "the field 'data' is no base64: '!'"),
        (b'{"wrapped": "AAE!"}', "the field 'wrapped' is no base64: 'AAE!'"),
        (b'{"many": ["AAE=", "AAE!"]}', "the field 'many' is no base64: 'AAE!'"),
        (b'{"wrappedByName": {"a": "AAE!"}}', "the field 'wrapped_by_name' is no base64: 'AAE!'"),
        (b'{"any": {"@type": "a/other.Other", "raw": "AAE!"}}', "the field 'raw' is no base64: 'AAE!'"),
        (b'{"inner": [{"any": {"raw": "AAE!", "@type": "a/other.Other"}}]}', "the field 'raw' is no base64: 'AAE!'"),
        (
            b'{"any": {"@type": "a/google.protobuf.BytesValue", "value": "AAE!"}}',
            "the 'value' of the field 'any' is no base64: 'AAE!'",
        ),
        (
            b'{"any": {"@type": "a/google.protobuf.Any", "value": {"@type": "a/kinds.v1.Ask", "data": "AAE!"}}}',
            "the field 'data' is no base64: 'AAE!'",
        ),
        (b'{"any": {"@type": "a/kinds.v1.Ask", "bigNumber": 1, "big_number": 2}}', "'big_number' is given twice"),
        (b'{"any": {"@type": "a/kinds.v1.Ask", "inner": [[]]}}', "for kinds.v1.Ask"),
        (b'{"bigNumber": 1, "big_number": 2}', "the field 'big_number' is given twice, as 'bigNumber' and as"),
        (b'{"inner": [[]]}', "for kinds.v1.Ask"),
        (b'{"other": []}', "for other.Other"),
        (b'{"at": "yesterday"}', ""),
        (b'{"any": {"@type": "type.googleapis.com/no.Such"}}', "no.Such"),
        (
            b'{"any": {"@type": "type.googleapis.com/google.protobuf.Any"}}',
            "should have '@type' and 'value' alone",
        ),
        (b'{"any": {"@type": "a/google.protobuf.Struct", "value": {}, "x": 1}}', "as it is a google.protobuf.Struct"),
        (b'{"value": ' + b"9" * 400 + b"}", "a number is too large for a double"),
        (b'{"value": 1e400}', "the number 1e400 is too large for a double"),
        (b'{"value": ' + b"9" * 400 + b".0}", "is too large for a double"),
        (b'{"nothing": "\\ud800"}', "half a surrogate pair"),
        (b'{"byName": {"\\udc00": 1}}', "half a surrogate pair"),
        (b'{"text": "\xff"}', "utf-8"),
        (b'{"text": "\\ud800"}', ""),
        (b'{"\\ud800": 1, "\\ud800": 2}', "the key '\ud800' is given twice"),
        (b'{"inner": [' * 5000 + b"]}" * 5000, "expected at most 100 levels"),
        (b"[" * 100_000, "expected at most 100 levels"),
        (b'{"inner": [' * 150 + b"{}" + b"]}" * 150, ""),
    ],
)
def test_what_is_no_message(rest: Rest, body: bytes, reason: str) -> None:
    found = error(rest, "/kinds.v1.Kinds/Echo", body, 400)
    assert found["status"] == "INVALID_ARGUMENT"
    assert found["message"].startswith("the body is no kinds.v1.Ask in JSON: ")
    assert reason in found["message"]


@pytest.mark.parametrize(
    ("body", "text"),
    [
        ({"text": 5}, "the field 'text' should be a string, but is 5"),
        ({"text": ["a"]}, "the field 'text' should be a string, but is an array"),
        ({"data": 5}, "the field 'data' should be base64 text, but is 5"),
        ({"data": {"b64": "AA=="}}, "the field 'data' should be base64 text, but is an object"),
        ({"bigNumber": True}, "the field 'big_number' should be a whole number, but is true"),
        ({"big_number": "1_000"}, "the field 'big_number' should be a whole number, but is \"1_000\""),
        ({"bigNumber": {}}, "the field 'big_number' should be a whole number, but is an object"),
        ({"color": [1]}, "the field 'color' should be a name or a whole number, but is an array"),
        ({"color": 1.5}, "the field 'color' should be a name or a whole number, but is 1.5"),
        ({"flag": "true"}, "the field 'flag' should be true or false, but is \"true\""),
        ({"at": 5}, "the field 'at' should be text such as '2024-01-02T03:04:05Z', but is 5"),
        ({"byName": []}, "the field 'by_name' should be an object, {…}, but is an array"),
        ({"byName": {"a": None}}, "the field 'by_name' should be a number, but is null"),
        ({"byNumber": {"a": "b"}}, "a key of the field 'by_number' should be a whole number, but is \"a\""),
        ({"inner": 5}, "the field 'inner' should be an array, […], but is 5"),
        ({"inner": [None]}, "the field 'inner' should be an object, {…}, for kinds.v1.Ask, but is null"),
        ({"inner": [{"data": 5}]}, "the field 'data' should be base64 text, but is 5"),
        ({"wrapped": 5}, "the field 'wrapped' should be base64 text, but is 5"),
        ({"many": [5]}, "the field 'many' should be base64 text, but is 5"),
        ({"maybe": "x"}, "the field 'maybe' should be a whole number, but is \"x\""),
        ({"struct": []}, "the field 'struct' should be an object, {…}, but is an array"),
        ({"any": 5}, "the field 'any' should be an object with '@type', for google.protobuf.Any, but is 5"),
        (
            {"any": {"@type": {}}},
            "'@type' of the field 'any' should be 'type.googleapis.com/' and the name of a message, but is an object",
        ),
        ({"any": {"@type": "a/no.Such"}}, "'@type' of the field 'any' names no message that is known: 'a/no.Such'"),
        (
            {"any": {"@type": "a/google.protobuf.BytesValue", "value": 5}},
            "the 'value' of the field 'any' should be base64 text, but is 5",
        ),
        ([], "the message should be an object, {…}, for kinds.v1.Ask, but is an array"),
    ],
)
def test_values_of_other_types(rest: Rest, body: Any, text: str) -> None:
    assert error(rest, "/kinds.v1.Kinds/Echo", body, 400)["message"] == f"the body is no kinds.v1.Ask in JSON: {text}"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("BoolValue", True),
        ("BytesValue", "AAAA"),
        ("DoubleValue", 0.5),
        ("Duration", "1.500s"),
        ("FieldMask", "a.b,c"),
        ("FloatValue", 0.5),
        ("Int32Value", 1),
        ("Int64Value", "9007199254740993"),
        ("ListValue", [1.0, None]),
        ("StringValue", "é"),
        ("Struct", {"value": 1.0}),
        ("Timestamp", "2024-05-01T12:00:00Z"),
        ("UInt32Value", 1),
        ("UInt64Value", "1"),
        ("Value", None),
    ],
)
def test_an_any_with_a_message_of_protobufs(rest: Rest, name: str, value: Any) -> None:
    """Also with one that the service's files don't import."""
    body = {"any": {"@type": f"type.googleapis.com/google.protobuf.{name}", "value": value}}
    assert rest.post("/kinds.v1.Kinds/Echo", body).json() == body


@pytest.mark.parametrize(
    ("name", "status"),
    [
        ("INVALID_ARGUMENT", 400),
        ("NOT_FOUND", 404),
        ("ALREADY_EXISTS", 409),
        ("PERMISSION_DENIED", 403),
        ("RESOURCE_EXHAUSTED", 429),
        ("FAILED_PRECONDITION", 400),
        ("ABORTED", 409),
        ("OUT_OF_RANGE", 400),
        ("UNIMPLEMENTED", 501),
        ("INTERNAL", 500),
        ("UNAVAILABLE", 503),
        ("UNAUTHENTICATED", 401),
        ("DEADLINE_EXCEEDED", 504),
        ("CANCELLED", 499),
        ("UNKNOWN", 500),
    ],
)
def test_statuses(rest: Rest, name: str, status: int) -> None:
    answer = rest.post("/kinds.v1.Kinds/Fail", {"text": name})
    assert answer.status_code == status
    assert answer.json() == {"error": {"code": status, "status": name, "message": f"details of {name}"}}
    assert answer.headers["grpc-trailer-why"] == "told"
    assert answer.headers["grpc-trailer-raw-bin"] == "AP8="
    assert ("retry-after" in answer.headers) == (name == "UNAVAILABLE")
    assert ("www-authenticate" in answer.headers) == (name == "UNAUTHENTICATED")


def test_a_handler_that_raises(rest: Rest) -> None:
    answer = rest.post("/kinds.v1.Kinds/Fail", {"text": "raise"})
    assert answer.status_code == 500
    assert "my own text" in answer.json()["error"]["message"]


def test_paths_that_there_are_not(rest: Rest) -> None:
    found = error(rest, "/kinds.v1.Kinds/Ehco", {}, 404)
    assert found["message"].startswith("service 'kinds.v1.Kinds' has no method 'Ehco'; it has 'Echo', 'Fail', ")
    found = error(rest, "/kinds.v1.Kind/Echo", {}, 404)
    assert found["message"] == "there is no service 'kinds.v1.Kind'; there are: 'kinds.v1.Kinds'"
    answer = rest.get("/kinds.v1.Kinds/Echo")
    assert (answer.status_code, answer.headers["allow"]) == (405, "POST")
    assert answer.json()["error"]["message"] == "/kinds.v1.Kinds/Echo takes POST, but actually GET"


# -- metadata ----------------------------------------------------------------------------------------------------------


def test_headers_become_metadata(rest: Rest) -> None:
    headers = {
        "grpc-metadata-Own-Key": "own value",
        "grpc-metadata-raw-bin": "AP8",
        "multiplexed_model_id": "a model",
        "authorization": "Bearer token",
        "traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        "x-request-id": "mine",
        "x-request-timeout": "50",
        "application": "kinds",
        "cookie": "not for handlers",
    }
    answer = rest.post("/kinds.v1.Kinds/Context", {}, headers=headers)
    seen = json.loads(answer.json()["text"])
    assert seen["own-key"] == "own value"
    assert seen["raw-bin"] == "00ff"
    assert seen["authorization"] == "Bearer token"
    assert seen["traceparent"].startswith("00-0af7")
    assert seen["id"] == "mine" == answer.headers["x-request-id"]
    assert 40 < seen["time_remaining"] <= 50
    assert seen["peer"].startswith("ipv4:127.0.0.1:")
    assert "cookie" not in seen


@pytest.mark.parametrize(
    ("headers", "text"),
    [
        ({"grpc-metadata-a-bin": "!"}, "header 'grpc-metadata-a-bin': expected base64, since its key ends in '-bin'"),
        ({"grpc-metadata-a": b"\xe4"}, "header 'grpc-metadata-a': expected printable ASCII; "),
        ({"grpc-metadata-grpc-timeout": "1S"}, "header 'grpc-metadata-grpc-timeout': 'grpc-timeout' is no key that "),
        ({"grpc-metadata-a!b": "1"}, "header 'grpc-metadata-a!b': 'a!b' is no key that metadata may have"),
    ],
)
def test_headers_that_can_be_no_metadata(rest: Rest, headers: dict[str, Any], text: str) -> None:
    assert error(rest, "/kinds.v1.Kinds/Echo", {}, 400, headers=headers)["message"].startswith(text)


def test_a_servable_that_does_not_answer_the_service(rest: Rest) -> None:
    answer = rest.post("/kinds.v1.Kinds/Echo", {}, headers={"application": "other"})
    assert 400 <= answer.status_code < 500
    assert "other" in answer.json()["error"]["message"]


# -- streams -----------------------------------------------------------------------------------------------------------


def test_a_stream_of_answers(rest: Rest) -> None:
    for count in (0, 1, 1000):
        answer = rest.post("/kinds.v1.Kinds/Down", {"text": "t", "bigNumber": count})
        assert answer.status_code == 200
        assert answer.headers["content-type"] == "application/x-ndjson"
        assert answer.headers["grpc-metadata-first"] == "sent"
        assert "content-length" not in answer.headers
        numbers = [int(line.get("bigNumber", 0)) for line in lines(answer.text)]
        assert numbers == list(range(count))


def test_an_error_in_a_stream_is_its_last_line(rest: Rest) -> None:
    answer = rest.post("/kinds.v1.Kinds/Down", {"text": "fail", "bigNumber": 2})
    assert answer.status_code == 200
    *messages, last = lines(answer.text)
    assert len(messages) == 2
    assert last == {"error": {"code": 500, "status": "DATA_LOSS", "message": "half way"}}


def test_a_stream_that_is_given_up(rest: Rest) -> None:
    with rest.connect() as connection:
        body = b'{"text": "endless", "bigNumber": 10000000}'
        connection.sendall(head("/kinds.v1.Kinds/Down", f"Content-Length: {len(body)}") + body)
        assert connection.recv(100).startswith(b"HTTP/1.1 200 OK")
    # Its worker thread is free again, or this would have to wait for millions of messages.
    assert rest.post("/kinds.v1.Kinds/Echo", {"text": "x"}).json() == {"text": "x"}


def test_clients_that_stream_send_lines(rest: Rest) -> None:
    body = b'{"text": "a"}\n\n{"text": "b"}\r\n{"text": "c"}'
    assert rest.post("/kinds.v1.Kinds/Up", body).json() == {"text": "a b c", "bigNumber": "3"}
    assert rest.post("/kinds.v1.Kinds/Up", b"").json() == {}
    assert lines(rest.post("/kinds.v1.Kinds/Both", body).text) == [{"text": "A"}, {"text": "B"}, {"text": "C"}]
    found = error(rest, "/kinds.v1.Kinds/Up", b'{"text": "a"}\n{"text": }\n', 400)
    assert found["message"].startswith("line 2: the body is no kinds.v1.Ask in JSON: ")


def test_a_client_that_goes_cancels_its_rpc(rest: Rest, tmp_path: pathlib.Path) -> None:
    note = tmp_path / "note"
    body = json.dumps({"text": str(note)}).encode()
    with rest.connect() as connection:
        connection.sendall(head("/kinds.v1.Kinds/Wait", f"Content-Length: {len(body)}") + body)
        until(lambda: note.exists() and note.read_text() == "running")
    until(lambda: (tmp_path / "note.ended").exists())


def test_predict_goes_on_beside_it(rest: Rest) -> None:
    assert rest.ask("/model/kinds:same", {"x": "text"}) == [{"x": "text"}]


def test_servables_name_their_services(rest: Rest) -> None:
    (servable,) = rest.get("/servables").json()["servables"]
    assert servable["versions"][0]["services"] == ["kinds.v1.Kinds"]
