"""Attacks by HTTP/1.1: what drips, floods, smuggles or never ends. Beside each an ordinary client goes on."""

from __future__ import annotations

import contextlib
import json
import pathlib
import re
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
import requests

from attacker import resident
from certificates import Files
from conftest import ECHO_SERVABLE
from e2e_support import PREAMBLE, until, write_servable
from mindserve.auth.hashing import hash_secret
from mindserve.auth.keys import ClientKey, Keys, save_keys
from rest_support import RawAnswer, Rest, head, is_closed, read_answer, serving_rest
from stubs import compile_protos

PROTO = "package drip; message Note { string text = 1; } service Notes { rpc Echo(Note) returns (Note); }"
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


register.classifier("same")


@register.grpc_method
def Echo(request):
    return request
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
def serving(folder: pathlib.Path, more: str = "", limits: str = LIMITS) -> Iterator[Rest]:
    write_servable(folder / "servables", "echo", SERVABLE)
    compile_protos(folder / "servables" / "echo", drip=PROTO)
    listen = f"'127.0.0.1:0', {limits}{more}"
    grpc = f"server.start_grpc_server('127.0.0.1:0', grpc_servicer_functions=[{ADD_NOTES!r}]{more})\n"
    with serving_rest(folder, "echo", listen=listen, before=grpc) as rest:
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
                self._stop.wait(0.005)


@contextlib.contextmanager
def unharmed(rest: Rest, growth: int = 64 << 20) -> Iterator[None]:
    """While an attack goes on, and after it, another client is answered, and the server grows by so much at most."""
    neighbour = Neighbour(rest)
    try:
        # Often enough for the log, too, which takes ten warnings a second, to have a line for each test.
        until(lambda: neighbour.answered >= 25 or neighbour.failures)
        before = resident(rest.process.pid)
        yield
        answered = neighbour.answered
        until(lambda: neighbour.answered > answered + 3 or neighbour.failures)
    finally:
        neighbour.stop()
    assert neighbour.failures == []
    # A generous bound: what an attack must not do is stop the others.
    assert neighbour.slowest < 10
    assert resident(rest.process.pid) < before + growth


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


# -- bodies that take their time ---------------------------------------------------------------------------------------

ROUTES = ("/model/echo:same", "/drip.Notes/Echo", "/js/predict", "/token", "/nowhere/at/all", "/healthz/live")
WAITING = ROUTES[:4]
TOO_SLOW = (408, "the request's body did not come at min_bytes_per_second, 200000")


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Rest, str]]:
    """A server that asks for tokens, and one."""
    folder = tmp_path_factory.mktemp("guarded")
    keys = str(folder / "keys.yaml")
    save_keys(Keys({"app": ClientKey(key="app", secrets=(hash_secret("secret"),))}), keys)
    with serving(folder, f", auth=server.AuthConfig({keys!r})") as rest:
        answer = rest.get("/token", params={"consumer_key": "app", "consumer_secret": "secret"})
        yield rest, answer.json()["access_token"]


@pytest.mark.parametrize("route", WAITING)
@pytest.mark.parametrize("chunked", [False, True])
def test_a_body_byte_by_byte(guarded: tuple[Rest, str], route: str, chunked: bool) -> None:
    rest, token = guarded
    length = "Transfer-Encoding: chunked" if chunked else "Content-Length: 10000"
    more = ("Content-Type: application/x-www-form-urlencoded",) if route == "/token" else (f"oauth_token: {token}",)
    with rest.connect() as connection:
        connection.sendall(head(route, length, *more))
        assert error(drips(connection, b"1\r\n[\r\n" if chunked else b"[")) == TOO_SLOW
        assert is_closed(connection)
        assert said_of(rest, connection) == TOO_SLOW[1]


