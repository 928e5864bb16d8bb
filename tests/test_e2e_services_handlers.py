"""Handlers of gRPC methods in a worker, asked by grpcio's clients: all kinds of calls, contexts, statuses, ends."""

from __future__ import annotations

import asyncio
import contextlib
import json
import pathlib
import signal
import threading
import time
from collections.abc import Iterator
from typing import Any

import grpc
import pytest

import stubs
from answering_support import generated as generated
from e2e_support import Served, serving, until

CONFIG = """
import asyncio, collections, json, threading, time
import grpc
import kinds_pb2
import kinds_pb2_grpc
from kinds_pb2 import Answer
from mindserve.server import register

state = collections.Counter()
loads = []


@register.grpc_method("__call__")
def report(request):
    return Answer(text=json.dumps({**state, "loads": loads}))


class Base:
    # A request's text says what is to happen.
    def one(self, request, context):
        state["one"] += 1
        if request.text == "raise":
            raise ValueError("as asked")
        if request.text == "wrong":
            return "no message"
        if request.text == "ids":
            return Answer(text=f"{register.get_request_id()} {register.get_multiplexed_model_id()}")
        return Answer(text=request.text.upper(), number=2 * request.number, data=request.data)
"""

PLAIN = """

@register.grpc_service("kinds.Kinds")
class Plain(Base):
    def One(self, request):
        return self.one(request, None)

    def Down(self, request):
        try:
            for number in range(request.number):
                state["yielded"] += 1
                yield Answer(number=number, data=request.data)
                if request.text == "raise" and number == 2:
                    raise ValueError("as asked")
        finally:
            state["closed"] += 1

    def Up(self, requests):
        try:
            count = 0
            for request in requests:
                count += 1
                if request.text == "enough":
                    break
            return Answer(number=count)
        finally:
            state["closed"] += 1

    def Both(self, requests):
        try:
            for request in requests:
                yield Answer(text=request.text.upper(), data=request.data)
            yield Answer(text="end")
        finally:
            state["closed"] += 1
"""

ON_LOOP = """

@register.grpc_service("kinds.Kinds")
class OnLoop(Base):
    async def One(self, request):
        if request.text == "block":
            time.sleep(request.number)
        if request.text == "sleep":
            try:
                await asyncio.sleep(request.number)
            finally:
                state["closed"] += 1
        return self.one(request, None)

    async def Down(self, request):
        try:
            for number in range(request.number):
                state["yielded"] += 1
                yield Answer(number=number, data=request.data)
                if request.text == "raise" and number == 2:
                    raise ValueError("as asked")
        finally:
            state["closed"] += 1

    async def Up(self, requests):
        try:
            count = 0
            async for request in requests:
                count += 1
                if request.text == "enough":
                    break
            return Answer(number=count)
        finally:
            state["closed"] += 1

    async def Both(self, requests):
        try:
            async for request in requests:
                yield Answer(text=request.text.upper(), data=request.data)
            yield Answer(text="end")
        finally:
            state["closed"] += 1
"""

CONTEXT = """

def set_all(context):
    given = context.invocation_metadata()
    metadata = [[key, value.hex() if isinstance(value, bytes) else value] for key, value in given]
    known = {
        "metadata": [pair for pair in metadata if pair[0].startswith("test-")],
        "peer": context.peer(),
        "auth": sorted(context.auth_context()),
        "key": context.peer_identity_key(),
        "remaining": context.time_remaining(),
        "active": context.is_active(),
    }
    context.set_trailing_metadata((("num", "0"), ("raw-bin", b"\\x00\\xff")))
    return json.dumps(known)


@register.grpc_service
class Servicer(kinds_pb2_grpc.KindsServicer):
    def One(self, request, context):
        context.send_initial_metadata((("first", "yes"),))
        known = set_all(context)
        if request.text == "code":
            context.set_code(grpc.StatusCode.INVALID_ARGUMENT)
            context.set_details("ä\\nnot found")
        if request.text == "large":
            context.set_trailing_metadata([("large", "t" * request.number)])
            context.abort(grpc.StatusCode.NOT_FOUND, "d" * request.number)
        if request.text == "abort":
            context.abort(grpc.StatusCode.FAILED_PRECONDITION, "aborted")
        if request.text == "raise":
            context.set_code(grpc.StatusCode.NOT_FOUND)
            raise ValueError("as asked")
        return Answer(text=known)

    async def Down(self, request, context):
        context.set_compression(grpc.Compression.Gzip)
        await context.send_initial_metadata((("first", "yes"),))
        known = set_all(context)
        for number in range(request.number):
            await context.write(Answer(number=number, text="x" * 1000))
        if request.text == "abort":
            await context.abort(grpc.StatusCode.FAILED_PRECONDITION, "aborted")

    async def Up(self, request_iterator, context):
        count = 0
        while await context.read() is not grpc.aio.EOF:
            count += 1
        return Answer(number=count)

    def Both(self, request_iterator, context):
        set_all(context)
        for request in request_iterator:
            if request.text == "cancel":
                context.cancel()
            if request.text == "wait":
                over = threading.Event()
                context.add_callback(over.set)
                state["waiting"] += 1
                assert over.wait(120)
                state["over"] += 1
            yield Answer(text=request.text)


class ModelOf:
    def __init__(self, name):
        self.name = name


@register.multiplexed(max_num_models_per_worker=1)
async def get_model(model_id):
    loads.append(model_id)
    return ModelOf(model_id)


@register.grpc_method("Turn", service="kinds.Twin")
async def turn(request):
    model = await get_model(register.get_multiplexed_model_id())
    return Answer(text=f"loading model: {model.name}")


@register.driver
def drive(inputs):
    return b"".join(key.encode() + value for key, value in sorted(inputs.items()))
"""

