"""Instances from a command line, a file or standard input."""

from __future__ import annotations

import base64
import io
import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mindserve.client.dtypes import NUMERIC
from mindserve.errors import MindserveError
from mindserve.files import read_file

_DTYPES = {np.dtype(kind).name: np.dtype(kind) for kind in NUMERIC}
# Bytes of a file: more than a call may have.
_MAX_FILE = 1 << 30
_NAMES = (*_DTYPES, "str", "bytes")

Instance = dict[str, Any]


class InputError(MindserveError):
    """What was given is no instance; the text says where, and what was expected."""


def read_instances(arguments: Sequence[str], file: str | None) -> list[Instance]:
    """The instances that a command line gives.

    Args:
        arguments: "name=value", which make one instance together, and JSON.
        file: with more of them; "-": standard input, which is read too where nothing is given.

    Raises:
        InputError: there are none, or one is not what it should be.
    """
    found: list[Instance] = []
    inputs: Instance = {}
    for argument in arguments:
        if argument.lstrip().startswith(("{", "[")):
            found += _from_json(argument, "the command line", Path())
            continue
        name, equals, value = argument.partition("=")
        if not equals or not name:
            raise InputError(f"'{argument}' should be NAME=VALUE, or a JSON object or list")
        if name in inputs:
            raise InputError(f"input '{name}' is given twice: expected once; for several instances, give JSON")
        inputs[name] = _from_text(value, f"input '{name}'")
    if inputs:
        found.append(inputs)
    if file is None and not arguments:
        if sys.stdin is None or sys.stdin.isatty():
            raise InputError("No instances are given: expected NAME=VALUE, JSON, or --file; {} for one without inputs")
        file = "-"
    if file is not None:
        found += _from_file(file)
    if not found:
        raise InputError("There are no instances: expected a JSON object, or a list of them")
    return found


def _from_file(file: str) -> list[Instance]:
    try:
        data = sys.stdin.buffer.read() if file == "-" else read_file(file, _MAX_FILE)[0]
        text = data.decode("utf-8-sig")
    except OSError as error:
        raise InputError(f"'{file}' can't be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise InputError(f"'{file}' should be JSON, but is not UTF-8: {error.reason} at byte {error.start}") from None
    return _from_json(text, "standard input" if file == "-" else f"'{file}'", Path(file).parent)


def _from_json(text: str, source: str, directory: Path) -> list[Instance]:
    """Each of the JSON values in ``text``, one after the other; those of lists are instances too."""
    found: list[Instance] = []
    for value in _values(text, source):
        for item in value if isinstance(value, list) else [value]:
            where = f"instance {len(found)} of {source}"
            if not isinstance(item, dict):
                raise InputError(f"{where} should be an object with the inputs by name, but is {_shown(item)}")
            found.append({name: _as_value(each, f"{where}, input '{name}'", directory) for name, each in item.items()})
    return found


def _values(text: str, source: str) -> Iterator[Any]:
    decoder = json.JSONDecoder(object_pairs_hook=_unique)
    end = 0
    while rest := text[end:].lstrip():
        begin = len(text) - len(rest)
        try:
            value, end = decoder.raw_decode(text, begin)
        except json.JSONDecodeError as error:
            raise InputError(f"{source}, line {error.lineno}, column {error.colno}: no JSON: {error.msg}") from None
        except RecursionError:
            raise InputError(f"{source}: no JSON for tensors, there are too many levels") from None
        except ValueError as error:  # a key that comes twice, or too many digits
            raise InputError(f"{source}: {error}") from None
        yield value


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"the key '{twice}' is given twice: expected once")
    return values


def _from_text(text: str, where: str) -> Any:
    """The value of NAME=VALUE."""
    if text.startswith("@"):
        path = Path(text[1:])
        if path.suffix == ".npy":
            return _array_file(path, where)
        try:
            return read_file(str(path), _MAX_FILE)[0]
        except OSError as error:
            raise InputError(f"{where}: '{path}' can't be read: {error.strerror}") from error
    try:
        value = json.loads(text, object_pairs_hook=_unique)
    except json.JSONDecodeError as error:
        if text.startswith(("[", "{", '"')):
            raise InputError(f"{where}: no JSON: {error.msg}, at character {error.pos + 1}: {text}") from None
        return text
    except (ValueError, RecursionError) as error:
        raise InputError(f"{where}: no JSON: {error}") from None
    return _as_value(value, where, Path())


