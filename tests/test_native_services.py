"""The native side of users' services, without the Python that stands between it and handlers: a gateway and a worker's
runtime in one process."""

from __future__ import annotations

import contextlib
import contextvars
import gc
import pathlib
import select
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import grpc
import pytest
from google.protobuf.descriptor_pb2 import UninterpretedOption
from google.protobuf.wrappers_pb2 import Int64Value, StringValue

from mindserve import native

core = native.load()

PATIENCE = 30.0
CURRENT: contextvars.ContextVar[Any] = contextvars.ContextVar("current")


def eventually(condition: Callable[[], bool]) -> bool:
    until = time.monotonic() + PATIENCE
    while not condition():
        if time.monotonic() > until:
            return False
        time.sleep(0.001)
    return True


class Served:
    """A client of one method of a service ``t.T``, and the worker behind it.

    Args:
        directory: for a socket.
        dispatch: as of `Runtime.run_handlers`; None: calls are the loop's.
        streaming: the method streams answers.
        unary: as of `Runtime.add_handler`.
    """

    def __init__(
        self,
        directory: pathlib.Path,
        dispatch: Callable[[Any], object] | None,
        streaming: bool = False,
        unary: Any = None,
    ) -> None:
        self.errors: list[tuple[BaseException, str]] = []
        self.gateway = core.Gateway()
        self.gateway.declare_servable("t")
        self.gateway.set_services([("t.T", [("M", False, streaming)])], b"")
        self.runtime = core.Runtime("t")
        self.runtime.add_handler("/t.T/M", server_streaming=streaming, on_loop=dispatch is None, unary=unary)
        near, far = socket.socketpair()
        self._threads = [threading.Thread(target=self._serve, args=(far.detach(),))]
        if dispatch is not None:
            arguments = (dispatch, self._on_error, CURRENT)
            self._threads += [threading.Thread(target=self.runtime.run_handlers, args=arguments) for _ in range(3)]
        for thread in self._threads:
            thread.start()
        self.gateway.attach_worker(near.detach(), 1, "t", 1, [("/t.T/M", False)], 10.0, PATIENCE)
        listener = {"address": f"unix:{directory}/socket", "unix_mode": 0o600, "tls": None, "inherited": None}
        (address,) = self.gateway.listen([listener], {})
        self.channel = grpc.insecure_channel(address)
        if streaming:
            self.call: Any = self.channel.unary_stream("/t.T/M", StringValue.SerializeToString, StringValue.FromString)
        else:
            self.call = self.channel.unary_unary("/t.T/M", StringValue.SerializeToString, StringValue.FromString)

    def _serve(self, link: int) -> None:
        with contextlib.suppress(core.NativeError):
            self.runtime.serve(link, PATIENCE)

    def _on_error(self, call: Any, error: BaseException, stage: str) -> None:
        self.errors.append((error, stage))
        assert CURRENT.get() is call
        call.finish(grpc.StatusCode.ABORTED.value[0], stage)

    def next_events(self) -> list[tuple[Any, int]]:
        ready, _, _ = select.select([self.runtime.loop_fd()], [], [], PATIENCE)
        assert ready
        return list(self.runtime.take_loop_events())

    def close(self) -> None:
        self.channel.close()
        self.runtime.stop()
        for thread in self._threads:
            thread.join(PATIENCE)
            assert not thread.is_alive()
        self.gateway.stop_listening(0.0)


@pytest.fixture
def serve(tmp_path: pathlib.Path) -> Iterator[Callable[..., Served]]:
    with contextlib.ExitStack() as stack:

        def start(*arguments: Any, **options: Any) -> Served:
            served = Served(tmp_path, *arguments, **options)
            stack.callback(served.close)
            return served

        yield start


def failure(call: Callable[[], object]) -> tuple[grpc.StatusCode, str]:
    with pytest.raises(grpc.RpcError) as caught:
        call()
    return caught.value.code(), caught.value.details()


def unused(call: Any) -> None:
    raise AssertionError("dispatched")


def test_a_unary_function_is_called_without_dispatch(serve: Callable[..., Served]) -> None:
    seen = []

    def function(message: Any) -> Any:
        seen.append(CURRENT.get().request_id)
        return StringValue(value=message.value + "!")

    served = serve(unused, unary=(StringValue.FromString, function, StringValue))
    assert served.call(StringValue(value="hello"), metadata=[("request_id", "id7")], timeout=PATIENCE).value == "hello!"
    assert seen == ["id7"]


