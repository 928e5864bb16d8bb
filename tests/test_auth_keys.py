"""Keys files, secrets and the commands that manage them."""

from __future__ import annotations

import json
import os
import pathlib
import re
import stat
import traceback
from typing import Any

import pytest
from typer.testing import CliRunner

from mindserve.auth.hashing import SecretHash, hash_secret, make_secret, matches
from mindserve.auth.keys import ClientKey, Keys, load_keys, parse_keys, save_keys
from mindserve.auth.signing import load_issuer_keys, load_signing_keys
from mindserve.cli import app
from mindserve.errors import ConfigError

RUNNER = CliRunner()


def private_file(path: pathlib.Path, text: str) -> str:
    path.write_text(text, encoding="utf-8")
    path.chmod(0o600)
    return str(path)


def run(*arguments: str, input_text: str | None = None) -> Any:
    """The JSON that a command prints, which has to do well."""
    result = RUNNER.invoke(app, ["keys", *arguments, "--json"], input=input_text, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


# -- secrets -----------------------------------------------------------------------------------------------------------


def test_a_secret_matches_its_hash_and_no_other() -> None:
    secret = make_secret()
    kept = hash_secret(secret)
    assert secret not in str(kept)
    assert matches(secret, [SecretHash.parse(str(kept))])
    assert not matches(secret + "x", [kept])
    assert not matches("", [kept])
    assert not matches(secret, [])


def test_both_secrets_are_good_while_they_are_exchanged() -> None:
    old, new = make_secret(), make_secret()
    kept = hash_secret(old)
    hashes = [hash_secret(new, kept), kept]
    assert hashes[0].terms == hashes[1].terms  # so that to compare with two costs what one does
    assert matches(old, hashes)
    assert matches(new, hashes)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "secret",
        "scrypt$16384$8$1$c2FsdHNhbHQ=",
        "scrypt$16383$8$1$c2FsdHNhbHQ=$" + "A" * 43 + "=",
        "scrypt$1073741824$8$1$c2FsdHNhbHQ=$" + "A" * 43 + "=",
        "scrypt$131072$32$1$c2FsdHNhbHQ=$" + "A" * 43 + "=",
        "scrypt$-2$8$1$c2FsdHNhbHQ=$" + "A" * 43 + "=",
        "scrypt$16384$8$1$c2FsdA==$" + "A" * 43 + "=",
        "scrypt$16384$8$1$c2FsdHNhbHQ=$AAAA",
        "scrypt$16384$8$1$***$" + "A" * 43 + "=",
    ],
)
def test_what_is_no_hash_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="a hash as 'mindserve keys' writes it"):
        SecretHash.parse(text)


# -- the file ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["keys.yaml", "keys.json"])
def test_what_is_written_is_read(tmp_path: pathlib.Path, name: str) -> None:
    path = str(tmp_path / name)
    written = Keys({}).with_client(
        ClientKey(
            key="iris",
            secrets=(hash_secret("a secret of some length"),),
            servables=("iris", "add"),
            rate=2.5,
            burst=5,
            max_in_flight=3,
            certificates=("client.example.org",),
            tokens_not_before=12,
        )
    )
    written = written.with_client(ClientKey(key="other", revoked=True))
    save_keys(written, path)
    assert load_keys(path) == written
    assert stat.S_IMODE(os.stat(path).st_mode) == 0o600
    if name.endswith(".json"):
        assert json.loads(pathlib.Path(path).read_text())["clients"][1] == {"key": "other", "revoked": True}


@pytest.mark.parametrize("mode", [0o602, 0o620, 0o604, 0o666, 0o644])
def test_a_file_that_others_may_write_or_read_is_refused(tmp_path: pathlib.Path, mode: int) -> None:
    path = pathlib.Path(private_file(tmp_path / "keys.yaml", "clients: []"))
    path.chmod(mode)
    with pytest.raises(ConfigError, match=f"the keys file '.*' has permissions {mode:04o}.*expected 0600"):
        load_keys(str(path))


@pytest.mark.parametrize("mode", [0o600, 0o400, 0o440, 0o640])
def test_a_private_file_is_read(tmp_path: pathlib.Path, mode: int) -> None:
    path = pathlib.Path(private_file(tmp_path / "keys.yaml", "clients: [{key: a}]"))
    path.chmod(mode)
    assert list(load_keys(str(path)).clients) == ["a"]


