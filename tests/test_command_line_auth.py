"""Tokens by the command line: ``mindserve start --auth``, and what ``validate`` tells of the files."""

from __future__ import annotations

import json
import pathlib
from typing import Any

import pytest
import requests

from command_line import Shell
from conftest import ECHO_SERVABLE
from e2e_support import write_servable
from mindserve.auth.signing import signing_path

CONFIG = """
servables:
  - {directory: servables, name: echo}
grpc: {address: "127.0.0.1:0"}
auth:
  keys: keys.yaml
"""


@pytest.fixture
def shell(tmp_path: pathlib.Path) -> Shell:
    write_servable(tmp_path / "servables", "echo", ECHO_SERVABLE)
    return Shell(tmp_path)


def test_start_with_keys(shell: Shell) -> None:
    made = shell.json("keys", "add", "app", "--file", "keys.yaml")
    options = ["--grpc-port", 0, "--rest-port", 0, "--auth", "keys.yaml", "--json"]
    with shell.serving("start", "--servable", "servables/echo", *options) as server:
        url = json.loads(server.line())["rest"]

        def post(**headers: str) -> requests.Response:
            return requests.post(f"{url}/model/echo:same", json={"instances": [{"x": 1}]}, headers=headers, timeout=60)

        assert post().status_code == 401
        form = {"grant_type": "client_credentials", "client_id": "app", "client_secret": made["consumer_secret"]}
        token = requests.post(f"{url}/token", data=form, timeout=60).json()["access_token"]
        assert post(authorization=f"Bearer {token}").json() == {"instances": [{"x": 1}]}
        assert server.stop() == 0


def test_start_tells_what_is_wrong_before_anything_starts(shell: Shell) -> None:
    def error(*arguments: object) -> str:
        done = shell.run("start", "--servable", "servables/echo", *arguments)
        assert done.returncode == 1, done.stdout
        return " ".join(done.stderr.split())

    assert "--auth: the keys file" in error("--auth", "none.yaml")
    assert "can't be read: No such file" in error("--auth", "none.yaml")
    keys = shell.directory / "keys.yaml"
    keys.write_text("clients: []\n", encoding="utf-8")
    keys.chmod(0o666)
    assert "has permissions 0666" in error("--auth", keys)
    keys.chmod(0o600)
    assert "tokens would come over plain TCP" in error("--auth", keys, "--grpc-address", "0.0.0.0:0")
    assert not (shell.directory / "serving_logs").exists()


def validate(shell: Shell, text: str = CONFIG) -> dict[str, Any]:
    (shell.directory / "serve.yaml").write_text(text, encoding="utf-8")
    done = shell.run("validate", "serve.yaml", "--no-imports", "--json")
    report: dict[str, Any] = json.loads(done.stdout)
    assert done.returncode == (0 if report["valid"] else 1)
    return report


def test_validate_reads_the_keys_file(shell: Shell) -> None:
    keys = shell.directory / "keys.yaml"

    def problem() -> str:
        (found,) = validate(shell)["problems"]
        assert (found["line"], found["key"]) == (6, "auth.keys")
        assert str(keys) in found["text"]
        return str(found["text"])

    assert "can't be read: No such file" in problem()
    keys.write_text("clients:\n  - key: app\n    secrets: [geheim]\n", encoding="utf-8")
    keys.chmod(0o644)
    assert "has permissions 0644" in problem()
    keys.chmod(0o600)
    assert "geheim" not in problem(), "what could be a secret is not shown"
    assert "line 3" in problem()
    keys.write_text("clients:\n  - {key: app, rate: -1}\n", encoding="utf-8")
    assert "'rate' of client 'app' should be 0 to" in problem()
    keys.write_text("clients:\n  - {key: app}\n  - {key: app}\n", encoding="utf-8")
    assert "client 'app' is given twice" in problem()
    keys.write_text("clients: []\n", encoding="utf-8")
    report = validate(shell)
    assert report["valid"]
    assert report["warnings"] == [f"{keys} lists no clients: nobody may call until 'mindserve keys add' adds one"]
    keys.write_text("clients:\n  - {key: app}\n", encoding="utf-8")
    assert validate(shell)["warnings"] == []
    signing = pathlib.Path(signing_path(str(keys)))
    assert not signing.exists(), "nothing is made"
    signing.write_text("{}", encoding="utf-8")
    signing.chmod(0o600)
    assert str(signing) in problem()


def test_validate_reads_an_outside_issuers_keys(shell: Shell) -> None:
    shell.json("keys", "add", "app", "--file", "keys.yaml")
    text = CONFIG + "  jwks: issuer.json\n  issuer: https://login.example.org\n"
    (found,) = validate(shell, text)["problems"]
    assert (found["line"], found["key"]) == (7, "auth.jwks")
    assert "issuer.json" in found["text"]
    # What is wrong with the section itself is told once, and its files are not looked at.
    (found,) = validate(shell, CONFIG + "  jwks: issuer.json\n")["problems"]
    assert "belong together" in found["text"]
