"""Files that are none: FIFOs that nobody writes to, devices, and files without end, wherever a path can be given."""

from __future__ import annotations

import errno
import os
import pathlib
import socket
from collections.abc import Callable, Iterator
from datetime import timedelta

import pytest
from typer.testing import CliRunner

from certificates import Authority, Files
from mindserve import client, configfile, tls
from mindserve.auth.keys import load_keys
from mindserve.auth.signing import load_issuer_keys, load_signing_keys
from mindserve.certs import make_certificates, revoke_certificates
from mindserve.cli import app
from mindserve.errors import ConfigError
from mindserve.files import MAX_CRL_BYTES, MAX_PEM_BYTES, read_file

# Of an open() that waits for who writes to a FIFO.
pytestmark = pytest.mark.timeout(60)

MIB = 1 << 20


def put_fifo(path: pathlib.Path) -> None:
    os.mkfifo(path, 0o600)


def put_directory(path: pathlib.Path) -> None:
    path.mkdir()


def put_socket(path: pathlib.Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))


def put_link_to_a_device(path: pathlib.Path) -> None:
    path.symlink_to("/dev/zero")


def put_large_file(path: pathlib.Path) -> None:
    path.touch(0o600)
    os.truncate(path, 2 << 30)


PUT_AND_SAID = [
    (put_fifo, "Is a FIFO, expected a regular file"),
    (put_directory, "Is a directory, expected a regular file"),
    (put_socket, "Is a socket, expected a regular file"),
    (put_link_to_a_device, "Is a character device, expected a regular file"),
    (put_large_file, "File too large, at most {} bytes are expected"),
]


@pytest.fixture(params=PUT_AND_SAID, ids=lambda each: each[0].__name__.removeprefix("put_"))
def bad(request: pytest.FixtureRequest, tmp_path: pathlib.Path) -> Iterator[tuple[str, str]]:
    """A path where something bad is, and what has to be said of it."""
    put, said = request.param
    path = tmp_path / "bad"
    put(path)
    yield str(path), said
    if path.is_file():
        path.unlink()


@pytest.fixture(scope="module")
def server_files(tmp_path_factory: pytest.TempPathFactory) -> Files:
    """A server's files, whose authority is known."""
    directory = tmp_path_factory.mktemp("files")
    paths = Files(*(str(directory / name) for name in ("ca.crt", "server.crt", "server.key", "", "")))
    root = Authority("Root", end=timedelta(days=400))
    root.write(paths.server, paths.server_key)
    pathlib.Path(paths.ca).write_bytes(root.pem)
    return paths


def refusal(read: Callable[[], object]) -> str:
    with pytest.raises(ConfigError) as caught:
        read()
    return str(caught.value)


@pytest.mark.parametrize("field", ["certificate", "private_key", "custom_ca", "crl"])
def test_a_servers_file(server_files: Files, bad: tuple[str, str], field: str) -> None:
    path, said = bad
    given = {
        "certificate": server_files.server,
        "private_key": server_files.server_key,
        "custom_ca": server_files.ca,
        field: path,
    }
    config = tls.SSLConfig(**given, verify_client=True)  # type: ignore[arg-type]
    said = said.format(MAX_CRL_BYTES if field == "crl" else MAX_PEM_BYTES)
    assert refusal(lambda: tls.load_server_tls(config)) == f"load {field} from {path} failed: {said}"


@pytest.mark.parametrize("field", ["certificate", "private_key", "custom_ca"])
def test_a_clients_file(own_files: Files, bad: tuple[str, str], field: str) -> None:
    path, said = bad
    given = {"certificate": own_files.client, "private_key": own_files.client_key, "custom_ca": own_files.ca}
    config = client.SSLConfig(**{**given, field: path})
    assert refusal(config.credentials) == f"load {field} from {path} failed: {said.format(MAX_PEM_BYTES)}"


