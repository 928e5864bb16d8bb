"""Attacks by HTTP/1.1 with requests: what drips, floods, smuggles or never ends. Beside each a client goes on."""

from __future__ import annotations

import contextlib
import json
import pathlib
import ssl
import threading
import time
from collections.abc import Iterator

import pytest

from attacker import many_descriptors
from certificates import Files
from http_attacker import (
    LIVE,
    answers_of,
    drips,
    error,
    said_of,
    serving,
    unharmed,
    until_closed,
)
from http_attacker import rest as rest
from http_attacker import secure as secure
from mindserve.auth.hashing import hash_secret
from mindserve.auth.keys import ClientKey, Keys, save_keys
from rest_support import Rest, head, is_closed, read_answer

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


def test_10000_idle_connections(tmp_path: pathlib.Path) -> None:
    """As many as `max_connections` by default, each of which has asked for something and rests."""
    count = 10_000
    with contextlib.ExitStack() as stack:
        stack.enter_context(many_descriptors(count))
        rest = stack.enter_context(serving(tmp_path))
        stack.enter_context(unharmed(rest, growth=count * 20_000))  # twice what one takes
        # One is taken already: the neighbour's.
        for _ in range(count - 1):
            connection = stack.enter_context(rest.connect())
            connection.sendall(LIVE)
            assert read_answer(connection).status == 200
        with rest.connect() as late:
            assert is_closed(late)
        assert f"max_connections {count} or max_connections_per_peer 0 is reached" in rest.process.errors()


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
    """Numbers just short of what is looked at twice, on whose account all others would wait.

    By docs/limits.md reading a body takes two to four times its size.
    """
    body = b'{"text": [' + (b"1" * 199 + b",") * 200_000 + b"1]}"
    with unharmed(rest, growth=6 * len(body)):
        assert rest.post("/drip.Notes/Echo", body).status_code == 400
