"""Attacks on calls of every kind: Predict, its streams, the Classifier, users' services, health and reflection.

What is slow is done to all of them at a time, on one connection.
"""

from __future__ import annotations

import pathlib
import random
import threading
import zlib
from collections.abc import Iterator
from typing import Any

import pytest
from hyperframe.frame import DataFrame

from all_services import KINDS, Everything, serving_everything
from answering_support import generated as generated
from attacker import CANCEL, Attacker, framed, said_of, unharmed
from e2e_support import until

MIB = 1 << 20
OK, CANCELLED, INVALID_ARGUMENT, NOT_FOUND, RESOURCE_EXHAUSTED, INTERNAL = "0", "1", "3", "5", "8", "13"
# Whose readers may rest while nobody lacks what they hold: streams of answers of which more are to come.
RESTING = ("PredictStream", "user's answers", "user's both")
# What unpacking a message may take, and some more: a buffer of max_msg_mb_size, and while it grows one of twice that.
UNPACKED = 32 * MIB
# Whose clients may send several messages.
ONE_BY_ONE = [name for name, kind in KINDS.items() if kind.streams]


@pytest.fixture(scope="module")
def everything(tmp_path_factory: pytest.TempPathFactory, generated: tuple[Any, Any]) -> Iterator[Everything]:
    """A server of small messages, whose patience is short."""
    limits = "max_msg_mb_size=8, body_idle_timeout=1, min_bytes_per_second=100_000"
    with serving_everything(tmp_path_factory.mktemp("services"), limits, generated) as everything:
        yield everything


def ended(attacker: Attacker, streams: dict[str, int]) -> dict[str, tuple[str, str]]:
    """The code and the text that each of these calls ends with."""
    attacker.until(lambda: all(attacker.is_over(stream) for stream in streams.values()))
    answers = {name: attacker.wait(stream) for name, stream in streams.items()}
    return {name: (answer["grpc-status"], answer.get("grpc-message", "")) for name, answer in answers.items()}


def is_answered(everything: Everything, attacker: Attacker, name: str) -> None:
    """A right call of that kind, on the attacker's own connection."""
    stream = attacker.begin(KINDS[name].path, framed(everything.message(name)))
    attacker.until(lambda: attacker.received.get(stream, 0) > 0)
    assert not attacker.resets
    if name != "watch":
        assert attacker.wait(stream)["grpc-status"] == OK


# -- what is too large -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def bombs() -> dict[str, bytes]:
    """200 MiB of zeros, packed to a thousandth."""
    made = {}
    for encoding, bits in (("gzip", 31), ("deflate", 15)):
        packer = zlib.compressobj(9, wbits=bits)
        packed = b"".join(packer.compress(bytes(MIB)) for _ in range(200)) + packer.flush()
        made[encoding] = framed(packed, compressed=True)
    return made


@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
@pytest.mark.parametrize("name", KINDS)
def test_gzip_bombs(everything: Everything, bombs: dict[str, bytes], name: str, encoding: str) -> None:
    """Each is unpacked to max_msg_mb_size and no further."""
    fields = [("grpc-encoding", encoding)]
    with unharmed(everything.served, growth=UNPACKED), Attacker(everything.served.address) as attacker:
        for ends in (True, False) * 3:
            answer = attacker.wait(attacker.begin(KINDS[name].path, bombs[encoding], ends=ends, fields=fields))
            assert answer["grpc-status"] == RESOURCE_EXHAUSTED
            assert "max_msg_mb_size 8" in answer["grpc-message"]
    with Attacker(everything.served.address) as client:
        is_answered(everything, client, name)


@pytest.mark.parametrize("name", ONE_BY_ONE)
def test_a_gzip_bomb_behind_what_is_right(everything: Everything, bombs: dict[str, bytes], name: str) -> None:
    """As a later message of a stream."""
    packer = zlib.compressobj(wbits=31)
    right = framed(packer.compress(everything.message(name)) + packer.flush(), compressed=True)
    fields = [("grpc-encoding", "gzip")]
    with unharmed(everything.served, growth=UNPACKED), Attacker(everything.served.address) as attacker:
        answer = attacker.wait(attacker.begin(KINDS[name].path, right + bombs["gzip"], fields=fields))
        assert answer["grpc-status"] == RESOURCE_EXHAUSTED
        assert "max_msg_mb_size 8" in answer["grpc-message"]


