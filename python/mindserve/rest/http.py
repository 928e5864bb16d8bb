"""A request and its answer: bodies, headers, errors, as every route needs them."""

from __future__ import annotations

import json
import uuid
import zlib
from collections.abc import Awaitable, Callable, Mapping, MutableMapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from mindserve._native import ClientIdentity
    from mindserve.rest.calls import Caller, Ended
    from mindserve.rest.connection import Connection
    from mindserve.rest.context import Context

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
Headers = Sequence[tuple[bytes, bytes]]
T = TypeVar("T")

JSON = b"application/json"
NDJSON = b"application/x-ndjson"

# What takes longer goes to a thread, so that other connections don't wait for it.
INLINE_BYTES = 64 * 1024
_INLINE_PACKED_BYTES = 4 * 1024
# Less is not worth the time.
_MIN_PACKED_BYTES = 1024
_MAX_REQUEST_ID = 128
_GZIP = 16 + zlib.MAX_WBITS
# Of a body: each costs some time, however little is in it.
_MAX_MEMBERS = 1_000


class HttpError(Exception):
    """A request that is answered with an error.

    Attributes:
        status: of HTTP.
        text: for whoever sent it.
        name: of gRPC's status code that says the same, "NOT_FOUND".
        headers: more of the answer.
        fields: more of the error where it is an object.
    """

    def __init__(
        self, status: int, text: str, name: str, headers: Headers = (), fields: Mapping[str, Any] | None = None
    ) -> None:
        super().__init__(text)
        self.status = status
        self.text = text
        self.name = name
        self.headers = headers
        self.fields = fields or {}


class BodyTooLarge(HttpError):
    """A body, as it comes or unpacked, is larger than ``max_msg_mb_size``."""

    def __init__(self, limit: int) -> None:
        super().__init__(413, f"http message is bigger than {limit}", "RESOURCE_EXHAUSTED")


class ClientGone(Exception):
    """Nobody waits for the answer."""


