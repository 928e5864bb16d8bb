"""How calls of handlers end before their time: cancelled by the client, by themselves, or with the worker."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest

from answering_support import CANCELLED, Handle, Handled, eventually, on_loop
from answering_support import generated as generated
from answering_support import handle as handle
from answering_support import kinds as kinds
from mindserve.server import register


class Ending:
    """A generator's way out."""

    def __init__(self) -> None:
        self.closed = threading.Event()
        self.errors: list[type[BaseException] | None] = []

    def note(self, error: BaseException | None) -> None:
        self.errors.append(None if error is None else type(error))
        self.closed.set()


def cancel_after_one(handled: Handled) -> Any:
    """A call of Down whose client goes away when it has one message."""
    call = handled.open("Down", handled.ask(), room=1)
    eventually(lambda: call.taken() == 1)
    call.cancel()
    return call


def test_cancelling_closes_a_generator_that_waits_for_its_reader(handle: Handle, kinds: Any, caplog: Any) -> None:
    Answer, ending = kinds[0].Answer, Ending()

    def declare() -> None:
        @register.grpc_method
        def Down(request):
            try:
                while True:
                    yield Answer()
            except BaseException as error:
                ending.note(error)
                raise

    handled = handle(declare)
    call = handled.open("Down", handled.ask(), room=2)
    eventually(lambda: call.taken() == 2)
    call.cancel()
    assert ending.closed.wait(60)
    assert ending.errors == [GeneratorExit]
    eventually(lambda: call.state is None)
    assert caplog.records == []


def test_cancelling_ends_the_iteration_of_the_clients_messages(handle: Handle, kinds: Any, caplog: Any) -> None:
    Answer, ending = kinds[0].Answer, Ending()

    def declare() -> None:
        @register.grpc_method
        def Both(requests):
            try:
                for request in requests:
                    yield Answer(text=request.text)
            finally:
                ending.closed.set()

    handled = handle(declare)
    call = handled.open("Both", handled.ask("a"), ends=False)
    assert handled.answer(call.take()).text == "a"
    call.cancel()
    assert ending.closed.wait(60)
    assert caplog.records == []


def test_a_generator_that_raises_when_it_is_closed_is_logged(handle: Handle, kinds: Any, caplog: Any) -> None:
    Answer = kinds[0].Answer

    def declare() -> None:
        @register.grpc_method
        def Down(request):
            try:
                while True:
                    yield Answer()
            finally:
                yield Answer()

    cancel_after_one(handle(declare))
    (record,) = eventually(lambda: caplog.records)
    assert record.getMessage() == (
        "handler Down of method /kinds.Kinds/Down raised when its call was over: "
        "RuntimeError: generator ignored GeneratorExit"
    )


def test_cancelling_a_coroutine(handle: Handle, kinds: Any, caplog: Any) -> None:
    Answer, ending, begun = kinds[0].Answer, Ending(), threading.Event()

    def declare() -> None:
        @register.grpc_method
        async def One(request):
            try:
                begun.set()
                await asyncio.sleep(3600)
            except BaseException as error:
                ending.note(error)
                raise
            return Answer()

    handled = handle(declare)
    call = handled.open("One", handled.ask())
    assert begun.wait(60)
    call.cancel()
    assert ending.closed.wait(60)
    assert ending.errors == [asyncio.CancelledError]
    eventually(lambda: call.state is None)
    assert caplog.records == []


def test_cancelling_before_the_coroutine_has_begun(handle: Handle, kinds: Any, caplog: Any) -> None:
    handled = handle(lambda: on_loop(kinds[0]))
    for _ in range(200):
        call = handled.open("Up", ends=False)
        call.cancel()
        eventually(lambda call=call: call.state is None and call not in handled.runtime._events)
    answer, _ = handled.one("One", handled.ask("still there"))
    assert answer.text == "STILL THERE"
    assert caplog.records == []


@pytest.mark.parametrize("waits_for", ["the reader", "itself", "the client"])
def test_cancelling_closes_an_async_generator(handle: Handle, kinds: Any, waits_for: str, caplog: Any) -> None:
    Answer, ending, begun = kinds[0].Answer, Ending(), threading.Event()

    def declare() -> None:
        @register.grpc_method
        async def Both(requests):
            try:
                yield Answer(text="first")
                begun.set()
                if waits_for == "itself":
                    await asyncio.sleep(3600)
                if waits_for == "the client":
                    async for request in requests:
                        raise AssertionError(request)
                yield Answer(text="second")
            except BaseException as error:
                ending.note(error)
                raise

    handled = handle(declare)
    call = handled.open("Both", ends=False, room=2 if waits_for == "the reader" else 100)
    assert begun.wait(60)
    eventually(lambda: call.taken() == (2 if waits_for == "the reader" else 1))
    call.cancel()
    assert ending.closed.wait(60)
    assert ending.errors == [GeneratorExit if waits_for == "the reader" else asyncio.CancelledError]
    eventually(lambda: call.state is None)
    assert caplog.records == []


def test_an_async_generator_that_goes_on_after_being_cancelled(handle: Handle, kinds: Any, caplog: Any) -> None:
    Answer, begun, ending = kinds[0].Answer, threading.Event(), Ending()

    def declare() -> None:
        @register.grpc_method
        async def Down(request):
            try:
                try:
                    begun.set()
                    await asyncio.sleep(3600)
                except asyncio.CancelledError:
                    yield Answer(text="too late")
            except BaseException as error:
                ending.note(error)
                raise

    handled = handle(declare)
    call = handled.open("Down", handled.ask())
    assert begun.wait(60)
    call.cancel()
    assert ending.closed.wait(60)
    assert ending.errors == [GeneratorExit]
    (record,) = eventually(lambda: caplog.records)
    assert record.getMessage() == "handler Down of method /kinds.Kinds/Down yielded after its call was cancelled"
    eventually(lambda: call.state is None)
    assert call.taken() == 0


def test_an_async_generator_that_refuses_to_be_closed(handle: Handle, kinds: Any, caplog: Any) -> None:
    Answer = kinds[0].Answer

    def declare() -> None:
        @register.grpc_method
        async def Down(request):
            try:
                while True:
                    yield Answer()
            finally:
                yield Answer()

    call = cancel_after_one(handle(declare))
    eventually(lambda: "RuntimeError: async generator ignored GeneratorExit" in caplog.text)
    eventually(lambda: call.state is None)


def test_a_handler_that_cancels_itself(handle: Handle, kinds: Any) -> None:
    def declare() -> None:
        @register.grpc_method
        async def One(request):
            raise asyncio.CancelledError

    handled = handle(declare)
    _, (code, details, _) = handled.one("One", handled.ask())
    assert (code, details) == (CANCELLED, "handler One was cancelled")


def test_the_end_cancels_what_still_runs(handle: Handle, kinds: Any) -> None:
    ending, begun = Ending(), threading.Event()

    def declare() -> None:
        @register.grpc_method
        async def One(request):
            try:
                begun.set()
                await asyncio.sleep(3600)
            except BaseException as error:
                ending.note(error)
                raise

    handled = handle(declare)
    handled.open("One", handled.ask())
    assert begun.wait(60)
    assert handled.answering.stop_loop(60)
    assert ending.errors == [asyncio.CancelledError]
