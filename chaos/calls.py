"""The requests of the load. Every instance has values of its own: an answer to another one is seen to be wrong."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

# Instances of one request have numbers of their own, next to each other.
INSTANCES_PER_REQUEST = 10_000
# Rows of the table that `half.look_up` looks into; what lies beyond fails the model's whole batch.
TABLE_ROWS = 1000
# Methods that no worker survives: of `risky`, and of a user's service.
DEADLY = ("die", "hang", "Die")
# What the answer for an instance must be: values by their names, or a part of its error's text.
Expected = dict[str, Any] | str


@dataclass(frozen=True)
class Call:
    """A request and what a right answer to it is.

    Attributes:
        number: of the request.
        servable: that it asks.
        method: of it.
        instances: values by their names.
        expected: for each of them.
    """

    number: int
    servable: str
    method: str
    instances: Sequence[dict[str, Any]]
    expected: Sequence[Expected]

    def complaint(self, results: Sequence[dict[str, Any]]) -> str:
        """What is wrong with these results; empty if nothing is."""
        if len(results) != len(self.instances):
            return f"{len(results)} results for {len(self.instances)} instances"
        for place, (result, expected) in enumerate(zip(results, self.expected, strict=True)):
            if not _same(result, expected):
                return f"instance {place} of {len(results)}: {_short(result)}, expected {_short(expected)}"
        return ""


def instance_number(number: int, place: int) -> int:
    """The own number of an instance of a request."""
    return number * INSTANCES_PER_REQUEST + place


def add(number: int, count: int = 1, elements: int = 4) -> Call:
    """A model alone: the sum of two int64 tensors of this many elements."""
    instances, expected = [], []
    for place in range(count):
        x1 = np.arange(elements, dtype=np.int64) + instance_number(number, place)
        x2 = np.full(elements, place + 1, np.int64)
        instances.append({"x1": x1, "x2": x2})
        expected.append({"y": x1 + x2})
    return Call(number, "add", "add", instances, expected)


def half(number: int, count: int = 1, elements: int = 4) -> Call:
    """A Python function for a batch halves the first, then a model adds the second."""
    made = add(number, count, elements)
    expected = [{"y": instance["x1"] // 2 + instance["x2"]} for instance in made.instances]
    return Call(number, "half", "half", made.instances, expected)


def look_up(number: int, count: int = 1, bad: int | None = None) -> Call:
    """A model that looks into a table; the instance at the place ``bad``, beyond it, must fail alone."""
    rows = [(number + place * 7) % TABLE_ROWS for place in range(count)]
    instances = [
        {"row": np.array([TABLE_ROWS + 1 if place == bad else row], np.int64)} for place, row in enumerate(rows)
    ]
    expected: list[Expected] = [{"y": np.array([row * row], np.int64)} for row in rows]
    if bad is not None:
        expected[bad] = "out of data bounds"
    return Call(number, "half", "look_up", instances, expected)


def once(number: int, count: int = 1) -> Call:
    """Notes its instances' numbers in a file: not to be executed a second time."""
    instances = [{"number": np.array([instance_number(number, place)], np.int64)} for place in range(count)]
    return Call(number, "once", "once", instances, [{"number": instance["number"]} for instance in instances])


def sleepy(number: int, count: int = 1) -> Call:
    """A Python function that takes 5 ms and gives back what it was given."""
    instances = [{"text": f"{number}/{place}"} for place in range(count)]
    return Call(number, "sleepy", "sleepy", instances, [dict(instance) for instance in instances])


def risky(number: int, count: int = 1) -> Call:
    """A Python function that gives back what it was given, in workers that others' requests end."""
    instances = [{"text": f"{number}/{place}"} for place in range(count)]
    return Call(number, "risky", "risky", instances, [dict(instance) for instance in instances])


def deadly(number: int, method: str) -> Call:
    """One of `risky`'s: ends the worker that executes it, so that no answer is right."""
    return Call(number, "risky", method, [{"text": str(number)}], ["no answer"])


# By servable, the calls that any load may make of it; all take a number and how many instances.
EVERYDAY: dict[str, Callable[[int, int], Call]] = {
    "add": add,
    "half": half,
    "once": once,
    "sleepy": sleepy,
    "risky": risky,
}


def _same(result: dict[str, Any], expected: Expected) -> bool:
    if isinstance(expected, str):
        return expected in str(result.get("error", ""))
    if result.keys() != expected.keys():
        return False
    return all(
        np.array_equal(result[name], value) and getattr(result[name], "dtype", None) == getattr(value, "dtype", None)
        for name, value in expected.items()
    )


def _short(value: object) -> str:
    text = " ".join(str(value).split())
    return text if len(text) <= 300 else f"{text[:300]}…"
