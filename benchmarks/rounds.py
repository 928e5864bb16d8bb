"""Servers measured in turn, round after round, so that a noisy neighbour disturbs all of them alike."""

from __future__ import annotations

import dataclasses
import statistics
import sys
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any

from load import Load, Pattern, Running, Sample, medians

_BEGIN = time.monotonic()

# The load that finds out how much load takes the time that a run is to take.
_PROBE_SHARE = 0.1
_MAX_GROWTH = 100
# Up to so many, connecting costs no CPU to speak of. With more it is measured in each round, and taken off.
_FEW_CONNECTIONS = 16
# How much longer a run is than connecting: what is taken off must not be most of it.
_CONNECTING_TIMES = 3


@dataclass(frozen=True)
class Timing:
    """How often and how long each thing is measured."""

    rounds: int
    seconds: float

    @property
    def made(self) -> str:
        """For readers of the table."""
        return f"Medians over {self.rounds} rounds of {self.seconds:g} s for each row."


@dataclass(frozen=True)
class _Connecting:
    """Opening connections: with so many requests, at so much CPU in all."""

    requests: int
    cpu_us: float


@dataclass
class Case:
    """Servers under the same load. Ratios are to the first of them.

    Attributes:
        fields: what the rows of its table have besides the figures.
        units: what one request has of what the work is counted in: instances, megabytes.
        beside: what happens to a server while it is under load.
    """

    fields: dict[str, Any]
    pattern: Pattern
    loads: list[Load]
    units: float = 1
    beside: Callable[[Running], AbstractContextManager[None]] = lambda server: nullcontext()
    samples: dict[str, list[Sample]] = field(default_factory=dict)
    _requests: dict[str, int] = field(default_factory=dict)

    def calibrate(self, seconds: float) -> None:
        """Finds how many requests keep each server busy for ``seconds``, or for longer than the connecting takes."""
        flight = self.pattern.in_flight
        for load in self.loads:
            requests = 2 * flight
            while True:
                sample = load.run(self.pattern, requests)
                enough = max(seconds, _CONNECTING_TIMES * sample.connect_s)
                if requests / sample.rate >= enough * _PROBE_SHARE:
                    break
                wanted = int(sample.rate * enough * 2 * _PROBE_SHARE)
                requests = min(max(wanted // flight + 1, 4), _MAX_GROWTH * requests // flight) * flight
            self._requests[load.name] = max(int(sample.rate * enough) // flight, 2) * flight

    def run_round(self) -> None:
        """Each server once."""
        for load in self.loads:
            requests = self._requests[load.name]
            with self.beside(load.server):
                connecting = self._connect(load)
                sample = load.run(self.pattern, requests)
            cpu_us = (requests * sample.cpu_us - connecting.cpu_us) / (requests - connecting.requests)
            self.samples.setdefault(load.name, []).append(dataclasses.replace(sample, cpu_us=cpu_us))

    def _connect(self, load: Load) -> _Connecting:
        """What it costs to open the connections, with a call on each. Of few it is not worth mentioning."""
        count = self.pattern.connections
        if count <= _FEW_CONNECTIONS:
            return _Connecting(0, 0)
        return _Connecting(count, count * load.run(Pattern(count, 1), count).cpu_us)

    def rows(self) -> list[dict[str, Any]]:
        """One for each server: medians over the rounds, and of the ratios within each round."""
        first = self.samples[self.loads[0].name]
        rows = []
        for load in self.loads:
            own = self.samples[load.name]
            middle = medians(own)
            ratios = medians(
                [
                    Sample(a.rate / b.rate, a.cpu_us / b.cpu_us, a.p50_us / b.p50_us)
                    for a, b in zip(own, first, strict=True)
                ]
            )
            rows.append(
                {
                    **self.fields,
                    "pattern": str(self.pattern),
                    "server": load.name,
                    "rate": middle.rate,
                    "rate_ratio": ratios.rate,
                    "cpu_us": middle.cpu_us,
                    "cpu_ratio": ratios.cpu_us,
                    "p50_us": middle.p50_us,
                    "p50_ratio": ratios.p50_us,
                    "unit_rate": middle.rate * self.units,
                    "unit_cpu_us": middle.cpu_us / self.units,
                }
            )
        return rows


def measure(what: str, cases: list[Case], timing: Timing) -> list[dict[str, Any]]:
    """Runs the cases, interleaved, and gives the rows of their table."""
    progress(f"{what}: finding how much load takes {timing.seconds:g} s")
    for case in cases:
        case.calibrate(timing.seconds)
    for number in range(timing.rounds):
        progress(f"{what}: round {number + 1} of {timing.rounds}")
        for case in cases:
            case.run_round()
    return [row for case in cases for row in case.rows()]


def median_ratio(over: list[float], under: list[float]) -> float:
    """The median of the ratios within each round."""
    return statistics.median(a / b for a, b in zip(over, under, strict=True))


def progress(text: str) -> None:
    """A line on stderr, with the time since the start."""
    print(f"[{time.monotonic() - _BEGIN:5.0f} s] {text}", file=sys.stderr, flush=True)
