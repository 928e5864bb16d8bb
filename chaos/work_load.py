"""What a client process does with users' services and streams."""

from __future__ import annotations

import asyncio
import random
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator
from typing import Any

import grpc
import grpc.aio
import numpy as np

from chaos.ledger import Ended, LedgerWriter, Sent
from chaos.outcomes import cancel_later, cancelled, failed, right, told, wrong
from chaos.work import NOTE, STREAMS, TELL, UNARY, Method, WorkCall, messages
from mindserve.client import AsyncClient, Client

# Messages of a client's stream that may wait for an answer, in those that don't go step by step.
_AHEAD = 16
# Seconds for which a client sometimes doesn't read.
_LATE = 0.05
_Run = Callable[[WorkCall, float | None, float | None], Awaitable[Ended]]


class WorkLoad:
    """Calls of users' services, over connections of their own.

    Args:
        channel: the connection.
        plain: another one, for the calls that threads make.
        ledger: for the calls.
        numbers: of them.
        choice: what is chosen by chance.
        transport: name of it.
        pause: waits for about so many seconds, and says whether to go on.
        client: for a servable's method.
        async_client: likewise.
    """

    def __init__(
        self,
        channel: grpc.aio.Channel,
        plain: grpc.Channel,
        ledger: LedgerWriter,
        numbers: Iterator[int],
        choice: random.Random,
        transport: str,
        pause: Callable[[float], Awaitable[bool]],
        client: Callable[[str, str], Client],
        async_client: Callable[[str, str], AsyncClient],
    ) -> None:
        self._ledger = ledger
        self._numbers = numbers
        self._random = choice
        self._transport = transport
        self._pause = pause
        self._client = client
        self._async_client = async_client
        self._stubs = {
            method: _stub(plain if method.client_streams else channel, method) for method in (*UNARY, *STREAMS)
        }

    def patterns(self) -> list[Awaitable[None]]:
        """All of them, until `pause` says so."""
        return [
            self._one_by_one(), self._bursts(), self._streams(), self._infer_streams(), self._short_deadlines(),
            self._cancellations(),
        ]  # fmt: skip

    # -- patterns ------------------------------------------------------------------------------------------------------

    async def _one_by_one(self) -> None:
        while await self._pause(0.1):
            await self._send(self._unary(), "handler, one by one", self._run)

    async def _bursts(self) -> None:
        while await self._pause(2.0):
            # Of one method more than it has threads, so that some have to wait when their worker dies.
            method = NOTE if self._random.random() < 0.5 else None
            calls = [self._unary(method) for _ in range(self._random.randint(5, 40))]
            await asyncio.gather(*(self._send(call, "handler, burst", self._run) for call in calls))

    async def _streams(self) -> None:
        while await self._pause(0.15):
            await self._send(self._stream(), "stream", self._run)

    async def _infer_streams(self) -> None:
        while await self._pause(0.2):
            run = self._random.choice((self._infer_stream, self._infer_stream_async))
            await self._send(self._told(), "infer_stream", run)

    async def _short_deadlines(self) -> None:
        while await self._pause(0.2):
            timeout = self._random.uniform(0.001, 0.02) if self._random.random() < 0.8 else self._random.uniform(0.2, 2)
            await self._send(*self._any("short deadline"), timeout=timeout)

    async def _cancellations(self) -> None:
        while await self._pause(0.2):
            after = self._random.uniform(0, 0.1)
            await self._send(*self._any("cancelled"), cancel_after=after)

    def _any(self, what: str) -> tuple[WorkCall, str, _Run]:
        chance = self._random.random()
        if chance < 0.4:
            return self._unary(), f"handler, {what}", self._run
        if chance < 0.8:
            return self._stream(), f"stream, {what}", self._run
        run = self._random.choice((self._infer_stream, self._infer_stream_async))
        return self._told(), f"infer_stream, {what}", run

    # -- calls ---------------------------------------------------------------------------------------------------------

    def _unary(self, method: Method | None = None) -> WorkCall:
        return WorkCall(next(self._numbers), method or self._random.choice(UNARY), data=self._data())

    def _stream(self) -> WorkCall:
        method = self._random.choice(STREAMS)
        if self._random.random() < 0.1:
            # More than the server may have on its way at one time.
            return WorkCall(next(self._numbers), method, self._random.randint(50, 200), self._random.randbytes(8192))
        return WorkCall(next(self._numbers), method, self._random.randint(1, 50), self._data(longest=10_000))

    def _told(self) -> WorkCall:
        return WorkCall(next(self._numbers), TELL, self._random.randint(1, 50))

    def _data(self, longest: int = 100_000) -> bytes:
        most = longest if self._random.random() < 0.1 else 100
        return self._random.randbytes(self._random.randint(0, most))

    # -- how -----------------------------------------------------------------------------------------------------------

    async def _send(
        self, call: WorkCall, pattern: str, run: _Run, timeout: float | None = None, cancel_after: float | None = None
    ) -> None:
        method = call.method
        now = time.monotonic()
        self._ledger.sent(
            Sent(call.number, now, self._transport, method.servable, method.name, pattern, call.answers, timeout)
        )
        self._ledger.ended(call.number, await run(call, timeout, cancel_after))

    async def _run(self, call: WorkCall, timeout: float | None, cancel_after: float | None) -> Ended:
        answers = _Answers(call)
        metadata = (("request_id", str(call.number)),)
        if call.method.client_streams:
            return await self._run_on_thread(call, answers, metadata, timeout, cancel_after)
        pending = self._stubs[call.method](call.ask(0), timeout=timeout, metadata=metadata)
        with cancel_later(self._ledger, call.number, cancel_after, pending.cancel):
            try:
                async for answer in _answers(pending, call):
                    if ended := answers.take(answer):
                        pending.cancel()
                        return ended
                    if self._reads_late():
                        await asyncio.sleep(_LATE)
                return answers.end(await pending.trailing_metadata())
            except grpc.RpcError as error:
                return failed(error, answers.got)
            except asyncio.CancelledError:
                return cancelled(answers.got)

    async def _run_on_thread(
        self,
        call: WorkCall,
        answers: _Answers,
        metadata: tuple[tuple[str, str], ...],
        timeout: float | None,
        cancel_after: float | None,
    ) -> Ended:
        """Where the client streams: asynchronous calls of grpcio say INTERNAL if one ends while its client writes."""
        asks = _Asks(call, self._random.choice((1, _AHEAD)))
        stub = self._stubs[call.method]
        start = stub if call.method.server_streams else stub.future
        pending = start(iter(asks), timeout=timeout, metadata=metadata)

        def read() -> Ended:
            try:
                for answer in pending if call.method.server_streams else [pending.result()]:
                    if ended := answers.take(answer):
                        pending.cancel()
                        return ended
                    asks.answered()
                    if self._reads_late():
                        time.sleep(_LATE)
                return answers.end(pending.trailing_metadata())
            except grpc.FutureCancelledError:
                return cancelled(answers.got)
            except grpc.RpcError as error:
                return failed(error, answers.got)
            finally:
                asks.end()

        with cancel_later(self._ledger, call.number, cancel_after, pending.cancel):
            return await asyncio.to_thread(read)

    def _reads_late(self) -> bool:
        return self._random.random() < 0.01

    async def _infer_stream(self, call: WorkCall, timeout: float | None, cancel_after: float | None) -> Ended:
        stream = self._client("work", "tell").infer_stream(_instance(call), timeout)

        def run() -> Ended:
            answers = _Answers(call)
            for item in stream:
                if ended := answers.take_item(item):
                    stream.cancel()
                    return ended
            return answers.end()

        with cancel_later(self._ledger, call.number, cancel_after, stream.cancel):
            return await asyncio.to_thread(run)

    async def _infer_stream_async(self, call: WorkCall, timeout: float | None, cancel_after: float | None) -> Ended:
        stream = self._async_client("work", "tell").infer_stream(_instance(call), timeout)
        answers = _Answers(call)
        with cancel_later(self._ledger, call.number, cancel_after, stream.cancel):
            async for item in stream:
                if ended := answers.take_item(item):
                    stream.cancel()
                    return ended
        return answers.end()