@pytest.mark.parametrize(
    ("load", "what"),
    [(load_keys, "the keys file"), (load_signing_keys, "the signing key"), (load_issuer_keys, "the JWKS file")],
)
def test_a_file_for_tokens(bad: tuple[str, str], load: Callable[[str], object], what: str) -> None:
    path, said = bad
    text = refusal(lambda: load(path))
    assert text.endswith(f" '{path}' can't be read: {said.format(MIB)}")
    assert what in text


def test_a_config_file(bad: tuple[str, str]) -> None:
    path, said = bad
    said = f"{path}: the file can't be read: {said.format(MIB)}"
    with pytest.raises(configfile.ConfigFileError) as caught:
        configfile.load(path)
    assert said in str(caught.value)
    result = CliRunner().invoke(app, ["validate", path])
    assert result.exit_code == 1
    assert said in result.output


@pytest.mark.parametrize(
    ("option", "before", "after", "most"),
    [
        (["--token-file"], "", [], 64 << 10),
        (["--file"], "", [], 1 << 30),
        ([], "x=@", [], 1 << 30),
        ([], "x=@", [".npy"], 1 << 30),
    ],
    ids=["--token-file", "--file", "x=@FILE", "x=@FILE.npy"],
)
def test_files_of_infer(bad: tuple[str, str], option: list[str], before: str, after: list[str], most: int) -> None:
    path, said = bad
    for end in after:
        os.rename(path, path + end)
        path += end
    given = ["x=1"] if "--token-file" in option else []
    result = CliRunner().invoke(app, ["infer", "unix:none.sock", "s", "m", *given, *option, before + path])
    assert result.exit_code != 0
    text = result.output if isinstance(result.exception, SystemExit) else str(result.exception)
    assert f"can't be read: {said.format(most)}" in " ".join(text.replace("│", "").split())
    for end in after:
        os.rename(path, path.removesuffix(end))


def test_a_file_with_a_secret(bad: tuple[str, str], tmp_path: pathlib.Path) -> None:
    path, said = bad
    result = CliRunner().invoke(app, ["keys", "add", "me", "-f", str(tmp_path / "keys"), "--secret-file", path])
    assert str(result.exception) == f"The secret's file '{path}' can't be read: {said.format(4098)}"


def test_a_certificate_that_is_revoked(bad: tuple[str, str], tmp_path: pathlib.Path) -> None:
    path, said = bad
    files = make_certificates(tmp_path / "certs")
    assert refusal(lambda: revoke_certificates(files.directory, [path])) == f"{path} cannot be read: {said.format(MIB)}"
    os.rename(path, files.crl)
    said = said.format(MAX_CRL_BYTES)
    assert refusal(lambda: revoke_certificates(files.directory)) == f"{files.crl} cannot be read: {said}"


# -- what reads them ---------------------------------------------------------------------------------------------------


def test_as_much_as_is_allowed_is_read(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"x" * 100)
    link = tmp_path / "link"
    link.symlink_to(path)
    for each in (path, link):
        data, state = read_file(str(each), 100)
        assert data == b"x" * 100
        assert state.st_ino == path.stat().st_ino
    with pytest.raises(OSError, match="at most 99 bytes") as caught:
        read_file(str(path), 99)
    assert caught.value.errno == errno.EFBIG


def test_a_file_that_claims_to_be_empty_is_bounded_too() -> None:
    """As those of /proc do."""
    assert read_file("/proc/self/status", MIB)[0].startswith(b"Name:")
    with pytest.raises(OSError, match="at most 10 bytes"):
        read_file("/proc/self/status", 10)


def test_a_fifo_that_comes_at_the_last_moment(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"x")
    stat, before = os.stat, len(os.listdir("/proc/self/fd"))

    def stat_and_exchange(name: str) -> os.stat_result:
        state = stat(name)
        path.unlink()
        os.mkfifo(path)
        return state

    with monkeypatch.context() as patch:
        patch.setattr(os, "stat", stat_and_exchange)
        with pytest.raises(OSError, match="Is a FIFO"):
            read_file(str(path), MIB)
    assert len(os.listdir("/proc/self/fd")) == before
