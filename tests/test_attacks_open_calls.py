"""Attacks by calls that stay open: what came along with them, answers that pile up, and clients that are gone."""

from __future__ import annotations

import pathlib
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from hyperframe.frame import DataFrame, HeadersFrame

from all_services import KINDS, REFLECTION, Everything, serving_everything
from answering_support import generated as generated
from attacker import CANCEL, Attacker, framed, request_fields, resident, said_of, unharmed
from e2e_support import until
from mindserve.proto.pool import message_class

MIB = 1 << 20
OK, RESOURCE_EXHAUSTED = "0", "8"


@pytest.fixture(scope="module")
def everything(tmp_path_factory: pytest.TempPathFactory, generated: tuple[Any, Any]) -> Iterator[Everything]:
    with serving_everything(tmp_path_factory.mktemp("open"), "body_idle_timeout=3", generated) as everything:
        yield everything


# -- what came along ---------------------------------------------------------------------------------------------------

CALLS, NOTE = 900, 15_000


def each_takes(everything: Everything, path: str, body: bytes | None) -> float:
    """Bytes that the server, without its workers, grows by for each of many calls that have so much metadata.

    Args:
        everything: it.
        path: of the method.
        body: the request; None: it has not come yet.
    """
    # A field that is in no table, and not packed: packing it would take a while.
    note = b"\0\6x-note\x7f" + bytes([(NOTE - 127) & 0x7F | 0x80, (NOTE - 127) >> 7]) + b"n" * NOTE
    with Attacker(everything.served.address) as attacker:
        assert attacker.is_served()
        before = resident(everything.served.process.pid)
        for stream in range(1, 2 * CALLS, 2):
            block = attacker.h2.encoder.encode(request_fields(path)) + note
            attacker.frames(HeadersFrame(stream, data=block, flags=["END_HEADERS"]))
            if body is not None:
                attacker.frames(DataFrame(stream, data=body, flags=["END_STREAM"] if body else []))
        # Whatever was sent before has been read when this is answered.
        assert attacker.is_served()
        after = resident(everything.served.process.pid)
        assert not attacker.over
        assert not attacker.resets
    return (after - before) / CALLS


@pytest.mark.parametrize(
    ("name", "most"),
    [("watch", NOTE / 2), ("reflection", NOTE / 2), ("user's both", 3 / 2 * NOTE)],
    ids=lambda each: str(each),
)
def test_metadata_of_calls_that_stay_open(everything: Everything, name: str, most: float) -> None:
    """It is let go of as soon as the call has begun; that of a call to a worker is there with the request, once."""
    body = framed(everything.message(name)) if name == "watch" else b""
    assert each_takes(everything, KINDS[name].path, body) < most


def test_metadata_of_calls_that_have_not_begun(everything: Everything) -> None:
    """Which is kept: or else the test above could not see that the other is not."""
    assert each_takes(everything, KINDS["user's unary"].path, None) > NOTE / 2


# -- answers -----------------------------------------------------------------------------------------------------------


def test_packed_answers_for_one_who_takes_none(everything: Everything, generated: tuple[Any, Any]) -> None:
    """What would be a megabyte unpacked for it counts as one where it waits: they are not packed for that client."""
    kinds_pb2, _ = generated
    body = framed(kinds_pb2.Ask(text="packed", data=bytes(MIB)).SerializeToString())
    streams = 4
    # A message for each may be ahead, and another wait for it; two processes look at what is sent.
    with (
        unharmed(everything.served, growth=(6 * streams + 32) * MIB),
        Attacker(everything.served.address, window=0) as attacker,
    ):
        for _ in range(streams):
            attacker.begin("/kinds.Kinds/Down", body)
        threading.Event().wait(2)
        assert attacker.is_served()
    with Attacker(everything.served.address, window=128 * MIB) as client:
        client.h2.increment_flow_control_window(256 * MIB)
        packs = [("grpc-accept-encoding", "gzip")]
        plain, packed = (client.begin("/kinds.Kinds/Down", body, fields=fields) for fields in ([], packs))
        answers = client.wait(plain), client.wait(packed)
        assert [answer["grpc-status"] for answer in answers] == [OK, OK]
        assert [answer.get("grpc-encoding") for answer in answers] == [None, "gzip"]
        assert client.received[plain] > 100 * MIB
        assert client.received[packed] < MIB


# -- reflection --------------------------------------------------------------------------------------------------------

ASK = framed(
    message_class("grpc.reflection.v1.ServerReflectionRequest")(
        file_containing_symbol="mindserve.StreamService"
    ).SerializeToString()
)


def test_reflection_asked_on_and_on(everything: Everything) -> None:
    """On many streams, of which nobody takes an answer: 16 MiB wait for a connection, whatever else it asks."""
    with unharmed(everything.served, growth=2 * 16 * MIB), Attacker(everything.served.address, window=0) as attacker:
        # 900 answers of over a KiB for each.
        streams = [attacker.begin(REFLECTION, ASK * 900, ends=False) for _ in range(40)]
        last = attacker.wait(attacker.begin(REFLECTION, ASK, ends=False))
        assert last["grpc-status"] == RESOURCE_EXHAUSTED
        assert "at most 1000, or 16 MiB of a connection, may" in last["grpc-message"]
        with Attacker(everything.served.address) as other:
            answer = other.wait(other.begin(REFLECTION, ASK))
            assert answer["grpc-status"] == OK
        attacker.until(lambda: all(attacker.is_over(stream) for stream in streams))
        # Those that have answers were refused, too, and would be told if they took them.
        assert set(attacker.resets.values()) == {0, CANCEL}
        lines = said_of(everything.served, attacker)
        assert any("its reply was not taken within body_idle_timeout" in line for line in lines)
        assert attacker.is_served()


# -- clients that are gone ---------------------------------------------------------------------------------------------


def test_the_kernel_asks_whether_a_client_is_still_there(everything: Everything) -> None:
    """Of one whose machine is gone nothing else would tell, where the server has nothing to say for minutes."""
    with Attacker(everything.served.address) as client:
        assert client.is_served()
        mine, port = (int(address.rsplit(":", 1)[1]) for address in (client.name, everything.served.address))

        def timer() -> list[str]:
            lines = [line.split() for line in pathlib.Path("/proc/net/tcp").read_text().splitlines()[1:]]
            ends = f":{port:04X}", f":{mine:04X}"
            return [each[5][:2] for each in lines if each[1].endswith(ends[0]) and each[2].endswith(ends[1])]

        until(timer, lambda found: found == ["02"])  # keepalive; 00: none
