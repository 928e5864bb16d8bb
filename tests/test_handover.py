"""A server that is replaced by another process while it is asked, and one that ends while it is asked."""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
import re
import resource
import signal
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import grpc
import pytest

from certificates import Files
from conftest import BLOCKING_SERVABLE, ECHO_SERVABLE, PACKAGE, ServerProcess, children, is_alive, pid_of, wait_gone
from e2e_support import PREAMBLE, notes_internal_address, server_process, until, write_servable
from mindserve.admin import ask
from mindserve.client import Client
from mindserve.errors import StartError
from mindserve.server.handover import ENVIRONMENT, Predecessor, from_environment
from traffic import CONFIG, SERVABLE, traffic


class Served:
    """A server, its successors, and the command line to talk to them."""

    def __init__(self, process: ServerProcess, environment: dict[str, str]) -> None:
        self.process = process
        self._environment = environment
        self.pids = [process.pid]
        self.addresses = process.line().split()

    @property
    def pid(self) -> int:
        """Of the server that is in charge now."""
        return self.pids[-1]

    def command(self, *arguments: object) -> subprocess.CompletedProcess[str]:
        """Runs ``mindserve``."""
        return subprocess.run(
            [sys.executable, "-m", "mindserve", *map(str, arguments)],
            env={**os.environ, **self._environment},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

    def hand_over(self, *arguments: object) -> int:
        """Has the server replaced; the successor's process."""
        before = self.pid
        done = self.command("handover", before, *arguments)
        assert done.returncode == 0, done.stdout + done.stderr + self.process.errors()
        assert self.process.line().split() == self.addresses
        said = re.search(rf"process (\d+) serves; process {before} finishes", done.stdout)
        assert said, done.stdout
        self.pids.append(int(said[1]))
        assert self.status()["pid"] == self.pid != before
        return self.pid

    def status(self) -> dict[str, Any]:
        """What it says of itself."""
        return ask(self.pid, "status", {}, str)

    def close(self) -> None:
        """Ends what is left: successors are nobody's children once they have taken over."""
        run = pathlib.Path(os.environ["XDG_RUNTIME_DIR"]) / "mindserve"
        masters = {*self.pids, *(int(path.stem) for path in run.glob("*.sock"))}
        left = [pid for pid in masters.union(*map(children, masters)) if self._runs_here(pid)]
        for pid in left:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.process.process.wait()
        wait_gone(left)

    def _runs_here(self, pid: int) -> bool:
        """Whether that process is one of this server's: a number may be another one's by now."""
        try:
            return os.readlink(f"/proc/{pid}/cwd") == str(self.process.cwd)
        except OSError:
            return False


Serve = Callable[..., Served]


@pytest.fixture
def serve(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Serve]:
    """Runs a start script; ends the server and its successors afterwards."""
    (tmp_path / "run").mkdir()
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "run"))
    with contextlib.ExitStack() as stack:

        def start(script: str, **environment: str) -> Served:
            environment = {"PYTHONPATH": str(PACKAGE), **environment}
            served = Served(
                stack.enter_context(server_process(tmp_path / "server", script, **environment)), environment
            )
            stack.callback(served.close)
            return served

        yield start


def script_for(folder: pathlib.Path, name: str, config: str, listen: str = "'127.0.0.1:0'", after: str = "") -> str:
    """A start script that serves this one servable and prints its addresses."""
    write_servable(folder / "servables", name, config)
    return (
        "import sys\n"
        "from mindserve import server\n"
        f"server.start_servables(server.ServableStartConfig({str(folder / 'servables')!r}, {name!r}))\n"
        f"print(*server.start_grpc_server({listen}), flush=True)\n{after}"
    )


def listeners(files: Files) -> str:
    """TCP, a Unix socket, and mutual TLS."""
    tls = f"server.SSLConfig({files.server!r}, {files.server_key!r}, custom_ca={files.ca!r}, verify_client=True)"
    return (
        f"[server.Listener('127.0.0.1:0'), server.Listener('unix:traffic.sock'), server.Listener('localhost:0', {tls})]"
    )


def reachable(served: Served) -> tuple[list[str], list[str]]:
    """The plain addresses and the one with mutual TLS, for a client in another directory."""
    tcp, _, tls = served.addresses
    return [tcp, f"unix:{served.process.cwd}/traffic.sock"], [tls]


# -- handover ----------------------------------------------------------------------------------------------------------


