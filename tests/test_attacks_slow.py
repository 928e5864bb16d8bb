"""Attacks that take their time: headers, bodies, readers, handshakes, and connections that do nothing."""

from __future__ import annotations

import contextlib
import pathlib
import re
import socket
import ssl
import threading
from collections.abc import Iterator

import numpy as np
import pytest
from hyperframe.frame import DataFrame, HeadersFrame

from attacker import (
    Attacker,
    Neighbour,
    framed,
    headers_frame,
    many_descriptors,
    request_fields,
    resident,
    said_of,
    unharmed,
)
from certificates import Files
from conftest import ECHO_SERVABLE
from e2e_support import Served, request, server_process, serving, tensor, until, write_servable
from sanitizers import SLOWNESS, needs_no_descriptors

MESSAGE = request("echo", "same", {"x": tensor("text")}).SerializeToString()
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
SETTINGS = bytes([0, 0, 0, 4, 0, 0, 0, 0, 0])


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory, own_files: Files) -> Iterator[Served]:
    """A server on TCP and on TLS whose patience is short."""
    limits = "limits=server.Limits(header_timeout=1, body_idle_timeout=1, min_bytes_per_second=100_000)"
    tls = f"server.Listener('127.0.0.1:0', server.SSLConfig({own_files.server!r}, {own_files.server_key!r}))"
    listen = f"[server.Listener('127.0.0.1:0'), {tls}], {limits}"
    with serving(tmp_path_factory.mktemp("slow"), "echo", ECHO_SERVABLE, listen=listen) as server:
        yield server


@contextlib.contextmanager
def connected(address: str) -> Iterator[socket.socket]:
    host, port = address.rsplit(":", 1)
    with socket.create_connection((host, int(port)), timeout=60) as stranger:
        yield stranger


def drips(stranger: socket.socket, data: bytes, seconds: float = 0.05) -> None:
    """Sends it byte by byte until the server has closed the connection; fails if it comes to an end of it."""
    pause = threading.Event()
    stranger.settimeout(0)
    for byte in data:
        try:
            stranger.send(bytes([byte]))
            while stranger.recv(65536):
                pass
            return
        except BlockingIOError:
            pause.wait(seconds)
        except OSError:
            return
    raise AssertionError("the server took it all")


def lines_of(served: Served, stranger: socket.socket) -> list[str]:
    host, port = stranger.getsockname()[:2]
    return until(lambda: [line for line in served.process.errors().splitlines() if f"{host}:{port} " in line])


HALF_OPEN = {
    "nothing": b"",
    "half a preface": PREFACE[:10],
    "a preface and no SETTINGS": PREFACE,
    "half of SETTINGS": PREFACE + SETTINGS[:5],
}


@pytest.mark.parametrize("said", HALF_OPEN)
def test_half_open_connections(served: Served, said: str) -> None:
    with unharmed(served), connected(served.addresses[0]) as stranger:
        stranger.sendall(HALF_OPEN[said])
        while stranger.recv(65536):
            pass
        (line,) = lines_of(served, stranger)
        assert "its header did not come within header_timeout 1000 ms" in line


def test_clients_that_are_gone_without_a_word(tmp_path: pathlib.Path) -> None:
    """One that has called, and one in the middle of a call, say nothing any more; who answers PINGs stays."""
    limits = "server.Limits(keepalive_time=0.2, keepalive_timeout=1)"
    with (
        serving(tmp_path / "server", "echo", ECHO_SERVABLE, listen=f"'127.0.0.1:0', limits={limits}") as served,
        Attacker(served.address) as idle,
        Attacker(served.address) as within,
        Attacker(served.address) as alive,
    ):
        assert idle.wait(idle.begin(body=framed(MESSAGE)))["grpc-status"] == "0"
        within.begin("/grpc.health.v1.Health/Watch", framed(b""))
        gone = [idle, within]

        def are_closed() -> bool:
            for attacker in gone:
                attacker.look(0)  # what is not flushed answers nothing
            assert alive.is_served()
            return all(attacker.closed for attacker in gone)

        until(are_closed)
        for attacker in gone:
            (line,) = said_of(served, attacker)
            assert "it did not answer a PING within keepalive_timeout 1000 ms" in line
        assert alive.is_served()


# A ClientHello of 512 bytes, begun.
HELLO = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"


