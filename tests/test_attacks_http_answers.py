"""Attacks by HTTP/1.1 on answers: readers that take none, and requests sent ahead of them."""

from __future__ import annotations

import contextlib
import json
import pathlib
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from attacker import resident
from certificates import Files
from e2e_support import until
from http_attacker import (
    LIVE,
    MOST_WAITING,
    answers_of,
    said_of,
    serving,
    unharmed,
    until_closed,
)
from http_attacker import rest as rest
from http_attacker import secure as secure
from rest_support import Rest, head, is_closed, read_answer
from test_e2e_stats import LISTEN, stats_of

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


LARGE = 8_000_000
ROOM = 32 << 20
# Three of them fit into three quarters of it.
FIT = 3
# And what they are made of, and freed memory; all 20 would be more than twice as much.
GROWTH = 128 << 20


@pytest.fixture(scope="module")
def narrow(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rest]:
    """A server with little room for bodies and answers, and much patience."""
    limits = f"limits=server.Limits(max_enqueued_bytes={ROOM})"
    with serving(tmp_path_factory.mktemp("narrow"), limits=limits, after=LISTEN) as rest:
        yield rest


def asks_for_a_note(size: int) -> bytes:
    body = json.dumps({"text": str(size)}).encode()
    return head("/drip.Notes/Large", f"Content-Length: {len(body)}") + body


def begins(connection: socket.socket) -> int:
    """The status of an answer, of which nothing is taken."""
    return int(until(lambda: connection.recv(12, socket.MSG_PEEK), lambda seen: len(seen) == 12).split()[1])


@pytest.mark.parametrize(
    ("request_for", "told"),
    [
        (lambda size: asks("large", size), lambda answer: answer["error_msg"]),
        (asks_for_a_note, lambda answer: answer["error"]["message"]),
    ],
    ids=["a method's", "a message"],
)
def test_large_answers_that_nobody_takes(
    narrow: Rest, request_for: Callable[[int], bytes], told: Callable[[Any], str]
) -> None:
    """There is room for a few of them, by whatever connections; for others there is, when they are gone."""
    refused = stats_of(narrow.process)["refused"]["max_enqueued_bytes"]
    with contextlib.ExitStack() as stack:
        stack.enter_context(unharmed(narrow, growth=1 << 30))  # it is the server's own memory that matters
        before = resident(narrow.process.pid)
        connections = [stack.enter_context(reluctant(narrow)) for _ in range(20)]
        statuses = []
        for connection in connections:
            connection.sendall(request_for(LARGE))
            statuses.append(begins(connection))
        assert statuses == [200] * FIT + [429] * (20 - FIT)
        assert resident(narrow.process.pid) < before + GROWTH
        answer = read_answer(connections[-1])
        assert answer.headers["retry-after"] == "1"
        assert told(answer.json).startswith("there is no room for the answer, of 80000")
        assert f"come to more than max_enqueued_bytes {ROOM} allows: try again later" in told(answer.json)
        # What is small needs no room, and bodies have their quarter.
        assert narrow.ask("/model/echo:large", {"x": 60_000}) == [{"y": "y" * 60_000}]
        assert narrow.error("/model/echo:same", b" " * 6_000_000)
        assert stats_of(narrow.process)["refused"]["max_enqueued_bytes"] == refused + 20 - FIT
        assert read_answer(connections[0]).status == 200
        until(lambda: narrow.post("/model/echo:large", {"instances": [{"x": LARGE}]}).status_code, lambda it: it == 200)
    until(lambda: all_is_free(narrow))


def test_large_items_of_streams_that_nobody_takes(narrow: Rest) -> None:
    """Those for which there is no room end with that."""
    with contextlib.ExitStack() as stack:
        stack.enter_context(unharmed(narrow, growth=1 << 30))  # it is the server's own memory that matters
        before = resident(narrow.process.pid)
        connections = [stack.enter_context(reluctant(narrow)) for _ in range(20)]
        for connection in connections:
            connection.sendall(asks("large_items", LARGE))
            assert begins(connection) == 200
        assert resident(narrow.process.pid) < before + GROWTH
        connection = connections[-1]
        data = b""
        while not data.endswith(b"0\r\n\r\n"):
            data += connection.recv(65536)
        assert b"there is no room for the answer" in data
        assert len(data) < 2000
    until(lambda: all_is_free(narrow))


def test_an_answer_that_is_larger_than_all_room(narrow: Rest) -> None:
    """It may be, alone."""
    answer = narrow.post("/model/echo:large", {"instances": [{"x": ROOM + 1}]})
    assert answer.status_code == 200
    assert len(answer.content) > ROOM
    until(lambda: all_is_free(narrow))


def all_is_free(rest: Rest) -> bool:
    """Whether a body has room that takes all there is."""
    frame = len(json.dumps({"instances": [{"x": ""}]}))
    return rest.post("/model/echo:same", {"instances": [{"x": "x" * (ROOM - frame)}]}).status_code == 200


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
