"""JSON into messages, by protobuf's mapping, where clients may have written anything."""

from __future__ import annotations

import json
import math
import sys
from typing import Any

from google.protobuf import descriptor_pool, json_format
from google.protobuf.message import Message

# Levels of a message, one inside the other, as protobuf's own parsers have it.
_MAX_DEPTH = 100
_LONGEST_REASON = 1000


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
        if not isinstance(value, dict) and not message.DESCRIPTOR.full_name.startswith("google.protobuf."):
            raise ValueError("expected an object, {…}")
        json_format.ParseDict(value, message, descriptor_pool=pool, max_recursion_depth=_MAX_DEPTH)
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
