"""The context that handlers get, on threads and on the event loop."""

from __future__ import annotations

import asyncio
import gzip
import inspect
import pathlib
import re
import threading
from typing import Any

import grpc
import pytest

from answering_support import (
    CANCELLED,
    FAILED_PRECONDITION,
    INTERNAL,
    INVALID_ARGUMENT,
    NOT_FOUND,
    OK,
    UNKNOWN,
    Handle,
    Handled,
    eventually,
)
from answering_support import generated as generated
from answering_support import handle as handle
from answering_support import kinds as kinds
from mindserve.server import register
from mindserve.worker.grpc_context import GrpcContext
from mindserve.worker.metadata import RESERVED


async def _settle(value: Any) -> Any:
    return await value if inspect.isawaitable(value) else value


class Both:
    """A handle for which a test's one function answers in each of the forms there are."""

    def __init__(self, handle: Handle, kinds: Any, asynchronous: bool) -> None:
        self._handle = handle
        self._kinds = kinds
        self._asynchronous = asynchronous
        self.Answer = kinds[0].Answer

    def __call__(self, function: Any, **options: Any) -> Handled:
        """Unary and server-streaming handlers; ``function(context)`` gives the answer or answers."""

        def declare() -> None:
            if self._asynchronous:

                @register.grpc_method("One", service="kinds.Kinds")
                async def one(request, grpc_context):
                    return function(grpc_context)

                @register.grpc_method("Down")
                async def down(request, grpc_context):
                    for item in function(grpc_context):
                        yield item
            else:
                register.grpc_method("One", service="kinds.Kinds")(lambda request, grpc_context: function(grpc_context))

                @register.grpc_method("Down")
                def down_plain(request, grpc_context):
                    yield from function(grpc_context)

        return self._handle(declare, **options)


@pytest.fixture(params=[False, True], ids=["plain", "async"])
def both(handle: Handle, kinds: Any, request: pytest.FixtureRequest) -> Both:
    return Both(handle, kinds, request.param)


def test_what_is_known_of_the_call(both: Both) -> None:
    seen: list[Any] = []

    def function(context: Any) -> Any:
        metadata = context.invocation_metadata()
        seen.extend(
            [
                dict(metadata),
                metadata[0].key,
                metadata[0].value,
                context.peer(),
                context.time_remaining(),
                context.is_active(),
                context.cancelled(),
                context.done(),
                context.code(),
                context.details(),
                context.trailing_metadata(),
            ]
        )
        return both.Answer()

    handled = both(function)
    handled.one("One", handled.ask(), metadata=(("key", "value"), ("key-bin", b"\xff")), seconds=100)
    assert 0 < seen.pop(4) <= 100
    assert seen == [
        {"key": "value", "key-bin": b"\xff"}, "key", "value", "ipv4:127.0.0.1:1", True, False, False, None, "", (),
    ]  # fmt: skip


def test_without_a_deadline_any_time_remains(both: Both) -> None:
    seen = []
    handled = both(lambda context: seen.append(context.time_remaining()) or both.Answer())
    handled.one("One", handled.ask())
    assert seen == [None]
    handled.one("One", handled.ask(), seconds=-1)
    assert seen == [None, 0.0]


@pytest.mark.parametrize(
    ("auth", "key", "identities"),
    [
        ({}, None, None),
        ({"transport_security_type": [b"ssl"]}, None, None),
        ({"x509_common_name": [b"me"]}, "x509_common_name", [b"me"]),
        (
            {"x509_common_name": [b"me"], "x509_subject_alternative_name": [b"a", b"b"]},
            "x509_subject_alternative_name",
            [b"a", b"b"],
        ),
    ],
)
def test_identities(both: Both, auth: Any, key: Any, identities: Any) -> None:
    seen: list[Any] = []

    def function(context: Any) -> Any:
        seen.extend([context.auth_context(), context.peer_identity_key(), context.peer_identities()])
        return both.Answer()

    handled = both(function)
    handled.one("One", handled.ask(), auth=auth)
    assert seen == [auth, key, identities]


