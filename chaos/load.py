"""A client process: ``python -m chaos.load NAME FIRST SEED TRANSPORT ADDRESS [CERTIFICATES]``.

Makes requests of every sort by one transport, and notes each in the ledger ``NAME.ledger``, until its input ends; then
waits for what is under way, and ends. It may be killed at any time.
"""

from __future__ import annotations

import asyncio
import itertools
import random
import sys
import time
from collections.abc import Awaitable, Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import grpc.aio

from chaos.calls import EVERYDAY, Call, add, half, look_up, sleepy
from chaos.certificates import CertificateFiles
from chaos.ledger import Ended, LedgerWriter, Sent
from chaos.outcomes import cancel_later, cancelled, failed, right, told, wrong
from chaos.work_load import WorkLoad
from mindserve.client import AsyncClient, Client, SSLConfig
from mindserve.client.decoding import Results, decode_reply
from mindserve.client.encoding import encode_request, encode_spec
from mindserve.client.endpoint import Endpoint
from mindserve.proto import PREDICT

# Seconds for what is under way when no more is to be sent; what then has no end counts as lost.
PATIENCE = 40.0
# More of the slow ones than MAX_ENQUEUED_REQUESTS, so that some are refused.
FLOOD = 250
_Way = Callable[[Call, float | None, float | None], Awaitable[Ended]]


class Load:
    """The requests of one process.

    Args:
        ledger: for them.
        first: the first request's number.
        seed: of what is chosen by chance.
        transport: name of it.
        address: the server's.
        certificates: for TLS; None: without.
    """

    def __init__(
        self,
        ledger: LedgerWriter,
        first: int,
        seed: int,
        transport: str,
        address: str,
        certificates: CertificateFiles | None,
    ) -> None:
        self._ledger = ledger
        self._numbers = itertools.count(first)
        self._random = random.Random(seed)
        self._transport = transport
        self._address = address
        self._certificates = certificates
        self._stop = asyncio.Event()
        self._clients: dict[tuple[str, str], Client] = {}
        self._async_clients: dict[tuple[str, str], AsyncClient] = {}

    def stop(self) -> None:
        """Begin nothing more."""
        self._stop.set()

    async def run(self) -> None:
        """Until `stop`."""
        asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(32))
        plain = self._plain_channel()
        async with self._channel() as channel:
            self._raw_way = _raw_way(channel, self._ledger)
            patterns = [
                self._one_by_one(), self._one_by_one(), self._bursts(), self._many_instances(), self._bad_instances(),
                self._large_tensors(), self._short_deadlines(), self._cancellations(), self._new_connections(),
            ]  # fmt: skip
            work = WorkLoad(
                channel,
                plain,
                self._ledger,
                self._numbers,
                self._random,
                self._transport,
                self._pause,
                self._client,
                self._async_client,
            )
            tasks = [asyncio.ensure_future(pattern) for pattern in (*patterns, *work.patterns())]
            done, pending = await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
            if pending:
                self.stop()
            for task in done:
                task.result()
            await asyncio.wait_for(asyncio.gather(*pending), PATIENCE)
        plain.close()
        for client in self._clients.values():
            client.close()
        for async_client in self._async_clients.values():
            await async_client.close()

    # -- patterns ------------------------------------------------------------------------------------------------------

    async def _one_by_one(self) -> None:
        while await self._pause(0.08):
            await self._send(self._everyday(1), "one by one", self._any_way())

    async def _bursts(self) -> None:
        while await self._pause(1.0):
            ways = [self._raw_way, self._by_async_client]
            if self._random.random() < 0.1:
                calls, pattern = [sleepy(next(self._numbers)) for _ in range(FLOOD)], "flood"
            else:
                calls, pattern = [self._everyday(1) for _ in range(self._random.randint(5, 40))], "burst"
            await asyncio.gather(*(self._send(call, pattern, self._random.choice(ways)) for call in calls))

    async def _many_instances(self) -> None:
        while await self._pause(0.5):
            await self._send(self._everyday(self._random.randint(2, 20)), "many instances", self._any_way())
            call = self._random.choice((add, half))(next(self._numbers), self._random.randint(50, 300))
            await self._send(call, "many instances", self._any_way())

    async def _bad_instances(self) -> None:
        while await self._pause(0.3):
            count = self._random.randint(1, 20)
            bad = self._random.choice((None, self._random.randrange(count)))
            await self._send(look_up(next(self._numbers), count, bad), "bad instance", self._any_way())

    async def _large_tensors(self) -> None:
        while await self._pause(0.6):
            elements = self._random.randint(1 << 16, 5 << 16)  # of 8 bytes, twice: 1 to 5 MB
            call = self._random.choice((add, half))(next(self._numbers), 1, elements)
            await self._send(call, "large tensor", self._any_way())

    async def _short_deadlines(self) -> None:
        while await self._pause(0.1):
            # Most are too short. The others would show a deadline that is said to have passed and has not.
            timeout = self._random.uniform(0.001, 0.02) if self._random.random() < 0.8 else self._random.uniform(0.2, 2)
            await self._send(self._everyday(1), "short deadline", self._any_way(), timeout=timeout)

    async def _cancellations(self) -> None:
        while await self._pause(0.1):
            after = self._random.uniform(0, 0.02)
            await self._send(self._everyday(1), "cancelled", self._any_way(), cancel_after=after)

    async def _new_connections(self) -> None:
        while await self._pause(0.4):
            async with self._channel() as channel:
                way = _raw_way(channel, self._ledger)
                await asyncio.gather(*(self._send(self._everyday(1), "new connection", way) for _ in range(4)))

    # -- how -----------------------------------------------------------------------------------------------------------

    async def _send(
        self,
        call: Call,
        pattern: str,
        way: _Way,
        timeout: float | None = None,
        cancel_after: float | None = None,
    ) -> None:
        self._ledger.sent(
            Sent(
                call.number,
                time.monotonic(),
                self._transport,
                call.servable,
                call.method,
                pattern,
                len(call.instances),
                timeout,
            )
        )
        self._ledger.ended(call.number, await way(call, timeout, cancel_after))

    def _any_way(self) -> _Way:
        return self._random.choice((self._raw_way, self._by_async_client, self._by_client))

    async def _by_client(self, call: Call, timeout: float | None, cancel_after: float | None) -> Ended:
        pending = self._client(call.servable, call.method).infer_async(call.instances, timeout)
        with cancel_later(self._ledger, call.number, cancel_after, pending.cancel):
            return _ended(call, await asyncio.to_thread(pending.result))

    async def _by_async_client(self, call: Call, timeout: float | None, cancel_after: float | None) -> Ended:
        client = self._async_client(call.servable, call.method)
        task = asyncio.create_task(client.infer(call.instances, timeout))
        with cancel_later(self._ledger, call.number, cancel_after, task.cancel):
            try:
                return _ended(call, await task)
            except asyncio.CancelledError:
                return cancelled()

    def _client(self, servable: str, method: str) -> Client:
        key = (servable, method)
        if key not in self._clients:
            self._clients[key] = Client(self._address, *key, ssl_config=self._ssl_config())
        return self._clients[key]

    def _async_client(self, servable: str, method: str) -> AsyncClient:
        key = (servable, method)
        if key not in self._async_clients:
            self._async_clients[key] = AsyncClient(self._address, *key, ssl_config=self._ssl_config())
        return self._async_clients[key]

    def _channel(self) -> grpc.aio.Channel:
        """Its own connection, made with the certificates of this moment."""
        options, credentials = self._terms()
        if credentials is None:
            return grpc.aio.insecure_channel(self._address, options)
        return grpc.aio.secure_channel(self._address, credentials, options)

    def _plain_channel(self) -> grpc.Channel:
        """The same for threads."""
        options, credentials = self._terms()
        if credentials is None:
            return grpc.insecure_channel(self._address, options)
        return grpc.secure_channel(self._address, credentials, options)

    def _terms(self) -> tuple[list[tuple[str, Any]], grpc.ChannelCredentials | None]:
        endpoint = Endpoint(self._address, "any", "any", 0, self._ssl_config())
        return [*endpoint.options(), ("grpc.use_local_subchannel_pool", 1)], endpoint.credentials()

    def _ssl_config(self) -> SSLConfig | None:
        if self._certificates is None:
            return None
        own = str(self._certificates.client("client"))
        return SSLConfig(own, own, str(self._certificates.server_authority), "localhost")

    def _everyday(self, count: int) -> Call:
        return EVERYDAY[self._random.choice(list(EVERYDAY))](next(self._numbers), count)

    async def _pause(self, mean: float) -> bool:
        """Waits; whether to go on after that."""
        try:
            await asyncio.wait_for(self._stop.wait(), self._random.uniform(0, 2 * mean))
        except asyncio.TimeoutError:
            return True
        return False