def test_what_fails_of_a_unary_function_is_told_by_its_stage(serve: Callable[..., Served]) -> None:
    def function(message: Any) -> Any:
        if message.value == "raise":
            raise KeyError("here")
        return Int64Value(value=1)

    served = serve(unused, unary=(StringValue.FromString, function, StringValue))
    assert failure(lambda: served.call(StringValue(value="raise"), timeout=PATIENCE))[1] == "handler"
    assert failure(lambda: served.call(StringValue(value="wrong"), timeout=PATIENCE))[1] == "result"
    raw = served.channel.unary_unary("/t.T/M", lambda data: data, None)
    assert failure(lambda: raw(b"\x0a\x7f", timeout=PATIENCE))[1] == "parse"
    (raised, _), (wrong, _), (parse, _) = served.errors
    assert isinstance(raised, KeyError)
    assert raised.__traceback__ is not None
    assert isinstance(wrong, core.ResultError)
    expected = "'google.protobuf.Int64Value', expected 'google.protobuf.StringValue'"
    assert str(wrong) == f"the handler gave a value of type {expected}"
    assert type(parse).__name__ == "DecodeError"


def test_a_message_that_lacks_required_fields_is_told_with_them(serve: Callable[..., Served]) -> None:
    part = UninterpretedOption.NamePart
    served = serve(unused, unary=(StringValue.FromString, lambda message: part(), part))
    text = "the handler gave a message of type 'google.protobuf.UninterpretedOption.NamePart' that can't be serialized"
    assert failure(lambda: served.call(StringValue(), timeout=PATIENCE))[1] == "result"
    ((error, _),) = served.errors
    assert isinstance(error, core.ResultError)
    assert str(error) == text
    assert "name_part" in str(error.__cause__)


def test_a_call_that_is_dropped_ends(serve: Callable[..., Served]) -> None:
    served = serve(lambda call: None)
    code, details = failure(lambda: served.call(StringValue(), timeout=PATIENCE))
    assert (code, details) == (grpc.StatusCode.INTERNAL, "the handler gave no answer")


def test_a_call_that_only_a_circle_holds_ends(serve: Callable[..., Served]) -> None:
    def dispatch(call: Any) -> None:
        call.state = [call]
        taken.set()

    taken = threading.Event()
    served = serve(dispatch)
    answer = served.call.future(StringValue(), timeout=PATIENCE)
    assert taken.wait(PATIENCE)
    assert eventually(lambda: gc.collect() >= 0 and answer.done())
    assert answer.code() == grpc.StatusCode.INTERNAL


def test_a_dispatch_that_raises_ends_its_call(serve: Callable[..., Served], monkeypatch: pytest.MonkeyPatch) -> None:
    texts: list[str] = []
    monkeypatch.setattr(sys, "unraisablehook", lambda unraisable: texts.append(str(unraisable.exc_value)))

    def dispatch(call: Any) -> None:
        raise RuntimeError("oops")

    served = serve(dispatch)
    assert failure(lambda: served.call(StringValue(), timeout=PATIENCE))[0] == grpc.StatusCode.INTERNAL
    assert texts == ["oops"]


class Streams:
    """A dispatch that drives generators, and what they did."""

    def __init__(self, generate: Callable[[], Iterator[Any]]) -> None:
        self.generate = generate
        self.outcomes: list[object] = []
        self.call: Any = None

    def __call__(self, call: Any) -> None:
        if call.state is None:
            call.state = self.generate()
        try:
            done = core.run_generator(call, call.state, StringValue)
            self.outcomes.append(done)
            if done:
                call.finish()
        except BaseException as error:
            self.outcomes.append(error)
            call.state.close()
            call.finish(grpc.StatusCode.ABORTED.value[0], str(error))


def test_a_generator_gives_a_stream(serve: Callable[..., Served]) -> None:
    streams = Streams(lambda: (StringValue(value=str(i)) for i in range(5000)))
    served = serve(streams, streaming=True)
    assert [each.value for each in served.call(StringValue(), timeout=PATIENCE)] == [str(i) for i in range(5000)]
    assert streams.outcomes[-1] is True