class Exchange:
    """One request and its answer. An ASGI application's arguments, with what all routes do with them.

    Attributes:
        context: the server's.
        method: "GET".
        path: without its query, percent-encoding decoded.
        headers: by their names in lower case; of one that comes several times, its values joined by commas.
        request_id: the client's, or one that was made for it; the answer carries it.
        rpc_errors: errors are objects, as for RPCs, and not an ``error_msg``.
        started: whether the answer has begun.
        identity: who sends it; None: nobody is asked.
    """

    __slots__ = (
        "_held",
        "_receive",
        "_reserved",
        "_scope",
        "_send",
        "context",
        "headers",
        "identity",
        "request_id",
        "rpc_errors",
        "started",
    )

    def __init__(self, context: Context, scope: Scope, receive: Receive, send: Send) -> None:
        self.context = context
        self._scope = scope
        self._receive = receive
        self._send = send
        self._reserved = 0  # bytes of the body
        self._held = 0  # of the answer
        self.started = False
        self.rpc_errors = False
        self.identity: ClientIdentity | None = None
        headers: dict[bytes, bytes] = {}
        for name, value in scope["headers"]:
            headers[name] = value if name not in headers else b"%s, %s" % (headers[name], value)
        self.headers = headers
        self.request_id = _request_id(headers.get(b"x-request-id") or headers.get(b"request_id"))

    @property
    def method(self) -> str:
        return str(self._scope["method"])

    @property
    def path(self) -> str:
        return str(self._scope["path"])

    @property
    def query(self) -> bytes:
        return bytes(self._scope["query_string"])

    @property
    def caller(self) -> Caller:
        connection: Connection = self._scope["mindserve.connection"]
        return connection.caller

    # --- the request ---

    def permit(self, servable: str) -> None:
        """Comes before the body is read, where it is known what the request calls.

        Raises:
            HttpError: 403: its client may not call a servable, or name that is split, of this name.
        """
        if self.identity is not None and (denial := self.identity.denial(servable)):
            raise HttpError(403, denial, "PERMISSION_DENIED")

    async def body(self) -> bytes:
        """The whole body, unpacked.

        Raises:
            HttpError: it is too large, or can't be unpacked.
            ClientGone: it will not be whole.
        """
        limit = self.context.max_body
        if int(self.headers.get(b"content-length", b"0")) > limit:
            raise BodyTooLarge(limit)
        message = await self._receive()
        data: bytes = message.get("body", b"")
        if message["type"] != "http.request":
            raise ClientGone
        if message["more_body"]:
            data = await self._rest_of_body(data, limit)
        if len(data) > limit:
            raise BodyTooLarge(limit)
        encoding = self.headers.get(b"content-encoding")
        if encoding is not None:
            data = await self._unpack(data, encoding.strip().lower(), limit)
        return data

    async def _rest_of_body(self, data: bytes, limit: int) -> bytes:
        parts = [data]
        size = len(data)
        self._reserve(size)
        while True:
            message = await self._receive()
            if message["type"] != "http.request":
                raise ClientGone
            part: bytes = message["body"]
            size += len(part)
            if size > limit:
                raise BodyTooLarge(limit)
            self._reserve(len(part))
            parts.append(part)
            if not message["more_body"]:
                return b"".join(parts)

    async def _unpack(self, data: bytes, encoding: bytes, limit: int) -> bytes:
        if encoding == b"identity":
            return data
        if encoding not in (b"gzip", b"x-gzip"):
            text = f"content-encoding '{encoding.decode('latin-1')}' is not supported: send gzip, or none"
            raise HttpError(415, text, "UNIMPLEMENTED", [(b"accept-encoding", b"gzip")])
        unpacked = await self.context.run(len(data) > _INLINE_PACKED_BYTES, gunzip, data, limit)
        self._reserve(len(unpacked))
        return unpacked

    def _reserve(self, size: int) -> None:
        """Counts bytes that are held for this request."""
        self.context.memory.take(size)
        self._reserved += size

    def release(self) -> None:
        """Called when nothing is held of the request any more, nor yet of an answer, or when it is over."""
        self.context.memory.give(self._reserved)
        self._reserved = 0
        self.hold(0)

    # --- the answer ---

    def start(self) -> None:
        """Called before the answer's first bytes."""
        self.started = True
        cycle = self._scope["mindserve.cycle"]
        if cycle.waiting_for_100_continue and cycle.more_body:
            # It may send the body all the same, or not at all: what follows could be either.
            cycle.keep_alive = False

    def hold(self, size: int) -> None:
        """Counts so many bytes of the answer, in the place of those before: what is little is not counted.

        Raises:
            HttpError: there is no room for them.
        """
        if size <= INLINE_BYTES:
            size = 0
        if size > self._held:
            self.context.memory.give_answer(self._held)
            self._held = 0
            self.context.memory.take_answer(size)
        else:  # for which there is room, whatever others take meanwhile
            self.context.memory.give_answer(self._held - size)
        self._held = size

    async def answer_call(self, ended: Ended, decode: Callable[[bytes], bytes], headers: Headers) -> None:
        """Answers with what a call gave, of which nothing is kept while the client takes its JSON.

        Args:
            ended: how the call ended: well. Its message is taken from it.
            decode: the message's JSON; may raise `HttpError`.
            headers: of the answer.

        Raises:
            HttpError: there is no room for the answer.
        """
        self.release()
        await self.answer(200, await self._decode(ended, decode), headers=headers)

    async def _decode(self, ended: Ended, decode: Callable[[bytes], bytes]) -> bytes:
        message, ended.message = ended.message, b""
        self.hold(len(message))
        return await self.context.run(len(message) > INLINE_BYTES, decode, message)

    async def answer(self, status: int, body: bytes, content_type: bytes = JSON, headers: Headers = ()) -> None:
        """The whole answer, packed if the client takes that and it is worth it.

        Raises:
            HttpError: there is no room for it.
        """
        self.hold(len(body))
        sent = [(b"content-type", content_type), (b"x-request-id", self.request_id.encode("ascii")), *headers]
        if len(body) >= _MIN_PACKED_BYTES:
            sent.append((b"vary", b"accept-encoding"))
            if takes_gzip(self.headers.get(b"accept-encoding", b"")):
                body = await self.context.run(len(body) > INLINE_BYTES, gzip, body)
                self.hold(len(body))
                sent.append((b"content-encoding", b"gzip"))
        sent.append((b"content-length", b"%d" % len(body)))
        self.start()
        await self._send({"type": "http.response.start", "status": status, "headers": sent})
        await self._write(body, more=False)

    async def begin(self, status: int, content_type: bytes, headers: Headers = ()) -> None:
        """The beginning of an answer of unknown length; `write` and `end` follow."""
        sent = [(b"content-type", content_type), (b"x-request-id", self.request_id.encode("ascii")), *headers]
        self.start()
        await self._send({"type": "http.response.start", "status": status, "headers": sent})

    async def write(self, data: bytes) -> None:
        """A part of the answer; waits while the client does not take what it has got."""
        await self._write(data, more=True)

    async def end(self, data: bytes = b"") -> None:
        await self._write(data, more=False)

    async def _write(self, data: bytes, *, more: bool) -> None:
        # Never more at a time than a transport should hold: one for TLS would take all, and tell nobody that it has it.
        if len(data) <= INLINE_BYTES:
            await self._send({"type": "http.response.body", "body": data, "more_body": more})
            return
        view = memoryview(data)
        for begin in range(0, len(data), INLINE_BYTES):
            end = begin + INLINE_BYTES
            part = {"type": "http.response.body", "body": view[begin:end], "more_body": more or end < len(data)}
            await self._send(part)

    async def fail(self, error: HttpError) -> None:
        """Answers with the error."""
        await self.answer(error.status, self.error_body(error), headers=error.headers)

    def error_body(self, error: HttpError) -> bytes:
        """The error as JSON, on one line."""
        body: dict[str, Any] = {"error_msg": error.text}
        if self.rpc_errors:
            body = {"error": error_object(error.status, error.name, error.text, error.fields)}
        # Texts may repeat what a client wrote, half a surrogate pair too: it becomes the escape that JSON has for it.
        return json.dumps(body, ensure_ascii=False).encode("utf-8", "backslashreplace")


