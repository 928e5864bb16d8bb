"""Where a server listens: sockets, TLS, several at once, and what goes over a limit."""

from __future__ import annotations

import contextlib
import os
import pathlib
import socket
import stat
from collections.abc import Iterator

import grpc
import numpy as np
import pytest

import certificates
from conftest import ECHO_SERVABLE
from e2e_support import PREAMBLE, Served, request, server_process, serving, status_of, tensor, until, write_servable
from mindserve.certs import make_certificates
from mindserve.client import Client, SSLConfig
from mindserve.proto import PREDICT


def answer(address: str, ssl_config: SSLConfig | None = None, timeout: float = 60) -> object:
    with Client(address, "echo", "same", ssl_config=ssl_config) as client:
        return client.infer({"x": "text"}, timeout=timeout)


RIGHT = [{"x": "text"}]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    folder = tmp_path_factory.mktemp("listeners")
    (folder / "old").mkdir()
    certificates.make_reference_certificates(folder / "old")
    make_certificates(folder / "new")
    return folder


@pytest.fixture(scope="module")
def served(folder: pathlib.Path) -> Iterator[Served]:
    """One server on seven listeners."""
    tls = "server.SSLConfig(f'{f}/{k}/server.crt', f'{f}/{k}/server.key'"
    mutual = ", custom_ca=f'{f}/{k}/ca.crt', verify_client=True)"
    listeners = [
        "server.Listener('127.0.0.1:0')",
        "server.Listener('[::1]:0')",
        f"server.Listener('unix:{folder}/plain.sock')",
        f"server.Listener('unix:{folder}/open.sock', mode=0o666)",
        *(
            f"server.Listener({address}, {text.replace('{f}', str(folder)).replace('{k}', kind)})"
            for kind in ("old", "new")
            for address, text in (
                ("'localhost:0'", tls + ")"),
                ("'localhost:0'", tls + mutual),
                (f"'unix:{folder}/{kind}.sock'", tls + mutual),
            )
        ),
    ]
    with serving(folder / "server", "echo", ECHO_SERVABLE, listen=f"[{', '.join(listeners)}]") as server:
        assert len(server.addresses) >= len(listeners)
        yield server


def tls_addresses(served: Served, folder: pathlib.Path, kind: str) -> tuple[str, str, str]:
    """Addresses of one-way TLS, of mutual TLS, and of mutual TLS on a Unix socket."""
    place = served.addresses.index(f"unix:{folder}/{kind}.sock")
    one_way, mutual = served.addresses[place - 2 : place]
    return one_way.replace("127.0.0.1", "localhost"), mutual.replace("127.0.0.1", "localhost"), served.addresses[place]


# -- kinds of sockets --------------------------------------------------------------------------------------------------


def test_plain_listeners(served: Served, folder: pathlib.Path) -> None:
    assert served.addresses[0].startswith("127.0.0.1:")
    assert served.addresses[1].startswith("[::1]:")
    for address in served.addresses[:4]:
        assert answer(address) == RIGHT
    assert answer(f"unix:{os.path.relpath(folder / 'plain.sock')}") == RIGHT


def test_modes_of_unix_sockets(served: Served, folder: pathlib.Path) -> None:
    for name, mode in (("plain", 0o600), ("open", 0o666), ("new", 0o600)):
        status = (folder / f"{name}.sock").stat()
        assert stat.S_ISSOCK(status.st_mode)
        assert stat.S_IMODE(status.st_mode) == mode


@pytest.mark.parametrize("kind", ["old", "new"])
def test_tls(served: Served, folder: pathlib.Path, kind: str) -> None:
    files = certificates.files_in(folder / kind)
    nobody = SSLConfig(custom_ca=files.ca)
    own = SSLConfig(certificate=files.client, private_key=files.client_key, custom_ca=files.ca)
    one_way, mutual, local = tls_addresses(served, folder, kind)
    assert answer(one_way, nobody) == RIGHT
    assert answer(one_way, own) == RIGHT
    for address in (mutual, local):
        assert answer(address, own) == RIGHT
        assert "Grpc Error, (14, 'unavailable')" in str(answer(address, nobody))
    # Of another authority.
    other = certificates.files_in(folder / {"old": "new", "new": "old"}[kind])
    foreign = SSLConfig(certificate=other.client, private_key=other.client_key, custom_ca=files.ca)
    assert "Grpc Error, (14, 'unavailable')" in str(answer(mutual, foreign))
    assert "Grpc Error, (14, 'unavailable')" in str(answer(one_way, SSLConfig(custom_ca=other.ca)))
    assert answer(one_way, nobody) == RIGHT


def test_plaintext_meets_tls(served: Served, folder: pathlib.Path) -> None:
    one_way, _, _ = tls_addresses(served, folder, "new")
    lines = len(served.process.errors().splitlines())
    assert "Grpc Error, (14, 'unavailable')" in str(answer(one_way))
    # A line, not one for each attempt; it says who and what.
    said = until(lambda: served.process.errors().splitlines()[lines:])
    assert all("[WARNING]" in line for line in said), said
    files = certificates.files_in(folder / "new")
    assert "Grpc Error, (14, 'unavailable')" in str(
        answer(served.addresses[0].replace("127.0.0.1", "localhost"), SSLConfig(custom_ca=files.ca))
    )
    assert answer(served.addresses[0]) == RIGHT
    assert answer(one_way, SSLConfig(custom_ca=files.ca)) == RIGHT