ADDERS = ["kinds_pb2_grpc.add_KindsServicer_to_server", "kinds_pb2_grpc.add_TwinServicer_to_server"]


class Asked:
    """A server that answers, and a channel to it."""

    def __init__(self, served: Served, kinds: tuple[Any, Any], **options: Any) -> None:
        self.served = served
        self.pb2, self.pb2_grpc = kinds
        self.channel = grpc.insecure_channel(
            served.address, [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
        )
        self.stub = self.pb2_grpc.KindsStub(self.channel)

    def ask(self, text: str = "", number: int = 0, data: bytes = b"") -> Any:
        return self.pb2.Ask(text=text, number=number, data=data)

    def state(self) -> dict[str, Any]:
        """What the handlers have counted."""
        path = "/kinds.Kinds/__call__"
        reply = self.channel.unary_unary(
            path,
            request_serializer=lambda ask: ask.SerializeToString(),
            response_deserializer=self.pb2.Answer.FromString,
        )(self.ask(), timeout=60)
        state = json.loads(reply.text)
        assert isinstance(state, dict)
        return state

    def log(self) -> str:
        """The worker's log."""
        (path,) = (self.served.process.cwd / "serving_logs").glob("*.log")
        return path.read_text(encoding="utf-8")


@contextlib.contextmanager
def served(folder: pathlib.Path, generated: Any, config: str, adders: list[str], start: str = "") -> Iterator[Asked]:
    (folder / "servables" / "kinds").mkdir(parents=True)
    stubs.generate(folder / "servables" / "kinds")
    with serving(
        folder,
        "kinds",
        config,
        start=start,
        listen=f"'127.0.0.1:0', grpc_servicer_functions={adders!r}",
    ) as server:
        asked = Asked(server, generated)
        try:
            yield asked
        finally:
            asked.channel.close()


@pytest.fixture(scope="module", params=["plain", "loop"])
def asked(tmp_path_factory: pytest.TempPathFactory, generated: Any, request: pytest.FixtureRequest) -> Iterator[Asked]:
    config = CONFIG + (PLAIN if request.param == "plain" else ON_LOOP)
    with served(tmp_path_factory.mktemp("kinds"), generated, config, ADDERS[:1]) as server:
        yield server


@pytest.fixture(scope="module")
def with_context(tmp_path_factory: pytest.TempPathFactory, generated: Any) -> Iterator[Asked]:
    with served(tmp_path_factory.mktemp("context"), generated, CONFIG + CONTEXT, ADDERS) as server:
        yield server


def failed(call: Any) -> grpc.Call:
    with pytest.raises(grpc.RpcError) as error:
        call()
    assert isinstance(error.value, grpc.Call)
    return error.value


def test_one_to_one(asked: Asked) -> None:
    answer = asked.stub.One(asked.ask("abc", 3), timeout=60)
    assert (answer.text, answer.number) == ("ABC", 6)


def test_many_at_once(asked: Asked) -> None:
    futures = [asked.stub.One.future(asked.ask(str(number), number), timeout=60) for number in range(500)]
    assert [future.result().number for future in futures] == [2 * number for number in range(500)]


def test_server_streams(asked: Asked) -> None:
    answers = asked.stub.Down(asked.ask(number=3000), timeout=60)
    assert [answer.number for answer in answers] == list(range(3000))
    assert list(asked.stub.Down(asked.ask(number=0), timeout=60)) == []


def test_client_streams(asked: Asked) -> None:
    assert asked.stub.Up((asked.ask() for _ in range(1000)), timeout=60).number == 1000
    assert asked.stub.Up(iter(()), timeout=60).number == 0


def test_a_handler_may_answer_before_the_client_has_ended(asked: Asked) -> None:
    go_on = threading.Event()

    def requests() -> Iterator[Any]:
        yield asked.ask()
        yield asked.ask("enough")
        go_on.wait(60)

    try:
        assert asked.stub.Up(requests(), timeout=60).number == 2
    finally:
        go_on.set()


def test_both_stream_in_turn(asked: Asked) -> None:
    told: list[str] = ["first"]
    more = threading.Semaphore(1)

    def requests() -> Iterator[Any]:
        while len(told) < 5:
            assert more.acquire(timeout=60)
            yield asked.ask(told[-1])

    texts = []
    for answer in asked.stub.Both(requests(), timeout=60):
        texts.append(answer.text)
        told.append(f"after {answer.text}")
        more.release()
    assert texts[0] == "FIRST"
    assert texts[1] == "AFTER FIRST"
    assert texts[-1] == "end"


@pytest.mark.parametrize("size", [0, 1, 70_000, 5_000_000])
def test_messages_of_any_size(asked: Asked, size: int) -> None:
    data = bytes(range(256)) * (size // 256) + b"x" * (size % 256)
    assert asked.stub.One(asked.ask(data=data), timeout=60).data == data
    assert [answer.data for answer in asked.stub.Down(asked.ask(number=3, data=data), timeout=60)] == [data] * 3
    assert [a.data for a in asked.stub.Both((asked.ask(data=data) for _ in range(3)), timeout=60)] == [data] * 3 + [b""]


def test_a_slow_reader_stops_the_generator(asked: Asked) -> None:
    before = asked.state()
    call = asked.stub.Down(asked.ask(number=100_000, data=b"x" * 10_000), timeout=120)
    assert next(call).number == 0
    settled = until(
        lambda: (asked.state().get("yielded", 0), time.sleep(0.3), asked.state().get("yielded", 0)),
        lambda seen: seen[0] == seen[2],
    )
    # What fits into HTTP/2's windows and the worker's bound: far from the gigabyte that it could give.
    assert settled[0] - before.get("yielded", 0) < 5000
    # It goes on when it is read.
    for expected in range(1, 6000):
        assert next(call).number == expected
    call.cancel()
    until(lambda: asked.state()["closed"] > before.get("closed", 0))


def test_cancelling_ends_the_handler(asked: Asked) -> None:
    before = asked.state().get("closed", 0)
    go_on = threading.Event()

    def requests() -> Iterator[Any]:
        yield asked.ask("a")
        go_on.wait(60)

    call = asked.stub.Both(requests(), timeout=60)
    assert next(call).text == "A"
    call.cancel()
    until(lambda: asked.state()["closed"] > before)
    go_on.set()


def test_a_deadline_ends_the_handler(asked: Asked) -> None:
    before = asked.state().get("closed", 0)
    go_on = threading.Event()

    def requests() -> Iterator[Any]:
        yield asked.ask("a")
        go_on.wait(60)

    error = failed(lambda: list(asked.stub.Both(requests(), timeout=0.5)))
    assert error.code() == grpc.StatusCode.DEADLINE_EXCEEDED
    until(lambda: asked.state()["closed"] > before)
    go_on.set()


def test_a_handler_that_raises(asked: Asked) -> None:
    error = failed(lambda: asked.stub.One(asked.ask("raise"), timeout=60, metadata=[("request_id", "raises-7")]))
    assert error.code() == grpc.StatusCode.INTERNAL
    details = error.details() or ""
    assert details.startswith("Traceback (most recent call last):")
    assert details.endswith("ValueError: as asked")
    assert dict(error.trailing_metadata())["request_id"] == "raises-7"
    # Once, and with the request's id.
    line = until(lambda: [line for line in asked.log().splitlines() if "raises-7" in line])
    assert len(line) == 1
    assert "[raises-7]: handler " in line[0]
    assert "/kinds.Kinds/One raised:" in line[0]


def test_a_stream_that_raises_in_its_midst(asked: Asked) -> None:
    call = asked.stub.Down(asked.ask("raise", 10), timeout=60)
    seen = []
    error = failed(lambda: seen.extend(iter(lambda: next(call).number, None)))
    assert seen == [] or seen == [0, 1, 2]
    assert error.code() == grpc.StatusCode.INTERNAL
    assert (error.details() or "").endswith("ValueError: as asked")


def test_a_handler_that_returns_no_message(asked: Asked) -> None:
    error = failed(lambda: asked.stub.One(asked.ask("wrong"), timeout=60))
    assert error.code() == grpc.StatusCode.INTERNAL
    details = error.details() or ""
    assert "/kinds.Kinds/One" in details
    assert "str" in details
    assert "expected" in details
    assert "kinds.Answer" in details


@pytest.mark.parametrize("name", ["One", "Down", "Up", "Both"])
def test_bytes_that_are_no_message(asked: Asked, name: str) -> None:
    path = f"/kinds.Kinds/{name}"
    call = {
        "One": lambda: asked.channel.unary_unary(path)(b"\xff\xff", timeout=60),
        "Down": lambda: list(asked.channel.unary_stream(path)(b"\xff\xff", timeout=60)),
        "Up": lambda: asked.channel.stream_unary(path)(iter([b"\xff\xff"]), timeout=60),
        "Both": lambda: list(asked.channel.stream_stream(path)(iter([b"\xff\xff"]), timeout=60)),
    }[name]
    error = failed(call)
    assert error.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert "kinds.Ask" in (error.details() or "")
    assert path in (error.details() or "")


def test_ids_of_the_request(asked: Asked) -> None:
    answer, call = asked.stub.One.with_call(
        asked.ask("ids"), timeout=60, metadata=[("request_id", "id-9"), ("multiplexed_model_id", "m")]
    )
    assert answer.text == "id-9 m"
    assert dict(call.trailing_metadata()) == {"request_id": "id-9"}
    answer, call = asked.stub.One.with_call(asked.ask("ids"), timeout=60)
    made = dict(call.trailing_metadata())["request_id"]
    assert len(made) == 36
    assert answer.text == f"{made} "


def test_the_worker_lives_on(asked: Asked) -> None:
    """Nothing that the other tests do ends it: run with them, it has answered them all."""
    assert len(asked.served.process.workers()) == 1
    assert "Traceback" not in asked.served.process.errors()


def test_what_a_context_knows_and_says(with_context: Asked) -> None:
    answer, call = with_context.stub.One.with_call(
        with_context.ask(), timeout=60, metadata=[("test-text", "abc"), ("test-raw-bin", b"\x01\xfe")]
    )
    known = json.loads(answer.text)
    assert known["metadata"] == [["test-text", "abc"], ["test-raw-bin", "01fe"]]
    assert known["peer"].startswith("ipv4:127.0.0.1:")
    assert known["auth"] == []
    assert known["key"] is None
    # grpcio rounds up what it sends.
    assert 0 < known["remaining"] <= 61
    assert known["active"]
    assert dict(call.initial_metadata())["first"] == "yes"
    trailing = dict(call.trailing_metadata())
    assert trailing.pop("request_id")
    assert trailing == {"num": "0", "raw-bin": b"\x00\xff"}


@pytest.mark.parametrize(
    ("text", "code", "details"),
    [
        ("code", grpc.StatusCode.INVALID_ARGUMENT, "ä\nnot found"),
        ("abort", grpc.StatusCode.FAILED_PRECONDITION, "aborted"),
        ("raise", grpc.StatusCode.INTERNAL, "ValueError: as asked"),
    ],
)
def test_statuses_of_a_context(with_context: Asked, text: str, code: Any, details: str) -> None:
    error = failed(lambda: with_context.stub.One(with_context.ask(text), timeout=60))
    assert error.code() == code
    assert (error.details() or "").endswith(details)
    trailing = dict(error.trailing_metadata())
    assert trailing["num"] == "0"
    assert trailing["request_id"]


def test_a_stream_written_by_its_context(with_context: Asked) -> None:
    call = with_context.stub.Down(with_context.ask(number=2000), timeout=60)
    assert dict(call.initial_metadata())["first"] == "yes"
    answers = list(call)
    assert [answer.number for answer in answers] == list(range(2000))
    assert {answer.text for answer in answers} == {"x" * 1000}
    assert dict(call.trailing_metadata())["num"] == "0"
    call = with_context.stub.Down(with_context.ask("abort", number=2), timeout=60)
    error = failed(lambda: list(call))
    assert (error.code(), error.details()) == (grpc.StatusCode.FAILED_PRECONDITION, "aborted")


def test_a_client_that_reads_by_the_context(with_context: Asked) -> None:
    assert with_context.stub.Up((with_context.ask() for _ in range(300)), timeout=60).number == 300


def test_a_handler_may_cancel(with_context: Asked) -> None:
    call = with_context.stub.Both(iter([with_context.ask("a"), with_context.ask("cancel")]), timeout=60)
    error = failed(lambda: list(call))
    assert error.code() == grpc.StatusCode.CANCELLED


def test_a_callback_wakes_a_handler_whose_client_has_gone(with_context: Asked) -> None:
    go_on = threading.Event()

    def requests() -> Iterator[Any]:
        yield with_context.ask("wait")
        go_on.wait(60)

    before = with_context.state().get("over", 0)
    waiting = with_context.state().get("waiting", 0)
    call = with_context.stub.Both(requests(), timeout=60)
    until(lambda: with_context.state().get("waiting", 0) > waiting)
    assert with_context.state().get("over", 0) == before
    call.cancel()
    until(lambda: with_context.state().get("over", 0) > before)
    go_on.set()


@pytest.mark.parametrize("size", [4000, 1_000_000])
def test_metadata_and_details_of_any_size_are_an_answer(with_context: Asked, size: int) -> None:
    error = failed(lambda: with_context.stub.One(with_context.ask("large", size), timeout=60))
    if size == 4000:
        assert error.code() == grpc.StatusCode.NOT_FOUND
        assert error.details() == "d" * size
        assert dict(error.trailing_metadata())["large"] == "t" * size
    else:
        # More than a client takes, or the gateway sends; but a status, and the connection goes on.
        assert error.code() in (grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.INTERNAL, grpc.StatusCode.NOT_FOUND)
    assert with_context.stub.One(with_context.ask(), timeout=60).text


def test_models_are_loaded_on_demand(with_context: Asked) -> None:
    stub = with_context.pb2_grpc.TwinStub(with_context.channel)
    for model in ("999", "999", "1000", "999"):
        answer = stub.Turn(with_context.ask(), timeout=60, metadata=[("multiplexed_model_id", model)])
        assert answer.text == f"loading model: {model}"
    assert with_context.state()["loads"] == ["999", "1000", "999"]
    error = failed(lambda: stub.Turn(with_context.ask(), timeout=60))
    assert error.code() == grpc.StatusCode.INTERNAL
    assert "has no 'multiplexed_model_id'" in (error.details() or "")


def test_what_is_not_answered_is_unimplemented(with_context: Asked) -> None:
    error = failed(lambda: with_context.pb2_grpc.TwinStub(with_context.channel).One(with_context.ask(), timeout=60))
    assert error.code() == grpc.StatusCode.UNIMPLEMENTED


def test_what_blocks_the_loop_stands_in_the_log(tmp_path: pathlib.Path, generated: Any) -> None:
    with served(tmp_path, generated, CONFIG + ON_LOOP, ADDERS[:1], start="send_tracebacks=False") as server:
        server.stub.One(server.ask("block", 3), timeout=60)
        log = until(server.log, lambda text: "goes on, after" in text)
        assert "the event loop of servable 'kinds' has not come round" in log
        assert "time.sleep(request.number)" in log
        error = failed(lambda: server.stub.One(server.ask("raise"), timeout=60))
        assert (error.code(), error.details()) == (grpc.StatusCode.INTERNAL, "the handler raised ValueError")


def test_cancelling_a_coroutine(tmp_path: pathlib.Path, generated: Any) -> None:
    with served(tmp_path, generated, CONFIG + ON_LOOP, ADDERS[:1]) as server:
        call = server.stub.One.future(server.ask("sleep", 3600), timeout=600)
        assert server.state().get("closed", 0) == 0
        call.cancel()
        until(lambda: server.state().get("closed", 0) == 1)


STUCK = """
@register.grpc_method("One", service="kinds.Kinds")
def stuck(request):
    if request.text == "stuck":
        state["stuck"] += 1
        threading.Event().wait()
    return Answer(text=request.text)
"""


def test_a_handler_that_never_returns_holds_a_thread_and_nothing_else(tmp_path: pathlib.Path, generated: Any) -> None:
    with served(tmp_path, generated, CONFIG + STUCK, ADDERS[:1], start="handler_threads=2") as server:
        error = failed(lambda: server.stub.One(server.ask("stuck"), timeout=0.5))
        assert error.code() == grpc.StatusCode.DEADLINE_EXCEEDED
        assert server.state()["stuck"] == 1
        assert server.stub.One(server.ask("other"), timeout=60).text == "other"
        # Nor does it keep the server from ending.
        server.served.process.send(signal.SIGTERM)
        assert server.served.process.wait() == 0


ALL_STUCK = """
import os


@register.grpc_method("One", service="kinds.Kinds")
def stuck(request):
    if request.text == "stuck":
        while not os.path.exists("go_on"):
            time.sleep(0.01)
    return Answer(text=request.text)
"""


def test_handlers_that_hold_all_threads_stand_in_the_log(tmp_path: pathlib.Path, generated: Any) -> None:
    with served(tmp_path, generated, CONFIG + ALL_STUCK, ADDERS[:1], start="handler_threads=2") as server:
        calls = [server.stub.One.future(server.ask("stuck"), timeout=100) for _ in range(3)]
        log = until(server.log, lambda text: "none of the handler threads" in text)
        assert "and 1 wait: all are held by their handlers" in log
        assert "in the handler of /kinds.Kinds/One" in log
        assert "time.sleep(0.01)" in log
        (server.served.process.cwd / "go_on").touch()
        assert {call.result().text for call in calls} == {"stuck"}
        log = until(server.log, lambda text: "go on, after" in text)
        assert log.count("none of the handler threads") == 1


def test_identities_of_a_client(tmp_path: pathlib.Path, generated: Any, own_files: Any) -> None:
    config = (
        CONFIG
        + """
@register.grpc_method("One", service="kinds.Kinds")
def who(request, grpc_context):
    auth = {key: [value.decode() for value in values] for key, values in grpc_context.auth_context().items()}
    names = [name.decode() for name in grpc_context.peer_identities()]
    return Answer(text=json.dumps([auth, grpc_context.peer_identity_key(), names]))
"""
    )
    (tmp_path / "servables" / "kinds").mkdir(parents=True)
    stubs.generate(tmp_path / "servables" / "kinds")
    files = own_files
    ssl_config = (
        f"server.SSLConfig({str(files.server)!r}, {str(files.server_key)!r}, {str(files.ca)!r}, verify_client=True)"
    )
    listen = f"'localhost:0', ssl_config={ssl_config}, grpc_servicer_functions={ADDERS[:1]!r}"
    with serving(tmp_path, "kinds", config, listen=listen) as server:
        key, certificate, ca = (pathlib.Path(path).read_bytes() for path in (files.client_key, files.client, files.ca))
        credentials = grpc.ssl_channel_credentials(ca, key, certificate)
        with grpc.secure_channel(server.address, credentials) as channel:
            answer = generated[1].KindsStub(channel).One(generated[0].Ask(), timeout=60)
    auth, key_name, names = json.loads(answer.text)
    assert auth["transport_security_type"] == ["ssl"]
    (pem,) = auth["x509_pem_cert"]
    assert pem.strip() == certificate.decode().strip()
    assert auth["x509_common_name"]
    assert names == auth[key_name]


def test_many_open_streams_on_the_loop(tmp_path: pathlib.Path, generated: Any) -> None:
    with served(tmp_path, generated, CONFIG + ON_LOOP, ADDERS[:1]) as server:
        (worker,) = server.served.process.workers()

        async def open_many(count: int) -> None:
            async with grpc.aio.insecure_channel(server.served.address) as channel:
                stub = server.pb2_grpc.KindsStub(channel)
                calls = [stub.Both() for _ in range(count)]
                for turn in ("one", "two"):
                    await asyncio.gather(*(call.write(server.ask(turn)) for call in calls))
                    answers = await asyncio.gather(*(call.read() for call in calls))
                    assert {answer.text for answer in answers} == {turn.upper()}
                await asyncio.gather(*(call.done_writing() for call in calls))
                assert {answer.text for answer in await asyncio.gather(*(call.read() for call in calls))} == {"end"}

        threads = len(list(pathlib.Path(f"/proc/{worker}/task").iterdir()))
        asyncio.run(open_many(900))
        assert len(list(pathlib.Path(f"/proc/{worker}/task").iterdir())) <= threads + 1