@pytest.mark.parametrize("code", [grpc.StatusCode.INVALID_ARGUMENT, 3])
def test_a_code_that_is_set_is_the_end_without_a_message(both: Both, code: Any) -> None:
    def function(context: Any) -> Any:
        context.set_code(code)
        context.set_details("ä not found")
        context.set_trailing_metadata([("num", "0"), ("more-bin", b"\x00")])
        assert context.code() is code
        assert context.details() == "ä not found"
        return both.Answer()

    handled = both(function)
    answer, end = handled.one("One", handled.ask())
    assert answer is None
    assert end == (INVALID_ARGUMENT, "ä not found", [("num", "0"), ("more-bin", b"\x00")])


def test_without_a_message_a_code_is_enough(both: Both) -> None:
    handled = both(lambda context: context.set_code(grpc.StatusCode.NOT_FOUND))
    assert handled.one("One", handled.ask()) == (None, (NOT_FOUND, "", []))


def test_code_ok_and_details_go_with_the_message(both: Both) -> None:
    def function(context: Any) -> Any:
        context.set_code(grpc.StatusCode.OK)
        context.set_details("fine")
        return both.Answer(text="x")

    handled = both(function)
    answer, end = handled.one("One", handled.ask())
    assert answer.text == "x"
    assert end == (OK, "fine", [])


def test_a_stream_may_end_with_a_code(both: Both) -> None:
    def function(context: Any) -> Any:
        yield both.Answer(number=1)
        context.set_code(grpc.StatusCode.NOT_FOUND)
        context.set_trailing_metadata((("a", "b"),))

    handled = both(function)
    answers, end = handled.all("Down", handled.ask())
    assert [answer.number for answer in answers] == [1]
    assert end == (NOT_FOUND, "", [("a", "b")])


def test_what_raises_is_internal_whatever_was_set(both: Both) -> None:
    def function(context: Any) -> Any:
        context.set_code(grpc.StatusCode.NOT_FOUND)
        context.set_details("details")
        context.set_trailing_metadata([("a", "b")])
        raise KeyError("boom")

    handled = both(function)
    for path in ("One", "Down"):
        _, (code, details, trailing) = handled.one(path, handled.ask())
        assert code == INTERNAL
        assert details.endswith("KeyError: 'boom'")
        assert trailing == [("a", "b")]


class Status:
    """As a ``grpc.Status``."""

    code = grpc.StatusCode.NOT_FOUND
    details = "gone"
    trailing_metadata = (("x", "y"),)


@pytest.mark.parametrize(
    ("abort", "end"),
    [
        (lambda context: context.abort(grpc.StatusCode.NOT_FOUND, "gone"), (NOT_FOUND, "gone", [("a", "b")])),
        (lambda context: context.abort(5, "gone"), (NOT_FOUND, "gone", [("a", "b")])),
        (lambda context: context.abort(9, "gone", (("x", "y"),)), (FAILED_PRECONDITION, "gone", [("x", "y")])),
        (lambda context: context.abort_with_status(Status), (NOT_FOUND, "gone", [("x", "y")])),
    ],
)
def test_abort(both: Both, abort: Any, end: Any, caplog: Any) -> None:
    def function(context: Any) -> Any:
        context.set_trailing_metadata([("a", "b")])
        abort(context)
        raise AssertionError

    handled = both(function)
    for path in ("One", "Down"):
        assert handled.one(path, handled.ask()) == (None, end)
    assert caplog.records == []