@pytest.mark.parametrize("said", [b"", HELLO, HELLO[:3]])
def test_handshakes_of_tls_that_do_not_end(served: Served, said: bytes) -> None:
    with unharmed(served), connected(served.addresses[1]) as stranger:
        stranger.sendall(said)
        with contextlib.suppress(ConnectionResetError):
            while stranger.recv(65536):
                pass
        (line,) = lines_of(served, stranger)
        assert "header_timeout 1000 ms" in line


def test_tls_and_then_nothing(served: Served, own_files: Files) -> None:
    context = ssl.create_default_context(cafile=own_files.ca)
    context.set_alpn_protocols(["h2"])
    with unharmed(served), connected(served.addresses[1]) as stranger:
        with context.wrap_socket(stranger, server_hostname="localhost") as tls:
            with contextlib.suppress(ssl.SSLError):
                while tls.recv(65536):
                    pass
            (line,) = lines_of(served, tls)
        assert "its header did not come within header_timeout 1000 ms" in line


def test_a_preface_byte_by_byte(served: Served) -> None:
    with unharmed(served), connected(served.addresses[0]) as stranger:
        drips(stranger, PREFACE + SETTINGS * 20)
        (line,) = lines_of(served, stranger)
        assert "header_timeout 1000 ms" in line


@pytest.mark.parametrize("trailers", [False, True])
def test_slow_headers(served: Served, trailers: bool) -> None:
    """A block of header fields that comes byte by byte, while other calls of the connection are answered."""
    with unharmed(served), Attacker(served.address) as attacker:
        if trailers:
            stream = attacker.begin(body=framed(MESSAGE), ends=False)
            block, flags = b"\0\1a\1b" * 100, ["END_STREAM"]
        else:
            assert attacker.wait(attacker.begin(body=framed(MESSAGE)))["grpc-status"] == "0"
            stream, flags = attacker.h2.get_next_available_stream_id(), []
            block = attacker.h2.encoder.encode(request_fields()) + b"\0\1a\1b" * 100
        frame = HeadersFrame(stream, data=block, flags=flags).serialize()
        pause = threading.Event()
        for byte in frame:
            if not attacker.send(bytes([byte])):
                break
            attacker.look(0)
            pause.wait(0.02)
        attacker.ends()
        (line,) = said_of(served, attacker)
        assert "its header did not come within header_timeout 1000 ms" in line


def test_messages_that_are_announced_and_do_not_come(tmp_path: pathlib.Path) -> None:
    """Twenty times max_enqueued_bytes is announced, and next to nothing of it sent: nobody else is refused anything."""
    limits = "server.Limits(body_idle_timeout=2, max_enqueued_bytes=64 << 20, max_msg_mb_size=16)"
    small, large = "text", np.zeros(4 << 20, np.uint8)
    with (
        serving(tmp_path / "server", "echo", ECHO_SERVABLE, listen=f"'127.0.0.1:0', limits={limits}") as served,
        contextlib.ExitStack() as stack,
    ):
        attackers = [stack.enter_context(Attacker(served.address)) for _ in range(8)]
        body = b"\0" + (16 << 20).to_bytes(4, "big") + b"xx"
        begun = [(attacker, attacker.begin(body=body, ends=False)) for attacker in attackers for _ in range(10)]

        def is_over() -> bool:
            for attacker in attackers:
                attacker.look(0)
            assert served.ask("same", {"x": small}) == [{"x": small}]
            (answer,) = served.ask("same", {"x": large})
            assert np.array_equal(answer["x"], large)
            return all(attacker.is_over(stream) for attacker, stream in begun)

        until(is_over)
        for attacker, stream in begun:
            assert "body_idle_timeout" in attacker.wait(stream)["grpc-message"]


