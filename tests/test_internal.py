"""The socket on which a server answers its own workers."""

from __future__ import annotations

import os
import pathlib
import socket
import stat
import tempfile
from collections.abc import Iterator

import grpc
import pytest

from conftest import ECHO_SERVABLE, Servables, StartScript, serve
from e2e_support import notes_internal_address, request, tensor
from mindserve import admin
from mindserve.proto import PREDICT
from mindserve.server.internal import InternalSocket


@pytest.fixture
def short() -> Iterator[pathlib.Path]:
    """A directory with a path that is short enough for a socket in it."""
    with tempfile.TemporaryDirectory(dir="/tmp") as path:
        yield pathlib.Path(path)


@pytest.fixture
def runtime(short: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> pathlib.Path:
    """Where servers of the test have their sockets."""
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(short))
    return short / "mindserve"


def bind(path: pathlib.Path) -> socket.socket:
    made = socket.socket(socket.AF_UNIX)
    made.bind(str(path))
    made.listen(1)
    return made


def test_a_directory_of_its_own(runtime: pathlib.Path) -> None:
    one, two = InternalSocket(), InternalSocket()
    assert not runtime.exists()
    assert one.address == one.address
    assert one.address != two.address
    path = pathlib.Path(one.address.removeprefix("unix:"))
    assert path.parent.parent == runtime
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    bind(path).close()
    one.remove()
    assert not path.parent.exists()
    assert one.address == ""
    one.remove()
    assert len(list(runtime.iterdir())) == 1
    two.remove()
    InternalSocket().remove()
    assert list(runtime.iterdir()) == []


def test_what_killed_servers_left_is_removed(runtime: pathlib.Path) -> None:
    dead, alive, begun = (InternalSocket() for _ in range(3))
    paths = [pathlib.Path(each.address.removeprefix("unix:")) for each in (dead, alive, begun)]
    bind(paths[0]).close()
    with bind(paths[1]):
        for _ in range(3):  # its queue is full by then
            new = InternalSocket()
            assert new.address
            new.remove()
        assert [path.parent.exists() for path in paths] == [False, True, True]


def test_a_directory_that_can_not_be_made(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    long = tmp_path / ("x" * 100)
    long.mkdir()
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(long))
    monkeypatch.setattr("tempfile.tempdir", "/nowhere")
    monkeypatch.setattr("mindserve.server.internal._SHORT_PATH", pathlib.Path("/dev/null"))
    none = InternalSocket()
    assert none.address == ""
    assert caplog.text.count("there is no internal socket, so that servables can't call each other (") == 1
    assert "its path is too long for a Unix socket" in caplog.text
    assert "No such file or directory" in caplog.text
    assert "Not a directory" in caplog.text
    assert none.address == ""
    none.remove()


def test_another_place_where_the_first_does_not_do(
    short: pathlib.Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(short / "nowhere"))
    monkeypatch.setattr("tempfile.tempdir", str(short / ("x" * 100)))
    monkeypatch.setattr("mindserve.server.internal._SHORT_PATH", short)
    internal = InternalSocket()
    assert internal.address.startswith(f"unix:{short}/mindserve-{os.geteuid()}/internal-")
    internal.remove()
    assert caplog.text == ""


def test_a_server_answers_on_it_and_tells_only_its_workers(
    servables: Servables, start_script: StartScript, runtime: pathlib.Path
) -> None:
    written = servables.directory / "address"
    servables.add("echo", ECHO_SERVABLE + notes_internal_address(written))
    after = "sys.stdin.readline()\nserver.stop()\nprint('end', flush=True)"
    server = start_script(serve(servables.directory, "echo", after=after))
    server.line()
    address = written.read_text().strip()
    assert address.startswith(f"unix:{runtime}/internal-")
    ask = request("echo", "same", {"x": tensor("hello")}).SerializeToString()
    with grpc.insecure_channel(address) as channel:
        assert b"hello" in channel.unary_unary(PREDICT)(ask, timeout=60)
    path = pathlib.Path(address.removeprefix("unix:"))
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert "internal-" not in server.errors()
    status = admin.ask(server.pid, "status", {}, print)
    assert len(status["addresses"]) == 1
    server.tell("stop")
    assert server.line() == "end"
    assert not path.parent.exists()


def test_a_reloaded_worker_is_told_the_same(
    servables: Servables, start_script: StartScript, runtime: pathlib.Path
) -> None:
    written = servables.directory / "addresses"
    servables.add("echo", ECHO_SERVABLE + notes_internal_address(written))
    server = start_script(serve(servables.directory, "echo", after="server.reload()\nprint('reloaded', flush=True)"))
    server.line()
    assert server.line() == "reloaded"
    one, two = written.read_text().split()
    assert one == two != ""