def test_nothing_is_lost_over_two_handovers(serve: Serve, tmp_path: pathlib.Path, own_files: Files) -> None:
    served = serve(script_for(tmp_path, SERVABLE, CONFIG, listeners(own_files)))
    path = served.process.cwd / "traffic.sock"
    file = path.stat().st_ino
    plain, mutual = reachable(served)
    with traffic(plain, mutual, own_files) as seen:
        seen.wait_for(served.pid)
        for _ in range(2):
            before = served.pid
            workers = children(before)
            seen.wait_for(served.hand_over())
            wait_gone([before, *workers])
        assert path.stat().st_ino == file
        assert served.process.wait() == 0
    assert not seen.failures, (seen.failures[:5], served.process.errors())
    assert seen.answers > 100
    os.kill(served.pid, signal.SIGTERM)
    wait_gone([served.pid])
    assert not path.exists()
    assert os.listdir(tmp_path / "run" / "mindserve") == []
    errors = served.process.errors()
    assert "Traceback" not in errors
    assert "[WARNING]" not in errors
    assert "[ERROR]" not in errors


def test_a_start_timeout_that_never_passes(serve: Serve, tmp_path: pathlib.Path) -> None:
    """It is longer than the kernel waits at one time."""
    served = serve(script_for(tmp_path, "echo", ECHO_SERVABLE).replace("'echo')", "'echo', start_timeout=1e9)"))
    served.hand_over()


SPLITS = """
from mindserve.server import Variation
for name in ("kept", "changed", "cleared"):
    server.set_traffic(name, [Variation("a", "echo"), Variation("b", "echo", weight=0)])
"""


def test_how_calls_are_split_is_handed_over(serve: Serve, tmp_path: pathlib.Path) -> None:
    """What was said by the command line; the rest is the start script's to say."""
    script = script_for(tmp_path, "echo", ECHO_SERVABLE)
    served = serve(script.replace("print(", SPLITS + "print(", 1))
    for arguments in (("set", "changed", "b=3"), ("set", "added", "c=1:echo"), ("clear", "cleared")):
        done = served.command("traffic", *arguments, "--pid", served.pid)
        assert done.returncode == 0, done.stderr

    def splits() -> dict[str, dict[str, float]]:
        shown = ask(served.pid, "traffic", {}, str)["traffic"]
        return {each["name"]: {part["name"]: part["weight"] for part in each["variations"]} for each in shown}

    expected = {"added": {"c": 1.0}, "changed": {"a": 1.0, "b": 3.0}, "kept": {"a": 1.0, "b": 0.0}}
    assert splits() == expected
    # Over two of them: what was taken over is passed on, too.
    for _ in range(2):
        served.hand_over()
        assert splits() == expected
    with Client(served.addresses[0], "added", "same") as client:
        assert client.infer({"x": 1}, timeout=60) == [{"x": 1}]


def test_calls_in_flight_are_finished_by_the_old_server(serve: Serve, tmp_path: pathlib.Path) -> None:
    served = serve(script_for(tmp_path, "block", BLOCKING_SERVABLE))
    old = served.pid
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    with Client(served.addresses[0], "block", "method") as client:
        late = client.infer_async({"fifo": str(fifo)}, timeout=120)
        assert fifo.read_text() == "running"
        served.hand_over()
        assert is_alive(old)
        fifo.write_text("from the old one")
        assert late.result() == [{"text": "from the old one"}]
        wait_gone([old])


FROM_THE_SCRIPT = """
import os
if os.path.exists("once"):
    sys.exit()
open("once", "w").close()
import threading
def replace():
    sys.stdin.readline()
    print("successor", server.handover(), flush=True)
threading.Thread(target=replace).start()
"""


def test_the_internal_socket_is_each_masters_own(serve: Serve, tmp_path: pathlib.Path) -> None:
    written = tmp_path / "addresses"
    served = serve(script_for(tmp_path, "echo", ECHO_SERVABLE + notes_internal_address(written)))
    served.hand_over()
    wait_gone([served.pids[0]])
    before, after = (pathlib.Path(line.removeprefix("unix:")) for line in written.read_text().split())
    assert not before.parent.exists()
    assert after.is_socket()