def test_a_body_byte_by_byte_beside_others(rest: Rest) -> None:
    with unharmed(rest), rest.connect() as connection:
        connection.sendall(head("/model/echo:same", "Content-Length: 100000", "Content-Encoding: gzip"))
        assert error(drips(connection, b"\x1f")) == TOO_SLOW


@pytest.mark.parametrize("route", ["/nowhere/at/all", "/healthz/live"])
def test_a_body_byte_by_byte_that_nobody_waits_for(rest: Rest, route: str) -> None:
    """It is answered at once, and the rest of it is not waited for either."""
    with rest.connect() as connection:
        connection.sendall(head(route, "Content-Length: 100000"))
        answer = read_answer(connection)
        assert answer.status == (405 if route == "/healthz/live" else 200)
        assert drips(connection, b"[") is None


def test_a_body_that_comes_slowly_but_steadily_is_answered(rest: Rest) -> None:
    """Twice as fast as it has to, and for longer than either timeout."""
    body = json.dumps({"instances": [{"x": "y" * 1_500_000}]}).encode()
    pause = threading.Event()
    with rest.connect() as connection:
        connection.sendall(head("/model/echo:same", f"Content-Length: {len(body)}"))
        for begin in range(0, len(body), 20_000):
            connection.sendall(body[begin : begin + 20_000])
            pause.wait(0.04)
        assert read_answer(connection).body == body.replace(b": ", b":")


@pytest.mark.parametrize("part", [b"0\r\nX: ", b"5;name=", b"0\r\n" + b"X: y\r\n" * 2000])
def test_trailers_and_extensions_of_chunks_without_end(rest: Rest, part: bytes) -> None:
    """What is no body, and is not counted as one."""
    with unharmed(rest, growth=16 << 20), rest.connect() as connection:
        connection.sendall(head("/model/echo:same", "Transfer-Encoding: chunked") + b"1\r\n{\r\n" + part)
        text = "the trailers and chunk headers exceed max_metadata_bytes 8192"
        assert error(drips(connection, b"a" * 4096, 0.001)) == (431, text)
        assert is_closed(connection)


def test_one_that_asks_first_and_then_sends_nothing(rest: Rest) -> None:
    with rest.connect() as connection:
        connection.sendall(head("/model/echo:same", "Content-Length: 100", "Expect: 100-continue"))
        assert read_answer(connection).status == 100
        text = "nothing came of the request's body for body_idle_timeout, 2 s"
        assert error(read_answer(connection)) == (408, text)
        assert is_closed(connection)


@pytest.mark.parametrize("route", ["/model/echo:same", "/drip.Notes/Echo", "/healthz/live"])
def test_one_that_asks_first_and_is_refused_may_not_go_on(rest: Rest, route: str) -> None:
    """What comes next could be the body, or another request."""
    with rest.connect() as connection:
        connection.sendall(head(route, "Content-Length: 1073741824", "Expect: 100-continue"))
        answer = read_answer(connection)
        assert answer.status == {"/model/echo:same": 200, "/drip.Notes/Echo": 413, "/healthz/live": 405}[route]
        assert answer.headers["connection"] == "close"
        assert is_closed(connection)


# -- headers -----------------------------------------------------------------------------------------------------------

LATE = (408, "the request's headers were not whole within header_timeout, 1 s")


@pytest.mark.parametrize(
    ("begun", "part"),
    [(b"GET /healthz", b"a"), (LIVE[:-2], b"a"), (LIVE[:-2] + b"X-Y:", b" "), (LIVE[:-2], b"X: y\r\n")],
)
def test_headers_byte_by_byte(rest: Rest, begun: bytes, part: bytes) -> None:
    with unharmed(rest), rest.connect() as connection:
        connection.sendall(begun)
        assert error(drips(connection, part)) == LATE
        assert said_of(rest, connection) == LATE[1]
        assert is_closed(connection)


def test_headers_byte_by_byte_after_a_request(rest: Rest) -> None:
    with rest.connect() as connection:
        connection.sendall(LIVE)
        assert read_answer(connection).status == 200
        connection.sendall(LIVE[:-2])
        assert error(drips(connection, b"a")) == LATE
        assert is_closed(connection)


