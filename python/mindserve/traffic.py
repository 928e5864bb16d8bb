"""Names that stand for several servables or versions: which of them answers a call. Values, checked where made."""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Mapping
from typing import Annotated, Any

from mindserve import checks
from mindserve.checks import Number, Range
from mindserve.errors import ConfigError

MAX_WEIGHT = 1e9
# What goes into a header field, a row of statistics and a command line.
_NAME = re.compile(r"[A-Za-z0-9_.-]{1,64}")
# What metadata's keys may be; those of gRPC itself never come to be looked at.
_KEY = re.compile(r"[a-z0-9_.-]+")


@dataclasses.dataclass(frozen=True)
class Variation:
    """One of those that a name stands for.

    Attributes:
        name: letters, digits, ".", "_" and "-", at most 64: what replies, statistics and the command line call it.
        servable: who answers; always a servable, also where a split of that name exists.
        version: of it; 0, the default: the newest.
        weight: how many of the calls it gets, in proportion to the other weights, at most 1e9. 0: none. Default 1.

    Raises:
        ConfigError: a value of the wrong type or out of its range.
    """

    name: str
    servable: str
    version: Annotated[int, Range(0, 2**63 - 1)] = 0
    weight: Annotated[float, Number(0, MAX_WEIGHT)] = 1.0

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(checks.check_str("name", self.name)):
            raise ConfigError(
                f"Parameter 'name' should be 1 to 64 letters, digits, '.', '_' and '-', but actually '{self.name[:80]}'"
            )
        checks.check_str("servable", self.servable)
        object.__setattr__(self, "weight", float(checks.check_fields(self)["weight"]))


@dataclasses.dataclass(frozen=True)
class Mirror:
    """Who gets copies of calls, whose answers are dropped.

    Attributes:
        servable: who; always a servable.
        version: of it; 0, the default: the newest.
        fraction: of the calls, 0 to 1. Default 1: all.

    Raises:
        ConfigError: a value of the wrong type or out of its range.
    """

    servable: str
    version: Annotated[int, Range(0, 2**63 - 1)] = 0
    fraction: Annotated[float, Number(0, 1)] = 1.0

    def __post_init__(self) -> None:
        checks.check_str("servable", self.servable)
        object.__setattr__(self, "fraction", float(checks.check_fields(self)["fraction"]))


@dataclasses.dataclass(frozen=True)
class Split:
    """A name that stands for several servables or versions.

    Attributes:
        name: what clients ask for. It may be a servable's: calls without a version are split, those with one are not.
        variations: who answers.
        sticky: a key of metadata, in lower case: calls with the same value of it go to the same variation, as long as
            weights stay. Calls without it take turns. None, the default: all calls do.
        mirrors: who gets copies of the calls, streams excepted. Default: nobody.

    Raises:
        ConfigError: a value of the wrong type; no variations, two of one name, or weights that sum to 0.
    """

    name: str
    variations: tuple[Variation, ...]
    sticky: str | None = None
    mirrors: tuple[Mirror, ...] = ()

    def __post_init__(self) -> None:
        checks.check_str("name", self.name)
        object.__setattr__(self, "mirrors", _items("mirrors", self.mirrors, Mirror))
        object.__setattr__(self, "variations", _items("variations", self.variations, Variation))
        if not self.variations:
            raise ConfigError("Parameter 'variations' should not be empty")
        names = [each.name for each in self.variations]
        if repeated := next((name for name in names if names.count(name) > 1), None):
            raise ConfigError(f"The item value '{repeated}' in parameter 'variations' should not be repeated")
        if not math.fsum(each.weight for each in self.variations) > 0:
            raise ConfigError("The weights in parameter 'variations' sum to 0: at least one should be > 0")
        if self.sticky is not None and not _KEY.fullmatch(checks.check_str("sticky", self.sticky)):
            raise ConfigError(
                "Parameter 'sticky' should be a key of metadata, of lower-case letters, digits, '.', '_' and '-', "
                f"but actually '{self.sticky[:80]}'"
            )

    def as_dict(self) -> dict[str, Any]:
        """The same as plain dicts and lists, for JSON."""
        values = dataclasses.asdict(self)
        return {key: list(value) if isinstance(value, tuple) else value for key, value in values.items()}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Split:
        """What `as_dict` gave.

        Raises:
            ConfigError: it is something else.
        """
        try:
            variations = tuple(Variation(**each) for each in values["variations"])
            mirrors = tuple(Mirror(**each) for each in values["mirrors"])
            return cls(**{**values, "variations": variations, "mirrors": mirrors})
        except (TypeError, KeyError) as error:
            raise ConfigError(f"No description of traffic: {error}") from error


def _items(parameter: str, value: Any, kind: type) -> tuple[Any, ...]:
    if not isinstance(value, tuple | list):
        raise ConfigError(
            f"Parameter '{parameter}' should be tuple/list of {kind.__name__}, but actually {type(value)}"
        )
    for item in value:
        if not isinstance(item, kind):
            raise ConfigError(
                f"The item of parameter '{parameter}' should be {kind.__name__}, but actually {type(item)}"
            )
    return tuple(value)
