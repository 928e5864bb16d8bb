"""Models called from Python: stage functions, threads and coroutines of a servable."""

import pathlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import numpy as np
import pytest

import stubs
from answering_support import generated as generated
from conftest import wait_gone
from e2e_support import PREAMBLE, Served, onnx_models, serving, until
from test_e2e_reload import COMMANDS
from test_e2e_stats import only, stats_of

CONFIG = (
    PREAMBLE
    + """
import asyncio
import threading

add = register.declare_model("add.onnx", "ONNX")
two = register.declare_model("two_outputs.onnx", "ONNX")
texts = register.declare_model("strings.onnx", "ONNX")
undeclared = register.Model("none.onnx")


@register.register_method(output_names="y")
def predict(x1, x2):
    return register.add_stage(add, x1, x2, outputs_count=1)


@method()
def one(x1, x2):
    return add.call(x1, x2)


@method(outputs_count=2)
def two_outputs(a, b):
    return two.call(a, b)


@method()
def chained(x1, x2):
    first = add.call(x1, x2)
    first += 1  # it is the caller's
    return add.call(first, x2)


@method()
def many(x, count):
    results = add.call([[x + i, x] if i % 2 else (x + i, x) for i in range(count.item())])
    assert isinstance(results, list) and all(isinstance(result, tuple) for result in results)
    return np.stack([y for (y,) in results])


@method("x", batch_size=0)
def batched(instances):
    for (y,) in add.call([[x, x] for (x,) in instances]):
        yield y


@method()
def text(x):
    return texts.call(np.array([str(x), "\\u00e9"]))


@method()
def threads(x, count):
    results = [None] * count.item()

    def call(i):
        results[i] = add.call(x + i, x)

    started = [threading.Thread(target=call, args=(i,)) for i in range(len(results))]
    for thread in started:
        thread.start()
    for thread in started:
        thread.join()
    return np.stack(results)


@method()
def tasks(x, count):
    async def call():
        ones = [add.call_async(x + i, x) for i in range(count.item())]
        *ones, pairs = await asyncio.gather(*ones, add.call_async([[x, x], [x, x]]))
        assert len(pairs) == 2
        return ones

    return np.stack(asyncio.run(call()))


CALLS = {
    "nothing": lambda x: add.call(),
    "no instances": lambda x: add.call([]),
    "flat": lambda x: add.call([x, x]),
    "too few": lambda x: add.call([[x, x], [x]]),
    "too many": lambda x: add.call(x, x, x),
    "none at all": lambda x: add.call([[]]),
    "size": lambda x: add.call(x, x[:1]),
    "type": lambda x: add.call(x, x.astype(np.int32)),
    "value": lambda x: add.call(x, object()),
    "second": lambda x: add.call([[x, x], [x, x[:1]], [x[:1], x]]),
    "subgraph": lambda x: add.call(x, x, subgraph=1),
    "undeclared": lambda x: undeclared.call(x, x),
    "coroutine": lambda x: asyncio.run(add.call_async(x)),
    "coroutine's second": lambda x: asyncio.run(add.call_async([[x, x], [x, x[:1]]])),
}


@method()
def wrong(x, call):
    try:
        CALLS[call](x)
    except RuntimeError as error:
        return f"{type(error).__name__} {error.code} {error}"


@method()
def raises(x):
    return add.call(x, x[:1])
"""
)


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    models = onnx_models()
    files = {
        "add.onnx": models.addition(["N", 2]),
        "two_outputs.onnx": models.two_outputs(),
        "strings.onnx": models.strings(),
    }
    with serving(tmp_path_factory.mktemp("calls"), "calls", CONFIG, files) as running:
        yield running


def pair(a: float, b: float) -> np.ndarray:
    return np.array([a, b], np.float32)


def test_one_instance_gives_its_output(served: Served) -> None:
    assert served.value("one", x1=pair(1, 2), x2=pair(3, 4)).tolist() == [4, 6]


def test_several_outputs_are_a_tuple(served: Served) -> None:
    (result,) = served.ask("two_outputs", {"a": pair(1, 5), "b": pair(3, 4)})
    assert result["y0"].tolist() == [4, 9]
    assert result["y1"].tolist() == [False, True]


def test_what_a_call_gives_can_be_written_to_and_called_with(served: Served) -> None:
    assert served.value("chained", x1=pair(1, 2), x2=pair(3, 4)).tolist() == [8, 11]