@pytest.mark.parametrize("part", [b"", b"\r\n"])
def test_a_connection_without_a_request(rest: Rest, part: bytes) -> None:
    """Nothing, or nothing but empty lines."""
    with unharmed(rest), rest.connect() as connection:
        assert (drips(connection, part) if part else is_closed(connection)) in (None, True)


@pytest.mark.parametrize(
    "bomb",
    [
        [f"x{number}: y" for number in range(2000)],
        ["x:"] * 3000,
        ["x: " + "y" * 8192],
        ["x" * 8192 + ": y"],
        ["cookie: " + "a=b; " * 2000] * 100,
    ],
    ids=["many", "the same", "a value", "a name", "cookies"],
)
def test_header_bombs(rest: Rest, bomb: list[str]) -> None:
    text = "the request line and headers exceed max_metadata_bytes 8192"
    with unharmed(rest, growth=16 << 20):
        for path in ("/healthz/live", "/model/echo:same"):
            with rest.connect() as connection:
                connection.sendall(head(path, *bomb))
                assert error(read_answer(connection)) == (431, text)
                assert is_closed(connection)


def test_a_target_without_end(rest: Rest) -> None:
    with unharmed(rest, growth=16 << 20), rest.connect() as connection:
        connection.sendall(b"GET /")
        text = "the request line and headers exceed max_metadata_bytes 8192"
        assert error(drips(connection, b"a" * 4096, 0.001)) == (431, text)


# -- answers that are not taken ----------------------------------------------------------------------------------------


@contextlib.contextmanager
def reluctant(rest: Rest) -> Iterator[socket.socket]:
    """A connection whose buffers are small, so that what is not read stays with the server."""
    host, _, port = rest.address.rpartition(":")
    with socket.socket() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, 536)
        connection.settimeout(60)
        connection.connect((host, int(port)))
        yield connection


def asks(method: str, x: object) -> bytes:
    body = json.dumps({"instances": [{"x": x}]}).encode()
    return head(f"/model/echo:{method}", f"Content-Length: {len(body)}") + body


def takes(connection: socket.socket, size: int, seconds: float) -> int:
    """Reads so many bytes at a time. How many it got, until the server closed the connection, or three million."""
    pause = threading.Event()
    got = 0
    with contextlib.suppress(ConnectionResetError, ssl.SSLError):
        while got < 3_000_000 and (part := connection.recv(size)):
            got += len(part)
            pause.wait(seconds)
    return got


NOT_TAKEN = "it did not take its answer at min_bytes_per_second 200000 within body_idle_timeout, 2 s"


@pytest.mark.parametrize("method", ["large", "filling"])
@pytest.mark.parametrize("size", [0, 2000], ids=["nothing", "drop by drop"])
def test_a_reader(rest: Rest, method: str, size: int) -> None:
    """Of one large answer, and of a stream of them."""
    with unharmed(rest), reluctant(rest) as connection:
        connection.sendall(asks(method, 4_000_000 if method == "large" else 40))
        if size:
            assert takes(connection, size, 0.02) < 3_000_000
        assert said_of(rest, connection) == NOT_TAKEN


@pytest.mark.parametrize("size", [0, 2000], ids=["nothing", "drop by drop"])
def test_a_reader_over_tls(secure: Rest, own_files: Files, size: int) -> None:
    context = ssl.create_default_context(cafile=own_files.ca)
    with reluctant(secure) as connection, context.wrap_socket(connection, server_hostname="localhost") as wrapped:
        wrapped.sendall(asks("large", 4_000_000))
        if size:
            assert takes(wrapped, size, 0.02) < 3_000_000
        assert said_of(secure, wrapped) == NOT_TAKEN


