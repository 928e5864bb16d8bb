"""Tokens end to end: got by HTTP, shown by gRPC and by HTTP, and what each bad one gets."""

from __future__ import annotations

import concurrent.futures
import pathlib
from typing import Any

import grpc
import jwt
import pytest
import requests

import certificates
from command_line import Shell
from conftest import ECHO_SERVABLE
from e2e_support import request, server_process, status_of, tensor, until, write_servable
from mindserve.auth.keys import ClientKey, Keys, save_keys
from mindserve.certs import make_certificates
from mindserve.client import Client
from mindserve.proto import PREDICT
from rest_support import head
from tokens_support import EXHAUSTED, OK, SECRET, UNAUTHENTICATED, Tokens, client, unsigned
from tokens_support import tokens as tokens

# -- getting them ------------------------------------------------------------------------------------------------------


def test_a_token_by_the_query(tokens: Tokens) -> None:
    answer = tokens.ask("app")
    assert answer.status_code == 200
    assert answer.headers["cache-control"] == "no-store"
    body = answer.json()
    assert (body["token_type"], body["expires_in"]) == ("Bearer", 3600)
    assert jwt.decode(body["access_token"], options={"verify_signature": False})["sub"] == "app"


def test_a_query_of_too_many_fields_is_the_clients_error(tokens: Tokens) -> None:
    answer = tokens.post(query="?" + "a=1&" * 101)
    assert (answer.status_code, answer.json()["error_msg"]) == (
        400,
        "the query has more than 100 fields, among which no token is looked for",
    )


def test_a_token_by_a_form(tokens: Tokens) -> None:
    form = {"grant_type": "client_credentials", "client_id": "app", "client_secret": SECRET}
    by_form = tokens.rest.session.post(tokens.rest.url + "/token", data=form, timeout=60)
    only_grant = {"grant_type": "client_credentials"}
    by_basic = tokens.rest.session.post(tokens.rest.url + "/token", data=only_grant, auth=("app", SECRET), timeout=60)
    for answer in (by_form, by_basic):
        assert answer.status_code == 200, answer.text
        tokens.call([("oauth_token", answer.json()["access_token"])])


@pytest.mark.parametrize(
    ("form", "status", "error"),
    [
        ({}, 400, "invalid_request"),
        ({"grant_type": "password", "client_id": "app", "client_secret": SECRET}, 400, "unsupported_grant_type"),
        ({"grant_type": "client_credentials"}, 400, "invalid_request"),
        ({"grant_type": "client_credentials", "client_id": "app", "client_secret": "wrong"}, 401, "invalid_client"),
        ({"grant_type": "client_credentials", "client_id": "nobody", "client_secret": "x"}, 401, "invalid_client"),
        (
            {"grant_type": "client_credentials", "client_id": ["app", "app"], "client_secret": SECRET},
            400,
            "invalid_request",
        ),
        (
            {"grant_type": "client_credentials", "client_id": "a" * 20_000, "client_secret": SECRET},
            413,
            "invalid_request",
        ),
    ],
)
def test_a_form_that_gets_no_token(tokens: Tokens, form: dict[str, Any], status: int, error: str) -> None:
    answer = tokens.rest.session.post(tokens.rest.url + "/token", data=form, timeout=60)
    assert answer.status_code == status, answer.text
    assert answer.json()["error"] == error
    assert answer.json()["error_description"]
    assert ("www-authenticate" in answer.headers) == (status == 401)
    assert "access_token" not in answer.json()


@pytest.mark.parametrize(
    ("query", "status"),
    [
        ("", 400),
        ("?consumer_key=app", 400),
        ("?consumer_key=app&consumer_secret=", 400),
        ("?consumer_key=app&consumer_secret=wrong", 401),
        ("?consumer_key=app&consumer_secret=%ff", 400),
        ("?consumer_key", 400),
    ],
)
def test_a_query_that_gets_no_token(tokens: Tokens, query: str, status: int) -> None:
    assert tokens.rest.get("/token" + query).status_code == status


