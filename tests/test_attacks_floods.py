"""Attacks that send much: what they are bounded by, what the attacker is told, and that others go on."""

from __future__ import annotations

import concurrent.futures
import contextlib
import pathlib
import random
import socket
import threading
import time
from collections.abc import Iterator

import pytest
from hyperframe.frame import (
    ContinuationFrame,
    DataFrame,
    HeadersFrame,
    PingFrame,
    PriorityFrame,
    RstStreamFrame,
    SettingsFrame,
    WindowUpdateFrame,
)

from attacker import CALM, Attacker, framed, headers_frame, request_fields, said_of, unharmed
from conftest import ECHO_SERVABLE
from e2e_support import Served, request, serving, tensor, until
from mindserve.proto import PREDICT

ECHO = framed(request("echo", "same", {"x": tensor("text")}).SerializeToString())
PROTOCOL_ERROR = 1
REFUSED_STREAM = 7
COMPRESSION_ERROR = 9
FLOW_CONTROL_ERROR, STREAM_CLOSED, FRAME_SIZE_ERROR = 3, 5, 6


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A server with the limits that it has by default, but for a message's size."""
    listen = "'127.0.0.1:0', max_msg_mb_size=8"
    with serving(tmp_path_factory.mktemp("floods"), "echo", ECHO_SERVABLE, listen=listen) as server:
        yield server


