"""What has to be otherwise where the native module is watched by sanitizers (scripts/asan_python.sh)."""

from __future__ import annotations

import os

import pytest

_WATCHED = "libclang_rt.asan" in os.environ.get("LD_PRELOAD", "")

# How many times as long an attacker takes that is written in Python.
SLOWNESS = 4 if _WATCHED else 1

needs_no_descriptors = pytest.mark.skipif(
    _WATCHED, reason="with no descriptor left UndefinedBehaviorSanitizer takes every object for none"
)
needs_bad_alloc = pytest.mark.skipif(_WATCHED, reason="of AddressSanitizer's `new` too much is an error, no exception")
needs_limited_addresses = pytest.mark.skipif(_WATCHED, reason="AddressSanitizer reserves terabytes of addresses")


def foreign_environment() -> dict[str, str]:
    """For programs that are not Python's, which hang with the sanitizers' runtime in them: without it."""
    return {name: value for name, value in os.environ.items() if name != "LD_PRELOAD"}
