"""HTTP of the REST server: what is no HTTP, what is slow, large or packed, and what every answer has."""

from __future__ import annotations

import gzip
import json
import pathlib
import re
import signal
import socket
import time
import zlib
from collections.abc import Iterator
from typing import Any

import pytest

from conftest import BLOCKING_SERVABLE, ECHO_SERVABLE, wait_gone
from e2e_support import PREAMBLE, until, write_servable
from rest_support import Rest, head, is_closed, read_answer, serving_rest

MIB = 1 << 20
LIMITS = (
    "'127.0.0.1:0', limits=server.Limits(max_msg_mb_size=1, header_timeout=1, body_idle_timeout=1, "
    "min_bytes_per_second=10, max_metadata_bytes=8192)"
)
COUNTING = """
import time


@method()
def count(x):
    return len(x)


@method()
def slow(x):
    time.sleep(float(x[0]))
    return x
"""


@pytest.fixture(scope="module")
def rest(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rest]:
    folder = tmp_path_factory.mktemp("rest")
    write_servable(folder / "servables", "echo", ECHO_SERVABLE + PREAMBLE + COUNTING)
    with serving_rest(folder, "echo", listen=LIMITS) as rest:
        yield rest


# -- what is no request ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "data",
    [
        b"this is no HTTP\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(range(64)),  # a TLS handshake
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(9),
        b"POST /model/echo:same HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
        b"POST /model/echo:same HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
        b"POST /model/echo:same HTTP/1.1\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"GET \xff\xfe HTTP/1.1\r\n\r\n",
        b"GET /healthz/live HTTP/1.1\r\nbad header\r\n\r\n",
        b"CONNECT example.org:80 HTTP/1.1\r\nHost: x\r\n\r\n",
    ],
)
def test_what_is_no_http_is_refused(rest: Rest, data: bytes) -> None:
    with rest.connect() as connection:
        connection.sendall(data)
        answer = read_answer(connection)
        assert answer.status == 400
        assert answer.headers["connection"] == "close"
        assert answer.json["error_msg"].startswith("this is no HTTP/1.1 request: ")
        assert is_closed(connection)
    assert rest.get("/healthz/live").status_code == 200


_HOST = "a request of HTTP/{} should have one header 'host', but has {}"


@pytest.mark.parametrize(
    ("request_head", "status", "text"),
    [
        (b"GET / HTTP/1.1", 400, _HOST.format("1.1", "none")),
        (b"GET / HTTP/1.1\r\nHost: a\r\nhost: a", 400, _HOST.format("1.1", 2)),
        (b"GET / HTTP/1.0\r\nHost: a\r\nHost: b", 400, _HOST.format("1.0", 2)),
        (b"GET / HTTP/2.0\r\nHost: a", 505, "a request of HTTP/2.0: expected HTTP/1.1"),
        (b"GET / HTTP/0.9\r\nHost: a", 505, "a request of HTTP/0.9: expected HTTP/1.1"),
        (b"GET /", 505, "a request of HTTP/0.9: expected HTTP/1.1"),
    ],
)
def test_versions_and_hosts(rest: Rest, request_head: bytes, status: int, text: str) -> None:
    with rest.connect() as connection:
        connection.sendall(request_head + b"\r\n\r\n")
        answer = read_answer(connection)
        assert (answer.status, answer.json) == (status, {"error_msg": text})
        assert answer.headers["connection"] == "close"
        assert is_closed(connection)


def test_a_request_of_http_1_0_needs_no_host(rest: Rest) -> None:
    assert rest.raw(b"GET /healthz/live HTTP/1.0\r\n\r\n").status == 200


def test_a_connection_that_says_nothing_is_closed(rest: Rest) -> None:
    with rest.connect() as connection:
        assert is_closed(connection)


