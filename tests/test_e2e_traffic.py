"""Calls of one name that several servables answer: split, changed while they come, counted and shown."""

from __future__ import annotations

import asyncio
import collections
import contextlib
import json
import pathlib
import threading
from collections.abc import Iterator
from typing import Any

import grpc
import pytest

from conftest import ServerProcess
from e2e_support import PREAMBLE, Served, request, server_process, tensor, until, write_servable
from mindserve.client import AsyncClient, Client
from mindserve.proto import PREDICT, messages

CONFIG = (
    PREAMBLE
    + """
@method("x")
def who(x):
    return np.array([x.item(), {number}], np.int64)


def thrice(x):
    for _ in range(3):
        yield np.array([x.item(), {number}], np.int64)


@register.register_method(output_names="y", streaming=True)
def whos(x):
    return register.add_stage(thrice, x, outputs_count=1)
"""
)

# Does what it is told by lines of Python, and says what came of each.
LISTEN = """
import json, sys
from mindserve.server import Split, Variation

for line in sys.stdin:
    try:
        result = eval(line)
    except RuntimeError as error:
        result = {"error": str(error), "type": type(error).__name__}
    print(json.dumps(result, default=lambda each: each.as_dict()), flush=True)
"""


def run(process: ServerProcess, expression: str) -> Any:
    """What an expression of the start script's language gives."""
    process.tell(expression)
    return json.loads(process.line())


@pytest.fixture
def served(tmp_path: pathlib.Path) -> Iterator[Served]:
    names = {"one": 1, "two": 2}
    for name, number in names.items():
        write_servable(tmp_path / "servables", name, CONFIG.replace("{number}", str(number)))
    configs = ", ".join(f"server.ServableStartConfig({str(tmp_path / 'servables')!r}, {name!r})" for name in names)
    script = (
        "from mindserve import server\n"
        f"server.start_servables([{configs}])\n"
        "print(*server.start_grpc_server('127.0.0.1:0'), flush=True)\n" + LISTEN
    )
    with server_process(tmp_path / "run", script) as process:
        running = Served(process, process.line().split(), "both")
        try:
            yield running
        finally:
            running.close()


SPLIT = "server.set_traffic('both', [Variation('a', 'one', weight={}), Variation('b', 'two', weight={})])"


class Asker:
    """Asks "both" over one channel, and notes who answered."""

    def __init__(self, address: str) -> None:
        self._channel = grpc.insecure_channel(address)
        self._predict = self._channel.unary_unary(PREDICT)
        self._message = request("both", "who", {"x": tensor([7])}).SerializeToString()

    def ask(self, *metadata: tuple[str, str]) -> str:
        """The variation that has answered, by what it says itself; fails if the reply names another."""
        reply, call = self._predict.with_call(self._message, timeout=60, metadata=metadata)
        answer = messages.PredictReply.FromString(reply)
        assert not answer.error_msg, answer
        (number,) = [int.from_bytes(answer.instances[0].items["y"].data[8:16], "little")]
        trailing = dict(call.trailing_metadata())
        assert trailing["mindserve-variation"] == {1: "a", 2: "b"}[number]
        return str(trailing["mindserve-variation"])

    def close(self) -> None:
        self._channel.close()


@pytest.fixture
def asker(served: Served) -> Iterator[Asker]:
    with contextlib.closing(Asker(served.address)) as made:
        yield made


def rows(process: ServerProcess, **wanted: Any) -> list[dict[str, Any]]:
    stats = run(process, "server.stats()")
    return [each for each in stats["methods"] if all(each[key] == value for key, value in wanted.items())]


def test_calls_are_split_by_weight_and_counted_apart(served: Served, asker: Asker) -> None:
    assert run(served.process, SPLIT.format(0.9, 0.1)) is None
    said = collections.Counter(asker.ask() for _ in range(200))
    assert said == {"a": 180, "b": 20}
    (a,), (b,) = (rows(served.process, split="both", variation=name) for name in "ab")
    assert (a["servable"], a["version"], a["method"], a["ended"]) == ("one", 1, "who", {"OK": 180})
    assert (b["servable"], b["version"], b["method"], b["ended"]) == ("two", 1, "who", {"OK": 20})
    assert b["latency"]["count"] == 20
    assert not any(each["ended"] for each in rows(served.process, split="", method="who"))
    assert run(served.process, "server.stats()")["replies"] == 200


def test_the_same_metadata_goes_to_the_same_variation(served: Served, asker: Asker) -> None:
    run(served.process, SPLIT.format(1, 1).replace("])", "], sticky='user')"))
    homes = {user: asker.ask(("user", user)) for user in map(str, range(40))}
    assert set(homes.values()) == {"a", "b"}
    assert {user: asker.ask(("user", user)) for user in homes} == homes
    # One gains and the other loses: nobody goes the other way.
    run(served.process, SPLIT.format(1, 3).replace("])", "], sticky='user')"))
    after = {user: asker.ask(("user", user)) for user in homes}
    assert {after[user] for user in homes if after[user] != homes[user]} == {"b"}
    assert {asker.ask() for _ in range(4)} == {"a", "b"}


