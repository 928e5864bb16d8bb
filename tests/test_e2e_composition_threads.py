"""Handlers on threads that wait for each other: more of them than there are threads, and without deadlines."""

from __future__ import annotations

import collections
import pathlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from answering_support import generated
from composition_support import Composed, composed

# Each way to call comes back to the other servable until `number` is 0.
TURNS = """
from concurrent.futures import ThreadPoolExecutor

other = register.get_servable("OTHER", method="kinds.Kinds/One")
stream = register.get_servable("OTHER", method="kinds.Kinds/Down")
helpers = ThreadPoolExecutor(1000)


def go_on(request):
    ask = Ask(text=request.text, number=request.number - 1)
    if request.number == 0:
        return "end"
    if request.text == "call":
        return other.call(ask).text
    if request.text == "stream":
        return [item.text for item in stream.stream(ask)][-1]
    if request.text == "loop":
        return asyncio.run(other.call_async(ask)).text
    # Who waits is not a handler's thread.
    assert request.text == "thread"
    return helpers.submit(contextvars.copy_context().run, other.call, ask).result().text


@register.grpc_service("kinds.Kinds")
class Turns:
    def One(self, request):
        return Answer(text="+" + go_on(request))

    def Down(self, request):
        yield Answer(text="first")
        yield Answer(text="+" + go_on(request))
"""


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory, generated: Any) -> Iterator[Composed]:
    """Two servables that call each other, with two handler threads each."""
    servables = {name: TURNS.replace("OTHER", other) for name, other in (("left", "right"), ("right", "left"))}
    start = dict.fromkeys(servables, "handler_threads=2")
    with composed(tmp_path_factory.mktemp("pair"), generated, servables, start=start) as server:
        yield server


def all_of(calls: int, call: Callable[[int], str]) -> collections.Counter[str]:
    with ThreadPoolExecutor(calls) as executor:
        return collections.Counter(executor.map(call, range(calls)))


@pytest.mark.parametrize("way", ["call", "stream", "loop", "thread"])
@pytest.mark.parametrize("turns", [1, 2, 5])
def test_more_calls_than_threads_wait_for_each_other(pair: Composed, way: str, turns: int) -> None:
    # From both sides: each holds what the other one needs. The timeout is where a deadlock would end, and fail.
    ends = all_of(24, lambda number: pair.one(("left", "right")[number % 2], way, turns, timeout=100))
    assert ends == {"+" * (turns + 1) + "end": 24}


def test_there_need_be_no_deadline(pair: Composed) -> None:
    calls = [
        pair.stub.One.future(pair.pb2.Ask(text="call", number=3), metadata=[("application", "left")]) for _ in range(24)
    ]
    # Only this test's patience ends.
    assert {call.result(timeout=100).text for call in calls} == {"++++end"}


@pytest.mark.parametrize("way", ["call", "thread"])
def test_cycles_are_refused_by_their_depth_however_many(pair: Composed, way: str) -> None:
    def endless(number: int) -> str:
        with pytest.raises(Exception, match="17 deep, at most 16 is possible") as error:
            pair.one(("left", "right")[number % 2], way, 10**6, timeout=100)
        return type(error.value).__name__

    assert sum(all_of(10, endless).values()) == 10
    assert pair.one("left", "call", 1) == "++end"


ALONE = """
lock, inside, most = threading.Lock(), 0, 0


@register.grpc_method("One", service="kinds.Kinds")
def one(request):
    global inside, most
    with lock:
        inside += 1
        most = max(most, inside)
    time.sleep(0.002)
    with lock:
        inside -= 1
    return Answer(text=str(most))
"""

CALLER = """
leaf = register.get_servable("leaf", method="kinds.Kinds/One")


@register.grpc_method("One", service="kinds.Kinds")
def one(request):
    return Answer(text=leaf.call(request).text)
"""


def test_inner_calls_alone_get_no_more_threads(tmp_path: pathlib.Path, generated: Any) -> None:
    servables = {"leaf": ALONE, "caller": CALLER}
    with composed(tmp_path, generated, servables, start={"leaf": "handler_threads=1"}) as server:
        ends = all_of(24, lambda number: server.one(("leaf", "caller")[number % 2]))
        assert ends == {"1": 24}


__all__ = ["generated"]