def test_the_end_of_an_answer_that_nobody_takes(rest: Rest) -> None:
    """It has left the server, but for the kernel, and its connection could rest as long as it likes."""
    with reluctant(rest) as connection:
        connection.sendall(asks("large", 60_000))
        assert said_of(rest, connection) == NOT_TAKEN


def test_a_reader_that_takes_enough_gets_it_all(rest: Rest) -> None:
    """Ever slower than it could, for longer than either timeout."""
    with reluctant(rest) as connection:
        connection.sendall(asks("large", 2_000_000))
        pause = threading.Event()
        data = bytearray()
        while len(data) < 2_000_000:
            part = connection.recv(4000)
            assert part, f"closed after {len(data)} bytes"
            data += part
            pause.wait(0.005)
        assert b"200 OK" in data[:20]


def test_a_server_that_takes_its_time_closes_nothing(rest: Rest) -> None:
    """Items of a stream that come more seldom than the client has time to take them."""
    with rest.connect() as connection:
        connection.sendall(asks("counting", 5) + LIVE)
        data = bytearray()
        while b'{"status":' not in data:
            part = connection.recv(65536)
            assert part
            data += part
    assert data.count(b'{"y":') == 5


def test_the_kernel_asks_whether_a_client_is_still_there(rest: Rest) -> None:
    """Of one that is gone without a word nothing else would tell."""
    with rest.connect() as connection:
        connection.sendall(LIVE)
        assert read_answer(connection).status == 200
        mine = connection.getsockname()[1]
        port = int(rest.address.rpartition(":")[2])

        def timer() -> list[str]:
            lines = [line.split() for line in pathlib.Path("/proc/net/tcp").read_text().splitlines()[1:]]
            ends = f":{port:04X}", f":{mine:04X}"
            return [each[5][:2] for each in lines if each[1].endswith(ends[0]) and each[2].endswith(ends[1])]

        until(timer, lambda found: found == ["02"])  # keepalive; 00: none


# -- requests ahead of their answers -----------------------------------------------------------------------------------


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


def test_requests_that_are_sent_ahead(rest: Rest) -> None:
    """As many as may wait are answered, in their order."""
    count = MOST_WAITING
    with unharmed(rest), rest.connect() as connection:
        connection.sendall(asks("slow", 0.5) + b"".join(asks("same", number) for number in range(count)))
        left = bytearray()
        assert read_answer(connection, left).json == {"instances": [{"y": 0.5}]}
        for number in range(count):
            assert read_answer(connection, left).json == {"instances": [{"x": number}]}
        assert not left


def test_a_flood_of_requests_that_are_sent_ahead(rest: Rest) -> None:
    """What goes over the limit is not answered, and ends the connection once the others are."""
    with unharmed(rest, growth=32 << 20), rest.connect() as connection:
        connection.sendall(asks("slow", 0.5))
        flood = LIVE * 100
        with contextlib.suppress(ConnectionError):
            for _ in range(500):
                connection.sendall(flood)
        answers = answers_of(until_closed(connection))
        assert [status for status, _ in answers] == [200] * (1 + MOST_WAITING)
        assert said_of(rest, connection) == "more than max_concurrent_streams 50 requests wait for those before them"


def test_what_waits_does_not_grow_with_each_answer(tmp_path: pathlib.Path) -> None:
    """A client that takes its answers, and sends ever more requests than it gets."""
    request = asks("slow", 0.05).replace(b"Host: x", b"Host: x\r\nX: " + b"y" * 8000)
    pause = threading.Event()
    deadline = time.monotonic() + 60
    with serving(tmp_path, limits="max_msg_mb_size=1") as rest, rest.connect() as connection:
        connection.setblocking(False)
        sent = answered = 0
        while answered < 40:
            assert time.monotonic() < deadline
            with contextlib.suppress(BlockingIOError):
                while sent < 100_000 * len(request):
                    sent += connection.send(request[sent % len(request) :])
            with contextlib.suppress(BlockingIOError):
                answered += connection.recv(65536).count(b"HTTP/1.1 200")
            pause.wait(0.005)
        # What the kernel's buffers hold, and the server at one time.
        assert sent < 16 << 20


