"""JSON into messages, by protobuf's mapping, where clients may have written anything."""

from __future__ import annotations

import json
import math
import re
import sys
from typing import Any

from google.protobuf import descriptor_pool, json_format
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message

from mindserve.rest.message_schemas import is_repeated

# Levels of a message, one inside the other, as protobuf's own parsers have it.
_MAX_DEPTH = 100
_LONGEST_REASON = 1000
# Of either alphabet, with or without padding.
_BASE64 = re.compile(r"[A-Za-z0-9+/_-]*={0,2}")
_ANY = "google.protobuf.Any"
_BYTES_VALUE = "google.protobuf.BytesValue"
_LIST_VALUE = "google.protobuf.ListValue"
_STRUCT = "google.protobuf.Struct"
_VALUE = "google.protobuf.Value"
# Messages whose JSON is no object of their fields.
_OWN_FORMS = frozenset(
    f"google.protobuf.{name}"
    for name in (
        *("Any", "Duration", "FieldMask", "ListValue", "Struct", "Timestamp", "Value"),
        *("BoolValue", "BytesValue", "DoubleValue", "FloatValue", "Int32Value", "Int64Value", "StringValue"),
        *("UInt32Value", "UInt64Value"),
    )
)


def parse_json(text: bytes) -> Any:
    """The value of a body; an empty one is an empty object.

    Raises:
        ValueError: it is no JSON, or one that means different things to different readers.
    """
    try:
        return json.loads(
            text.decode("utf-8-sig") or "{}",
            object_pairs_hook=_without_duplicates,
            parse_constant=_no_constant,
            parse_float=_finite,
        )
    except RecursionError:
        raise _too_deep() from None
    except ValueError as error:  # UnicodeDecodeError is one
        if "integer string conversion" in str(error):  # Python's own limit, with advice for programmers
            raise ValueError(f"a number has more than {sys.get_int_max_str_digits()} digits") from None
        raise ValueError(str(error)[:_LONGEST_REASON]) from None


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
        if not isinstance(value, dict) and descriptor.full_name not in _OWN_FORMS:
            raise ValueError("expected an object, {…}")
        json_format.ParseDict(value, message, descriptor_pool=pool, max_recursion_depth=_MAX_DEPTH)
        _check(value, descriptor, pool, 1)
        return message.SerializeToString()
    except RecursionError:
        raise _too_deep() from None
    except (ValueError, TypeError, json_format.Error) as error:
        reason = str(error)
    except Exception as error:
        # Of forms that it does not expect, protobuf's parser raises whatever comes: AttributeError for a "@type" that
        # is no string, OverflowError for a long number in a Struct, SystemError for half a surrogate pair.
        reason = f"{type(error).__name__}: {error}"
    raise ValueError(reason[:_LONGEST_REASON])


def _check(value: Any, kind: Descriptor, pool: descriptor_pool.DescriptorPool, level: int) -> None:
    """Refuses what protobuf's parser lets pass, and reads as something else than was written, or as what none can read.

    These are letters in base64 that there are not, which it drops; both names of one field, of which it takes the last;
    an empty array or text for a message; and more levels of messages than its parser of bytes has, of which each of a
    Struct is three, and each of a map two.
    """
    if level > _MAX_DEPTH:
        raise _too_deep()
    if kind.full_name in _OWN_FORMS:
        _check_own_form(value, kind, pool, level)
        return
    if not isinstance(value, dict):
        raise ValueError(f"expected an object, {{…}}, for {kind.full_name}")
    given: dict[int, str] = {}
    for name, item in value.items():
        field = kind.fields_by_camelcase_name.get(name) or kind.fields_by_name.get(name)
        if field is None:
            field = next((each for each in kind.fields if each.json_name == name), None)
        if field is None or item is None:  # an extension; null is the default
            continue
        if (other := given.setdefault(field.number, name)) != name:
            raise ValueError(f"the field '{field.name}' is given twice, as '{other}' and as '{name}', expected once")
        element, below = field, level + 1
        if field.message_type is not None and field.message_type.GetOptions().map_entry:
            element, below = field.message_type.fields_by_name["value"], level + 2
            items = item.values()
        else:
            items = item if is_repeated(field) else (item,)
        if element.type == FieldDescriptor.TYPE_BYTES:
            for text in items:
                _check_base64(text, f"the field '{field.name}'")
        elif element.message_type is not None:
            for each in items:
                if each is not None:  # of a Value
                    _check(each, element.message_type, pool, below)


def _check_own_form(value: Any, kind: Descriptor, pool: descriptor_pool.DescriptorPool, level: int) -> None:
    """The same for a message that has a form of its own, of which the parser has made something."""
    if kind.full_name == _BYTES_VALUE:
        _check_base64(value, "the google.protobuf.BytesValue")
    elif kind.full_name == _ANY and value:
        held = pool.FindMessageTypeByName(value["@type"].rpartition("/")[2])
        # Its bytes are read by themselves.
        if held.full_name in _OWN_FORMS:
            _check(value["value"], held, pool, 1)
        else:
            _check({name: item for name, item in value.items() if name != "@type"}, held, pool, 1)
    elif kind.full_name == _VALUE:
        _check_levels(value, level)
    elif kind.full_name in (_STRUCT, _LIST_VALUE):  # what a Value holds, one level up
        _check_levels(value, level - 1)


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


def _check_base64(text: str, what: str) -> None:
    if not _BASE64.fullmatch(text):
        raise ValueError(f"{what} is no base64: '{text[:80]}'")


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
