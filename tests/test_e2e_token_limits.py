"""What the client that a token stands for may call, how often, and how much at a time, over gRPC and HTTP."""

from __future__ import annotations

import concurrent.futures
import os
import pathlib
from typing import Any

import grpc
import pytest
import requests

from e2e_support import request, server_process, tensor, until, write_servable
from mindserve.auth.keys import Keys, save_keys
from mindserve.proto import PREDICT
from rest_support import Rest, head, read_answer
from stubs import compile_protos
from tokens_support import DENIED, EXHAUSTED, PROTO, SECRET, WHO, Tokens, client
from tokens_support import tokens as tokens


@pytest.mark.parametrize(
    ("key", "path", "headers"),
    [
        ("narrow", "/model/other:same", ()),
        ("narrow", "/model/other/version/1:same", ("Expect: 100-continue",)),
        ("narrow", "/model/%ff:same", ()),
        ("narrow", "/who.Who/Asks", ("application: other",)),
        ("outside", "/who.Who/Asks", ()),
        ("outside", "/who.Who/Asks", ("application: \u00e9",)),
        ("outside", "/model/other:same", ()),
    ],
)
def test_what_a_client_may_not_call_is_refused_before_the_body_comes(
    tokens: Tokens, key: str, path: str, headers: tuple[str, ...]
) -> None:
    with tokens.rest.connect() as connection:
        own = f"oauth_token: {tokens.token(key)}"
        connection.sendall(head(path, own, "Content-Length: 1000000", *headers))
        connection.settimeout(30)
        answer = read_answer(connection)
    text = answer.json["error"]["message"] if path.startswith("/who") else answer.json["error_msg"]
    # Who names nobody is told of nobody.
    names_one = headers or path.startswith("/model")
    denied = f"client '{key}' may not call servable '" if names_one else f"client '{key}' may call no servable"
    assert (answer.status, denied in text) == (403, True)


def test_a_client_reaches_only_its_servables(tokens: Tokens) -> None:
    token = tokens.token("narrow")
    tokens.call([("oauth_token", token)])
    code, text = tokens.status(("oauth_token", token), servable="other")
    assert (code, "client 'narrow' may not call servable 'other'" in text) == (DENIED, True)
    headers = {"oauth_token": token}
    assert tokens.post(headers=headers).status_code == 200
    denied = tokens.post("other", headers)
    assert (denied.status_code, "may not call servable 'other'" in denied.json()["error_msg"]) == (403, True)
    listed = tokens.rest.get("/servables", headers=headers).json()["servables"]
    assert [each["name"] for each in listed] == ["echo"]
    assert tokens.rest.get("/servables/other", headers=headers).status_code == 404
    everything = tokens.rest.get("/servables", headers={"oauth_token": tokens.token("app")}).json()["servables"]
    assert [each["name"] for each in everything] == ["block", "echo", "other", "split"]


def test_a_name_that_is_split_is_allowed_by_itself(tokens: Tokens) -> None:
    """Who may call it needs no permission for its variations, and who may call those none for it."""
    headers = {"oauth_token": tokens.token("outside")}
    message = request("split", "same", {"x": tensor(1)}).SerializeToString()
    said = set()
    for _ in range(2):
        _, call = tokens.channel.unary_unary(PREDICT).with_call(message, timeout=60, metadata=tuple(headers.items()))
        said.add(dict(call.trailing_metadata())["mindserve-variation"])
    assert said == {"a", "b"}
    answers = [tokens.post("split", headers) for _ in range(2)]
    assert [answer.status_code for answer in answers] == [200, 200]
    assert {answer.headers["mindserve-variation"] for answer in answers} == said
    code, text = tokens.status(*headers.items(), servable="other")
    assert (code, "client 'outside' may not call servable 'other'" in text) == (DENIED, True)
    assert tokens.post("other", headers).status_code == 403
    listed = tokens.rest.get("/servables", headers=headers).json()["servables"]
    assert [each["name"] for each in listed] == ["split"]
    narrow = {"oauth_token": tokens.token("narrow")}
    code, text = tokens.status(*narrow.items(), servable="split")
    assert (code, "client 'narrow' may not call servable 'split'" in text) == (DENIED, True)
    denied = tokens.post("split", narrow)
    assert denied.status_code == 403
    assert "mindserve-variation" not in denied.headers


def test_a_client_keeps_to_its_rate_over_both(tokens: Tokens) -> None:
    token = tokens.token("rated")
    tokens.call([("oauth_token", token)])
    assert tokens.post(headers={"oauth_token": token}).status_code == 200
    text = "client 'rated' makes more calls than its rate of 0.001 a second (burst 2) allows"
    with pytest.raises(grpc.RpcError) as refused:
        tokens.call([("oauth_token", token)])
    error: Any = refused.value
    assert (error.code(), error.details()) == (EXHAUSTED, text)
    assert 900_000 < int(dict(error.trailing_metadata())["grpc-retry-pushback-ms"]) <= 1_000_000
    answer = tokens.post(headers={"oauth_token": token})
    assert (answer.status_code, answer.json()) == (429, {"error_msg": text})
    assert 900 < int(answer.headers["retry-after"]) <= 1000
    rpc = tokens.rest.post("/who.Who/Asks", {}, headers={"oauth_token": token})
    error_object = {"code": 429, "status": "RESOURCE_EXHAUSTED", "message": text}
    assert (rpc.status_code, rpc.json()) == (429, {"error": error_object})
    assert int(rpc.headers["retry-after"]) > 900
    tokens.call([("oauth_token", tokens.token("app"))])  # others go on