def test_slow_messages_that_hold_what_others_lack(tmp_path: pathlib.Path) -> None:
    """Messages of which much has come, and whose rest comes a little faster than it must, for hours."""
    idle = 3 * SLOWNESS  # longer than it takes to send much of four messages
    limits = f"server.Limits(body_idle_timeout={idle}, max_enqueued_bytes=64 << 20, max_msg_mb_size=16)"
    large = np.zeros(8 << 20, np.uint8)
    with (
        serving(tmp_path / "server", "echo", ECHO_SERVABLE, listen=f"'127.0.0.1:0', limits={limits}") as served,
        contextlib.ExitStack() as stack,
    ):
        attackers = [stack.enter_context(Attacker(served.address)) for _ in range(4)]
        body = b"\0" + (16 << 20).to_bytes(4, "big") + bytes(10 << 20)
        streams = [attacker.begin(body=body, ends=False) for attacker in attackers]
        pause = threading.Event()

        def drip() -> None:
            pause.wait(0.02)
            for attacker, stream in zip(attackers, streams, strict=True):
                attacker.look(0)
                if not attacker.is_over(stream):
                    attacker.frames(DataFrame(stream, data=bytes(100)))

        for _ in range(100 * idle):
            drip()
        assert not any(attacker.is_over(stream) for attacker, stream in zip(attackers, streams, strict=True))

        def ask() -> object:
            drip()
            assert served.ask("same", {"x": "text"}) == [{"x": "text"}], "a quarter is left to what comes whole"
            return served.client("same").infer({"x": large}, timeout=60)

        refusal = ask()
        assert isinstance(refusal, dict)
        assert "three quarters of max_enqueued_bytes" in refusal["error"]
        until(ask, lambda answer: isinstance(answer, list), seconds=10 * idle)
        for attacker, stream in zip(attackers, streams, strict=True):
            answer = attacker.wait(stream)
            assert answer["grpc-status"] == "8"
            assert answer["grpc-message"] == (
                f"the message did not come whole within body_idle_timeout {idle}000 ms, while others lacked "
                "max_enqueued_bytes"
            )
            assert attacker.is_served()


def test_a_slow_reader(served: Served) -> None:
    """Windows as wide as can be, and a socket that nobody reads.

    What may be held are its 20 requests and their answers; what server and worker both have looked at counts twice.
    """
    large = framed(request("echo", "same", {"x": tensor(np.zeros(2 << 20, np.uint8))}).SerializeToString())
    with (
        unharmed(served, growth=2 * 20 * 2 * len(large)),
        Attacker(served.address, window=2**31 - 1, receive_buffer=4096) as attacker,
    ):
        attacker.h2.increment_flow_control_window(2**30)
        attacker.flush()
        # Requests may be as large as the server's windows only after its SETTINGS were acknowledged.
        attacker.until(lambda: attacker.h2.remote_settings.initial_window_size > len(large))
        attacker.flush()
        attacker.reads_while_it_sends = False
        for stream in range(1, 40, 2):
            attacker.send(headers_frame(attacker, stream, "END_HEADERS"))
            pieces = [large[i : i + 16_384] for i in range(0, len(large), 16_384)]
            attacker.frames(*(DataFrame(stream, data=piece) for piece in pieces[:-1]))
            attacker.frames(DataFrame(stream, data=pieces[-1], flags=["END_STREAM"]))
        (line,) = said_of(served, attacker)
        assert re.search(r"it took no reply (within body_idle_timeout \d+ ms|at min_bytes_per_second \d+)", line)


# -- many connections --------------------------------------------------------------------------------------------------


def test_10000_idle_connections(tmp_path: pathlib.Path) -> None:
    """As many as `max_connections`: who was there is served, the next one is closed, and room comes back."""
    count = 10_000
    with many_descriptors(count) as hard:
        write_servable(tmp_path / "servables", "echo", ECHO_SERVABLE)
        # As most systems have it: a server must see to it itself that it can have so many.
        script = (
            f"import resource\nresource.setrlimit(resource.RLIMIT_NOFILE, (1024, {hard}))\n"
            "from mindserve import server\n"
            f"server.start_servables(server.ServableStartConfig({str(tmp_path / 'servables')!r}, 'echo'))\n"
            "print(*server.start_grpc_server('127.0.0.1:0'), flush=True)\n"
        )
        with server_process(tmp_path / "run", script) as process:
            served = Served(process, [process.line()], "echo")
            idle(served, count)
            served.close()


def idle(served: Served, count: int) -> None:
    most = 28 * 1024  # twice what one takes, session and all
    with unharmed(served, growth=count * most):
        before = resident(served.process.pid)
        with contextlib.ExitStack() as stack:
            # Some are taken already: the neighbour's.
            for _ in range(count - 1):
                stranger = stack.enter_context(connected(served.address))
                stranger.sendall(PREFACE + SETTINGS)
            with connected(served.address) as late:
                closed(late)
                (line,) = lines_of(served, late)
                assert "refused: max_connections 10000" in line
            per_connection = (resident(served.process.pid) - before) / count
            assert per_connection < most
        assert until(lambda: is_served(served))