def test_a_file_that_is_not_there(tmp_path: pathlib.Path) -> None:
    with pytest.raises(ConfigError, match="can't be read: No such file or directory"):
        load_keys(str(tmp_path / "none.yaml"))
    with pytest.raises(ConfigError, match=r"can't be read|is no file"):
        load_keys(str(tmp_path))


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ("", "the file is empty"),
        ("clients: [", "this is no YAML"),
        ("[]", "one key, 'clients'"),
        ("clients: {}", "'clients' should be a list"),
        ("clients: [a]", "a client should be keys and values"),
        ("clients: [{rate: 1}]", "a client should have a 'key'"),
        ("clients: [{key: a}, {key: a}]", "client 'a' is given twice"),
        ("clients: [{key: a, key: b}]", "given twice"),
        ("clients: [{key: a, rat: 1}]", "a name that is not known of a client; there are key, "),
        ("clients: [{key: 12}]", "'key' should be text: put numbers in quotes"),
        ("clients: [{key: 'a b'}]", "'key' should be 1 to 128 letters"),
        ("clients: [{key: a, rate: -1}]", "'rate' of client 'a' should be 0 to"),
        ("clients: [{key: a, rate: .inf}]", "'rate' should be a number"),
        ("clients: [{key: a, rate: yes}]", "'rate' should be a number"),
        ("clients: [{key: a, burst: 2}]", "'burst' of client 'a' is given without 'rate'"),
        ("clients: [{key: a, rate: 2, burst: 0.5}]", "'burst' of client 'a' should be 1 or more"),
        ("clients: [{key: a, max_in_flight: 1.5}]", "'max_in_flight' should be a whole number"),
        ("clients: [{key: a, revoked: 1}]", "'revoked' should be true or false"),
        ("clients: [{key: a, servables: iris}]", "'servables' should be a list of texts"),
        ("clients: [{key: a, secrets: [plain]}]", "'secrets' should be a hash as"),
        ("clients: [{key: '*', certificates: [a]}]", "expected no secrets or certificates"),
        ("clients: [{key: a, certificates: [n]}, {key: b, certificates: [n]}]", "stands for 'a' and 'b'"),
    ],
)
def test_a_wrong_file_is_told_apart(text: str, wrong: str) -> None:
    with pytest.raises(ConfigError, match=r"the keys file 'keys\.yaml' is not right") as raised:
        parse_keys(text.encode(), "keys.yaml")
    assert wrong in str(raised.value)


PLANTED = "hunter2-Planted"


@pytest.mark.parametrize(
    "line",
    [
        '{key: a, secrets: ["scrypt$SECRET"]} ]',
        "{key: a, secrets: [SECRET]}",
        "{key: a, secrets: SECRET}",
        "{key: a, secrets: ['SECRET\x01']}",
        "{key: a, secrets: [scrypt$16384$8$1$SECRET$SECRET]}",
        "{key: a, secrets: {SECRET: x}}",
        '{key: a, secrets: ["\\SECRET"]}',
        "{key: a, secrets: ['SECRET}",
        "{key: a, secrets: [@SECRET]}",
        "{key: a, secrets: *SECRET}",
        "{key: a, secrets: !SECRET x}",
        "{key: a, secret: SECRET}",
        "{key: a, SECRET}",
        "{key: a, SECRET: secret}",
        "{key: a, SECRET: 1, SECRET: 2}",
        "{key: a, it'SECRET'x: 1, it'SECRET'x: 2}",
        "{key: 'a SECRET'}",
        "{key: [SECRET]}",
        "{key: a, rate: SECRET}",
        "{key: a, max_in_flight: SECRET}",
        "{key: a, revoked: SECRET}",
        "SECRET",
        "SECRET: x",
    ],
)
def test_an_error_shows_no_secrets(line: str) -> None:
    """Wherever one stands: plain, where a hash was expected, or where nobody looks for one."""
    for path in ("keys.yaml", "keys.json"):
        with pytest.raises(ConfigError) as raised:
            parse_keys(f"clients:\n- {line}\n".replace("SECRET", PLANTED).encode(), path)
        shown = "".join(traceback.format_exception(raised.value))
        assert PLANTED not in shown
        assert "hunter" not in shown
        assert re.search("line [23]:", str(raised.value))


