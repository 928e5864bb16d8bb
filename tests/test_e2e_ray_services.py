"""The services of Ray Serve, asked with the stubs that the package brings."""

import asyncio
import functools
import pathlib
from collections.abc import Iterator
from typing import Any

import grpc
import pytest

from conftest import ECHO_SERVABLE
from e2e_support import Served, serving, status_of, write_servable
from mindserve.proto.ray_serve import (
    HealthzRequest,
    ListApplicationsRequest,
    PredictAPIsServiceStub,
    PredictRequest,
    RayServeAPIServiceStub,
)

MORE = """
import sys
sys.stdin.readline()
server.start_servables(server.ServableStartConfig({directory!r}, "another"))
print("started", flush=True)
"""


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder: pathlib.Path = tmp_path_factory.mktemp("ray")
    directory = folder / "servables"
    write_servable(directory, "another", ECHO_SERVABLE)
    with serving(folder, "some", ECHO_SERVABLE, after=MORE.format(directory=str(directory))) as server:
        yield server


def test_applications_are_the_servables_by_their_names(served: Served) -> None:
    with grpc.insecure_channel(served.address) as channel:
        stub = RayServeAPIServiceStub(channel)
        if "another" not in stub.ListApplications(ListApplicationsRequest(), timeout=60).application_names:
            assert list(stub.ListApplications(ListApplicationsRequest(), timeout=60).application_names) == ["some"]
            served.process.tell("more")
            assert served.process.line() == "started"
        response, call = stub.ListApplications.with_call(request=ListApplicationsRequest(), timeout=60)
        assert list(response.application_names) == ["another", "some"]
        assert call.code() is grpc.StatusCode.OK


def test_a_server_that_is_well_says_success(served: Served) -> None:
    with grpc.insecure_channel(served.address) as channel:
        assert RayServeAPIServiceStub(channel).Healthz(HealthzRequest(), timeout=60).message == "success"


def test_stubs_take_channels_of_asyncio(served: Served) -> None:
    async def ask() -> Any:
        async with grpc.aio.insecure_channel(served.address) as channel:
            return await RayServeAPIServiceStub(channel).Healthz(HealthzRequest(), timeout=60)

    assert asyncio.run(ask()).message == "success"


def test_without_a_driver_nobody_predicts(served: Served) -> None:
    with grpc.insecure_channel(served.address) as channel:
        stub = PredictAPIsServiceStub(channel)
        code, _ = status_of(lambda: stub.Predict(PredictRequest(input={"ORANGE": b"10"}), timeout=60))
        assert code in (grpc.StatusCode.UNIMPLEMENTED, grpc.StatusCode.UNAVAILABLE)


def test_what_is_no_message_is_refused(served: Served) -> None:
    with grpc.insecure_channel(served.address) as channel:
        for method in ("Healthz", "ListApplications"):
            call = channel.unary_unary(f"/ray.serve.RayServeAPIService/{method}")
            code, details = status_of(functools.partial(call, b"\x0a\x7f", timeout=60))
            assert code is grpc.StatusCode.INVALID_ARGUMENT
            assert f"{method}Request" in details