def test_slow_headers(rest: Rest) -> None:
    with rest.connect() as connection:
        connection.sendall(b"GET /healthz/live HTTP/1.1\r\nHost")
        answer = read_answer(connection)
        assert answer.status == 408
        assert answer.json["error_msg"] == "the request's headers were not whole within header_timeout, 1 s"
        assert is_closed(connection)


def test_a_slow_body(rest: Rest) -> None:
    with rest.connect() as connection:
        connection.sendall(head("/model/echo:same", "Content-Length: 100") + b'{"instances": [')
        answer = read_answer(connection)
        assert answer.status == 408
        assert answer.json["error_msg"] == "nothing came of the request's body for body_idle_timeout, 1 s"
        assert is_closed(connection)
    assert "[ERROR]" not in rest.process.errors()


def test_a_body_in_pieces(rest: Rest) -> None:
    """Slower in all than the timeout, but never silent for so long, and as fast as it has to be."""
    body = b'{"instances": [{"x": "in pieces"}]}'
    with rest.connect() as connection:
        connection.sendall(head("/model/echo:same", "Transfer-Encoding: chunked"))
        for begin in range(0, len(body), 10):
            part = body[begin : begin + 10]
            connection.sendall(b"%x\r\n%s\r\n" % (len(part), part))
            time.sleep(0.4)
        connection.sendall(b"0\r\n\r\n")
        assert read_answer(connection).json == {"instances": [{"x": "in pieces"}]}


@pytest.mark.parametrize("size", [8192, 300_000])
def test_headers_that_are_too_large(rest: Rest, size: int) -> None:
    with rest.connect() as connection:
        connection.sendall(b"GET /healthz/live HTTP/1.1\r\nx: " + size * b"y")
        answer = read_answer(connection)
        assert answer.status == 431
        assert answer.json["error_msg"] == "the request line and headers exceed max_metadata_bytes 8192"


def test_many_small_headers_are_too_large(rest: Rest) -> None:
    with rest.connect() as connection:
        connection.sendall(head("/healthz/live", *[f"x{number}: y" for number in range(2000)], method="GET"))
        assert read_answer(connection).status == 431


def test_trailers_are_dropped(rest: Rest) -> None:
    answer = rest.raw(
        head("/model/echo:same", "Transfer-Encoding: chunked"),
        b'23\r\n{"instances": [{"x": "in pieces"}]}\r\n0\r\nx-request-id: forged\r\n\r\n',
    )
    assert answer.json == {"instances": [{"x": "in pieces"}]}
    assert answer.headers["x-request-id"] != "forged"


# -- size --------------------------------------------------------------------------------------------------------------


def test_a_body_that_claims_a_gigabyte(rest: Rest) -> None:
    """It is refused at once, before anything of it was sent."""
    answer = rest.raw(head("/model/echo:same", "Content-Length: 1073741824"))
    assert answer.status == 200
    assert answer.json == {"error_msg": "http message is bigger than 1048576"}


def test_one_that_asks_first_is_not_told_to_continue(rest: Rest) -> None:
    expect = "Expect: 100-continue"
    assert rest.raw(head("/model/echo:same", "Content-Length: 1073741824", expect)).status == 200
    with rest.connect() as connection:
        connection.sendall(head("/model/echo:same", "Content-Length: 35", expect))
        assert read_answer(connection).status == 100
        connection.sendall(b'{"instances": [{"x": "in pieces"}]}')
        assert read_answer(connection).json == {"instances": [{"x": "in pieces"}]}


def test_a_large_body_is_read_to_its_end_so_that_the_answer_arrives(rest: Rest) -> None:
    assert rest.error("/model/echo:same", bytes(8 * MIB)) == "http message is bigger than 1048576"


