"""h2load, and what the servers under it cost."""

from __future__ import annotations

import os
import re
import statistics
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

PREDICT = "/mindspore.serving.proto.MSService/Predict"
_TICK = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Pattern:
    """How load is offered: ``connections`` with ``streams`` calls at once on each."""

    connections: int
    streams: int

    def __str__(self) -> str:
        return f"{self.connections}x{self.streams}"


@dataclass(frozen=True)
class Sample:
    """One run: requests a second, CPU microseconds a request over all processes of the server, p50 in microseconds."""

    rate: float
    cpu_us: float
    p50_us: float


def process_tree(pid: int) -> list[int]:
    """The process and all its descendants."""
    found = [pid]
    for parent in found:
        for task in Path(f"/proc/{parent}/task").glob("*/children"):
            found.extend(int(child) for child in task.read_text().split())
    return found


def cpu_seconds(pids: list[int]) -> float:
    """User and system time of these processes, all threads."""
    total = 0
    for pid in pids:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        total += int(fields[11]) + int(fields[12])
    return total / _TICK


def run_h2load(address: str, body: Path, pattern: Pattern, requests: int, server: int, reply_bytes: int) -> Sample:
    """Load ``address`` with ``requests`` calls of Predict with this body.

    Args:
        address: host:port, or unix:PATH.
        body: a file with a gRPC message and its prefix.
        pattern: connections and calls at once.
        requests: how many calls in all.
        server: process id of the server, whose tree's CPU time is counted.
        reply_bytes: the least that an answer has; h2load counts gRPC errors as successes, so the bytes are looked at.

    Raises:
        RuntimeError: a call failed or was answered with less.
    """
    with tempfile.TemporaryDirectory() as scratch:
        log = Path(scratch) / "log"
        command = ["h2load", f"-n{requests}", f"-c{pattern.connections}", f"-m{pattern.streams}", f"-d{body}"]
        command += ["-H", "content-type: application/grpc", "-H", "te: trailers", f"--log-file={log}"]
        command += ["-w20", "-W26"]
        if address.startswith("unix:"):
            command += ["-B", address, f"http://localhost{PREDICT}"]
        else:
            command += [f"http://{address}{PREDICT}"]
        pids = process_tree(server)
        before = cpu_seconds(pids)
        run = subprocess.run(command, capture_output=True, text=True, timeout=300, check=True)
        used = cpu_seconds(pids) - before
        latencies = [int(line.split("\t")[2]) for line in log.read_text().splitlines()]
    rate = re.search(r"finished in .*?, ([\d.]+) req/s", run.stdout)
    good = re.search(r"(\d+) succeeded", run.stdout)
    data = re.search(r"\((\d+)\) data", run.stdout)
    if rate is None or good is None or data is None:
        raise RuntimeError(f"h2load printed something else than expected:\n{run.stdout}")
    if int(good[1]) != requests or int(data[1]) < requests * reply_bytes:
        raise RuntimeError(f"{address}: {good[1]} of {requests} calls answered, {data[1]} bytes\n{run.stdout}")
    return Sample(float(rate[1]), used / requests * 1e6, statistics.median(latencies))


def medians(samples: list[Sample]) -> Sample:
    """The median of each figure by itself."""
    return Sample(
        statistics.median(s.rate for s in samples),
        statistics.median(s.cpu_us for s in samples),
        statistics.median(s.p50_us for s in samples),
    )
