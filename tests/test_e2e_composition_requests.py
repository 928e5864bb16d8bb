"""What goes along when servables call servables: deadlines, ids, cancellation, depth; and while the server stops."""

from __future__ import annotations

import json
import pathlib
import re
import socket
from collections.abc import Callable, Iterator
from typing import Any

import grpc
import pytest

from answering_support import generated as generated
from composition_support import Composed, composed
from e2e_support import request, tensor, until
from mindserve.client import Client
from mindserve.proto import PREDICT

# Its handlers tell what they know of their calls; "hang" goes on until it is cancelled, of which a file tells.
LAST_PLAIN = """
@register.grpc_service("kinds.Kinds")
class Last:
    def One(self, request, grpc_context):
        log.warning("in last")
        if request.text == "hang":
            open(request.data.decode() + ".begun", "w").close()
            while not grpc_context.cancelled():
                time.sleep(0.001)
            open(request.data.decode() + ".cancelled", "w").close()
        return Answer(text=json.dumps([register.get_request_id(), grpc_context.time_remaining()]))
"""
LAST_ON_LOOP = """
@register.grpc_service("kinds.Kinds")
class Last:
    async def One(self, request, grpc_context):
        log.warning("in last")
        if request.text == "hang":
            open(request.data.decode() + ".begun", "w").close()
            try:
                await asyncio.sleep(3600)
            except asyncio.CancelledError:
                open(request.data.decode() + ".cancelled", "w").close()
                raise
        return Answer(text=json.dumps([register.get_request_id(), grpc_context.time_remaining()]))
"""

RELAY = """
last = register.get_servable("last", method="kinds.Kinds/One")
ask = lambda text, file="": Ask(text=text, data=str(file).encode())
"""

# Calls the last one from a stage function.
MIDDLE = (
    RELAY
    + """
@predict
def relay(text, file):
    log.warning("in middle")
    return last.call(ask(text, file)).text


@predict(name="relay_batch", inputs=["text", "file"], batch_size=4)
def relay_batch(instances):
    for text, file in instances:
        log.warning("in middle batch")
        yield last.call(ask(text, file)).text


def remember(text, file):
    return register.get_request_id()


def tell_streaming(remembered):
    yield remembered + " " + register.get_request_id()
    yield last.call(ask("tell")).text


@register.register_method(output_names="y", streaming=True)
def stream(text, file):
    # Both stages know of the request.
    remembered = register.add_stage(remember, text, file, outputs_count=1)
    return register.add_stage(tell_streaming, remembered, outputs_count=1)


@predict
def own_thread(text, file):
    # Of threads that it starts, those know of the request that are given its context.
    found = []
    for run in (contextvars.copy_context().run, lambda call: call()):
        thread = threading.Thread(target=run, args=(lambda: found.append(register.get_request_id()),))
        thread.start()
        thread.join()
    return json.dumps(found)
"""
)

FRONT = (
    RELAY
    + """
middle = register.get_servable("middle", method="relay")
batch = register.get_servable("middle", method="relay_batch")


@register.grpc_service("kinds.Kinds")
class Front:
    def One(self, request, grpc_context):
        log.warning("in front")
        text, file = request.text, request.data.decode()
        if text == "chain":
            return Answer(text=middle.call(text="tell", file="").pop("y"))
        if text == "batch":
            return Answer(text=batch.call(text="tell", file="").pop("y"))
        if text == "timeout":
            return Answer(text=failure(lambda: last.options(timeout=0.2).call(ask("hang", file))))
        if text == "long timeout":
            return Answer(text=last.options(timeout=1000).call(ask("tell")).text)
        if text == "late":
            while grpc_context.time_remaining() > 0:
                time.sleep(0.001)
            log.warning("late: " + failure(lambda: last.call(ask("tell"))))
        if text == "cancelled":
            open(file + ".begun", "w").close()
            while not grpc_context.cancelled():
                time.sleep(0.001)
            log.warning("cancelled: " + failure(lambda: last.call(ask("tell"))))
        if text == "wait":
            open(file + ".begun", "w").close()
            wait_for(file + ".go")
            return Answer(text=last.call(ask("tell")).text)
        return Answer(text=last.call(ask(text, file)).text)
"""
)

