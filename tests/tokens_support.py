"""A server that asks for tokens, by gRPC and by HTTP, with clients of all kinds; and what they send."""

from __future__ import annotations

import base64
import contextlib
import json
import pathlib
from collections.abc import Callable, Iterator
from typing import Any

import grpc
import jwt
import pytest
import requests

from conftest import BLOCKING_SERVABLE, ECHO_SERVABLE
from e2e_support import request, server_process, status_of, tensor, write_servable
from mindserve.auth.hashing import hash_secret
from mindserve.auth.keys import ClientKey, Keys, load_keys, save_keys
from mindserve.auth.signing import load_signing_keys, signing_path
from mindserve.proto import PREDICT
from rest_support import Rest
from stubs import compile_protos

SECRET = "a secret of theirs"
PROTO = "package who; message Note { string text = 1; } service Who { rpc Asks(Note) returns (Note); }"
# A handler that tells what it has been told of its caller.
WHO = (
    ECHO_SERVABLE
    + """
import json
from who_pb2 import Note


@register.grpc_method
def Asks(request, grpc_context):
    return Note(text=json.dumps(dict(grpc_context.invocation_metadata())))
"""
)
DENIED = grpc.StatusCode.PERMISSION_DENIED
EXHAUSTED = grpc.StatusCode.RESOURCE_EXHAUSTED
UNAUTHENTICATED = grpc.StatusCode.UNAUTHENTICATED
OK = {"instances": [{"x": 1}]}


class Tokens:
    """A server that asks for tokens, by gRPC and by HTTP."""

    def __init__(self, rest: Rest, address: str, keys: str) -> None:
        self.rest = rest
        self.keys = keys
        self.address = address
        self.channel = grpc.insecure_channel(address)

    def ask(self, key: str, secret: str = SECRET) -> requests.Response:
        return self.rest.get("/token", params={"consumer_key": key, "consumer_secret": secret})

    def token(self, key: str, secret: str = SECRET) -> str:
        answer = self.ask(key, secret)
        assert answer.status_code == 200, answer.text
        return str(answer.json()["access_token"])

    def call(self, metadata: Any = (), servable: str = "echo") -> bytes:
        message = request(servable, "same", {"x": tensor(1)}).SerializeToString()
        reply = self.channel.unary_unary(PREDICT)(message, timeout=60, metadata=metadata)
        assert isinstance(reply, bytes)
        return reply

    def status(self, *metadata: tuple[str, str], servable: str = "echo") -> tuple[grpc.StatusCode, str]:
        return status_of(lambda: self.call(metadata, servable))

    def post(self, servable: str = "echo", headers: dict[str, str] | None = None, query: str = "") -> requests.Response:
        return self.rest.post(f"/model/{servable}:same{query}", OK, headers=headers or {})

    def change(self, change: Callable[[Keys], Keys]) -> None:
        save_keys(change(load_keys(self.keys)), self.keys)

    def forge(self, key: bytes | None = None, **claims: Any) -> str:
        own = load_signing_keys(signing_path(self.keys)).keys[0]
        whole = {"iss": "mindserve", "sub": "app", "iat": 1_700_000_000, "exp": 4_000_000_000, "jti": "1", **claims}
        return jwt.encode(whole, own.key if key is None else key, "HS256", headers={"kid": own.kid})


def client(key: str, **options: Any) -> ClientKey:
    return ClientKey(key=key, secrets=(hash_secret(SECRET),), **options)


def unsigned() -> str:
    parts = [{"alg": "none"}, {"iss": "mindserve", "sub": "app", "exp": 4_000_000_000}]
    return ".".join(base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=").decode() for part in parts) + "."


@contextlib.contextmanager
def serving(folder: pathlib.Path, script: str, keys: str) -> Iterator[Tokens]:
    """A server of a start script that prints its addresses: gRPC's, then HTTP's."""
    with server_process(folder, script) as process:
        address = process.line()
        rest = Rest(process, process.line())
        found = Tokens(rest, address, keys)
        try:
            yield found
        finally:
            found.channel.close()
            rest.close()


@pytest.fixture(scope="module")
def tokens(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tokens]:
    folder = tmp_path_factory.mktemp("tokens")
    for name in ("echo", "other"):
        write_servable(folder / "servables", name, WHO if name == "echo" else ECHO_SERVABLE)
    write_servable(folder / "servables", "block", BLOCKING_SERVABLE)
    compile_protos(folder / "servables" / "echo", who=PROTO)
    keys = str(folder / "keys.yaml")
    clients = [
        client("app"),
        client("narrow", servables=("echo",)),
        client("outside", servables=("split",)),
        client("rated", rate=0.001, burst=2),
        client("rated2", rate=0.001, burst=1),
        client("renewing", rate=5, burst=1),
        client("busy", max_in_flight=2),
        client("leaving"),
        client("renewed"),
    ]
    save_keys(Keys({each.key: each for each in clients}), keys)
    script = f"""
from mindserve import server
names = ("echo", "other", "block")
server.start_servables([server.ServableStartConfig({str(folder / "servables")!r}, name) for name in names])
server.set_traffic("split", [server.Variation("a", "other"), server.Variation("b", "other", version=1)])
auth = server.AuthConfig({keys!r})
functions = ["who_pb2_grpc.add_WhoServicer_to_server"]
print(*server.start_grpc_server("127.0.0.1:0", grpc_servicer_functions=functions, auth=auth), flush=True)
print(server.start_restful_server("127.0.0.1:0", auth=auth), flush=True)
"""
    with serving(folder / "run", script, keys) as found:
        yield found
