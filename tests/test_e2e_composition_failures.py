"""Servables that call servables, where that fails: who is not there, who fails, circles; and callees that change."""

from __future__ import annotations

import json
import pathlib
from collections.abc import Iterator
from typing import Any

import grpc
import pytest

from answering_support import generated as generated
from composition_support import Composed, composed
from e2e_support import until

CALLER = """
def handle(name, method, **options):
    return register.get_servable(name, method=method, **options)


CALLS = {
    "no servable": lambda: handle("nobody", "x").call(x=1),
    "no servable of the service": lambda: handle("nobody", "kinds.Kinds/One").call(Ask()),
    "no method": lambda: handle("callee", "nothing").call(x=1),
    "no version": lambda: handle("callee", "double", version_number=7).call(x=1),
    "no RPC": lambda: handle("callee", "kinds.Kinds/Up").call([]),
    "no input": lambda: handle("callee", "double").call(z=1),
    "raises": lambda: handle("callee", "fail").call(x=1),
    "RPC raises": lambda: handle("callee", "kinds.Kinds/One").call(Ask(text="raise")),
    "RPC aborts": lambda: handle("callee", "kinds.Kinds/One").call(Ask(text="abort")),
    "stream fails": lambda: list(handle("callee", "kinds.Kinds/Down").stream(Ask(number=3))),
    "model": lambda: [
        handle("callee", "kinds.Kinds/One").options(multiplexed_model_id=model).call(Ask(text="model")).text
        for model in ("m1", "m2", "")
    ],
}


async def in_coroutine():
    return await failure_async(handle("callee", "kinds.Kinds/One").call_async(Ask(text="abort")))


async def blocks():
    return failure(lambda: handle("callee", "double").call(x=1))


@register.grpc_service("kinds.Kinds")
class Caller:
    def One(self, request):
        if request.text == "in a coroutine":
            return Answer(text=asyncio.run(in_coroutine()))
        if request.text == "blocks":
            return Answer(text=asyncio.run(blocks()))
        return Answer(text=failure(CALLS[request.text]))
"""

CALLEE = """
import grpc


@predict
def double(x):
    return 2 * x


@predict
def fail(x):
    raise ValueError("as asked")


@register.grpc_service("kinds.Kinds")
class Callee:
    def One(self, request, grpc_context):
        if request.text == "raise":
            raise ValueError("as asked")
        if request.text == "abort":
            grpc_context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "no more")
        if request.text == "model":
            return Answer(text=register.get_multiplexed_model_id())
        return Answer(text=request.text)

    def Down(self, request, grpc_context):
        yield Answer()
        grpc_context.abort(grpc.StatusCode.DATA_LOSS, "broken off")
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, generated: Any) -> Iterator[Composed]:
    with composed(tmp_path_factory.mktemp("failures"), generated, {"caller": CALLER, "callee": CALLEE}) as it:
        yield it


PREDICT = "get_servable('callee', method='{}') failed: {}"
KINDS = "get_servable('callee', method='kinds.Kinds/{}') failed: {}"


@pytest.mark.parametrize(
    ("call", "code", "text"),
    [
        (
            "no servable",
            "",
            "get_servable('nobody', method='x') failed: Request Servable(nobody) method(x), servable is",
        ),
        ("no servable of the service", "NOT_FOUND", "Application 'nobody' not found"),
        (
            "no method",
            "",
            PREDICT.format("nothing", "Request Servable(callee) method(nothing), method is not available"),
        ),
        (
            "no version",
            "",
            "get_servable('callee', method='double', version_number=7) failed: Request Servable(callee)",
        ),
        ("no RPC", "UNIMPLEMENTED", KINDS.format("Up", "UNIMPLEMENTED, servable 'callee' has no method")),
        ("no input", "", PREDICT.format("double", "Cannot find input x")),
        ("raises", "", PREDICT.format("fail", "Call Function 'callee.fail' Failed: ValueError: as asked")),
        ("RPC raises", "INTERNAL", "ValueError: as asked"),
        ("RPC aborts", "RESOURCE_EXHAUSTED", KINDS.format("One", "RESOURCE_EXHAUSTED, no more")),
        ("stream fails", "DATA_LOSS", KINDS.format("Down", "DATA_LOSS, broken off")),
        ("in a coroutine", "RESOURCE_EXHAUSTED", KINDS.format("One", "RESOURCE_EXHAUSTED, no more")),
        ("blocks", "FAILED_PRECONDITION", "'call' would block the event loop, use 'call_async'"),
    ],
)
def test_what_fails_raises(server: Composed, call: str, code: str, text: str) -> None:
    given, message = server.failed("caller", call)
    assert given == code
    assert text in message


STREAMER = """
from mindserve.errors import ConfigError


