"""The context that a handler gets: what it knows of its call, and what it says about the answer."""

from __future__ import annotations

import gzip
import sys
import threading
import time
from collections.abc import Awaitable, Callable, Generator, Iterable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn, Protocol

from mindserve import logs
from mindserve.worker.metadata import check_metadata
from mindserve.worker.status import CANCELLED, OK, UNKNOWN, Abort, Metadata, code_number, text_of

if TYPE_CHECKING:
    from mindserve._native import ServiceCall
    from mindserve.worker.answering import Handler

# By grpc.Compression's numbers.
_NO_COMPRESSION, _DEFLATE, _GZIP = range(3)
# Fast, since it happens while a client waits.
_GZIP_LEVEL = 1

_IDENTITY_KEYS = ("x509_subject_alternative_name", "x509_common_name")

_log = logs.get_logger("worker")


class Metadatum(NamedTuple):
    """A key and a value of the invocation's metadata; bytes for keys that end in "-bin"."""

    key: str
    value: str | bytes


class Watch(Protocol):
    """Has a context told by `GrpcContext.over` when its call is cancelled."""

    def add(self, call: ServiceCall, context: GrpcContext) -> None: ...
    def remove(self, call: ServiceCall) -> None: ...


class _Done(Awaitable[None]):
    """What a call that is over already gives to those who await it."""

    def __await__(self) -> Generator[Any, None, None]:
        return
        yield


_DONE = _Done()


