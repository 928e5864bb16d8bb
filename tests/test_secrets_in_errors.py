"""Files that are given in the wrong place, or are damaged: the errors say which, and repeat nothing of them."""

from __future__ import annotations

import base64
import json
import pathlib
import traceback
from collections.abc import Callable

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ed25519
from typer.testing import CliRunner

import certificates
from certificates import Files
from mindserve import client
from mindserve.auth.hashing import hash_secret
from mindserve.certs import make_certificates, revoke_certificates
from mindserve.cli import app
from mindserve.configfile.load import load
from mindserve.errors import MindserveError
from mindserve.tls import SSLConfig, load_server_tls

SECRET = "planted-consumer-secret-4711"


def words(key: str) -> list[str]:
    """What must not be seen of a private key: any of its lines, or eight letters from the middle of one."""
    lines = [line for line in key.splitlines() if "-----" not in line and len(line) >= 32]
    assert lines
    return [line[8:16] for line in lines]


def shown(error: BaseException) -> str:
    """With its causes and context, as an error that nobody catches is printed."""
    return "".join(traceback.format_exception(error)).replace("\\n", "\n")


def as_it_is(key: str) -> bytes:
    return key.encode()


def cut(key: str) -> bytes:
    return key[: len(key) // 2].encode()


def letters_changed(key: str) -> bytes:
    lines = key.splitlines()
    return "\n".join([lines[0], lines[1][::-1], *lines[2:]]).encode()


def without_begin(key: str) -> bytes:
    return "\n".join(key.splitlines()[1:]).encode()


def of_another_kind(key: str) -> bytes:
    return key.replace("PRIVATE KEY", "CERTIFICATE").encode()


def in_der(key: str) -> bytes:
    return base64.b64decode("".join(line for line in key.splitlines() if "-----" not in line))


DAMAGES = (as_it_is, cut, letters_changed, without_begin, of_another_kind, in_der)


def refused(make: Callable[[], object]) -> str:
    with pytest.raises(MindserveError) as caught:
        make()
    return shown(caught.value)


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("parameter", ["certificate", "private_key", "custom_ca", "crl"])
def test_a_key_in_the_place_of_a_servers_file(
    own_files: Files, tmp_path: pathlib.Path, parameter: str, damage: Callable[[str], bytes]
) -> None:
    key = pathlib.Path(own_files.client_key).read_text()  # which is not the certificate's
    path = tmp_path / "given.pem"
    path.write_bytes(damage(key))
    good = {"certificate": own_files.server, "private_key": own_files.server_key, "custom_ca": own_files.ca}
    config = SSLConfig(**{**good, parameter: str(path)}, verify_client=True)  # type: ignore[arg-type]
    text = refused(lambda: load_server_tls(config))
    assert str(path) in text
    assert parameter in text
    assert [word for word in words(key) if word in text] == []
    assert repr(in_der(key)[8:16])[2:-1] not in text


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("parameter", ["certificate", "private_key", "custom_ca"])
def test_a_key_in_the_place_of_a_clients_file(
    own_files: Files, tmp_path: pathlib.Path, parameter: str, damage: Callable[[str], bytes]
) -> None:
    key = pathlib.Path(own_files.server_key).read_text()
    path = tmp_path / "given.pem"
    path.write_bytes(damage(key))
    good = {"certificate": own_files.client, "private_key": own_files.client_key, "custom_ca": own_files.ca}
    config = client.SSLConfig(**{**good, parameter: str(path)})
    text = refused(lambda: client.Client("localhost:1", "a", "b", ssl_config=config))
    assert str(path) in text
    assert parameter in text
    assert [word for word in words(key) if word in text] == []


@pytest.mark.parametrize("parameter", ["certificate", "private_key", "custom_ca", "crl"])
def test_pem_text_in_the_place_of_a_path(own_files: Files, tmp_path: pathlib.Path, parameter: str) -> None:
    """An error that says which file is missing would repeat the key."""
    key = pathlib.Path(own_files.server_key).read_text()
    arguments = {"certificate": "c", "private_key": "k", "custom_ca": "a", parameter: key}
    server = refused(lambda: SSLConfig(**arguments, verify_client=True))  # type: ignore[arg-type]
    texts = [server]
    if parameter != "crl":
        texts.append(refused(lambda: client.SSLConfig(**arguments)))
    for text in texts:
        assert f"Parameter '{parameter}' should be the path of a file in PEM form, but is PEM text itself" in text
    file = tmp_path / "config.yaml"
    for style in (json.dumps(key), "|\n" + "".join(f"        {line}\n" for line in key.splitlines())):
        entries = "".join(f"\n      {name}: {value}" for name, value in arguments.items() if name != parameter)
        file.write_text(
            f"servables: [{{directory: m, name: a}}]\ngrpc:\n  address: a:1\n"
            f"  ssl_config:\n      verify_client: true{entries}\n      {parameter}: {style}\n"
        )
        text = refused(lambda: load(str(file)))
        assert f"'grpc.ssl_config.{parameter}' is PEM text itself: expected the path of a file" in text
        texts.append(text)
    for text in texts:
        assert [word for word in words(key) if word in text] == []


def told_of(path: pathlib.Path) -> str:
    """What the commands that take a config say of a file, in all their ways."""
    said = ""
    for command in (["run"], ["validate"], ["validate", "--json"]):
        done = CliRunner().invoke(app, [*command, str(path)])
        assert done.exit_code != 0
        assert isinstance(done.exception, MindserveError | SystemExit)
        said += done.output + shown(done.exception) + "\n"
    return said


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("kind", ["RSA or EC", "Ed25519"])
def test_a_key_in_the_place_of_a_config(
    own_files: Files, tmp_path: pathlib.Path, kind: str, damage: Callable[[str], bytes]
) -> None:
    key = pathlib.Path(own_files.server_key).read_text()
    if kind == "Ed25519":  # so short that it is one line
        encoding, form = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
        private = ed25519.Ed25519PrivateKey.generate()
        key = private.private_bytes(encoding, form, serialization.NoEncryption()).decode()
    path = tmp_path / "config.yaml"
    path.write_bytes(damage(key))
    text = told_of(path)
    assert "expected" in text or "may not stand in YAML" in text
    assert [word for word in words(key) if word in text] == []
    assert [line for line in key.splitlines()[1:-1] if line[::-1][8:16] in text] == []


@pytest.mark.parametrize(
    "content",
    [
        SECRET,
        f'"{SECRET}"',
        f"Bearer {SECRET}",
        f"user:{SECRET}",
        f"*{SECRET}",
        f"&{SECRET}",
        f"!{SECRET}",
        f"!{SECRET} {{a: b}}",
        f"%{SECRET}",
        f"@{SECRET}",
        f"{SECRET}: b: c",
        f"a: !{SECRET} b",
        f"a: *{SECRET}",
        f"- {SECRET}\n- a",
        f"[{SECRET}",
        f"{{{SECRET}",
        f"a\n---\n{SECRET}",
        f"password: {SECRET}",
        f"password: {SECRET}\npassword: {SECRET}",
        f"<<: {SECRET}",
        f"<<: !{SECRET} a",
        f"machine localhost\nlogin a\npassword {SECRET}: b\n",
        json.dumps({"keys": [{"kty": "oct", "k": SECRET}]}),
        json.dumps({"auths": {"localhost": {"auth": SECRET}}}, indent=2),
        json.dumps({"auths": {"localhost": {"auth": SECRET}}}, indent=2)[:-1],
        f"\u0001{SECRET}",
        f"{SECRET} \t\u0001",
        f"servables: []\npassword: {SECRET}\n",
        f"servables: []\ngrpc: {{port: {SECRET[:-1]}, token: {SECRET}}}\n".replace(SECRET[:-1], "1"),
        json.dumps({"servables": [], "token": SECRET, "tokens": SECRET}),
    ],
)
def test_a_token_in_the_place_of_a_config(tmp_path: pathlib.Path, content: str) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(content)
    assert "planted" not in told_of(path)


@pytest.mark.parametrize(
    "config",
    [
        "servables: [{directory: GIVEN, name: a}]",
        "servables: [{directory: m, name: GIVEN}]",
        "servables: [{directory: m, name: a, start_timeout: GIVEN}]",
        "servables: [{directory: m, name: a, GIVEN: a}]",
        "servables: [{directory: m, name: a}]\ngrpc: {address: GIVEN}",
        "servables: [{directory: m, name: a}]\ngrpc: GIVEN",
        "servables: [{directory: m, name: a}]\ngrpc: {grpc_servicer_functions: [GIVEN]}",
        "servables: [{directory: m, name: a}]\nauth: {keys: GIVEN}",
        "servables: [{directory: m, name: a}]\nauth: {jwks: GIVEN}",
        "servables: GIVEN",
    ],
)
def test_pem_text_anywhere_in_a_config(own_files: Files, tmp_path: pathlib.Path, config: str) -> None:
    key = pathlib.Path(own_files.server_key).read_text()
    path = tmp_path / "config.yaml"
    for given in (key, "\n".join(key.splitlines()[1:])):
        path.write_text(config.replace("GIVEN", json.dumps(given)))
        text = told_of(path)
        if given is key:
            assert "PEM text" in text
            assert [word for word in (key.splitlines()[1][:8], *words(key)) if word in text] == []
        elif "directory: GIVEN" in config or "auth" in config:
            assert "should be a path, but is several lines" in text
            assert [word for word in (key.splitlines()[1][:8], *words(key)) if word in text] == []


def test_long_lines_are_cut(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "config.yaml"
    for text in (
        "grpc: " + "9" * 400_000,
        "servables: [" + "a, " * 5_000 + "b: c: d]",
        "servables: [" + "a, " * 5_000 + "]" * 9,
        "rest: *" + "b" * 100_000,
        "servables: []\n" + "k" * 100_000 + ": 1",
        "? [a]\n: b\nrest: !" + "t" * 100_000 + " a",
    ):
        path.write_text(text)
        done = CliRunner().invoke(app, ["run", str(path)])
        said = done.output + str(done.exception)
        assert max(map(len, said.splitlines())) < 600
        for line, mark in zip(said.splitlines(), said.splitlines()[1:], strict=False):
            if mark.strip() == "|":
                pytest.fail(line)


def test_the_authoritys_key_stays_hidden(tmp_path: pathlib.Path) -> None:
    """When a revocation list is to be made with a key that can't be used."""
    files = make_certificates(tmp_path / "certs")
    key = files.ca_key.read_text()
    for damage in (cut, letters_changed, without_begin, of_another_kind, in_der):
        files.ca_key.write_bytes(damage(key))
        text = refused(lambda: revoke_certificates(files.directory, [files.client_certificate]))
        assert [word for word in words(key) if word in text] == []
    files.ca_key.write_text(key)
    text = refused(lambda: revoke_certificates(files.directory, [files.client_key]))
    assert str(files.client_key) in text
    assert [word for word in words(files.client_key.read_text()) if word in text] == []


def test_an_encrypted_key_stays_hidden(own_files: Files, tmp_path: pathlib.Path) -> None:
    path = tmp_path / "encrypted.key"
    certificates.encrypt_key(own_files.client_key, path)
    for make in (
        lambda: load_server_tls(SSLConfig(own_files.client, str(path))),
        lambda: client.SSLConfig(certificate=own_files.client, private_key=str(path)).credentials(),
    ):
        text = refused(make)
        assert "encrypted" in text
        assert [word for word in words(path.read_text()) if word in text] == []


@pytest.mark.parametrize("command", [["add", "b"], ["list"], ["rotate", "a"], ["revoke", "a"]])
@pytest.mark.parametrize(
    "line",
    [
        "{key: a, secrets: [SECRET]}",
        "{key: a, secret: SECRET}",
        "{key: a, secrets: SECRET",
        "{key: a, rate: SECRET}",
        "{key: [SECRET]}",
        "SECRET",
    ],
)
def test_commands_repeat_nothing_of_a_keys_file(tmp_path: pathlib.Path, command: list[str], line: str) -> None:
    path = tmp_path / "keys.yaml"
    path.write_text(f"clients:\n- {line}\n".replace("SECRET", SECRET))
    path.chmod(0o600)
    done = CliRunner().invoke(app, ["keys", *command, "--file", str(path)])
    assert done.exit_code != 0
    assert isinstance(done.exception, MindserveError | SystemExit)
    said = " ".join((done.output + shown(done.exception)).split())
    assert "line 2" in said or "line 3" in said
    assert "planted" not in said


@pytest.mark.parametrize("content", [SECRET[:7].encode(), SECRET.encode() * 1000, SECRET.encode() + b"\xff"])
def test_commands_repeat_nothing_of_a_secrets_file(tmp_path: pathlib.Path, content: bytes) -> None:
    path = tmp_path / "given"
    path.write_bytes(content)
    arguments = ["keys", "add", "b", "--file", str(tmp_path / "keys.yaml"), "--secret-file"]
    for name, given in ((str(path), None), ("-", content)):
        done = CliRunner().invoke(app, [*arguments, name], input=given)
        assert done.exit_code != 0
        assert isinstance(done.exception, MindserveError | SystemExit)
        said = done.output + shown(done.exception)
        assert "secret" in said
        assert "planted" not in said
    assert not (tmp_path / "keys.yaml").exists()


def test_a_client_that_is_there_keeps_its_hash_hidden(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "keys.yaml"
    kept = str(hash_secret(SECRET))
    path.write_text(json.dumps({"clients": [{"key": "a", "secrets": [kept]}]}))
    path.chmod(0o600)
    for command in (["add", "a"], ["rotate", "b"], ["revoke", "b"], ["list"], ["list", "--json"]):
        done = CliRunner().invoke(app, ["keys", *command, "--file", str(path)])
        said = done.output + (shown(done.exception) if done.exception else "")
        assert kept.split("$")[-1] not in said
