"""The fuzzers: that none is forgotten, and what their inputs, which C++ builds run as tests, do to Python's."""

from __future__ import annotations

import importlib.util
import pathlib
import re
import types

import pytest

ROOT = pathlib.Path(__file__).resolve().parent.parent
FUZZ = ROOT / "csrc" / "fuzz"


def module(path: pathlib.Path) -> types.ModuleType:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    made = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(made)
    return made


@pytest.fixture(scope="module")
def config_fuzzer() -> types.ModuleType:
    return module(FUZZ / "fuzz_config_file.py")


def test_every_fuzzer_is_built_run_and_has_inputs() -> None:
    sources = {path.stem.removeprefix("fuzz_") for path in FUZZ.glob("fuzz_*.*")}
    assert sources == {path.name for path in (FUZZ / "corpus").iterdir() if any(path.iterdir())}
    text = (ROOT / "scripts" / "fuzz.py").read_text(encoding="utf-8")
    targets = re.findall(r'"(\w+)"', text.partition("TARGETS = (")[2].partition(")")[0])
    assert sorted(targets) == sorted(sources)
    built = re.findall(r"^mindserve_fuzzer\((\w+)", (FUZZ / "CMakeLists.txt").read_text(encoding="utf-8"), re.MULTILINE)
    assert sorted([*built, "config_file"]) == sorted(sources)
    assert {path.stem for path in (FUZZ / "dict").iterdir()} <= sources


@pytest.mark.parametrize("path", sorted((FUZZ / "corpus" / "config_file").iterdir()), ids=lambda path: path.name)
def test_config_files(config_fuzzer: types.ModuleType, path: pathlib.Path) -> None:
    config_fuzzer.run(path.read_bytes())
