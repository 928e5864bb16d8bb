"""Handlers of gRPC methods in a worker, asked by grpcio's clients: all kinds of calls, statuses, ends."""

from __future__ import annotations

import asyncio
import pathlib
import signal
import threading
import time
from collections.abc import Iterator
from typing import Any

import grpc
import pytest

from answering_support import generated as generated
from e2e_support import until
from services_handlers_support import ADDERS, CONFIG, ON_LOOP, PLAIN, Asked, failed, served


@pytest.fixture(scope="module", params=["plain", "loop"])
def asked(tmp_path_factory: pytest.TempPathFactory, generated: Any, request: pytest.FixtureRequest) -> Iterator[Asked]:
    config = CONFIG + (PLAIN if request.param == "plain" else ON_LOOP)
    with served(tmp_path_factory.mktemp("kinds"), generated, config, ADDERS[:1]) as server:
        yield server


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

    error = failed(lambda: list(asked.stub.Both(requests(), timeout=2)))
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


def test_failures_that_clients_cause_do_not_fill_the_log(asked: Asked) -> None:
    """Ten a second of a kind; how many more there were stands behind the next."""
    size, began = len(asked.log()), time.monotonic()
    futures = [asked.stub.One.future(asked.ask("raise"), timeout=60) for _ in range(1000)]
    assert {future.code() for future in futures} == {grpc.StatusCode.INTERNAL}

    def once_more() -> str:
        failed(lambda: asked.stub.One(asked.ask("raise"), timeout=60))
        return asked.log()[size:]

    said = until(once_more, lambda said: "more like it were left out before" in said)
    assert said.count("/kinds.Kinds/One raised:") <= 10 * (time.monotonic() - began + 2)


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
        until(lambda: server.state().get("sleeping", 0) == 1)
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
        error = failed(lambda: server.stub.One(server.ask("stuck"), timeout=3))
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


RESTING = """
@register.grpc_service("kinds.Kinds")
class Resting:
    def One(self, request):
        return Answer(text=request.text)

    def Up(self, requests):
        with open("begun", "a") as begun:
            begun.write("x")
        return Answer(number=len(list(requests)))

    async def Both(self, requests):
        number = 0
        async for request in requests:
            number += 1
            if request.text == "answer":
                yield Answer(number=number)
"""


def test_clients_that_rest_make_room_for_others(tmp_path: pathlib.Path, generated: Any) -> None:
    """They hold all threads, and send nothing: it costs them their calls once others wait for a thread."""
    go_on = threading.Event()

    def nothing() -> Iterator[Any]:
        go_on.wait(100)
        yield from ()

    with served(tmp_path, generated, CONFIG + RESTING, ADDERS[:1], start="handler_threads=2") as server:
        begun = server.served.process.cwd / "begun"
        try:
            calls = [server.stub.Up.future(nothing(), timeout=100) for _ in range(3)]
            until(lambda: begun.exists() and begun.read_text() == "xx")
            with grpc.insecure_channel(server.served.address, [("grpc.use_local_subchannel_pool", 1)]) as other:
                stub = server.pb2_grpc.KindsStub(other)
                assert stub.One(server.ask("other"), timeout=60).text == "other"
            # The third has a thread now, which nobody lacks.
            until(lambda: begun.read_text() == "xxx" and any(call.done() for call in calls))
            ended = [call for call in calls if call.done()]
            # One thread for the third and the other client's is enough, unless these came to wait together.
            assert len(ended) <= 2
            assert {call.code() for call in ended} == {grpc.StatusCode.RESOURCE_EXHAUSTED}
            assert {call.details() for call in ended} == {
                "no message came from the client for 5 s, while other calls waited for one of the handler threads"
            }
        finally:
            go_on.set()
        assert {call.result().number for call in calls if call not in ended} == {0}
        log = until(server.log, lambda text: "since others waited for their handler threads" in text)
        assert " of /kinds.Kinds/Up" in log
        assert "raised" not in log
        assert "none of the handler threads" not in log


def test_a_client_that_keeps_all_threads_makes_room_for_others(tmp_path: pathlib.Path, generated: Any) -> None:
    """Its streams never rest for long: it costs it those beyond its share once others wait for a thread."""
    go_on = threading.Event()

    with served(tmp_path, generated, CONFIG + RESTING, ADDERS[:1], start="handler_threads=2") as server:
        begun = server.served.process.cwd / "begun"

        def now_and_then() -> Iterator[Any]:
            while not go_on.wait(1):
                yield server.ask("")

        try:
            calls = [server.stub.Up.future(now_and_then(), timeout=100) for _ in range(2)]
            until(lambda: begun.exists() and begun.read_text() == "xx")
            with grpc.insecure_channel(server.served.address, [("grpc.use_local_subchannel_pool", 1)]) as other:
                stub = server.pb2_grpc.KindsStub(other)
                assert stub.One(server.ask("other"), timeout=60).text == "other"
                ended = until(lambda: [call for call in calls if call.done()])
                assert [call.code() for call in ended] == [grpc.StatusCode.RESOURCE_EXHAUSTED]
                assert ended[0].details() == (
                    "the client holds more handler threads than its share, "
                    "while other calls waited for one of the handler threads"
                )
                # It comes back, and has to leave a thread to calls of the other kind: those wait no more.
                calls.append(server.stub.Up.future(now_and_then(), timeout=100))
                for number in range(20):
                    assert stub.One(server.ask(str(number)), timeout=4).text == str(number)
            assert begun.read_text() == "xx"
        finally:
            go_on.set()
        first, second = (call.result().number for call in calls if call not in ended)
        assert first > 0
        assert second >= 0


def test_clients_whose_messages_nobody_answers_make_room_for_others(tmp_path: pathlib.Path, generated: Any) -> None:
    """They hold all places, and it is their turn: it costs them their calls once others are refused."""
    go_on = threading.Event()
    limits = "max_enqueued_requests=3, body_idle_timeout=1"
    with served(tmp_path, generated, CONFIG + RESTING, ADDERS[:1], limits=limits) as server:

        def ask(*texts: str) -> Iterator[Any]:
            yield from map(server.ask, texts)
            go_on.wait(100)

        try:
            calls = [server.stub.Both(ask("answer", "no answer", "none either"), timeout=100) for _ in range(3)]
            assert [next(call).number for call in calls] == [1, 1, 1]
            with grpc.insecure_channel(server.served.address, [("grpc.use_local_subchannel_pool", 1)]) as other:
                stub = server.pb2_grpc.KindsStub(other)

                def code() -> grpc.StatusCode:
                    future = stub.One.future(server.ask("other"), timeout=60)
                    refused = future.code()
                    assert refused is not None
                    if refused is not grpc.StatusCode.OK:
                        assert "max_enqueued_requests" in future.details()
                    return refused

                assert code() is grpc.StatusCode.RESOURCE_EXHAUSTED
                until(code, lambda it: it is grpc.StatusCode.OK, seconds=20)
            until(lambda: all(call.done() for call in calls))
            assert {call.code() for call in calls} == {grpc.StatusCode.RESOURCE_EXHAUSTED}
            assert {call.details() for call in calls} == {
                "no message came within body_idle_timeout 1000 ms, while others lacked max_enqueued_requests"
            }
        finally:
            go_on.set()


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
