"""Drivers: what ray.serve.PredictAPIsService/Predict asks."""

from __future__ import annotations

import pathlib
from collections.abc import Iterator

import grpc
import pytest

from e2e_support import Served, server_process, status_of, until, write_servable
from mindserve.proto.ray_serve import PredictAPIsServiceStub, PredictRequest

CLASS = """
import os
from mindserve.server import register


@register.driver
class Counting:
    def __init__(self):
        self.calls = 0

    def __call__(self, input):
        self.calls += 1
        given = " ".join(f"{key}={value.decode()}" for key, value in sorted(input.items()))
        return f"{os.getpid()} {self.calls} {given}"
"""

COROUTINE = """
import asyncio
from mindserve.server import register


@register.driver
async def reverse(input):
    await asyncio.sleep(0)
    return bytearray(input["data"][::-1])
"""

START = """
from mindserve import server

server.start_servables([
    server.ServableStartConfig({directory!r}, "counting", device_ids=(0, 1)),
    server.ServableStartConfig({directory!r}, "reverse"),
])
print(server.start_grpc_server("127.0.0.1:0")[0], flush=True)
"""


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder: pathlib.Path = tmp_path_factory.mktemp("drivers")
    write_servable(folder / "servables", "counting", CLASS)
    write_servable(folder / "servables", "reverse", COROUTINE)
    with server_process(folder / "run", START.format(directory=str(folder / "servables"))) as process:
        server = Served(process, [process.line()], "counting")
        yield server
        server.close()


def predict(served: Served, application: str, **inputs: bytes) -> bytes:
    with grpc.insecure_channel(served.address) as channel:
        metadata = (("application", application),) if application else ()
        request = PredictRequest(input=inputs)
        prediction = PredictAPIsServiceStub(channel).Predict(request, metadata=metadata, timeout=60).prediction
    assert isinstance(prediction, bytes)
    return prediction


def test_text_becomes_utf_8(served: Served) -> None:
    assert predict(served, "counting", a=b"1", b="ä".encode()).decode().endswith(" a=1 b=ä")


def test_each_worker_has_an_object_of_its_own_and_they_share_the_calls(served: Served) -> None:
    calls: dict[str, list[int]] = {}

    def both() -> bool:
        pid, number = predict(served, "counting").split()[:2]
        calls.setdefault(pid.decode(), []).append(int(number))
        return len(calls) == 2

    until(both)
    assert all(numbers == list(range(numbers[0], numbers[0] + len(numbers))) for numbers in calls.values())
    assert {int(pid) for pid in calls} <= set(served.process.workers())


def test_a_coroutine_and_bytes_of_any_kind(served: Served) -> None:
    assert predict(served, "reverse", data=b"\x00\x01\xff") == b"\xff\x01\x00"


def test_several_drivers_need_an_application(served: Served) -> None:
    code, details = status_of(lambda: predict(served, ""))
    assert code is grpc.StatusCode.NOT_FOUND
    assert details.startswith("Application metadata not set")
    assert "counting" in details
    assert "reverse" in details


def test_a_driver_that_raises(served: Served) -> None:
    code, details = status_of(lambda: predict(served, "reverse"))
    assert code is grpc.StatusCode.INTERNAL
    assert "KeyError: 'data'" in details