@pytest.mark.parametrize("name", KINDS)
def test_a_length_of_2_gb(everything: Everything, name: str) -> None:
    """Also of 4 GB: refused by its first five bytes, whatever follows, and before memory is taken."""
    with unharmed(everything.served, growth=8 * MIB), Attacker(everything.served.address) as attacker:
        before = [b""] if name not in ONE_BY_ONE else [b"", framed(everything.message(name))]
        for size in (0x7FFF_FFFF, 0xFFFF_FFFF, 8 * MIB + 1):
            for right in before:
                body = right + b"\0" + size.to_bytes(4, "big")
                answer = attacker.wait(attacker.begin(KINDS[name].path, body, ends=False))
                assert answer["grpc-status"] == RESOURCE_EXHAUSTED
                assert "max_msg_mb_size 8" in answer["grpc-message"]
        assert attacker.is_served()


# -- what takes its time -----------------------------------------------------------------------------------------------


def test_a_body_that_stops(everything: Everything) -> None:
    """Within its first message, and within a later one."""
    with unharmed(everything.served), Attacker(everything.served.address) as attacker:
        streams = {}
        for name, kind in KINDS.items():
            message = framed(everything.message(name))
            streams[name] = attacker.begin(kind.path, message[:-1], ends=False)
            if kind.streams:
                streams[name + ", second"] = attacker.begin(kind.path, message + message[:-1], ends=False)
        why = (CANCELLED, "the request's body did not go on within body_idle_timeout 1000 ms")
        assert ended(attacker, streams) == dict.fromkeys(streams, why)
        assert attacker.is_served()


@pytest.mark.parametrize("size", [1000, 7 * MIB])
def test_a_slow_body(everything: Everything, size: int) -> None:
    pause = threading.Event()
    with unharmed(everything.served), Attacker(everything.served.address) as attacker:
        prefix = b"\0" + size.to_bytes(4, "big")
        # Of health and reflection no message may be so large.
        large = [name for name, kind in KINDS.items() if kind.echoes or size < 4096]
        streams = {name: attacker.begin(KINDS[name].path, prefix, ends=False) for name in large}
        while open_ones := [stream for stream in streams.values() if not attacker.is_over(stream)]:
            attacker.frames(*(DataFrame(stream, data=b"x") for stream in open_ones))
            pause.wait(0.02)
            attacker.look(0)
        why = "the request's body did not go on at min_bytes_per_second 100000"
        assert ended(attacker, streams) == dict.fromkeys(streams, (CANCELLED, why))
        assert attacker.is_served()


# -- what is not taken -------------------------------------------------------------------------------------------------


def test_a_window_of_nothing(everything: Everything) -> None:
    """Ten calls of each kind with answers of a MiB: the last of a call is given up, streams rest, and hold little.

    Each call may hold its request and an answer, in the worker's own objects too; a stream that went on, a hundred.
    """
    count = 10
    most = 5 * count * MIB * sum(kind.echoes for kind in KINDS.values())
    with unharmed(everything.served, growth=most), Attacker(everything.served.address, window=0) as attacker:
        streams = {
            name: [attacker.begin(kind.path, framed(everything.message(name, bytes(MIB)))) for _ in range(count)]
            for name, kind in KINDS.items()
        }
        given_up = [stream for name in streams if name not in RESTING for stream in streams[name]]
        attacker.until(lambda: all(attacker.is_over(stream) for stream in given_up))
        assert attacker.resets == dict.fromkeys(given_up, CANCEL)
        why = "its reply was not taken within body_idle_timeout 1000 ms"
        assert any(why in line for line in said_of(everything.served, attacker))
        assert attacker.is_served()
        assert attacker.received == {}


