"""Case (k): a picture's numbers as JSON into a Predict request, natively and by json and numpy."""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from report import Column, Section
from rounds import Timing, median_ratio, progress

from mindserve import native

_SHAPE = (224, 224, 3)

_COLUMNS: list[Column] = [
    ("numbers", "numbers", ""),
    ("KB", "kb", ",.0f"),
    ("json and numpy, CPU ms", "python_ms", ",.2f"),
    ("native, CPU ms", "native_ms", ",.2f"),
    ("ratio", "ratio", ",.1f"),
    ("native, MB/s", "rate_mb", ",.0f"),
]


@dataclass
class _Body:
    """A body, and what it has to become."""

    numbers: str
    array: np.ndarray
    text: bytes
    python_ms: list[float] = field(default_factory=list)
    native_ms: list[float] = field(default_factory=list)

    def by_python(self) -> np.ndarray:
        return np.asarray(json.loads(self.text)["instances"][0]["x"], dtype=self.array.dtype)

    def natively(self) -> bytes:
        request: bytes = native.load().predict_request_from_json(self.text, "bench", "predict", 0)
        return request

    def check(self) -> None:
        assert np.array_equal(self.by_python(), self.array)
        assert self.natively().endswith(self.array.tobytes())

    def row(self) -> dict[str, object]:
        python_ms, native_ms = statistics.median(self.python_ms), statistics.median(self.native_ms)
        return {
            "numbers": self.numbers,
            "kb": len(self.text) / 1000,
            "python_ms": python_ms,
            "native_ms": native_ms,
            "ratio": median_ratio(self.python_ms, self.native_ms),
            "rate_mb": len(self.text) / native_ms / 1000,
        }


def measure_json(timing: Timing) -> Section:
    """Both conversions of each body in turn, on one thread."""
    random = np.random.default_rng(1)
    integers = random.integers(0, 256, _SHAPE).astype(np.int32)
    floats = random.random(_SHAPE, np.float32)
    bodies = [
        _body("integers, 0 to 255", integers, integers.tolist()),
        _body("floats, 4 digits", *_rounded(floats)),
        _body("floats, as Python writes them", floats, floats.astype(float).tolist()),
    ]
    for body in bodies:
        body.check()
    for number in range(timing.rounds):
        progress(f"(k): round {number + 1} of {timing.rounds}")
        for body in bodies:
            body.python_ms.append(_milliseconds(body.by_python, timing.seconds / 2))
            body.native_ms.append(_milliseconds(body.natively, timing.seconds / 2))
    return Section(_COLUMNS, [body.row() for body in bodies], timing.made)


def _body(numbers: str, array: np.ndarray, values: object) -> _Body:
    return _Body(numbers, array, json.dumps({"instances": [{"x": values}]}).encode())


def _rounded(floats: np.ndarray) -> tuple[np.ndarray, object]:
    rounded = np.round(floats.astype(float), 4)
    return rounded.astype(np.float32), rounded.tolist()


def _milliseconds(call: Callable[[], object], seconds: float) -> float:
    """CPU of one call, the mean over about so many seconds, at least one call. Neither waits for anything."""
    calls = 0
    begin = time.thread_time()
    while (took := time.thread_time() - begin) < seconds or calls == 0:
        call()
        calls += 1
    return took / calls * 1e3
