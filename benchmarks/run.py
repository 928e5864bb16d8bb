"""Measure MindServe against a server that does nothing, within one run: ``make bench``.

Every round runs each server in turn, so that a noisy neighbour disturbs all of them; the table shows medians over the
rounds and the ratio to the do-nothing server. CPU counts user and system time of all of a server's processes.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from load import Pattern, Sample, medians, run_h2load
from models import LARGE, SMALL, add_instance, make_servables, write_body

from mindserve.client import Client

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent


@dataclass
class Running:
    """A started server."""

    name: str
    pid: int
    address: str


@contextmanager
def started(name: str, command: list[str], address: str | None, cwd: Path) -> Iterator[Running]:
    """A server process; without ``address`` it prints the one it has chosen. Ended by SIGTERM."""
    log = (cwd / f"{name}.log").open("w+")
    output = subprocess.PIPE if address is None else log
    process = subprocess.Popen(command, stdout=output, stderr=log, cwd=cwd, text=True)
    try:
        if address is None:
            assert process.stdout is not None
            address = process.stdout.readline().strip().removeprefix("listening on ")
        yield Running(name, process.pid, address)
    finally:
        process.terminate()
        process.wait(60)
        log.close()


def await_answer(address: str, servable: str, method: str, instance: dict[str, object], expected: np.ndarray) -> None:
    """Until the server gives the right answer; everything measured is checked to be right first.

    Raises:
        RuntimeError: it does not within a minute.
    """
    until = time.monotonic() + 60
    result: object = None
    while time.monotonic() < until:
        with Client(address, servable, method) as client:
            result = client.infer(instance)
        if isinstance(result, list) and np.allclose(next(iter(result[0].values())), expected):
            return
        time.sleep(0.1)
    raise RuntimeError(f"{address}: {servable}.{method} answered {result}, expected {expected}")


def free_port() -> int:
    """A port that was free a moment ago."""
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass
class Case:
    """Servers measured alike. The first is the ceiling."""

    title: str
    servers: list[Running]
    body: dict[str, Path]  # by server
    pattern: Pattern
    requests: dict[str, int]  # by server
    reply_bytes: int
    samples: dict[str, list[Sample]] = field(default_factory=dict)

    def run_round(self) -> None:
        """Each server once."""
        for server in self.servers:
            sample = run_h2load(
                server.address,
                self.body[server.name],
                self.pattern,
                self.requests[server.name],
                server.pid,
                self.reply_bytes,
            )
            self.samples.setdefault(server.name, []).append(sample)

    def rows(self) -> list[str]:
        """Of the table."""
        first = medians(self.samples[self.servers[0].name])
        rows = []
        for server in self.servers:
            m = medians(self.samples[server.name])
            rows.append(
                f"| {self.title} | {self.pattern} | {server.name} | {m.rate:,.0f} | {m.rate / first.rate:.2f} "
                f"| {m.cpu_us:.1f} | {m.cpu_us / first.cpu_us:.2f} | {m.p50_us:,.0f} | {m.p50_us / first.p50_us:.2f} |"
            )
        return rows


HEAD = (
    "| case | connections x calls | server | req/s | ratio | CPU µs/req | ratio | p50 µs | ratio |\n"
    "| --- | --- | --- | --- | --- | --- | --- | --- | --- |"
)


def calibrated(case: Case, seconds: float) -> Case:
    """Sets how many requests each server gets, so that a run takes about ``seconds``."""
    for server in case.servers:
        probe = max(8 * case.pattern.connections * case.pattern.streams, 200)
        sample = run_h2load(server.address, case.body[server.name], case.pattern, probe, server.pid, case.reply_bytes)
        wanted = int(sample.rate * seconds)
        flight = case.pattern.connections * case.pattern.streams
        case.requests[server.name] = max(wanted // flight, 4) * flight
    return case


def measure(cases: list[Case], rounds: int, seconds: float) -> list[str]:
    """Runs the cases, interleaved, and gives the table's rows."""
    for case in cases:
        calibrated(case, seconds)
    for number in range(rounds):
        for case in cases:
            case.run_round()
        print(f"round {number + 1} of {rounds} done", file=sys.stderr)
    return [row for case in cases for row in case.rows()]


def bare_loop(model: Path, batch: int, threads: int, seconds: float) -> Callable[[], float]:
    """ONNX Runtime alone, in a loop: images a second."""
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    session = ort.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    image = np.ones((batch, 3, 224, 224), np.float32)
    session.run(None, {name: image})

    def run() -> float:
        start, done = time.perf_counter(), 0
        while time.perf_counter() - start < seconds:
            session.run(None, {name: image})
            done += batch
        return done / (time.perf_counter() - start)

    return run


