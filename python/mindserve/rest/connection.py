"""One connection of HTTP/1.1: uvicorn's, with bounds on what a client can make it wait for or hold."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import ipaddress
import itertools
import json
import socket
import struct
import time
from collections.abc import Callable
from email.utils import formatdate
from typing import Any, cast

import httptools
from uvicorn._types import ASGI3Application
from uvicorn.config import Config
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle
from uvicorn.server import ServerState

from mindserve import logs
from mindserve.config import Limits
from mindserve.limited_log import LimitedLog
from mindserve.rest.calls import Caller
from mindserve.rest.progress import AnswerWatch, Outgoing, Progress, outgoing
from mindserve.rest.tls import TlsFloodError, auth_properties

# Seconds that what a refused client still sends is read and dropped: closed at once, the kernel would drop the answer.
_LINGER = 2.0
# Bytes of it, and of a body whose answer did not wait for it, that are dropped at most, or as many as a message may
# have: clients that look for an answer only when they have sent all are to see it.
_LEAST_DROPPED = 16 << 20
# Where in a message the parser is.
_IDLE, _HEADERS, _BODY = range(3)
_OF_BODIES = (b"content-length", b"transfer-encoding")

_log = logs.get_logger("rest")


@dataclasses.dataclass
class Shared:
    """What the connections of a server have in common. Only for its event loop.

    Attributes:
        config: of uvicorn.
        limits: of the server.
        loop: that all run on.
        state: as uvicorn keeps it: connections and tasks.
        draining: the server stops: each connection ends with its next answer.
        log: takes what becomes of connections that go over a limit.
        on_closed: called when a connection is over.
    """

    config: Config
    limits: Limits
    loop: asyncio.AbstractEventLoop
    state: ServerState = dataclasses.field(default_factory=ServerState)
    draining: bool = False
    log: LimitedLog = dataclasses.field(default_factory=lambda: LimitedLog(_log))
    on_closed: Callable[[Connection], None] = lambda connection: None
    numbers: itertools.count[int] = dataclasses.field(default_factory=lambda: itertools.count(1))
    _second: int = 0

    def set_date(self) -> None:
        """Sees to it that answers carry the present time."""
        second = int(time.time())
        if second != self._second:
            self._second = second
            self.state.default_headers = [(b"date", formatdate(second, usegmt=True).encode())]


class _Refused(Exception):
    """Raised in the parser's callbacks: goes no further than the parser."""


class _Flow(FlowControl):
    """Reads no further ahead of the answers than what has come at one time, and knows how long it did not read."""

    def __init__(self, connection: Connection, transport: asyncio.Transport) -> None:
        super().__init__(transport)
        self._connection = connection
        self._since = 0.0

    def pause_reading(self) -> None:
        if not self.read_paused:
            self._since = self._connection.loop.time()
        super().pause_reading()

    def resume_reading(self) -> None:
        # Requests that wait have come whole but for the last, and whoever is answered before them needs nothing more.
        if not self.read_paused or self._connection.pipeline:
            return
        self._connection.body_progress.pause(self._connection.loop.time() - self._since)
        super().resume_reading()