@pytest.mark.parametrize("value", ["Basic", "Basic !", "Basic YXBw", "Bearer x", "Basic \u00ff"])
def test_a_wrong_basic_header_gets_no_token(tokens: Tokens, value: str) -> None:
    headers = {"authorization": value.encode("latin-1"), "content-type": "application/x-www-form-urlencoded"}
    url = tokens.rest.url + "/token"
    answer = tokens.rest.session.post(url, data="grant_type=client_credentials", headers=headers, timeout=60)
    assert (answer.status_code, answer.json()["error"]) == (401, "invalid_client")


def test_another_body_than_a_form_gets_no_token(tokens: Tokens) -> None:
    answer = tokens.rest.post("/token", {"grant_type": "client_credentials"})
    assert (answer.status_code, answer.json()["error"]) == (400, "invalid_request")


def test_who_fails_too_often_has_to_wait(tokens: Tokens) -> None:
    refused = 0
    while (answer := tokens.ask("guessed", "wrong")).status_code == 401:
        refused += 1
        assert refused < 50  # more than ten, where guessing is so slow that some are allowed again meanwhile
    assert refused >= 10
    assert answer.status_code == 429
    assert int(answer.headers["retry-after"]) >= 1
    tokens.token("app")  # others go on


def test_secrets_and_tokens_are_not_logged(tokens: Tokens) -> None:
    token = tokens.token("app")
    tokens.call([("oauth_token", token)])
    tokens.post(query=f"?oauth_token={token}")
    tokens.ask("app", "wrong and secret")
    logged = tokens.rest.process.errors()
    assert "a request for a token was refused: consumer key 'app'" in logged
    for hidden in (token, token.split(".")[2], SECRET, "wrong and secret", "consumer_secret"):
        assert hidden not in logged


# -- showing them ------------------------------------------------------------------------------------------------------


def test_a_token_opens_grpc_and_http(tokens: Tokens) -> None:
    token = tokens.token("app")
    for metadata in (
        ("oauth_token", token),
        ("authorization", f"Bearer {token}"),
        ("authorization", f"bearer {token}"),
    ):
        assert tokens.call([metadata])
    for headers in ({"oauth_token": token}, {"authorization": f"Bearer {token}"}):
        answer = tokens.post(headers=headers)
        assert (answer.status_code, answer.json()) == (200, {"instances": [{"x": 1}]})
    assert tokens.post(query=f"?oauth_token={token}").json() == {"instances": [{"x": 1}]}


def test_the_command_line_takes_it_from_a_file(tokens: Tokens, tmp_path: pathlib.Path) -> None:
    """So that it is on no command line."""
    path = tmp_path / "token"
    path.write_text(tokens.token("app") + "\n", encoding="ascii")
    call = ("infer", tokens.address, "echo", "same", "x=1", "--metadata", "own=1")
    assert Shell(tmp_path).json(*call, "--token-file", str(path)) == [{"x": [1]}]
    refused = Shell(tmp_path / "other").run(*call)
    assert refused.returncode == 1
    assert "unauthenticated" in refused.stderr


def test_health_is_open_to_all(tokens: Tokens) -> None:
    assert tokens.rest.get("/healthz/live").status_code == 200
    assert tokens.rest.get("/healthz/ready").status_code == 200
    assert tokens.channel.unary_unary("/grpc.health.v1.Health/Check")(b"", timeout=60) is not None


def test_without_a_token_nothing_is_answered(tokens: Tokens) -> None:
    code, text = tokens.status()
    assert code == UNAUTHENTICATED
    assert "the call carries no token" in text
    for path in ("/servables", "/nothing", "/healthz/../servables"):
        answer = tokens.rest.get(path)
        assert answer.status_code == 401, path
        assert answer.headers["www-authenticate"] == "Bearer"
    answer = tokens.post()
    assert answer.status_code == 401
    assert "the request carries no token" in answer.json()["error_msg"]


def test_http_is_refused_before_the_body_comes(tokens: Tokens) -> None:
    with tokens.rest.connect() as connection:
        connection.sendall(head("/model/echo:same", "Content-Length: 1000000"))
        connection.settimeout(30)
        assert connection.recv(4096).startswith(b"HTTP/1.1 401")


