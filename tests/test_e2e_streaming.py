"""Methods that stream: `infer_stream` of both clients, against the whole server."""

import asyncio
import gc
import json
import os
import pathlib
import threading
from collections.abc import Iterator
from typing import Any

import grpc
import numpy as np
import pytest

from e2e_support import PREAMBLE, Served, onnx_models, request, serving, status_of, tensor, until
from mindserve.client import AsyncClient, Client
from mindserve.errors import MindserveError
from mindserve.proto import PREDICT_STREAM, messages
from test_e2e_stats import LISTEN, only, stats_of

CONFIG = (
    PREAMBLE
    + """
import asyncio
import collections
import json
import os
import os
import threading

add = register.declare_model("add.onnx", "ONNX")
state = collections.Counter()


def stream(outputs="y", **options):
    def decorate(function):
        names = list(inspect.signature(function).parameters)
        count = 1 if isinstance(outputs, str) else len(outputs)

        def body(*values):
            return register.add_stage(function, *values, outputs_count=count, **options)

        kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
        body.__name__ = function.__name__
        body.__signature__ = inspect.Signature([inspect.Parameter(name, kind) for name in names])
        register.register_method(output_names=outputs, streaming=True)(body)
        return function

    return decorate


def report(x):
    return json.dumps(state)


@register.register_method(output_names="y")
def reported(x):
    return register.add_stage(report, x, outputs_count=1)


@register.register_method(output_names="y")
def plain(x1, x2):
    return register.add_stage(add, x1, x2, outputs_count=1)


# Each twice: as a generator and as an asynchronous one.


@stream()
def count(n):
    try:
        for i in range(n.item()):
            yield np.int64(i)
            state["yielded"] += 1
    finally:
        state["closed"] += 1


@stream()
async def count_async(n):
    try:
        for i in range(n.item()):
            yield np.int64(i)
            state["yielded"] += 1
    finally:
        state["closed"] += 1


def big(n, size):
    try:
        for i in range(n.item()):
            yield np.full(size.item(), i, np.float32)
            state["yielded"] += 1
    finally:
        state["closed"] += 1


async def big_async(n, size):
    try:
        for item in big(n, size):
            yield item
    finally:
        state["closed async"] += 1


stream()(big)
stream()(big_async)


@stream(tag="Sampling")
def raises(n):
    for i in range(n.item()):
        yield np.int64(i)
    raise ValueError("as asked")


@stream(tag="Sampling")
async def raises_async(n):
    for i in range(n.item()):
        yield np.int64(i)
    raise ValueError("as asked")


@stream(("first", "second"))
def two(n):
    for i in range(n.item()):
        yield i, f"item {i}"


@stream(("first", "second"))
def too_few(n):
    yield 1, 2
    yield 1


@stream()
def waits(x):
    yield "begun"
    threading.Event().wait()


@stream()
async def waits_async(x):
    yield "begun"
    try:
        await asyncio.Event().wait()
    finally:
        state["cancelled"] += 1


@stream()
def ids(x):
    yield register.get_request_id()


@stream()
def dies(fifo):
    yield "begun"
    with open(fifo):  # which waits for the other end
        os._exit(3)


@stream()
def reads(text, values):
    yield text
    yield values
    yield values.sum()
    try:
        values[0] = 1
    except ValueError as error:
        yield str(error)


def doubled(x):
    state["doubled"] += 1
    if x[0] < 0:
        raise ValueError("negative")
    return x + x


def grow(base, x):
    for i in range(3):
        base = add.call(base, x)
        yield base


async def grow_async(base, x):
    for i in range(3):
        base = await add.call_async(base, x)
        yield base


def graph(generator, name):
    # Both a function and a model come before; the function's result and the instance's go in, the other way round.
    def body(x1, x2):
        twice = register.add_stage(doubled, x1, outputs_count=1)
        total = register.add_stage(add, twice, x2, outputs_count=1)
        return register.add_stage(generator, total, x1, outputs_count=1)

    body.__name__ = name
    register.register_method(output_names="y", streaming=True)(body)


graph(grow, "stages")
graph(grow_async, "stages_async")
"""
)


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with serving(
        tmp_path_factory.mktemp("streams"),
        "streams",
        CONFIG,
        {"add.onnx": onnx_models().addition(["N", 2])},
        after=LISTEN,
    ) as running:
        yield running


def stream(served: Served, method: str, timeout: float = 60, **inputs: Any) -> list[Any]:
    """All items."""
    return list(served.client(method).infer_stream(inputs, timeout=timeout))


