"""Tokens and metadata of calls to users' services, and their copies: where they are found, and where not."""

from __future__ import annotations

import json
import os
import pathlib
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import grpc
import numpy as np
import pytest
import requests

import stubs
from answering_support import generated as generated
from certificates import Files
from conftest import ServerProcess, children
from e2e_support import request, server_process, status_of, tensor, until, write_servable
from mindserve.auth.hashing import hash_secret
from mindserve.auth.keys import ClientKey, Keys, save_keys
from mindserve.auth.signing import signing_path
from mindserve.proto import PREDICT
from sanitizers import needs_limited_addresses

SECRET = "planted-consumer-secret-4711"
METADATA = "planted-metadata-value"
QUERY = "planted-query-string"
HEADER = "planted-http-header"

# Keeps all that it is told of its callers, and writes it to a file.
CONFIG = """
import json
from kinds_pb2 import Answer
from mindserve.server import register

kept = []


def echo(x):
    return x


@register.register_method(output_names="x")
def same(x):
    return register.add_stage(echo, x, outputs_count=1)


def told(context):
    kept.append([(str(key), str(value)) for key, value in context.invocation_metadata()])
    with open(@SEEN@, "a") as stream:
        stream.write(json.dumps(kept[-1]) + "\\n")
    return Answer(text=json.dumps(kept[-1]))


@register.grpc_service("kinds.Kinds")
class Kinds:
    async def One(self, request, grpc_context):
        answer = told(grpc_context)
        if request.text == "raise":
            raise ValueError("my own text")
        return answer

    async def Down(self, request, grpc_context):
        yield told(grpc_context)

    async def Both(self, requests, grpc_context):
        async for request in requests:
            yield told(grpc_context)
"""


@dataclass
class Planted:
    folder: pathlib.Path
    process: ServerProcess
    address: str
    url: str
    files: Files
    token: str

    def seen(self, servable: str) -> list[dict[str, str]]:
        """The metadata of each call that its handlers were told of."""
        path = self.folder / f"seen by {servable}"
        return [dict(json.loads(line)) for line in path.read_text().splitlines()] if path.exists() else []

    def hidden(self) -> list[str]:
        """Parts of what no worker may ever have had: tokens, secrets, and keys."""
        key = pathlib.Path(self.files.server_key).read_text(encoding="ascii").splitlines()
        signing = pathlib.Path(signing_path(str(self.folder / "keys.yaml"))).read_text(encoding="utf-8")
        found = [self.token, self.token.split(".")[2], SECRET]
        found += [line for line in key if "-----" not in line and len(line) > 16]
        found += [word.strip("\"',") for word in signing.split() if len(word.strip("\"',")) >= 32]
        assert len(found) > 5, signing
        return found


@pytest.fixture(scope="module")
def planted(
    tmp_path_factory: pytest.TempPathFactory, own_files: Files, generated: tuple[Any, Any]
) -> Iterator[Planted]:
    """A server that says as much as it can; of each call to "who" the servable "copy" gets a copy."""
    folder = tmp_path_factory.mktemp("planted")
    for name in ("who", "copy"):
        write_servable(folder / "servables", name, CONFIG.replace("@SEEN@", repr(str(folder / f"seen by {name}"))))
        stubs.generate(folder / "servables" / name)
    keys = str(folder / "keys.yaml")
    save_keys(Keys({"app": ClientKey(key="app", secrets=(hash_secret(SECRET),))}), keys)
    script = f"""
import sys
from mindserve import server
from mindserve.server import Mirror, Variation

tls = server.SSLConfig({own_files.server!r}, {own_files.server_key!r})
auth = server.AuthConfig({keys!r})
server.start_servables([server.ServableStartConfig({str(folder / "servables")!r}, name) for name in ("who", "copy")])
server.set_traffic("split", [Variation("a", "who", weight=1)], sticky="x-own", mirrors=[Mirror("copy", fraction=1)])
services = ["kinds_pb2_grpc.add_KindsServicer_to_server"]
print(*server.start_grpc_server("localhost:0", ssl_config=tls, auth=auth, grpc_servicer_functions=services), flush=True)
print(server.start_restful_server("127.0.0.1:0", ssl_config=tls, auth=auth), flush=True)
for _ in sys.stdin:
    print(repr(server.stats().as_dict()), flush=True)
"""
    with server_process(folder / "run", script, GLOG_v="0") as process:
        address, rest = process.line(), process.line()
        url = f"https://localhost:{rest.rsplit(':', 1)[1]}"
        form = {"consumer_key": "app", "consumer_secret": SECRET}
        token = asked(own_files, "GET", f"{url}/token", params=form).json()["access_token"]
        yield Planted(folder, process, address.replace("127.0.0.1", "localhost"), url, own_files, token)


def asked(files: Files, method: str, url: str, **options: Any) -> requests.Response:
    with requests.Session() as session:
        session.trust_env = False  # which may name another bundle
        session.verify = files.ca
        return session.request(method, url, timeout=60, **options)


