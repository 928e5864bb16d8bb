"""Case (o): a name that is split: what that costs a call, and how near 10,000 calls come to the weights."""

from __future__ import annotations

from calls import add
from load import Load, Pattern
from report import FIGURES, Column, Section
from rounds import Case, Timing, measure, progress
from servers import Served, Servers

# As long as the servable's own name, so that requests are of one size.
NAME = "split"
WEIGHTS = (70, 20, 10)

_CALLS = 10_000
_PATTERNS = (Pattern(4, 16), Pattern(64, 1))

_COLUMNS: list[Column] = [
    ("case", "case", ""),
    ("connections x calls", "pattern", ""),
    ("server", "server", ""),
    *FIGURES,
    ("of 10,000 calls", "counts", ""),
    ("farthest off, %", "off_percent", ".2f"),
]


def measure_split(servers: Servers, timing: Timing) -> Section:
    """Calls for a servable, and for a name that is split between three variations of which each is that servable.

    The counts are those of the round in which they were farthest from the weights.
    """
    split = servers.with_split(NAME, WEIGHTS)
    loads = [
        servers.load("no split", servers.mindserve("small").tcp, add()),
        servers.load("split", split.tcp, add(NAME)),
    ]
    rows = measure("(o)", [Case({"case": "(o) small add"}, pattern, loads) for pattern in _PATTERNS], timing)
    for row in rows:
        row.update(counts=None, off_percent=None)
    for pattern, row in zip(_PATTERNS, rows[1::2], strict=True):
        counted = []
        for number in range(timing.rounds):
            progress(f"(o): {_CALLS:,} calls, {pattern}, {number + 1} of {timing.rounds}")
            counted.append(_count(split, loads[1], pattern))
        worst = max(counted, key=_off_percent)
        row.update(counts=" + ".join(f"{count:,}" for count in worst), off_percent=_off_percent(worst))
    return Section(_COLUMNS, rows, timing.made)


def _count(served: Served, load: Load, pattern: Pattern) -> list[int]:
    """How many calls of one run each variation has had."""
    before = _answered(served)
    load.run(pattern, _CALLS)
    counts = [now - then for now, then in zip(_answered(served), before, strict=True)]
    if sum(counts) != _CALLS:
        raise RuntimeError(f"{_CALLS} calls were made, and {counts} counted")
    return counts


def _answered(served: Served) -> list[int]:
    """By variation, in the order of the weights; calls that failed count as well: they were somebody's."""
    counts = [0] * len(WEIGHTS)
    for row in served.stats()["methods"]:
        if row["split"] == NAME:
            counts[int(row["variation"])] += sum(row["ended"].values())
    return counts


def _off_percent(counts: list[int]) -> float:
    """Of the variation that is farthest off: how far from what it should have had, in percent of that."""
    shares = [_CALLS * weight / sum(WEIGHTS) for weight in WEIGHTS]
    return max(abs(count - share) / share * 100 for count, share in zip(counts, shares, strict=True))