FRONT_ON_LOOP = (
    RELAY
    + """
background = set()


@register.grpc_service("kinds.Kinds")
class Front:
    async def One(self, request):
        file = request.data.decode()
        if request.text == "forget":
            # Nobody awaits it.
            background.add(asyncio.create_task(last.call_async(ask("hang", file))))
            await asyncio.Event().wait()
        return Answer(text=(await last.call_async(ask(request.text, file))).text)
"""
)

SERVABLES = {"front": FRONT, "front_loop": FRONT_ON_LOOP, "middle": MIDDLE, "last": LAST_PLAIN}
# A server that stops once it is told to.
STOPS = "input()\nserver.stop()\nprint('stopped', flush=True)\n"


@pytest.fixture(scope="module", params=["plain", "loop"])
def server(tmp_path_factory: pytest.TempPathFactory, generated: Any, request: pytest.FixtureRequest) -> Any:
    servables = {**SERVABLES, "last": LAST_PLAIN if request.param == "plain" else LAST_ON_LOOP}
    with composed(tmp_path_factory.mktemp("requests"), generated, servables) as it:
        yield it


@pytest.fixture(scope="module")
def calm(tmp_path_factory: pytest.TempPathFactory, generated: Any) -> Iterator[Composed]:
    with composed(tmp_path_factory.mktemp("calm"), generated, SERVABLES) as it:
        yield it


def log_lines(server: Composed, servable: str, text: str) -> list[str]:
    return [line for line in server.log(servable).splitlines() if text in line]


def test_the_request_id_goes_through_three_servables(calm: Composed) -> None:
    ask = calm.pb2.Ask(text="chain")
    metadata = [("application", "front"), ("request_id", "chain-1")]
    answer, call = calm.stub.One.with_call(ask, timeout=60, metadata=metadata)
    assert json.loads(answer.text)[0] == "chain-1"
    assert ("request_id", "chain-1") in call.trailing_metadata()
    for servable in ("front", "middle", "last"):
        (line,) = [line for line in log_lines(calm, servable, f"in {servable}") if "chain-1" in line]
        assert "[chain-1]" in line


def test_a_request_id_that_was_made_goes_along_too(calm: Composed) -> None:
    ask = calm.pb2.Ask(text="chain")
    answer, call = calm.stub.One.with_call(ask, timeout=60, metadata=[("application", "front")])
    (made,) = [value for key, value in call.trailing_metadata() if key == "request_id"]
    assert json.loads(answer.text)[0] == made
    assert re.fullmatch(r"[0-9a-f-]{36}", made)


def test_predict_takes_a_request_id(calm: Composed) -> None:
    predict = calm.channel.unary_unary(PREDICT, bytes, bytes)
    body = request("middle", "relay", {"text": tensor("tell"), "file": tensor("")}).SerializeToString()
    _, call = predict.with_call(body, timeout=60, metadata=[("request_id", "of-predict")])
    assert ("request_id", "of-predict") in call.trailing_metadata()
    (line,) = [line for line in log_lines(calm, "middle", "in middle") if "of-predict" in line]
    assert "[of-predict]" in line
    assert log_lines(calm, "last", "[of-predict]")


