"""From Python values to the bytes of a PredictRequest.

The bytes are put together here instead of in protobuf's objects because those copy a tensor three times on its way into
the message, and this copies it once: for a tensor of 600 KB that is 16 µs instead of about a millisecond.
"""

from __future__ import annotations

import struct
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Any

import numpy as np

from mindserve.client.dtypes import MS_BYTES, MS_STRING, NAMES, NUMERIC
from mindserve.errors import MindserveError

Instances = Mapping[str, Any] | Sequence[Mapping[str, Any]]

# What protobuf takes at most, in every language.
MAX_MESSAGE_BYTES = 2**31 - 1

# Tags of the fields, as protobuf writes them: number << 3 | wire type (0: varint, 2: counted bytes).
_REQUEST_SPEC = b"\x0a"
_REQUEST_INSTANCE = b"\x12"
_SPEC_NAME = b"\x0a"
_SPEC_METHOD = b"\x12"
_SPEC_VERSION = b"\x18"
_INSTANCE_ITEM = b"\x0a"
_ITEM_KEY = b"\x0a"
_ITEM_TENSOR = b"\x12"
_TENSOR_SHAPE = b"\x0a"
_TENSOR_DTYPE = b"\x10"
_TENSOR_DATA = b"\x1a"
_TENSOR_BYTES_VAL = b"\x22"
_SHAPE_DIMS = b"\x0a"

# Below this, making a bytes object of an array is cheaper than handing its buffer to join.
_SMALL_BYTES = 1024

# A tensor: what stands before its last field's bytes, those bytes, and how many they are.
_Tensor = tuple[bytes, Any, int]


def encode_spec(servable_name: str, method_name: str, version_number: int) -> bytes:
    """The first field of a request, which is the same in all requests of a client."""
    spec = _counted(_SPEC_NAME, servable_name.encode()) + _counted(_SPEC_METHOD, method_name.encode())
    if version_number:
        spec += _SPEC_VERSION + _varint(version_number)
    return _counted(_REQUEST_SPEC, spec)


def as_instances(instances: Instances) -> Sequence[Mapping[str, Any]]:
    """One instance or several, as several."""
    if isinstance(instances, (list, tuple)):
        return instances
    if isinstance(instances, Mapping):
        return (instances,)
    raise MindserveError(f"Parameter 'instances' should be dict or tuple/list of dict, but actually {type(instances)}")


def encode_request(spec: bytes, instances: Sequence[Mapping[str, Any]]) -> bytes:
    """The bytes of a PredictRequest.

    Args:
        spec: what `encode_spec` gave.
        instances: values by their names, an instance each.

    Raises:
        MindserveError: a value of a type that cannot be sent.
    """
    parts: list[Any] = [spec]
    size = len(spec)
    for index, instance in enumerate(instances):
        place = len(parts)
        parts.append(b"")
        try:
            names = instance.items()
        except AttributeError:
            raise MindserveError(
                f"The item of parameter 'instances' should be dict, but actually {type(instance)} at index {index}"
            ) from None
        length = 0
        for name, value in names:
            try:
                encoder = _ENCODERS.get(type(value)) or _find_encoder(value)
                head, payload, payload_size = encoder(value)
                item = _item_head(name, len(head) + payload_size)
            except _Refused as error:
                raise MindserveError(f"{error}, in input {name!r} of instance {index}") from None
            parts += (item, head, payload)
            length += len(item) + len(head) + payload_size
        parts[place] = head = _REQUEST_INSTANCE + _varint(length)
        size += len(head) + length
    if size > MAX_MESSAGE_BYTES:
        raise MindserveError(f"The request has {size} bytes, over the {MAX_MESSAGE_BYTES} that a message can have")
    return b"".join(parts)


class _Refused(Exception):
    """A value that cannot be sent; the text says why."""


def _array(value: Any) -> _Tensor:
    dtype = value.dtype
    number = _NUMBERS.get(dtype.type)
    if number is None:
        return _text_array(value)
    if dtype.byteorder in _FOREIGN_ORDERS:
        value = value.astype(dtype.newbyteorder("<"))
    size = value.nbytes
    head = _array_head(number, value.shape, size)
    if size <= _SMALL_BYTES or not value.flags.c_contiguous:
        return head, value.tobytes(), size
    return head, value, size


def _text_array(value: Any) -> _Tensor:
    if value.dtype.kind == "U":
        return _texts(MS_STRING, value.shape, [_utf8(text) for text in value.ravel().tolist()])
    if value.dtype.kind == "S":
        return _texts(MS_BYTES, value.shape, value.ravel().tolist())
    raise _Refused(f"Unknown data type {value.dtype.name}: expected {NAMES}, str or bytes")


