"""example/fruit_market: the built-in service in front of servables that call each other."""

import pathlib
import struct
from collections.abc import Iterator

import grpc
import pytest

from example_process import ask, logs_of, serving

PREDICT = "/ray.serve.PredictAPIsService/Predict"


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    return tmp_path_factory.mktemp("fruit_market")


@pytest.fixture(scope="module")
def address(directory: pathlib.Path) -> Iterator[str]:
    with serving("fruit_market", directory) as at:
        yield at


def basket(**fruit: bytes) -> bytes:
    """A PredictRequest in protobuf's own form: field 2, a map of a string (1) to bytes (2)."""
    request = b""
    for name, amount in fruit.items():
        entry = b"\x0a" + bytes([len(name)]) + name.encode() + b"\x12" + bytes([len(amount)]) + amount
        request += b"\x12" + bytes([len(entry)]) + entry
    return request


def test_the_client_prints_the_price(address: str) -> None:
    assert ask("fruit_market", "--address", address) == "29.0\n"
    assert ask("fruit_market", "--address", address, "APPLE=7") == "21.0\n"


def test_the_answer_is_a_native_float_in_field_1(address: str) -> None:
    with grpc.insecure_channel(address) as channel:
        response = channel.unary_unary(PREDICT)(basket(ORANGE=b"10", APPLE=b"3"), timeout=60)
        nothing = channel.unary_unary(PREDICT)(b"", timeout=60)
    assert response == b"\x0a\x04" + struct.pack("f", 29.0)
    assert nothing == b"\x0a\x04" + struct.pack("f", 0.0)


@pytest.mark.parametrize(
    ("fruit", "text"),
    [({"PEAR": b"1"}, "nobody sells PEAR, only ORANGE and APPLE"), ({"APPLE": b"many"}, "b'many'")],
)
def test_what_cannot_be_sold_is_the_client_s_error(address: str, fruit: dict[str, bytes], text: str) -> None:
    with grpc.insecure_channel(address) as channel, pytest.raises(grpc.RpcError) as error:
        channel.unary_unary(PREDICT)(basket(ORANGE=b"1", **fruit), timeout=60)
    assert error.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert text in error.value.details()


def test_the_port_is_9000_when_none_is_given() -> None:
    assert "(default: 127.0.0.1:9000)" in " ".join(ask("fruit_market", "--help").split())


def test_the_server_logs_no_error(address: str, directory: pathlib.Path) -> None:
    """What the client did wrong, and the server answered, is no trouble of the server's."""
    with grpc.insecure_channel(address) as channel, pytest.raises(grpc.RpcError):
        channel.unary_unary(PREDICT)(basket(PEAR=b"1"), timeout=60)
    assert "[ERROR]" not in logs_of(directory)
