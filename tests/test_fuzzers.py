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


IN_PYTHON = ("config_file", "rest_body")


def test_every_fuzzer_is_built_run_and_has_inputs() -> None:
    sources = {path.stem.removeprefix("fuzz_") for path in FUZZ.glob("fuzz_*.*")}
    assert sources == {path.name for path in (FUZZ / "corpus").iterdir() if any(path.iterdir())}
    text = (ROOT / "scripts" / "fuzz.py").read_text(encoding="utf-8")
    targets = re.findall(r'"(\w+)"', text.partition("TARGETS = (")[2].partition(")")[0])
    assert sorted(targets) == sorted(sources)
    built = re.findall(r"^mindserve_fuzzer\((\w+)", (FUZZ / "CMakeLists.txt").read_text(encoding="utf-8"), re.MULTILINE)
    assert sorted([*built, *IN_PYTHON]) == sorted(sources)
    assert {path.stem for path in (FUZZ / "dict").iterdir()} <= sources


@pytest.mark.parametrize("name", IN_PYTHON)
def test_inputs_of_those_in_python(name: str) -> None:
    fuzzer = module(FUZZ / f"fuzz_{name}.py")
    for path in sorted((FUZZ / "corpus" / name).iterdir()):
        try:
            fuzzer.run(path.read_bytes())
        except Exception as error:
            pytest.fail(f"{path.name}: {error!r}")
