"""Attacks by HTTP/2's flow control: windows of nothing, of too much, and that grow byte by byte."""

from __future__ import annotations

import contextlib
import pathlib
import threading
from collections.abc import Iterator

import numpy as np
import pytest
from hyperframe.frame import SettingsFrame, WindowUpdateFrame

from attacker import CANCEL, Attacker, framed, held, said_of, unharmed
from conftest import ECHO_SERVABLE
from e2e_support import Served, request, serving, tensor, until, varint
from mindserve.proto import PREDICT, PREDICT_STREAM
from sanitizers import SLOWNESS

PROTOCOL_ERROR = 1
FLOW_CONTROL_ERROR = 3
SIZE = 1 << 20
LARGE = framed(request("echo", "same", {"x": tensor(np.zeros(SIZE, np.uint8))}).SerializeToString())
SMALL = framed(request("echo", "same", {"x": tensor("text")}).SerializeToString())


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    # An attacker that counts by PINGs may send as many as it likes.
    slow = f"body_idle_timeout={SLOWNESS}, min_bytes_per_second={100_000 // SLOWNESS}"
    limits = f"{slow}, max_control_frames_per_second=10**9"
    listen = f"'127.0.0.1:0', limits=server.Limits({limits})"
    with serving(tmp_path_factory.mktemp("windows"), "echo", ECHO_SERVABLE, listen=listen) as server:
        yield server


def test_a_window_of_nothing(served: Served) -> None:
    """A hundred answers that are never taken are given up, and nothing else.

    Until then these are held; so may the room be that their requests had, of which two processes have looked at much.
    """
    with unharmed(served, growth=3 * 100 * len(LARGE)), Attacker(served.address, window=0) as attacker:
        streams = [attacker.begin(body=LARGE) for _ in range(100)]
        attacker.until(lambda: all(attacker.is_over(stream) for stream in streams))
        assert [attacker.resets[stream] for stream in streams] == [CANCEL] * 100
        why = f"its reply was not taken within body_idle_timeout {SLOWNESS}000 ms"
        assert any(why in line for line in said_of(served, attacker))
        assert attacker.is_served()


def test_a_connection_whose_window_is_used_up(served: Served) -> None:
    """The streams' windows are wide, the connection's is never given back."""
    with unharmed(served), Attacker(served.address, window=1 << 24) as attacker:
        stream = attacker.begin(body=LARGE)
        attacker.until(lambda: attacker.is_over(stream))
        assert attacker.resets[stream] == CANCEL
        assert attacker.received[stream] < SIZE
        assert attacker.is_served()


def named(number: int, name: bytes) -> bytes:
    """A message's field of text."""
    return bytes([number << 3 | 2]) + varint(len(name)) + name


LONG = b"n" * (8 << 20)
NAMES = {
    "of a servable": (PREDICT, named(1, named(1, LONG))),
    "of a method": (PREDICT, named(1, named(2, LONG))),
    "in a spec that nobody knows": (PREDICT, named(1, named(9, LONG))),
    "that is watched": ("/grpc.health.v1.Health/Watch", named(1, LONG)),
    "of a symbol": ("/grpc.reflection.v1.ServerReflection/ServerReflectionInfo", named(4, LONG)),
}


@pytest.mark.parametrize("name", NAMES)
def test_names_that_answers_would_repeat(served: Served, name: str) -> None:
    """Answers that nobody takes hold no more than others, whatever was asked."""
    path, body = NAMES[name]
    with unharmed(served), Attacker(served.address, window=0) as attacker:
        # As much at a time as it may send.
        attacker.until(lambda: attacker.h2.remote_settings.initial_window_size > 65_535)
        attacker.flush()
        for _ in range(20):
            answer = attacker.wait(attacker.begin(path, framed(body)))
            assert answer["grpc-status"] == "3"
            assert "expected at most 4096" in answer["grpc-message"]
        assert attacker.is_served()


STREAMING_SERVABLE = (
    ECHO_SERVABLE
    + """

def again(x):
    while True:
        yield x


@register.register_method(output_names="x", streaming=True)
def forever(x):
    return register.add_stage(again, x, outputs_count=1)
"""
)