def test_a_script_may_hand_over_by_itself(serve: Serve, tmp_path: pathlib.Path) -> None:
    served = serve(script_for(tmp_path, "echo", ECHO_SERVABLE, after=FROM_THE_SCRIPT))
    served.process.tell("now")
    # Of the two, at the same time: the new one's addresses, and the old one's word.
    (told,) = {served.process.line(), served.process.line()} - {*served.addresses}
    assert told.startswith("successor ")
    pid = told.split()[1]
    served.pids.append(int(pid))
    assert served.process.wait() == 0
    with Client(served.addresses[0], "echo", "worker_pid") as client:
        assert pid_of(client.infer({"x": 1})) in children(int(pid))


def test_a_script_that_still_runs_is_told_by_its_end(serve: Serve, tmp_path: pathlib.Path) -> None:
    after = """
import threading
try:
    threading.Event().wait()
except SystemExit as error:
    print("ended", error.code, flush=True)
"""
    served = serve(script_for(tmp_path, "echo", ECHO_SERVABLE, after=after))
    served.hand_over()
    assert served.process.line() == "ended 0"
    assert served.process.wait() == 0


def test_listeners_may_change(serve: Serve, tmp_path: pathlib.Path) -> None:
    """What the new script no longer wants goes with the old server, and what is new is bound."""
    script = script_for(tmp_path, "echo", ECHO_SERVABLE, "LISTENERS")
    both = "[server.Listener('unix:gone.sock'), server.Listener('127.0.0.1:0')]"
    served = serve(script.replace("LISTENERS", both))
    folder = served.process.cwd
    kept = served.addresses[1]
    changed = "[server.Listener('127.0.0.1:0'), server.Listener('unix:new.sock', mode=0o660)]"
    (folder / "start.py").write_text(script.replace("LISTENERS", changed))
    served.addresses = [kept, "unix:new.sock"]
    old = served.pid
    served.hand_over()
    wait_gone([old])
    assert not (folder / "gone.sock").exists()
    assert (folder / "new.sock").stat().st_mode & 0o777 == 0o660
    for address in (kept, f"unix:{folder}/new.sock"):
        with Client(address, "echo", "same") as client:
            assert client.infer({"x": "x"}, timeout=60) == [{"x": "x"}]


def test_a_crash_after_the_handover_is_a_crash(serve: Serve, tmp_path: pathlib.Path) -> None:
    served = serve(script_for(tmp_path, "echo", ECHO_SERVABLE, "'unix:s.sock'"))
    new = served.hand_over()
    assert served.process.wait() == 0
    os.kill(new, signal.SIGKILL)
    wait_gone([new])
    done = served.command("status", new)
    assert done.returncode == 1
    # What it has left behind is no hindrance.
    with server_process(served.process.cwd, (served.process.cwd / "start.py").read_text()) as again:
        assert again.line() == "unix:s.sock"
        with Client(f"unix:{served.process.cwd}/s.sock", "echo", "same") as client:
            assert client.infer({"x": "x"}, timeout=60) == [{"x": "x"}]


def test_a_tls_handshake_under_way_is_finished(serve: Serve, tmp_path: pathlib.Path, own_files: Files) -> None:
    """It would look like a server out of order if it were cut off; so it is told to connect anew."""
    listen = listeners(own_files) + ", limits=server.Limits(header_timeout=120)"
    served = serve(script_for(tmp_path, "echo", ECHO_SERVABLE, listen))
    host, port = served.addresses[2].rsplit(":", 1)
    old = served.pid
    with socket.create_connection((host, int(port))) as connection:
        until(lambda: served.status()["connections"] == 1)
        served.hand_over()
        assert is_alive(old)
        context = ssl.create_default_context(cafile=own_files.ca)
        context.load_cert_chain(own_files.client, own_files.client_key)
        context.set_alpn_protocols(["h2"])
        connection.settimeout(60)
        with context.wrap_socket(connection, server_hostname="localhost") as tls:
            tls.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(3) + b"\x04" + bytes(5))
            with tls.makefile("rb") as stream:
                kinds = []
                while 7 not in kinds:  # GOAWAY
                    head = stream.read(9)
                    assert len(head) == 9, kinds
                    kinds.append(head[3])
                    stream.read(int.from_bytes(head[:3], "big"))
        assert kinds[0] == 4  # SETTINGS
    wait_gone([old])


OFF_THE_MAIN_THREAD = """
import threading
from mindserve import server
def start():
    server.start_servables(server.ServableStartConfig({directory!r}, "echo"))
    print(server.start_grpc_server("127.0.0.1:0")[0], flush=True)
threading.Thread(target=start).start()
threading.Event().wait()
"""


