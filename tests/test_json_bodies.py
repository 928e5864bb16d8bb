"""JSON bodies and Predict messages: what the native core makes of each, against json, numpy and the client."""

from __future__ import annotations

import base64
import concurrent.futures
import json
from typing import Any

import numpy as np
import pytest

from mindserve import native
from mindserve.client.decoding import decode_reply
from mindserve.client.encoding import encode_request, encode_spec
from mindserve.proto.messages import ErrorMsg, PredictReply, PredictRequest

core = native.load()

# By the names that objects call the types by.
TYPES = {
    **{name: np.dtype(name) for name in ("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64")},
    **{name: np.dtype(name) for name in ("float16", "float32", "float64", "bool")},
    "fp16": np.dtype("float16"),
    "fp32": np.dtype("float32"),
    "fp64": np.dtype("float64"),
}


def to_request(body: Any) -> Any:
    text = body if isinstance(body, bytes) else json.dumps(body).encode()
    return PredictRequest.FromString(core.predict_request_from_json(text, "servable", "method", 3))


def to_values(body: Any) -> Any:
    """Instances in JSON, as a worker's reply of the same would reach a Python client."""
    instances = to_request(body).instances
    return decode_reply(PredictReply(instances=instances).SerializeToString(), len(instances))


def to_json(reply: Any) -> Any:
    # Not what Python reads besides JSON.
    def refuse(name: str) -> None:
        raise AssertionError(f"{name} is no JSON")

    return json.loads(core.predict_reply_to_json(reply.SerializeToString()), parse_constant=refuse)


def reply_of(**outputs: Any) -> Any:
    request = PredictRequest.FromString(encode_request(encode_spec("s", "m", 0), [outputs]))
    return PredictReply(instances=request.instances)


def value_of(output: Any) -> Any:
    """What an output of this value is in JSON."""
    return to_json(reply_of(y=output))["instances"][0]["y"]


def same(value: Any, expected: np.ndarray[Any, Any]) -> bool:
    return (
        value.dtype == expected.dtype
        and value.shape == expected.shape
        and np.array_equal(value, expected, equal_nan=True)
    )


def test_the_route_and_the_values() -> None:
    request = to_request({"instances": [{"x": 7, "s": "é"}, {"b": True, "f": 0.5}]})
    assert request.servable_spec.name == "servable"
    assert request.servable_spec.method_name == "method"
    assert request.servable_spec.version_number == 3
    first, second = to_values({"instances": [{"x": 7, "s": "é"}, {"b": True, "f": 0.5}]})
    assert first == {"x": 7, "s": "é"}
    assert second == {"b": True, "f": 0.5}
    assert (first["x"].dtype, second["f"].dtype) == (np.int32, np.float32)


@pytest.mark.parametrize("shape", [(1,), (5,), (2, 3), (3, 1, 2), (4, 1, 1, 5), (7, 1030)])
def test_arrays_become_what_numpy_makes_of_them(shape: tuple[int, ...]) -> None:
    random = np.random.default_rng(1)
    integers = random.integers(-(2**31), 2**31, shape, np.int32)
    floats = random.normal(size=shape) * 10.0 ** random.integers(-30, 30, shape)
    bools = random.random(shape) < 0.5
    body = {"instances": [{"i": integers.tolist(), "f": floats.tolist(), "b": bools.tolist()}]}
    for indent in (None, 1):
        (values,) = to_values(json.dumps(body, indent=indent).encode())
        assert same(values["i"], integers)
        assert same(values["f"], floats.astype(np.float32))
        assert same(values["b"], bools)


@pytest.mark.parametrize("name", TYPES)
@pytest.mark.parametrize("shape", [(), (3,), (2, 1, 4), (0,), (2, 0)])
def test_objects_of_every_type(name: str, shape: tuple[int, ...]) -> None:
    array = np.random.default_rng(2).integers(0, 2, shape).astype(TYPES[name])
    value = {"b64": base64.b64encode(array.tobytes()).decode(), "type": name, "shape": list(shape)}
    ((result),) = to_values({"instances": [{"x": value}]})
    assert same(np.asarray(result["x"]), array)


def test_bytes_and_strings_as_objects() -> None:
    data = bytes(range(256))
    value = {"b64": base64.b64encode(data).decode()}
    assert to_values({"instances": [{"x": value}]}) == [{"x": data}]
    text = {"b64": base64.b64encode("é".encode()).decode(), "type": "str", "shape": [1]}
    assert to_values({"instances": [{"x": text}]}) == [{"x": "é"}]


