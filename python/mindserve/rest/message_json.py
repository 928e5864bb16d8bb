"""JSON into messages, by protobuf's mapping, where clients may have written anything."""

from __future__ import annotations

import contextlib
import json
import math
import re
import sys
from collections.abc import Collection, Iterable
from typing import Any

from google.protobuf import (
    any_pb2,
    descriptor_pool,
    duration_pb2,
    empty_pb2,
    field_mask_pb2,
    json_format,
    struct_pb2,
    timestamp_pb2,
    wrappers_pb2,
)
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message

from mindserve.rest.message_schemas import is_repeated

# Levels of a message, one inside the other, as protobuf's own parsers have it.
_MAX_DEPTH = 100
_LONGEST_REASON = 1000
# Of either alphabet, with or without padding.
_BASE64 = re.compile(r"[A-Za-z0-9+/_-]*={0,2}")
# As JSON has numbers, and what it has none for.
_NUMBER = re.compile(r"-?[0-9]+([.][0-9]+)?([eE][+-]?[0-9]+)?|NaN|-?Infinity")
# Halves of surrogate pairs, and whole ones.
_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")
_ANY = "google.protobuf.Any"
_LIST_VALUE = "google.protobuf.ListValue"
_STRUCT = "google.protobuf.Struct"
_VALUE = "google.protobuf.Value"
# Messages that are text in JSON, with an example.
_TEXTS = {
    "google.protobuf.Duration": "1.5s",
    "google.protobuf.FieldMask": "user.name,photo",
    "google.protobuf.Timestamp": "2024-01-02T03:04:05Z",
}
# Messages whose JSON is no object of their fields: in an Any it stands in "value".
OWN_FORMS = frozenset(
    (
        *(_ANY, _LIST_VALUE, _STRUCT, _VALUE),
        *_TEXTS,
        *(f"google.protobuf.{name}Value" for name in ("Bool", "Bytes", "Double", "Float", "Int32", "Int64", "String")),
        *("google.protobuf.UInt32Value", "google.protobuf.UInt64Value"),
    )
)
_WELL_KNOWN = (any_pb2, duration_pb2, empty_pb2, field_mask_pb2, struct_pb2, timestamp_pb2, wrappers_pb2)
# What values of fields are in JSON: the types that Python reads, and words for them. Numbers may be text.
_WHOLE = (frozenset((int, float, str)), "a whole number")
_FRACTION = (frozenset((int, float, str)), "a number")
_BYTES = (frozenset((str,)), "base64 text")
_SCALARS: dict[int, tuple[frozenset[type], str]] = {
    FieldDescriptor.CPPTYPE_INT32: _WHOLE,
    FieldDescriptor.CPPTYPE_INT64: _WHOLE,
    FieldDescriptor.CPPTYPE_UINT32: _WHOLE,
    FieldDescriptor.CPPTYPE_UINT64: _WHOLE,
    FieldDescriptor.CPPTYPE_FLOAT: _FRACTION,
    FieldDescriptor.CPPTYPE_DOUBLE: _FRACTION,
    FieldDescriptor.CPPTYPE_BOOL: (frozenset((bool,)), "true or false"),
    FieldDescriptor.CPPTYPE_ENUM: (frozenset((str, int)), "a name or a whole number"),
    FieldDescriptor.CPPTYPE_STRING: (frozenset((str,)), "a string"),
}


def parse_json(text: bytes) -> Any:
    """The value of a body; an empty one is an empty object.

    Raises:
        ValueError: it is no JSON, or one that means different things to different readers.
    """
    try:
        value = json.loads(
            text.decode("utf-8-sig") or "{}",
            object_pairs_hook=_without_duplicates,
            parse_constant=_no_constant,
            parse_float=_finite,
        )
        if _SURROGATE.search(text):
            json.dumps(value, ensure_ascii=False).encode()
        return value
    except RecursionError:
        raise _too_deep() from None
    except UnicodeEncodeError as error:
        raise ValueError(f"half a surrogate pair, {error.object[error.start]!r}: expected both halves") from None
    except ValueError as error:  # UnicodeDecodeError is one
        if "integer string conversion" in str(error):  # Python's own limit, with advice for programmers
            raise ValueError(f"a number has more than {sys.get_int_max_str_digits()} digits") from None
        raise ValueError(str(error)[:_LONGEST_REASON]) from None


