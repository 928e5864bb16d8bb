"""How plain functions, generators, coroutines and async generators answer calls of all four kinds."""

from __future__ import annotations

import asyncio
import logging
import threading
from typing import Any

import pytest

from answering_support import (
    INTERNAL,
    INVALID_ARGUMENT,
    OK,
    UNIMPLEMENTED,
    Handle,
    eventually,
    on_loop,
    plain,
)
from answering_support import generated as generated
from answering_support import handle as handle
from answering_support import kinds as kinds
from mindserve.server import register

KINDS = pytest.mark.parametrize("declare", [plain, on_loop])


@KINDS
def test_one_to_one(handle: Handle, kinds: Any, declare: Any) -> None:
    handled = handle(lambda: declare(kinds[0]))
    answer, end = handled.one("One", handled.ask("abc", 4))
    assert (answer.text, answer.number) == ("ABC", 8)
    assert end == (OK, "", [])


@KINDS
def test_server_streams(handle: Handle, kinds: Any, declare: Any) -> None:
    handled = handle(lambda: declare(kinds[0]))
    answers, end = handled.all("Down", handled.ask("x", 5))
    assert [answer.number for answer in answers] == [0, 1, 2, 3, 4]
    assert end == (OK, "", [])
    assert handled.all("Down", handled.ask("x", 0)) == ([], (OK, "", []))


@KINDS
def test_client_streams(handle: Handle, kinds: Any, declare: Any) -> None:
    handled = handle(lambda: declare(kinds[0]))
    call = handled.open("Up", handled.ask("a"), ends=False)
    call.send(handled.ask("b"))
    call.send(handled.ask("c"))
    call.send(None)
    assert call.ended() == (OK, "", [])
    answer = handled.answer(call.take())
    assert (answer.text, answer.number) == ("a b c", 3)
    answer, _ = handled.one("Up")
    assert (answer.text, answer.number) == ("", 0)


@KINDS
def test_both_stream_in_turn(handle: Handle, kinds: Any, declare: Any) -> None:
    handled = handle(lambda: declare(kinds[0]))
    call = handled.open("Both", ends=False)
    for text in ("one", "two", "three"):
        call.send(handled.ask(text))
        assert handled.answer(call.take()).text == text.upper()
    assert call.end is None
    call.send(None)
    assert handled.answer(call.take()).text == "end"
    assert call.ended() == (OK, "", [])


@KINDS
def test_a_slow_reader_stops_the_generator(handle: Handle, kinds: Any, declare: Any) -> None:
    handled = handle(lambda: declare(kinds[0]), handler_threads=1)
    call = handled.open("Down", handled.ask("x", 100), room=3)
    eventually(lambda: call.taken() == 3)
    # It is not only between two items: others are served, by the one thread there is, and no more comes meanwhile.
    answer, _ = handled.one("One", handled.ask("abc"))
    assert answer.text == "ABC"
    assert call.taken() == 3
    assert [handled.answer(call.take()).number for _ in range(100)] == list(range(100))
    assert call.ended() == (OK, "", [])
    assert call.state is None


@KINDS
def test_bytes_that_are_no_message(handle: Handle, kinds: Any, declare: Any, caplog: Any) -> None:
    handled = handle(lambda: declare(kinds[0]))
    for path in ("One", "Down", "Up", "Both"):
        answers, (code, details, _) = handled.all(path, b"\xff\xff")
        assert answers == [] or path == "Both"
        assert code == INVALID_ARGUMENT, details
        assert "kinds.Ask" in details
        assert f"/kinds.Kinds/{path}" in details
    assert caplog.records == []


@KINDS
def test_a_client_that_sends_no_message(handle: Handle, kinds: Any, declare: Any) -> None:
    handled = handle(lambda: declare(kinds[0]))
    _, (code, details, _) = handled.one("One")
    assert code == UNIMPLEMENTED
    assert "takes exactly one message" in details


def faulty_plain(fault: Any) -> None:
    @register.grpc_method
    def One(request):
        return fault()

    @register.grpc_method
    def Up(requests):
        return fault()

    @register.grpc_method
    def Down(request):
        yield fault()

    @register.grpc_method
    def Both(requests):
        yield fault()


def faulty_on_loop(fault: Any) -> None:
    @register.grpc_method
    async def One(request):
        return fault()

    @register.grpc_method
    async def Up(requests):
        return fault()

    @register.grpc_method
    async def Down(request):
        yield fault()

    @register.grpc_method
    async def Both(requests):
        yield fault()


