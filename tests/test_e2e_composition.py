"""Servables that call servables: who may call what, and how."""

from __future__ import annotations

import json
import pathlib
from collections.abc import Iterator
from typing import Any

import pytest

from answering_support import generated as generated
from composition_support import Composed, composed
from e2e_support import until

INNER = """
def counting(n):
    for number in range(n.item()):
        yield number


@register.register_method(output_names="y", streaming=True)
def count(n):
    return register.add_stage(counting, n, outputs_count=1)


def breaking_off(n):
    yield 0
    raise ValueError("as asked")


@register.register_method(output_names="y", streaming=True)
def breaks_off(n):
    return register.add_stage(breaking_off, n, outputs_count=1)


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
count = register.get_servable("inner", method="count")
breaks_off = register.get_servable("inner", method="breaks_off")


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
    "count": lambda n: [item["y"].item() for item in count.stream(n=n)],
    "breaks off": lambda n: failure(lambda: list(breaks_off.stream(n=n))),
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


async def count_later(n):
    return [item["y"].item() async for item in count.stream_async({"n": n})]


async def break_off_later(n):
    async def items():
        return [item async for item in breaks_off.stream_async(n=n)]

    return await failure_async(items())


async def both_later(n):
    return [answer.number async for answer in both.stream_async(asks_later(n))]


LATER = {
    "gather": gather, "keywords": keywords, "many": many, "message": message,
    "up": up_later, "down": down_later, "both": both_later, "count": count_later, "breaks off": break_off_later,
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
    "count": [0, 1, 2],
    "breaks off": json.dumps(
        [
            "",
            "get_servable('inner', method='breaks_off') failed: "
            "Call Function 'inner.breaking_off' Failed: ValueError: as asked",
        ]
    ),
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


LET_GO = """
down = register.get_servable("endless", method="kinds.Kinds/Down")


@register.grpc_service("kinds.Kinds")
class LetGo:
    def One(self, request):
        if request.text == "loop":
            return Answer(text=asyncio.run(self.first(request.data.decode())))
        for answer in down.stream(Ask(data=request.data)):
            return Answer(text=answer.text)

    async def first(self, file):
        async for answer in down.stream_async(Ask(data=file.encode())):
            return answer.text
"""

ENDLESS = """
@register.grpc_service("kinds.Kinds")
class Endless:
    def Down(self, request):
        try:
            while True:
                yield Answer(text="first")
        finally:
            open(request.data.decode(), "w").close()
"""


@pytest.mark.parametrize("how", ["thread", "loop"])
def test_a_stream_that_is_let_go_of_is_cancelled(tmp_path: pathlib.Path, generated: Any, how: str) -> None:
    with composed(tmp_path, generated, {"let_go": LET_GO, "endless": ENDLESS}) as it:
        file = tmp_path / "closed"
        ask = it.pb2.Ask(text=how, data=str(file).encode())
        assert it.stub.One(ask, timeout=60, metadata=[("application", "let_go")]).text == "first"
        until(file.exists)


MANY = """
slow = register.get_servable("slow", method="kinds.Kinds/One")


@register.grpc_service("kinds.Kinds")
class Many:
    async def One(self, request):
        # More than a client's connection may have streams.
        answers = await asyncio.gather(*(slow.call_async(Ask(number=n)) for n in range(request.number)))
        return Answer(number=sum(answer.number for answer in answers))
"""

SLOW = """
everybody = asyncio.Event()
count = 0


@register.grpc_service("kinds.Kinds")
class Slow:
    async def One(self, request):
        global count
        count += 1
        if count == 1500:
            everybody.set()
        await everybody.wait()
        return Answer(number=request.number)
"""


def test_as_many_calls_as_one_likes_are_under_way(tmp_path: pathlib.Path, generated: Any) -> None:
    with composed(tmp_path, generated, {"many": MANY, "slow": SLOW}) as it:
        answer = it.stub.One(it.pb2.Ask(number=1500), timeout=60, metadata=[("application", "many")])
        assert answer.number == sum(range(1500))


BIG = """
big = register.get_servable("inner", method="kinds.Kinds/One")


@register.grpc_service("kinds.Kinds")
class Big:
    def One(self, request):
        return Answer(number=len(big.call(Ask(data=b"x" * request.number)).data))
"""

ECHO = """
@register.grpc_service("kinds.Kinds")
class Echo:
    def One(self, request):
        return Answer(data=request.data)
"""


def test_messages_may_be_large(tmp_path: pathlib.Path, generated: Any) -> None:
    with composed(tmp_path, generated, {"big": BIG, "inner": ECHO}) as it:
        size = 20 << 20
        answer = it.stub.One(it.pb2.Ask(number=size), timeout=60, metadata=[("application", "big")])
        assert answer.number == size