def values(served: Served, method: str, **inputs: Any) -> list[Any]:
    """The output ``y`` of each item."""
    items = stream(served, method, **inputs)
    assert all("y" in item for item in items), items
    return [item["y"] for item in items]


KINDS = pytest.mark.parametrize("kind", ["", "_async"])


@KINDS
@pytest.mark.parametrize("count", [0, 1, 1000])
def test_items_come_in_their_order(served: Served, kind: str, count: int) -> None:
    assert values(served, "count" + kind, n=count) == list(range(count))


@KINDS
def test_an_item_comes_as_soon_as_it_is_yielded(served: Served, kind: str) -> None:
    results = served.client("waits" + kind).infer_stream({"x": 1}, timeout=60)
    assert next(results) == {"y": "begun"}
    results.cancel()
    (last,) = results
    assert "cancelled" in last["error"]


def test_the_block_of_a_with_closes_the_stream(served: Served) -> None:
    with served.client("waits").infer_stream({"x": 1}, timeout=60) as results:
        assert next(results) == {"y": "begun"}
    assert list(results) == []
    results.close()
    # Another thread closes it while one waits.
    results = served.client("waits").infer_stream({"x": 1}, timeout=60)
    assert next(results) == {"y": "begun"}
    rest: list[object] = []
    waiting = threading.Thread(target=lambda: rest.extend(results))
    waiting.start()
    results.close()
    waiting.join(60)
    assert not waiting.is_alive()
    assert rest == []
    # And one that has ended by itself.
    with served.client("count").infer_stream({"n": 2}, timeout=60) as results:
        assert [item["y"] for item in results] == [0, 1]


def test_several_outputs(served: Served) -> None:
    assert stream(served, "two", n=2) == [
        {"first": 0, "second": "item 0"},
        {"first": 1, "second": "item 1"},
    ]


def test_a_generator_gets_what_a_function_gets(served: Served) -> None:
    array = np.arange(5, dtype=np.float32)
    text, given, total, refused = values(served, "reads", text="caf\u00e9", values=array)
    assert text == "caf\u00e9"
    assert given.tolist() == array.tolist()
    assert total == 10
    assert "read-only" in refused


@KINDS
def test_stages_come_before(served: Served, kind: str) -> None:
    pair = lambda a, b: np.array([a, b], np.float32)  # noqa: E731
    items = values(served, "stages" + kind, x1=pair(1, 2), x2=pair(10, 20))
    assert [item.tolist() for item in items] == [[13, 26], [14, 28], [15, 30]]
    (error,) = stream(served, "stages" + kind, x1=pair(-1, 2), x2=pair(10, 20))
    assert error == {"error": "Call Function 'streams.doubled' Failed: ValueError: negative"}
    (error,) = stream(served, "stages" + kind, x1=pair(1, 2))
    assert error == {"error": "Cannot find input x2 in instance input"}
    (error,) = stream(served, "stages" + kind, x1=pair(1, 2), x2=pair(1, 2).astype(np.int32))
    assert error["error"].startswith("Given model input 1 data type kMSI_Int32 not match")


@KINDS
@pytest.mark.parametrize("count", [0, 2])
def test_what_a_generator_raises_comes_last(served: Served, kind: str, count: int) -> None:
    *items, last = stream(served, "raises" + kind, n=count)
    assert [item["y"] for item in items] == list(range(count))
    assert last == {"error": f"Sampling Failed: Call Function 'streams.raises{kind}' Failed: ValueError: as asked"}


def test_an_item_of_another_form_is_an_error(served: Served) -> None:
    assert stream(served, "too_few", n=1) == [
        {"first": 1, "second": 2},
        {
            "error": "Call Function 'streams.too_few' Failed: the stage has 2 outputs, the function gave one",
        },
    ]


@KINDS
def test_a_slow_reader_stops_the_generator(served: Served, kind: str) -> None:
    state = lambda: json.loads(served.value("reported", x=1)).get("yielded", 0)  # noqa: E731
    before = state()
    with Client(served.address, "streams", "big" + kind) as client:
        results = client.infer_stream({"n": 100_000, "size": 25_000}, timeout=600)
        assert next(results)["y"][0] == 0
        # 100 KB each: of the 10 GB little is yielded until the reader goes on.
        ahead = until(lambda: (state(), state()), lambda pair: before < pair[0] == pair[1])[0] - before
        assert ahead < 2000
        for i in range(1, 3 * ahead):
            assert next(results)["y"][0] == i
    # The client has gone: the generator is closed.