FAULTY = pytest.mark.parametrize("declare", [faulty_plain, faulty_on_loop])
PATHS = ("One", "Down", "Up", "Both")


@FAULTY
def test_what_raises_is_internal_with_the_end_of_its_trace(handle: Handle, declare: Any, caplog: Any) -> None:
    def fault():
        raise ValueError("x" * 5000 + " ä the end")

    handled = handle(lambda: declare(fault))
    for path in PATHS:
        caplog.clear()
        _, (code, details, _) = handled.one(path, handled.ask())
        assert code == INTERNAL
        assert details.endswith("xxx ä the end")
        assert 4090 < len(details.encode()) <= 4096
        (record,) = caplog.records
        text = record.getMessage()
        assert text.startswith(f"handler {path} of method /kinds.Kinds/{path} raised:\nTraceback (most recent")
        assert "ValueError: xxx" in text
        # The trace begins with the user's code.
        assert "mindserve/worker" not in text
        assert "test_handlers.py" in text


@FAULTY
def test_invalid_input_is_invalid_argument_with_its_text(handle: Handle, declare: Any, caplog: Any) -> None:
    class Mute(register.InvalidInput):
        def __str__(self):
            raise TypeError

    for error, text in (
        (register.InvalidInput("expected größer"), "expected größer"),
        (register.InvalidInput("ä" * 5000), "ä" * 2048),
        (register.InvalidInput(), "InvalidInput"),
        (Mute(), "Mute"),
    ):

        def fault(error=error):
            raise error

        handled = handle(lambda fault=fault: declare(fault))
        for path in PATHS:
            _, (code, details, _) = handled.one(path, handled.ask())
            assert (code, details) == (INVALID_ARGUMENT, text)
    assert caplog.records == []


@FAULTY
def test_traces_may_be_kept_from_clients(handle: Handle, declare: Any, caplog: Any) -> None:
    def fault():
        raise ValueError("a secret")

    handled = handle(lambda: declare(fault), send_tracebacks=False)
    for path in PATHS:
        _, (code, details, _) = handled.one(path, handled.ask())
        assert (code, details) == (INTERNAL, "the handler raised ValueError")
    assert "a secret" in caplog.text


@FAULTY
@pytest.mark.parametrize("error", [SystemExit(3), KeyboardInterrupt(), GeneratorExit()])
def test_what_would_end_a_program_ends_only_the_call(
    handle: Handle, declare: Any, error: BaseException, caplog: Any
) -> None:
    def fault():
        raise error

    handled = handle(lambda: declare(fault), handler_threads=1)
    for path in PATHS:
        _, (code, _, _) = handled.one(path, handled.ask())
        assert code == INTERNAL


@FAULTY
@pytest.mark.parametrize("wrong", [7, "text", None, {"text": "x"}])
def test_a_wrong_type_is_internal_and_says_what_was_expected(
    handle: Handle, declare: Any, wrong: Any, caplog: Any
) -> None:
    handled = handle(lambda: declare(lambda: wrong))
    for path in PATHS:
        caplog.clear()
        _, (code, details, _) = handled.one(path, handled.ask())
        assert code == INTERNAL
        verb = "returned" if path in ("One", "Up") else "yielded"
        shown = "" if isinstance(wrong, dict) else f" ({wrong!r})"
        assert details in (
            f"method /kinds.Kinds/{path}: handler {path} {verb} {type(wrong)}{shown}, expected kinds.Answer",
            # So native code says it.
            f"method /kinds.Kinds/{path}, handler {path}: the handler gave a value of type '{type(wrong).__name__}', "
            "expected '…'",
        )
        assert [record.getMessage() for record in caplog.records] == [details]


class Unspeakable:
    def __repr__(self) -> str:
        raise AssertionError


@pytest.mark.parametrize("wrong", ["t" * 500, b"b" * 500, 10**1000, Unspeakable(), [Unspeakable()]])
def test_a_wrong_type_may_be_large_or_worse(handle: Handle, wrong: Any, caplog: Any) -> None:
    handled = handle(lambda: faulty_plain(lambda: wrong))
    _, (code, details, _) = handled.one("One", handled.ask())
    assert code == INTERNAL
    assert f"returned {type(wrong)}" in details
    assert len(details) < 400


def test_another_message_is_a_wrong_type(handle: Handle, kinds: Any, caplog: Any) -> None:
    handled = handle(lambda: faulty_plain(lambda: kinds[0].Ask(text="t" * 500)))
    _, (code, details, _) = handled.one("One", handled.ask())
    assert code == INTERNAL
    assert "returned <class 'kinds_pb2.Ask'>, expected kinds.Answer" in details