def test_a_chunked_body_that_grows_too_large(rest: Rest) -> None:
    parts = iter([bytes(MIB // 2)] * 3)
    answer = rest.session.post(rest.url + "/model/echo:same", data=parts, timeout=60)
    assert (answer.status_code, answer.json()) == (200, {"error_msg": "http message is bigger than 1048576"})


def test_the_largest_body(rest: Rest) -> None:
    text = "x" * (MIB - len('{"instances": [{"x": ""}]}'))
    assert rest.ask("/model/echo:count", {"x": text}) == [{"y": len(text)}]


# -- gzip --------------------------------------------------------------------------------------------------------------


def test_packed_requests(rest: Rest) -> None:
    for size in (10, 500_000):
        body = json.dumps({"instances": [{"x": "x" * size}]}).encode()
        members = gzip.compress(body[:7]) + gzip.compress(body[7:])
        for packed in (gzip.compress(body), members):
            answer = rest.post("/model/echo:count", packed, headers={"content-encoding": "gzip"})
            assert answer.json() == {"instances": [{"y": size}]}


def test_a_gzip_bomb(rest: Rest) -> None:
    """A thousand times larger than it comes: only as much of it is unpacked as may be."""
    packer = zlib.compressobj(9, zlib.DEFLATED, 31)
    bomb = b"".join(packer.compress(bytes(MIB)) for _ in range(512)) + packer.flush()
    assert len(bomb) < MIB
    before = _peak(rest)
    answer = rest.post("/model/echo:same", bomb, headers={"content-encoding": "gzip"})
    assert (answer.status_code, answer.json()) == (200, {"error_msg": "http message is bigger than 1048576"})
    assert _peak(rest) - before < 64 * MIB


def _peak(rest: Rest) -> int:
    """The most memory that the server has had, in bytes."""
    status = pathlib.Path(f"/proc/{rest.process.pid}/status").read_text()
    found = re.search(r"VmHWM:\s*(\d+) kB", status)
    assert found
    return int(found[1]) << 10


@pytest.mark.parametrize(
    ("encoding", "body", "status", "text"),
    [
        ("gzip", b"no gzip", 400, "the body is no gzip, as content-encoding says: "),
        ("gzip", gzip.compress(b"{}" * 100, mtime=0)[:-10], 400, "the body's gzip is not whole"),
        ("br", b"{}", 415, "content-encoding 'br' is not supported: send gzip, or none"),
    ],
)
def test_what_can_not_be_unpacked(rest: Rest, encoding: str, body: bytes, status: int, text: str) -> None:
    answer = rest.post("/model/echo:same", body, headers={"content-encoding": encoding})
    assert answer.status_code == status
    assert answer.json()["error_msg"].startswith(text)


@pytest.mark.parametrize(
    ("accepted", "packed"),
    [
        ("gzip", True),
        ("br, GZIP;q=0.5", True),
        ("gzip;q=0", False),
        ("gzip; q=0.0", False),
        ("identity", False),
        (None, False),
    ],
)
def test_packed_answers(rest: Rest, accepted: str | None, packed: bool) -> None:
    body = {"instances": [{"x": "y" * 5000}]}
    answer = rest.post("/model/echo:same", body, headers={"accept-encoding": accepted})  # type: ignore[dict-item]
    assert answer.json() == body
    assert answer.headers.get("content-encoding") == ("gzip" if packed else None)
    assert (int(answer.headers["content-length"]) < 1000) == packed


def test_small_answers_are_not_packed(rest: Rest) -> None:
    answer = rest.post("/model/echo:same", {"instances": [{"x": "y"}]}, headers={"accept-encoding": "gzip"})
    assert "content-encoding" not in answer.headers


# -- every answer ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["x-request-id", "request_id"])
@pytest.mark.parametrize("path", ["/healthz/live", "/model/echo:same", "/nowhere"])
def test_request_ids_come_back(rest: Rest, path: str, name: str) -> None:
    assert rest.post(path, {}, headers={name: "mine"}).headers["x-request-id"] == "mine"
    made = [rest.post(path, {}).headers["x-request-id"] for _ in range(2)]
    assert made[0] != made[1]
    # One that could not stand in a line of the log is replaced.
    assert len(rest.post(path, {}, headers={name: 129 * "x"}).headers["x-request-id"]) == 36


def test_answers_are_dated(rest: Rest) -> None:
    assert re.fullmatch(r"\w{3}, \d\d \w{3} \d{4} [\d:]{8} GMT", rest.get("/healthz/live").headers["date"])


def test_paths_and_methods_that_there_are_not(rest: Rest) -> None:
    answer = rest.get("/nowhere?secret=1")
    assert answer.status_code == 404
    assert answer.json()["error_msg"].startswith("there is nothing at '/nowhere'; GET answers /healthz/live, ")
    answer = rest.post("/healthz/live", {})
    assert (answer.status_code, answer.headers["allow"]) == (405, "GET, HEAD")
    assert answer.json() == {"error_msg": "/healthz/live takes GET, HEAD, but actually POST"}
    answer = rest.session.head(rest.url + "/healthz/live", timeout=60)
    assert (answer.status_code, answer.content) == (200, b"")


def test_query_strings_are_not_logged(tmp_path: pathlib.Path) -> None:
    """Neither by the master nor by a worker, in whatever file, at the most verbose level; nor of what is no HTTP."""
    write_servable(tmp_path / "servables", "echo", ECHO_SERVABLE + PREAMBLE + COUNTING)
    query = b"?consumer_key=hushhush&consumer_secret=hushhush"
    with serving_rest(tmp_path, "echo", listen=LIMITS, GLOG_v="0") as rest:
        for path in (b"/nowhere", b"/token", b"/model/echo:same", b"/model/echo:slow", b"/healthz/live", b"http://["):
            for method in (b"GET", b"POST"):
                body = b'{"instances": [{"x": "words"}]}'  # of which one method makes an error
                length = b"Content-Length: %d\r\n" % len(body)
                answer = rest.raw(b"%s %s%s HTTP/1.1\r\nHost: x\r\n%s\r\n%s" % (method, path, query, length, body))
                assert b"hushhush" not in answer.body
        assert rest.raw(b"GET /token%s HTTP/1.1\r\nno header\r\n\r\n" % query).status == 400
        assert rest.raw(b"GET /token%s HTTP/1.1\r\nX: %s\r\n\r\n" % (query, b"x" * 9000)).status == 431
        until(lambda: rest.process.errors().count("closed: ") >= 4)
        files = [path for path in rest.process.cwd.rglob("*") if path.is_file()]
        assert any("echo" in path.name and path.stat().st_size for path in files)
        for path in files:
            assert b"hushhush" not in path.read_bytes(), path
        assert "hushhush" not in rest.process.errors()


def test_requests_on_one_connection(rest: Rest) -> None:
    """Also such as come before the one before them is answered."""
    body = b'{"instances": [{"x": "1"}]}'
    one = head("/model/echo:same", f"Content-Length: {len(body)}") + body
    left = bytearray()
    with rest.connect() as connection:
        for together in (1, 3):
            connection.sendall(one * together)
            for _ in range(together):
                assert read_answer(connection, left).json == {"instances": [{"x": "1"}]}
        connection.sendall(head("/healthz/live", "Connection: close", method="GET"))
        assert read_answer(connection, left).headers["connection"] == "close"
        assert is_closed(connection)
        assert not left


def test_a_wish_to_upgrade_is_passed_over(rest: Rest) -> None:
    """As curl sends it with --http2. What follows one with a body would be in doubt."""
    body = b'{"instances": [{"x": "1"}]}'
    upgrade = ("Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAMAAABkAAQAoAAAAAIAAAAA")
    assert rest.raw(head("/healthz/live", *upgrade, method="GET")).json == {"status": "live"}
    answer = rest.raw(head("/model/echo:same", *upgrade, f"Content-Length: {len(body)}") + body)
    assert answer.status == 400
    assert answer.json["error_msg"].startswith("a request with 'Upgrade' and a body: ")


# -- time --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "short", "long"), [("x-request-timeout", "0.05", "60"), ("grpc-timeout", "50m", "1M")]
)
def test_deadlines(rest: Rest, name: str, short: str, long: str) -> None:
    begin = time.monotonic()
    answer = rest.post("/model/echo:slow", {"instances": [{"x": "2"}]}, headers={name: short})
    assert time.monotonic() - begin < 2
    assert answer.status_code == 504
    assert "error_msg" in answer.json()
    # Wide enough, it changes nothing.
    answer = rest.post("/model/echo:slow", {"instances": [{"x": "0"}]}, headers={name: long})
    assert answer.json() == {"instances": [{"y": "0"}]}


NO_TIMES = (
    "soon",
    "-1",
    "-0",
    "+1",
    "nan",
    "inf",
    "-inf",
    "Infinity",
    "",
    "0x10",
    "1_0",
    "1,5",
    "1, 2",
    ".",
    "1e",
    "1s",
)
LONG = "9" * 50
EXPECTED = {
    "x-request-timeout": "seconds, a decimal number from 0 such as '1.5'",
    "grpc-timeout": "a number of 1 to 8 digits and its unit, one of H, M, S, m, u and n, such as '1500m'",
}


@pytest.mark.parametrize(
    ("name", "value", "shown"),
    [
        *((name, value, value) for name in EXPECTED for value in NO_TIMES),
        ("x-request-timeout", "\u00b2", "\u00b2"),
        ("x-request-timeout", LONG + "h", "9" * 40 + "…"),
        ("grpc-timeout", "1", "1"),
        ("grpc-timeout", "1.5S", "1.5S"),
        ("grpc-timeout", "123456789S", "123456789S"),
        ("grpc-timeout", LONG + "S", "9" * 40 + "…"),
    ],
)
def test_no_times(rest: Rest, name: str, value: str, shown: str) -> None:
    headers: Any = {name: value.encode("latin-1")}
    answer = rest.post("/model/echo:same", {"instances": [{"x": "1"}]}, headers=headers)
    text = f"header '{name}' should be {EXPECTED[name]}, but is '{shown}'"
    assert (answer.status_code, answer.json()) == (400, {"error_msg": text})


@pytest.mark.parametrize("value", ["5", "5.", "60.5", "6e1", "6.1E+1", "1e300", LONG * 10, "1e99999"])
def test_times(rest: Rest, value: str) -> None:
    """Those that nobody lives to see are none."""
    answer = rest.post("/model/echo:same", {"instances": [{"x": "1"}]}, headers={"x-request-timeout": value})
    assert answer.json() == {"instances": [{"x": "1"}]}


@pytest.mark.parametrize(
    ("name", "value"), [("x-request-timeout", "0"), ("x-request-timeout", "1e-9"), ("grpc-timeout", "0n")]
)
def test_no_time_at_all(rest: Rest, name: str, value: str) -> None:
    answer = rest.post("/model/echo:same", {"instances": [{"x": "1"}]}, headers={name: value})
    assert answer.status_code == 504


# -- lifetimes ---------------------------------------------------------------------------------------------------------


def blocked(folder: pathlib.Path) -> bytes:
    """A request for the method of BLOCKING_SERVABLE that waits at a FIFO."""
    body = json.dumps({"instances": [{"fifo": str(folder / "fifo")}]}).encode()
    return head("/model/block:method", f"Content-Length: {len(body)}") + body


@pytest.fixture
def blocking(tmp_path: pathlib.Path) -> Iterator[Rest]:
    import os

    os.mkfifo(tmp_path / "fifo")
    write_servable(tmp_path / "servables", "block", BLOCKING_SERVABLE)
    after = """
for line in sys.stdin:
    stats = server.stats()
    print(stats.in_flight, sum(method.ended.get("CANCELLED", 0) for method in stats.methods), flush=True)
"""
    with serving_rest(tmp_path, "block", after=after) as rest:
        yield rest


def counted(rest: Rest) -> tuple[int, int]:
    """Requests in flight, and those that were cancelled."""
    rest.process.tell("count")
    in_flight, cancelled = rest.process.line().split()
    return int(in_flight), int(cancelled)


def test_a_client_that_goes_cancels_its_call(blocking: Rest, tmp_path: pathlib.Path) -> None:
    fifo = tmp_path / "fifo"
    with blocking.connect() as connection:
        connection.sendall(blocked(tmp_path))
        assert fifo.read_text() == "running"
        assert counted(blocking) == (1, 0)
    until(lambda: counted(blocking), lambda seen: seen == (0, 1))
    fifo.write_text("too late")
    assert "[ERROR]" not in blocking.process.errors()
    assert blocking.get("/healthz/ready").status_code == 200


def test_a_stop_finishes_what_is_in_flight(blocking: Rest, tmp_path: pathlib.Path) -> None:
    fifo = tmp_path / "fifo"
    workers = blocking.process.workers()
    with blocking.connect() as idle, blocking.connect() as connection:
        idle.sendall(head("/healthz/live", method="GET"))
        assert read_answer(idle).status == 200
        connection.sendall(blocked(tmp_path))
        assert fifo.read_text() == "running"
        blocking.process.send(signal.SIGINT)
        assert is_closed(idle)
        until(lambda: _refuses(blocking))
        fifo.write_text("done")
        answer = read_answer(connection)
        assert answer.json == {"instances": [{"text": "done"}]}
        assert answer.headers["connection"] == "close"
        assert is_closed(connection)
    blocking.process.wait()
    wait_gone(workers)
    assert "[ERROR]" not in blocking.process.errors()
    assert "Traceback" not in blocking.process.errors().replace("KeyboardInterrupt", "").partition("Traceback")[0]


def _refuses(rest: Rest) -> bool:
    try:
        rest.connect().close()
    except ConnectionRefusedError:
        return True
    return False


def test_the_number_of_connections_is_bounded(tmp_path: pathlib.Path) -> None:
    with serving_rest(tmp_path, listen="'127.0.0.1:0', limits=server.Limits(max_connections=2)") as rest:
        connections = [rest.connect() for _ in range(2)]
        for connection in connections:
            connection.sendall(head("/healthz/live", method="GET"))
            assert read_answer(connection).status == 200
        with rest.connect() as refused:
            assert is_closed(refused)
        connections.pop().close()

        def works() -> bool:
            with rest.connect() as connection:
                try:
                    connection.sendall(head("/healthz/live", method="GET"))
                    return connection.recv(1) != b""
                except ConnectionError:
                    return False

        until(works)
        connections.pop().close()
        assert rest.process.errors().count("max_connections 2 or max_connections_per_peer 0 is reached") == 1


def test_idle_connections_are_closed_if_they_are_to_be(tmp_path: pathlib.Path) -> None:
    limits = "limits=server.Limits(idle_connection_timeout=0.5)"
    with serving_rest(tmp_path, listen=f"'127.0.0.1:0', {limits}") as rest, rest.connect() as connection:
        connection.sendall(head("/healthz/live", method="GET"))
        assert read_answer(connection).status == 200
        assert is_closed(connection)


def test_a_client_that_does_not_read_is_closed(rest: Rest) -> None:
    """Answers pile up at the server only until its patience is over."""
    body = json.dumps({"instances": [{"x": "y" * 900_000}]}).encode()
    with rest.connect() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.settimeout(1)
        request = head("/model/echo:same", f"Content-Length: {len(body)}") + body

        def sends() -> bool:
            try:
                connection.sendall(request)
            except TimeoutError:
                return False  # it is not read either
            except ConnectionError:
                return True
            return False

        until(sends)