def test_an_abort_that_is_caught_still_counts(both: Both, caplog: Any) -> None:
    def function(context: Any) -> Any:
        try:
            context.abort(grpc.StatusCode.NOT_FOUND, "gone")
        except Exception as error:
            raise ValueError from error

    def quiet(context: Any) -> Any:
        with pytest.raises(Exception, match="NOT_FOUND: gone"):
            context.abort(grpc.StatusCode.NOT_FOUND, "gone")
        return both.Answer()

    for each in (function, quiet):
        handled = both(each)
        assert handled.one("One", handled.ask()) == (None, (NOT_FOUND, "gone", []))

    def stream(context: Any) -> Any:
        yield both.Answer()
        quiet(context)

    handled = both(stream)
    assert handled.all("Down", handled.ask())[1] == (NOT_FOUND, "gone", [])
    assert caplog.records == []


def test_abort_with_ok_is_unknown(both: Both, caplog: Any) -> None:
    handled = both(lambda context: context.abort(grpc.StatusCode.OK, "fine"))
    assert handled.one("One", handled.ask()) == (None, (UNKNOWN, "", []))
    assert "aborted with status OK" in caplog.text


@pytest.mark.parametrize(
    ("wrong", "error"),
    [
        (
            lambda context: context.set_code("NOT_FOUND"),
            "TypeError: A status code should be a member of grpc.StatusCode",
        ),
        (lambda context: context.set_code(17), "ValueError: A status code should be in range [0,16], but actually 17"),
        (lambda context: context.set_code(True), "TypeError: A status code should be"),
        (lambda context: context.set_details(5), "TypeError: The details of a status should be str"),
        (lambda context: context.abort(5, 7), "TypeError: The details of a status should be str"),
        (
            lambda context: context.set_compression(9),
            "ValueError: The compression should be a member of grpc.Compressi",
        ),
        (lambda context: context.set_compression("gzip"), "TypeError: The compression should be"),
        (lambda context: context.set_trailing_metadata(["abc"]), "TypeError: The trailing metadata should be pairs"),
        (
            lambda context: context.set_trailing_metadata([("a", 1)]),
            "TypeError: The trailing metadata should be str key",
        ),
        (lambda context: context.set_trailing_metadata([("A", "1")]), "ValueError: The trailing metadata has key 'A'"),
        (
            lambda context: context.set_trailing_metadata([("a", "ä")]),
            "ValueError: The trailing metadata has value 'ä'",
        ),
        (lambda context: context.set_trailing_metadata([("a", b"\n")]), "ValueError: The trailing metadata has value"),
        (lambda context: context.set_trailing_metadata([("grpc-x", "1")]), "key 'grpc-x', which is reserved"),
        (lambda context: context.set_trailing_metadata([("te", "1")]), "key 'te', which is reserved"),
        (lambda context: context.set_trailing_metadata([("request_id", "1")]), "key 'request_id', which is reserved"),
        (
            lambda context: context.set_trailing_metadata([("mindserve-variation", "a")]),
            "key 'mindserve-variation', which is reserved",
        ),
        (lambda context: context.send_initial_metadata([(":path", "1")]), "ValueError: The initial metadata has key"),
        (
            lambda context: (context.send_initial_metadata(()), context.send_initial_metadata(())),
            "ValueError: Initial metadata are sent once, before the first message",
        ),
        (
            lambda context: (context.send_initial_metadata(()), context.set_compression(grpc.Compression.Gzip)),
            "RuntimeError: The compression is set before",
        ),
    ],
)
def test_what_can_not_be_set(both: Both, wrong: Any, error: str, caplog: Any) -> None:
    handled = both(wrong)
    _, (code, details, _) = handled.one("One", handled.ask())
    assert code == INTERNAL
    assert error in details


def test_metadata_in_forms_that_grpc_takes(both: Both) -> None:
    def function(context: Any) -> Any:
        context.send_initial_metadata(grpc.aio.Metadata(("a", "b"), ("a", "c")))
        context.set_trailing_metadata({"text": b"as bytes", "data-bin": "as text", "grpc-status-details-bin": b"\n"})
        return both.Answer()

    handled = both(function)
    call = handled.open("One", handled.ask())
    assert call.ended() == (
        OK,
        "",
        [("text", "as bytes"), ("data-bin", b"as text"), ("grpc-status-details-bin", b"\n")],
    )
    assert call.initial == ([("a", "b"), ("a", "c")], False)