@pytest.mark.parametrize(
    "key",
    [
        {"k": PLANTED},
        {"kty": "oct", "k": [PLANTED]},
        {"kty": PLANTED, "k": "x"},
        {"kty": "OKP", "crv": "Ed25519", "d": PLANTED, "x": "y"},
        {"kty": "OKP", "crv": PLANTED, "d": "x"},
        {"kty": "oct", "alg": PLANTED, "k": "x"},
        {"kty": "oct", "alg": "HS256", "kid": [PLANTED], "k": "eA"},
    ],
)
def test_an_error_of_a_jwks_shows_none(tmp_path: pathlib.Path, key: dict[str, object]) -> None:
    path = tmp_path / "keys.jwks"
    for text in (json.dumps({"keys": [key]}), json.dumps({"keys": [key]})[:-2], json.dumps(PLANTED)):
        path.write_text(text)
        path.chmod(0o600)
        for load in (load_signing_keys, load_issuer_keys):
            with pytest.raises(ConfigError) as raised:
                load(str(path))
            assert PLANTED not in "".join(traceback.format_exception(raised.value))


# -- the commands ------------------------------------------------------------------------------------------------------


def test_a_client_is_added_and_its_secret_shown_once(tmp_path: pathlib.Path) -> None:
    path = str(tmp_path / "keys.yaml")
    arguments = ["--servable", "iris", "--rate", "5", "--max-in-flight", "2", "--certificate", "c.example.org"]
    added = run("add", "app", "-f", path, *arguments)
    secret = added["consumer_secret"]
    assert secret not in pathlib.Path(path).read_text()
    (listed,) = run("list", "-f", path)["clients"]
    assert listed == {key: value for key, value in added.items() if key != "consumer_secret"}
    assert (listed["servables"], listed["rate"], listed["burst"], listed["max_in_flight"]) == (["iris"], 5, 5, 2)
    assert matches(secret, load_keys(path).clients["app"].secrets)
    shown = RUNNER.invoke(app, ["keys", "list", "-f", path])
    assert "app" in shown.stdout
    assert secret not in shown.stdout


def test_a_client_brings_its_own_secret(tmp_path: pathlib.Path) -> None:
    path = str(tmp_path / "keys.yaml")
    added = run("add", "app", "-f", path, "--secret-file", "-", input_text="its own secret\n")
    assert "consumer_secret" not in added
    assert matches("its own secret", load_keys(path).clients["app"].secrets)


def test_rotation_keeps_the_secret_before(tmp_path: pathlib.Path) -> None:
    path = str(tmp_path / "keys.yaml")
    secrets = [run("add", "app", "-f", path)["consumer_secret"]]
    secrets += [run("rotate", "app", "-f", path)["consumer_secret"] for _ in range(2)]
    hashes = load_keys(path).clients["app"].secrets
    assert [matches(secret, hashes) for secret in secrets] == [False, True, True]
    assert run("rotate", "app", "-f", path, "--drop-old")["secrets"] == 1
    hashes = load_keys(path).clients["app"].secrets
    assert [matches(secret, hashes) for secret in secrets] == [False, False, True]


def test_revocation_and_its_undoing(tmp_path: pathlib.Path) -> None:
    path = str(tmp_path / "keys.yaml")
    run("add", "app", "-f", path)
    assert run("revoke", "app", "-f", path)["revoked"] is True
    assert load_keys(path).clients["app"].revoked
    assert run("revoke", "app", "-f", path, "--undo")["revoked"] is False
    assert run("revoke", "app", "-f", path, "--tokens")["tokens_not_before"] > 1_600_000_000
    assert not load_keys(path).clients["app"].revoked


@pytest.mark.parametrize(
    ("arguments", "wrong"),
    [
        (["add", "app"], "There is a client 'app'"),
        (["revoke", "other"], "There is no client 'other' in"),
        (["rotate", "other"], "there are: 'app'"),
        (["add", "a b"], "'key' should be"),
        (["add", "b", "--burst", "2"], "without 'rate'"),
    ],
)
def test_a_command_that_fails_changes_nothing(tmp_path: pathlib.Path, arguments: list[str], wrong: str) -> None:
    path = str(tmp_path / "keys.yaml")
    run("add", "app", "-f", path)
    before = pathlib.Path(path).read_bytes()
    result = RUNNER.invoke(app, ["keys", *arguments, "-f", path])
    assert isinstance(result.exception, ConfigError)
    assert wrong in str(result.exception)
    assert pathlib.Path(path).read_bytes() == before


def test_a_long_key_is_shown_whole(tmp_path: pathlib.Path) -> None:
    path = str(tmp_path / "keys.yaml")
    key = "a-client-with-a-long-name-of-many-parts"
    run("add", key, "-f", path, "--servable", "iris", "--servable", "add", "--rate", "5", "--max-in-flight", "2")
    shown = RUNNER.invoke(app, ["keys", "list", "-f", path], env={"COLUMNS": "80"})
    parts = [line.split("│")[1].strip() for line in shown.stdout.splitlines() if line.count("│") > 2]
    assert "".join(parts) == key
