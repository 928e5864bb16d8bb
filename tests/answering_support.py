"""Handlers that answer calls of a stand-in of the native module, in threads and on an event loop as in a worker."""

from __future__ import annotations

import asyncio
import pathlib
import time
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import pytest

import stubs
from mindserve.control import WorkerParameters
from mindserve.register.values import Registration
from mindserve.server import register
from mindserve.worker.services import find_handlers
from mindserve.worker.serving import Answering
from service_stand_in import StandIn, StandInCall, StandInRuntime

T = TypeVar("T")

OK, CANCELLED, UNKNOWN, INVALID_ARGUMENT, NOT_FOUND = 0, 1, 2, 3, 5
FAILED_PRECONDITION, UNIMPLEMENTED, INTERNAL = 9, 12, 13


def eventually(what: Callable[[], T], seconds: float = 60) -> T:
    """What ``what`` gives once it is true; fails after some time."""
    end = time.monotonic() + seconds
    while not (value := what()):
        assert time.monotonic() < end, "it has not come about"
        time.sleep(0.001)
    return value


def parameters(**options: Any) -> WorkerParameters:
    values: dict[str, Any] = {
        "servable_directory": "/nowhere", "servable_name": "kinds", "version": 1, "version_asked": 0, "device_id": 0,
        "device_type": None, "intra_op_threads": 1, "max_batch_size": 32, "max_queue_delay_us": 0,
        "handshake_timeout": 1.0, "refuse_late": False, "handler_threads": 4, "send_tracebacks": True,
        "internal_address": "",
    }  # fmt: skip
    return WorkerParameters(**{**values, **options})


class Handled:
    """A registration's handlers, answering."""

    def __init__(self, registration: Registration, pb2: Any, options: dict[str, Any]) -> None:
        self.pb2 = pb2
        self.handlers = find_handlers(registration, lambda phase: None)
        self.runtime = StandInRuntime([handler.on_loop for handler in self.handlers])
        self.deaths: list[BaseException] = []
        self._paths = [handler.path for handler in self.handlers]
        runtime: Any = self.runtime
        self.answering = Answering(
            runtime,
            dict(enumerate(self.handlers)),
            parameters(**options),
            native=StandIn,
            on_death=lambda name, error: self.deaths.append(error),
        )
        for thread in self.answering.threads:
            thread.start()
        self.answering.start_loop()

    def ask(self, text: str = "", number: int = 0) -> bytes:
        return bytes(self.pb2.Ask(text=text, number=number).SerializeToString())

    def open(self, path: str, *messages: bytes, **options: Any) -> StandInCall:
        """A call; its method by its path, or by its name in kinds.Kinds."""
        path = path if path.startswith("/") else f"/kinds.Kinds/{path}"
        return self.runtime.open(StandInCall(self.runtime, self._paths.index(path), messages, **options))

    def answer(self, data: bytes) -> Any:
        return self.pb2.Answer.FromString(data)

    def one(self, path: str, *messages: bytes, **options: Any) -> tuple[Any, tuple[int, str, Any]]:
        """The one answer of a call, None if there is none, and its end."""
        call = self.open(path, *messages, **options)
        end = call.ended()
        assert call.taken() <= 1
        return (self.answer(call.take()) if call.taken() else None), end

    def all(self, path: str, *messages: bytes, **options: Any) -> tuple[list[Any], tuple[int, str, Any]]:
        """All answers of a call, and its end."""
        call = self.open(path, *messages, **options)
        end = call.ended()
        return [self.answer(call.take()) for _ in range(call.taken())], end

    def close(self) -> None:
        self.runtime.stop()
        assert self.answering.stop_loop(60)
        for thread in self.answering.threads:
            thread.join(60)
        assert self.deaths == []


Handle = Callable[..., Handled]


@pytest.fixture(scope="session")
def generated(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Any]:
    """The generated modules of kinds.proto."""
    return stubs.load(tmp_path_factory.mktemp("stubs"))


@pytest.fixture
def kinds(generated: tuple[Any, Any], monkeypatch: pytest.MonkeyPatch) -> tuple[Any, Any]:
    """The generated modules of kinds.proto, as if they were the only ones that were ever imported."""
    services = {service.full_name: service for service in generated[0].DESCRIPTOR.services_by_name.values()}
    monkeypatch.setattr("mindserve.worker.services.imported_services", lambda: services)
    return generated


@pytest.fixture
def handle(kinds: tuple[Any, Any]) -> Iterator[Handle]:
    """Makes functions, classes or whatever a declaring function declares answer."""
    made: list[Handled] = []

    def make(declare: Callable[[], object], **options: Any) -> Handled:
        registration = Registration("kinds")
        with registration.collecting():
            declare()
        made.append(Handled(registration, kinds[0], options))
        return made[-1]

    yield make
    for handled in made:
        handled.close()


__all__ = ["Handle", "Handled", "eventually", "generated", "handle", "kinds", "pathlib"]


def plain(pb2: Any) -> None:
    """Handlers of all kinds on threads."""
    Answer = pb2.Answer

    @register.grpc_method
    def One(request):
        return Answer(text=request.text.upper(), number=2 * request.number)

    @register.grpc_method
    def Down(request):
        for number in range(request.number):
            yield Answer(text=request.text, number=number)

    @register.grpc_method
    def Up(requests):
        texts = [request.text for request in requests]
        return Answer(text=" ".join(texts), number=len(texts))

    @register.grpc_method
    def Both(requests):
        for request in requests:
            yield Answer(text=request.text.upper())
        yield Answer(text="end")


def on_loop(pb2: Any) -> None:
    """The same on the event loop."""
    Answer = pb2.Answer

    @register.grpc_method
    async def One(request):
        await asyncio.sleep(0)
        return Answer(text=request.text.upper(), number=2 * request.number)

    @register.grpc_method
    async def Down(request):
        for number in range(request.number):
            yield Answer(text=request.text, number=number)

    @register.grpc_method
    async def Up(requests):
        texts = [request.text async for request in requests]
        return Answer(text=" ".join(texts), number=len(texts))

    @register.grpc_method
    async def Both(requests):
        async for request in requests:
            yield Answer(text=request.text.upper())
        yield Answer(text="end")