def test_the_gateway_reserves_the_same_keys() -> None:
    root = pathlib.Path(__file__).resolve().parent.parent
    native: set[str] = {"request_id", "mindserve-variation"}  # by the names of constants
    for file, function in (("grpc_text.cc", "bool IsMetadataKey("), ("user_metadata.cc", "bool IsReserved(")):
        text = (root / "csrc" / "gateway" / file).read_text(encoding="utf-8")
        body = text.partition(function)[2].partition("\n}\n")[0]
        native |= {name for name in re.findall(r'"([a-z-]+)"', body) if not name.startswith("grpc-")}
    assert native == RESERVED


def test_compression(both: Both) -> None:
    def function(context: Any) -> Any:
        context.set_compression(grpc.Compression.Gzip)
        yield both.Answer(text="x" * 1000)
        context.disable_next_message_compression()
        yield both.Answer(text="x" * 1000)
        yield both.Answer(text="y" * 1000)
        yield both.Answer(text="short")

    handled = both(function)
    call = handled.open("Down", handled.ask())
    assert call.ended()[0] == OK
    assert call.initial == ([], True)
    assert call.compressed == [True, False, True, False]
    assert handled.answer(gzip.decompress(call.take())).text == "x" * 1000
    assert handled.answer(call.take()).text == "x" * 1000


def test_compression_with_initial_metadata_of_the_handlers(both: Both) -> None:
    def function(context: Any) -> Any:
        context.set_compression(grpc.Compression.Gzip)
        context.send_initial_metadata([("a", "b")])
        return both.Answer(text="x" * 1000)

    handled = both(function)
    call = handled.open("One", handled.ask())
    assert call.ended()[0] == OK
    assert call.initial == ([("a", "b")], True)
    assert call.compressed == [True]


def test_compression_for_a_client_that_takes_none(both: Both) -> None:
    def function(context: Any) -> Any:
        context.set_compression(grpc.Compression.Gzip)
        return both.Answer(text="x" * 1000)

    handled = both(function)
    call = handled.open("One", handled.ask(), plain=True)
    assert call.ended()[0] == OK
    assert call.initial is None
    assert call.compressed == [False]


@pytest.mark.parametrize("compression", [grpc.Compression.Deflate, grpc.Compression.NoCompression])
def test_no_compression(both: Both, compression: Any) -> None:
    def function(context: Any) -> Any:
        context.set_compression(compression)
        return both.Answer(text="x" * 1000)

    handled = both(function)
    call = handled.open("One", handled.ask())
    assert call.ended()[0] == OK
    assert call.initial is None
    assert call.compressed == [False]


def test_initial_metadata_after_a_message_are_too_late(both: Both) -> None:
    def function(context: Any) -> Any:
        yield both.Answer()
        context.send_initial_metadata([("a", "b")])

    handled = both(function)
    assert "it is too late for them" in handled.all("Down", handled.ask())[1][1]


def test_cancel_ends_the_call(both: Both) -> None:
    seen: list[bool] = []

    def function(context: Any) -> Any:
        seen.append(context.cancel())
        seen.extend([context.is_active(), context.cancel(), context.add_callback(lambda: None)])
        return both.Answer()

    handled = both(function)
    assert handled.one("One", handled.ask()) == (None, (CANCELLED, "cancelled by the server", []))
    eventually(lambda: len(seen) == 4)  # the handler goes on meanwhile
    assert seen == [True, False, False, False]


