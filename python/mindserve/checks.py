"""Checks of parameters, with the texts that users of the API match on. All raise `ConfigError`."""

from __future__ import annotations

import dataclasses
import functools
import typing
from collections.abc import Sequence
from typing import Any

from mindserve.errors import ConfigError

# The longest time that can be given, in seconds.
MAX_SECONDS = 1e9
PEM_BEGIN = "-----BEGIN"


@dataclasses.dataclass(frozen=True)
class Range:
    """Which int a field may hold: a mark in its type, for `check_fields` and whoever describes the field.

    Attributes:
        minimum: the least.
        maximum: the greatest; None: no bound.
    """

    minimum: int
    maximum: int | None = None

    def wrong(self, value: float) -> str:
        """What ``value`` should be; empty if it is so."""
        return _out_of_range(value, self.minimum, self.maximum)


@dataclasses.dataclass(frozen=True)
class Seconds:
    """Which time a field may hold: a mark in its type, as `Range`.

    Attributes:
        above: what it must be greater than.
        zero: whether it may be ``above`` too.
    """

    above: int = 0
    zero: bool = False

    def wrong(self, value: float) -> str:
        """What ``value`` should be; empty if it is so."""
        if value > MAX_SECONDS:
            return f"should be at most {MAX_SECONDS:.0f} seconds"
        if value >= self.above if self.zero else value > self.above:
            return ""
        return f"should be {'>=' if self.zero else '>'} {self.above} seconds"


@dataclasses.dataclass(frozen=True)
class Number:
    """Which number, whole or not, a field may hold: a mark in its type, as `Range`.

    Attributes:
        minimum: the least.
        maximum: the greatest.
    """

    minimum: float
    maximum: float

    def wrong(self, value: float) -> str:
        """What ``value`` should be; empty if it is so."""
        if self.minimum <= value <= self.maximum:
            return ""
        return f"should be a number in range [{self.minimum:g},{self.maximum:g}]"


def check_fields(value: Any) -> dict[str, int | float]:
    """Checks those fields of a dataclass whose types are marked with `Range`, `Seconds` or `Number`.

    Returns:
        Their values by name; times and such numbers as float. Without those that are None, where that is a default.
    """
    checked: dict[str, int | float] = {}
    # mypy takes the __hash__ of a class's instances for the class's own.
    for name, mark, default in _marks(type(value)):  # type: ignore[arg-type]
        given = getattr(value, name)
        if given is None and default is None:
            continue
        if isinstance(mark, Range):
            checked[name] = check_int(name, given, mark.minimum, mark.maximum)
        else:
            checked[name] = _check_number(name, given, mark)
    return checked


@functools.cache
def _marks(kind: type) -> Sequence[tuple[str, Range | Seconds | Number, Any]]:
    """The names of marked fields, their marks and defaults."""
    hints = typing.get_type_hints(kind, include_extras=True)
    return [
        (field.name, mark, field.default)
        for field in dataclasses.fields(kind)
        for mark in getattr(hints[field.name], "__metadata__", ())
        if isinstance(mark, Range | Seconds | Number)
    ]


def check_str(name: str, value: Any) -> str:
    """A str that is not empty."""
    if not isinstance(value, str):
        raise ConfigError(f"Parameter '{name}' should be str, but actually {type(value)}")
    if not value:
        raise ConfigError(f"Parameter '{name}' should not be empty str")
    return value


def check_pem_path(name: str, value: Any) -> str:
    """The path of a file in PEM form.

    What stands in such a file is refused, and not repeated: it may be a key. Errors say which file can't be read.
    """
    path = check_str(name, value)
    if PEM_BEGIN in path:
        raise ConfigError(f"Parameter '{name}' should be the path of a file in PEM form, but is PEM text itself")
    return path


def check_text(name: str, value: Any) -> str:
    """A str that is not empty and can be written as UTF-8, as the native core does.

    Others come of names of files that are none: Python reads their bytes as lone surrogates.
    """
    checked = check_str(name, value)
    try:
        checked.encode()
    except UnicodeEncodeError:
        raise ConfigError(f"Parameter '{name}' should be UTF-8, but actually {checked!r}") from None
    return checked