def make_pool(files: Iterable[bytes]) -> descriptor_pool.DescriptorPool:
    """A pool of these files, and of those of protobuf's own messages, which may be in an Any without being imported.

    Args:
        files: serialized FileDescriptorProtos, each after those that it imports.
    """
    pool = descriptor_pool.DescriptorPool()  # its own: files of several services may share a name
    for file in files:
        pool.AddSerializedFile(file)
    for module in _WELL_KNOWN:
        try:
            pool.FindFileByName(module.DESCRIPTOR.name)
        except KeyError:
            with contextlib.suppress(TypeError):  # a file of another name has them
                pool.AddSerializedFile(module.DESCRIPTOR.serialized_pb)
    return pool


def fill_message(message: Message, value: Any, pool: descriptor_pool.DescriptorPool) -> bytes:
    """The bytes of a message that the value is the JSON of.

    Args:
        message: an empty one; it is filled.
        value: of `parse_json`.
        pool: has its descriptor.

    Raises:
        ValueError: it is no JSON of that message.
    """
    try:
        descriptor: Any = message.DESCRIPTOR  # of either of two classes
        _check(value, descriptor, pool, 1, "the message")
        json_format.ParseDict(value, message, descriptor_pool=pool, max_recursion_depth=_MAX_DEPTH)
        return message.SerializeToString()
    except RecursionError:
        raise _too_deep() from None
    except OverflowError:
        reason = "a number is too large for a double"
    except (ValueError, TypeError, json_format.Error) as error:
        reason = str(error)
    except Exception as error:
        # Of forms that it does not expect, protobuf's parser raises whatever comes.
        reason = f"{type(error).__name__}: {error}"
    raise ValueError(reason[:_LONGEST_REASON])


def _check(value: Any, kind: Descriptor, pool: descriptor_pool.DescriptorPool, level: int, what: str) -> None:
    """Refuses what protobuf's parser has no text for, or lets pass and reads as something else than was written.

    The former are values of other types than the field's. The latter are letters in base64 that there are not, which it
    drops; both names of one field, of which it takes the last; an empty array or text for a message; and more levels of
    messages than its parser of bytes has, of which each of a Struct is three, and each of a map two.
    """
    if level > _MAX_DEPTH:
        raise _too_deep()
    if kind.full_name in OWN_FORMS:
        _check_own_form(value, kind, pool, level, what)
        return
    if not isinstance(value, dict):
        raise _wrong(what, f"an object, {{…}}, for {kind.full_name}", value)
    given: dict[int, str] = {}
    for name, item in value.items():
        field = kind.fields_by_camelcase_name.get(name) or kind.fields_by_name.get(name)
        if field is None:
            field = next((each for each in kind.fields if each.json_name == name), None)
        if field is None:
            if name.startswith("["):  # an extension
                continue
            known = ", ".join(f"'{each.json_name}'" for each in kind.fields) or "none"
            raise ValueError(f"{kind.full_name} has no field '{name[:80]}'; it has {known}")
        if item is None:  # the default
            continue
        if (other := given.setdefault(field.number, name)) != name:
            raise ValueError(f"the field '{field.name}' is given twice, as '{other}' and as '{name}', expected once")
        what, element, below = f"the field '{field.name}'", field, level + 1
        if field.message_type is not None and field.message_type.GetOptions().map_entry:
            element, below = field.message_type.fields_by_name["value"], level + 2
            if not isinstance(item, dict):
                raise _wrong(what, "an object, {…}", item)
            key = field.message_type.fields_by_name["key"]
            if key.cpp_type != FieldDescriptor.CPPTYPE_BOOL:  # which are text here
                _check_scalars(item, key, f"a key of {what}")
            items: Collection[Any] = item.values()
        elif is_repeated(field):
            if not isinstance(item, list):
                raise _wrong(what, "an array, […]", item)
            items = item
        else:
            items = (item,)
        if element.message_type is None:
            _check_scalars(items, element, what)
        else:
            for each in items:
                _check(each, element.message_type, pool, below, what)


