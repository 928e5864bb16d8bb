"""Keys, secrets, tokens and what clients send along: planted, and searched for wherever they must not be."""

from __future__ import annotations

import contextlib
import os
import pathlib
import signal
import socket
import ssl
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass

import grpc
import pytest
import requests

import certificates
from certificates import Files
from conftest import ECHO_SERVABLE, ServerProcess, children
from e2e_support import request, server_process, status_of, tensor, until, write_servable
from mindserve.auth.hashing import hash_secret
from mindserve.auth.keys import ClientKey, Keys, save_keys
from mindserve.auth.signing import signing_path
from mindserve.proto import CLASSIFY, PREDICT, PREDICT_STREAM

SECRET = "planted-consumer-secret-4711"
WRONG = "planted-wrong-secret-0815"
METADATA = "planted-metadata-value"
QUERY = "planted-query-string"
HEADER = "planted-http-header"
PASSPHRASE = "password"
HEALTH_CHECK = "/grpc.health.v1.Health/Check"
REFLECTION = "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo"

RAISES = (
    ECHO_SERVABLE
    + """

def fail(x):
    raise ValueError("my own text")


@register.register_method(output_names="x")
def failing(x):
    return register.add_stage(fail, x, outputs_count=1)
"""
)
# What a debugger or the kernel would be told.
DUMPABLE = "import ctypes\nprint(ctypes.CDLL(None).prctl(3), flush=True)\n"


@dataclass
class Planted:
    process: ServerProcess
    address: str
    url: str
    files: Files
    keys: str

    def secrets(self) -> list[str]:
        """What is known before anybody calls: each in the form in which it would be seen."""
        found = [SECRET, WRONG, METADATA, QUERY, HEADER]
        key = pathlib.Path(self.files.server_key).read_text(encoding="ascii").splitlines()
        found += [line for line in key if "-----" not in line and len(line) > 16]
        signing = pathlib.Path(signing_path(self.keys)).read_text(encoding="utf-8")
        found += [word.strip("\"',") for word in signing.split() if len(word.strip("\"',")) >= 32]
        assert len(found) > 7, signing
        return found


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory, own_files: Files) -> Iterator[Planted]:
    """A server that says as much as it can, with TLS and tokens on both of its ports."""
    folder = tmp_path_factory.mktemp("secrets")
    write_servable(folder / "servables", "echo", RAISES)
    keys = str(folder / "keys.yaml")
    save_keys(Keys({"app": ClientKey(key="app", secrets=(hash_secret(SECRET),))}), keys)
    script = f"""
from mindserve import server
tls = server.SSLConfig({own_files.server!r}, {own_files.server_key!r})
auth = server.AuthConfig({keys!r})
server.start_servables(server.ServableStartConfig({str(folder / "servables")!r}, "echo"))
print(*server.start_grpc_server("localhost:0", ssl_config=tls, auth=auth), flush=True)
print(server.start_restful_server("127.0.0.1:0", ssl_config=tls, auth=auth), flush=True)
{DUMPABLE}"""
    with server_process(folder / "run", script, GLOG_v="0") as process:
        address, rest = process.line(), process.line()
        assert process.line() == "0"
        port = rest.rsplit(":", 1)[1]
        yield Planted(process, address, f"https://localhost:{port}", own_files, keys)