def test_a_server_that_has_not_taken_the_signals_ends_too(serve: Serve, tmp_path: pathlib.Path) -> None:
    write_servable(tmp_path / "servables", "echo", ECHO_SERVABLE)
    served = serve(OFF_THE_MAIN_THREAD.format(directory=str(tmp_path / "servables")))
    until(lambda: served.status()["state"] == "serving")
    served.hand_over()
    # Its main thread would wait for ever; what a SIGTERM does there is what it always did.
    assert served.process.wait() == -signal.SIGTERM


def test_a_service_manager_is_told(serve: Serve, tmp_path: pathlib.Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.settimeout(60)
        path = tmp_path / "notify"
        manager.bind(str(path))
        served = serve(script_for(tmp_path, "echo", ECHO_SERVABLE), NOTIFY_SOCKET=str(path))
        assert manager.recv(100) == b"READY=1"
        new = served.hand_over()
        told = {manager.recv(100), manager.recv(100)}  # the old and the new one, each for itself
        assert told == {b"MAINPID=%d" % new, b"READY=1"}
        assert served.process.wait() == 0
        os.kill(new, signal.SIGTERM)
        assert manager.recv(100) == b"STOPPING=1"
        wait_gone([new])
        manager.setblocking(False)
        with pytest.raises(BlockingIOError):
            manager.recv(100)


def test_workers_know_nothing_of_it(serve: Serve, tmp_path: pathlib.Path) -> None:
    """Neither the descriptor nor the environment's word for it; and their logs go on."""
    config = PREAMBLE + "import os\nprint('a worker', flush=True)\n"
    config += "@method()\ndef environment(x):\n    return str(sorted(os.environ))\n"
    served = serve(script_for(tmp_path, "echo", config))
    served.hand_over()
    with Client(served.addresses[0], "echo", "environment") as client:
        (answer,) = client.infer({"x": 1})
    assert "MINDSERVE" not in str(answer["y"])
    (worker,) = children(served.pid)
    links = [os.readlink(path) for path in pathlib.Path(f"/proc/{worker}/fd").iterdir()]
    assert sum(link.startswith("socket:") for link in links) == 2, links  # control and link
    (log,) = (served.process.cwd / "serving_logs").iterdir()
    assert log.read_text().count("a worker") == 2


def test_a_descriptor_that_is_not_from_the_parent(monkeypatch: pytest.MonkeyPatch) -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs:
        monkeypatch.setenv(ENVIRONMENT, str(theirs.fileno()))
        assert from_environment() is None
        assert ENVIRONMENT not in os.environ
        theirs.send(b"it is still open")
        assert ours.recv(100) == b"it is still open"


def open_descriptors() -> set[int]:
    return {int(path.name) for path in pathlib.Path("/proc/self/fd").iterdir() if path.exists()}


@contextlib.contextmanager
def descriptors_left(count: int) -> Iterator[None]:
    """So many more of them, and none beyond, can be opened in this process."""
    _, hard = before = resource.getrlimit(resource.RLIMIT_NOFILE)
    used = open_descriptors()
    held = [os.open("/dev/null", os.O_RDONLY) for _ in set(range(max(used))) - used]
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(used) + 1 + count, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
        for fd in held:
            os.close(fd)


DIES = """
import socket, sys
_, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
with socket.socket(fileno=int(sys.argv[1])) as out:
    socket.send_fds(out, [b"x"], [theirs.fileno()])
"""


def test_an_old_server_that_dies_before_anything_is_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    """A successor that took itself for a server like any other would be in the way of the one that is started anew."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        subprocess.run([sys.executable, "-c", DIES, str(theirs.fileno())], pass_fds=[theirs.fileno()], check=True)
        _, (end,), _, _ = socket.recv_fds(ours, 1, 1)
    monkeypatch.setenv(ENVIRONMENT, str(end))
    taken = from_environment()
    assert taken is not None
    with taken, pytest.raises(StartError, match="The server that hands over to this one is gone"):
        Predecessor(taken)


@pytest.mark.parametrize("room", [0, 1, 2])
def test_a_successor_without_room_for_the_descriptors(room: int) -> None:
    """The kernel leaves out those that have no room: what is handed over last would be missing without a word."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    listeners = [{"given": "127.0.0.1:0", "bound": "127.0.0.1:5500", "fds": 2, "file": None}]
    hello = {"protocol": 1, "listeners": listeners, "servables": []}
    with ours, theirs:
        # Two listening sockets, and where errors are written.
        socket.send_fds(ours, [json.dumps(hello).encode()], [0, 1, 2])
        before = open_descriptors()
        with (
            descriptors_left(room),
            pytest.raises(StartError, match=r"sockets of .*: \[Errno 24\] Too many open files"),
        ):
            Predecessor(theirs)
        assert open_descriptors() == before


def test_the_word_of_a_handover_that_is_not_for_this_process(serve: Serve, tmp_path: pathlib.Path) -> None:
    """As a start script's child finds it, that is started before anything of MindServe is imported there."""
    for text in ("0", "1000000", "x"):
        served = serve(script_for(tmp_path / text, "echo", ECHO_SERVABLE), MINDSERVE_HANDOVER_FD=text)
        with Client(served.addresses[0], "echo", "same") as client:
            assert client.infer({"x": "x"}) == [{"x": "x"}]
        served.close()


# -- a successor that fails --------------------------------------------------------------------------------------------

BROKEN = {
    "raises": ("raise ValueError('my error')\n", "", "ValueError: my error"),
    "is_no_python": ("this is no Python\n", "", "SyntaxError"),
    "ends": ("import sys\nsys.exit('I will not')\n", "", "exited with status 1 before it was ready"),
    "fails_when_it_has_begun": ("", "raise ValueError('my error')\n", "ValueError: my error"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_successor_whose_script_fails(serve: Serve, tmp_path: pathlib.Path, case: str) -> None:
    script = script_for(tmp_path, "echo", ECHO_SERVABLE, "[server.Listener('127.0.0.1:0'), server.Listener('unix:s')]")
    before, after, expected = BROKEN[case]
    served = serve(script)
    with Client(served.addresses[0], "echo", "worker_pid") as client:
        worker = pid_of(client.infer({"x": 1}))
        # Never ready by what it serves: its script's end decides.
        script = script.replace("server.start_servables", "(lambda config: None)") if after else script
        (served.process.cwd / "start.py").write_text(before + script + after)
        done = served.command("handover", served.pid)
        assert done.returncode == 1
        assert expected in done.stderr
        assert "This server goes on" in done.stderr
        assert served.status()["state"] == "serving"
        assert pid_of(client.infer({"x": 1})) == worker
    with Client(f"unix:{served.process.cwd}/s", "echo", "worker_pid") as client:
        assert pid_of(client.infer({"x": 1})) == worker
    assert served.process.workers() == [worker]  # the successor has gone
    # And it may try again.
    (served.process.cwd / "start.py").write_text(script_for(tmp_path / "again", "echo", ECHO_SERVABLE, "'unix:s'"))
    served.addresses = ["unix:s"]
    if after:
        assert served.process.line()
    served.hand_over()


def test_a_successor_whose_servable_is_broken(serve: Serve, tmp_path: pathlib.Path) -> None:
    served = serve(script_for(tmp_path, "echo", ECHO_SERVABLE))
    (tmp_path / "servables" / "echo" / "servable_config.py").write_text("import no_such_module_at_all\n")
    done = served.command("handover", served.pid)
    assert done.returncode == 1
    assert "no_such_module_at_all" in done.stderr
    with Client(served.addresses[0], "echo", "same") as client:
        assert client.infer({"x": "x"}) == [{"x": "x"}]


def test_a_reason_that_is_long_on_the_way(serve: Serve, tmp_path: pathlib.Path) -> None:
    served = serve(script_for(tmp_path, "echo", ECHO_SERVABLE))
    # Each character takes twelve bytes there.
    (tmp_path / "servables" / "echo" / "servable_config.py").write_text("raise ValueError('\\U0001f600' * 9000)\n")
    done = served.command("handover", served.pid)
    assert done.returncode == 1
    assert f"failed: Start of servable 'echo' version 1 on device 0 failed: ValueError: {'😀' * 1000}" in done.stderr
    assert "This server goes on" in done.stderr


WAITS = "import threading, sys\nprint('waits', flush=True)\nthreading.Event().wait()\n"


def test_a_successor_that_is_never_ready(serve: Serve, tmp_path: pathlib.Path) -> None:
    served = serve(script_for(tmp_path, "echo", ECHO_SERVABLE))
    script = (served.process.cwd / "start.py").read_text()
    (served.process.cwd / "start.py").write_text(script.replace("server.start_servables", "(lambda _: None)") + WAITS)
    done = served.command("handover", served.pid, "--timeout", "10")
    assert done.returncode == 1
    assert "was not ready within 10 s: it waits for servable 'echo', or for its start script to end" in done.stderr
    with Client(served.addresses[0], "echo", "same") as client:
        assert client.infer({"x": "x"}) == [{"x": "x"}]
    assert len(served.process.workers()) == 1


def test_one_handover_at_a_time_and_none_in_the_way_of_a_stop(serve: Serve, tmp_path: pathlib.Path) -> None:
    served = serve(script_for(tmp_path, "echo", ECHO_SERVABLE))
    (served.process.cwd / "start.py").write_text(WAITS)
    command = [sys.executable, "-m", "mindserve", "handover", str(served.pid)]
    environment = {**os.environ, "PYTHONPATH": str(PACKAGE)}
    with subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True) as first:
        assert served.process.line() == "waits"
        assert served.status()["state"] == "handing over"
        second = served.command("handover", served.pid)
        assert second.returncode == 1
        assert "A handover is under way already" in second.stderr
        everything = served.process.workers()
        assert len(everything) == 2
        served.process.send(signal.SIGTERM)
        _, errors = first.communicate(timeout=60)
        assert first.returncode == 1
        assert "was given up: the server is being stopped" in errors
    assert served.process.wait() == 0
    wait_gone(everything)


IN_THE_BACKGROUND = """
import threading
def replace():
    sys.stdin.readline()
    server.handover()
threading.Thread(target=replace, daemon=True).start()
"""


def test_a_stop_ends_a_successor_for_which_nobody_waits(serve: Serve, tmp_path: pathlib.Path) -> None:
    served = serve(script_for(tmp_path, "echo", ECHO_SERVABLE, after=IN_THE_BACKGROUND))
    deaf = "import signal\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
    (served.process.cwd / "start.py").write_text(deaf + WAITS)
    served.process.tell("now")
    assert served.process.line() == "waits"
    everything = served.process.workers()
    assert len(everything) == 2
    served.process.send(signal.SIGTERM)
    assert served.process.wait() == 0
    wait_gone(everything)


def test_a_successor_ends_when_the_old_server_is_killed(serve: Serve, tmp_path: pathlib.Path) -> None:
    served = serve(script_for(tmp_path, "echo", ECHO_SERVABLE))
    # It has begun to start something, and hangs.
    script = (served.process.cwd / "start.py").read_text().replace("server.start_servables", "(lambda _: None)")
    (served.process.cwd / "start.py").write_text(script + WAITS)
    command = [sys.executable, "-m", "mindserve", "handover", str(served.pid)]
    environment = {**os.environ, "PYTHONPATH": str(PACKAGE)}
    with subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True) as asking:
        assert served.process.line() == served.addresses[0]
        assert served.process.line() == "waits"
        everything = served.process.workers()
        served.process.send(signal.SIGKILL)
        _, errors = asking.communicate(timeout=60)
        assert "ended before it had answered" in errors
        assert asking.returncode == 1
    wait_gone(everything)


# -- a stop under load -------------------------------------------------------------------------------------------------


def test_a_stop_under_load_loses_no_call(serve: Serve, tmp_path: pathlib.Path, own_files: Files) -> None:
    served = serve(script_for(tmp_path, SERVABLE, CONFIG, listeners(own_files)))
    plain, mutual = reachable(served)
    with traffic(plain, mutual, own_files) as seen:
        seen.wait_for(served.pid)
        told = time.monotonic()
        served.process.send(signal.SIGTERM)
        assert served.process.wait() == 0
        seen.wait_for_failures()
    # A thread may stand still between noting its time and calling: who could not connect has sent nothing, whenever.
    refused = ("failed to connect", "Connection refused", "No such file")
    for failure in seen.failures:
        assert failure.code is grpc.StatusCode.UNAVAILABLE, failure
        if not any(text in failure.text for text in refused):
            assert failure.begun > told - 0.001, failure
            assert "Connection reset" in failure.text, failure


def test_what_is_beyond_the_drain_timeout_is_cut(serve: Serve, tmp_path: pathlib.Path) -> None:
    listen = "'127.0.0.1:0', limits=server.Limits(drain_timeout=0.3)"
    served = serve(script_for(tmp_path, "block", BLOCKING_SERVABLE, listen))
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    with Client(served.addresses[0], "block", "method") as client:
        cut = client.infer_async({"fifo": str(fifo)}, timeout=120)
        assert fifo.read_text() == "running"
        served.process.send(signal.SIGTERM)
        assert "Grpc Error, (14, 'unavailable')" in cut.result()["error"]
        assert served.process.wait() == 0
