"""The admin socket of a server: who may reach it, and what it says."""

from __future__ import annotations

import contextlib
import errno
import json
import logging
import os
import pathlib
import select
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from conftest import ECHO_SERVABLE, PACKAGE, Servables, StartScript, serve
from e2e_support import until
from mindserve import admin
from mindserve.admin import AdminError, ask, open_directory
from mindserve.errors import StartError
from mindserve.server import admin as server_admin
from mindserve.server.admin import COMMANDS, AdminSocket

PID = os.getpid()


class FakeServer:
    """What the table of commands needs of a server."""

    def __init__(self) -> None:
        self.asked: list[object] = []
        self.wait = threading.Event()
        self.waits = threading.Event()

    def status(self) -> dict[str, Any]:
        return {"pid": PID, "state": "serving"}

    def handover(self, timeout: float | None, progress: Any) -> int:
        self.asked.append(timeout)
        progress("one")
        progress("two")
        if timeout == 1:
            raise StartError("it does not want to")
        if timeout == 2:
            raise ZeroDivisionError
        if timeout == 3:
            self.waits.set()
            assert self.wait.wait(60)
        return 4711


@pytest.fixture(autouse=True)
def runtime(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> pathlib.Path:
    """Where the sockets lie; pytest's directories may be too deep for a socket's path."""
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    # Other servers of this user may run at the same time.
    monkeypatch.setenv("TMPDIR", str(tmp_path / "temporary"))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    (tmp_path / "temporary").mkdir()
    return tmp_path / "mindserve"


@pytest.fixture
def server() -> Iterator[FakeServer]:
    fake = FakeServer()
    listening = AdminSocket(fake)  # type: ignore[arg-type]
    yield fake
    fake.wait.set()
    listening.close()


def nothing(text: str) -> None:
    raise AssertionError(text)


def raw(runtime: pathlib.Path, data: bytes) -> bytes:
    """What comes back for these bytes."""
    directory = os.open(runtime, os.O_RDONLY)
    try:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(60)
            connection.connect(admin.socket_path(directory, PID))
            connection.sendall(data)
            connection.shutdown(socket.SHUT_WR)
            answer = b""
            while more := connection.recv(4096):
                answer += more
            return answer
    finally:
        os.close(directory)


def test_the_only_server_is_found(server: FakeServer) -> None:
    assert ask(None, "status", {}, nothing) == {"pid": PID, "state": "serving"}
    assert ask(PID, "status", {}, nothing)["pid"] == PID


def test_progress_and_result(server: FakeServer) -> None:
    lines: list[str] = []
    assert ask(PID, "handover", {"timeout": None}, lines.append) == {"pid": 4711, "predecessor": PID}
    assert lines == ["one", "two"]
    assert server.asked == [None]


def test_errors_come_back(server: FakeServer, caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(AdminError, match=r"^it does not want to$"):
        ask(PID, "handover", {"timeout": 1}, str)
    with pytest.raises(AdminError, match="a fault in the server, see its log: ZeroDivisionError"):
        ask(PID, "handover", {"timeout": 2}, str)


@pytest.mark.parametrize("line", [b"{}", b"no json", b"[1]", b'{"command": "x"}', b'{"command": []}', b"[" * 100_000])
def test_what_is_no_request(server: FakeServer, runtime: pathlib.Path, line: bytes) -> None:
    error = json.loads(raw(runtime, line + b"\n"))["error"]
    assert "should be a JSON object with a 'command' among " + ", ".join(sorted(COMMANDS)) in error


def test_a_request_that_has_no_end(server: FakeServer, runtime: pathlib.Path) -> None:
    assert raw(runtime, b"") == b""
    assert raw(runtime, b'{"command": "status"') == b""
    assert ask(PID, "status", {}, nothing)


def test_commands_at_the_same_time(server: FakeServer) -> None:
    results: list[object] = []
    thread = threading.Thread(target=lambda: results.append(ask(PID, "handover", {"timeout": 3}, str)))
    thread.start()
    assert server.waits.wait(60)
    assert ask(PID, "status", {}, nothing)
    server.wait.set()
    thread.join()
    assert results == [{"pid": 4711, "predecessor": PID}]


@contextlib.contextmanager
def connections(runtime: pathlib.Path, count: int) -> Iterator[list[socket.socket]]:
    """So many that have asked for nothing."""
    with contextlib.ExitStack() as stack:
        directory = os.open(runtime, os.O_RDONLY)
        stack.callback(os.close, directory)
        opened = [stack.enter_context(socket.socket(socket.AF_UNIX)) for _ in range(count)]
        for each in opened:
            each.connect(admin.socket_path(directory, PID))
            each.settimeout(60)
        yield opened


@pytest.mark.parametrize("count", [16, 18, 24])
def test_too_many_clients_are_told_so(server: FakeServer, runtime: pathlib.Path, count: int) -> None:
    text = f"The server, process {PID}, runs, but its admin socket has 16 clients, the most at a time: "
    with connections(runtime, count) as opened:
        for each in opened[16:]:
            assert each.recv(4096).startswith(json.dumps({"error": text})[:-2].encode())
        for _ in range(5):
            with pytest.raises(AdminError, match=f"^{text}"):
                ask(None, "status", {}, nothing)
        for each in opened:
            each.shutdown(socket.SHUT_WR)
            while each.recv(4096):
                pass
    until(lambda: threads_named("mindserve-admin-command") == 0)
    assert ask(None, "status", {}, nothing)["pid"] == PID


def test_who_drips_a_request_is_disconnected(
    server: FakeServer, runtime: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server_admin, "_REQUEST_TIMEOUT", 0.5)
    with connections(runtime, 1) as [connection]:
        while not select.select([connection], [], [], 0.05)[0]:
            connection.sendall(b" ")
        with contextlib.suppress(ConnectionResetError):
            assert connection.recv(4096) == b""


def threads_named(name: str) -> int:
    return sum(thread.name == name for thread in threading.enumerate())


def test_the_end_waits_for_answers_but_not_for_requests(runtime: pathlib.Path) -> None:
    fake = FakeServer()
    listening = AdminSocket(fake)  # type: ignore[arg-type]
    directory = open_directory(runtime, os.geteuid())
    idle = admin.connect(directory, PID)
    os.close(directory)
    assert idle is not None
    results: list[object] = []
    thread = threading.Thread(target=lambda: results.append(ask(PID, "handover", {"timeout": 3}, str)))
    thread.start()
    assert fake.waits.wait(60)
    listening.close()
    assert idle.recv(1) == b""
    idle.close()
    closing = threading.Thread(target=listening.join)
    closing.start()
    fake.wait.set()
    closing.join()
    thread.join()
    assert results == [{"pid": 4711, "predecessor": PID}]
    assert list(runtime.iterdir()) == []
    listening.close()  # once more


def test_without_descriptors_commands_wait(runtime: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server_admin, "_BACK_OFF", 0.01)
    accept = socket.socket.accept
    failed = threading.Event()

    def accept_later(listening: socket.socket) -> Any:
        if not failed.is_set():
            failed.set()
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
        return accept(listening)

    monkeypatch.setattr(socket.socket, "accept", accept_later)
    listening = AdminSocket(FakeServer())  # type: ignore[arg-type]
    assert failed.wait(60)
    assert ask(PID, "status", {}, nothing)["pid"] == PID
    listening.close()
    until(lambda: not [thread for thread in threading.enumerate() if thread.name == "mindserve-admin"])


def test_a_server_that_hangs_is_not_waited_for(runtime: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(admin, "_CONNECT_TIMEOUT", 0.1)
    directory = open_directory(runtime, os.geteuid(), create=True)
    with socket.socket(socket.AF_UNIX) as hangs, contextlib.ExitStack() as waiting:
        hangs.bind(admin.socket_path(directory, 1))
        hangs.listen(0)
        with pytest.raises(AdminError, match="The server, process 1, does not answer: it is stopped, or hangs"):
            ask(None, "status", {}, nothing)
        with contextlib.suppress(BlockingIOError):
            while connection := admin.connect(directory, 1):
                waiting.enter_context(connection)
        with pytest.raises(AdminError, match="A server has no room for more who ask"):
            ask(None, "status", {}, nothing)
        # It is in no other server's way.
        listening = AdminSocket(FakeServer())  # type: ignore[arg-type]
        assert ask(PID, "status", {}, nothing)["pid"] == PID
        listening.close()
    os.close(directory)


def test_modes(server: FakeServer, runtime: pathlib.Path) -> None:
    assert stat.S_IMODE(runtime.stat().st_mode) == 0o700
    (path,) = runtime.iterdir()
    assert path.name == f"{PID}.sock"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_nobody_there(runtime: pathlib.Path) -> None:
    with pytest.raises(AdminError, match=f"No MindServe server of this user runs: .* in {runtime}, "):
        ask(None, "status", {}, nothing)
    with pytest.raises(AdminError, match=f"Process {PID} runs no MindServe server"):
        ask(PID, "status", {}, nothing)
    with pytest.raises(AdminError, match="There is no process 4194304999"):
        ask(4194304999, "status", {}, nothing)


def test_sockets_that_are_left_over_are_removed(runtime: pathlib.Path, server: FakeServer) -> None:
    def leave(pid: int) -> pathlib.Path:
        with socket.socket(socket.AF_UNIX) as stale:
            directory = os.open(runtime, os.O_RDONLY)
            stale.bind(admin.socket_path(directory, pid))
            os.close(directory)
        return runtime / f"{pid}.sock"

    path = leave(2)
    assert ask(None, "status", {}, nothing)["pid"] == PID
    assert not path.exists()
    # A new server does so as well, in its own process.
    path = leave(3)
    directory = os.open(runtime, os.O_RDONLY)
    os.rename(runtime / f"{PID}.sock", runtime / "1.sock")
    other = AdminSocket(server)  # type: ignore[arg-type]
    os.close(directory)
    assert not path.exists()
    assert {each.name for each in runtime.iterdir()} == {"1.sock", f"{PID}.sock"}
    # Two that answer: whom is meant has to be said.
    with pytest.raises(AdminError, match=f"Several MindServe servers of this user run: say which, processes 1, {PID}"):
        ask(None, "status", {}, nothing)
    other.close()


def test_directories_of_others_are_not_used(
    runtime: pathlib.Path, tmp_path: pathlib.Path, caplog: pytest.LogCaptureFixture
) -> None:
    fallback = tmp_path / "temporary" / f"mindserve-{os.geteuid()}"
    # Whoever may write to it may have put a socket there.
    runtime.mkdir(mode=0o700)
    runtime.chmod(0o770)
    (tmp_path / "elsewhere").mkdir(mode=0o700)
    fallback.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(PermissionError, match="not a directory of user"):
        open_directory(runtime, os.geteuid())
    runtime.chmod(0o700)
    with pytest.raises(PermissionError, match="not a directory of user"):
        open_directory(runtime, os.geteuid() + 1)
    with pytest.raises(NotADirectoryError):
        open_directory(fallback, os.geteuid(), create=True)

    runtime.chmod(0o770)
    with caplog.at_level(logging.WARNING, "mindserve"):
        logging.getLogger("mindserve").propagate = True
        AdminSocket(FakeServer()).close()  # type: ignore[arg-type]
    assert "there is no admin socket" in caplog.text
    assert str(runtime) in caplog.text
    assert str(fallback) in caplog.text
    assert list((tmp_path / "elsewhere").iterdir()) == []


def test_without_a_runtime_directory_it_lies_in_the_temporary_one(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "none"))
    listening = AdminSocket(FakeServer())  # type: ignore[arg-type]
    path = tmp_path / "temporary" / f"mindserve-{os.geteuid()}" / f"{PID}.sock"
    assert path.is_socket()
    # Found by whoever has no runtime directory, and by whoever has one.
    assert ask(PID, "status", {}, nothing)["pid"] == PID
    monkeypatch.delenv("XDG_RUNTIME_DIR")
    assert ask(PID, "status", {}, nothing)["pid"] == PID
    listening.close()
    assert not path.exists()


def test_a_server_without_an_admin_socket_serves(
    servables: Servables, start_script: StartScript, tmp_path: pathlib.Path
) -> None:
    servables.add("echo", ECHO_SERVABLE)
    nowhere = str(tmp_path / "no" / "such")
    script = "import tempfile\ntempfile.tempdir = " + repr(nowhere) + "\n" + serve(servables.directory, "echo")
    server = start_script(script, XDG_RUNTIME_DIR=nowhere)
    assert server.line()
    assert "[WARNING]" in server.errors()
    assert "there is no admin socket, so that the mindserve command can't reach this server" in server.errors()


def command(*arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(PACKAGE)}
    return subprocess.run(
        [sys.executable, "-m", "mindserve", *arguments], env=environment, capture_output=True, text=True, check=False
    )


def test_reload_from_the_shell(servables: Servables, start_script: StartScript) -> None:
    servables.add("echo", ECHO_SERVABLE)
    server = start_script(serve(servables.directory, "echo"))
    server.line()
    (before,) = server.workers()
    done = command("reload", str(server.pid), "--servable", "echo")
    assert done.returncode == 0, done.stderr
    assert done.stdout == "loading\nservable 'echo' version 1 serves\n"
    until(server.workers, lambda workers: len(workers) == 1 and workers != [before])
    unknown = command("reload", "--servable", "ecko")
    assert unknown.returncode == 1
    assert "ecko" in unknown.stderr


def test_a_stop_waits_for_no_command_and_each_is_answered(servables: Servables, start_script: StartScript) -> None:
    directory = servables.add("echo", ECHO_SERVABLE)
    fifo = servables.directory / "fifo"
    os.mkfifo(fifo)
    server = start_script(serve(servables.directory, "echo", hot_reload=False))
    server.line()
    (directory / "servable_config.py").write_text(f"open({str(fifo)!r}).read()\n{ECHO_SERVABLE}")
    environment = {**os.environ, "PYTHONPATH": str(PACKAGE)}
    arguments = [sys.executable, "-m", "mindserve", "reload", str(server.pid)]
    with subprocess.Popen(arguments, env=environment, stderr=subprocess.PIPE, text=True) as reload:
        with fifo.open("w"):  # The new worker has come to it.
            server.send(signal.SIGTERM)
            _, errors = reload.communicate(timeout=60)
        assert "the server is being stopped" in errors
        assert reload.returncode == 1
    assert server.wait() == 0


def test_status_for_people(servables: Servables, start_script: StartScript) -> None:
    servables.add("echo", ECHO_SERVABLE)
    server = start_script(serve(servables.directory, "echo"))
    address = server.line()
    status = command("status")
    (worker,) = server.workers()
    assert status.returncode == 0, status.stderr
    shown = status.stdout
    assert f"process {server.pid}: serving, for " in shown
    assert f"listens on {address}\n" in shown
    assert f"servable 'echo' version 1 on device 0: process {worker}, ready, restarted 0 times\n" in shown
    failed = command("status", "1")
    assert failed.returncode == 1
    assert "Error: Process 1 runs no MindServe server" in failed.stderr
    assert "Traceback" not in failed.stderr
    assert command("status", "0").returncode == 2
