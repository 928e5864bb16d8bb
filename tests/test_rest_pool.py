"""Threads of the REST server."""

from __future__ import annotations

import asyncio
import threading
import weakref
from collections.abc import Iterator

import pytest

from mindserve.rest.pool import Pool


class Body:
    """What a call works on."""


@pytest.fixture
def pool() -> Iterator[Pool]:
    pool = Pool(1)
    yield pool
    pool.close()


def test_calls_are_made_in_their_order(pool: Pool) -> None:
    async def use() -> list[int]:
        called: list[int] = []
        await asyncio.gather(*(pool.call(lambda each=each: called.append(each)) for each in range(20)))  # type: ignore[misc]
        return called

    assert asyncio.run(use()) == list(range(20))


def test_what_nobody_waits_for_any_more_is_let_go_at_once(pool: Pool) -> None:
    """And not when its turn would come."""
    release = threading.Event()
    called: list[Body] = []

    async def use() -> None:
        before = asyncio.create_task(pool.call(lambda: release.wait(60)))
        await asyncio.sleep(0)
        bodies = [Body() for _ in range(3)]
        known = [weakref.ref(body) for body in bodies]
        waiting = [asyncio.create_task(pool.call(lambda body=body: called.append(body))) for body in bodies]  # type: ignore[misc]
        await asyncio.sleep(0)
        del bodies
        for each in waiting[:2]:
            each.cancel()
        await asyncio.gather(*waiting[:2], return_exceptions=True)
        left = waiting.pop()
        waiting.clear()
        del each
        gone = [body() is None for body in known]
        release.set()
        assert gone == [True, True, False]
        await before
        await left
        assert called == [known[2]()]

    asyncio.run(use())