def test_weights_change_under_load_without_a_lost_call(served: Served, asker: Asker) -> None:
    run(served.process, SPLIT.format(1, 0))
    over = threading.Event()
    said: list[str] = []
    failed: list[BaseException] = []

    def ask() -> None:
        with contextlib.closing(Asker(served.address)) as each:
            try:
                while not over.is_set():
                    said.append(each.ask())
            except BaseException as error:
                failed.append(error)

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    try:
        for step in range(1, 21):
            before = len(said)
            run(served.process, SPLIT.format(20 - step, step))
            until(lambda before=before: len(said) > before + 20 or failed)
    finally:
        over.set()
        for thread in threads:
            thread.join()
    assert not failed
    assert set(said) == {"a", "b"}
    assert {asker.ask() for _ in range(10)} == {"b"}


def test_clients_see_who_has_answered(served: Served) -> None:
    run(served.process, SPLIT.format(1, 1))
    numbers = {"a": 1, "b": 2}
    who, whos = served.client("who"), served.client("whos")

    def right(result: Any, metadata: Any) -> str:
        name = str(metadata["mindserve-variation"])
        assert result["y"][1] == numbers[name]
        return name

    answers = [who.infer({"x": 7}, timeout=60) for _ in range(2)]
    answers += [who.infer_async({"x": 7}, timeout=60).result() for _ in range(2)]
    assert {right(each[0], each.metadata) for each in answers} == {"a", "b"}
    assert len({each.metadata["request_id"] for each in answers}) == 4
    for _ in range(2):
        with whos.infer_stream({"x": 7}, timeout=60) as results:
            assert results.metadata == {}
            # What comes before the first result says it already.
            first = right(next(results), results.metadata)
            assert [right(each, results.metadata) for each in results] == [first] * 2
            assert results.metadata["request_id"]

    async def ask() -> None:
        async with (
            AsyncClient(served.address, "both", "who") as who,
            AsyncClient(served.address, "both", "whos") as whos,
        ):
            answers = [await who.infer({"x": 7}, timeout=60) for _ in range(2)]
            assert {right(each[0], each.metadata) for each in answers} == {"a", "b"}
            assert all(each.metadata["request_id"] for each in answers)
            async with whos.infer_stream({"x": 7}, timeout=60) as results:
                assert results.metadata == {}
                assert len({right(each, results.metadata) async for each in results}) == 1
                assert results.metadata["request_id"]

    asyncio.run(ask())


def test_failed_calls_say_whose_they_were(served: Served) -> None:
    run(served.process, SPLIT.format(1, 0))
    with Client(served.address, "both", "no such method") as client:
        failure = client.infer({"x": 7}, timeout=60)
        assert "method is not available" in failure["error"]
        assert failure.metadata["mindserve-variation"] == "a"
        assert failure.metadata["request_id"]
        stream = client.infer_stream({"x": 7}, timeout=60)
        (item,) = stream
        assert list(item) == ["error"]
        assert stream.metadata["mindserve-variation"] == "a"


def test_what_is_wrong_is_refused_and_changes_nothing(served: Served, asker: Asker) -> None:
    run(served.process, SPLIT.format(0, 1))

    def error(expression: str, kind: str = "ConfigError") -> str:
        result = run(served.process, expression)
        assert result["type"] == kind
        return str(result["error"])

    assert "should be a number in range [0,1e+09], but actually -1" in error(SPLIT.format(-1, 2))
    assert "but actually nan" in error(SPLIT.format("float('nan')", 1))
    assert "but actually inf" in error(SPLIT.format("float('inf')", 1))
    assert "sum to 0" in error(SPLIT.format(0, 0.0))
    assert "'variations' should not be empty" in error("server.set_traffic('both', [])")
    assert "'a' in parameter 'variations' should not be repeated" in error(SPLIT.format(1, 1).replace("'b'", "'a'"))
    assert "should be tuple/list of Variation" in error("server.set_traffic('both', Variation('a', 'one'))")
    assert "1 to 64 letters" in error("server.set_traffic('both', [Variation('a b', 'one')])")
    assert "should be a key of metadata" in error("server.set_traffic('both', [Variation('a', 'one')], sticky='A')")
    unknown = error("server.set_traffic('both', [Variation('a', 'three')])")
    assert "servable 'three' of variation 'a' was not started: expected one of those that were, 'one', 'two'" in unknown
    version = error("server.set_traffic('both', [Variation('a', 'one', 7)])")
    assert "Version 7 of servable 'one', of variation 'a', is not served" in version
    assert [asker.ask() for _ in range(3)] == ["b"] * 3
    assert list(run(served.process, "server.traffic()")) == ["both"]


def test_what_is_cleared_is_split_no_more(served: Served, asker: Asker) -> None:
    run(served.process, SPLIT.format(1, 1))
    asker.ask()
    run(served.process, "server.clear_traffic('both')")
    run(served.process, "server.clear_traffic('both')")
    assert run(served.process, "server.traffic()") == {}
    assert "servable is not available" in served.error("who", x=1)