@pytest.fixture(scope="module")
def said(planted: Planted, generated: tuple[Any, Any]) -> tuple[list[str], list[str]]:
    """Calls of each kind, right and wrong: what handlers have answered, and all else that was said."""
    own = (
        ("authorization", f"Bearer {planted.token}"),
        ("x-own", METADATA),
        ("x-own-bin", METADATA.encode()),
        ("application", "split"),
    )
    twice = (*own, ("oauth_token", planted.token))
    ask = generated[0].Ask
    answers: list[bytes] = []
    others: list[object] = []
    credentials = grpc.ssl_channel_credentials(pathlib.Path(planted.files.ca).read_bytes())
    with grpc.secure_channel(planted.address, credentials) as channel:
        one = channel.unary_unary("/kinds.Kinds/One")
        for metadata in (own, twice):
            answers.append(one(ask().SerializeToString(), timeout=60, metadata=metadata))
            answers += channel.unary_stream("/kinds.Kinds/Down")(b"", timeout=60, metadata=metadata)
            answers += channel.stream_stream("/kinds.Kinds/Both")(iter([b"", b""]), timeout=60, metadata=metadata)
        failing = ask(text="raise").SerializeToString()
        others.append(status_of(lambda: one(failing, timeout=60, metadata=own)))
        others.append(status_of(lambda: one(b"\xff", timeout=60, metadata=own)))
        nowhere = (*own[:3], ("application", "nowhere"))
        others.append(status_of(lambda: one(b"", timeout=60, metadata=nowhere)))
        large = (*own, ("x-large", METADATA * 1000))
        others.append(status_of(lambda: one(b"", timeout=60, metadata=large)))
        message = request("split", "same", {"x": tensor(1)}).SerializeToString()
        others.append(channel.unary_unary(PREDICT)(message, timeout=60, metadata=own))

    headers = {"grpc-metadata-x-own": METADATA, "x-own": HEADER, "application": "split"}
    bearer = {**headers, "authorization": f"Bearer {planted.token}"}
    for text in ("", "raise"):
        answer = asked(
            planted.files, "POST", f"{planted.url}/kinds.Kinds/One?q={QUERY}", json={"text": text}, headers=bearer
        )
        (others if text else answers).append(answer.text.encode())
    url = f"{planted.url}/kinds.Kinds/One?oauth_token={planted.token}"
    answers.append(asked(planted.files, "POST", url, json={}, headers=headers).content)
    others.append(asked(planted.files, "POST", url, data=b"{", headers=headers).content)

    planted.process.tell("statistics")
    others.append(planted.process.line())
    for command in (["status", "--json"], ["status", "--once"], ["traffic", "show"]):
        done = subprocess.run(
            [sys.executable, "-m", "mindserve", *command, "--pid", str(planted.process.pid)],
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        others.append(done.stdout + done.stderr)
    return [answer.decode(errors="replace") for answer in answers], [repr(each) for each in others]


def test_handlers_are_told_what_the_client_sent_but_its_token(
    planted: Planted, said: tuple[list[str], list[str]]
) -> None:
    """Those that answer, and those that get copies."""
    answers, _ = said
    assert len(answers) == 10
    assert all(METADATA in answer and planted.token not in answer for answer in answers)
    seen = planted.seen("who")
    assert len(seen) >= len(answers)
    # Streams are not copied.
    copies = until(lambda: planted.seen("copy"), lambda found: len(found) >= 6)
    for metadata in (*seen, *copies):
        assert metadata["x-own"] == METADATA
        assert not {"authorization", "oauth_token"} & set(metadata)
        assert planted.token not in repr(metadata)


def test_planted_secrets_are_found_nowhere(planted: Planted, said: tuple[list[str], list[str]]) -> None:
    _, others = said
    process = planted.process
    until(lambda: planted.seen("copy"), lambda found: len(found) >= 6)
    until(lambda: "ValueError: my own text" in logs_of(process))
    places = {"the logs": logs_of(process) + process.errors()}
    places |= {f"answer {number}": text for number, text in enumerate(others)}
    for pid in (process.pid, *process.workers()):
        for name in ("cmdline", "environ"):
            places[f"{name} of {pid}"] = pathlib.Path(f"/proc/{pid}/{name}").read_bytes().decode(errors="replace")
    hidden = [*planted.hidden(), METADATA, QUERY, HEADER]
    assert [(place, secret) for place, text in places.items() for secret in hidden if secret in text] == []


def logs_of(process: ServerProcess) -> str:
    """What the workers have logged."""
    paths = list((process.cwd / "serving_logs").rglob("*.log"))
    assert len(paths) >= 2
    return "".join(path.read_text(encoding="utf-8", errors="replace") for path in paths)


def memory(pid: int) -> Iterator[bytes]:
    """What a core file of a process would have: each part of what it could write, or shares, as far as it is there."""
    size = os.sysconf("SC_PAGE_SIZE")
    with open(f"/proc/{pid}/mem", "rb", 0) as mem, open(f"/proc/{pid}/pagemap", "rb", 0) as pages:
        for line in pathlib.Path(f"/proc/{pid}/maps").read_text().splitlines():
            span, rights, *_ = line.split()
            begin, end = (int(number, 16) for number in span.split("-"))
            if (rights[1] != "w" and rights[3] != "s") or "[v" in line:
                continue
            pages.seek(begin // size * 8)
            entries = np.frombuffer(pages.read((end - begin) // size * 8), np.uint64)
            there = np.concatenate([[False], (entries >> np.uint64(62)) != 0, [False]])
            # Where runs of pages begin and end.
            for first, last in np.flatnonzero(there[1:] != there[:-1]).reshape(-1, 2):
                mem.seek(begin + int(first) * size)
                yield mem.read(int(last - first) * size)


@needs_limited_addresses
def test_a_core_file_of_a_worker_would_have_no_token(planted: Planted, said: tuple[list[str], list[str]]) -> None:
    """Nor any key. It has what handlers were told: or else nothing would be found here, whatever there is."""
    workers = children(planted.process.pid)
    assert len(workers) == 2
    hidden = {secret.encode() for secret in planted.hidden()}
    looked_for = {*hidden, METADATA.encode()}
    for pid in workers:
        found = {secret for part in memory(pid) for secret in looked_for if secret in part}
        assert found == {METADATA.encode()}