def asks():
    yield Ask()
    raise CallError("asked no more by " + register.get_request_id(), "DATA_LOSS")


async def asks_async():
    for ask in asks():
        yield ask


async def all_of(stream):
    return [each async for each in stream]


def wrong():
    try:
        up.call([Ask(), Answer()])
    except ConfigError as error:
        raise CallError(str(error), "wrong") from None


up = register.get_servable("echo", method="kinds.Kinds/Up")
both = register.get_servable("echo", method="kinds.Kinds/Both")
CALLS = {
    "plain": lambda: up.call(asks()),
    "plain stream": lambda: list(both.stream(asks())),
    "async": lambda: asyncio.run(in_loop(up.call_async, asks_async)),
    "plain requests, async": lambda: asyncio.run(in_loop(up.call_async, asks)),
    "async stream": lambda: asyncio.run(in_loop(lambda requests: all_of(both.stream_async(requests)), asks_async)),
    "wrong": wrong,
}


async def in_loop(call, requests):
    return await call(requests())


@register.grpc_method(service="kinds.Kinds")
def One(request):
    return Answer(text=failure(CALLS[request.text]))


@register.grpc_method(service="kinds.Kinds")
async def Up(requests):
    return await up.call_async(requests)
"""

ECHO = """
@register.grpc_service("kinds.Kinds")
class Echo:
    async def Up(self, requests):
        return Answer(number=len([request async for request in requests]))

    def Both(self, requests):
        for request in requests:
            yield Answer()
"""


def test_requests_that_fail_to_come_tell_why(tmp_path: pathlib.Path, generated: Any) -> None:
    with composed(tmp_path, generated, {"streamer": STREAMER, "echo": ECHO}) as server:
        for call in ("plain", "plain stream", "async", "plain requests, async", "async stream"):
            failed = server.failed("streamer", call, metadata=[("request_id", "mine")])
            assert failed == ("DATA_LOSS", "asked no more by mine"), call
        code, text = server.failed("streamer", "wrong")
        assert (code, "takes kinds.Ask" in text) == ("wrong", True)
        # What the handler's own client sends is passed on, or isn't.
        up = server.channel.stream_unary("/kinds.Kinds/Up")
        with pytest.raises(grpc.RpcError) as caught:
            up(iter([b"", b"\xff"]), metadata=[("application", "streamer")], timeout=60)
        assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert "kinds.Ask" in caught.value.details()


def test_a_model_is_asked_for(server: Composed) -> None:
    assert server.one("caller", "model") == "it gave ['m1', 'm2', '']"


NOT_STARTED = """
late = register.get_servable("late", method="double")


@predict
def ask(x):
    return failure(lambda: late.call(x=x)["y"].item())
"""

LATE = """
@predict
def double(x):
    return 2 * x
"""


def test_whoever_is_started_later_is_called_then(tmp_path: pathlib.Path, generated: Any) -> None:
    after = f"input()\nserver.start_servables(server.ServableStartConfig({str(tmp_path / 'servables')!r}, 'late'))\n"
    servables = {"early": NOT_STARTED, "late": LATE}
    with composed(tmp_path, generated, servables, started=["early"], services=(), after=after + "input()\n") as server:
        code, text = json.loads(server.ask("ask", {"x": 3}, servable="early")[0]["y"])
        assert (code, "servable is not available" in text) == ("", True)
        server.process.tell("go")
        until(lambda: server.ask("ask", {"x": 3}, servable="early")[0]["y"] == "it gave 6")


CIRCLE = """
handlers = register.get_servable("{other}", method="kinds.Kinds/One")
functions = register.get_servable("{other}", method="turn{number}")
other_functions = register.get_servable("{other}", method="turn{other_number}")


@register.grpc_service("kinds.Kinds")
class Circle:
    {kind} One(self, request):
        number = request.number + 1
        try:
            return {call}(Ask(number=number))
        except CallError as error:
            return Answer(text=json.dumps([error.code, str(error)]), number=number)


# A function of each servable that calls the other's.
@predict
def turn{number}(n):
    return failure(lambda: other_functions.call(n=n + 1)["y"])