def test_a_call_that_ends_while_a_callback_is_added_is_not_watched() -> None:
    class Call:
        cancelled = False

        def finish(self, *end: Any) -> None:
            pass

    class Watch:
        def __init__(self) -> None:
            self.watched: set[Any] = set()

        def add(self, call: Any, context: Any) -> None:
            context.end(OK, "")  # by another thread, just before
            self.watched.add(call)

        def remove(self, call: Any) -> None:
            self.watched.discard(call)

    called: list[str] = []
    call, watch = Call(), Watch()
    context = GrpcContext(call, None, watch)  # type: ignore[arg-type]
    assert context.add_callback(lambda: called.append("over"))
    assert called == ["over"]
    assert not watch.watched


@pytest.mark.parametrize("waits_for", ["the client", "the reader"])
def test_cancel_wakes_a_coroutine_that_waits(handle: Handle, kinds: Any, waits_for: str) -> None:
    contexts: list[Any] = []
    ended = threading.Event()

    def declare() -> None:
        @register.grpc_method
        async def Both(requests, grpc_context):
            try:
                yield kinds[0].Answer()
                contexts.append(grpc_context)
                if waits_for == "the client":
                    async for _ in requests:
                        pass
                while True:
                    yield kinds[0].Answer()
            finally:
                ended.set()

    handled = handle(declare)
    call = handled.open("Both", ends=False, room=3)
    eventually(lambda: contexts and (call._wants or call.refused))
    assert contexts[0].cancel()
    assert call.ended() == (CANCELLED, "cancelled by the server", [])
    assert ended.wait(60)
    eventually(lambda: call.state is None)


def test_callbacks_come_at_the_end(both: Both, caplog: Any) -> None:
    called: list[Any] = []

    def function(context: Any) -> Any:
        assert context.add_callback(lambda: called.append("one"))
        assert context.add_callback(lambda: 1 / 0)
        context.add_done_callback(lambda given: called.append(given is context and not given.is_active()))
        assert called == []
        return both.Answer()

    handled = both(function)
    handled.one("One", handled.ask())
    eventually(lambda: len(called) == 2)
    assert called == ["one", True]
    assert "ZeroDivisionError" in caplog.text


def test_callbacks_come_when_the_client_cancels(both: Both) -> None:
    called, cancelled = threading.Event(), []

    def function(context: Any) -> Any:
        def callback() -> None:
            cancelled.append(context.cancelled())
            called.set()

        context.add_callback(callback)
        while True:
            yield both.Answer()

    handled = both(function)
    call = handled.open("Down", handled.ask(), room=2)
    eventually(lambda: call.taken() == 2)
    assert not called.is_set()
    call.cancel()
    assert called.wait(60)
    assert cancelled == [True]


@pytest.mark.parametrize("cancelled_first", [False, True])
def test_callbacks_of_a_function_that_is_blocked(handle: Handle, kinds: Any, cancelled_first: bool) -> None:
    pb2, begun, go_on, woken = kinds[0], threading.Event(), threading.Event(), threading.Event()

    def declare() -> None:
        @register.grpc_method("__call__")
        def wait(request, grpc_context):
            begun.set()
            assert go_on.wait(60)
            if grpc_context.add_callback(woken.set):
                assert woken.wait(60)
            return pb2.Answer()

    handled = handle(declare)
    call = handled.open("__call__", handled.ask())
    assert begun.wait(60)
    if cancelled_first:
        call.cancel()
    go_on.set()
    if not cancelled_first:
        eventually(lambda: handled.answering._loop and handled.answering._loop._watched)
        assert not woken.is_set()
        call.cancel()
        assert woken.wait(60)
    eventually(lambda: not (handled.answering._loop and handled.answering._loop._watched))


