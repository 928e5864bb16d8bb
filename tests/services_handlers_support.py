"""A servable that answers gRPC methods of all kinds, by plain handlers and by coroutines, and clients of it."""

from __future__ import annotations

import contextlib
import json
import pathlib
from collections.abc import Iterator
from typing import Any

import grpc
import pytest

import stubs
from answering_support import generated as generated
from e2e_support import Served, serving

CONFIG = """
import asyncio, collections, json, threading, time
import grpc
import kinds_pb2
import kinds_pb2_grpc
from kinds_pb2 import Answer
from mindserve.server import register

state = collections.Counter()
loads = []


@register.grpc_method("__call__")
def report(request):
    return Answer(text=json.dumps({**state, "loads": loads}))


class Base:
    # A request's text says what is to happen.
    def one(self, request, context):
        state["one"] += 1
        if request.text == "raise":
            raise ValueError("as asked")
        if request.text == "wrong":
            return "no message"
        if request.text == "ids":
            return Answer(text=f"{register.get_request_id()} {register.get_multiplexed_model_id()}")
        return Answer(text=request.text.upper(), number=2 * request.number, data=request.data)
"""

PLAIN = """

@register.grpc_service("kinds.Kinds")
class Plain(Base):
    def One(self, request):
        return self.one(request, None)

    def Down(self, request):
        try:
            for number in range(request.number):
                state["yielded"] += 1
                yield Answer(number=number, data=request.data)
                if request.text == "raise" and number == 2:
                    raise ValueError("as asked")
        finally:
            state["closed"] += 1

    def Up(self, requests):
        try:
            count = 0
            for request in requests:
                count += 1
                if request.text == "enough":
                    break
            return Answer(number=count)
        finally:
            state["closed"] += 1

    def Both(self, requests):
        try:
            for request in requests:
                yield Answer(text=request.text.upper(), data=request.data)
            yield Answer(text="end")
        finally:
            state["closed"] += 1
"""

ON_LOOP = """

@register.grpc_service("kinds.Kinds")
class OnLoop(Base):
    async def One(self, request):
        if request.text == "block":
            time.sleep(request.number)
        if request.text == "sleep":
            state["sleeping"] += 1
            try:
                await asyncio.sleep(request.number)
            finally:
                state["closed"] += 1
        return self.one(request, None)

    async def Down(self, request):
        try:
            for number in range(request.number):
                state["yielded"] += 1
                yield Answer(number=number, data=request.data)
                if request.text == "raise" and number == 2:
                    raise ValueError("as asked")
        finally:
            state["closed"] += 1

    async def Up(self, requests):
        try:
            count = 0
            async for request in requests:
                count += 1
                if request.text == "enough":
                    break
            return Answer(number=count)
        finally:
            state["closed"] += 1

    async def Both(self, requests):
        try:
            async for request in requests:
                yield Answer(text=request.text.upper(), data=request.data)
            yield Answer(text="end")
        finally:
            state["closed"] += 1
"""

ADDERS = ["kinds_pb2_grpc.add_KindsServicer_to_server", "kinds_pb2_grpc.add_TwinServicer_to_server"]


class Asked:
    """A server that answers, and a channel to it."""

    def __init__(self, served: Served, kinds: tuple[Any, Any], **options: Any) -> None:
        self.served = served
        self.pb2, self.pb2_grpc = kinds
        self.channel = grpc.insecure_channel(
            served.address, [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
        )
        self.stub = self.pb2_grpc.KindsStub(self.channel)

    def ask(self, text: str = "", number: int = 0, data: bytes = b"") -> Any:
        return self.pb2.Ask(text=text, number=number, data=data)

    def state(self) -> dict[str, Any]:
        """What the handlers have counted."""
        path = "/kinds.Kinds/__call__"
        reply = self.channel.unary_unary(
            path,
            request_serializer=lambda ask: ask.SerializeToString(),
            response_deserializer=self.pb2.Answer.FromString,
        )(self.ask(), timeout=60)
        state = json.loads(reply.text)
        assert isinstance(state, dict)
        return state

    def log(self) -> str:
        """The worker's log."""
        (path,) = (self.served.process.cwd / "serving_logs").glob("*.log")
        return path.read_text(encoding="utf-8")


@contextlib.contextmanager
def served(
    folder: pathlib.Path, generated: Any, config: str, adders: list[str], start: str = "", limits: str = ""
) -> Iterator[Asked]:
    (folder / "servables" / "kinds").mkdir(parents=True)
    stubs.generate(folder / "servables" / "kinds")
    with serving(
        folder,
        "kinds",
        config,
        start=start,
        listen=f"'127.0.0.1:0', grpc_servicer_functions={adders!r}, limits=server.Limits({limits})",
    ) as server:
        asked = Asked(server, generated)
        try:
            yield asked
        finally:
            asked.channel.close()


def failed(call: Any) -> grpc.Call:
    with pytest.raises(grpc.RpcError) as error:
        call()
    assert isinstance(error.value, grpc.Call)
    return error.value
