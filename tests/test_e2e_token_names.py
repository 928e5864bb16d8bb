"""What a client hears of servables that it may not call, and what it means who names none."""

from __future__ import annotations

from collections.abc import Iterator

import grpc
import pytest

from conftest import ECHO_SERVABLE
from e2e_support import status_of, write_servable
from mindserve.auth.keys import Keys, save_keys
from mindserve.proto import CLASSIFY, messages
from mindserve.proto.seldon import ClassificationReply, ClassificationRequest
from stubs import compile_protos
from tokens_support import DENIED, Tokens, client, serving

ASKS = "/who.Who/Asks"
NAMES = ("first", "second", "hidden", "behind")
PROTO = "package who; message Note { string text = 1; } service Who { rpc Asks(Note) returns (Note); }"
WHO = """
from who_pb2 import Note


@register.grpc_method
def Asks(request, grpc_context):
    return Note(text="NAME")


def classify(x):
    return x


@register.register_method(output_names="prediction")
def predict(x):
    return register.add_stage(classify, x, outputs_count=1)


register.classifier(method="predict", model_name="NAME")
"""


@pytest.fixture(scope="module")
def tokens(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tokens]:
    """Servables that all answer one service and the Classifier, the last behind a name that is split."""
    folder = tmp_path_factory.mktemp("names")
    for name in NAMES:
        write_servable(folder / "servables", name, ECHO_SERVABLE + WHO.replace("NAME", name))
        compile_protos(folder / "servables" / name, who=PROTO)
    keys = str(folder / "keys.yaml")
    clients = [
        client("one", servables=("second",)),
        client("two", servables=("first", "second")),
        client("none", servables=("elsewhere",)),
        client("split", servables=("front",)),
        client("all"),
    ]
    save_keys(Keys({each.key: each for each in clients}), keys)
    script = f"""
from mindserve import server
server.start_servables([server.ServableStartConfig({str(folder / "servables")!r}, name) for name in {NAMES!r}])
server.set_traffic("front", [server.Variation("only", "behind")])
auth = server.AuthConfig({keys!r})
functions = ["who_pb2_grpc.add_WhoServicer_to_server"]
print(*server.start_grpc_server("127.0.0.1:0", grpc_servicer_functions=functions, auth=auth), flush=True)
print(server.start_restful_server("127.0.0.1:0", auth=auth), flush=True)
"""
    with serving(folder / "run", script, keys) as found:
        yield found


def metadata_of(tokens: Tokens, key: str, *more: tuple[str, str]) -> tuple[tuple[str, str], ...]:
    return (("oauth_token", tokens.token(key)), *more)


def by_grpc(tokens: Tokens, path: str, *metadata: tuple[str, str]) -> bytes:
    request = b""
    if path == CLASSIFY:
        instance = messages.Instance()
        instance.items["x"].CopyFrom(messages.Tensor(dtype=12, data=b"\0" * 8))
        call = ClassificationRequest()
        call.data.Pack(instance)
        request = call.SerializeToString()
    reply = tokens.channel.unary_unary(path)(request, timeout=60, metadata=metadata)
    assert isinstance(reply, bytes)
    return reply


def by_http(tokens: Tokens, path: str, *headers: tuple[str, str]) -> tuple[int, str]:
    path, body = ("/js/predict", {"data": {"x": 1.0}}) if path == CLASSIFY else (path, {})
    answer = tokens.rest.post(path, body, headers=dict(headers))
    return answer.status_code, answer.text


@pytest.mark.parametrize("path", [ASKS, CLASSIFY])
@pytest.mark.parametrize(("key", "servable"), [("one", "second"), ("split", "behind")])
def test_who_names_nobody_means_the_only_one_that_it_may_call(
    tokens: Tokens, key: str, servable: str, path: str
) -> None:
    """As Seldon's clients, which are told apart by their keys and don't know of `application`."""
    metadata = metadata_of(tokens, key)
    reply = by_grpc(tokens, path, *metadata)
    if path == CLASSIFY:
        assert ClassificationReply.FromString(reply).meta.modelName == servable
    else:
        assert servable.encode() in reply
    status, text = by_http(tokens, path, *metadata)
    assert (status, f'"{servable}"' in text) == (200, True), text


@pytest.mark.parametrize("path", [ASKS, CLASSIFY])
@pytest.mark.parametrize(
    ("key", "application", "code", "status"),
    [
        ("two", "", grpc.StatusCode.NOT_FOUND, 404),
        ("none", "", DENIED, 403),
        ("none", "hidden", DENIED, 403),
        ("none", "elsewhere", grpc.StatusCode.NOT_FOUND, 404),
    ],
)
def test_texts_name_nothing_that_the_client_may_not_call(
    tokens: Tokens, key: str, application: str, code: grpc.StatusCode, status: int, path: str
) -> None:
    metadata = metadata_of(tokens, key, *([("application", application)] if application else []))
    told, text = status_of(lambda: by_grpc(tokens, path, *metadata))
    shown, body = by_http(tokens, path, *metadata)
    assert (told, shown) == (code, status), (text, body)
    may = {"two": {"first", "second"}, "none": {application}}[key]
    for words in (text, body):
        assert {name for name in (*NAMES, "front") if f"'{name}'" in words} <= may, words
        assert key != "two" or "'first', 'second'" in words
        assert key == "two" or "which there is" not in words


def test_the_document_shows_what_the_client_may_call(tokens: Tokens) -> None:
    def document(key: str) -> tuple[str, str]:
        headers = dict(metadata_of(tokens, key))
        answer = tokens.rest.get("/openapi.json", headers=headers)
        again = tokens.rest.get("/openapi.json", headers={**headers, "if-none-match": answer.headers["etag"]})
        assert (answer.status_code, again.status_code) == (200, 304)
        assert "private" in answer.headers["cache-control"]
        return answer.text, answer.headers["etag"]

    whole, etag = document("all")
    assert all(f"/model/{name}:" in whole for name in (*NAMES, "front"))
    for key, names in (("one", {"second"}), ("two", {"first", "second"}), ("split", {"front"}), ("none", set())):
        text, own = document(key)
        assert {name for name in (*NAMES, "front") if f"/model/{name}" in text} == names
        assert own != etag
        assert (f'"{ASKS}"' in text, '"/js/predict"' in text) == (bool(names), bool(names))
        assert not [name for name in NAMES if f'"{name}"' in text and name not in names]
    assert document("all") == (whole, etag)