def _as_value(value: Any, where: str, directory: Path) -> Any:
    if isinstance(value, str) and value.startswith("@") and value.endswith(".npy"):
        return _array_file(directory / value[1:], where)
    if isinstance(value, dict):
        return _typed(value, where)
    if isinstance(value, list):
        return _array(value, where)
    if value is None:
        raise InputError(f"{where} should be a number, text, true, false, or a list of them, but is null")
    return value


def _array_file(path: Path, where: str) -> Any:
    try:
        array = np.load(io.BytesIO(read_file(str(path), _MAX_FILE)[0]), allow_pickle=False)
    except OSError as error:
        raise InputError(f"{where}: '{path}' can't be read: {error.strerror or error}") from error
    except (ValueError, EOFError, MemoryError) as error:
        raise InputError(f"{where}: '{path}' is no .npy file with an array of numbers: {error}") from None
    if not isinstance(array, np.ndarray):
        raise InputError(f"{where}: '{path}' is no .npy file")
    return array


def _typed(value: dict[str, Any], where: str) -> Any:
    """Of {"dtype": …, "data": …}."""
    if value.keys() != {"dtype", "data"}:
        raise InputError(
            f'{where} should have "dtype" and "data", and nothing else, but has {", ".join(value) or "none"}'
        )
    name, data = value["dtype"], value["data"]
    if name == "bytes":
        return _bytes(data, where)
    if name == "str":
        if not (isinstance(data, str) or (isinstance(data, list) and _kinds(data) == {str})):
            raise InputError(f"{where} should be text, or a list of it, but is {_shown(data)}")
        return data if isinstance(data, str) else _rectangular(data, where, None)
    if name not in _NAMES:
        raise InputError(f"{where}: the dtype should be one of {', '.join(_NAMES)}, but is {_shown(name)}")
    dtype = _DTYPES[name]
    bounds = np.iinfo(dtype) if dtype.kind in "iu" else None
    for item in _flat(data):
        if isinstance(item, bool) != (dtype == np.bool_) or not isinstance(item, bool | int | float):
            raise InputError(f"{where} should be {name}, but has {_shown(item)}")
        if bounds is not None and (not isinstance(item, int) or not bounds.min <= item <= bounds.max):
            raise InputError(f"{where} should be {name}, {bounds.min} to {bounds.max}, but has {_shown(item)}")
    array = _rectangular(data, where, dtype)
    return array if isinstance(data, list) else array[()]


def _bytes(data: Any, where: str) -> Any:
    if isinstance(data, list):
        items = [_one_bytes(item, where) for item in data]
        # As numpy's type for bytes has it, which is what a client takes.
        if any(item.endswith(b"\0") for item in items):
            raise InputError(f"{where}: bytes in a list should not end with a zero byte, which numpy cuts off")
        return np.array(items, dtype=np.bytes_)
    return _one_bytes(data, where)


def _one_bytes(data: Any, where: str) -> bytes:
    try:
        return base64.b64decode(data, validate=True)
    except (ValueError, TypeError):
        raise InputError(f"{where} should be base64, or a list of it, but is {_shown(data)}") from None


def _array(value: list[Any], where: str) -> Any:
    kinds = _kinds(value)
    if not kinds:
        raise InputError(f'{where} is an empty list: give its type, {{"dtype": "float32", "data": []}}')
    if kinds == {int, float}:
        kinds = {float}
    dtypes = {bool: np.dtype(np.bool_), int: np.dtype(np.int64), float: np.dtype(np.float64), str: None}
    if len(kinds) > 1 or not kinds <= dtypes.keys():
        names = ", ".join(sorted(_KIND_NAMES.get(kind, kind.__name__) for kind in kinds))
        raise InputError(f"{where} should be a list of numbers, of true and false, or of text, but has {names}")
    return _rectangular(value, where, dtypes[kinds.pop()])


def _rectangular(value: Any, where: str, dtype: np.dtype[Any] | None) -> Any:
    try:
        return np.array(value, dtype=dtype)
    except OverflowError:
        raise InputError(f'{where} has a number beyond int64: give its type, {{"dtype": "uint64", …}}') from None
    except (ValueError, TypeError):
        raise InputError(f"{where}: the lists inside should have equal lengths") from None


def _flat(value: Any) -> Iterator[Any]:
    if isinstance(value, list):
        for item in value:
            yield from _flat(item)
    else:
        yield value


def _kinds(value: Any) -> set[type]:
    return {type(item) for item in _flat(value)}


_KIND_NAMES = {
    bool: "true or false",
    int: "numbers",
    float: "numbers",
    str: "text",
    dict: "objects",
    type(None): "null",
}


def _shown(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= 60 else text[:59] + "…"