def test_readers_that_rest_while_others_are_refused(tmp_path: pathlib.Path, generated: tuple[Any, Any]) -> None:
    """Streams of each kind that nobody reads, as many as there may be calls, make room for who lacks it."""
    limits = "body_idle_timeout=1, max_enqueued_requests=3"
    with (
        serving_everything(tmp_path, limits, generated) as everything,
        Attacker(everything.served.address, window=0) as attacker,
    ):
        streams = []
        for name in RESTING:
            body = framed(everything.message(name, bytes(100_000)))
            # Where its client has sent all, a handler of both has answered all.
            streams.append(attacker.begin(KINDS[name].path, body, ends=name not in ONE_BY_ONE))

        def ask() -> object:
            return everything.served.client("same").infer({"x": "text"}, timeout=60)

        refusal = until(ask, lambda answer: isinstance(answer, dict))
        assert isinstance(refusal, dict)
        assert "limit 3 (max_enqueued_requests)" in refusal["error"]
        assert attacker.is_served()
        until(ask, lambda answer: answer == [{"x": "text"}], seconds=10)
        attacker.until(lambda: all(attacker.is_over(stream) for stream in streams))
        assert attacker.resets == dict.fromkeys(streams, CANCEL)
        assert attacker.is_served()


# -- what is no message ------------------------------------------------------------------------------------------------


def answered(everything: Everything, name: str, bodies: list[bytes]) -> Iterator[tuple[bytes, str]]:
    """The code that each of these messages is answered with, asked on one connection; of Watch OK, if it goes on."""
    with Attacker(everything.served.address, window=2**31 - 1) as attacker:
        attacker.h2.increment_flow_control_window(2**30)
        for begin in range(0, len(bodies), 100):
            part = bodies[begin : begin + 100]
            for body, stream in [(body, attacker.begin(KINDS[name].path, framed(body))) for body in part]:
                while not attacker.is_over(stream) and not (name == "watch" and stream in attacker.received):
                    assert attacker.look(60), "the server does not answer"
                yield body, attacker.streams[stream].get("grpc-status", OK)
        assert attacker.is_served()
        assert not attacker.resets


def is_right(everything: Everything, name: str, body: bytes, code: str) -> bool:
    if name.startswith("user's"):
        return code == (OK if everything.parses(name, body) else INVALID_ARGUMENT)
    # What the server reads itself it may refuse for what protobuf takes, and skip what nobody needs.
    return code in (OK, INVALID_ARGUMENT, NOT_FOUND if name == "health" else OK)


@pytest.mark.parametrize("name", KINDS)
def test_every_truncation_is_answered(everything: Everything, name: str) -> None:
    workers = everything.served.process.workers()
    message = everything.message(name)
    for body, code in answered(everything, name, [message[:end] for end in range(len(message))]):
        parses = everything.parses(name, body)
        assert code == (OK if parses and name != "Classifier" else INVALID_ARGUMENT), body
    with Attacker(everything.served.address) as client:
        is_answered(everything, client, name)
    assert everything.served.process.workers() == workers


@pytest.mark.parametrize("name", KINDS)
def test_random_bytes_and_damage_are_answered(everything: Everything, name: str) -> None:
    workers = everything.served.process.workers()
    chance = random.Random(7)
    bodies = [chance.randbytes(size) for size in (1, 3, 10, 100, 1000) for _ in range(20)]
    for _ in range(300):
        damaged = bytearray(everything.message(name))
        for _ in range(chance.randint(1, 4)):
            damaged[chance.randrange(len(damaged))] ^= 1 << chance.randrange(8)
        bodies.append(bytes(damaged))
    for body, code in answered(everything, name, bodies):
        assert is_right(everything, name, body, code), (body, code)
    with Attacker(everything.served.address) as client:
        is_answered(everything, client, name)
    assert everything.served.process.workers() == workers


@pytest.mark.parametrize("name", KINDS)
def test_broken_framing_is_internal(everything: Everything, name: str) -> None:
    """A prefix or a message that is cut, and flags that there are not."""
    right = framed(everything.message(name))
    wrong = {right[:end]: "broken gRPC framing: the request ends within a message" for end in range(1, len(right))}
    for flag in (2, 128, 255):
        wrong[bytes([flag]) + right[1:]] = (
            f"broken gRPC framing: a message's compressed flag is {flag}, expected 0 or 1"
        )
    wrong[b"\1" + right[1:]] = "a message is flagged as compressed, but grpc-encoding names no compression"
    with Attacker(everything.served.address) as attacker:
        streams = {body: attacker.begin(KINDS[name].path, body) for body in wrong}
        for body, stream in streams.items():
            answer = attacker.wait(stream)
            assert (answer["grpc-status"], answer["grpc-message"]) == (INTERNAL, wrong[body])
        is_answered(everything, attacker, name)