def test_functions_of_the_wrong_kind(handle: Handle, kinds: Any, caplog: Any) -> None:
    pb2 = kinds[0]
    closed = threading.Event()

    async def later(request):
        return pb2.Answer()

    def generator(request):
        try:
            yield pb2.Answer()
        finally:
            closed.set()

    def declare() -> None:
        register.grpc_method("One")(lambda request: later(request))
        register.grpc_method("__call__")(lambda request: generator(request))
        register.grpc_method("Down")(lambda request: None)
        register.grpc_method("Turn", service="kinds.Twin")(lambda request: 5)

        @register.grpc_method
        async def Both(requests):
            return 5

    handled = handle(declare)
    _, (code, details, _) = handled.one("One", handled.ask())
    assert code == INTERNAL
    assert details.endswith(
        "expected kinds.Answer; a function that returns a coroutine should be declared with 'async def'"
    )
    _, (code, details, _) = handled.one("__call__", handled.ask())
    assert code == INTERNAL
    assert "returned <class 'generator'>" in details
    _, (code, details, _) = handled.all("Down", handled.ask())
    assert code == INTERNAL
    assert "returned <class 'NoneType'> (None), expected an iterator of kinds.Answer" in details
    _, (code, details, _) = handled.all("Both", handled.ask())
    assert code == INTERNAL
    assert "returned <class 'int'> (5), expected an iterator of kinds.Answer" in details


def test_iterables_stream_too(handle: Handle, kinds: Any) -> None:
    Answer = kinds[0].Answer

    async def later(count):
        for number in range(count):
            yield Answer(number=number)

    def declare() -> None:
        @register.grpc_method
        def Down(request):
            return [Answer(number=number) for number in range(request.number)]

        @register.grpc_method
        async def Both(requests):
            counts = [request.number async for request in requests]
            return later(counts[0]) if counts[0] < 5 else [Answer(number=1)] * counts[0]

    handled = handle(declare)
    answers, end = handled.all("Down", handled.ask(number=3))
    assert ([answer.number for answer in answers], end[0]) == ([0, 1, 2], OK)
    answers, end = handled.all("Both", handled.ask(number=3))
    assert ([answer.number for answer in answers], end[0]) == ([0, 1, 2], OK)
    call = handled.open("Both", handled.ask(number=6), room=2)
    assert [handled.answer(call.take()).number for _ in range(6)] == [1] * 6
    assert call.ended()[0] == OK


@pytest.mark.parametrize("asynchronous", [False, True])
def test_handlers_know_their_request(handle: Handle, kinds: Any, asynchronous: bool) -> None:
    Answer = kinds[0].Answer

    def who() -> Any:
        return Answer(text=f"{register.get_request_id()} {register.get_multiplexed_model_id()}")

    async def who_later() -> Any:
        return who()

    def declare() -> None:
        if asynchronous:

            @register.grpc_method("One")
            async def one(request):
                return await asyncio.create_task(who_later())

            @register.grpc_method("Down")
            async def down(request):
                for _ in range(3):
                    yield who()
                    await asyncio.sleep(0)
        else:
            register.grpc_method("One")(lambda request: who())
            register.grpc_method("Down")(lambda request: (who() for _ in range(3)))

    handled = handle(declare)
    assert handled.one("One", handled.ask(), request_id="a", model_id="m1")[0].text == "a m1"
    call = handled.open("Down", handled.ask(), request_id="b", room=1)
    other = handled.open("Down", handled.ask(), request_id="c", room=1)
    for _ in range(3):
        assert handled.answer(call.take()).text == "b "
        assert handled.answer(other.take()).text == "c "
    assert register.get_request_id() == ""
    assert register.get_multiplexed_model_id() == ""


def test_what_blocks_the_loop_is_named(handle: Handle, kinds: Any, caplog: Any) -> None:
    release, Answer = threading.Event(), kinds[0].Answer

    def declare() -> None:
        @register.grpc_method
        async def One(request):
            hold_everything_up(release)
            return Answer()

    handled = handle(declare)
    with caplog.at_level(logging.WARNING):
        call = handled.open("One", handled.ask())
        record = eventually(lambda: next(iter(caplog.records), None))
        text = record.getMessage()
        assert text.startswith("the event loop of servable 'kinds' has not come round for 1 s")
        assert "hold_everything_up" in text
        release.set()
        assert call.ended()[0] == OK
        eventually(lambda: "goes on, after" in caplog.text)
    assert len(caplog.records) == 2


def hold_everything_up(release: threading.Event) -> None:
    assert release.wait(60)