@pytest.mark.parametrize("count", [1, 33, 3000])
def test_many_instances_give_a_tuple_each(served: Served, count: int) -> None:
    result = served.value("many", x=pair(1, 2), count=count)
    assert result.tolist() == [[2 + i, 4 + i] for i in range(count)]


def test_a_batch_function_calls_with_its_instances(served: Served) -> None:
    results = served.ask("batched", *[{"x": pair(i, 1)} for i in range(100)])
    assert [result["y"].tolist() for result in results] == [[2 * i, 2] for i in range(100)]


def test_text_goes_in_and_comes_out(served: Served) -> None:
    assert served.value("text", x="a").tolist() == ["a", "\u00e9"]


def test_large_inputs_are_those_of_the_call(tmp_path: pathlib.Path) -> None:
    config = (
        PREAMBLE
        + """
import asyncio

add = register.declare_model("add.onnx", "ONNX")


@method()
def reused(x):
    # As large as what is not copied.
    scratch = np.empty(100_000, np.float32)
    wrong = 0
    for i in range(20):
        scratch[:] = i
        wrong += not np.all(add.call(scratch, x) == i + 1)
    return wrong


@method()
def reused_by_tasks(x):
    async def call():
        scratch = np.empty(100_000, np.float32)
        calls = []
        for i in range(20):
            scratch[:] = i
            calls.append(asyncio.ensure_future(add.call_async(scratch, x)))
            await asyncio.sleep(0)  # it begins
        return sum(not np.all(y == i + 1) for i, y in enumerate(await asyncio.gather(*calls)))

    return asyncio.run(call())
"""
    )
    with serving(tmp_path, "large", config, {"add.onnx": onnx_models().addition(["N", 100_000])}) as running:
        ones = np.ones(100_000, np.float32)
        assert running.value("reused", x=ones) == 0
        assert running.value("reused_by_tasks", x=ones) == 0


@pytest.mark.parametrize("method", ["threads", "tasks"])
def test_threads_and_tasks_call(served: Served, method: str) -> None:
    result = served.value(method, x=pair(1, 2), count=20)
    assert result.tolist() == [[2 + i, 4 + i] for i in range(20)]


def test_functions_of_many_requests_call_at_once(served: Served) -> None:
    def ask(i: int) -> bool:
        method = ("one", "predict")[i % 2]
        return bool(served.value(method, x1=pair(i, 2), x2=pair(3, 4)).tolist() == [3 + i, 6])

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(ask, range(400)))


@pytest.mark.parametrize(
    ("call", "code", "text"),
    [
        ("nothing", "INVALID_ARGUMENT", "no inputs provided"),
        ("no instances", "INVALID_ARGUMENT", "Input instances count is 0"),
        ("flat", "INVALID_ARGUMENT", "inputs format invalid, instance 0 is of type 'numpy.ndarray'"),
        (
            "too few",
            "INVALID_ARGUMENT",
            "The inputs count 1 of instance 1 is not equal to the inputs count 2 of the model",
        ),
        (
            "too many",
            "INVALID_ARGUMENT",
            "The inputs count 3 of instance 0 is not equal to the inputs count 2 of the model",
        ),
        (
            "none at all",
            "INVALID_ARGUMENT",
            "The inputs count 0 of instance 0 is not equal to the inputs count 2 of the model",
        ),
        ("size", "INVALID_ARGUMENT", "Given model input 1 size 4 not match the size 8 defined in model"),
        (
            "type",
            "INVALID_ARGUMENT",
            "Given model input 1 data type kMSI_Int32 not match the data type kMSI_Float32 defined in model",
        ),
        ("value", "INVALID_ARGUMENT", "input 1 of instance 0: a value of type 'object' was given; expected"),
        ("second", "INVALID_ARGUMENT", "instance 1: Given model input 1 size 4 not match the size 8 defined in model"),
        (
            "subgraph",
            "INVALID_ARGUMENT",
            "The model does not have subgraph of index 1, the subgraph count of the model is 1",
        ),
        ("undeclared", "FAILED_PRECONDITION", "the model is not declared"),
        (
            "coroutine",
            "INVALID_ARGUMENT",
            "The inputs count 1 of instance 0 is not equal to the inputs count 2 of the model",
        ),
        ("coroutine's second", "INVALID_ARGUMENT", "instance 1: Given model input 1 size 4"),
    ],
)
def test_what_is_wrong_with_a_call(served: Served, call: str, code: str, text: str) -> None:
    model = "none" if call == "undeclared" else "add"
    given = served.value("wrong", x=pair(1, 2), call=call)
    assert given.startswith(f"CallError {code} Model({model}.onnx).call() failed: {text}"), given