class GrpcContext:
    """The context of a call: the methods of ``grpc.ServicerContext`` and of ``grpc.aio.ServicerContext``.

    What there is a coroutine may be awaited here, and has happened without that. Any thread.

    Args:
        call: the call.
        handler: what answers it.
        watch: tells of the call's being cancelled; None: whoever makes the context does.
    """

    __slots__ = (
        "_call",
        "_callbacks",
        "_code",
        "_compress",
        "_details",
        "_ended",
        "_handler",
        "_initial_allowed",
        "_lock",
        "_skip_compression",
        "_trailing",
        "_watch",
        "aborted",
    )

    def __init__(self, call: ServiceCall, handler: Handler, watch: Watch | None = None) -> None:
        self.aborted: Abort | None = None
        self._call = call
        self._handler = handler
        self._code: Any = None
        self._details = ""
        self._trailing: Metadata = ()
        self._initial_allowed = True
        self._compress = False
        self._skip_compression = False
        self._callbacks: list[Callable[[], Any]] | None = None
        self._watch = watch
        self._ended = False
        self._lock = threading.Lock()

    # -- What is known of the call -------------------------------------------------------------------------------------

    def invocation_metadata(self) -> tuple[Metadatum, ...]:
        """The client's metadata, in its order."""
        return tuple(Metadatum(key, value) for key, value in self._call.metadata())

    def peer(self) -> str:
        """The client's address, as "ipv4:127.0.0.1:50051" or "unix:"."""
        return self._call.peer

    def auth_context(self) -> Mapping[str, Iterable[bytes]]:
        """What TLS says of the client's certificate, by gRPC's names; empty without TLS."""
        return self._call.auth()

    def peer_identity_key(self) -> str | None:
        """The key of `auth_context` that names the client; None if it has shown no certificate."""
        auth = self._call.auth()
        return next((key for key in _IDENTITY_KEYS if auth.get(key)), None)

    def peer_identities(self) -> Iterable[bytes] | None:
        """The client's names: alternative names of its certificate, or else its common name; None without one."""
        key = self.peer_identity_key()
        return None if key is None else self._call.auth()[key]

    def time_remaining(self) -> float | None:
        """Seconds until the client's deadline, >= 0; None: it has set none."""
        deadline = self._call.deadline
        return None if deadline is None else max(0.0, deadline - time.monotonic())

    def is_active(self) -> bool:
        """Whether the call goes on: neither ended nor cancelled."""
        return not (self._ended or self._call.cancelled)

    def cancelled(self) -> bool:
        """Whether the client has cancelled the call, or its deadline has passed."""
        return self._call.cancelled

    def done(self) -> bool:
        """Whether the call is over."""
        return not self.is_active()

    def add_callback(self, callback: Callable[[], Any]) -> bool:
        """Has ``callback()`` called once the call is over: ended, or cancelled while the handler still runs.

        It is called on the thread that ends the call, or the event loop's, and should be quick.

        Returns:
            False if it is over already: then ``callback`` is not called.
        """
        with self._lock:
            if not self.is_active():
                return False
            first = self._callbacks is None
            if self._callbacks is None:
                self._callbacks = []
            self._callbacks.append(callback)
        if first and self._watch is not None:
            self._watch.add(self._call, self)
            if self._ended:
                # Meanwhile, on another thread, which had nothing to remove yet.
                self._watch.remove(self._call)
        return True

    def add_done_callback(self, callback: Callable[[Any], Any]) -> None:
        """Has ``callback(context)`` called once the call is over; at once if it is already."""
        if not self.add_callback(lambda: callback(self)):
            callback(self)

    # -- What the answer will be ---------------------------------------------------------------------------------------

    def code(self) -> Any:
        """The status code as it was set; None: none was."""
        return self._code

    def set_code(self, code: Any) -> None:
        """Sets the status code: a member of ``grpc.StatusCode`` or an int.

        With another than OK the client gets no message, whatever the handler returns.

        Raises:
            TypeError: it is neither.
            ValueError: there is no such status.
        """
        code_number(code)
        self._code = code

    def details(self) -> str:
        """The status's text as it was set; "" if none was."""
        return self._details

    def set_details(self, details: str) -> None:
        self._details = text_of(details, "The details of a status")

    def trailing_metadata(self) -> Metadata:
        """The trailing metadata as they were set."""
        return self._trailing

    def set_trailing_metadata(self, trailing_metadata: Any) -> None:
        """Sets the metadata that follow the answer, also one that fails: pairs of key and value. The last call counts.

        Raises:
            TypeError, ValueError: they are not what gRPC allows.
        """
        self._trailing = check_metadata("trailing metadata", trailing_metadata)

    def send_initial_metadata(self, initial_metadata: Any) -> Awaitable[None]:
        """Sends the metadata that precede the answer; at once, and before the first message.

        Raises:
            TypeError, ValueError: they are not what gRPC allows, or it is too late for them.
        """
        metadata = check_metadata("initial metadata", initial_metadata)
        if not self._initial_allowed:
            raise ValueError("Initial metadata are sent once, before the first message: it is too late for them")
        self._initial_allowed = False
        self._call.send_initial(metadata, self._compress)
        return _DONE

    def set_compression(self, compression: Any) -> None:
        """Sets how the answer's messages are compressed: a member of ``grpc.Compression``, or its number.

        Gzip is, for clients that take it; Deflate is passed over, since a server may always leave out compression.

        Raises:
            TypeError, ValueError: there is no such compression.
            RuntimeError: initial metadata or a message has been sent already.
        """
        number = getattr(compression, "value", compression)
        if isinstance(number, bool) or not isinstance(number, int):
            raise TypeError(f"The compression should be a member of grpc.Compression, but actually {compression!r}")
        if number not in (_NO_COMPRESSION, _DEFLATE, _GZIP):
            raise ValueError(f"The compression should be a member of grpc.Compression, but actually {compression!r}")
        if not self._initial_allowed:
            raise RuntimeError("The compression is set before initial metadata and the first message are sent")
        self._compress = number == _GZIP and not self._call.plain

    def disable_next_message_compression(self) -> None:
        """Sends the next message as it is, whatever `set_compression` says."""
        self._skip_compression = True

    def abort(self, code: Any, details: str = "", trailing_metadata: Any = ()) -> NoReturn:
        """Ends the call with a status: raises what ends the handler, too.

        Args:
            code: a member of ``grpc.StatusCode`` or an int, other than OK.
            details: its text. Default "".
            trailing_metadata: in place of what was set. Default: none.

        Raises:
            Abort: always.
        """
        number = code_number(code)
        details = text_of(details, "The details of a status")
        if trailing_metadata:
            self.set_trailing_metadata(trailing_metadata)
        if number == OK:
            _log.error("handler %s of method %s aborted with status OK", self._handler.label, self._handler.path)
            number, details = UNKNOWN, ""
        self.aborted = Abort(number, details)
        raise self.aborted

    def abort_with_status(self, status: Any) -> NoReturn:
        """As `abort`, with the attributes ``code``, ``details`` and ``trailing_metadata`` of a ``grpc.Status``."""
        self.abort(status.code, status.details, status.trailing_metadata)

    def cancel(self) -> bool:
        """Ends the call at once: the client sees CANCELLED. The handler goes on, to no effect.

        Returns:
            False if it was over already.
        """
        if not self.is_active():
            return False
        self.end(CANCELLED, "cancelled by the server")
        return True

    # -- For the machinery ---------------------------------------------------------------------------------------------

    @property
    def fails(self) -> bool:
        """Whether a code other than OK was set, with which no message goes to the client, or the call aborted."""
        return self.aborted is not None or (self._code is not None and code_number(self._code) != OK)

    def send(self, message: bytes, wait: bool) -> bool:
        """`ServiceCall.write`, with compression as it was set."""
        if not self._compress:
            self._initial_allowed = False
            return self._call.write(message, wait)
        if self._initial_allowed:
            self._initial_allowed = False
            self._call.send_initial((), True)
        skip, self._skip_compression = self._skip_compression, False
        if not skip:
            packed = gzip.compress(message, _GZIP_LEVEL, mtime=0)
            if len(packed) < len(message):
                return self._call.write(packed, wait, True)
        return self._call.write(message, wait)

    def finish(self) -> None:
        """The handler has returned. Raises what it has aborted with, in spite of that."""
        if self.aborted is not None:
            raise self.aborted
        self.end(OK if self._code is None else code_number(self._code), self._details)

    def end(self, code: int, details: str) -> None:
        """Ends the call with a status and the trailing metadata that were set."""
        self._call.finish(code, details, self._trailing)
        self.over()

    def over(self) -> None:
        """The call is over, by its end or by being cancelled. Further times nothing happens."""
        with self._lock:
            self._ended = True
            callbacks, self._callbacks = self._callbacks, None
        if callbacks and self._watch is not None:
            self._watch.remove(self._call)
        for callback in callbacks or ():
            try:
                callback()
            except Exception:
                _log.exception("a callback of handler %s of method %s raised", self._handler.label, self._handler.path)


def end_of_stream() -> Any:
    """What ``await context.read()`` gives when the client has sent its last message: ``grpc.aio.EOF``, or None.

    None where nothing has imported grpc: then nobody can ask for its constant either.
    """
    grpc = sys.modules.get("grpc")
    return None if grpc is None else grpc.aio.EOF