def test_other_protocols_are_turned_away(served: Served, folder: pathlib.Path) -> None:
    one_way, _, _ = tls_addresses(served, folder, "new")
    for address in (served.addresses[0], one_way.replace("localhost", "127.0.0.1")):
        host, port = address.split(":")
        for data in (b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", b"\0" * 1000, b"\x16\x03\x01\xff\xff" + b"x" * 500):
            with socket.create_connection((host, int(port)), timeout=60) as stranger:
                stranger.sendall(data)
                stranger.shutdown(socket.SHUT_WR)
                while stranger.recv(65536):
                    pass
    for address in served.addresses[:4]:
        assert answer(address) == RIGHT


def test_connections_that_say_nothing(served: Served) -> None:
    host, port = served.addresses[0].split(":")
    idle = [socket.create_connection((host, int(port)), timeout=60) for _ in range(200)]
    try:
        assert answer(served.addresses[0]) == RIGHT
    finally:
        for each in idle:
            each.close()


# -- starts that fail --------------------------------------------------------------------------------------------------

ERRORS = """
import sys
from mindserve import server

def error(*arguments, **options):
    try:
        print("started", server.start_grpc_server(*arguments, **options), flush=True)
    except RuntimeError as error:
        print(type(error).__name__, str(error).replace(chr(10), " "), flush=True)
"""


# Of paths that no socket can have, what the end of the error says.
REASONS = {
    "file": "there is a file of this name that is no socket: move it away, or give another path",
    "none/file.sock": "none': No such file or directory",
    "x" * 200: " bytes, at most 107 are possible",
}


def test_addresses_in_use(tmp_path: pathlib.Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        script = f"""
error("127.0.0.1:{port}")
error([server.Listener("127.0.0.1:0"), server.Listener("localhost:{port}")])
error("unix:{tmp_path}/file")
error("unix:{tmp_path}/none/file.sock")
error("unix:{tmp_path}/{"x" * 200}")
error("unix:{tmp_path}/stale.sock")
error("unix:{tmp_path}/other.sock")
server.stop()
"""
        (tmp_path / "file").write_text("precious")
        with socket.socket(socket.AF_UNIX) as stale:
            stale.bind(str(tmp_path / "stale.sock"))
        with server_process(tmp_path / "run", ERRORS + script) as process:
            failed = "Serving Error: Serving gRPC server start failed, create server failed, address "
            line = process.line()
            assert f"{failed}127.0.0.1:{port}" in line
            assert line.endswith("Address already in use: another server listens there, or give port 0 for a free one")
            assert f"{failed}localhost:{port}" in process.line()
            for name, reason in REASONS.items():
                line = process.line()
                assert line.startswith(("StartError", "ConfigError")), line
                assert f"{tmp_path}/{name}" in line
                assert line.endswith(reason)
            assert process.line() == f"started ['unix:{tmp_path}/stale.sock']"
            assert process.line() == "StartError Serving Error: Serving gRPC server is already running"
            assert process.wait() == 0
    assert (tmp_path / "file").read_text() == "precious"


def test_paths_that_belong_to_others(tmp_path: pathlib.Path) -> None:
    """A live server without room for another connection, a socket of another kind, links, and what is no socket."""
    with contextlib.ExitStack() as stack:

        def made(kind: int = socket.SOCK_STREAM) -> socket.socket:
            return stack.enter_context(socket.socket(socket.AF_UNIX, kind))

        full = made()
        full.bind(str(tmp_path / "full"))
        full.listen(0)
        one = made(socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        while one.connect_ex(str(tmp_path / "full")) == 0:
            one = made(socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        made(socket.SOCK_DGRAM).bind(str(tmp_path / "datagrams"))
        stale = made()
        stale.bind(str(tmp_path / "stale"))
        stale.close()
        (tmp_path / "link").symlink_to(tmp_path / "stale")
        (tmp_path / "nowhere").symlink_to(tmp_path / "none")
        os.mkfifo(tmp_path / "fifo")
        (tmp_path / "directory").mkdir()
        names = ("full", "datagrams", "link", "nowhere", "fifo", "directory")
        before = {name: (tmp_path / name).lstat() for name in names}
        script = "".join(f"error('unix:{tmp_path}/{name}')\n" for name in names)
        with server_process(tmp_path / "run", ERRORS + script) as process:
            for name in names:
                line = process.line()
                assert line.startswith("StartError"), line
                assert f"{tmp_path}/{name}" in line
            assert process.wait() == 0
        for name, status in before.items():
            now = (tmp_path / name).lstat()
            assert (now.st_ino, now.st_mode) == (status.st_ino, status.st_mode)


def test_a_socket_that_another_server_answers_on(served: Served, folder: pathlib.Path, tmp_path: pathlib.Path) -> None:
    script = f"error('unix:{folder}/plain.sock')\nerror('{served.addresses[0]}')\nerror('{served.addresses[1]}')\n"
    with server_process(tmp_path / "run", ERRORS + script) as process:
        for address in (f"unix:{folder}/plain.sock", served.addresses[0], served.addresses[1]):
            assert f"create server failed, address {address}" in process.line()
        assert process.wait() == 0
    assert answer(f"unix:{folder}/plain.sock") == RIGHT


# -- limits ------------------------------------------------------------------------------------------------------------

BLOCK = (
    PREAMBLE
    + """
kept = []


@method()
def block(fifo):
    with open(fifo, "w") as stream:
        stream.write("running")
    with open(fifo) as stream:
        return stream.read()


@method()
def echo(x):
    return x


@method()
def keep(x):
    kept.append(x)
    return x.sum()
"""
)


def test_limits_of_a_server(tmp_path: pathlib.Path) -> None:
    limits = "server.Limits(max_enqueued_requests=1, max_instances_per_request=3, max_metadata_bytes=2000)"
    listen = f"'127.0.0.1:0', 1, limits={limits}"
    with serving(tmp_path / "server", "block", BLOCK, listen=listen) as served:
        code, text = status_of(lambda: served.raw(b"\0" * ((1 << 20) + 1)))
        assert code is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert "max_msg_mb_size" in text
        result = served.client("echo").infer({"x": np.zeros(1 << 20, np.uint8)})
        assert "Grpc Error, (8, 'resource exhausted')" in result["error"]
        assert served.ask("echo", *({"x": n} for n in range(3)))
        assert "max_instances_per_request" in served.client("echo").infer([{"x": n} for n in range(4)])["error"]
        assert "Grpc Error, (8" in served.client("echo").infer({"x": 1}, metadata={"key": "x" * 2000})["error"]

        fifo = tmp_path / "fifo"
        os.mkfifo(fifo)
        blocked = served.client("block").infer_async({"fifo": str(fifo)})
        assert fifo.read_text() == "running"
        error = served.client("echo").infer({"x": 1})["error"]
        assert "Grpc Error, (8, 'resource exhausted')" in error
        assert "enqueued requests count exceeds the limit 1" in error
        fifo.write_text("end")
        assert blocked.result() == [{"y": "end"}]
        assert served.value("echo", x=1) == 1


def test_what_functions_keep_does_not_use_up_the_servers_memory(tmp_path: pathlib.Path) -> None:
    """Arrays that outlive their requests: the limit is what is enqueued, not what a user's code holds on to."""
    listen = "'127.0.0.1:0', limits=server.Limits(max_enqueued_bytes=8 << 20)"
    with serving(tmp_path / "server", "keep", BLOCK, listen=listen) as served:
        for number in range(30):
            # Bytes are never copied for their alignment.
            assert served.value("keep", x=np.full(1 << 20, number, np.uint8)) == number << 20


def test_a_retry_hint_comes_with_an_overload(tmp_path: pathlib.Path) -> None:
    listen = "'127.0.0.1:0', limits=server.Limits(max_enqueued_requests=1)"
    with serving(tmp_path / "server", "block", BLOCK, listen=listen) as served:
        fifo = tmp_path / "fifo"
        os.mkfifo(fifo)
        blocked = served.client("block").infer_async({"fifo": str(fifo)})
        assert fifo.read_text() == "running"
        body = request("block", "echo", {"x": tensor("x")}).SerializeToString()
        with grpc.insecure_channel(served.address, [("grpc.enable_retries", 0)]) as channel:
            call = channel.unary_unary(PREDICT).future(body, timeout=60)
            assert call.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
            assert "grpc-retry-pushback-ms" in dict(call.trailing_metadata())
        fifo.write_text("end")
        assert blocked.result() == [{"y": "end"}]


def test_a_default_deadline(tmp_path: pathlib.Path) -> None:
    listen = "'127.0.0.1:0', limits=server.Limits(default_deadline=0.2)"
    with serving(tmp_path / "server", "block", BLOCK, listen=listen) as served:
        fifo = tmp_path / "fifo"
        os.mkfifo(fifo)
        blocked = served.client("block").infer_async({"fifo": str(fifo)})
        assert fifo.read_text() == "running"
        assert "Grpc Error, (4, 'deadline exceeded')" in blocked.result()["error"]
        fifo.write_text("end")
        assert until(lambda: served.client("echo").infer({"x": "x"}), lambda result: result == [{"y": "x"}])


def test_servers_may_be_started_first(tmp_path: pathlib.Path) -> None:
    write_servable(tmp_path / "servables", "echo", ECHO_SERVABLE)
    script = f"""
import sys
from mindserve import server
print(server.start_grpc_server("127.0.0.1:0")[0], flush=True)
sys.stdin.readline()
server.start_servables(server.ServableStartConfig({str(tmp_path / "servables")!r}, "echo"))
print("started", flush=True)
"""
    with server_process(tmp_path / "run", script) as process:
        address = process.line()
        assert answer(address) == {"error": "Request Servable(echo) method(same), servable is not available"}
        process.tell("go")
        assert process.line() == "started"
        assert answer(address) == RIGHT
