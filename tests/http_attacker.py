"""Servers to attack by HTTP/1.1, the ordinary client beside, and what attackers have in common."""

from __future__ import annotations

import contextlib
import pathlib
import re
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
import requests

from attacker import held
from certificates import Files
from conftest import ECHO_SERVABLE
from e2e_support import PREAMBLE, until, write_servable
from rest_support import RawAnswer, Rest, head, read_answer, serving_rest
from stubs import compile_protos

PROTO = """package drip;
message Note { string text = 1; }
service Notes { rpc Echo(Note) returns (Note); rpc Large(Note) returns (Note); }
"""
SERVABLE = (
    ECHO_SERVABLE
    + PREAMBLE
    + """
import time
from drip_pb2 import Note


@method()
def slow(x):
    time.sleep(float(x))
    return x


@method()
def large(x):
    return "y" * int(x)


def count(x):
    for number in range(int(x)):
        time.sleep(0.5)
        yield str(number)


@register.register_method(output_names="y", streaming=True)
def counting(x):
    return register.add_stage(count, x, outputs_count=1)


def fill(x):
    for number in range(int(x)):
        yield "y" * 100_000


@register.register_method(output_names="y", streaming=True)
def filling(x):
    return register.add_stage(fill, x, outputs_count=1)


def large_item(x):
    yield "y" * int(x)


@register.register_method(output_names="y", streaming=True)
def large_items(x):
    return register.add_stage(large_item, x, outputs_count=1)


register.classifier("same")


@register.grpc_method
def Echo(request):
    return request


@register.grpc_method
def Large(request):
    return Note(text="y" * int(request.text))
"""
)
MOST_WAITING = 50
LIMITS = (
    "limits=server.Limits(header_timeout=1, body_idle_timeout=2, min_bytes_per_second=200_000, "
    f"max_metadata_bytes=8192, max_concurrent_streams={MOST_WAITING})"
)
ADD_NOTES = "drip_pb2_grpc.add_NotesServicer_to_server"
LIVE = head("/healthz/live", method="GET")


@contextlib.contextmanager
def serving(folder: pathlib.Path, more: str = "", limits: str = LIMITS, after: str = "") -> Iterator[Rest]:
    write_servable(folder / "servables", "echo", SERVABLE)
    compile_protos(folder / "servables" / "echo", drip=PROTO)
    listen = f"'127.0.0.1:0', {limits}{more}"
    grpc = f"server.start_grpc_server('127.0.0.1:0', grpc_servicer_functions=[{ADD_NOTES!r}]{more})\n"
    with serving_rest(folder, "echo", listen=listen, before=grpc, after=after) as rest:
        yield rest
        assert "[ERROR]" not in rest.process.errors()


@pytest.fixture(scope="module")
def rest(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rest]:
    """A server whose patience is short."""
    with serving(tmp_path_factory.mktemp("http")) as rest:
        yield rest


@pytest.fixture(scope="module")
def secure(tmp_path_factory: pytest.TempPathFactory, own_files: Files) -> Iterator[Rest]:
    """The same, by TLS."""
    tls = f", ssl_config=server.SSLConfig({own_files.server!r}, {own_files.server_key!r})"
    with serving(tmp_path_factory.mktemp("https"), tls) as rest:
        yield rest


class Neighbour:
    """An ordinary client that asks all the time, in a thread of its own."""

    def __init__(self, rest: Rest) -> None:
        self.answered = 0
        self.failures: list[Any] = []
        self.slowest = 0.0
        self.most = 0  # bytes of memory that the server held at one time
        self._server = rest.process
        self._url = f"{rest.url}/model/echo:same"
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        with requests.Session() as session:
            session.trust_env = False
            while not self._stop.is_set():
                begin = time.monotonic()
                try:
                    answer = session.post(self._url, json={"instances": [{"x": "text"}]}, timeout=60)
                    if answer.json() != {"instances": [{"x": "text"}]}:
                        self.failures.append(answer.text)
                except requests.RequestException as error:
                    self.failures.append(error)
                self.slowest = max(self.slowest, time.monotonic() - begin)
                self.answered += 1
                self.most = max(self.most, held(self._server))
                self._stop.wait(0.005)


@contextlib.contextmanager
def unharmed(rest: Rest, growth: int = 64 << 20) -> Iterator[None]:
    """While an attack goes on, and after it, another client is answered, and the server grows by so much at most."""
    neighbour = Neighbour(rest)
    try:
        # Often enough for the log, too, which takes ten warnings a second, to have a line for each test.
        until(lambda: neighbour.answered >= 25 or neighbour.failures)
        before = held(rest.process)
        yield
        answered = neighbour.answered
        until(lambda: neighbour.answered > answered + 3 or neighbour.failures)
    finally:
        neighbour.stop()
    assert neighbour.failures == []
    # A generous bound: what an attack must not do is stop the others.
    assert neighbour.slowest < 10
    assert max(neighbour.most, held(rest.process)) < before + growth


def said_of(rest: Rest, connection: socket.socket) -> str:
    """The log's line about a connection: there is one, or there will be."""
    host, port = connection.getsockname()[:2]
    (line,) = until(lambda: [each for each in rest.process.errors().splitlines() if f"ipv4:{host}:{port} " in each])
    assert "[WARNING]" in line
    return line.partition(f"connection of ipv4:{host}:{port} closed: ")[2]


def drips(connection: socket.socket, part: bytes, seconds: float = 0.02) -> RawAnswer | None:
    """Sends that again and again until the server has had enough. Its answer, if there is one.

    Fails after a thousand times.
    """
    pause = threading.Event()
    connection.settimeout(60)
    for _ in range(1000):
        pause.wait(seconds)
        try:
            connection.sendall(part)
            connection.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                if not connection.recv(1, socket.MSG_PEEK):
                    return None
                connection.settimeout(60)
                return read_answer(connection)
        except ConnectionError:
            return None
        finally:
            connection.settimeout(60)
    raise AssertionError("the server took it all")


def until_closed(connection: socket.socket) -> bytes:
    """All that comes until the other side closes."""
    connection.settimeout(60)
    data = bytearray()
    with contextlib.suppress(ConnectionResetError):
        while part := connection.recv(65536):
            data += part
    return bytes(data)


def error(answer: RawAnswer | None) -> tuple[int, str]:
    """An answer's status and text, of one that is the connection's last."""
    assert answer is not None
    assert answer.headers["connection"] == "close"
    assert list(answer.json) == ["error_msg"]
    return answer.status, answer.json["error_msg"]


def answers_of(data: bytes) -> list[tuple[int, bytes]]:
    """Status and body of each answer, one after the other, with nothing between them."""
    found = []
    while data:
        begin, _, rest = data.partition(b"\r\n\r\n")
        assert begin.startswith(b"HTTP/1.1 "), begin[:100]
        size = re.search(rb"content-length: (\d+)", begin)
        assert size
        found.append((int(begin.split()[1]), rest[: int(size[1])]))
        data = rest[int(size[1]) :]
    return found
