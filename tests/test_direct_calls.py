"""Calls from inside the server's process: `mindserve._native.DirectCalls`."""

from __future__ import annotations

import ast
import asyncio
import gc
import select
from collections.abc import Iterator
from typing import Any

import pytest

import stubs
from answering_support import generated as generated
from conftest import ECHO_SERVABLE
from e2e_support import Served, request, serving, tensor
from mindserve import native
from mindserve._native import DirectCalls, Gateway
from mindserve.proto import PREDICT, messages

HEALTH = "/grpc.health.v1.Health/Check"
SERVING = b"\x08\x01"
OK, CANCELLED, INVALID_ARGUMENT, DEADLINE_EXCEEDED, UNIMPLEMENTED, UNAVAILABLE = 0, 1, 3, 4, 12, 14

# --- A gateway alone. ---


@pytest.fixture
def gateway() -> Iterator[Gateway]:
    gateway = native.load().Gateway(io_threads=2)
    gateway.listen([], {})
    yield gateway
    gateway.stop_listening(0)


@pytest.fixture
def direct(gateway: Gateway) -> DirectCalls:
    return native.load().DirectCalls(gateway)


def take(direct: DirectCalls) -> list[Any]:
    """The next events; fails if there are none."""
    assert select.select([direct.fileno()], [], [], 60)[0]
    return list(direct.take())


def events_of(direct: DirectCalls, call: int) -> list[Any]:
    """All events of the only call that goes on, without its number."""
    events: list[Any] = []
    while not events or events[-1][0] != "end":
        for number, *event in take(direct):
            assert number == call
            events.append(tuple(event))
    return events


def test_a_call(direct: DirectCalls) -> None:
    call = direct.start(HEALTH, [("key", "value"), ("key-bin", b"\0\xff")], [b""], 60.0, client=7)
    assert events_of(direct, call) == [("message", SERVING), ("end", OK, "", [])]
    assert direct.take() == []
    assert not select.select([direct.fileno()], [], [], 0)[0]


@pytest.mark.parametrize(
    ("path", "metadata", "code", "details"),
    [
        ("/a/b", [], UNIMPLEMENTED, "no method '/a/b' is served"),
        (HEALTH, [("Key", "v")], INVALID_ARGUMENT, "metadata 'Key' is no name for metadata, expected lower-case"),
        (HEALTH, [("host", "v")], INVALID_ARGUMENT, "metadata 'host' is a name that HTTP or gRPC has for itself"),
        (HEALTH, [("key", "a\nb")], INVALID_ARGUMENT, "metadata 'key' has a value that is not printable ASCII"),
    ],
)
def test_what_is_wrong_with_a_call_is_its_end(
    direct: DirectCalls, path: str, metadata: list[tuple[str, str]], code: int, details: str
) -> None:
    ((kind, given, text, _),) = events_of(direct, direct.start(path, metadata, [b""]))
    assert (kind, given) == ("end", code)
    assert text.startswith(details)


def test_arguments_that_can_not_be(direct: DirectCalls) -> None:
    for timeout in (-1.0, float("nan")):
        with pytest.raises(ValueError, match=r"timeout is .*, expected 0 s or more"):
            direct.start(HEALTH, [], [b""], timeout)
    wrong: Any = direct
    with pytest.raises(TypeError, match="a message is str, expected bytes"):
        wrong.start(HEALTH, [], ["text"])
    with pytest.raises(TypeError, match="metadata is int, expected str or bytes"):
        wrong.start(HEALTH, [("key", 1)], [b""])
    with pytest.raises(ValueError, match="client is -1, expected 0 or more"):
        wrong.start(HEALTH, [], [b""], client=-1)
    assert direct.take() == []


def test_from_asyncio(direct: DirectCalls) -> None:
    async def ask_all() -> list[int]:
        loop = asyncio.get_running_loop()
        futures: dict[int, asyncio.Future[int]] = {}

        def on_readable() -> None:
            for number, kind, *rest in direct.take():
                if kind == "end":
                    futures.pop(number).set_result(rest[0])

        loop.add_reader(direct.fileno(), on_readable)
        try:
            asked = []
            for client in range(500):
                call = direct.start(HEALTH, [], [b""], client=client)
                futures[call] = loop.create_future()
                asked.append(futures[call])
            return await asyncio.wait_for(asyncio.gather(*asked), 60)
        finally:
            loop.remove_reader(direct.fileno())

    assert asyncio.run(ask_all()) == [OK] * 500


def test_messages_are_let_go(direct: DirectCalls) -> None:
    class Watched(bytes):
        alive = 0

        def __del__(self) -> None:
            Watched.alive -= 1

    for _ in range(20):
        Watched.alive += 1
        call = direct.start(HEALTH, [], [Watched()])
        events_of(direct, call)
    direct.take()
    gc.collect()
    assert Watched.alive == 0


def test_the_gateway_goes_first() -> None:
    core = native.load()
    gateway = core.Gateway()
    gateway.listen([], {})
    direct = core.DirectCalls(gateway)
    watch = direct.start("/grpc.health.v1.Health/Watch", [], [b""])
    assert take(direct) == [(watch, "message", SERVING)]
    del gateway
    assert events_of(direct, watch)[-1][:2] == ("end", UNAVAILABLE)
    call = direct.start(HEALTH, [], [b""])
    assert events_of(direct, call) == [("end", UNAVAILABLE, "the server is shutting down", [])]


def test_cancelled(direct: DirectCalls) -> None:
    watch = direct.start("/grpc.health.v1.Health/Watch", [], [b""])
    assert take(direct) == [(watch, "message", SERVING)]
    direct.cancel(watch)
    assert events_of(direct, watch) == [("end", CANCELLED, "the call was given up", [])]
    direct.cancel(watch)
    assert direct.take() == []