def test_what_a_function_does_not_catch_is_its_instances_error(served: Served) -> None:
    assert served.error("raises", x=pair(1, 2)) == (
        "Call Function 'calls.raises' Failed: CallError: Model(add.onnx).call() failed: "
        "Given model input 1 size 4 not match the size 8 defined in model"
    )


# --- A model that waits for a full batch ---

FULL = (
    PREAMBLE
    + """
import asyncio
import contextlib
import threading

add = register.declare_model("add.onnx", "ONNX")
failures = []


@register.register_method(output_names="y")
def predict(x1, x2):
    return register.add_stage(add, x1, x2, outputs_count=1)


@method()
def threads(x, count):
    async def several():
        return await asyncio.gather(add.call_async(x, x), add.call_async(x, x))

    results = []
    calls = [lambda: results.append(add.call(x, x))] * count.item() + [lambda: results.extend(asyncio.run(several()))]
    started = [threading.Thread(target=call) for call in calls]
    for thread in started:
        thread.start()
    results.append(add.call(x, x))
    for thread in started:
        thread.join()
    return sum(results)


@method()
def waits(x):
    try:
        return add.call(x, x)
    except RuntimeError as error:
        failures.append(f"{error.code} {error}")
        raise


@method()
def failed(x):
    return failures[-1] if failures else ""


@method()
def gives_up(x):
    async def call():
        await asyncio.wait_for(add.call_async([[x, x]] * 3), 0.01)

    try:
        asyncio.run(call())
    except asyncio.TimeoutError:
        return True


@method()
def leaves_behind(x):
    def forever():
        while True:
            with contextlib.suppress(RuntimeError):
                add.call(x, x)

    def once():
        try:
            add.call(x, x)
        except RuntimeError as error:
            print("the call ended:", error, flush=True)

    for i in range(3):
        threading.Thread(target=forever, daemon=True).start()
    threading.Thread(target=once, daemon=False).start()
    return True
"""
)


@pytest.fixture
def full(tmp_path: pathlib.Path) -> Iterator[Served]:
    with serving(
        tmp_path,
        "full",
        FULL,
        {"add.onnx": onnx_models().addition(["N", 2])},
        start="max_batch_size=8, max_queue_delay_us=60_000_000",
        after=COMMANDS,
    ) as running:
        yield running


def sizes(served: Served) -> dict[int, int]:
    """How many batches of each size the model has run."""
    (worker,) = stats_of(served.process)["workers"]
    stage = only(worker["stages"], kind="model")
    return {int(size): count for size, count in stage["batch_sizes"]["buckets"]}


def test_calls_share_batches_with_requests(full: Served) -> None:
    # Only together are they a batch: three calls of threads, one of the stage, two of tasks, two of a request.
    with ThreadPoolExecutor(1) as pool:
        calls = pool.submit(full.value, "threads", x=pair(1, 1), count=3)
        results = full.ask("predict", *[{"x1": pair(1, 2), "x2": pair(3, 4)}] * 2)
        assert [result["y"].tolist() for result in results] == [[4, 6]] * 2
        assert calls.result().tolist() == [12, 12]
    assert sizes(full) == {8: 1}


def test_the_requests_deadline_is_that_of_its_calls(full: Served) -> None:
    result = full.client("waits").infer({"x": pair(1, 2)}, timeout=2)
    assert isinstance(result, dict)
    assert "deadline exceeded" in result["error"]
    text = until(lambda: full.value("failed", x=1))
    assert text.startswith("DEADLINE_EXCEEDED Model(add.onnx).call() failed: the deadline passe"), text


def test_what_a_cancelled_task_has_called_is_taken_back(full: Served) -> None:
    assert full.value("gives_up", x=pair(1, 2))
    # A full batch without them.
    full.ask("predict", *[{"x1": pair(1, 2), "x2": pair(3, 4)}] * 8)
    assert sizes(full) == {8: 1}


def test_calls_that_wait_end_with_the_worker(full: Served) -> None:
    (worker,) = full.process.workers()
    assert full.value("leaves_behind", x=pair(1, 2))
    full.process.tell("reload")
    assert full.process.line() == "reloaded"
    wait_gone([worker])
    (log,) = (full.process.cwd / "serving_logs").iterdir()
    text = log.read_text()
    assert "the call ended: Model(add.onnx).call() failed: worker stopping" in text
    # Those that don't stop calling keep nobody else from ending.
    assert "is still running" not in text
    assert "terminate" not in text