def test_errors_carry_text_and_code() -> None:
    with pytest.raises(core.NativeError, match=r"^Parser request failed, json array, shape is empty") as error:
        to_request({"instances": [{"x": []}]})
    assert error.value.code == "INVALID_ARGUMENT"
    with pytest.raises(core.NativeError, match=r"^Illegal JSON format: NaN is no JSON") as error:
        to_request({"instances": [{"x": float("nan")}]})
    assert error.value.code == "INVALID_ARGUMENT"
    with pytest.raises(core.NativeError, match=r"the number 2147483648 does not fit int32") as error:
        to_request({"instances": [{"x": 2**31}]})
    assert error.value.code == "OUT_OF_RANGE"
    with pytest.raises(core.NativeError, match=r"^the PredictReply doesn't parse") as error:
        core.predict_reply_to_json(b"\xff")
    assert error.value.code == "INTERNAL"


@pytest.mark.parametrize("name", ["int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"])
def test_integers_in_full(name: str) -> None:
    info = np.iinfo(name)
    array = np.array([[info.min, info.max], [0, 1]], name)
    assert value_of(array) == array.tolist()
    assert value_of(np.dtype(name).type(info.max)) == info.max


def test_floats_read_back_as_they_were() -> None:
    random = np.random.default_rng(3)
    for wide in (np.frombuffer(random.bytes(8000), np.float64), np.frombuffer(random.bytes(8000), np.float32)):
        array = wide[np.isfinite(wide)]
        written = value_of(array)
        assert all(isinstance(number, float) for number in written)
        assert np.array_equal(np.asarray(written).astype(array.dtype), array)
    assert value_of(np.float32(2.2)) == 2.2
    assert value_of(np.array([np.nan, np.inf, -np.inf], np.float32)) == [None, None, None]


def test_every_half_float() -> None:
    array = np.arange(2**16, dtype=np.uint16).view(np.float16)
    expected = [float(number) if np.isfinite(number) else None for number in array]
    written = [None if number is None else float(np.float32(number)) for number in value_of(array)]
    assert written == expected


def test_shapes_of_results() -> None:
    for shape in [(), (1,), (2, 3), (2, 1, 2), (0,), (2, 0), (0, 2)]:
        array = np.arange(np.prod(shape, dtype=int), dtype=np.int32).reshape(shape)
        assert value_of(array) == array.tolist()
    assert value_of(np.array([[True], [False]])) == [[True], [False]]
    assert value_of(np.array([["a"], ["é"]])) == [["a"], ["é"]]


def test_texts_of_results() -> None:
    text = "".join(map(chr, range(0x300))) + "\U0001f600\ufffd"
    assert value_of(text) == text
    assert value_of(b"\x00\xff") == {"b64": "AP8="}


def test_errors_of_instances() -> None:
    reply = reply_of(y=np.int32(1))
    reply.instances.add()
    reply.error_msg.extend([ErrorMsg(), ErrorMsg(error_code=2, error_msg='é "'.encode())])
    assert to_json(reply) == {"instances": [{"y": 1}, {"error_msg": 'é "'}]}
    assert to_json(PredictReply(error_msg=[ErrorMsg(error_code=1, error_msg=b"no")])) == {"error_msg": "no"}


def test_what_comes_back_can_be_sent_again() -> None:
    values = {"f": [[0.1, -2.0]], "i": 3, "b": [True], "s": "é", "d": {"b64": "AA=="}}
    request = to_request({"instances": [values]})
    assert to_json(PredictReply(instances=request.instances)) == {"instances": [values]}


def test_large_bodies_from_several_threads() -> None:
    """Beyond what a thread keeps its memory for, and below."""
    random = np.random.default_rng(4)
    arrays = [random.integers(0, 256, (count, 3)).astype(np.int32) for count in (1, 100_000, 1_000_000, 10)]
    bodies = [json.dumps({"instances": [{"x": array.tolist()}]}).encode() for array in arrays]

    def convert(number: int) -> bool:
        (values,) = to_values(bodies[number % len(bodies)])
        return same(values["x"], arrays[number % len(arrays)])

    with concurrent.futures.ThreadPoolExecutor(4) as threads:
        assert all(threads.map(convert, range(12)))