@pytest.mark.parametrize("token", ["not-a-token", "a.b", "a.b.c.d", "a.b.c", "..", "a.b.!", "a" * 8193, "a b.c.d"])
def test_a_malformed_token_has_one_text(tokens: Tokens, token: str) -> None:
    for name, value in (("oauth_token", token), ("authorization", f"Bearer {token}")):
        code, text = tokens.status((name, value))
        assert (code, text.startswith("the token ")) == (UNAUTHENTICATED, True)
        answer = tokens.post(headers={name: value})
        assert (answer.status_code, answer.json()) == (401, {"error_msg": text})
        assert answer.headers["www-authenticate"] == 'Bearer error="invalid_token"'


def test_each_bad_token_gets_its_answer(tokens: Tokens) -> None:
    good = tokens.token("app")
    head_part, body, signature = good.split(".")
    cases = {
        tokens.forge(exp=1_700_000_001): "has expired on 2023-11-14",
        tokens.forge(key=b"k" * 32): "signature is wrong",
        f"{head_part}.{body}.{'B' if signature[0] == 'A' else 'A'}{signature[1:]}": "signature is wrong",
        tokens.forge(iss="https://evil"): "is of another issuer, 'https://evil'",
        unsigned(): "is not signed: its 'alg' is 'none'",
        tokens.forge(sub="nobody"): "client 'nobody', which is not known",
        "not-a-token": "the token is no JWT",
        "a.b.c": "the token is no JWT",
        "a." * 2 + "a" * 8192: "expected at most 8192",
    }
    for token, text in cases.items():
        code, details = tokens.status(("authorization", f"Bearer {token}"))
        assert (code, text in details) == (UNAUTHENTICATED, True), details
        answer = tokens.post(headers={"authorization": f"Bearer {token}"})
        assert (answer.status_code, text in answer.json()["error_msg"]) == (401, True), answer.text
    code, details = tokens.status(("authorization", f"Basic {good}"))
    assert (code, "the scheme 'Basic', expected 'Bearer'" in details) == (UNAUTHENTICATED, True)
    answer = tokens.post(headers={"authorization": f"Basic {good}"})
    assert (answer.status_code, "the scheme 'Basic'" in answer.text) == (401, True)


def test_handlers_see_no_tokens(tokens: Tokens) -> None:
    token = tokens.token("app")
    ask = tokens.channel.unary_unary("/who.Who/Asks")
    metadata = (("authorization", f"Bearer {token}"), ("other", "value"))
    told = ask(b"", timeout=60, metadata=metadata).decode("utf-8", "replace")
    assert '"other": "value"' in told
    by_http = tokens.rest.post("/who.Who/Asks?oauth_token=" + token, {}).json()["text"]
    for text in (told, by_http):
        assert "authorization" not in text
        assert "oauth_token" not in text
        assert token not in text
    code, _ = status_of(lambda: ask(b"", timeout=60))
    assert code == UNAUTHENTICATED
    assert tokens.rest.post("/who.Who/Asks", {}).status_code == 401


# -- while it runs -----------------------------------------------------------------------------------------------------


def test_a_client_that_is_revoked_while_running(tokens: Tokens) -> None:
    token = tokens.token("leaving")
    headers = {"oauth_token": token}
    tokens.call([("oauth_token", token)])
    assert tokens.post(headers=headers).status_code == 200
    tokens.change(lambda keys: keys.with_client(client("leaving", revoked=True)))

    def refused() -> bool:
        try:
            tokens.call([("oauth_token", token)])
        except grpc.RpcError as error:
            assert error.code() == UNAUTHENTICATED  # type: ignore[attr-defined]
            assert "client 'leaving' has been revoked" in str(error)
            return True
        return False

    until(refused)
    until(lambda: tokens.post(headers=headers).status_code == 401)
    assert tokens.ask("leaving").status_code == 401
    tokens.call([("oauth_token", tokens.token("app"))])


def test_a_client_that_comes_while_running(tokens: Tokens) -> None:
    assert tokens.ask("late").status_code == 401
    tokens.change(lambda keys: keys.with_client(client("late")))
    until(lambda: tokens.ask("late").status_code == 200)
    tokens.call([("oauth_token", tokens.token("late"))])