@KINDS
def test_cancellation_closes_the_generator(tmp_path: pathlib.Path, kind: str) -> None:
    with serving(tmp_path, "streams", CONFIG, {"add.onnx": onnx_models().addition(["N", 2])}) as served:
        state = lambda: json.loads(served.value("reported", x=1))  # noqa: E731
        results = served.client("big" + kind).infer_stream({"n": 100_000, "size": 25_000}, timeout=600)
        assert next(results)["y"][0] == 0
        del results
        gc.collect()
        assert until(state, lambda now: now.get("closed", 0) == 1).get("yielded", 0) < 100_000
        # As does the end of the client's time.
        *_, last = served.client("big" + kind).infer_stream({"n": 10_000_000, "size": 25_000}, timeout=0.5)
        assert "deadline exceeded" in last["error"]
        until(state, lambda now: now.get("closed", 0) == 2)


def test_a_generator_that_hangs_holds_up_only_its_own_call(served: Served) -> None:
    hanging = [served.client("waits").infer_stream({"x": 1}, timeout=60) for _ in range(3)]
    for results in hanging:
        assert next(results) == {"y": "begun"}
    assert values(served, "count", n=3) == [0, 1, 2]
    for results in hanging:
        results.cancel()


def test_the_request_id_is_the_clients(served: Served) -> None:
    (item,) = served.client("ids").infer_stream({"x": 1}, timeout=60, metadata={"request_id": "abc"})
    assert item == {"y": "abc"}
    with grpc.insecure_channel(served.address) as channel:
        call = channel.unary_stream(PREDICT_STREAM)(
            request("streams", "ids", {"x": tensor(1)}).SerializeToString(),
            metadata=(("request_id", "def"),),
            timeout=60,
        )
        (reply,) = call
        assert messages.PredictReply.FromString(reply).instances[0].items["y"].bytes_val == [b"def"]
        assert ("request_id", "def") in call.trailing_metadata()


def test_a_method_that_does_not_stream_gives_its_one_result(served: Served) -> None:
    pair = np.array([1, 2], np.float32)
    (item,) = values(served, "plain", x1=pair, x2=pair)
    assert item.tolist() == [2, 4]
    assert stream(served, "plain", x1=pair) == [{"error": "Cannot find input x2 in instance input"}]


def test_infer_on_a_method_that_streams_says_what_to_do(served: Served) -> None:
    text = "the method answers with a stream: ask it by infer_stream, or mindserve.StreamService/PredictStream"
    assert served.client("count").infer({"n": 3}, timeout=60) == {
        "error": f"Request Servable(streams) method(count), {text}"
    }


@pytest.mark.parametrize(
    ("servable", "method", "version", "text"),
    [
        ("nobody", "count", 0, "Request Servable(nobody) method(count), servable is not available"),
        ("streams", "nothing", 0, "Request Servable(streams) method(nothing), method is not available"),
        ("streams", "count", 7, "Request Servable(streams) method(count) version(7), servable is not available"),
        ("streams", "/mindserve.StreamService/PredictStream/count", 0, "method is not available"),
    ],
)
def test_what_is_not_there(served: Served, servable: str, method: str, version: int, text: str) -> None:
    with Client(served.address, servable, method, version_number=version) as client:
        (item,) = client.infer_stream({"n": 1}, timeout=60)
    assert text in item["error"]


def test_a_version_can_be_named(served: Served) -> None:
    with Client(served.address, "streams", "count", version_number=1) as client:
        assert [item["y"] for item in client.infer_stream({"n": 2}, timeout=60)] == [0, 1]


def test_requests_that_are_none(served: Served) -> None:
    def ask(data: bytes) -> list[bytes]:
        with grpc.insecure_channel(served.address) as channel:
            return list(channel.unary_stream(PREDICT_STREAM)(data, timeout=60))

    code, _ = status_of(lambda: ask(b"\x12\x7f"))
    assert code is grpc.StatusCode.INVALID_ARGUMENT
    several = request("streams", "count", {"n": tensor(1)}, {"n": tensor(2)})
    (reply,) = ask(several.SerializeToString())
    error = messages.PredictReply.FromString(reply).error_msg[0]
    assert (error.error_code, error.error_msg.decode()) == (
        2,
        "instances count is 2, expected one: each has a stream of its own",
    )
    (reply,) = ask(request("streams", "count").SerializeToString())
    assert "instances count is 0" in messages.PredictReply.FromString(reply).error_msg[0].error_msg.decode()


