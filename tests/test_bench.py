"""The benchmarks run and say something about everything they were asked for; what they say is not judged."""

from __future__ import annotations

import json
import math
import os
import pathlib
import shlex
import shutil
import subprocess
import sys
from typing import Any

import pytest

ROOT = pathlib.Path(__file__).resolve().parent.parent
BENCHMARKS = ROOT / "benchmarks"

needs_h2load = pytest.mark.skipif(shutil.which("h2load") is None, reason="h2load (nghttp2-client) is not installed")


def run(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, BENCHMARKS / "run.py", *arguments]
    return subprocess.run(list(map(str, command)), cwd=ROOT, capture_output=True, text=True, check=False, timeout=240)


@pytest.fixture(scope="module")
def do_nothing(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """The server that is measured against, compiled."""
    program = tmp_path_factory.mktemp("program") / "do_nothing_server"
    compiler = shlex.split(os.environ.get("CXX", "")) or [shutil.which("g++") or "clang++"]
    source = BENCHMARKS / "do_nothing_server.cc"
    subprocess.run([*compiler, "-std=c++20", source, "-lnghttp2", "-o", program], check=True, timeout=120)
    return program


@pytest.fixture(scope="module")
def measured(do_nothing: pathlib.Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[pathlib.Path, str]:
    """The results' file of the shortest run there is, and what was printed."""
    file = tmp_path_factory.mktemp("results") / "results.json"
    wanted = ("--cases", "afgko", "--sweeps", "instances,memory", "--rounds", 1, "--seconds", 0.05)
    result = run(*wanted, "--do-nothing", do_nothing, "--json", file)
    assert result.returncode == 0, result.stderr
    return file, result.stdout


def rows_of(file: pathlib.Path, name: str) -> list[dict[str, Any]]:
    rows = json.loads(file.read_text(encoding="utf-8"))["sections"][name]["rows"]
    for row in rows:
        for key, value in row.items():
            if isinstance(value, float):
                assert math.isfinite(value), (name, row)
                # Of differences of two measurements the shortest run tells nothing.
                assert value > 0 or key.endswith(("_kb", "off_percent")) or "cpu" in key, (name, row)
    return rows


@needs_h2load
def test_every_row_is_there(measured: tuple[pathlib.Path, str]) -> None:
    file, _ = measured
    assert [(row["pattern"], row["server"]) for row in rows_of(file, "a")] == [
        *(("4x16", server) for server in ("do-nothing", "mindserve", "grpcio")),
        *(("64x1", server) for server in ("do-nothing", "mindserve", "grpcio")),
        *(("256x4", server) for server in ("do-nothing", "mindserve")),
    ]
    assert [(row["pattern"], row["server"]) for row in rows_of(file, "f")] == [
        (pattern, server) for pattern in ("4x16", "64x1") for server in ("plain", "TLS")
    ]
    assert [row["caller"] for row in rows_of(file, "g")] == ["bare grpcio stub", "Client.infer"]
    rows = rows_of(file, "o")
    assert [(row["pattern"], row["server"]) for row in rows] == [
        (pattern, server) for pattern in ("4x16", "64x1") for server in ("no split", "split")
    ]
    for row in rows[1::2]:
        assert sum(int(count.replace(",", "")) for count in row["counts"].split(" + ")) == 10_000
        assert row["off_percent"] <= 1, "the one figure that does not depend on the machine"
    assert [row["numbers"] for row in rows_of(file, "k")] == [
        "integers, 0 to 255",
        "floats, 4 digits",
        "floats, as Python writes them",
    ]
    assert [(row["x"], row["server"]) for row in rows_of(file, "instances")] == [
        (count, server) for count in (1, 10, 100, 1000, 10_000) for server in ("do-nothing", "mindserve")
    ]
    assert [(row["server"], row["x"]) for row in rows_of(file, "memory")] == [
        (kind, count) for kind in ("TCP", "TLS") for count in (0, 100, 300, 1000)
    ]


@needs_h2load
def test_figures_fit_each_other(measured: tuple[pathlib.Path, str]) -> None:
    file, _ = measured
    for name in ("a", "f", "o"):
        rows = rows_of(file, name)
        for row in rows:
            (base,) = (
                r for r in rows if r["pattern"] == row["pattern"] and r["server"] in ("do-nothing", "plain", "no split")
            )
            assert base["rate_ratio"] == base["cpu_ratio"] == base["p50_ratio"] == 1
            for figure, ratio in (("rate", "rate_ratio"), ("cpu_us", "cpu_ratio"), ("p50_us", "p50_ratio")):
                assert row[ratio] == pytest.approx(row[figure] / base[figure])
    for row in rows_of(file, "instances"):
        assert row["unit_rate"] == pytest.approx(row["rate"] * row["x"])
        assert row["unit_cpu_us"] == pytest.approx(row["cpu_us"] / row["x"])
    empty, *_, full = (row for row in rows_of(file, "memory") if row["server"] == "TLS")
    assert full["each_kb"] * 1000 / 1000 == pytest.approx(full["master_mb"] - empty["master_mb"])


@needs_h2load
def test_tables_are_printed_as_they_are_kept(measured: tuple[pathlib.Path, str]) -> None:
    file, printed = measured
    again = run("--read", file)
    assert again.stdout == printed, again.stderr
    headings = [line for line in printed.splitlines() if line.startswith("| case ")]
    assert len(headings) == 3
    rows = sum(len(rows_of(file, name)) for name in ("a", "f", "g", "k", "o", "instances", "memory"))
    assert sum(line.startswith("| ") for line in printed.splitlines()) == rows + 2 * 7


@needs_h2load
def test_results_go_into_the_page(measured: tuple[pathlib.Path, str], tmp_path: pathlib.Path) -> None:
    pytest.importorskip("matplotlib", reason="plots need the extra 'bench'")
    file, printed = measured
    shutil.copy(ROOT / "docs" / "benchmarks.md", tmp_path)
    result = run("--read", file, "--docs", tmp_path)
    assert result.returncode == 0, result.stderr
    page = (tmp_path / "benchmarks.md").read_text(encoding="utf-8")
    assert all(line in page for line in printed.splitlines() if line.startswith("| "))
    assert {path.name for path in (tmp_path / "plots").iterdir()} == {"figures.json", "instances.svg", "memory.svg"}
    for name, labels in (("instances", ["CPU µs/instance", "mindserve", "do-nothing"]), ("memory", ["TCP", "TLS"])):
        drawing = (tmp_path / "plots" / f"{name}.svg").read_text(encoding="utf-8")
        assert all(f">{label}</text>" in drawing for label in labels)


def test_the_page_shows_the_figures_that_are_kept() -> None:
    """The page's tables are those of the file that its plots are drawn from."""
    sys.path.insert(0, str(BENCHMARKS))
    try:
        import report
    finally:
        sys.path.remove(str(BENCHMARKS))
    page = (ROOT / "docs" / "benchmarks.md").read_text(encoding="utf-8")
    results = report.Results.read(ROOT / "docs" / "plots" / "figures.json")
    assert report.fill(page, results.blocks()) == page
    for name, section in results.sections.items():
        assert section.plot is None or f"](plots/{name}.svg)" in page
    marks = {line.split()[2] for line in page.splitlines() if line.startswith("<!-- figures: ")}
    assert marks == {"machine", *results.sections}


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--cases", "ax"], "there is no case x"),
        (["--sweeps", "idle,up"], "there is no sweep up"),
        (["--cases", "e"], "case e needs --resnet50"),
        (["--cases", "a", "--rounds", "0"], "--rounds must be at least 1"),
    ],
)
def test_wrong_options(arguments: list[str], complaint: str) -> None:
    result = run(*arguments)
    assert result.returncode == 2
    assert complaint in result.stderr