def test_a_torn_or_open_keys_file_changes_nothing(tokens: Tokens) -> None:
    token = tokens.token("app")
    path = pathlib.Path(tokens.keys)
    good = path.read_bytes()
    try:
        path.write_bytes(good[: len(good) // 2] + b"\n  - {")
        until(lambda: "new keys are not taken in, those in use are kept" in tokens.rest.process.errors())
        tokens.call([("oauth_token", token)])
        assert tokens.ask("app").status_code == 200
        path.write_bytes(good)
        path.chmod(0o666)
        until(lambda: "has permissions 0666" in tokens.rest.process.errors())
        tokens.call([("oauth_token", tokens.token("app"))])
    finally:
        path.chmod(0o600)
        path.write_bytes(good)


def test_a_flood_of_bad_tokens_holds_up_nobody(tokens: Tokens) -> None:
    token = tokens.token("app")
    call = tokens.channel.unary_unary(PREDICT)
    message = request("echo", "same", {"x": tensor(1)}).SerializeToString()
    flood = [
        call.future(message, timeout=60, metadata=[("oauth_token", tokens.forge(key=b"k" * 32, jti=str(number)))])
        for number in range(300)
    ]
    for _ in range(20):
        tokens.call([("oauth_token", token)])
    assert {each.code() for each in flood} <= {UNAUTHENTICATED, EXHAUSTED}
    tokens.call([("oauth_token", tokens.token("app"))])  # one that nobody has seen


def test_a_flood_of_bad_tokens_by_http_holds_up_nobody(tokens: Tokens) -> None:
    headers = {"oauth_token": tokens.token("app")}

    def forged(number: int) -> int:
        text = tokens.forge(key=b"k" * 32, jti=f"http {number}")
        return requests.post(f"{tokens.rest.url}/model/echo:same", json=OK, headers={"oauth_token": text}).status_code

    with concurrent.futures.ThreadPoolExecutor(16) as pool:
        flood = pool.map(forged, range(200))
        for _ in range(20):
            assert tokens.post(headers=headers).status_code == 200
        assert set(flood) == {401}


def test_no_token_ends_the_verification_of_others(tokens: Tokens) -> None:
    """Half a surrogate pair, which the refusal would repeat, can't be sent."""
    call = tokens.channel.unary_unary(PREDICT)
    message = request("echo", "same", {"x": tensor(1)}).SerializeToString()
    for number in range(10):
        forged = tokens.forge(iss="\ud800", jti=f"surrogate {number}")
        with pytest.raises(grpc.RpcError) as error:
            call(message, timeout=60, metadata=[("oauth_token", forged)])
        assert error.value.code() is UNAUTHENTICATED  # type: ignore[attr-defined]
        assert "another issuer, '\\ud800'" in error.value.details()  # type: ignore[attr-defined]
        assert tokens.post(headers={"oauth_token": forged}).status_code == 401
    tokens.call([("oauth_token", tokens.token("app"))])


# -- starting ----------------------------------------------------------------------------------------------------------


def test_a_server_does_not_start_where_tokens_are_not_safe(tmp_path: pathlib.Path) -> None:
    save_keys(Keys({"app": client("app")}), str(tmp_path / "keys.yaml"))
    (tmp_path / "open.yaml").write_text("clients: []")
    (tmp_path / "open.yaml").chmod(0o602)
    script = f"""
from mindserve import server

def tell(start, *arguments, **options):
    try:
        start(*arguments, **options)
    except server_errors as error:
        print(str(error).replace(chr(10), " "), flush=True)
    else:
        print("started", flush=True)

from mindserve.errors import MindserveError as server_errors
auth = server.AuthConfig({str(tmp_path / "keys.yaml")!r})
for start in (server.start_grpc_server, server.start_restful_server):
    tell(start, "0.0.0.0:0", auth=auth)
    tell(start, "127.0.0.1:0", auth=server.AuthConfig({str(tmp_path / "open.yaml")!r}))
    tell(start, "127.0.0.1:0", auth=server.AuthConfig({str(tmp_path / "none.yaml")!r}))
    tell(start, "127.0.0.1:0", auth="keys.yaml")
tell(server.start_grpc_server, "127.0.0.1:0", auth=auth)
tell(server.start_restful_server, "127.0.0.1:0")
other = server.AuthConfig({str(tmp_path / "keys.yaml")!r}, token_lifetime=9)
tell(server.start_restful_server, "127.0.0.1:0", auth=other)
tell(server.start_restful_server, "127.0.0.1:0", auth=auth)
server.stop()
"""
    with server_process(tmp_path / "run", script) as process:
        for _ in range(2):
            assert "could be read on the way" in process.line()
            assert "has permissions 0602" in process.line()
            assert "No such file" in process.line()
            assert "'auth' should be AuthConfig" in process.line()
        assert process.line() == "started"
        for _ in range(2):
            assert "'auth' of start_restful_server is different from that of start_grpc_server" in process.line()
        assert process.line() == "started"
        assert process.wait() == 0


def test_a_config_file_asks_for_tokens(tmp_path: pathlib.Path) -> None:
    shell = Shell(tmp_path / "shell")
    write_servable(tmp_path / "shell", "echo", ECHO_SERVABLE)
    secret = shell.json("keys", "add", "app", "--servable", "echo")["consumer_secret"]
    config = "servables: [{directory: ., name: echo}]\ngrpc: {port: 0}\nrest: {port: 0}\nauth: {keys: keys.yaml}\n"
    (tmp_path / "shell" / "config.yaml").write_text(config, encoding="utf-8")
    with shell.serving("run", "config.yaml") as server:
        address, url = server.address(), server.address()
        form = {"grant_type": "client_credentials"}
        answer = requests.post(url + "/token", data=form, auth=("app", secret), timeout=60)
        assert answer.status_code == 200, answer.text
        token = answer.json()["access_token"]
        assert requests.post(url + "/model/echo:same", json=OK, timeout=60).status_code == 401
        headers = {"authorization": f"Bearer {token}"}
        assert requests.post(url + "/model/echo:same", json=OK, headers=headers, timeout=60).json() == OK
        with Client(address, "echo", "same") as client:
            assert "the call carries no token" in str(client.infer({"x": 1}))
            assert client.infer({"x": 1}, metadata=[("oauth_token", token)]) == [{"x": 1}]
        assert server.stop() == 0


def test_a_client_certificate_stands_for_a_token(tmp_path: pathlib.Path) -> None:
    make_certificates(tmp_path / "certs")
    files = certificates.files_in(tmp_path / "certs")
    write_servable(tmp_path / "servables", "echo", ECHO_SERVABLE)
    keys = str(tmp_path / "keys.yaml")
    save_keys(Keys({"app": ClientKey(key="app", certificates=("client",))}), keys)
    script = f"""
from mindserve import server
server.start_servables(server.ServableStartConfig({str(tmp_path / "servables")!r}, "echo"))
tls = server.SSLConfig({files.server!r}, {files.server_key!r}, custom_ca={files.ca!r}, verify_client=True)
auth = server.AuthConfig({keys!r})
print(*server.start_grpc_server("127.0.0.1:0", ssl_config=tls, auth=auth), flush=True)
print(server.start_restful_server("127.0.0.1:0", ssl_config=tls, auth=auth), flush=True)
"""
    with server_process(tmp_path / "run", script) as process:
        address, rest = process.line(), process.line()
        read = {name: pathlib.Path(getattr(files, name)).read_bytes() for name in ("ca", "client", "client_key")}
        credentials = grpc.ssl_channel_credentials(read["ca"], read["client_key"], read["client"])
        message = request("echo", "same", {"x": tensor(1)}).SerializeToString()
        with grpc.secure_channel(address, credentials) as channel:

            def call(*metadata: tuple[str, str]) -> Any:
                return channel.unary_unary(PREDICT)(message, timeout=60, metadata=metadata)

            def post() -> requests.Response:
                cert = (files.client, files.client_key)
                url = f"https://{rest}/model/echo:same"
                return requests.post(url, json=OK, verify=files.ca, cert=cert, timeout=60)

            assert call()
            assert post().json() == {"instances": [{"x": 1}]}
            # A token that is shown counts, not the certificate.
            assert status_of(lambda: call(("oauth_token", "a.b.c")))[0] == UNAUTHENTICATED
            save_keys(Keys({"app": ClientKey(key="app", certificates=("other",))}), keys)
            until(lambda: post().status_code == 401)
            code, text = status_of(call)
            assert (code, "no client is known by the names" in text) == (UNAUTHENTICATED, True)