def test_readers_that_rest_while_others_are_refused(tmp_path: pathlib.Path) -> None:
    """As many streams as there may be calls, of which nobody reads an answer: they may rest until others lack room."""
    limits = "server.Limits(body_idle_timeout=1, max_enqueued_requests=3)"
    with (
        serving(tmp_path, "echo", STREAMING_SERVABLE, listen=f"'127.0.0.1:0', limits={limits}") as served,
        Attacker(served.address, window=0) as attacker,
    ):
        body = framed(request("echo", "forever", {"x": tensor("text")}).SerializeToString())
        streams = [attacker.begin(PREDICT_STREAM, body) for _ in range(3)]
        threading.Event().wait(3)
        assert attacker.is_served()
        assert not any(attacker.is_over(stream) for stream in streams)

        def ask() -> object:
            return served.client("same").infer({"x": "text"}, timeout=60)

        refusal = ask()
        assert isinstance(refusal, dict)
        assert "max_enqueued_requests" in refusal["error"]
        until(ask, lambda answer: answer == [{"x": "text"}], seconds=10)
        attacker.until(lambda: all(attacker.is_over(stream) for stream in streams))
        assert [attacker.resets[stream] for stream in streams] == [CANCEL] * 3
        why = "its reply was not taken within body_idle_timeout 1000 ms, while others lacked max_enqueued_requests"
        assert any(why in line for line in said_of(served, attacker))
        assert attacker.is_served()


def test_windows_that_open_all_at_once(tmp_path: pathlib.Path) -> None:
    """Streams that have waited may all be sent, but the socket is full: what goes ahead of it is bounded, and the rest
    stays where each stream's own bounds hold.

    The messages are of a size that is copied, after which a worker would send others.
    """
    body = framed(request("echo", "forever", {"x": tensor(np.zeros(1000, np.uint8))}).SerializeToString())
    wide = (1 << 31) - 1
    streams = 200
    with (
        serving(tmp_path, "echo", STREAMING_SERVABLE, listen="'127.0.0.1:0'") as served,
        # A stream holds 256 KiB, which two processes look at. Each once more would be too much.
        unharmed(served, growth=streams * (3 << 18)),
        Attacker(served.address, window=0, receive_buffer=4096) as attacker,
    ):
        before = held(served.process)
        attacker.frames(WindowUpdateFrame(0, window_increment=wide - 65_535))
        for _ in range(streams):
            attacker.begin(PREDICT_STREAM, body)
        # Each has much that waits.
        until(lambda: held(served.process), lambda now: now > before + streams * (1 << 17))
        threading.Event().wait(3)
        attacker.frames(SettingsFrame(0, settings={SettingsFrame.INITIAL_WINDOW_SIZE: wide}))
        threading.Event().wait(3)


def test_streams_that_rest_leave_room(tmp_path: pathlib.Path) -> None:
    """As many streams as one can get, by few connections: others' calls, and their streams, are not refused."""
    limits = "server.Limits(max_enqueued_requests=80)"
    with (
        serving(tmp_path, "echo", STREAMING_SERVABLE, listen=f"'127.0.0.1:0', limits={limits}") as served,
        contextlib.ExitStack() as stack,
    ):
        body = framed(request("echo", "forever", {"x": tensor("text")}).SerializeToString())
        for held in (45, 2, 2):
            attacker = stack.enter_context(Attacker(served.address, window=0))
            streams = [attacker.begin(PREDICT_STREAM, body) for _ in range(80)]
            assert attacker.is_served()
            refused = [stream for stream in streams if attacker.is_over(stream)]
            assert len(refused) == 80 - held
            assert attacker.streams[refused[0]]["grpc-message"] == (
                "this connection has its share of streams, of which few are left under the limit 80 "
                "(max_enqueued_requests)"
            )
            assert served.ask("same", {"x": "text"}) == [{"x": "text"}]
        with served.client("forever").infer_stream({"x": "text"}, timeout=60) as answers:
            assert next(answers) == {"x": "text"}


