"""Measure MindServe against a server that does nothing, within one run: make bench.

Every round runs each server in turn, so that a noisy neighbour disturbs all of them alike. The tables have medians over
the rounds; a ratio is the median of the ratios within each round, to the first server of its case. CPU is user and
system time of all of a server's processes.

cases:
  a  small add: 4x16, 64x1 and 256x4 (connections x calls at once on each)
  b  small add, one call at a time
  c  602 KB in, over TCP and over a Unix socket
  d  a Python function before the model, called for each instance and for a batch
  e  ResNet-50, against a bare loop of ONNX Runtime
  f  small add over TLS, against the same server without
  g  the Python client, against a bare stub of grpcio
  h  a user's gRPC service in Python, against grpcio and the bare loop of its handler
  i  streams of small messages out of Python generators, and from a native source
  j  memory of 10,000 open streams
  k  150,528 numbers in JSON into a request, against json and numpy
  l  small add by HTTP with JSON, against gRPC
  m  small add with a token that the server asks for, against one that does not
  n  Classifier with an Any, against Predict of the same model
  o  small add for a name that is split between variations, against one that is not; and how exactly it is split

sweeps:
  connections  1 to 1,000, one call at a time on each
  idle         1 to 1,000 idle connections beside a load
  in-flight    1 to 4,096 calls at once
  instances    1 to 10,000 in each request
  bytes        16 to 64 MiB in a tensor
  servables    1 to 100, a worker process each
  workers      1 to 8 of one servable
  memory       of an idle master, and of idle connections over TCP and TLS
"""

from __future__ import annotations

import argparse
import itertools
import os
import platform
import re
import resource
import subprocess
import tempfile
from importlib.metadata import version
from pathlib import Path

from cases import NAMES, run_cases
from report import Results, Section, fill
from rounds import Timing
from servers import Servers
from sweeps import SWEEPS, run_sweeps

DO_NOTHING = Path("build/release/benchmarks/do_nothing_server")
STREAM_SOURCE = Path("build/release/benchmarks/stream_source")


def main() -> None:
    """Measure, or read what was measured; print and keep it."""
    options = _parse()
    if options.read:
        results = Results.read(options.read)
        for name, section in results.sections.items():
            _print(name, section)
    else:
        results = _measure(options)
    if options.docs:
        _write_docs(results, options.docs)


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--cases", metavar="LETTERS", help="which of the cases: abf; all, if --sweeps is not given either"
    )
    parser.add_argument("--sweeps", metavar="NAMES", help="which of the sweeps: idle,memory; likewise")
    parser.add_argument("--rounds", type=int, default=5, help="how often each server is measured (default: 5)")
    parser.add_argument("--seconds", type=float, default=2.0, help="of each measurement (default: 2)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="keep the results there, too; after each table")
    parser.add_argument(
        "--read", type=Path, metavar="FILE", help="take the results from a file of --json; measure nothing"
    )
    parser.add_argument("--docs", type=Path, metavar="DIRECTORY", help="write tables into its benchmarks.md, and plots")
    parser.add_argument("--do-nothing", type=Path, default=DO_NOTHING, help="the program (default: %(default)s)")
    parser.add_argument("--stream-source", type=Path, default=STREAM_SOURCE, help="the program (default: %(default)s)")
    parser.add_argument("--resnet50", type=Path, metavar="FILE", help="the ONNX file of example/resnet50, for case e")
    options = parser.parse_args()
    if options.cases is None and options.sweeps is None:
        options.cases, options.sweeps = NAMES, ",".join(SWEEPS)
    options.cases = options.cases or ""
    options.sweeps = [name for name in (options.sweeps or "").split(",") if name]
    if unknown := set(options.cases) - set(NAMES):
        parser.error(f"--cases: there is no case {', '.join(sorted(unknown))}; those there are: {NAMES}")
    if unknown := set(options.sweeps) - set(SWEEPS):
        parser.error(f"--sweeps: there is no sweep {', '.join(sorted(unknown))}; those there are: {', '.join(SWEEPS)}")
    if options.rounds < 1 or options.seconds <= 0:
        parser.error("--rounds must be at least 1, --seconds above 0")
    if "e" in options.cases and options.resnet50 is None and not options.read:
        parser.error("case e needs --resnet50")
    return options


def _measure(options: argparse.Namespace) -> Results:
    results = Results(_machine())
    if options.docs and (kept := _figures(options.docs)).exists():
        # Figures of different machines don't belong beside each other.
        old = Results.read(kept)
        missing = old.sections.keys() - set(options.cases) - set(options.sweeps)
        if old.machine == results.machine:
            results.sections = old.sections
        elif missing:
            raise SystemExit(f"{kept} has figures of another machine ({old.machine}): measure all of them")
    _raise_file_limit()
    # The servers run in directories of their own.
    do_nothing, stream_source = options.do_nothing.resolve(), options.stream_source.resolve()
    resnet50 = options.resnet50.resolve() if "e" in options.cases else None
    timing = Timing(options.rounds, options.seconds)
    with (
        tempfile.TemporaryDirectory() as scratch,
        Servers(Path(scratch), do_nothing, stream_source, resnet50) as servers,
    ):
        sections = itertools.chain(
            run_cases(options.cases, servers, resnet50, timing), run_sweeps(options.sweeps, servers, timing)
        )
        for name, section in sections:
            results.sections[name] = section
            _print(name, section)
            if options.json:
                results.write(options.json)
    return results


def _print(name: str, section: Section) -> None:
    print(f"\n{name}: {section.made}\n\n{section.table()}", flush=True)


def _figures(docs: Path) -> Path:
    return docs / "plots" / "figures.json"


def _write_docs(results: Results, docs: Path) -> None:
    # Only this needs matplotlib.
    from plots import draw

    file, page = _figures(docs), docs / "benchmarks.md"
    text = fill(page.read_text(encoding="utf-8"), results.blocks())
    file.parent.mkdir(exist_ok=True)
    for name, section in results.sections.items():
        if section.plot is not None:
            draw(section, file.parent / f"{name}.svg")
    results.write(file)
    page.write_text(text, encoding="utf-8")


def _raise_file_limit() -> None:
    """For this process and its children: the sweeps open more connections than the usual 1,024 files."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def _machine() -> str:
    """What the figures hold for, as a sentence."""
    info = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    model = re.search(r"^model name\s*: (.*)$", info, re.MULTILINE)
    h2load = subprocess.run(["h2load", "--version"], capture_output=True, text=True, check=True).stdout.split()[-1]
    packages = ", ".join(f"{name} {version(name)}" for name in ("onnxruntime", "grpcio"))
    return (
        f"{model[1] if model else platform.machine()}, {len(os.sched_getaffinity(0))} cores shared by the servers and "
        f"h2load ({h2load}); Linux {platform.release()}, Python {platform.python_version()}, {packages}."
    )


if __name__ == "__main__":
    main()