# --- A whole server. ---

# Answers each line of its input: the value of an expression.
DRIVER = """
import select
import sys
from mindserve.server import start

running = start._current.get()
direct = running._native.DirectCalls(running._gateway)


def ask(path, metadata, messages, consume=True, **options):
    call = direct.start(path, metadata, messages, **options)
    events = []
    while not events or events[-1][0] != "end":
        assert select.select([direct.fileno()], [], [], 60)[0]
        for number, *event in direct.take():
            assert number == call
            events.append(tuple(event))
            if consume and event[0] == "message":
                direct.consumed(call, 1)
        if not consume and len(events) == 16:
            direct.cancel(call)
    return events


for line in sys.stdin:
    print(repr(eval(line)), flush=True)
"""

CONFIG = (
    ECHO_SERVABLE
    + """
import time
import grpc
import kinds_pb2_grpc
from kinds_pb2 import Answer


@register.grpc_service
class Kinds(kinds_pb2_grpc.KindsServicer):
    def One(self, request, context):
        if request.text == "fail":
            context.set_trailing_metadata([("why-bin", b"\\0\\1")])
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, "as asked")
        while request.text == "sleep" and context.is_active():
            time.sleep(0.01)
        context.send_initial_metadata([("peer", context.peer())])
        return Answer(text=request.text.upper(), data=request.data)

    def Down(self, request, context):
        for number in range(request.number):
            yield Answer(number=number, data=request.data)

    def Up(self, request_iterator, context):
        return Answer(number=sum(request.number for request in request_iterator))

    def Both(self, request_iterator, context):
        for request in request_iterator:
            yield Answer(number=request.number)
"""
)


class Asked:
    def __init__(self, served: Served, pb2: Any) -> None:
        self._process = served.process
        self.pb2 = pb2

    def events(self, path: str, messages: list[bytes], *metadata: tuple[str, str | bytes], **options: Any) -> list[Any]:
        given = "".join(f", {name}={value!r}" for name, value in options.items())
        self._process.tell(f"ask({path!r}, {list(metadata)!r}, {messages!r}{given})")
        events = ast.literal_eval(self._process.line())
        assert isinstance(events, list)
        return events

    def kinds(self, name: str, *asks: Any, **options: Any) -> tuple[list[Any], list[Any]]:
        """The answers of a method, and the events that are none."""
        events = self.events(f"/kinds.Kinds/{name}", [ask.SerializeToString() for ask in asks], **options)
        answers = [self.pb2.Answer.FromString(event[1]) for event in events if event[0] == "message"]
        return answers, [event for event in events if event[0] != "message"]


@pytest.fixture(scope="module")
def asked(tmp_path_factory: pytest.TempPathFactory, generated: tuple[Any, Any]) -> Iterator[Asked]:
    folder = tmp_path_factory.mktemp("direct")
    (folder / "servables" / "echo").mkdir(parents=True)
    stubs.generate(folder / "servables" / "echo")
    listen = "'127.0.0.1:0', grpc_servicer_functions=['kinds_pb2_grpc.add_KindsServicer_to_server']"
    with serving(folder, "echo", CONFIG, listen=listen, after=DRIVER) as served:
        yield Asked(served, generated[0])


def test_predict(asked: Asked) -> None:
    message = request("echo", "same", {"x": tensor("hello")}).SerializeToString()
    answer, end = asked.events(PREDICT, [message], ("request_id", "mine"))
    reply = messages.PredictReply.FromString(answer[1])
    assert reply.instances[0].items["x"].bytes_val == [b"hello"]
    assert end == ("end", OK, "", [("request_id", "mine")])


def test_large_messages(asked: Asked) -> None:
    data = bytes(range(256)) * 20_000
    (answer,), _ = asked.kinds("One", asked.pb2.Ask(data=data))
    assert answer.data == data


def test_a_users_call(asked: Asked) -> None:
    (answer,), (initial, end) = asked.kinds("One", asked.pb2.Ask(text="abc"), peer="ipv4:1.2.3.4:5")
    assert answer.text == "ABC"
    assert ("peer", "ipv4:1.2.3.4:5") in initial[1]
    assert end[:3] == ("end", OK, "")
    assert "request_id" in dict(end[3])


def test_a_users_error(asked: Asked) -> None:
    answers, (end,) = asked.kinds("One", asked.pb2.Ask(text="fail"))
    assert answers == []
    assert end[1:3] == (INVALID_ARGUMENT, "as asked")
    assert dict(end[3])["why-bin"] == b"\0\1"


def test_a_deadline(asked: Asked) -> None:
    _, (end,) = asked.kinds("One", asked.pb2.Ask(text="sleep"), timeout=0.1)
    assert end[1:3] == (DEADLINE_EXCEEDED, "the call's deadline has passed")


def test_a_stream(asked: Asked) -> None:
    answers, events = asked.kinds("Down", asked.pb2.Ask(number=1000, data=b"x" * 1000))
    assert [answer.number for answer in answers] == list(range(1000))
    assert events[-1][1] == OK


def test_a_stream_that_nobody_reads_is_held_back(asked: Asked) -> None:
    answers, events = asked.kinds("Down", asked.pb2.Ask(number=1_000_000_000, data=b"x"), consume=False)
    assert [answer.number for answer in answers] == list(range(16))
    assert events[-1][1] == CANCELLED


def test_clients_streams(asked: Asked) -> None:
    asks = [asked.pb2.Ask(number=number) for number in range(500)]
    (answer,), _ = asked.kinds("Up", *asks)
    assert answer.number == sum(range(500))
    answers, _ = asked.kinds("Both", *asks)
    assert [answer.number for answer in answers] == list(range(500))