@pytest.fixture(scope="module")
def strict(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """One that allows so little a second that an attacker exceeds it on any machine, whatever else that does."""
    listen = "'127.0.0.1:0', limits=server.Limits(max_resets_per_second=200, max_control_frames_per_second=500)"
    with serving(tmp_path_factory.mktemp("strict"), "echo", ECHO_SERVABLE, listen=listen) as server:
        yield server


def is_calmed(served: Served, attacker: Attacker, limit: str) -> None:
    """It has been told to be calm, is closed, and the log says why, once."""
    attacker.ends()
    assert attacker.goaway == CALM
    (line,) = said_of(served, attacker)
    assert "[WARNING]" in line
    assert limit in line


# -- resets ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("code", [0, 8], ids=["NO_ERROR", "CANCEL"])
def test_rapid_reset(strict: Served, code: int) -> None:
    with unharmed(strict), Attacker(strict.address) as attacker:
        reset = RstStreamFrame(1, error_code=code)
        for stream in range(1, 2**17, 2):
            reset.stream_id = stream
            if not attacker.send(headers_frame(attacker, stream, "END_HEADERS") + reset.serialize()):
                break
        is_calmed(strict, attacker, "max_resets_per_second 200 ")


def test_resets_that_the_server_is_made_to_send(strict: Served) -> None:
    """A window that overflows is an error of its stream, which the server resets."""
    with unharmed(strict), Attacker(strict.address) as attacker:
        for stream in range(1, 2**17, 2):
            wrong = WindowUpdateFrame(stream, window_increment=2**31 - 1).serialize()
            if not attacker.send(headers_frame(attacker, stream, "END_HEADERS") + wrong):
                break
        is_calmed(strict, attacker, "max_resets_per_second 200 ")


def test_a_thousand_cancellations_a_second_are_ordinary(served: Served) -> None:
    pause = threading.Event()
    with unharmed(served), Attacker(served.address) as client:
        for _ in range(60):
            begin = time.monotonic()
            for _ in range(50):
                stream = client.begin(body=ECHO, ends=False)
                client.h2.reset_stream(stream, error_code=8)
            # Whoever stands still for a while, these or the server, must not make a flood of them.
            assert client.is_served()
            pause.wait(max(0.0, begin + 0.05 - time.monotonic()))
        assert client.wait(client.begin(body=ECHO))["grpc-status"] == "0"
        assert client.goaway is None


SLOW_SERVABLE = (
    ECHO_SERVABLE
    + """
import time


def take_time(x):
    time.sleep(0.02)
    return x


@register.register_method(output_names="x")
def slow(x):
    return register.add_stage(take_time, x, outputs_count=1)
"""
)


def test_instances_that_wait(tmp_path: pathlib.Path) -> None:
    """Of a few bytes each, for which a worker needs many times as much while they wait; many requests of many."""
    body = framed(request("echo", "slow", *[{"x": tensor(b"")}] * 50_000).SerializeToString())
    assert len(body) < 2 << 20
    listen = "'127.0.0.1:0', limits=server.Limits(max_enqueued_bytes=128 << 20)"
    with (
        serving(tmp_path, "echo", SLOW_SERVABLE, listen=listen) as served,
        unharmed(served, growth=256 << 20),
        Attacker(served.address) as attacker,
    ):
        streams = [attacker.begin(body=body) for _ in range(20)]
        attacker.until(lambda: sum(attacker.is_over(stream) for stream in streams) == 18)
        answers = [attacker.streams[stream] for stream in streams if attacker.is_over(stream)]
        assert {answer["grpc-status"] for answer in answers} == {"8"}
        assert {answer["grpc-message"] for answer in answers} == {
            "with the 50000 instances of this request, each of which counts as 1024 bytes besides its own, "
            "enqueued bytes exceeds the limit 134217728 (max_enqueued_bytes)"
        }
        assert attacker.is_served()


def test_more_calls_than_can_be_worked_off(tmp_path: pathlib.Path) -> None:
    """Two connections that always have as many calls as there may be: who has one is refused at first at most."""
    body = framed(request("echo", "slow", {"x": tensor("text")}).SerializeToString())
    refused, over = threading.Event(), threading.Event()

    def flood(attacker: Attacker) -> None:
        calls: set[int] = set()
        while not over.is_set():
            while len(calls) < 40:
                calls.add(attacker.begin(body=body))
            attacker.look(0.1)
            ended = {call for call in calls if attacker.is_over(call)}
            if any("grpc-message" in attacker.streams[call] for call in ended):
                refused.set()
            calls -= ended

    listen = "'127.0.0.1:0', limits=server.Limits(max_enqueued_requests=40)"
    with (
        serving(tmp_path, "echo", SLOW_SERVABLE, listen=listen) as served,
        Attacker(served.address) as one,
        Attacker(served.address) as two,
        concurrent.futures.ThreadPoolExecutor(2) as pool,
    ):
        floods = [pool.submit(flood, attacker) for attacker in (one, two)]
        try:

            def ask() -> object:
                return served.client("slow").infer({"x": "text"}, timeout=60)

            assert refused.wait(60)
            until(ask, lambda answer: isinstance(answer, list))
            for _ in range(20):
                assert ask() == [{"x": "text"}]
            assert not any(flood.done() for flood in floods)
        finally:
            over.set()
        for done in floods:
            done.result()
        texts = {fields.get("grpc-message") for fields in (*one.streams.values(), *two.streams.values())}
        why = "this connection has its share of requests, of which few are left under the limit 40"
        assert f"{why} (max_enqueued_requests)" in texts


def test_more_calls_than_may_be_open_by_one_who_knows(served: Served) -> None:
    with unharmed(served), Attacker(served.address) as attacker:
        assert attacker.is_served()
        assert attacker.h2.remote_settings.max_concurrent_streams == 1000
        attacker.flush()  # acknowledges it
        attacker.send(b"".join(headers_frame(attacker, stream, "END_HEADERS") for stream in range(1, 2 * 1200, 2)))
        attacker.ends()
        assert attacker.goaway == PROTOCOL_ERROR
        (line,) = said_of(served, attacker)
        assert "max concurrent streams exceeded" in line


def test_more_calls_than_may_be_open(served: Served) -> None:
    with unharmed(served), Attacker(served.address) as attacker:
        # Its SETTINGS and all of these are one piece, so that it can't know the limit yet.
        streams = range(1, 2 * 1200, 2)
        attacker.send(b"".join(headers_frame(attacker, stream, "END_HEADERS") for stream in streams))
        attacker.until(lambda: len(attacker.resets) == 200)
        assert set(attacker.resets.values()) == {REFUSED_STREAM}
        assert sorted(attacker.resets) == list(streams)[1000:]


def test_calls_that_are_refused_again_and_again(strict: Served) -> None:
    """Who does not say that it knows the limit is only refused, and could go on for ever."""
    with unharmed(strict), Attacker(strict.address) as attacker:
        for stream in range(1, 2**17, 2):
            if not attacker.send(headers_frame(attacker, stream, "END_HEADERS")):
                break
        is_calmed(strict, attacker, "max_resets_per_second 200 ")


# -- frames that carry nothing -----------------------------------------------------------------------------------------

OPEN_STREAM = 1


@pytest.mark.parametrize(
    "frame",
    [
        PingFrame(0, opaque_data=b"flooding").serialize(),
        SettingsFrame(0).serialize(),
        SettingsFrame(0, settings={4: 65535}).serialize(),
        SettingsFrame(0, settings={1: 4096, 4: 1}).serialize(),
        PriorityFrame(5, depends_on=3, stream_weight=7).serialize(),
        WindowUpdateFrame(0, window_increment=1).serialize(),
        WindowUpdateFrame(OPEN_STREAM, window_increment=1).serialize(),
        DataFrame(OPEN_STREAM).serialize(),
        DataFrame(OPEN_STREAM, pad_length=0, flags=["PADDED"]).serialize(),
        DataFrame(OPEN_STREAM, pad_length=10, flags=["PADDED"]).serialize(),
        b"\0\0\0\xf7\0\0\0\0\0",  # a type that there is not
        b"\0\0\7\x10\0\0\0\0\0\0\0\0\1u=1",  # PRIORITY_UPDATE
    ],
    ids=lambda frame: frame[:9].hex(),
)
def test_frames_that_carry_nothing(strict: Served, frame: bytes) -> None:
    with unharmed(strict), Attacker(strict.address) as attacker:
        assert attacker.begin(body=ECHO[:10], ends=False) == OPEN_STREAM
        attacker.flood(frame)
        is_calmed(strict, attacker, "max_control_frames_per_second 500 ")


@pytest.mark.parametrize(
    "frame",
    [
        DataFrame(OPEN_STREAM).serialize(),
        DataFrame(OPEN_STREAM, flags=["END_STREAM"]).serialize(),
        DataFrame(OPEN_STREAM, pad_length=0, flags=["PADDED"]).serialize(),
        DataFrame(OPEN_STREAM, pad_length=200, flags=["PADDED", "END_STREAM"]).serialize(),
        PriorityFrame(OPEN_STREAM, depends_on=3, stream_weight=7).serialize(),
        RstStreamFrame(OPEN_STREAM, error_code=8).serialize(),
        RstStreamFrame(OPEN_STREAM, error_code=0).serialize(),
        WindowUpdateFrame(OPEN_STREAM, window_increment=1).serialize(),
        PingFrame(0, opaque_data=b"flooding", flags=["ACK"]).serialize(),
        b"\0\0\0\xf7\0\0\0\0\1",  # a type that there is not
    ],
    ids=lambda frame: frame[:9].hex(),
)
def test_frames_for_a_call_that_is_over(strict: Served, frame: bytes) -> None:
    with unharmed(strict), Attacker(strict.address) as attacker:
        assert attacker.begin(body=ECHO) == OPEN_STREAM
        assert attacker.wait(OPEN_STREAM)["grpc-status"] == "0"
        attacker.flood(frame)
        is_calmed(strict, attacker, "max_control_frames_per_second 500 ")


def test_ends_of_calls_that_are_over_already(strict: Served) -> None:
    """A client that is refused early, call by call, has ended each of its own before it knew."""
    with unharmed(strict), Attacker(strict.address) as client:
        for _ in range(20):
            streams = [client.begin("/no.Service/Method", ends=False) for _ in range(100)]
            for stream in streams:
                assert client.wait(stream)["grpc-status"] == "12"
            client.send(b"".join(DataFrame(stream, flags=["END_STREAM"]).serialize() for stream in streams))
        assert client.is_served()
        assert client.goaway is None


@pytest.mark.parametrize(
    "frame",
    [
        b"\0\0\5\5\4\0\0\0\1\0\0\0\2\x88",  # PUSH_PROMISE
        ContinuationFrame(OPEN_STREAM, data=b"\x88", flags=["END_HEADERS"]).serialize(),
        SettingsFrame(0, flags=["ACK"]).serialize() * 3,  # one is for the server's SETTINGS
    ],
    ids=["PUSH_PROMISE", "CONTINUATION", "SETTINGS-ACK"],
)
def test_frames_that_no_client_may_send(served: Served, frame: bytes) -> None:
    with unharmed(served), Attacker(served.address) as attacker:
        assert attacker.begin(body=ECHO[:10], ends=False) == OPEN_STREAM
        assert attacker.is_served()
        attacker.send(frame)
        attacker.ends()
        assert attacker.goaway == PROTOCOL_ERROR


@pytest.mark.parametrize("over", [True, False])
def test_header_fields_of_calls_that_are_over(strict: Served, over: bool) -> None:
    """Answered, or reset for trailers that do not end it: no answer comes to them, and each is read."""
    with unharmed(strict), Attacker(strict.address) as attacker:
        stream = attacker.begin(body=ECHO if over else ECHO[:10], ends=over)
        if over:
            assert attacker.wait(stream)["grpc-status"] == "0"
        flags = ["END_HEADERS", "END_STREAM"] if over else ["END_HEADERS"]
        attacker.flood(HeadersFrame(stream, b"\x88", flags=flags).serialize())
        is_calmed(strict, attacker, "max_control_frames_per_second 500 ")


def test_settings_that_change_the_windows_of_a_thousand_calls(strict: Served) -> None:
    """Each makes the server go through all calls of the connection."""
    with unharmed(strict), Attacker(strict.address) as attacker:
        for stream in range(1, 2 * 900, 2):
            attacker.send(headers_frame(attacker, stream, "END_HEADERS"))
        wide, narrow = (SettingsFrame(0, settings={4: size}).serialize() for size in (1 << 20, 0))
        attacker.flood(wide + narrow)
        is_calmed(strict, attacker, "max_control_frames_per_second 500 ")


def test_pings_of_a_client_that_is_sent_much_are_free(strict: Served) -> None:
    """Clients measure by PINGs how wide their windows should be, and a WINDOW_UPDATE may follow each DATA frame."""
    with Attacker(strict.address) as client:
        streams = [client.begin(body=ECHO) for _ in range(900)]
        for stream in streams:
            assert client.wait(stream)["grpc-status"] == "0"
            client.h2.increment_flow_control_window(100)
            client.h2.ping(b"measures")
        client.flush()  # all at once: several times what may come unasked
        assert client.is_served()
        assert client.goaway is None


# -- headers -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("trailers", [False, True])
@pytest.mark.parametrize("part", [b"", b"\0\1a\1b" * 100])
def test_continuation_flood(served: Served, part: bytes, trailers: bool) -> None:
    """A block of header fields that never ends, of frames with nothing in them, or with fields."""
    with unharmed(served), Attacker(served.address) as attacker:
        if trailers:
            assert attacker.begin(body=ECHO, ends=False) == OPEN_STREAM
            attacker.send(HeadersFrame(OPEN_STREAM, data=b"\0\1a\1b", flags=["END_STREAM"]).serialize())
        else:
            attacker.send(headers_frame(attacker, OPEN_STREAM))
        attacker.flood(ContinuationFrame(OPEN_STREAM, data=part).serialize())
        attacker.ends()
        assert attacker.goaway == CALM
        (line,) = said_of(served, attacker)
        assert "max_metadata_bytes 16384" in line


@pytest.mark.parametrize("trailers", [False, True])
def test_a_header_bomb(served: Served, trailers: bool) -> None:
    """One field of almost the whole table, and bytes that each mean it again: 60 KB for 200 MB."""
    with unharmed(served), Attacker(served.address) as attacker:
        large = b"\x40\1x\x7f" + b"\xb9\x1e" + b"v" * (0x7F + 0x39 + (0x1E << 7))
        if trailers:
            assert attacker.begin(body=ECHO, ends=False) == OPEN_STREAM
            start = b""
        else:
            start = attacker.h2.encoder.encode(request_fields())
        block = start + large + b"\xbe" * 11_000
        first, *rest = (block[i : i + 16_000] for i in range(0, len(block), 16_000))
        attacker.frames(
            HeadersFrame(OPEN_STREAM, data=first, flags=["END_STREAM"] if trailers else []),
            *(ContinuationFrame(OPEN_STREAM, data=each) for each in rest),
        )
        attacker.until(lambda: attacker.goaway is not None)
        is_calmed(served, attacker, "several times max_metadata_bytes 16384")


@pytest.mark.parametrize("part", [b"", b"\0\1a\1b" * 100])
def test_continuation_flood_of_a_call_that_is_over(strict: Served, part: bytes) -> None:
    """A block that means nothing to anybody."""
    with unharmed(strict), Attacker(strict.address) as attacker:
        stream = attacker.begin(body=ECHO)
        assert attacker.wait(stream)["grpc-status"] == "0"
        attacker.send(HeadersFrame(stream, data=b"\0\1a\1b", flags=["END_STREAM"]).serialize())
        attacker.flood(ContinuationFrame(stream, data=part).serialize())
        is_calmed(strict, attacker, "max_control_frames_per_second 500 ")


def test_metadata_in_many_frames(tmp_path: pathlib.Path) -> None:
    """As clients send them that cut it into the smallest frames that there are; the limit counts, not the frames."""
    listen = "'127.0.0.1:0', limits=server.Limits(max_metadata_bytes=1 << 20)"
    with (
        serving(tmp_path, "echo", ECHO_SERVABLE, listen=listen) as served,
        unharmed(served),
        Attacker(served.address) as client,
    ):
        client.h2.max_outbound_frame_size = 16_384
        answer = client.wait(client.begin(body=ECHO, fields=[("x-large", f"{i} " + "v" * 5000) for i in range(100)]))
        assert answer["grpc-status"] == "0"
        answer = client.wait(client.begin(body=ECHO, fields=[("x-large", f"{i} " + "v" * 5000) for i in range(220)]))
        assert answer["grpc-status"] == "8"
        assert "max_metadata_bytes" in answer["grpc-message"]
        assert client.is_served()


def test_metadata_that_is_a_little_too_large(served: Served) -> None:
    with unharmed(served), Attacker(served.address) as client:
        answer = client.wait(client.begin(body=ECHO, fields=[("x-large", "v" * 16_000), ("x-more", "v" * 400)]))
        assert answer["grpc-status"] == "8"
        assert "max_metadata_bytes 16384" in answer["grpc-message"]
        assert client.wait(client.begin(body=ECHO))["grpc-status"] == "0"


@pytest.mark.parametrize(
    "block",
    [b"\x3f\xe1\xff\xff\xff\x07", b"\xff\xff\xff\xff\xff\xff\xff\xff\x7f", b"\xbe", b"\0\x85\xff\xff\xff\xff\xff"],
)
def test_what_is_no_header_block(served: Served, block: bytes) -> None:
    """A table larger than allowed, an index of 2^63, one that there is not, and a Huffman code that is none."""
    with unharmed(served), Attacker(served.address) as attacker:
        attacker.frames(HeadersFrame(1, data=block, flags=["END_HEADERS", "END_STREAM"]))
        attacker.until(lambda: attacker.goaway is not None)
        attacker.ends()
        assert attacker.goaway == COMPRESSION_ERROR
        (line,) = said_of(served, attacker)
        assert "COMPRESSION_ERROR" in line


# -- bytes -------------------------------------------------------------------------------------------------------------

# What a connection may be told that has broken HTTP/2.
BROKEN = {PROTOCOL_ERROR, FLOW_CONTROL_ERROR, STREAM_CLOSED, FRAME_SIZE_ERROR, COMPRESSION_ERROR}


def test_frames_of_random_bytes(served: Served) -> None:
    """Of every type and length: each connection goes on, or is told why it ends, and closed."""
    chance = random.Random(7)
    told = []
    with unharmed(served):
        for _ in range(100):
            with Attacker(served.address) as attacker:
                attacker.begin(PREDICT, ECHO[:10], ends=False)
                for _ in range(20):
                    payload = chance.randbytes(chance.choice([0, 1, 4, 5, 6, 8, 100]))
                    head = len(payload).to_bytes(3, "big") + bytes([chance.randrange(12), chance.randrange(256)])
                    if not attacker.send(head + chance.choice([0, 1, 2, 3, 2**31 - 1]).to_bytes(4, "big") + payload):
                        break
                if attacker.goaway is not None or not attacker.is_served():
                    attacker.ends()
                    told.append(attacker.goaway)
    assert set(told) <= BROKEN
    assert len(told) > 90


@pytest.mark.parametrize(
    ("right", "why"),
    [(0, "its preface is wrong"), (24, "PROTOCOL_ERROR: SETTINGS expected"), (33, "FRAME_SIZE_ERROR: too large")],
)
def test_bytes_that_are_no_http2(served: Served, right: int, why: str) -> None:
    """Random ones, from the beginning or from some time on: closed at once, long before header_timeout, 10 s."""
    start = (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + SettingsFrame(0).serialize())[:right]
    host, port = served.address.rsplit(":", 1)
    chance = random.Random(7)

    def lines(size: int) -> list[str]:
        before = len(served.process.errors())
        with socket.create_connection((host, int(port)), timeout=5) as stranger:
            name = "{}:{} ".format(*stranger.getsockname())
            with contextlib.suppress(ConnectionError):
                stranger.sendall(start + chance.randbytes(size))
                while stranger.recv(65536):
                    pass
        return [line for line in served.process.errors()[before:].splitlines() if name in line]

    with unharmed(served):
        for size in (24, 100, 1000, 10_000, 100_000):
            assert len(lines(size)) <= 1
        # The log takes ten a second.
        (line,) = until(lambda: lines(100))
        assert why in line