def _texts(number: int, shape: tuple[int, ...], values: Iterable[bytes]) -> _Tensor:
    payload = b"".join(_counted(_TENSOR_BYTES_VAL, value) for value in values)
    return _shape_and_dtype(number, shape), payload, len(payload)


def _bool(value: bool) -> _Tensor:
    return _BOOL_HEAD, b"\x01" if value else b"\x00", 1


def _int(value: int) -> _Tensor:
    try:
        return _INT_HEAD, _pack_int(value), 8
    except struct.error:
        raise _Refused(f"The int {value} is outside the range of int64") from None


def _float(value: float) -> _Tensor:
    return _FLOAT_HEAD, _pack_float(value), 8


def _str(value: str) -> _Tensor:
    data = _utf8(value)
    return _STR_HEAD + _varint(len(data)), data, len(data)


def _bytes(value: bytes) -> _Tensor:
    return _BYTES_HEAD + _varint(len(value)), value, len(value)


def _find_encoder(value: Any) -> Callable[[Any], _Tensor]:
    """For values of derived types: an np.matrix, an IntEnum, a numpy scalar."""
    for kind, encoder in _BASES:
        if isinstance(value, kind):
            return encoder
    raise _Refused(f"Not support value type {type(value)}: expected {_EXPECTED}")


def _utf8(text: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError as error:
        raise _Refused(f"The str cannot be written as UTF-8 ({error.reason} at position {error.start})") from None


@lru_cache(maxsize=1024)
def _key(name: str) -> bytes:
    if not isinstance(name, str):
        raise _Refused(f"The name of an input should be str, but actually {type(name)}")
    return _counted(_ITEM_KEY, _utf8(name)) + _ITEM_TENSOR


def _item_head(name: str, tensor_size: int) -> bytes:
    head = _key(name) + _varint(tensor_size)
    return _INSTANCE_ITEM + _varint(len(head) + tensor_size) + head


@lru_cache(maxsize=1024)
def _array_head(number: int, shape: tuple[int, ...], size: int) -> bytes:
    return _shape_and_dtype(number, shape) + _TENSOR_DATA + _varint(size)


def _shape_and_dtype(number: int, shape: tuple[int, ...]) -> bytes:
    dims = b"".join(map(_varint, shape))
    return _counted(_TENSOR_SHAPE, _counted(_SHAPE_DIMS, dims) if dims else b"") + _TENSOR_DTYPE + _varint(number)


def _counted(tag: bytes, data: bytes) -> bytes:
    return tag + _varint(len(data)) + data


def _varint(number: int) -> bytes:
    """Protobuf's form of an unsigned number: seven bits a byte, low ones first, the top bit set on all but the last."""
    if number < 0x80:
        return _ONE_BYTE[number]
    out = bytearray()
    while number >= 0x80:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


# C has more names for types of 64 bits than there are such types, and numpy keeps them apart.
_NUMBERS: dict[type, int] = {**NUMERIC, np.longlong: NUMERIC[np.int64], np.ulonglong: NUMERIC[np.uint64]}

_ONE_BYTE = tuple(bytes((number,)) for number in range(0x80))
_FOREIGN_ORDERS = frozenset(">" if sys.byteorder == "little" else ">=")

# A Python value travels as an array of one.
_BOOL_HEAD = _array_head(NUMERIC[np.bool_], (1,), 1)
_INT_HEAD = _array_head(NUMERIC[np.int64], (1,), 8)
_FLOAT_HEAD = _array_head(NUMERIC[np.float64], (1,), 8)
_STR_HEAD = _shape_and_dtype(MS_STRING, (1,)) + _TENSOR_BYTES_VAL
_BYTES_HEAD = _shape_and_dtype(MS_BYTES, (1,)) + _TENSOR_BYTES_VAL
_pack_int = struct.Struct("<q").pack
_pack_float = struct.Struct("<d").pack

_EXPECTED = "numpy array, numpy number, bool, int, float, str or bytes"

# In the order in which a derived type is looked up: numpy's float64 is a float, its str_ a str, bool an int.
_BASES: tuple[tuple[type, Callable[[Any], _Tensor]], ...] = (
    (bool, _bool),
    (str, _str),
    (bytes, _bytes),
    (np.ndarray, lambda value: _array(np.asarray(value))),
    (np.generic, _array),
    (int, _int),
    (float, _float),
)
_ENCODERS: dict[type, Callable[[Any], _Tensor]] = {
    np.ndarray: _array,
    bool: _bool,
    int: _int,
    float: _float,
    str: _str,
    bytes: _bytes,
    **dict.fromkeys(_NUMBERS, _array),
}