class _Answers:
    """What came back, one by one."""

    def __init__(self, call: WorkCall) -> None:
        self._call = call
        self.got = 0

    def take(self, answer: Any) -> Ended | None:
        """The end, if it is wrong."""
        if complaint := self._call.complaint(self.got, answer.number, answer.place, answer.data):
            return wrong(complaint, self.got)
        self.got += 1
        return None

    def take_item(self, item: dict[str, Any]) -> Ended | None:
        """One of `infer_stream`: the end, if that was it."""
        if "error" in item:
            return told(item["error"], self.got) or wrong(item["error"], self.got)
        if item.keys() != {"number", "place"}:
            return wrong(f"an item of {sorted(item)}", self.got)
        if complaint := self._call.complaint(self.got, int(item["number"]), int(item["place"]), b""):
            return wrong(complaint, self.got)
        self.got += 1
        return None

    def end(self, trailing: Iterable[tuple[str, str | bytes]] | None = None) -> Ended:
        """The call has ended well; `infer_stream` doesn't give its trailing metadata."""
        if self.got != self._call.answers:
            return wrong(f"{self.got} answers, expected {self._call.answers}", self.got)
        if trailing is not None and (given := dict(trailing).get("request_id")) != str(self._call.number):
            return wrong(f"the request's id came back as {given!r}", self.got)
        return right(self.got)


class _Asks:
    """The client's stream: so many messages before the first answer, then one for each, or all if one answers all."""

    def __init__(self, call: WorkCall, ahead: int) -> None:
        self._call = call
        self._turns = threading.Semaphore(ahead if call.method.server_streams else call.asks)
        self._over = False

    def __iter__(self) -> Iterator[Any]:
        for place in range(self._call.asks):
            self._turns.acquire()
            if self._over:
                return
            yield self._call.ask(place)

    def answered(self) -> None:
        self._turns.release()

    def end(self) -> None:
        """Of the call: nothing more is to be sent."""
        self._over = True
        self._turns.release()


def _stub(channel: grpc.Channel | grpc.aio.Channel, method: Method) -> Any:
    sides = ["unary", "stream"]
    make = getattr(channel, f"{sides[method.client_streams]}_{sides[method.server_streams]}")
    return make(method.path, messages().Ask.SerializeToString, messages().Answer.FromString)


def _instance(call: WorkCall) -> dict[str, Any]:
    return {"number": np.array(call.number, np.int64), "count": np.array(call.count, np.int64)}


async def _answers(pending: Any, call: WorkCall) -> AsyncIterator[Any]:
    """The answers of a call of one message."""
    if not call.method.server_streams:
        yield await pending
        return
    async for answer in pending:
        yield answer