class Connection(HttpToolsProtocol):
    """See the module.

    Args:
        shared: with the server's other connections.
        host: the client's address.
        accepted: its socket, which is the transport's to close.

    Attributes:
        host: as given.
        made: there has been a transport.
        body_progress: of the body that is being read.
        running: the task that answers at the time; it is cancelled when nobody waits for the answer any more.
        gone: nobody does.
    """

    def __init__(self, shared: Shared, host: str, accepted: socket.socket) -> None:
        super().__init__(shared.config, shared.state, {}, shared.loop)
        self.logger = cast("Any", _log)
        self.access_log = False
        self._shared = shared
        self._socket = accepted
        self._limits = shared.limits
        self._phase = _IDLE
        self._header_bytes = 0  # of the message that is being read
        self._raw_bytes = 0  # of chunks that were nothing but its headers, or what is between the parts of its body
        self._begun = 0  # messages, in the chunk that is being parsed
        self._parts = 0  # of bodies, likewise
        self._refusal: tuple[int, str] | None = None
        self._discarding = False
        self._dropped = 0  # bytes that came when all was said
        self._timer: asyncio.TimerHandle | None = None  # of headers or a body
        self._answers = AnswerWatch(shared.loop, self._outgoing, shared.limits, self._on_answer_late)
        self._answering: RequestResponseCycle | None = None  # the pipeline has those that wait for it
        self._caller: Caller | None = None
        self._number = next(shared.numbers)
        self.host = host
        self.made = False
        self.body_progress = Progress(shared.limits)
        self.running: asyncio.Task[Any] | None = None
        self.gone = False

    @property
    def caller(self) -> Caller:
        """Whom its requests are for."""
        if self._caller is None:
            tls = self.transport.get_extra_info("ssl_object")
            self._caller = Caller(peer_text(self.client), auth_properties(tls), self._number)
        return self._caller

    # --- the transport's callbacks ---

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.made = True
        super().connection_made(cast("asyncio.Transport", transport))
        self.flow = _Flow(self, self.transport)
        self._start_timer(self._limits.header_timeout, self._on_headers_late)

    def connection_lost(self, exc: Exception | None) -> None:
        self.gone = True
        self._stop_timer()
        self._answers.stop()
        self._unset_keepalive_if_required()
        self.pipeline.clear()
        if isinstance(exc, TlsFloodError):
            self._shared.log.warn(f"connection of {peer_text(self.client)} closed: {exc}")
        super().connection_lost(exc)
        if self.running is not None:
            self.running.cancel()
        self._shared.on_closed(self)

    def data_received(self, data: bytes) -> None:
        if self._discarding:
            self._drop(len(data))
            return
        self._unset_keepalive_if_required()
        before = self._phase
        self._begun = self._parts = 0
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            # There is nothing to upgrade to: the request is answered as it is; what follows is not known to be HTTP.
            self.cycle.keep_alive = False
            self._discarding = True
        except httptools.HttpParserError as error:
            self._refuse(*(self._refusal or (400, _describe(error))))
            return
        if self._phase == _IDLE:
            if self._begun or before != _IDLE:  # empty lines before a request don't begin it
                self._stop_timer()
            return
        # A chunk that is all of this message's headers, or has nothing of its body, but trailers or extensions of its
        # chunks: the parser holds a header as long as it has no end.
        headers = self._phase == _HEADERS
        if self._begun == (before == _IDLE) if headers else before == _BODY and not self._begun and not self._parts:
            self._raw_bytes += len(data)
            if self._raw_bytes > self._limits.max_metadata_bytes:
                self._refuse(*self._too_large())
                return
        if self._timer is None:
            if headers:
                self._start_timer(self._limits.header_timeout, self._on_headers_late)
            else:
                self._start_timer(self._limits.body_idle_timeout, self._on_body_late)

    def eof_received(self) -> None:
        """A client that sends no more is taken for one that is gone: nothing tells the two apart."""

    def pause_writing(self) -> None:
        super().pause_writing()
        self._answers.full()

    def resume_writing(self) -> None:
        super().resume_writing()
        self._answers.room()

    def _outgoing(self) -> Outgoing:
        return outgoing(self._socket, self.transport.get_write_buffer_size())

    # --- the parser's callbacks ---

    def on_message_begin(self) -> None:
        self._phase = _HEADERS
        self._begun += 1
        self._header_bytes = self._raw_bytes = 0
        if len(self.pipeline) >= self._limits.max_concurrent_streams:
            most = self._limits.max_concurrent_streams
            self._refusal = 429, f"more than max_concurrent_streams {most} requests wait for those before them"
            raise _Refused
        self._shared.set_date()
        super().on_message_begin()
        cast("dict[str, Any]", self.scope)["mindserve.connection"] = self

    def on_url(self, url: bytes) -> None:
        self._count_header(len(url))
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        self._count_header(len(name) + len(value) + 4)
        if self._phase != _HEADERS:  # a trailer of a chunked body, which nobody asks for
            return
        if name.lower() == b"transfer-encoding":
            self._check_coding(value)
        super().on_header(name, value.rstrip(b" \t"))  # no part of the value, which the parser leaves there

    def _check_coding(self, value: bytes) -> None:
        """The parser takes what ends in "chunked"; others on the way may not."""
        shown = value[:40].decode("latin-1")
        if value.strip().lower() != b"chunked":
            self._refusal = 501, f"header 'transfer-encoding' should be 'chunked', but is '{shown}'"
            raise _Refused
        if self.parser.get_http_version() != "1.1":
            self._refusal = 400, "header 'transfer-encoding' with HTTP/1.0, which does not have it: expected HTTP/1.1"
            raise _Refused

    def _check_request(self) -> None:
        """The parser takes a few versions that others may read in another way, and any number of hosts."""
        version = self.parser.get_http_version()
        if version not in ("1.0", "1.1"):
            self._refusal = 505, f"a request of HTTP/{version}: expected HTTP/1.1"
            raise _Refused
        hosts = [name for name, _ in self.headers].count(b"host")
        if hosts > 1 or (not hosts and version == "1.1"):
            self._refusal = 400, f"a request of HTTP/{version} should have one header 'host', but has {hosts or 'none'}"
            raise _Refused

    def on_headers_complete(self) -> None:
        self._check_request()
        if self.parser.should_upgrade() and any(name in _OF_BODIES for name, _ in self.headers):
            # The parser takes what follows for another protocol.
            self._refusal = 400, "a request with 'Upgrade' and a body: expected HTTP/1.1 without it (curl: --http1.1)"
            raise _Refused
        super().on_headers_complete()
        self._phase = _BODY
        self._raw_bytes = 0
        self._stop_timer()
        self.body_progress.begin(self.loop.time())
        cast("dict[str, Any]", self.scope)["mindserve.cycle"] = self.cycle
        if self._shared.draining:
            self.cycle.keep_alive = False

    def on_body(self, body: bytes) -> None:
        self._parts += 1
        self._raw_bytes = 0
        if self.cycle.response_complete:
            self._drop(len(body))
        self.body_progress.took(len(body), self.loop.time())
        super().on_body(body)

    def on_message_complete(self) -> None:
        self._phase = _IDLE
        super().on_message_complete()

    def _count_header(self, size: int) -> None:
        self._header_bytes += size
        if self._header_bytes > self._limits.max_metadata_bytes:
            self._refusal = self._too_large()
            raise _Refused

    def _too_large(self) -> tuple[int, str]:
        what = "request line and headers" if self._phase == _HEADERS else "trailers and chunk headers"
        return 431, f"the {what} exceed max_metadata_bytes {self._limits.max_metadata_bytes}"

    # --- uvicorn's hooks ---

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: ASGI3Application) -> None:
        self._answering = cycle
        super()._start_asgi_task(cycle, app)

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self._unset_keepalive_if_required()
        self._answers.answered()
        if not self.transport.is_closing():
            self.flow.resume_reading()  # nothing waits any more, perhaps
        if self._limits.idle_connection_timeout and not self.pipeline and not self.transport.is_closing():
            self.timeout_keep_alive_task = self.loop.call_later(
                self._limits.idle_connection_timeout, self.timeout_keep_alive_handler
            )
        if self._phase == _BODY and self.cycle.response_complete:
            # Answered early: what still comes of the body is dropped, for a while.
            self._stop_timer()
            self._start_timer(self._limits.body_idle_timeout, self.transport.close)

    def _unsupported_upgrade_warning(self) -> None:
        pass

    @property
    def idle(self) -> bool:
        """No request is being read or answered."""
        return self._phase == _IDLE and (self.cycle is None or self.cycle.response_complete)

    # --- time ---

    def _start_timer(self, seconds: float, then: Callable[[], None]) -> None:
        self._timer = self.loop.call_later(seconds, then)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _on_headers_late(self) -> None:
        self._timer = None
        seconds = self._limits.header_timeout
        if self.flow.read_paused:  # it is this side that does not read
            self._start_timer(seconds, self._on_headers_late)
        elif self._phase == _IDLE:
            self.transport.close()
        else:
            self._refuse(408, f"the request's headers were not whole within header_timeout, {seconds:g} s")

    def _on_body_late(self) -> None:
        self._timer = None
        if self._phase != _BODY:
            return
        limits = self._limits
        now = self.loop.time()
        progress = self.body_progress
        if self.flow.read_paused:
            self._start_timer(limits.body_idle_timeout, self._on_body_late)
        elif not progress.is_over(now):
            self._start_timer(progress.due - now, self._on_body_late)
        elif progress.has_halted(now):
            self._refuse(
                408, f"nothing came of the request's body for body_idle_timeout, {limits.body_idle_timeout:g} s"
            )
        else:
            least = limits.min_bytes_per_second
            self._refuse(408, f"the request's body did not come at min_bytes_per_second, {least}")

    def _on_answer_late(self) -> None:
        limits = self._limits
        rate = f"at min_bytes_per_second {limits.min_bytes_per_second} " if limits.min_bytes_per_second else ""
        reason = f"it did not take its answer {rate}within body_idle_timeout, {limits.body_idle_timeout:g} s"
        self._shared.log.warn(f"connection of {peer_text(self.client)} closed: {reason}")
        # Else the kernel would go on offering what it has.
        with contextlib.suppress(OSError):
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.transport.abort()

    # --- ends ---

    def _drop(self, size: int) -> None:
        self._dropped += size
        if self._dropped > max(_LEAST_DROPPED, self._limits.max_msg_mb_size << 20):
            self.transport.close()

    def _refuse(self, status: int, text: str) -> None:
        """Answers a request that is none, or not whole, and ends the connection.

        Where requests before it have not been answered yet, their answers come first, and are the last.
        """
        self._discarding = True
        self._stop_timer()
        self._shared.log.warn(f"connection of {peer_text(self.client)} closed: {text}")
        cycle = self.cycle
        if cycle is not None and self._phase != _BODY:  # its own cycle has not begun
            if not cycle.response_complete:
                cycle.keep_alive = False
                return
        elif cycle is not None:
            if self.pipeline:
                self.pipeline.popleft()  # itself, the latest
                before = self.pipeline[0][0] if self.pipeline else self._answering
                assert before is not None
                before.keep_alive = False
                self.cycle = before
                self.flow.resume_reading()
                return
            if cycle.response_complete:  # answered early: there is no second answer to it
                self._end()
                return
            if cycle.response_started:
                cycle.keep_alive = False
                return
            # Whoever answers waits for a body that will not be whole.
            self.gone = cycle.disconnected = True
            cycle.message_event.set()
            if self.running is not None:
                self.running.cancel()
        body = json.dumps({"error_msg": text}).encode()
        lines = [STATUS_LINE[status]]
        lines += (b"%s: %s\r\n" % header for header in self.server_state.default_headers)
        lines.append(b"content-type: application/json\r\ncontent-length: %d\r\nconnection: close\r\n\r\n" % len(body))
        self.transport.write(b"".join([*lines, body]))
        self._end()

    def _end(self) -> None:
        """Closes the connection, once what was written had time to arrive."""
        if self.transport.can_write_eof():
            self.transport.write_eof()
            self._start_timer(_LINGER, self.transport.close)
        else:
            self.transport.close()
        self._answers.answered()


def peer_text(client: tuple[str, int] | None) -> str:
    """As gRPC writes addresses."""
    if client is None:
        return "unknown"
    host, port = client
    address = ipaddress.ip_address(host.partition("%")[0])
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped is None:
            return f"ipv6:[{host}]:{port}"
        host = str(address.ipv4_mapped)
    return f"ipv4:{host}:{port}"


def _describe(error: httptools.HttpParserError) -> str:
    cause = error if error.__context__ is None else error.__context__
    if isinstance(cause, httptools.HttpParserInvalidURLError):
        cause = ValueError("invalid target")  # not with the target itself, which may have secrets in its query
    return f"this is no HTTP/1.1 request: {cause or type(cause).__name__}"
