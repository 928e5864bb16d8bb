"""Run fuzzers, one table of what they did. `scripts/fuzz.sh` builds them and calls this.

A fuzzer begins with the inputs of csrc/fuzz/corpus/NAME and keeps those that are new in build/fuzzed/NAME; its log lies
beside them. A finding is an input that ends it: build/fuzzed/findings/NAME-*.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import dataclasses
import json
import os
import pathlib
import platform
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from chaos.report import Table, fill  # noqa: E402

SOURCES = ROOT / "csrc" / "fuzz"
KEPT = ROOT / "build" / "fuzzed"
RUNS = KEPT / "runs.json"
"""What each fuzzer has done so far in all, which is what the page shows."""

# Those that take longest for an input come last: what is cheap is over by then.
TARGETS = (
    "timeout",
    "base64",
    "route",
    "call_head",
    "builtin",
    "json_request",
    "predict_reply",
    "classifier",
    "descriptors",
    "metadata",
    "predict",
    "grpc_framing",
    "model_inputs",
    "link",
    "http2",
    "grpc",
    "worker_frames",
    "rest_body",
    "config_file",
)

MAX_LEN = 4096
"""Bytes of an input: more would only make it slower. A few of the corpora have larger ones."""

SHORTER = {"grpc": 512, "http2": 1024, "worker_frames": 256, "rest_body": 256, "config_file": 128}
"""Those of which a byte takes longest: a step of a conversation, a character for a parser in Python."""

LAST_LINES = 25
"""Of the log of a fuzzer with a finding."""

SLICE = 300
"""Seconds after which a fuzzer that runs for hours is begun again, so that what it did is written down."""


@dataclasses.dataclass
class Run:
    """What a fuzzer did: once, or in all.

    Attributes:
        runs: inputs that were tried.
        seconds: for how long.
        edges: ways through the code that an input took, of those that the compiler has numbered.
        features: the same, with how often each was taken, and which comparisons came how close.
        inputs: in the corpus at the end.
        findings: names of the files.
        failed: it ended otherwise than it should.
    """

    name: str
    runs: int = 0
    seconds: float = 0
    edges: int = 0
    features: int = 0
    inputs: int = 0
    findings: list[str] = dataclasses.field(default_factory=list)
    failed: bool = False

    def add(self, later: Run) -> None:
        """This one, and one more after it."""
        self.runs += later.runs
        self.seconds += later.seconds
        self.edges, self.features, self.inputs = later.edges, later.features, later.inputs
        self.findings += later.findings
        self.failed = self.failed or later.failed


def command(name: str, build: str) -> list[str]:
    if (script := SOURCES / f"fuzz_{name}.py").exists():
        return [sys.executable, str(script)]
    return [str(ROOT / "build" / build / "csrc" / "fuzz" / f"fuzz_{name}")]


def environment(build: str) -> dict[str, str]:
    # Short stacks: what a leak or a freed block tells of where it came from costs a third of the time. Where exceptions
    # are thrown, frames that are left cost as much again.
    frames, stacks = (1, 5) if build == "asan" else (0, 2)
    sanitizer = f"detect_stack_use_after_return={frames}:strict_string_checks=1:malloc_context_size={stacks}"
    return {**os.environ, "ASAN_OPTIONS": sanitizer, "UBSAN_OPTIONS": "print_stacktrace=1"}


def log_of(name: str) -> pathlib.Path:
    return KEPT / f"{name}.log"


def run(name: str, build: str, limits: list[str]) -> Run:
    """One fuzzer, to its end."""
    kept, findings = KEPT / name, KEPT / "findings"
    kept.mkdir(parents=True, exist_ok=True)
    findings.mkdir(parents=True, exist_ok=True)
    dictionary = SOURCES / "dict" / f"{name}.dict"
    options = [
        *limits,
        *([f"-dict={dictionary}"] if dictionary.exists() else []),
        f"-max_len={SHORTER.get(name, MAX_LEN)}",
        # Of wall time: hours are left to what others leave of the machine.
        f"-timeout={25 if build == 'asan' else 300}",
        "-rss_limit_mb=3000",
        "-print_final_stats=1",
        # Which input to mutate next is found out faster than it pays here; leaks are looked for when all are run again.
        "-entropic=0",
        "-detect_leaks=0",
        f"-artifact_prefix={findings}/{name}-",
    ]
    before = set(findings.glob(f"{name}-*"))
    began = time.monotonic()
    with log_of(name).open("wb") as log:
        folders = [str(kept), str(SOURCES / "corpus" / name)]
        done = subprocess.run(
            [*command(name, build), *options, *folders], env=environment(build), stdout=log, stderr=log
        )
    made = Run(name, seconds=time.monotonic() - began, failed=done.returncode != 0)
    made.findings = sorted(path.name for path in set(findings.glob(f"{name}-*")) - before)
    text = log_of(name).read_text(encoding="utf-8", errors="replace")
    if found := re.findall(r"^stat::number_of_executed_units: (\d+)", text, re.MULTILINE):
        made.runs = int(found[-1])
    if lines := re.findall(r"^#\d+\s+\w+\s+cov: (\d+) ft: (\d+) corp: (\d+)/", text, re.MULTILINE):
        made.edges, made.features, made.inputs = map(int, lines[-1])
    return made


def merge(name: str, build: str) -> None:
    """Makes the repository's corpus of what is kept: as few inputs as take the same ways. Found ones stay."""
    corpus = SOURCES / "corpus" / name
    with tempfile.TemporaryDirectory() as scratch:
        folders = [scratch, str(corpus), str(KEPT / name)]
        subprocess.run(
            [*command(name, build), "-merge=1", f"-max_len={SHORTER.get(name, MAX_LEN)}", "-detect_leaks=0", *folders],
            env=environment(build),
            check=True,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        for path in corpus.iterdir():
            if not path.name.startswith("found-"):
                path.unlink()
        for path in pathlib.Path(scratch).iterdir():
            shutil.copyfile(path, corpus / path.name)


def row(each: Run) -> list[str]:
    rate = each.runs / each.seconds if each.seconds else 0
    counts = (each.runs, round(each.seconds), round(rate), each.edges, each.features, each.inputs, len(each.findings))
    return [each.name, *(f"{count:,}" for count in counts)]


def table(runs: list[Run]) -> Table:
    columns = ("fuzzer", "runs", "seconds", "runs/s", "edges", "features", "inputs", "findings")
    return Table(columns, [row(each) for each in runs])


class Book:
    """What each fuzzer has done so far, in a file. For several threads."""

    def __init__(self) -> None:
        read = json.loads(RUNS.read_text()) if RUNS.exists() else []
        self._runs = {each["name"]: Run(**each) for each in read}
        self._lock = threading.Lock()

    def of(self, name: str) -> Run:
        return self._runs.get(name, Run(name))

    def enter(self, made: Run) -> None:
        with self._lock:
            self._runs.setdefault(made.name, Run(made.name)).add(made)
            RUNS.write_text(json.dumps([dataclasses.asdict(each) for each in self.all()], indent=1))

    def all(self) -> list[Run]:
        return [self._runs[name] for name in TARGETS if name in self._runs]


def fuzz(name: str, build: str, seconds: int, runs: int | None, book: Book) -> Run:
    """One fuzzer for some time, or until it has come to so many runs, those of earlier times among them."""
    if runs is None:
        made = run(name, build, [f"-max_total_time={seconds}"])
        book.enter(made)
        return made
    made = Run(name)
    while not made.failed and (left := runs - book.of(name).runs) > 0:
        piece = run(name, build, [f"-runs={left}", f"-max_total_time={SLICE}"])
        book.enter(piece)
        made.add(piece)
        print(f"{name}: {book.of(name).runs:,} of {runs:,}", file=sys.stderr, flush=True)
    return made


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("targets", nargs="*", metavar="NAME", help=f"which: {', '.join(TARGETS)}; none: all")
    parser.add_argument("--seconds", type=int, default=60, help="how long each runs (60)")
    parser.add_argument(
        "--runs",
        type=int,
        help="until each has tried so many inputs, with those of earlier times, however long that takes",
    )
    parser.add_argument("--build", default="asan", help="the folder of build/ that has them (asan)")
    parser.add_argument("--jobs", type=int, default=2, help="how many run at a time (2)")
    parser.add_argument("--merge", action="store_true", help="run nothing; put what was found into csrc/fuzz/corpus")
    parser.add_argument("--write", type=pathlib.Path, metavar="PAGE", help="a page into which the table is written")
    options = parser.parse_args()
    if unknown := set(options.targets) - set(TARGETS):
        parser.error(f"no fuzzer is called {', '.join(sorted(unknown))}; there are {', '.join(TARGETS)}")
    targets = [name for name in TARGETS if not options.targets or name in options.targets]
    if options.merge:
        for name in targets:
            merge(name, options.build)
        return 0

    KEPT.mkdir(parents=True, exist_ok=True)
    book = Book()
    with concurrent.futures.ThreadPoolExecutor(options.jobs) as pool:
        runs = list(pool.map(lambda name: fuzz(name, options.build, options.seconds, options.runs, book), targets))
    print(table(runs).text())
    if options.write:
        made = f"{time.strftime('%Y-%m-%d')}, Linux {platform.release()}, all runs of each fuzzer so far."
        page = options.write.read_text(encoding="utf-8")
        options.write.write_text(
            fill(page, {"made-by-fuzzers": made, "fuzzers": table(book.all()).markdown()}), encoding="utf-8"
        )
    failed = [each for each in runs if each.failed]
    for each in failed:
        lines = log_of(each.name).read_text(encoding="utf-8", errors="replace").splitlines()
        print(f"\n-- {each.name}: {', '.join(each.findings) or 'it ended with an error'}")
        print("\n".join(lines[-LAST_LINES:]))
    if failed:
        print(f"\nFindings of {', '.join(each.name for each in failed)}, in {KEPT / 'findings'}.")
        print("Run one again with build/asan/csrc/fuzz/fuzz_NAME FILE, mend what is wrong, and keep the file as")
        print("csrc/fuzz/corpus/NAME/found-WHAT.")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
