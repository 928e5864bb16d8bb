"""Calls into the gateway, awaited on the REST server's event loop."""

from __future__ import annotations

import asyncio
import collections
import dataclasses
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import TYPE_CHECKING

from mindserve import native

if TYPE_CHECKING:
    from mindserve._native import Gateway

Metadata = Sequence[tuple[str, str | bytes]]

OK = 0
CANCELLED = 1

_NO_METADATA: Metadata = ()


@dataclasses.dataclass(frozen=True)
class Caller:
    """For whom a call is made.

    Attributes:
        peer: as gRPC writes addresses, "ipv4:127.0.0.1:50123".
        auth: what authenticated it, as grpcio's ``auth_context`` has it.
        client: the number of its connection, by which clients are treated equally.
    """

    peer: str
    auth: Mapping[str, Sequence[bytes]]
    client: int


@dataclasses.dataclass(frozen=True)
class Call:
    """What is asked.

    Attributes:
        path: "/package.Service/Method".
        metadata: of the client.
        messages: all that it sends.
        timeout: seconds; None: the server's ``default_deadline``.
        caller: who asks.
    """

    path: str
    metadata: Metadata
    messages: Sequence[bytes]
    timeout: float | None
    caller: Caller


@dataclasses.dataclass
class Ended:
    """How a call ended.

    Attributes:
        code: a gRPC status code; 0: well.
        details: its text.
        initial: metadata.
        trailing: metadata.
        message: the answer of a unary call; of one that ended well there is one.
    """

    code: int
    details: str
    initial: Metadata = _NO_METADATA
    trailing: Metadata = _NO_METADATA
    message: bytes = b""

    def trailer(self, key: str) -> str:
        """The value of a key of the trailing metadata; empty without it."""
        return next((str(value) for name, value in self.trailing if name == key), "")


class _Unary:
    __slots__ = ("done", "initial", "message")

    def __init__(self, done: asyncio.Future[Ended]) -> None:
        self.done = done
        self.initial: Metadata = _NO_METADATA
        self.message = b""

    def on_initial(self, metadata: Metadata) -> None:
        self.initial = metadata

    def on_message(self, message: bytes) -> None:
        self.message = message

    def on_end(self, ended: Ended) -> None:
        ended.initial, ended.message = self.initial, self.message
        if not self.done.done():
            self.done.set_result(ended)


class Stream:
    """A call whose answers come one by one: iterate over it, then look at `ended`. Cancel it if that is given up.

    Attributes:
        initial: metadata, once the first message or the end is there.
        ended: how it ended, once it has.
    """

    def __init__(self, calls: Calls) -> None:
        self._calls = calls
        self._number = 0
        self._messages: collections.deque[bytes] = collections.deque()
        self._changed = asyncio.Event()
        self.initial: Metadata = _NO_METADATA
        self.ended: Ended | None = None

    def begin(self, number: int) -> None:
        self._number = number

    def on_initial(self, metadata: Metadata) -> None:
        self.initial = metadata

    def on_message(self, message: bytes) -> None:
        self._messages.append(message)
        self._changed.set()

    def on_end(self, ended: Ended) -> None:
        ended.initial = self.initial
        self.ended = ended
        self._changed.set()

    @property
    def pending(self) -> bool:
        """Whether there are messages that `batches` has not given yet."""
        return bool(self._messages)

    async def begun(self) -> None:
        """Waits until there is a message, or the end."""
        while not self._messages and self.ended is None:
            self._changed.clear()
            await self._changed.wait()

    async def batches(self) -> AsyncIterator[list[bytes]]:
        """The messages, as many at a time as are there; the worker is held back while they are not asked for.

        The lists are the caller's, who may empty them.
        """
        while True:
            await self.begun()
            if not self._messages:
                return
            batch = list(self._messages)
            self._messages.clear()
            count = len(batch)
            yield batch
            if self.ended is None:
                self._calls.consumed(self._number, count)

    def cancel(self) -> None:
        """Gives it up; no-op once it has ended."""
        if self.ended is None:
            self._calls.cancel(self._number)


class Calls:
    """All calls that are made from one event loop. Only to be used there.

    Args:
        gateway: whom they are for; it is not kept.
    """

    def __init__(self, gateway: Gateway) -> None:
        self._loop = asyncio.get_running_loop()
        self._native = native.load().DirectCalls(gateway)
        self._open: dict[int, _Unary | Stream] = {}
        self._loop.add_reader(self._native.fileno(), self._on_events)

    def close(self) -> None:
        """Cancels what is open; nothing may be called after it."""
        self._loop.remove_reader(self._native.fileno())
        del self._native

    async def unary(self, call: Call) -> Ended:
        """Makes a call that has one answer. Cancelled if this is."""
        done: asyncio.Future[Ended] = self._loop.create_future()
        number = self._start(call, _Unary(done))
        try:
            return await done
        except asyncio.CancelledError:
            self.cancel(number)
            raise

    def stream(self, call: Call) -> Stream:
        """Begins a call that has any number of answers."""
        stream = Stream(self)
        stream.begin(self._start(call, stream))
        return stream

    def consumed(self, number: int, count: int) -> None:
        self._native.consumed(number, count)

    def cancel(self, number: int) -> None:
        if self._open.pop(number, None) is not None:
            self._native.cancel(number)

    def _start(self, call: Call, receiver: _Unary | Stream) -> int:
        caller = call.caller
        number: int = self._native.start(
            call.path, call.metadata, call.messages, call.timeout, caller.peer, caller.auth, caller.client
        )
        self._open[number] = receiver
        return number

    def _on_events(self) -> None:
        for event in self._native.take():
            receiver = self._open.get(event[0])
            if receiver is None:  # given up
                continue
            if event[1] == "message":
                receiver.on_message(event[2])
            elif event[1] == "initial":
                receiver.on_initial(event[2])
            else:
                del self._open[event[0]]
                receiver.on_end(Ended(event[2], event[3], trailing=event[4]))