def test_a_client_at_its_rate_is_refused_whichever_way_it_came_first(tokens: Tokens) -> None:
    token = tokens.token("rated2")
    assert tokens.post(headers={"oauth_token": token}).status_code == 200
    code, text = tokens.status(("oauth_token", token))
    assert (code, text) == (
        EXHAUSTED,
        "client 'rated2' makes more calls than its rate of 0.001 a second (burst 1) allows",
    )


def test_a_rate_is_one_of_time(tokens: Tokens) -> None:
    """Who has waited is answered again."""
    headers = {"oauth_token": tokens.token("renewing")}
    for _ in range(3):
        until(lambda: tokens.post(headers=headers).status_code == 200)


def test_a_client_keeps_to_its_calls_at_a_time_over_both(tokens: Tokens, tmp_path: pathlib.Path) -> None:
    headers = {"oauth_token": tokens.token("busy")}
    first, second = tmp_path / "first", tmp_path / "second"
    for fifo in (first, second):
        os.mkfifo(fifo)
    text = "client 'busy' has 2 calls under way, as many as its max_in_flight allows"

    def by_grpc() -> Any:
        message = request("block", "method", {"fifo": tensor(str(first))}).SerializeToString()
        return tokens.channel.unary_unary(PREDICT).future(message, timeout=120, metadata=tuple(headers.items()))

    def by_http() -> requests.Response:
        body = {"instances": [{"fifo": str(second)}]}
        url = f"{tokens.rest.url}/model/block:method"
        # What this test asks meanwhile counts too, for a moment.
        return until(
            lambda: requests.post(url, json=body, headers=headers, timeout=120),
            lambda answer: answer.status_code == 200,
        )

    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        one = by_grpc()
        assert first.read_text() == "running"
        assert tokens.post(headers=headers).status_code == 200  # there is room for another
        other = pool.submit(by_http)
        until(lambda: tokens.post(headers=headers).status_code == 429)
        # Over by either way, for Predict and for RPCs.
        with pytest.raises(grpc.RpcError) as refused:
            tokens.call(tuple(headers.items()))
        error: Any = refused.value
        assert (error.code(), error.details()) == (EXHAUSTED, text)
        assert dict(error.trailing_metadata())["grpc-retry-pushback-ms"] == "100"
        answer = tokens.post(headers=headers)
        assert (answer.status_code, answer.json(), answer.headers["retry-after"]) == (429, {"error_msg": text}, "1")
        rpc = tokens.rest.post("/who.Who/Asks", {}, headers=headers)
        error_object = {"code": 429, "status": "RESOURCE_EXHAUSTED", "message": text}
        assert (rpc.status_code, rpc.json()) == (429, {"error": error_object})
        tokens.call([("oauth_token", tokens.token("app"))])  # others go on
        # What ends makes room.
        first.write_text("done")
        assert b"done" in one.result(timeout=60)
        until(lambda: tokens.post(headers=headers).status_code == 200)
        assert second.read_text() == "running"
        second.write_text("done too")
        assert other.result().json() == {"instances": [{"text": "done too"}]}
        # And what is given up.
        for _ in range(3):
            under_way: list[Any] = []

            def is_full(calls: list[Any] = under_way) -> bool:
                calls[:] = [call for call in calls if not call.done()]
                calls.extend(by_grpc() for _ in range(2 - len(calls)))
                return tokens.post(headers=headers).status_code == 429

            until(is_full)
            for call in under_way:
                call.cancel()
            until(lambda: tokens.post(headers=headers).status_code == 200)


def test_a_name_that_is_split_stands_for_its_servables_where_none_is_named(tmp_path: pathlib.Path) -> None:
    write_servable(tmp_path / "servables", "old", WHO)
    compile_protos(tmp_path / "servables" / "old", who=PROTO)
    keys = str(tmp_path / "keys.yaml")
    save_keys(Keys({"outside": client("outside", servables=("whose",))}), keys)
    script = f"""
from mindserve import server
server.start_servables(server.ServableStartConfig({str(tmp_path / "servables")!r}, "old"))
server.set_traffic("whose", [server.Variation("a", "old"), server.Variation("b", "old", version=1)])
print(server.start_restful_server("127.0.0.1:0", auth=server.AuthConfig({keys!r})), flush=True)
functions = ["who_pb2_grpc.add_WhoServicer_to_server"]
server.start_grpc_server("127.0.0.1:0", grpc_servicer_functions=functions, auth=server.AuthConfig({keys!r}))
print("both", flush=True)
"""
    with server_process(tmp_path / "run", script) as process:
        rest = Rest(process, process.line())
        assert process.line() == "both"
        answer = rest.get("/token", params={"consumer_key": "outside", "consumer_secret": SECRET})
        headers = {"oauth_token": answer.json()["access_token"]}
        asked = rest.post("/who.Who/Asks", {"text": "x"}, headers=headers)
        assert asked.status_code == 200, asked.text
        denied = rest.post("/who.Who/Asks", {"text": "x"}, headers={**headers, "application": "old"})
        assert (denied.status_code, "may not call servable 'old'" in denied.text) == (403, True)
        rest.close()