def error_object(status: int, name: str, text: str, fields: Mapping[str, Any]) -> dict[str, Any]:
    """An RPC's error, in the form that Google's APIs give it."""
    return {"code": status, "status": name, "message": text, **fields}


def gunzip(data: bytes, limit: int) -> bytes:
    """Unpacks at most ``limit`` bytes.

    Raises:
        HttpError: there is more in it, or it is no gzip, or of too many members.
    """
    parts: list[bytes] = []
    left = limit
    begin = members = 0
    unpacker = None
    try:
        # What is left behind a member is copied, so that little of it may be looked at in one go.
        while begin < len(data):
            if unpacker is None:
                members += 1
                if members > _MAX_MEMBERS:
                    text = f"the body's gzip has more than {_MAX_MEMBERS} members, expected one"
                    raise HttpError(400, text, "INVALID_ARGUMENT")
                unpacker = zlib.decompressobj(_GZIP)
            piece = data[begin : begin + INLINE_BYTES]
            part = unpacker.decompress(piece, left + 1)
            left -= len(part)
            if left < 0:
                raise BodyTooLarge(limit)
            parts.append(part)
            begin += len(piece) - len(unpacker.unused_data)
            if unpacker.eof:
                unpacker = None
    except zlib.error as error:
        raise HttpError(400, f"the body is no gzip, as content-encoding says: {error}", "INVALID_ARGUMENT") from None
    if unpacker is not None:
        raise HttpError(400, "the body's gzip is not whole", "INVALID_ARGUMENT")
    return b"".join(parts)


def gzip(data: bytes) -> bytes:
    """Packs fast rather than well."""
    packer = zlib.compressobj(1, zlib.DEFLATED, _GZIP)
    return packer.compress(data) + packer.flush()


def takes_gzip(accepted: bytes) -> bool:
    """Whether a client that sent this ``accept-encoding`` takes gzip."""
    for item in accepted.lower().split(b","):
        name, _, quality = item.partition(b";")
        if name.strip() in (b"gzip", b"x-gzip"):
            value = quality.replace(b" ", b"")
            return not value.startswith(b"q=0") or bool(value[3:].strip(b".0"))
    return False


def _request_id(given: bytes | None) -> str:
    if given is not None and len(given) <= _MAX_REQUEST_ID and given.isascii():
        text = given.decode("ascii")
        if text.isprintable():
            return text
    return str(uuid.uuid4())
