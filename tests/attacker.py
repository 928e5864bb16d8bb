"""A client that means harm: HTTP/2 by the package h2, and frames that it would never send by itself."""

from __future__ import annotations

import contextlib
import os
import pathlib
import resource
import select
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from typing import Any

import h2.config
import h2.connection
import h2.errors
import h2.events
import h2.exceptions
import h2.settings
import pytest
from hyperframe.frame import DataFrame, Frame, GoAwayFrame, HeadersFrame, RstStreamFrame

from conftest import ServerProcess
from e2e_support import Served, until
from mindserve.client import Client
from mindserve.proto import PREDICT

CALM = h2.errors.ErrorCodes.ENHANCE_YOUR_CALM
CANCEL = h2.errors.ErrorCodes.CANCEL
Fields = Sequence[tuple[str, str]]


def framed(message: bytes, *, compressed: bool = False) -> bytes:
    """A gRPC message with its prefix."""
    return bytes([compressed]) + len(message).to_bytes(4, "big") + message


class Attacker:
    """One connection. What it gets is collected by `look`, and by whatever waits or sends."""

    def __init__(self, address: str, *, window: int | None = None, receive_buffer: int | None = None) -> None:
        """Args:
        address: host and port.
        window: what each stream may be sent at first; None: HTTP/2's default.
        receive_buffer: bytes that the kernel may take for it; None: as many as it likes.
        """
        host, port = address.rsplit(":", 1)
        self.begun = f"{datetime.now():%Y-%m-%d %H:%M:%S.%f}"[:-3]  # as the server's log has it
        self.socket = socket.socket(socket.AF_INET)
        if receive_buffer is not None:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self.socket.settimeout(60)
        self.socket.connect((host, int(port)))
        # As the server's log names it.
        self.name = f"{host}:{self.socket.getsockname()[1]}"
        self.socket.setblocking(False)
        config = h2.config.H2Configuration(
            client_side=True, header_encoding="utf-8", validate_outbound_headers=False, normalize_outbound_headers=False
        )
        self.h2 = h2.connection.H2Connection(config)
        self.h2.initiate_connection()
        if window is not None:
            self.h2.update_settings({h2.settings.SettingCodes.INITIAL_WINDOW_SIZE: window})
        self.streams: dict[int, dict[str, str]] = {}
        self.resets: dict[int, int] = {}
        self.over: set[int] = set()
        self.received: dict[int, int] = {}
        self.goaway: int | None = None
        self.pongs = 0
        self.closed = False
        self.reads_while_it_sends = True
        self._unread = bytearray()
        self.flush()

    def close(self) -> None:
        self.socket.close()
        self.closed = True

    def __enter__(self) -> Attacker:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    # -- sending -------------------------------------------------------------------------------------------------------

    def flush(self) -> None:
        """Sends what h2 has to say, whole."""
        self.send(self.h2.data_to_send())

    def send(self, data: bytes, seconds: float = 60) -> bool:
        """Sends bytes as they are, and takes what comes meanwhile. False: the server has closed, or said goodbye."""
        rest = memoryview(data)
        deadline = time.monotonic() + seconds
        reads = [self.socket] if self.reads_while_it_sends else []
        while rest and not self.closed:
            readable, writable, _ = select.select(reads, [self.socket], [], 1)
            if readable:
                self.look(0)
                if self.goaway is not None:
                    return False
            if writable and not self.closed:
                try:
                    rest = rest[self.socket.send(rest) :]
                except BlockingIOError:
                    pass
                except OSError:
                    # What it said before may still be there.
                    while self.look(0):
                        pass
                    self.closed = True
            assert time.monotonic() < deadline, "the server takes nothing"
        return not self.closed

    def frames(self, *frames: Frame) -> bool:
        return self.send(b"".join(frame.serialize() for frame in frames))

    def flood(self, frames: bytes, most: int = 100_000) -> None:
        """Sends that again and again until the server has had enough; fails after `most` times."""
        block = frames * 100
        for _ in range(most // 100):
            if not self.send(block):
                break
        self.until(lambda: self.goaway is not None or self.closed)

    def begin(self, path: str = PREDICT, body: bytes = b"", *, ends: bool = True, fields: Fields = ()) -> int:
        """Begins a call."""
        stream = self.h2.get_next_available_stream_id()
        self.h2.send_headers(stream, [*request_fields(path), *fields], end_stream=ends and not body)
        if body:
            self.send_body(stream, body, ends=ends)
        self.flush()
        return stream

    def send_body(self, stream: int, body: bytes, *, ends: bool = True) -> None:
        """Sends a request's body as the windows allow."""
        while body:
            size = min(len(body), self.h2.local_flow_control_window(stream), self.h2.max_outbound_frame_size)
            if size == 0:
                self.flush()
                self.until(lambda: self.h2.local_flow_control_window(stream) > 0 or self.is_over(stream))
                if self.is_over(stream):
                    return
                continue
            self.h2.send_data(stream, body[:size], end_stream=ends and size == len(body))
            body = body[size:]

    # -- receiving -----------------------------------------------------------------------------------------------------

    def look(self, seconds: float = 1) -> bool:
        """Takes what has come, waiting so long for it. False: nothing has."""
        if self.closed or not select.select([self.socket], [], [], seconds)[0]:
            return False
        try:
            data = self.socket.recv(1 << 20)
        except BlockingIOError:
            return False
        except OSError:
            data = b""
        if not data:
            self.closed = True
            return False
        self._unread += data
        while len(self._unread) >= 9:
            size = 9 + int.from_bytes(self._unread[:3], "big")
            if len(self._unread) < size:
                break
            frame = bytes(self._unread[:size])
            del self._unread[:size]
            self._take(frame)
        return True

    def _take(self, frame: bytes) -> None:
        """A frame by hand as far as h2 would find fault with it: it knows no stream that it did not begin itself, and
        no window but those that it gave."""
        kind, flags, stream = frame[3], frame[4], int.from_bytes(frame[5:9], "big")
        if kind == GoAwayFrame.type:
            self.goaway = int.from_bytes(frame[13:17], "big")
            return
        if kind == RstStreamFrame.type:
            self.resets[stream] = int.from_bytes(frame[9:], "big")
        elif kind == DataFrame.type:
            self.received[stream] = self.received.get(stream, 0) + len(frame) - 9
            frame = b"\0\0\0" + frame[3:9]
        if kind in (DataFrame.type, HeadersFrame.type) and flags & 1:
            self.over.add(stream)
        if stream in self.h2.streams or stream == 0:
            try:
                for event in self.h2.receive_data(frame):
                    self._note(event)
            except h2.exceptions.ProtocolError:  # of a call that it has reset
                assert stream != 0
        elif kind == HeadersFrame.type:
            self.h2.decoder.decode(frame[9:])  # the table goes on

    def _note(self, event: h2.events.Event) -> None:
        if isinstance(event, h2.events.ResponseReceived | h2.events.TrailersReceived):
            self.streams.setdefault(event.stream_id, {}).update((str(k), str(v)) for k, v in event.headers)
        elif isinstance(event, h2.events.PingAckReceived):
            self.pongs += 1

    def until(self, done: Callable[[], bool], seconds: float = 60) -> None:
        """Takes what comes until that is so, or the connection is closed; fails after so long."""
        deadline = time.monotonic() + seconds
        while not done() and not self.closed:
            self.look(0.1)
            assert time.monotonic() < deadline, "the server does not answer"

    def is_over(self, stream: int) -> bool:
        return stream in self.over or stream in self.resets

    def wait(self, stream: int) -> dict[str, str]:
        """The fields of a call's answer; its code and text are ``grpc-status`` and ``grpc-message``."""
        self.until(lambda: self.is_over(stream))
        assert self.is_over(stream), "the server has closed the connection"
        return self.streams.get(stream, {})

    def is_served(self) -> bool:
        """Whether the connection is still as good as any."""
        had = self.pongs
        self.h2.ping(b"is there")
        self.flush()
        self.until(lambda: self.pongs > had)
        return self.pongs > had

    def ends(self) -> None:
        """Waits until the server has closed it, which it does at the latest some seconds after it said so."""
        self.until(lambda: self.closed)


def request_fields(path: str = PREDICT) -> list[tuple[str, str]]:
    return [
        (":method", "POST"),
        (":scheme", "http"),
        (":path", path),
        (":authority", "test"),
        ("content-type", "application/grpc"),
        ("te", "trailers"),
    ]


def headers_frame(attacker: Attacker, stream: int, *flags: str, fields: Fields | None = None) -> bytes:
    """A HEADERS frame by hand, packed by the connection's own table."""
    block = attacker.h2.encoder.encode(request_fields() if fields is None else fields)
    return HeadersFrame(stream, data=block, flags=list(flags)).serialize()


# -- who must not notice -----------------------------------------------------------------------------------------------


class Neighbour:
    """An ordinary client that calls all the time, in a thread of its own."""

    def __init__(self, served: Served) -> None:
        self.answered = 0
        self.failures: list[Any] = []
        self.slowest = 0.0
        self.most = 0  # bytes of memory that the server held at one time
        self._server = served.process
        self._address = served.address
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        with Client(self._address, "echo", "same") as client:
            while not self._stop.is_set():
                begin = time.monotonic()
                answer = client.infer({"x": "text"}, timeout=60)
                self.slowest = max(self.slowest, time.monotonic() - begin)
                if answer == [{"x": "text"}]:
                    self.answered += 1
                else:
                    self.failures.append(answer)
                self.most = max(self.most, held(self._server))
                self._stop.wait(0.005)


@contextlib.contextmanager
def many_descriptors(count: int) -> Iterator[int]:
    """Lets this process have that many connections: gives its hard limit. Skips where the system doesn't allow it."""
    before = _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < count + 1000:
        assert not os.environ.get("CI"), f"RLIMIT_NOFILE is {hard}, expected at least {count + 1000}"
        pytest.skip(f"RLIMIT_NOFILE is {hard}")
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    try:
        yield hard
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


def resident(pid: int) -> int:
    """Bytes of memory that a process holds."""
    for line in pathlib.Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024
    raise AssertionError("no VmRSS")


def held(server: ServerProcess) -> int:
    """Bytes that a server and its workers hold; what they share and have both looked at counts twice."""
    return sum(resident(pid) for pid in (server.pid, *server.workers()))


@contextlib.contextmanager
def unharmed(served: Served, growth: int = 64 << 20) -> Iterator[None]:
    """While an attack goes on, and after it, another client is answered, and the server grows by so much at most.

    Nor does it grow by more and shrink again: the other client looks between its calls.
    """
    neighbour = Neighbour(served)
    neighbour._thread.start()
    try:
        # Often enough for the log, too, which takes ten such warnings a second, to have a line for each test.
        until(lambda: neighbour.answered >= 25 or neighbour.failures)
        before = held(served.process)
        yield
        answered = neighbour.answered
        until(lambda: neighbour.answered > answered + 3 or neighbour.failures)
    finally:
        neighbour._stop.set()
        neighbour._thread.join()
    assert neighbour.failures == []
    # A generous bound: what an attack must not do is stop the others.
    assert neighbour.slowest < 10
    assert max(neighbour.most, held(served.process)) < before + growth


def said_of(served: Served, attacker: Attacker) -> list[str]:
    """The log's lines about a connection; there is one at least, or there will be."""

    def is_of(line: str) -> bool:
        # Another one may have had the same port before.
        return attacker.name in line and line.partition("] ")[2] >= attacker.begun

    return until(lambda: [line for line in served.process.errors().splitlines() if is_of(line)])