@pytest.mark.parametrize("wrong", [b"zz\r\n", b"5\r\nhello5\r\n", b"fffffffffffffffff\r\n"])
def test_a_broken_request_behind_one_that_is_being_answered(rest: Rest, wrong: bytes) -> None:
    """The answer that is under way is the last, and whole."""
    broken = head("/model/echo:same", "Transfer-Encoding: chunked") + wrong
    with rest.connect() as connection:
        connection.sendall(asks("slow", 0.3) + asks("same", 1) + broken + LIVE)
        answers = answers_of(until_closed(connection))
        assert answers == [(200, b'{"instances":[{"y":0.3}]}'), (200, b'{"instances":[{"x":1}]}')]
    with rest.connect() as connection:
        connection.sendall(asks("counting", 2) + broken)
        data = until_closed(connection)
        assert data.count(b"HTTP/1.1") == 1
        assert data.endswith(b'{"y":"1"}\n\r\n0\r\n\r\n')


def test_a_broken_body_of_what_is_answered_already(rest: Rest) -> None:
    """There are never two answers to a request."""
    with rest.connect() as connection:
        connection.sendall(head("/healthz/live", "Transfer-Encoding: chunked") + b"5\r\nhello\r\n")
        answer = read_answer(connection)
        assert answer.status == 405
        connection.sendall(b"zz\r\n")
        assert is_closed(connection)


# -- requests within requests ------------------------------------------------------------------------------------------

_NO = "this is no HTTP/1.1 request: "
CODING = "header 'transfer-encoding' should be 'chunked', but is '{}'"
# Header lines on whose meaning servers and proxies might disagree, with the one answer that there is to each.
SMUGGLED: dict[str, tuple[int, str]] = {
    "Content-Length: 5\r\nTransfer-Encoding: chunked": (
        400,
        _NO + "Transfer-Encoding can't be present with Content-Length",
    ),
    "Transfer-Encoding: chunked\r\nContent-Length: 5": (
        400,
        _NO + "Content-Length can't be present with Transfer-Encoding",
    ),
    "Content-Length: 5\r\nContent-Length: 6": (400, _NO + "Duplicate Content-Length"),
    "Content-Length: 5\r\nContent-Length: 5": (400, _NO + "Duplicate Content-Length"),
    "Content-Length: 5, 5": (400, _NO + "Invalid character in Content-Length"),
    "Content-Length: +5": (400, _NO + "Invalid character in Content-Length"),
    "Content-Length: -5": (400, _NO + "Invalid character in Content-Length"),
    "Content-Length: 0x5": (400, _NO + "Invalid character in Content-Length"),
    "Content-Length: 5 5": (400, _NO + "Invalid character in Content-Length"),
    "Content-Length:": (400, _NO + "Empty Content-Length"),
    "Content-Length: 18446744073709551616": (400, _NO + "Content-Length overflow"),
    "Content-Length: 5\r\n folded: x": (400, _NO + "Unexpected whitespace after header value"),
    "Transfer-Encoding: chunked, identity": (400, _NO + "Invalid `Transfer-Encoding` header value"),
    "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked": (400, _NO + "Invalid `Transfer-Encoding` header value"),
    "Transfer-Encoding: chunked\r\nTransfer-Encoding: x": (400, _NO + "Invalid `Transfer-Encoding` header value"),
    "Transfer-Encoding: identity, chunked": (501, CODING.format("identity, chunked")),
    "Transfer-Encoding: gzip, chunked": (501, CODING.format("gzip, chunked")),
    "Transfer-Encoding: xchunked": (501, CODING.format("xchunked")),
    "Transfer-Encoding: identity": (501, CODING.format("identity")),
    "Transfer-Encoding:": (400, _NO + "Empty Transfer-Encoding"),
    'Transfer-Encoding: "chunked"': (501, CODING.format('"chunked"')),
    "Transfer-Encoding:\x0bchunked": (400, _NO + "Invalid header value char"),
    "Transfer-Encoding : chunked": (400, _NO + "Invalid header field char"),
    "Transfer-Encoding\t: chunked": (400, _NO + "Invalid header token"),
    "\x20Transfer-Encoding: chunked": (400, _NO + "Unexpected whitespace after header value"),
    "X: a\rTransfer-Encoding: chunked": (400, _NO + "Missing expected LF after header value"),
    "X: a\nTransfer-Encoding: chunked": (400, _NO + "Missing expected CR after header value"),
    "X: a\0b": (400, _NO + "Invalid header value char"),
}


