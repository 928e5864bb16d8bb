"""Calls of users' services (``work.proto``) and of a method that streams: what is sent, and what is a right answer."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

import grpc

from chaos.calls import instance_number

PACKAGE = "chaos_load"


@dataclass(frozen=True)
class Method:
    """One of the load's.

    Attributes:
        servable: that answers it.
        service: without the package; empty for a method of the servable's own, which `infer_stream` asks.
        name: of the method.
        client_streams: it takes several messages.
        server_streams: it gives several.
    """

    servable: str
    service: str
    name: str
    client_streams: bool = False
    server_streams: bool = False

    @property
    def path(self) -> str:
        return f"/{PACKAGE}.{self.service}/{self.name}"


NOTE = Method("work", "Work", "Note")
NOTE_ASYNC = Method("work", "Work", "NoteAsync")
UNARY = (
    Method("work", "Work", "Echo"),
    Method("work", "Work", "EchoAsync"),
    NOTE,
    NOTE_ASYNC,
    Method("front", "Front", "Compose"),
    Method("front", "Front", "ComposePlain"),
)
SUM = Method("work", "Work", "Sum", client_streams=True)
TALK = Method("work", "Work", "Talk", client_streams=True, server_streams=True)
STREAMS = (
    SUM,
    Method("work", "Work", "Count", server_streams=True),
    TALK,
    Method("front", "Front", "ComposeCount", server_streams=True),
)
TELL = Method("work", "", "tell", server_streams=True)
DIE = Method("work", "Work", "Die")
# Those that must not be executed twice, and leave a mark.
MARKED = (NOTE, NOTE_ASYNC, SUM, TALK, DIE)
# Methods that only other servables call.
INNER = ("inner_half", "InnerEcho", "InnerCount")


@dataclass(frozen=True)
class WorkCall:
    """A call and what its right answers are.

    Attributes:
        number: of the request.
        method: that it asks.
        count: messages of each side that streams.
        data: in each message; those of answers have it turned round.
    """

    number: int
    method: Method
    count: int = 1
    data: bytes = b""

    @property
    def asks(self) -> int:
        """How many messages the client sends."""
        return self.count if self.method.client_streams else 1

    @property
    def answers(self) -> int:
        """How many come back, if nothing goes wrong."""
        return self.count if self.method.server_streams else 1

    def ask(self, place: int) -> Any:
        """The client's message of this place."""
        return messages().Ask(
            number=self.number, place=place, count=self.count, mark=instance_number(self.number, 0), data=self.data
        )

    def complaint(self, place: int, number: int, given: int, data: bytes) -> str:
        """What is wrong with the answer that came as the one of this place; empty if nothing is.

        Args:
            place: how many came before it.
            number: in it.
            given: the place in it.
            data: in it.
        """
        where = f"answer {place} of {self.answers}"
        if place >= self.answers:
            return f"{where}: one too many"
        if number != self.number:
            return f"{where}: it is of call {number}"
        if given != self._place(place):
            return f"{where}: it has the place {given}, expected {self._place(place)}"
        if data != self.data[::-1]:
            return f"{where}: {len(data)} bytes that are not those expected"
        return ""

    def _place(self, place: int) -> int:
        if self.method.server_streams:
            return place
        if self.method.client_streams:
            return sum(range(self.count))
        # By the model of another servable, which adds to half of the number.
        return self.number // 2 + len(self.data) if self.method.servable == "front" else 0


@functools.cache
def messages() -> Any:
    """The module of the messages, generated on the spot; for processes that import no other of that name."""
    return grpc.protos("chaos/work.proto")
