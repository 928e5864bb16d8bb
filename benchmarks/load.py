"""h2load, and what the server under it costs."""

from __future__ import annotations

import re
import statistics
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

from processes import cpu_seconds, process_tree

from mindserve.proto import PREDICT

# Of a gRPC message: whether it is compressed, and its size.
PREFIX_BYTES = 5

# Far longer than a run should take: a server that does not answer by then never will.
_PATIENCE_S = 120

_SECONDS = {"us": 1e-6, "ms": 1e-3, "s": 1.0}


def write_body(path: Path, message: bytes) -> Path:
    """Write what h2load is to send: one gRPC message, behind its prefix."""
    path.write_bytes(b"\0" + len(message).to_bytes(PREFIX_BYTES - 1, "big") + message)
    return path


@dataclass(frozen=True)
class Running:
    """A server that runs.

    Attributes:
        address: host:port, or unix:PATH.
        ca: the authority that its certificate comes from; None: it speaks no TLS there.
        token: that its clients show; empty: none.
    """

    pid: int
    address: str
    ca: Path | None = None
    token: str = ""


@dataclass(frozen=True)
class Pattern:
    """How load is offered: ``connections`` with ``streams`` calls at once on each."""

    connections: int
    streams: int

    def __str__(self) -> str:
        return f"{self.connections}x{self.streams}"

    @property
    def in_flight(self) -> int:
        return self.connections * self.streams


@dataclass(frozen=True)
class Sample:
    """One run.

    Attributes:
        rate: requests a second, once all connections were open.
        cpu_us: CPU microseconds a request, over all processes of the server.
        p50_us: in microseconds.
        connect_s: seconds until all connections were open.
    """

    rate: float
    cpu_us: float
    p50_us: float
    connect_s: float = 0.0


def run_h2load(
    address: str,
    body: Path,
    pattern: Pattern,
    requests: int,
    server: int,
    reply_bytes: int,
    *,
    tls: bool = False,
    path: str = PREDICT,
    http1: bool = False,
    token: str = "",
) -> Sample:
    """Load ``address`` with ``requests`` calls with this body.

    Args:
        address: host:port, or unix:PATH.
        body: a file with a gRPC message and its prefix.
        pattern: connections and calls at once.
        requests: how many calls in all.
        server: process id of the server, whose tree's CPU time is counted.
        reply_bytes: the least that an answer has; h2load counts gRPC errors as successes, so the bytes are looked at.
        tls: speak TLS. h2load takes any certificate.
        path: of the method.
        http1: JSON by HTTP/1.1, and not gRPC.
        token: that each call shows.

    Raises:
        RuntimeError: a call failed, was answered with less, or was not answered.
    """
    scheme = "https" if tls else "http"
    with tempfile.TemporaryDirectory() as scratch:
        log = Path(scratch) / "log"
        command = ["h2load", f"-n{requests}", f"-c{pattern.connections}", f"-m{pattern.streams}", f"-d{body}"]
        command.append(f"--log-file={log}")
        if http1:
            command += ["--h1", "-H", "content-type: application/json"]
        else:
            command += ["-H", "content-type: application/grpc", "-H", "te: trailers", "-w20", "-W26"]
        if token:
            command += ["-H", f"oauth_token: {token}"]
        if address.startswith("unix:"):
            command += ["-B", address, f"{scheme}://localhost{path}"]
        else:
            command += [f"{scheme}://{address}{path}"]
        pids = process_tree(server)
        before = cpu_seconds(pids)
        try:
            run = subprocess.run(command, capture_output=True, text=True, timeout=_PATIENCE_S, check=True)
        except subprocess.TimeoutExpired as error:
            raise RuntimeError(f"{address}: not answered within {_PATIENCE_S} s: {' '.join(command)}") from error
        used = cpu_seconds(pids) - before
        lines = [line.split("\t") for line in log.read_text().splitlines()]
    latencies = [int(line[2]) for line in lines]
    ends = [int(line[0]) + latency for line, latency in zip(lines, latencies, strict=True)]
    finished = re.search(r"finished in ([\d.]+)(us|ms|s)", run.stdout)
    connect = re.search(r"time for connect: +\S+ +([\d.]+)(us|ms|s)", run.stdout)
    good = re.search(r"(\d+) succeeded", run.stdout)
    data = re.search(r"\((\d+)\) data", run.stdout)
    if finished is None or connect is None or good is None or data is None:
        raise RuntimeError(f"h2load printed something else than expected:\n{run.stdout}")
    if int(good[1]) != requests or int(data[1]) < requests * reply_bytes:
        raise RuntimeError(
            f"{address}: {good[1]} of {requests} calls answered, {data[1]} bytes instead of {requests} times "
            f"{reply_bytes}\n{run.stdout}"
        )
    # All connections are begun at once, and the slowest tells when all are there.
    took_s, connect_s = (float(match[1]) * _SECONDS[match[2]] for match in (finished, connect))
    window_s = took_s - connect_s
    begin = max(ends) - window_s * 1e6
    counted = sum(end > begin for end in ends)
    return Sample(counted / window_s, used / requests * 1e6, statistics.median(latencies), connect_s)


@dataclass(frozen=True)
class Load:
    """A server under the name that it has in the table, and what is sent to it.

    Attributes:
        message_bytes: of a right answer.
        path: of a request by HTTP/1.1 with JSON; empty: it is gRPC's.
        rpc: of gRPC's.
    """

    name: str
    server: Running
    body: Path
    message_bytes: int
    path: str = ""
    rpc: str = PREDICT

    def run(self, pattern: Pattern, requests: int) -> Sample:
        server = self.server
        tls = server.ca is not None
        if self.path:
            return run_h2load(
                server.address,
                self.body,
                pattern,
                requests,
                server.pid,
                self.message_bytes,
                tls=tls,
                token=server.token,
                path=self.path,
                http1=True,
            )
        reply_bytes = PREFIX_BYTES + self.message_bytes
        return run_h2load(
            server.address,
            self.body,
            pattern,
            requests,
            server.pid,
            reply_bytes,
            tls=tls,
            token=server.token,
            path=self.rpc,
        )


def medians(samples: list[Sample]) -> Sample:
    """The median of each figure by itself."""
    return Sample(
        statistics.median(s.rate for s in samples),
        statistics.median(s.cpu_us for s in samples),
        statistics.median(s.p50_us for s in samples),
    )