@pytest.mark.parametrize("lines", SMUGGLED)
def test_requests_within_requests(rest: Rest, lines: str) -> None:
    """What could be one request or two is none: a single answer, and no more is read."""
    with rest.connect() as connection:
        # By Content-Length the second one begins behind "0\r\n\r\n", by Transfer-Encoding as well.
        connection.sendall(head("/model/echo:same", lines) + b"0\r\n\r\n" + LIVE)
        (answer,) = answers_of(until_closed(connection))
        assert (answer[0], json.loads(answer[1])["error_msg"]) == SMUGGLED[lines]


def test_chunks_with_http_1_0(rest: Rest) -> None:
    with rest.connect() as connection:
        request = head("/model/echo:same", "Transfer-Encoding: chunked").replace(b"HTTP/1.1", b"HTTP/1.0")
        connection.sendall(request + b"0\r\n\r\n" + LIVE)
        (answer,) = answers_of(until_closed(connection))
        text = "header 'transfer-encoding' with HTTP/1.0, which does not have it: expected HTTP/1.1"
        assert (answer[0], json.loads(answer[1])["error_msg"]) == (400, text)


CHUNKS: dict[bytes, str] = {
    b"+5\r\nhello\r\n": "Invalid character in chunk size",
    b"-1\r\n": "Invalid character in chunk size",
    b"0x5\r\nhello\r\n": "Invalid character in chunk size",
    b"g\r\n": "Invalid character in chunk size",
    b"\r\n": "Invalid character in chunk size",
    b" 5\r\nhello\r\n": "Invalid character in chunk size",
    b"5 \r\nhello\r\n": "Invalid character in chunk size",
    b"10000000000000000\r\n": "Chunk size overflow",
    b"ffffffffffffffff0\r\n": "Chunk size overflow",
    b"5\nhello\r\n": "Missing expected CR after chunk size",
    b"5\rhello\r\n": "Expected LF after chunk size",
    b"5;a=\n\r\nhello\r\n": "Missing expected CR after chunk extension value",
    b"5\r\nhello!\r\n": "Expected LF after chunk data",
    b"5\r\nhello0\r\n\r\n": "Expected LF after chunk data",
    b"0\r\nX: y\n\r\n": "Missing expected CR after header value",
    b"0\r\nX y\r\n\r\n": "Invalid header token",
    b"0\r\n\rX": "Expected LF after headers",
}


@pytest.mark.parametrize("chunks", CHUNKS, ids=repr)
def test_chunks_of_wrong_sizes(rest: Rest, chunks: bytes) -> None:
    with rest.connect() as connection:
        connection.sendall(head("/model/echo:same", "Transfer-Encoding: chunked") + chunks + LIVE)
        (answer,) = answers_of(until_closed(connection))
        assert (answer[0], json.loads(answer[1])["error_msg"]) == (400, _NO + CHUNKS[chunks])


def test_a_chunk_of_all_that_there_is(rest: Rest) -> None:
    """It says that it has 2**64 - 1 bytes, and may."""
    with rest.connect() as connection:
        connection.sendall(head("/model/echo:same", "Transfer-Encoding: chunked") + b"ffffffffffffffff\r\n[")
        text = "nothing came of the request's body for body_idle_timeout, 2 s"
        assert error(read_answer(connection)) == (408, text)