def measure_resnet50(server: Running, model: Path, scratch: Path, rounds: int, seconds: float) -> list[str]:
    """Images a second through the server and in a bare loop of the same threads, by images in flight."""
    body = write_body(scratch / "image", "resnet50", "classify", {"image": np.ones((3, 224, 224), np.float32)})
    rows = []
    threads = os.cpu_count() or 1
    for flight in (1, 4, 16):
        loop = bare_loop(model, flight, threads, seconds)
        served, bare, cpu = [], [], []
        for _ in range(rounds):
            bare.append(loop())
            count = max(2 * flight, int(statistics.median(bare) * seconds) // flight * flight)
            sample = run_h2load(server.address, body, Pattern(1, flight), count, server.pid, 4000)
            served.append(sample.rate)
            cpu.append(sample.cpu_us)
        ratio = statistics.median(s / b for s, b in zip(served, bare, strict=True))
        rows.append(
            f"| {flight} | {statistics.median(served):.1f} | {statistics.median(bare):.1f} | {ratio:.3f} "
            f"| {statistics.median(cpu) / 1000:.1f} |"
        )
    return rows


def main() -> None:
    """Parse, run, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--do-nothing", type=Path, required=True, help="the do_nothing_server program")
    parser.add_argument("--resnet50", type=Path, required=True, help="the ResNet-50 ONNX file of example/resnet50")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=2.0, help="of each run")
    parser.add_argument("--cases", default="abcde", help="which of (a) to (e)")
    options = parser.parse_args()
    # The servers run in a scratch directory.
    options.do_nothing, options.resnet50 = options.do_nothing.resolve(), options.resnet50.resolve()

    with ExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        make_servables(scratch / "servables", options.resnet50)
        python = sys.executable

        def serve(name: str, address: str, servable: str) -> Running:
            command = [python, str(HERE / "server.py"), str(scratch / "servables"), address, servable]
            return stack.enter_context(started(name, command, address, scratch))

        def ceiling(address: str, reply: int) -> Running:
            command = [str(options.do_nothing), address, str(reply)]
            return stack.enter_context(started("do-nothing", command, None, scratch))

        add_body = {
            name: write_body(scratch / f"{name}.add", "bench", method, add_instance())
            for name, method in (
                ("do-nothing", "add_common"),
                ("mindserve", "add_common"),
                ("grpcio", "add_common"),
                ("per instance", "add_cast"),
                ("as a batch", "add_cast_batch"),
            )
        }
        cases: list[Case] = []
        table: list[str] = []
        if set("abd") & set(options.cases):
            small = ceiling("0", 42)
            tcp = serve("mindserve", f"127.0.0.1:{free_port()}", "bench")
            await_answer(tcp.address, "bench", "add_common", add_instance(), np.full((2, 2), 2, np.float32))
            address = f"127.0.0.1:{free_port()}"
            command = [python, str(HERE / "grpcio_server.py"), address]
            grpcio = stack.enter_context(started("grpcio", command, address, scratch))
            await_answer(address, "bench", "add_common", add_instance(), np.full((2, 2), 2, np.float32))
            if "a" in options.cases:
                for pattern in (Pattern(4, 16), Pattern(64, 1)):
                    cases.append(Case("(a) small add", [small, tcp, grpcio], add_body, pattern, {}, 40))
            if "b" in options.cases:
                cases.append(Case("(b) one at a time", [small, tcp, grpcio], add_body, Pattern(1, 1), {}, 40))
            if "d" in options.cases:
                one = Running("per instance", tcp.pid, tcp.address)
                many = Running("as a batch", tcp.pid, tcp.address)
                for method, running in (("add_cast", one), ("add_cast_batch", many)):
                    await_answer(running.address, "bench", method, add_instance(), np.full((2, 2), 2, np.float32))
                cases.append(Case("(d) Python stage", [small, one, many], add_body, Pattern(4, 16), {}, 40))
        if "c" in options.cases:
            large = np.ones(LARGE, np.float32)
            body = write_body(scratch / "large", "bench", "take_head", {"x": large})
            for kind in ("TCP", "Unix socket"):
                unix = kind != "TCP"
                nothing = ceiling(f"unix:{scratch}/nothing.sock" if unix else "0", 4 * SMALL + 20)
                address = f"unix:{scratch}/mindserve.sock" if unix else f"127.0.0.1:{free_port()}"
                served = serve("mindserve", address, "bench")
                await_answer(address, "bench", "take_head", {"x": large}, large[:SMALL])
                bodies = {"do-nothing": body, "mindserve": body}
                for pattern in (Pattern(1, 1), Pattern(4, 16)):
                    cases.append(Case(f"(c) 602 KB, {kind}", [nothing, served], bodies, pattern, {}, 4 * SMALL))
        if cases:
            table = measure(cases, options.rounds, options.seconds)
            print("\n".join([HEAD, *table]))
        if "e" in options.cases:
            address = f"127.0.0.1:{free_port()}"
            served = serve("mindserve", address, "resnet50")
            image = {"image": np.ones((3, 224, 224), np.float32)}
            await_answer(address, "resnet50", "classify", image, expected_scores(options.resnet50))
            rows = measure_resnet50(served, options.resnet50, scratch, options.rounds, options.seconds)
            print("\n(e) ResNet-50, images a second\n")
            print("| in flight | mindserve | bare loop | ratio | CPU ms/image |\n| --- | --- | --- | --- | --- |")
            print("\n".join(rows))


def expected_scores(model: Path) -> np.ndarray:
    """What ONNX Runtime alone answers for an image of ones."""
    import onnxruntime as ort

    session = ort.InferenceSession(str(model), providers=["CPUExecutionProvider"])
    image = np.ones((1, 3, 224, 224), np.float32)
    return np.asarray(session.run(None, {session.get_inputs()[0].name: image})[0][0])


if __name__ == "__main__":
    main()
