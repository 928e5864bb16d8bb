"""One connection of HTTP/1.1: uvicorn's, with bounds on what a client can make it wait for or hold."""

from __future__ import annotations

import asyncio
import dataclasses
import ipaddress
import itertools
import json
import time
from collections.abc import Callable
from email.utils import formatdate
from typing import Any, cast

import httptools
from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol
from uvicorn.server import ServerState

from mindserve import logs
from mindserve.config import Limits
from mindserve.rest.calls import Caller
from mindserve.rest.tls import auth_properties

# Seconds that what a refused client still sends is read and dropped: closed at once, the kernel would drop the answer.
_LINGER = 2.0
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
        on_closed: called when a connection is over.
    """

    config: Config
    limits: Limits
    loop: asyncio.AbstractEventLoop
    state: ServerState = dataclasses.field(default_factory=ServerState)
    draining: bool = False
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


class Connection(HttpToolsProtocol):
    """See the module.

    Args:
        shared: with the server's other connections.
        host: the client's address.

    Attributes:
        host: as given.
        made: there has been a transport.
        running: the task that answers at the time; it is cancelled when nobody waits for the answer any more.
        gone: nobody does.
    """

    def __init__(self, shared: Shared, host: str) -> None:
        super().__init__(shared.config, shared.state, {}, shared.loop)
        self.logger = cast("Any", _log)
        self.access_log = False
        self._shared = shared
        self._limits = shared.limits
        self._phase = _IDLE
        self._header_bytes = 0  # of the message that is being read
        self._raw_bytes = 0  # of chunks that were nothing but its headers
        self._begun = 0  # messages, in the chunk that is being parsed
        self._refusal: tuple[int, str] | None = None
        self._discarding = False
        self._last_data = 0.0
        self._timer: asyncio.TimerHandle | None = None  # of headers or a body
        self._write_timer: asyncio.TimerHandle | None = None
        self._caller: Caller | None = None
        self._number = next(shared.numbers)
        self.host = host
        self.made = False
        self.running: asyncio.Task[Any] | None = None
        self.gone = False

    @property
    def caller(self) -> Caller:
        """Whom its requests are for."""
        if self._caller is None:
            tls = self.transport.get_extra_info("ssl_object")
            self._caller = Caller(_peer(self.client), auth_properties(tls), self._number)
        return self._caller

    # --- the transport's callbacks ---

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.made = True
        super().connection_made(cast("asyncio.Transport", transport))
        self._start_timer(self._limits.header_timeout, self._on_headers_late)

    def connection_lost(self, exc: Exception | None) -> None:
        self.gone = True
        self._stop_timer()
        self._stop_write_timer()
        self._unset_keepalive_if_required()
        super().connection_lost(exc)
        if self.running is not None:
            self.running.cancel()
        self._shared.on_closed(self)

    def data_received(self, data: bytes) -> None:
        if self._discarding:
            return
        self._unset_keepalive_if_required()
        before = self._phase
        self._begun = 0
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
            self._stop_timer()
        elif self._phase == _HEADERS:
            # A chunk that is all of this message's headers, which the parser holds as long as one has no end.
            if self._begun == (before == _IDLE):
                self._raw_bytes += len(data)
                if self._raw_bytes > self._limits.max_metadata_bytes:
                    self._refuse(*self._headers_too_large())
                    return
            if self._timer is None:
                self._start_timer(self._limits.header_timeout, self._on_headers_late)
        else:
            self._last_data = self.loop.time()
            if self._timer is None:
                self._start_timer(self._limits.body_idle_timeout, self._on_body_idle)

    def eof_received(self) -> None:
        """A client that sends no more is taken for one that is gone: nothing tells the two apart."""

    def pause_writing(self) -> None:
        super().pause_writing()
        if self._write_timer is None:
            self._watch_writing(self.transport.get_write_buffer_size())

    def resume_writing(self) -> None:
        super().resume_writing()
        self._stop_write_timer()

    # --- the parser's callbacks ---

    def on_message_begin(self) -> None:
        self._phase = _HEADERS
        self._begun += 1
        self._header_bytes = self._raw_bytes = 0
        self._shared.set_date()
        super().on_message_begin()
        cast("dict[str, Any]", self.scope)["mindserve.connection"] = self

    def on_url(self, url: bytes) -> None:
        self._count_header(len(url))
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        self._count_header(len(name) + len(value) + 4)
        if self._phase == _HEADERS:  # else it is a trailer of a chunked body, which nobody asks for
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        if self.parser.should_upgrade() and any(name in _OF_BODIES for name, _ in self.headers):
            # The parser takes what follows for another protocol.
            self._refusal = 400, "a request with 'Upgrade' and a body: expected HTTP/1.1 without it (curl: --http1.1)"
            raise _Refused
        self._phase = _BODY
        self._stop_timer()
        super().on_headers_complete()
        cast("dict[str, Any]", self.scope)["mindserve.cycle"] = self.cycle
        if self._shared.draining:
            self.cycle.keep_alive = False

    def on_message_complete(self) -> None:
        self._phase = _IDLE
        super().on_message_complete()

    def _count_header(self, size: int) -> None:
        self._header_bytes += size
        if self._header_bytes > self._limits.max_metadata_bytes:
            self._refusal = self._headers_too_large()
            raise _Refused

    def _headers_too_large(self) -> tuple[int, str]:
        return 431, f"the request line and headers exceed max_metadata_bytes {self._limits.max_metadata_bytes}"

    # --- uvicorn's hooks ---

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self._unset_keepalive_if_required()
        if self._limits.idle_connection_timeout and not self.pipeline and not self.transport.is_closing():
            self.timeout_keep_alive_task = self.loop.call_later(
                self._limits.idle_connection_timeout, self.timeout_keep_alive_handler
            )
        if self._phase == _BODY:  # answered early: what still comes of the body is dropped, for a while
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
        if self._phase == _IDLE:
            self.transport.close()
        else:
            self._refuse(408, f"the request's headers were not whole within header_timeout, {seconds:g} s")

    def _on_body_idle(self) -> None:
        self._timer = None
        if self._phase != _BODY:
            return
        seconds = self._limits.body_idle_timeout
        # It may be this side that does not read.
        since = self.loop.time() if self.flow.read_paused else self._last_data
        left = since + seconds - self.loop.time()
        if left > 0.001:
            self._start_timer(left, self._on_body_idle)
        else:
            self._refuse(408, f"nothing came of the request's body for body_idle_timeout, {seconds:g} s")

    def _watch_writing(self, size: int) -> None:
        def look() -> None:
            now = self.transport.get_write_buffer_size()
            if now >= size > 0:
                self.transport.abort()
            else:
                self._watch_writing(now)

        self._write_timer = self.loop.call_later(self._limits.body_idle_timeout, look)

    def _stop_write_timer(self) -> None:
        if self._write_timer is not None:
            self._write_timer.cancel()
            self._write_timer = None

    def _refuse(self, status: int, text: str) -> None:
        """Answers a request that is none, or not whole, and ends the connection."""
        self._discarding = True
        self._stop_timer()
        _log.debug("%s: refused with %d: %s", _peer(self.client), status, text)
        cycle = self.cycle
        if cycle is not None and not cycle.response_complete:
            if cycle.response_started or not cycle.more_body:
                cycle.keep_alive = False  # the answer of an earlier request comes first, and is the last
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
        if self.transport.can_write_eof():
            self.transport.write_eof()
            self._start_timer(_LINGER, self.transport.close)
        else:
            self.transport.close()


def _peer(client: tuple[str, int] | None) -> str:
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
    return f"this is no HTTP/1.1 request: {cause or type(cause).__name__}"