def _raw_way(channel: grpc.aio.Channel, ledger: LedgerWriter) -> _Way:
    predict = channel.unary_unary(PREDICT, bytes, bytes)

    async def way(call: Call, timeout: float | None, cancel_after: float | None) -> Ended:
        request = encode_request(encode_spec(call.servable, call.method, 0), call.instances)
        pending = predict(request, timeout=timeout)
        with cancel_later(ledger, call.number, cancel_after, pending.cancel):
            try:
                return _ended(call, decode_reply(await pending, len(call.instances)))
            except grpc.RpcError as error:
                return failed(error)
            except asyncio.CancelledError:
                return cancelled()

    return way


def _ended(call: Call, results: Results) -> Ended:
    if isinstance(results, dict):
        if ended := told(results["error"]):
            return ended
        if len(call.instances) != 1:
            return wrong(results["error"])
        results = [results]
    complaint = call.complaint(results)
    return wrong(complaint) if complaint else right()


async def _run_until_input_ends(load: Load) -> None:
    reader = asyncio.StreamReader()
    loop = asyncio.get_running_loop()
    transport, _ = await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)

    async def stop() -> None:
        await reader.read()
        load.stop()

    stopping: Coroutine[Any, Any, None] = stop()
    task = asyncio.create_task(stopping)
    await load.run()
    transport.close()
    await task


def main() -> None:
    """See the module's text."""
    name, first, seed, transport, address, *certificates = sys.argv[1:]
    files = CertificateFiles(Path(certificates[0])) if certificates else None
    with LedgerWriter(Path(f"{name}.ledger")) as ledger:
        load = Load(ledger, int(first), int(seed), transport, address, files)
        asyncio.run(_run_until_input_ends(load))


if __name__ == "__main__":
    main()