def test_pings_are_no_progress(served: Served) -> None:
    with unharmed(served), Attacker(served.address, window=0) as attacker:
        stream = attacker.begin(body=LARGE)
        while not attacker.is_over(stream):
            assert attacker.is_served()
        assert attacker.resets[stream] == CANCEL


def test_a_window_that_grows_byte_by_byte(served: Served) -> None:
    pause = threading.Event()
    with unharmed(served), Attacker(served.address, window=0) as attacker:
        stream = attacker.begin(body=LARGE)
        byte = WindowUpdateFrame(stream, window_increment=1)
        while not attacker.is_over(stream):
            assert attacker.frames(byte)
            pause.wait(0.01)
            attacker.look(0)
        assert attacker.resets[stream] == CANCEL
        (line,) = said_of(served, attacker)
        assert "its reply was not taken at min_bytes_per_second 100000" in line


def test_a_client_that_takes_its_answer_slowly_but_steadily_gets_it(served: Served) -> None:
    pause = threading.Event()
    with Attacker(served.address, window=0) as client:
        stream = client.begin(body=LARGE)
        while not client.is_over(stream):
            client.h2.increment_flow_control_window(50_000)
            client.h2.increment_flow_control_window(50_000, stream)
            client.flush()
            pause.wait(0.1)
            client.look(0)
        assert client.streams[stream]["grpc-status"] == "0"
        assert client.received[stream] > SIZE


@pytest.mark.parametrize("increments", [(2**31 - 1,), (2**30, 2**30)], ids=["at once", "in two"])
def test_a_window_of_the_connection_that_overflows(served: Served, increments: tuple[int, ...]) -> None:
    with unharmed(served), Attacker(served.address) as attacker:
        attacker.frames(*(WindowUpdateFrame(0, window_increment=each) for each in increments))
        attacker.ends()
        assert attacker.goaway == FLOW_CONTROL_ERROR
        (line,) = said_of(served, attacker)
        assert "FLOW_CONTROL_ERROR" in line


def test_a_window_of_a_call_that_overflows(served: Served) -> None:
    with unharmed(served), Attacker(served.address) as attacker:
        stream = attacker.begin(body=SMALL, ends=False)
        attacker.frames(WindowUpdateFrame(stream, window_increment=2**31 - 1))
        attacker.until(lambda: attacker.is_over(stream))
        assert attacker.resets[stream] == FLOW_CONTROL_ERROR
        assert attacker.wait(attacker.begin(body=SMALL))["grpc-status"] == "0"


@pytest.mark.parametrize("stream", [0, 1])
def test_a_window_that_grows_by_nothing(served: Served, stream: int) -> None:
    with unharmed(served), Attacker(served.address) as attacker:
        attacker.begin(body=SMALL, ends=False)
        attacker.send(b"\0\0\4\x08\0" + stream.to_bytes(4, "big") + bytes(4))
        attacker.ends()
        assert attacker.goaway == PROTOCOL_ERROR
        assert len(said_of(served, attacker)) == 1


@pytest.mark.parametrize(
    ("settings", "error"), [({4: 2**31}, FLOW_CONTROL_ERROR), ({5: 100}, PROTOCOL_ERROR), ({2: 2}, PROTOCOL_ERROR)]
)
def test_settings_that_are_wrong(served: Served, settings: dict[int, int], error: int) -> None:
    """A window of 2 GB, frames of 100 bytes, a push that is neither on nor off."""
    with unharmed(served), Attacker(served.address) as attacker:
        attacker.frames(SettingsFrame(0, settings=settings))
        attacker.ends()
        assert attacker.goaway == error
        assert len(said_of(served, attacker)) == 1


def test_a_window_that_becomes_less_than_nothing(served: Served) -> None:
    """SETTINGS take back what was granted already."""
    with unharmed(served), Attacker(served.address, window=10_000) as attacker:
        stream = attacker.begin(body=LARGE)
        attacker.until(lambda: attacker.received.get(stream, 0) == 10_000)
        attacker.h2.update_settings({4: 0})
        attacker.flush()
        attacker.until(lambda: attacker.is_over(stream))
        assert attacker.resets[stream] == CANCEL
        assert attacker.is_served()
