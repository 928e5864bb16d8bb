"""Ten times too much: what the server can do it goes on doing, and says no to the rest at once."""

from __future__ import annotations

import asyncio
import pathlib
import time

import grpc
import pytest

from e2e_support import PREAMBLE, Served, request, serving, tensor
from test_e2e_stats import LISTEN, stats_of

CONFIG = (
    PREAMBLE
    + """
import time


@method()
def work(x):
    time.sleep(0.005)
    return x
"""
)
STAGE_S = 0.005
OFFERED_S = 2.0
PREDICT = "/mindspore.serving.proto.MSService/Predict"


Outcome = tuple[list[float], dict[grpc.StatusCode, list[float]]]


async def offer(address: str, rate: float, deadline: float | None) -> Outcome:
    """Calls at this rate, however many are out: how long those took that were answered, and those that failed."""
    body = request("busy", "work", {"x": tensor(1)}).SerializeToString()
    answered: list[float] = []
    failed: dict[grpc.StatusCode, list[float]] = {}
    async with grpc.aio.insecure_channel(address) as channel:
        predict = channel.unary_unary(PREDICT)

        async def call() -> None:
            begin = time.monotonic()
            try:
                await predict(body, timeout=deadline)
            except grpc.aio.AioRpcError as error:
                failed.setdefault(error.code(), []).append(time.monotonic() - begin)
            else:
                answered.append(time.monotonic() - begin)

        tasks: list[asyncio.Task[None]] = []
        begin = time.monotonic()
        while (elapsed := time.monotonic() - begin) < OFFERED_S:
            while len(tasks) < elapsed * rate:
                tasks.append(asyncio.create_task(call()))
            await asyncio.sleep(0.002)
        await asyncio.gather(*tasks)
    return answered, failed


def resident_bytes(served: Served) -> int:
    pages = [int(pathlib.Path(f"/proc/{pid}/statm").read_text().split()[1]) for pid in all_processes(served)]
    return sum(pages) * 4096


def all_processes(served: Served) -> list[int]:
    return [served.process.pid, *served.process.workers()]


@pytest.mark.parametrize(
    ("limit", "deadline", "status"),
    [
        (20, None, grpc.StatusCode.RESOURCE_EXHAUSTED),
        (100_000, 0.5, grpc.StatusCode.DEADLINE_EXCEEDED),
    ],
)
def test_ten_times_too_much(
    tmp_path: pathlib.Path, limit: int, deadline: float | None, status: grpc.StatusCode
) -> None:
    listen = f"'127.0.0.1:0', limits=server.Limits(max_enqueued_requests={limit})"
    with serving(tmp_path, "busy", CONFIG, listen=listen, after=LISTEN) as served:
        for _ in range(20):  # so that it knows how long a run takes
            served.ask("work", {"x": 1})
        asyncio.run(offer(served.addresses[0], 5 / STAGE_S, deadline))
        before = resident_bytes(served)
        answered, failed = asyncio.run(offer(served.addresses[0], 10 / STAGE_S, deadline))
        # A machine that has other work does less than it could: half is far above what a collapse leaves.
        assert len(answered) > 0.5 * OFFERED_S / STAGE_S
        assert set(failed) == {status}
        assert len(failed[status]) > len(answered)
        if limit < 1000:
            refused = sorted(failed[status])
            assert refused[len(refused) // 2] < sorted(answered)[len(answered) // 2], "a no takes no turn in the queue"
        assert resident_bytes(served) - before < 32 * 2**20
        assert stats_of(served.process)["in_flight"] == 0
