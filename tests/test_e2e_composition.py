"""Servables that call servables: who may call what, and how."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from answering_support import generated as generated
from composition_support import Composed, composed

INNER = """
@predict
def double(x):
    return 2 * x


@predict
def fail(x):
    raise ValueError("as asked")


@register.grpc_service("kinds.Kinds")
class Inner:
    def One(self, request):
        if request.text == "fail":
            raise ValueError("as asked")
        return Answer(text=request.text.upper(), number=2 * request.number)

    async def Down(self, request):
        for number in range(request.number):
            yield Answer(number=number)

    def Up(self, requests):
        return Answer(number=sum(request.number for request in requests))

    async def Both(self, requests):
        async for request in requests:
            yield Answer(number=2 * request.number)
"""

# What handlers and stage functions do, by name: in a plain function, and in a coroutine.
CALLS = """
double = register.get_servable("inner", method="double")
one = register.get_servable("inner", method="kinds.Kinds/One")
down = register.get_servable("inner", method="kinds.Kinds/Down")
up = register.get_servable("inner", method="/kinds.Kinds/Up")
both = register.get_servable("inner", method="kinds.Kinds/Both")


def asks(count):
    for number in range(count):
        yield Ask(number=number)


async def asks_later(count):
    for ask in asks(count):
        yield ask


PLAIN = {
    "keywords": lambda n: double.call(x=n)["y"].item(),
    "dict": lambda n: double.call({"x": n})["y"].item(),
    "many": lambda n: [result["y"].item() for result in double.call([{"x": k} for k in range(n)])],
    "some": lambda n: double.call([{"x": n}, {"z": n}])[1]["error"],
    "message": lambda n: one.call(Ask(text="abc", number=n)).number,
    "up": lambda n: up.call(asks(n)).number,
    "down": lambda n: [answer.number for answer in down.stream(Ask(number=n))],
    "both": lambda n: [answer.number for answer in both.stream(asks(n))],
}


async def gather(n):
    answers = await asyncio.gather(*(one.call_async(Ask(number=k)) for k in range(n)), double.call_async(x=n))
    return [answer.number for answer in answers[:-1]] + [answers[-1]["y"].item()]


async def keywords(n):
    return (await double.call_async(x=n))["y"].item()


async def many(n):
    return [result["y"].item() for result in await double.call_async([{"x": k} for k in range(n)])]


async def message(n):
    return (await one.call_async(Ask(text="abc", number=n))).number


async def up_later(n):
    return (await up.call_async(asks_later(n))).number + (await up.call_async(asks(n))).number


async def down_later(n):
    return [answer.number async for answer in down.stream_async(Ask(number=n))]


async def both_later(n):
    return [answer.number async for answer in both.stream_async(asks_later(n))]


LATER = {
    "gather": gather, "keywords": keywords, "many": many, "message": message,
    "up": up_later, "down": down_later, "both": both_later,
}
"""

PLAIN = (
    CALLS
    + """
@predict
def stage(name, n):
    return json.dumps(PLAIN[name](n.item()))


@predict(name="batch", inputs=["name", "n"], batch_size=8)
def batch(instances):
    for name, n in instances:
        yield json.dumps(PLAIN[name](n.item()))


@predict
def own_loop(name, n):
    return json.dumps(asyncio.run(LATER[name](n.item())))


@register.grpc_service("kinds.Kinds")
class Outer:
    def One(self, request):
        return Answer(text=json.dumps(PLAIN[request.text](request.number)))

    def Down(self, request):
        for answer in down.stream(Ask(number=request.number)):
            yield Answer(number=answer.number)
"""
)

ON_LOOP = (
    CALLS
    + """
@register.grpc_service("kinds.Kinds")
class Outer:
    async def One(self, request):
        return Answer(text=json.dumps(await LATER[request.text](request.number)))

    async def Down(self, request):
        async for answer in down.stream_async(Ask(number=request.number)):
            yield Answer(number=answer.number)
"""
)

EXPECTED: dict[str, Any] = {
    "keywords": 6,
    "dict": 6,
    "many": [0, 2, 4],
    "message": 6,
    "up": 3,
    "down": [0, 1, 2],
    "both": [0, 2, 4],
}
EXPECTED_LATER = {**EXPECTED, "up": 6, "gather": [0, 2, 4, 6]}
del EXPECTED_LATER["dict"]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, generated: Any) -> Iterator[Composed]:
    with composed(
        tmp_path_factory.mktemp("composed"), generated, {"plain": PLAIN, "loop": ON_LOOP, "inner": INNER}
    ) as it:
        yield it


@pytest.mark.parametrize("name", EXPECTED)
def test_plain_handlers_call(server: Composed, name: str) -> None:
    assert json.loads(server.one("plain", name, 3)) == EXPECTED[name]


@pytest.mark.parametrize("name", EXPECTED_LATER)
def test_coroutines_call(server: Composed, name: str) -> None:
    assert json.loads(server.one("loop", name, 3)) == EXPECTED_LATER[name]


@pytest.mark.parametrize("name", EXPECTED)
def test_stage_functions_call(server: Composed, name: str) -> None:
    assert json.loads(server.ask("stage", {"name": name, "n": 3}, servable="plain")[0]["y"]) == EXPECTED[name]


def test_batch_functions_call(server: Composed) -> None:
    instances = [{"name": name, "n": 3} for name in EXPECTED]
    results = server.ask("batch", *instances, servable="plain")
    assert [json.loads(result["y"]) for result in results] == list(EXPECTED.values())


@pytest.mark.parametrize("name", EXPECTED_LATER)
def test_event_loops_of_stage_functions_call(server: Composed, name: str) -> None:
    assert json.loads(server.ask("own_loop", {"name": name, "n": 3}, servable="plain")[0]["y"]) == EXPECTED_LATER[name]


@pytest.mark.parametrize("servable", ["plain", "loop"])
def test_generators_call(server: Composed, servable: str) -> None:
    answers = server.stub.Down(server.pb2.Ask(number=500), timeout=60, metadata=[("application", servable)])
    assert [answer.number for answer in answers] == list(range(500))


def test_of_many_instances_each_has_its_result(server: Composed) -> None:
    assert "Cannot find input x" in json.loads(server.one("plain", "some", 3))
