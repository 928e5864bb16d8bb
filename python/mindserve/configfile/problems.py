"""What is wrong with a config file, and where."""

from __future__ import annotations

import dataclasses
import difflib
import re
from collections.abc import Iterable, Iterator

from mindserve.checks import PEM_BEGIN
from mindserve.errors import ConfigError

# How much of what was given an error shows: of a value or a name, and of the line where it stands.
_MAX_SHOWN = 60
_MAX_SOURCE = 200


@dataclasses.dataclass(frozen=True)
class Place:
    """Where something was given.

    Attributes:
        file: the file's name as it was given; or "--servable", the option of a command line.
        line: from 1; 0: not in a file.
        column: from 1, in characters; 0: not in a file.
        source: the line's text.
    """

    file: str
    line: int = 0
    column: int = 0
    source: str = dataclasses.field(default="", repr=False)

    def without_source(self) -> Place:
        """The same, where the line must not be shown."""
        return dataclasses.replace(self, source="")

    def up_to(self, key: str) -> Place:
        """The same, with nothing of the line but a key that stands here: nobody knows what the rest of it is."""
        before = self.source[: self.column - 1]
        shown = self.source and not before.strip(" \t-")
        return dataclasses.replace(self, source=f"{before}{brief(key)}:" if shown else "")

    def __str__(self) -> str:
        return f"{self.file}:{self.line}:{self.column}" if self.line else self.file


@dataclasses.dataclass(frozen=True)
class Problem:
    """One thing that is wrong.

    Attributes:
        place: where.
        text: what was given, what was expected.
        key: of what, as in "servables[0].device_ids"; empty for the file as a whole.
    """

    place: Place
    text: str
    key: str = ""

    def __str__(self) -> str:
        text = f"{self.place}: {self.text}"
        if not self.place.source.strip():
            return text
        source, column = _around(self.place.source, self.place.column - 1)
        # Tabs stay tabs, so that the mark stands under its character.
        before = "".join("\t" if character == "\t" else " " for character in source[:column])
        return f"{text}\n  {self.place.line:>4} | {source}\n       | {before}^"

    def as_dict(self) -> dict[str, str | int]:
        """For JSON."""
        return {
            "file": self.place.file,
            "line": self.place.line,
            "column": self.place.column,
            "key": self.key,
            "text": self.text,
        }


class ConfigFileError(ConfigError):
    """A config file that can't be used. Its text is that of all problems.

    Attributes:
        problems: at least one, in the order of the file.
    """

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = tuple(in_order(problems))
        super().__init__("\n".join(str(problem) for problem in self.problems))


class Problems:
    """What has been found wrong so far, each thing once however often aliases or a command line's options repeat it."""

    def __init__(self) -> None:
        self._found: dict[tuple[Place, str], Problem] = {}

    def add(self, problem: Problem) -> None:
        """Notes a problem."""
        # Two that differ in the number of the list item only, and not in their place, are one.
        self._found.setdefault((problem.place, re.sub(r"\[\d+\]", "[]", problem.text)), problem)

    def __len__(self) -> int:
        return len(self._found)

    def __iter__(self) -> Iterator[Problem]:
        return iter(self._found.values())


def in_order(problems: Iterable[Problem]) -> list[Problem]:
    """By their places in the file."""
    return sorted(problems, key=lambda problem: (problem.place.line, problem.place.column))


def brief(text: str) -> str:
    """What was given, for an error: only the beginning if it is long, and nothing of what may be a key."""
    if PEM_BEGIN in text:
        return "PEM text"
    return text if len(text) <= _MAX_SHOWN else text[: _MAX_SHOWN - 1] + "…"


def _around(line: str, column: int) -> tuple[str, int]:
    """A piece of a line that is too long to be shown, and where in it the column is. The line itself if it isn't."""
    if len(line) <= _MAX_SOURCE:
        return line, column
    begin = max(0, min(column - _MAX_SOURCE // 2, len(line) - _MAX_SOURCE))
    end = begin + _MAX_SOURCE
    left, right = "…" if begin else "", "…" if end < len(line) else ""
    return left + line[begin:end] + right, column - begin + len(left)


def closest(given: str, known: Iterable[str]) -> str:
    """The one of ``known`` that is most like ``given``; empty if none is like it."""
    return next(iter(difflib.get_close_matches(given, list(known), n=1)), "")


def did_you_mean(name: str) -> str:
    """A question to follow a text; empty without a name."""
    return f"; did you mean '{name}'?" if name else ""
