"""Results for people and, as JSON, for machines."""

from __future__ import annotations

import base64
import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np


def as_plain(value: Any) -> Any:
    """What JSON can hold: arrays as lists, bytes as ``mindserve infer`` takes them, NaN and infinities as text."""
    if isinstance(value, Mapping):
        return {name: as_plain(each) for name, each in value.items()}
    if isinstance(value, list):
        return [as_plain(each) for each in value]
    if isinstance(value, np.ndarray | np.generic):
        return as_plain(value.tolist())
    if isinstance(value, bytes):
        return {"dtype": "bytes", "data": base64.b64encode(value).decode()}
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    return value


def show(result: Mapping[str, Any], write: Callable[[str], Any]) -> None:
    """Writes an instance's result, each output with its type."""
    for name, value in result.items():
        if isinstance(value, np.ndarray):
            write(f"{name}: {value.dtype.name} {'x'.join(map(str, value.shape))}")
            write("\n".join(f"  {line}" for line in np.array2string(value).splitlines()))
        elif isinstance(value, np.generic):
            write(f"{name}: {value.dtype.name} {value}")
        else:
            write(f"{name}: {value!r}" if isinstance(value, bytes) else f"{name}: {value}")