def check_bool(name: str, value: Any) -> bool:
    if not isinstance(value, bool):
        raise ConfigError(f"Parameter '{name}' should be bool, but actually {type(value)}")
    return value


def check_int(name: str, value: Any, minimum: int | None = None, maximum: int | None = None) -> int:
    """An int, and no bool, in [minimum, maximum]; None: no bound."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise ConfigError(f"Parameter '{name}' should be int, but actually {type(value)}")
    if wrong := _out_of_range(value, minimum, maximum):
        raise ConfigError(f"Parameter '{name}' {wrong}, but actually {_shown(value)}")
    return value


def check_seconds(name: str, value: Any, *, zero: bool) -> float:
    """A time in seconds, greater than 0, or with ``zero`` that itself too."""
    return _check_number(name, value, Seconds(zero=zero))


def _check_number(name: str, value: Any, mark: Seconds | Number) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ConfigError(f"Parameter '{name}' should be int or float, but actually {type(value)}")
    if wrong := mark.wrong(value):
        raise ConfigError(f"Parameter '{name}' {wrong}, but actually {value}")
    return float(value)


def check_int_list(name: str, value: Any, minimum: int | None = None) -> tuple[int, ...]:
    """A tuple or list of int."""
    if not isinstance(value, tuple | list):
        raise ConfigError(f"Parameter '{name}' should be tuple/list of int, but actually {type(value)}")
    return _check_int_items(name, value, minimum)


def check_int_or_list(name: str, value: Any, minimum: int | None = None) -> tuple[int, ...]:
    """An int, or a tuple or list of int without repetition, as a tuple."""
    if isinstance(value, tuple | list):
        return _check_int_items(name, value, minimum)
    if isinstance(value, bool) or not isinstance(value, int):
        raise ConfigError(f"Parameter '{name}' should be int or tuple/list of int, but actually {type(value)}")
    return _check_int_items(name, (value,), minimum)


def check_str_or_list(name: str, value: Any) -> tuple[str, ...]:
    """A str, or a tuple or list of str without repetition, as a tuple."""
    if isinstance(value, str):
        value = (value,)
    if not isinstance(value, tuple | list):
        raise ConfigError(f"Parameter '{name}' should be str or tuple/list of str, but actually {type(value)}")
    items: list[str] = []
    for item in value:
        if not isinstance(item, str):
            raise ConfigError(f"The item of parameter '{name}' should be str, but actually {type(item)}")
        if not item:
            raise ConfigError(f"The item of parameter '{name}' should not be empty str")
        if item in items:
            raise ConfigError(f"The item value '{item}' in parameter '{name}' should not be repeated")
        items.append(item)
    return tuple(items)


def _check_int_items(name: str, value: tuple[Any, ...] | list[Any], minimum: int | None) -> tuple[int, ...]:
    items: list[int] = []
    for item in value:
        if isinstance(item, bool) or not isinstance(item, int):
            raise ConfigError(f"The item of parameter '{name}' should be int, but actually {type(item)}")
        if wrong := _out_of_range(item, minimum, None):
            raise ConfigError(f"The item value '{_shown(item)}' in parameter '{name}' {wrong}")
        if item in items:
            raise ConfigError(f"The item value '{_shown(item)}' in parameter '{name}' should not be repeated")
        items.append(item)
    return tuple(items)


def _out_of_range(value: float, minimum: int | None, maximum: int | None) -> str:
    """What is expected of ``value``; empty if it is so."""
    if (minimum is None or value >= minimum) and (maximum is None or value <= maximum):
        return ""
    if minimum is not None and maximum is not None:
        return f"should be in range [{minimum},{maximum}]"
    return f"should be >= {minimum}" if minimum is not None else f"should be <= {maximum}"


def _shown(value: int) -> str:
    """``value`` as text: Python refuses to write very large ones."""
    return str(value) if value.bit_length() <= 256 else f"an int of {value.bit_length()} bits"