# -- connections -------------------------------------------------------------------------------------------------------


def test_connections_that_do_nothing(tmp_path: pathlib.Path) -> None:
    """As many as `max_connections`: who is there is served, the next one is closed, and room comes back by itself."""
    count = 400
    limits = f"limits=server.Limits(max_connections={count + 1}, header_timeout=3)"
    with serving(tmp_path, limits=limits) as rest, unharmed(rest, growth=32 << 20), contextlib.ExitStack() as stack:
        begun = (b"", b"\r\n", b"GET", LIVE[:-2], LIVE)
        idle = [stack.enter_context(rest.connect()) for _ in range(count)]
        for number, connection in enumerate(idle):
            connection.sendall(begun[number % len(begun)])
        with rest.connect() as late:
            assert is_closed(late)
        assert f"max_connections {count + 1} or max_connections_per_peer 0 is reached" in rest.process.errors()
        # Those that have asked for something may stay, the others not.
        for number, connection in enumerate(idle):
            if begun[number % len(begun)] == LIVE:
                assert read_answer(connection).status == 200
                connection.sendall(LIVE)
                assert read_answer(connection).status == 200
            else:
                until_closed(connection)
        with rest.connect() as again:
            again.sendall(LIVE)
            assert read_answer(again).status == 200


def test_one_peer_takes_no_more_than_its_share(tmp_path: pathlib.Path) -> None:
    limits = "limits=server.Limits(max_connections_per_peer=3)"
    with serving(tmp_path, limits=limits) as rest, contextlib.ExitStack() as stack:
        for _ in range(3):
            connection = stack.enter_context(rest.connect())
            connection.sendall(LIVE)
            assert read_answer(connection).status == 200
        assert is_closed(stack.enter_context(rest.connect()))


@pytest.mark.parametrize("said", [b"", b"\x16\x03\x01", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"])
def test_handshakes_of_tls_that_do_not_end(secure: Rest, said: bytes) -> None:
    with secure.connect() as connection:
        connection.sendall(said)
        assert until_closed(connection) == b""


def test_tls_and_then_nothing(secure: Rest, own_files: Files) -> None:
    context = ssl.create_default_context(cafile=own_files.ca)
    with contextlib.ExitStack() as stack:
        connection = stack.enter_context(secure.connect())
        wrapped = stack.enter_context(context.wrap_socket(connection, server_hostname="localhost"))
        stack.enter_context(contextlib.suppress(ssl.SSLError))
        assert wrapped.recv(1) == b""


# -- packed bodies -----------------------------------------------------------------------------------------------------


def test_gzip_of_very_many_members(rest: Rest) -> None:
    """Empty ones, of twenty bytes each: they unpack to nothing, but each costs some time."""
    import gzip

    empty = gzip.compress(b"", mtime=0)
    body = gzip.compress(b'{"instances": [{"x": 1}]}')
    packed = {"content-encoding": "gzip"}
    with unharmed(rest):
        assert rest.post("/model/echo:same", empty * 999 + body, headers=packed).json() == {"instances": [{"x": 1}]}
        begin = time.monotonic()
        answer = rest.post("/model/echo:same", empty * 1_000_000 + body, headers=packed)
        assert time.monotonic() - begin < 20
        assert answer.status_code == 400
        assert answer.json() == {"error_msg": "the body's gzip has more than 1000 members, expected one"}


def test_digits_without_end(rest: Rest) -> None:
    """Numbers just short of what is looked at twice, on whose account all others would wait."""
    body = b'{"text": [' + (b"1" * 199 + b",") * 200_000 + b"1]}"
    with unharmed(rest, growth=1 << 30):
        assert rest.post("/drip.Notes/Echo", body).status_code == 400