def everything_is_sent(planted: Planted) -> tuple[str, list[str]]:
    """Calls of each kind, right and wrong. The token, and what was answered but for the token."""
    said: list[str] = []
    session = requests.Session()
    session.trust_env = False  # which may name another bundle
    session.verify = planted.files.ca

    def ask(method: str, path: str, **options: object) -> requests.Response:
        answer = session.request(method, planted.url + path, timeout=60, **options)  # type: ignore[arg-type]
        said.append(answer.text + str(answer.headers))
        return answer

    token = session.get(
        planted.url + "/token", params={"consumer_key": "app", "consumer_secret": SECRET}, timeout=60
    ).json()["access_token"]
    bearer = {"authorization": f"Bearer {token}"}
    ask("GET", "/token", params={"consumer_key": "app", "consumer_secret": WRONG})
    ask("POST", "/token", data={"grant_type": "client_credentials"}, auth=("app", WRONG))
    body = {"instances": [{"x": 1}]}
    for method in ("same", "failing", "nowhere"):
        ask("POST", f"/model/echo:{method}?q={QUERY}", json=body, headers={**bearer, "x-own": HEADER})
    ask("POST", f"/model/echo:same?oauth_token={QUERY}", json=body)
    ask("POST", f"/model/echo:same?oauth_token={token}", data=b"{", headers={"x-own": HEADER})
    ask("POST", "/model/echo:same", json=body, headers={"authorization": f"Bearer {WRONG}"})
    ask("GET", f"/nowhere?{QUERY}", headers=bearer)
    host, port = planted.url.removeprefix("https://").split(":")
    with socket.create_connection((host, int(port)), timeout=60) as plain:
        plain.sendall(f"GET /?{QUERY} HTTP/1.1\r\nhost: x\r\nx-own: {HEADER}\r\n\r\n".encode())
        with contextlib.suppress(OSError):
            plain.recv(65536)

    # What is refused before there is a request.
    context = ssl.create_default_context(cafile=planted.files.ca)
    token_query = f"consumer_key={QUERY}&consumer_secret={SECRET}"
    for line in (
        f"GET http://[?{token_query} HTTP/1.1",
        f"GET /token?{token_query} HTTP/9.9",
        f"GET /token?{token_query} HTTP/1.1\r\n{HEADER}",
        f"GET /token?{token_query} HTTP/1.1\r\nx-own: {HEADER * 1000}",
        f"GET /token?{token_query} HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n{SECRET}",
    ):
        plain = socket.create_connection((host, int(port)), timeout=60)
        with context.wrap_socket(plain, server_hostname="localhost") as secure:
            secure.sendall(f"{line}\r\n\r\n".encode())
            said.append(repr(secure.recv(65536)))

    credentials = grpc.ssl_channel_credentials(pathlib.Path(planted.files.ca).read_bytes())
    with grpc.secure_channel(planted.address.replace("127.0.0.1", "localhost"), credentials) as channel:
        call = channel.unary_unary(PREDICT)
        own = ("authorization", f"Bearer {token}"), ("x-own", METADATA), ("x-own-bin", METADATA.encode())
        for method in ("same", "failing", "nowhere"):
            said.append(repr(call(request("echo", method, {"x": tensor(1)}).SerializeToString(), metadata=own)))
        message = request("echo", "same", {"x": tensor(1)}).SerializeToString()
        for wrong in (
            (("authorization", f"Bearer {WRONG}"), ("x-own", METADATA)),
            (("oauth_token", token[:-4] + "AAAA"), ("x-own", METADATA)),
            (("authorization", f"Basic {WRONG}"),),
            (*own, ("x-large", METADATA * 1000)),
        ):
            said.append(repr(status_of(lambda wrong=wrong: call(message, timeout=60, metadata=wrong))))
        said.append(repr(status_of(lambda: call(b"\xff" * 100, timeout=60, metadata=own))))
        for path in ("/no/where", CLASSIFY, HEALTH_CHECK):
            said.append(repr(status_of(lambda path=path: channel.unary_unary(path)(b"\xff", timeout=60, metadata=own))))
        said.append(repr(list(channel.unary_stream(PREDICT_STREAM)(message, timeout=60, metadata=own))))
        asked = channel.stream_stream(REFLECTION)(iter([b"\x3a\x00"]), timeout=60, metadata=own)
        said.append(repr(list(asked)))
    for command in ("status", "reload"):
        done = subprocess.run(
            [sys.executable, "-m", "mindserve", command, str(planted.process.pid)],
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        said.append(done.stdout + done.stderr)
    return token, said


def test_planted_secrets_are_found_nowhere(planted: Planted) -> None:
    token, said = everything_is_sent(planted)
    hidden = [*planted.secrets(), token, token.split(".")[2]]
    process = planted.process
    logs = [path for path in process.cwd.rglob("*") if path.is_file()]
    assert any(path.parent.name == "serving_logs" for path in logs)
    # The most verbose there is: whatever is to be written is written by now, or soon.
    until(lambda: "[DEBUG]" in process.errors())
    places = {"the master's log": process.errors(), **{str(path): path.read_text() for path in logs}}
    for number, text in enumerate(said):
        places[f"answer {number}"] = text
    workers = children(process.pid)
    assert workers
    for pid in (process.pid, *workers):
        for name in ("cmdline", "environ"):
            places[f"{name} of {pid}"] = pathlib.Path(f"/proc/{pid}/{name}").read_bytes().decode(errors="replace")
    found = [(place, secret) for place, text in places.items() for secret in hidden if secret in text]
    assert found == []


def test_secrets_are_in_files_that_only_the_user_reads(planted: Planted) -> None:
    for path in (planted.keys, signing_path(planted.keys)):
        assert os.stat(path).st_mode & 0o077 == 0
    # Nor is the secret itself in one of them.
    assert SECRET not in pathlib.Path(planted.keys).read_text()


def test_a_key_that_is_encrypted_is_refused_without_its_text(own_files: Files, tmp_path: pathlib.Path) -> None:
    key = tmp_path / "encrypted.key"
    certificates.encrypt_key(own_files.server_key, key)
    write_servable(tmp_path / "servables", "echo", ECHO_SERVABLE)
    script = f"""
from mindserve import server
try:
    server.start_grpc_server("127.0.0.1:0", ssl_config=server.SSLConfig({own_files.server!r}, {str(key)!r}))
except RuntimeError as error:
    print(repr(str(error)), flush=True)
server.stop()
"""
    with server_process(tmp_path / "run", script, GLOG_v="0") as process:
        text = process.line()
        assert process.wait() == 0
        said = text + process.errors()
    assert str(key) in text
    assert PASSPHRASE not in said.replace("passphrase", "").replace("without a password", "")
    assert not any(line in said for line in key.read_text().splitlines() if "-----" not in line)


KEYED = {
    "gRPC with TLS": "server.start_grpc_server('127.0.0.1:0', ssl_config=tls)",
    "gRPC with tokens": "server.start_grpc_server('127.0.0.1:0', auth=auth)",
    "REST with TLS": "server.start_restful_server('127.0.0.1:0', ssl_config=tls)",
    "REST with tokens": "server.start_restful_server('127.0.0.1:0', auth=auth)",
}


@pytest.mark.parametrize("start", KEYED)
def test_a_process_with_keys_leaves_no_core(own_files: Files, tmp_path: pathlib.Path, start: str) -> None:
    """Whatever the limit is, and wherever cores go."""
    keys = str(tmp_path / "keys.yaml")
    save_keys(Keys({"app": ClientKey(key="app", secrets=(hash_secret(SECRET),))}), keys)
    script = f"""
import resource
_, hard = resource.getrlimit(resource.RLIMIT_CORE)
resource.setrlimit(resource.RLIMIT_CORE, (hard, hard))
from mindserve import server
{DUMPABLE}
tls = server.SSLConfig({own_files.server!r}, {own_files.server_key!r})
auth = server.AuthConfig({keys!r})
{KEYED[start]}
{DUMPABLE}"""
    with server_process(tmp_path / "run", script) as process:
        assert process.line() == "1"
        assert process.line() == "0"
        process.send(signal.SIGSEGV)
        ended = os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        assert ended is not None
        assert ended.si_status == signal.SIGSEGV
        assert ended.si_code == os.CLD_KILLED  # not CLD_DUMPED
        assert list(process.cwd.glob("core*")) == []


def test_a_process_without_keys_may_be_looked_into(tmp_path: pathlib.Path) -> None:
    script = f"from mindserve import server\nserver.start_grpc_server('127.0.0.1:0')\n{DUMPABLE}server.stop()\n"
    with server_process(tmp_path / "run", script) as process:
        assert process.line() == "1"
        assert process.wait() == 0