def is_served(served: Served) -> bool:
    """Whether a new connection is."""
    with Attacker(served.address) as client:
        return client.is_served()


def closed(stranger: socket.socket) -> None:
    with contextlib.suppress(ConnectionResetError):
        while stranger.recv(65536):
            pass


@needs_no_descriptors
def test_no_file_descriptors_left(tmp_path: pathlib.Path) -> None:
    """The one who comes waits until there is one again; who is there is served, and the log says it once."""
    write_servable(tmp_path / "servables", "echo", ECHO_SERVABLE)
    script = (
        "import resource\nfrom mindserve import server\n"
        f"server.start_servables(server.ServableStartConfig({str(tmp_path / 'servables')!r}, 'echo'))\n"
        "resource.setrlimit(resource.RLIMIT_NOFILE, (150, 150))\n"
        "print(*server.start_grpc_server('127.0.0.1:0'), flush=True)\n"
    )
    with server_process(tmp_path / "run", script) as process:
        served = Served(process, [process.line()], "echo")
        with unharmed(served):
            with contextlib.ExitStack() as stack:
                for _ in range(200):
                    stack.enter_context(connected(served.address)).sendall(PREFACE + SETTINGS)
                until(lambda: "have to wait: accept: Too many open files" in process.errors())
            assert until(lambda: is_served(served))
        assert process.errors().count("have to wait") == 1
        assert "RLIMIT_NOFILE" in process.errors()
        served.close()


def test_no_file_descriptors_left_by_http(tmp_path: pathlib.Path) -> None:
    """The same of the REST server."""
    script = (
        "import resource\nfrom mindserve import server\n"
        "print(server.start_restful_server('127.0.0.1:0'), flush=True)\n"
        "resource.setrlimit(resource.RLIMIT_NOFILE, (100, 100))\n"
    )
    with server_process(tmp_path / "run", script) as process:
        address = process.line()

        def is_alive(stranger: socket.socket) -> None:
            stranger.sendall(b"GET /healthz/live HTTP/1.1\r\nhost: test\r\n\r\n")
            assert stranger.recv(65536).startswith(b"HTTP/1.1 200 ")

        with contextlib.ExitStack() as stack:
            strangers = [stack.enter_context(connected(address)) for _ in range(150)]
            until(lambda: "have to wait: accept: Too many open files" in process.errors())
            is_alive(strangers[0])
        with connected(address) as again:
            is_alive(again)
        # Once, and again if there was room in between.
        assert process.errors().count("have to wait") <= 3
        assert "[ERROR]" not in process.errors()


def test_a_start_for_which_too_few_descriptors_are_left(tmp_path: pathlib.Path) -> None:
    """However few there are: an error, and what runs goes on."""
    write_servable(tmp_path / "servables", "echo", ECHO_SERVABLE)
    script = f"""
import contextlib, os, resource
from mindserve import server
import mindserve.server.restful, mindserve.rest.server, uvloop
server.start_servables(server.ServableStartConfig({str(tmp_path / "servables")!r}, "echo"))
print(*server.start_grpc_server("127.0.0.1:0"), flush=True)
resource.setrlimit(resource.RLIMIT_NOFILE, (200, 200))
for left in range(17):
    held = []
    with contextlib.suppress(OSError):
        while True:
            held.append(os.open(os.devnull, os.O_RDONLY))
    for each in held[:left]:
        os.close(each)
    try:
        print("started", server.start_restful_server("127.0.0.1:0"), flush=True)
    except (OSError, RuntimeError) as error:
        print(type(error).__name__, error, flush=True)
    for each in held[left:]:
        os.close(each)
"""
    with server_process(tmp_path / "run", script) as process:
        served = Served(process, [process.line()], "echo")
        said = [process.line() for _ in range(17)]
        assert all("Too many open files" in line for line in said), said
        assert any("the RESTful server's event loop can't be made" in line for line in said)
        assert served.ask("same", {"x": "text"}) == [{"x": "text"}]
        served.close()


def test_a_neighbour_is_a_neighbour(served: Served) -> None:
    """What the other tests rely on: it calls, and it sees what fails."""
    neighbour = Neighbour(served)
    neighbour._thread.start()
    until(lambda: neighbour.answered > 3)
    neighbour._stop.set()
    neighbour._thread.join()
    assert neighbour.failures == []
