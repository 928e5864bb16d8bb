"""example/ping: a subclass of a generated servicer, asked by an asyncio client."""

import asyncio
import pathlib
import time
from collections.abc import Iterator

import grpc
import pytest

from e2e_support import until
from example_process import ask, logs_of, serving


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    return tmp_path_factory.mktemp("ping")


@pytest.fixture(scope="module")
def address(directory: pathlib.Path) -> Iterator[str]:
    with serving("ping", directory) as at:
        yield at


def test_the_client(address: str) -> None:
    assert ask("ping", "--address", address).splitlines() == [
        "Ping: PingReply",
        "Ping without a reply: DEADLINE_EXCEEDED",
        "PingTimeout: DEADLINE_EXCEEDED",
    ]


def test_paths_of_a_service_without_a_package(address: str) -> None:
    async def ping() -> bytes:
        async with grpc.aio.insecure_channel(address) as channel:
            return await channel.unary_unary("/TestService/Ping")(b"", timeout=60)

    assert asyncio.run(ping()) == b""


def test_the_handler_ends_with_the_deadline(address: str, directory: pathlib.Path) -> None:
    before = logs_of(directory).count("PingTimeout: nobody waits any more")
    begin = time.monotonic()
    with grpc.insecure_channel(address) as channel, pytest.raises(grpc.RpcError) as error:
        channel.unary_unary("/TestService/PingTimeout")(b"", timeout=2)
    assert error.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    assert time.monotonic() - begin < 30
    until(lambda: logs_of(directory).count("PingTimeout: nobody waits any more") > before)