def test_arguments_of_infer_stream(served: Served) -> None:
    client = Client(served.address, "streams", "count")
    with pytest.raises(MindserveError, match="Parameter 'instance' should be dict, but actually <class 'list'>"):
        client.infer_stream([{"n": 1}])  # type: ignore[arg-type]
    with pytest.raises(MindserveError, match="Not support value type <class 'object'>"):
        client.infer_stream({"n": object()})
    with pytest.raises(MindserveError, match="Parameter 'timeout' should be a number of seconds"):
        client.infer_stream({"n": 1}, timeout="1")  # type: ignore[arg-type]
    client.close()
    with pytest.raises(MindserveError, match="is closed"):
        client.infer_stream({"n": 1})


def test_streams_are_counted(served: Served) -> None:
    assert values(served, "count", n=3) == [0, 1, 2]
    method = only(stats_of(served.process)["methods"], path=PREDICT_STREAM, method="count")
    assert (method["servable"], method["version"]) == ("streams", 1)
    assert method["ended"]["OK"] >= 1


def test_a_worker_that_dies_in_a_stream_ends_it(tmp_path: pathlib.Path) -> None:
    with serving(tmp_path, "streams", CONFIG, {"add.onnx": onnx_models().addition(["N", 2])}) as served:
        fifo = tmp_path / "fifo"
        os.mkfifo(fifo)
        results = served.client("dies").infer_stream({"fifo": str(fifo)}, timeout=60)
        assert next(results) == {"y": "begun"}
        fifo.open("w").close()
        (last,) = results
        assert last["error"].startswith("Grpc Error, (14, 'unavailable')")
        assert "A part of the answer had been sent" in last["error"]
        assert until(lambda: stream(served, "count", n=1), lambda items: "y" in items[0])[0]["y"] == 0


# --- The client for asyncio ---


def test_the_asynchronous_client(served: Served) -> None:
    async def ask() -> None:
        async with AsyncClient(served.address, "streams", "count") as client:
            assert [item["y"] async for item in client.infer_stream({"n": 5}, timeout=60)] == [0, 1, 2, 3, 4]
            many = await asyncio.gather(*(collect(client, 10) for _ in range(20)))
            assert many == [list(range(10))] * 20
        async with AsyncClient(served.address, "streams", "raises") as client:
            *items, last = [item async for item in client.infer_stream({"n": 1}, timeout=60)]
            assert items == [{"y": 0}]
            assert last["error"].endswith("ValueError: as asked")
        async with AsyncClient(served.address, "streams", "nothing") as client:
            (item,) = [item async for item in client.infer_stream({"n": 1}, timeout=60)]
            assert "method is not available" in item["error"]
        with pytest.raises(MindserveError, match="is closed"):
            client.infer_stream({"n": 1})

    async def collect(client: AsyncClient, n: int) -> list[Any]:
        return [item["y"] async for item in client.infer_stream({"n": n}, timeout=60)]

    asyncio.run(ask())


def test_a_task_of_the_asynchronous_client_that_is_cancelled(tmp_path: pathlib.Path) -> None:
    async def ask() -> None:
        async with AsyncClient(served.address, "streams", "waits_async") as client:
            results = client.infer_stream({"x": 1}, timeout=60)
            assert await anext(results) == {"y": "begun"}
            task = asyncio.ensure_future(anext(results))
            await asyncio.sleep(0)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            with pytest.raises(StopAsyncIteration):
                await anext(results)
            # One that its own method gives up.
            results = client.infer_stream({"x": 1}, timeout=60)
            assert await anext(results) == {"y": "begun"}
            results.cancel()
            assert "cancelled" in (await anext(results))["error"]
            # One that is closed, also while a task waits.
            async with client.infer_stream({"x": 1}, timeout=60) as results:
                assert await anext(results) == {"y": "begun"}
                task = asyncio.ensure_future(anext(results, None))
                await asyncio.sleep(0)
            assert await task is None
            assert [item async for item in results] == []
            await results.close()

    with serving(tmp_path, "streams", CONFIG, {"add.onnx": onnx_models().addition(["N", 2])}) as served:
        asyncio.run(ask())
        until(lambda: json.loads(served.value("reported", x=1)), lambda now: now.get("cancelled", 0) == 3)


def test_closing_the_asynchronous_client_ends_its_streams(served: Served) -> None:
    async def ask() -> None:
        client = AsyncClient(served.address, "streams", "waits_async")
        results = client.infer_stream({"x": 1}, timeout=60)
        assert await anext(results) == {"y": "begun"}
        waiting = asyncio.ensure_future(anext(results))
        await asyncio.sleep(0)
        await client.close()
        assert "cancelled" in (await waiting)["error"]

    asyncio.run(ask())