# --- Otherwise ---


def test_there_are_no_calls_before_the_worker_serves(tmp_path: pathlib.Path) -> None:
    config = """
from mindserve.server import register

add = register.declare_model("add.onnx", "ONNX")
try:
    add.call(1, 2)
except RuntimeError as error:
    text = str(error)


def said(x):
    return text


@register.register_method(output_names="y")
def at_import(x):
    return register.add_stage(said, x, outputs_count=1)
"""
    with serving(tmp_path, "early", config, {"add.onnx": onnx_models().addition(["N", 2])}) as running:
        assert running.value("at_import", x=1) == "Model(add.onnx).call() failed: the worker does not serve yet"


@pytest.mark.parametrize(("method", "expected"), [("dies_once", [4, 8]), ("dies_once_and_has_a_helper", [2, 4])])
def test_a_request_that_is_executed_alone_calls(tmp_path: pathlib.Path, method: str, expected: list[float]) -> None:
    config = (
        PREAMBLE
        + """
import os
import pathlib
import threading

add = register.declare_model("add.onnx", "ONNX")


@method()
def dies_once(x, file):
    path = pathlib.Path(file)
    if not path.exists():
        path.touch()
        os._exit(3)
    return add.call(x, x) + add.call([[x, x]] * 3)[2][0]


@method()
def dies_once_and_has_a_helper(x, file):
    path = pathlib.Path(file)
    if not path.exists():
        path.touch()
        os._exit(3)
    results = []
    helper = threading.Thread(target=lambda: results.append(add.call(x, x)))
    helper.start()
    helper.join()
    return results[0]
"""
    )
    files = {"add.onnx": onnx_models().addition(["N", 2])}
    with serving(tmp_path / "server", "alone", config, files, start="device_ids=(0, 1)") as running:
        assert running.value(method, x=pair(1, 2), file=str(tmp_path / "died")).tolist() == expected


# --- Handlers of gRPC methods ---

HANDLERS = """
import kinds_pb2_grpc
import numpy as np
from kinds_pb2 import Answer
from mindserve.server import register

add = register.declare_model("add.onnx", "ONNX")


ended = []


@register.grpc_method("One", service="kinds.Kinds")
def one(request):
    x = np.frombuffer(request.data, np.float32)
    try:
        return Answer(data=add.call(x, x).tobytes())
    except RuntimeError as error:
        ended.append(f"{error.code} {error}")
        raise


@register.grpc_method("Turn", service="kinds.Twin")
async def turn(request):
    x = np.frombuffer(request.data, np.float32)
    return Answer(data=(await add.call_async(x, x)).tobytes())


@register.grpc_method("__call__", service="kinds.Kinds")
def report(request):
    return Answer(text=" | ".join(ended))

"""


def test_handlers_call(tmp_path: pathlib.Path, generated: Any) -> None:
    (tmp_path / "servables" / "handlers").mkdir(parents=True)
    stubs.generate(tmp_path / "servables" / "handlers")
    messages, services = generated
    with (
        serving(
            tmp_path,
            "handlers",
            HANDLERS,
            {"add.onnx": onnx_models().addition(["N", 2])},
            start="max_batch_size=8, max_queue_delay_us=60_000_000, handler_threads=16",
            listen="'127.0.0.1:0', grpc_servicer_functions=['kinds_pb2_grpc.add_KindsServicer_to_server', "
            "'kinds_pb2_grpc.add_TwinServicer_to_server']",
            after=COMMANDS,
        ) as served,
        grpc.insecure_channel(served.address) as channel,
    ):
        plain, on_loop = services.KindsStub(channel), services.TwinStub(channel)
        ask = messages.Ask(data=pair(1, 2).tobytes())
        # Only all of them are a batch; each thread of the handlers that waits makes room for the next.
        calls = [(plain.One, on_loop.Turn)[i % 2].future(ask, timeout=60) for i in range(8)]
        assert [np.frombuffer(call.result().data, np.float32).tolist() for call in calls] == [[2, 4]] * 8
        assert sizes(served) == {8: 1}
        # A call's deadline is its own.
        with pytest.raises(grpc.RpcError):
            plain.One(ask, timeout=2)
        report = plain.__call__
        text = until(lambda: report(messages.Ask(), timeout=60).text)
        assert text.startswith("DEADLINE_EXCEEDED Model(add.onnx).call() failed: the deadline passe"), text