"""


@pytest.mark.parametrize("kind", ["def", "async def"])
def test_a_circle_of_handlers_ends(tmp_path: pathlib.Path, generated: Any, kind: str) -> None:
    call = "handlers.call" if kind == "def" else "await handlers.call_async"
    fields = {"kind": kind, "call": call}
    servables = {
        "left": CIRCLE.format(other="right", number=1, other_number=2, **fields),
        "right": CIRCLE.format(other="left", number=2, other_number=1, **fields),
    }
    with composed(tmp_path, generated, servables) as server:
        answer = server.stub.One(server.pb2.Ask(), timeout=60, metadata=[("application", "left")])
        code, text = json.loads(answer.text)
        assert code == "FAILED_PRECONDITION"
        assert "servables call one another 17 deep, at most 16 is possible" in text
        assert answer.number == 17
        # Nor does it wait for ever without a deadline: each function's thread waits for a call that needs it.
        (result,) = server.client("turn1", "left").infer({"n": 0})
        assert "function 'left.turn1' waits for this call" in str(result["y"]).replace("\\", "")


def test_a_function_that_calls_itself_is_refused(tmp_path: pathlib.Path, generated: Any) -> None:
    config = """
me = register.get_servable("me", method="again")
other = register.get_servable("me", method="other")


@predict
def again(x):
    return failure(lambda: me.call(x=x))


@predict(name="other")
def double(x):
    return 2 * x


@predict
def allowed(x):
    return other.call(x=x)["y"]
"""
    with composed(tmp_path, generated, {"me": config}, services=()) as server:
        (result,) = server.client("again", "me").infer({"x": 1})
        code, text = json.loads(str(result["y"]))
        assert code == ""
        assert "function 'me.again' waits for this call" in text
        # Other functions of the same servable may be called.
        assert server.ask("allowed", {"x": 3}, servable="me")[0]["y"].item() == 6


RELOADED = """
@register.grpc_service("kinds.Kinds")
class Callee:
    def One(self, request):
        return Answer(text="{version}")


@predict
def version(x):
    return "{version}"
"""

ASKS = """
predict_version = register.get_servable("callee", method="version")
handler_version = register.get_servable("callee", method="kinds.Kinds/One")


@predict
def ask(x):
    return predict_version.call(x=x)["y"] + " " + handler_version.call(Ask()).text
"""


def test_a_callee_is_reloaded_while_it_is_called(tmp_path: pathlib.Path, generated: Any) -> None:
    servables = {"caller": ASKS, "callee": RELOADED.format(version="old")}
    after = "input()\nserver.reload('callee')\nprint('reloaded', flush=True)\ninput()\n"
    with composed(tmp_path, generated, servables, after=after) as server:
        seen = [str(server.ask("ask", {"x": 1}, servable="caller")[0]["y"])]
        path = tmp_path / "servables" / "callee" / "servable_config.py"
        path.write_text(path.read_text(encoding="utf-8").replace('"old"', '"new"'), encoding="utf-8")
        server.process.tell("go")
        while seen[-1] != "new new":
            seen.append(str(server.ask("ask", {"x": 1}, servable="caller")[0]["y"]))
            assert len(seen) < 100_000
        assert server.process.line() == "reloaded"
        # While one is switched for the other, either answers; nothing fails.
        assert set(" ".join(seen).split()) == {"old", "new"}
        assert seen[0] == "old old"


VERSIONED = """
import gc
from mindserve import control

# Of the call that loads this file.
VERSION = next(each for each in gc.get_objects() if isinstance(each, control.WorkerParameters)).version


@predict
def version(x):
    return VERSION
"""

ASKS_VERSIONS = """
@predict
def ask(x):
    handles = [register.get_servable("callee", method="version", version_number=version) for version in (0, 1, 2)]
    return str([handle.call(x=x)["y"].item() for handle in handles])
"""


def test_a_version_is_called(tmp_path: pathlib.Path, generated: Any) -> None:
    directory = tmp_path / "servables"
    configs = ", ".join(
        f"server.ServableStartConfig({str(directory)!r}, 'callee', version_number={version})" for version in (1, 2)
    )
    (directory / "callee" / "2").mkdir(parents=True)
    servables = {"callee": VERSIONED, "caller": ASKS_VERSIONS}
    with composed(
        tmp_path,
        generated,
        servables,
        started=["caller"],
        services=(),
        after=f"server.start_servables([{configs}])\nprint('started', flush=True)\ninput()\n",
    ) as server:
        assert server.process.line() == "started"
        assert server.ask("ask", {"x": 0}, servable="caller")[0]["y"] == "[2, 1, 2]"