def test_a_servicer_as_people_write_them_for_grpc(handle: Handle, kinds: Any) -> None:
    pb2, pb2_grpc = kinds

    class Servicer(pb2_grpc.KindsServicer):
        def One(self, request, context):
            if not request.text:
                context.set_code(grpc.StatusCode.INVALID_ARGUMENT)
                context.set_details("empty")
                return pb2.Answer()
            return pb2.Answer(text=request.text)

        def Down(self, request, context):
            for number in range(request.number):
                yield pb2.Answer(number=number)

        def Up(self, request_iterator, context):
            return pb2.Answer(number=next(request_iterator).number + next(request_iterator).number)

    handled = handle(lambda: register.grpc_service(Servicer))
    assert handled.one("One", handled.ask("x"))[0].text == "x"
    assert handled.one("One", handled.ask()) == (None, (INVALID_ARGUMENT, "empty", []))
    assert len(handled.all("Down", handled.ask(number=4))[0]) == 4
    assert handled.one("Up", handled.ask(number=4), handled.ask(number=5))[0].number == 9


def test_a_servicer_as_people_write_them_for_grpc_aio(handle: Handle, kinds: Any) -> None:
    pb2, pb2_grpc = kinds

    class Servicer(pb2_grpc.KindsServicer):
        async def One(self, request, context):
            await context.send_initial_metadata((("a", "b"),))
            if not request.text:
                await context.abort(grpc.StatusCode.INVALID_ARGUMENT, "empty")
            return pb2.Answer(text=request.text)

        async def Down(self, request, context):
            for number in range(request.number):
                await context.write(pb2.Answer(number=number))

        async def Up(self, request_iterator, context):
            total = 0
            while (request := await context.read()) is not grpc.aio.EOF:
                total += request.number
            return pb2.Answer(number=total)

        async def Both(self, request_iterator, context):
            async for request in request_iterator:
                await context.write(pb2.Answer(text=request.text))
                await asyncio.sleep(0)

    handled = handle(lambda: register.grpc_service(Servicer))
    call = handled.open("One", handled.ask("x"))
    assert call.ended() == (OK, "", [])
    assert call.initial == ([("a", "b")], False)
    assert handled.one("One", handled.ask()) == (None, (INVALID_ARGUMENT, "empty", []))
    call = handled.open("Down", handled.ask(number=40), room=3)
    eventually(lambda: call.taken() == 3)
    assert [handled.answer(call.take()).number for _ in range(40)] == list(range(40))
    assert call.ended() == (OK, "", [])
    call = handled.open("Up", ends=False)
    for number in (1, 2, 3):
        call.send(handled.ask(number=number))
    call.send(None)
    assert call.ended()[0] == OK
    assert handled.answer(call.take()).number == 6
    answers, end = handled.all("Both", handled.ask("a"), handled.ask("b"))
    assert [answer.text for answer in answers] == ["a", "b"]
    assert end[0] == OK


def test_writing_a_wrong_type(handle: Handle, kinds: Any, caplog: Any) -> None:
    def declare() -> None:
        @register.grpc_method
        async def Down(request, grpc_context):
            await grpc_context.write(7)

    handled = handle(declare)
    _, (code, details, _) = handled.all("Down", handled.ask())
    assert (code, details) == (
        INTERNAL,
        "method /kinds.Kinds/Down: handler Down wrote <class 'int'> (7), expected kinds.Answer",
    )


def test_many_tasks_may_write_and_one_may_read(handle: Handle, kinds: Any) -> None:
    pb2 = kinds[0]
    errors: list[str] = []

    def declare() -> None:
        @register.grpc_method
        async def Both(requests, grpc_context):
            first = asyncio.create_task(grpc_context.read())
            await asyncio.sleep(0)
            try:
                await grpc_context.read()
            except RuntimeError as error:
                errors.append(str(error))
            await asyncio.gather(*(grpc_context.write(pb2.Answer(number=number)) for number in range(10)))
            await first

    handled = handle(declare)
    call = handled.open("Both", ends=False, room=2)
    assert sorted(handled.answer(call.take()).number for _ in range(10)) == list(range(10))
    assert errors == ["the messages of method /kinds.Kinds/Both are being read by another task"]
    call.send(handled.ask())
    assert call.ended()[0] == OK