def test_a_generator_is_parked_while_nobody_reads_and_closed_when_the_call_is_cancelled(
    serve: Callable[..., Served],
) -> None:
    made = 0
    closed = threading.Event()

    def generate() -> Iterator[Any]:
        nonlocal made
        try:
            while True:
                made += 1
                yield StringValue(value="x" * 10000)
        finally:
            closed.set()

    streams = Streams(generate)
    served = serve(streams, streaming=True)
    answers = served.call(StringValue(), timeout=PATIENCE)
    next(answers)
    assert eventually(lambda: bool(streams.outcomes) and streams.outcomes[-1] is False)
    answers.cancel()
    assert closed.wait(PATIENCE)
    assert isinstance(streams.outcomes[-1], core.Cancelled)
    assert made < 20_000  # what fits into the windows of gRPC, and 256 KiB


def test_what_a_generator_raises_comes_through(serve: Callable[..., Served]) -> None:
    def generate() -> Iterator[Any]:
        yield StringValue(value="one")
        yield "two"

    streams = Streams(generate)
    served = serve(streams, streaming=True)
    assert failure(lambda: list(served.call(StringValue(), timeout=PATIENCE)))[1] == (
        "the handler gave a value of type 'str', expected 'google.protobuf.StringValue'"
    )
    assert isinstance(streams.outcomes[-1], core.ResultError)


@pytest.mark.parametrize("on_loop", [False, True])
def test_a_large_answer_is_let_go_of_without_another_call(serve: Callable[..., Served], on_loop: bool) -> None:
    # Not a constant, which would have any number of references.
    large = StringValue(value="x" * int("1000000")).SerializeToString()
    before = sys.getrefcount(large)

    def dispatch(call: Any) -> None:
        call.write(large, True)
        call.finish()

    served = serve(None if on_loop else dispatch)
    answer = served.call.future(StringValue(), timeout=PATIENCE)
    if on_loop:
        ((call, bits),) = served.next_events()
        assert bits == 1
        dispatch(call)
        del call
        assert served.next_events() == []
    assert len(answer.result().value) == 1000000
    assert eventually(lambda: sys.getrefcount(large) == before)


def test_the_loop_is_told_what_happens_to_a_call(serve: Callable[..., Served]) -> None:
    served = serve(None)
    answer = served.call.future(StringValue(value="a"), timeout=PATIENCE, metadata=[("k", "v"), ("k-bin", b"\xff")])
    ((call, bits),) = served.next_events()
    assert bits == 1
    assert StringValue.FromString(call.read(False)).value == "a"
    assert call.read(False) is None
    assert {("k", "v"), ("k-bin", b"\xff")} <= set(call.metadata())
    assert call.auth() == {}
    assert call.peer.startswith("unix:")
    assert 0 < call.deadline - time.monotonic() < PATIENCE + 5  # grpcio rounds it up
    assert not call.cancelled
    answer.cancel()
    ((same, bits),) = served.next_events()
    assert same is call
    assert bits == 8
    assert call.cancelled
    with pytest.raises(core.Cancelled):
        call.write(b"", False)


def test_wrong_arguments_are_refused(serve: Callable[..., Served]) -> None:
    served = serve(None)
    answer = served.call.future(StringValue(), timeout=PATIENCE)
    ((call, _),) = served.next_events()
    with pytest.raises(TypeError, match="a message of type 'str' was given, expected bytes"):
        call.write("text", False)
    with pytest.raises(TypeError, match="needs the argument 'wait'"):
        call.read()
    with pytest.raises(ValueError, match="metadata value of 'k' has characters that are not ASCII"):
        call.finish(0, "", [("k", "ä")])
    with pytest.raises(TypeError, match="is of type 'int', expected str or bytes"):
        call.send_initial([("k", 1)])
    with pytest.raises(ValueError, match="no gRPC status code 99"):
        call.finish(99)
    call.send_initial([("k", "v")])
    with pytest.raises(ValueError, match="sent already"):
        call.send_initial([])
    call.finish(code=grpc.StatusCode.NOT_FOUND.value[0], details="ä", trailing=[("t", "u")])
    assert (answer.code(), answer.details()) == (grpc.StatusCode.NOT_FOUND, "ä")
    assert ("k", "v") in answer.initial_metadata()
    assert ("t", "u") in answer.trailing_metadata()
