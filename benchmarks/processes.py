"""What processes cost: CPU time and memory, as the kernel counts them."""

from __future__ import annotations

import ctypes
import time
from pathlib import Path

_libc = ctypes.CDLL(None)


def process_tree(pid: int) -> list[int]:
    """The process and all its descendants."""
    found = [pid]
    for parent in found:
        for task in Path(f"/proc/{parent}/task").glob("*/children"):
            found.extend(int(child) for child in task.read_text().split())
    return found


def cpu_seconds(pids: list[int]) -> float:
    """User and system time of these processes, all threads. To the nanosecond, where /proc has ticks of 10 ms."""
    total = 0.0
    for pid in pids:
        clock = ctypes.c_int()
        if _libc.clock_getcpuclockid(pid, ctypes.byref(clock)) != 0:
            raise ProcessLookupError(f"process {pid} has ended")
        total += time.clock_gettime(clock.value)
    return total


def resident_bytes(pid: int) -> int:
    """Memory that the process has in RAM, with what it shares with others."""
    return _rollup(pid, "Rss")


def proportional_bytes(pids: list[int]) -> int:
    """Memory that the processes have in RAM together: of a page that several map, each is counted its part."""
    return sum(_rollup(pid, "Pss") for pid in pids)


def available_bytes() -> int:
    """Memory that can still be had without swapping."""
    return _kilobytes(Path("/proc/meminfo"), "MemAvailable")


def _rollup(pid: int, name: str) -> int:
    # The counters in /proc/PID/status lag behind by some pages for each core; this file is exact.
    return _kilobytes(Path(f"/proc/{pid}/smaps_rollup"), name)


def _kilobytes(file: Path, name: str) -> int:
    for line in file.read_text().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) * 1024
    raise RuntimeError(f"{file} has no {name}")