def test_a_request_id_is_made_for_predict(calm: Composed) -> None:
    predict = calm.channel.unary_unary(PREDICT, bytes, bytes)
    body = request("middle", "relay", {"text": tensor("tell"), "file": tensor("")}).SerializeToString()
    made = [dict(predict.with_call(body, timeout=60)[1].trailing_metadata())["request_id"] for _ in range(2)]
    assert len(set(made)) == 2
    for each in made:
        assert re.fullmatch(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", str(each))
        # Both the servable that was asked and the one that it asks know it.
        assert [line for line in log_lines(calm, "middle", "in middle") if f"[{each}]" in line]
        assert log_lines(calm, "last", f"[{each}]")


def test_threads_with_a_copy_of_the_context_know_the_request(calm: Composed) -> None:
    predict = calm.channel.unary_unary(PREDICT, bytes, bytes)
    body = request("middle", "own_thread", {"text": tensor(""), "file": tensor("")}).SerializeToString()
    assert b'["of-thread", ""]' in predict(body, timeout=60, metadata=[("request_id", "of-thread")])


def test_all_stages_of_a_stream_know_the_request(calm: Composed) -> None:
    with Client(calm.address, "middle", "stream") as client:
        items = client.infer_stream({"text": "", "file": ""}, timeout=60, metadata={"request_id": "of-stream"})
        first, second = (item["y"] for item in items)
    assert first == "of-stream of-stream"
    assert json.loads(second)[0] == "of-stream"


def test_a_batch_of_one_request_acts_for_it(calm: Composed) -> None:
    assert json.loads(calm.one("front", "batch", metadata=[("request_id", "batch-1")], timeout=50))[0] == "batch-1"
    assert [line for line in log_lines(calm, "middle", "in middle batch") if "[batch-1]" in line]


BATCHES = """
from mindserve.register.request import current


def known():
    request = current.get()
    return [request.request_id, request.deadline is not None, request.depth, request.parent != ""]


@predict(inputs=["x"], batch_size=2)
def batch(instances):
    for _ in instances:
        yield json.dumps([len(instances), *known()])


@predict
def single(x):
    return json.dumps([1, *known()])
"""

OUTER_OF_BATCH = """
batch = register.get_servable("batches", method="batch")


@register.grpc_service("kinds.Kinds")
class Outer:
    def One(self, request):
        return Answer(text=batch.call(x=1)["y"])
"""


def test_of_a_batch_of_several_requests_only_the_depth_is_known(tmp_path: pathlib.Path, generated: Any) -> None:
    servables = {"batches": BATCHES, "outer": OUTER_OF_BATCH}
    # Long enough for both to meet.
    start = {"batches": "max_queue_delay_us=60_000_000"}
    with composed(tmp_path, generated, servables, start=start) as server:
        direct = server.client("batch", "batches").infer_async({"x": 1}, timeout=100, metadata={"request_id": "direct"})
        assert json.loads(server.one("outer", timeout=100)) == [2, "", False, 1, False]
        (result,) = direct.result()
        assert json.loads(str(result["y"])) == [2, "", False, 1, False]  # type: ignore[index]


def test_each_instance_has_its_own_request(tmp_path: pathlib.Path, generated: Any) -> None:
    with composed(tmp_path, generated, {"batches": BATCHES}, services=()) as server:
        client = server.client("single", "batches")
        pending = [
            client.infer_async([{"x": 1}] * 3, timeout=60 if number % 2 else None, metadata={"request_id": str(number)})
            for number in range(200)
        ]
        for number, each in enumerate(pending):
            results = each.result()
            assert isinstance(results, list), results
            for result in results:
                assert json.loads(result["y"]) == [1, str(number), bool(number % 2), 0, True]
        (result,) = server.ask("single", {"x": 1}, servable="batches")
        _, made, *rest = json.loads(result["y"])
        assert len(made) == 36
        assert rest == [True, 0, True]


NARROW = """
me = register.get_servable("narrow", method="kinds.Kinds/One")


@register.grpc_service("kinds.Kinds")
class Narrow:
    def One(self, request):
        if request.text == "again":
            return me.call(Ask())
        return Answer(text="done")
"""


def test_whoever_waits_for_their_own_thread_gets_another_one(tmp_path: pathlib.Path, generated: Any) -> None:
    with composed(tmp_path, generated, {"narrow": NARROW}, start={"narrow": "handler_threads=1"}) as server:
        assert server.one("narrow", "again", timeout=None) == "done"
        assert server.one("narrow") == "done"


@pytest.mark.parametrize("text", ["tell", "chain", "long timeout"])
def test_the_deadline_goes_along(calm: Composed, text: str) -> None:
    _, remaining = json.loads(calm.one("front", text, timeout=50))
    # gRPC rounds it up where it goes over the wire.
    assert 0 < remaining <= 51


def test_without_a_deadline_there_is_none(calm: Composed) -> None:
    assert json.loads(calm.one("front", "chain", timeout=None))[1] is None


def test_a_timeout_of_its_own(server: Composed, tmp_path: pathlib.Path) -> None:
    file = tmp_path / "hang"
    ask = server.pb2.Ask(text="timeout", data=str(file).encode())

    def times_out() -> None:
        answer = server.stub.One(ask, timeout=60, metadata=[("application", "front")])
        code, text = json.loads(answer.text)
        assert code == "DEADLINE_EXCEEDED"
        assert "get_servable('last', method='kinds.Kinds/One') failed: DEADLINE_EXCEEDED" in text

    # On a slow machine the time may be over before the handler that is asked has begun.
    until(lambda: times_out() or file.with_suffix(".cancelled").exists())


def test_after_the_deadline_nothing_is_called(calm: Composed) -> None:
    before = len(log_lines(calm, "last", "in last"))
    with pytest.raises(grpc.RpcError) as error:
        calm.one("front", "late", timeout=2)
    assert error.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED  # type: ignore[attr-defined]
    (line,) = until(lambda: log_lines(calm, "front", "late: "))
    # By then the worker may have heard that the call is over.
    assert "has passed" in line or "was given up" in line
    assert len(log_lines(calm, "last", "in last")) == before


def test_for_a_cancelled_call_nothing_is_called(calm: Composed, tmp_path: pathlib.Path) -> None:
    ask = calm.pb2.Ask(text="cancelled", data=str(tmp_path / "call").encode())
    call = calm.stub.One.future(ask, timeout=600, metadata=[("application", "front")])
    until(lambda: (tmp_path / "call.begun").exists())
    before = len(log_lines(calm, "last", "in last"))
    call.cancel()
    (line,) = until(lambda: log_lines(calm, "front", "cancelled: "))
    assert '["CANCELLED", ' in line
    assert "was given up" in line
    assert len(log_lines(calm, "last", "in last")) == before


def hang_by_handler(servable: str, text: str = "hang") -> Callable[[Composed, str], Any]:
    def begin(server: Composed, file: str) -> Any:
        ask = server.pb2.Ask(text=text, data=file.encode())
        return server.stub.One.future(ask, timeout=600, metadata=[("application", servable)])

    return begin


def hang_by_function(method: str) -> Callable[[Composed, str], Any]:
    def begin(server: Composed, file: str) -> Any:
        return server.client(method, "middle").infer_async({"text": "hang", "file": file}, timeout=600)

    return begin


@pytest.mark.parametrize(
    "begin",
    [
        pytest.param(hang_by_handler("front"), id="plain"),
        pytest.param(hang_by_handler("front_loop"), id="coroutine"),
        pytest.param(hang_by_handler("front_loop", "forget"), id="forgotten"),
        pytest.param(hang_by_function("relay"), id="function"),
        pytest.param(hang_by_function("relay_batch"), id="batch"),
    ],
)
def test_cancellation_goes_along(
    server: Composed, tmp_path: pathlib.Path, begin: Callable[[Composed, str], Any]
) -> None:
    file = tmp_path / "call"
    call = begin(server, str(file))
    until(lambda: file.with_suffix(".begun").exists())
    assert not file.with_suffix(".cancelled").exists()
    call.cancel()
    until(lambda: file.with_suffix(".cancelled").exists())


def test_so_does_a_deadline_that_passes(server: Composed, tmp_path: pathlib.Path) -> None:
    file = tmp_path / "call"
    ask = server.pb2.Ask(text="hang", data=str(file).encode())
    with pytest.raises(grpc.RpcError) as error:
        server.stub.One(ask, timeout=3, metadata=[("application", "front")])
    assert error.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED  # type: ignore[attr-defined]
    until(lambda: file.with_suffix(".cancelled").exists())


def test_handlers_call_while_the_server_stops(tmp_path: pathlib.Path, generated: Any) -> None:
    with composed(tmp_path, generated, SERVABLES, after=STOPS) as server:
        file = tmp_path / "call"
        ask = server.pb2.Ask(text="wait", data=str(file).encode())
        call = server.stub.One.future(ask, timeout=600, metadata=[("application", "front")])
        until(lambda: file.with_suffix(".begun").exists())
        server.process.tell("stop")
        host, _, port = server.address.rpartition(":")

        def refuses() -> bool:
            try:
                socket.create_connection((host, int(port)), timeout=60).close()
            except OSError:
                return True
            return False

        until(refuses)
        file.with_suffix(".go").touch()
        assert json.loads(call.result().text)[0]
        assert server.process.line() == "stopped"