def _check_scalars(values: Collection[Any], field: FieldDescriptor, what: str) -> None:
    """The same for values of a field, or of its elements, or keys of a map."""
    types, expected = _BYTES if field.type == FieldDescriptor.TYPE_BYTES else _SCALARS[field.cpp_type]
    found = set(map(type, values))
    if not found <= types:
        raise _wrong(what, expected, next(value for value in values if type(value) not in types))
    if str not in found:
        return
    if field.type == FieldDescriptor.TYPE_BYTES:
        for text in values:
            if not _BASE64.fullmatch(text):
                raise ValueError(f"{what} is no base64: '{text[:80]}'")
    elif float in types:
        for text in values:
            if type(text) is str and not _NUMBER.fullmatch(text):
                raise _wrong(what, expected, text)


def _check_own_form(value: Any, kind: Descriptor, pool: descriptor_pool.DescriptorPool, level: int, what: str) -> None:
    """The same for a message that has a form of its own."""
    if kind.full_name == _ANY:
        _check_any(value, pool, what)
    elif kind.full_name == _VALUE:
        _check_levels(value, level)
    elif kind.full_name in (_STRUCT, _LIST_VALUE):  # what a Value holds, one level up
        if not isinstance(value, dict if kind.full_name == _STRUCT else list):
            raise _wrong(what, "an object, {…}" if kind.full_name == _STRUCT else "an array, […]", value)
        _check_levels(value, level - 1)
    elif (example := _TEXTS.get(kind.full_name)) is not None:
        if not isinstance(value, str):
            raise _wrong(what, f"text such as '{example}'", value)
    else:
        _check_scalars((value,), kind.fields_by_name["value"], what)


def _check_any(value: Any, pool: descriptor_pool.DescriptorPool, what: str) -> None:
    if not isinstance(value, dict):
        raise _wrong(what, "an object with '@type', for google.protobuf.Any", value)
    if not value:
        return
    url = value.get("@type")
    if not isinstance(url, str):
        raise _wrong(f"'@type' of {what}", "'type.googleapis.com/' and the name of a message", url)
    try:
        held = pool.FindMessageTypeByName(url.rpartition("/")[2])
    except KeyError:
        raise ValueError(f"'@type' of {what} names no message that is known: '{url[:256]}'") from None
    fields = {name: item for name, item in value.items() if name != "@type"}
    # Its bytes are read by themselves.
    if held.full_name not in OWN_FORMS:
        _check(fields, held, pool, 1, what)
    elif set(fields) == {"value"}:
        _check(fields["value"], held, pool, 1, f"the 'value' of {what}")
    else:
        raise ValueError(f"{what} should have '@type' and 'value' alone, as it is a {held.full_name}")


def _check_levels(value: Any, level: int) -> None:
    """The same for a Value, which is a message at that level."""
    if level > _MAX_DEPTH:
        raise ValueError(f"{_too_deep()}; each of a google.protobuf.Struct counts as three")
    if isinstance(value, dict):
        for item in value.values():
            _check_levels(item, level + 3)  # the Struct, its entry, and that one's Value
    elif isinstance(value, list):
        for item in value:
            _check_levels(item, level + 2)


def _wrong(what: str, expected: str, value: Any) -> ValueError:
    if isinstance(value, (dict, list)):
        shown = "an object" if isinstance(value, dict) else "an array"
    else:
        shown = json.dumps(value, ensure_ascii=False)[:80]
    return ValueError(f"{what} should be {expected}, but is {shown}")


def _too_deep() -> ValueError:
    return ValueError(f"expected at most {_MAX_DEPTH} levels, one inside the other")


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        seen: set[str] = set()
        for name, _ in pairs:
            if name in seen:
                raise ValueError(f"the key '{name[:80]}' is given twice, expected once")
            seen.add(name)
    return found


def _finite(text: str) -> float:
    """Python reads a number that is too large for a double as infinity, which a Struct can't have."""
    number = float(text)
    if math.isinf(number):
        raise ValueError(f"the number {text[:80]} is too large for a double")
    return number


def _no_constant(name: str) -> Any:
    raise ValueError(f'{name} is no JSON: write "{name}" in quotes')
