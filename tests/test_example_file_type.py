"""example/file_type: its answers over gRPC are those of magika itself."""

import pathlib
import random
import re
import sys
from collections.abc import Iterator

import pytest
from magika import Magika

from example_process import EXAMPLE, ask, load_script, serving
from mindserve.client import Client

ROOT = EXAMPLE.parent
HERE = EXAMPLE / "file_type"
EXPECTED = {"archive.zip": "zip", "page.pdf": "pdf", "picture.png": "png", "script.py": "python"}


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with serving("file_type", tmp_path_factory.mktemp("file_type")) as at:
        yield at


@pytest.fixture(scope="module")
def magika() -> Magika:
    return Magika()


def repository_files() -> list[pathlib.Path]:
    files = [
        ROOT / "README.md",
        ROOT / "Makefile",
        ROOT / "pyproject.toml",
        ROOT / "LICENSE",
        ROOT / "CMakePresets.json",
    ]
    for folder in ("csrc", "python", "example", "tests", "protos", "scripts", "docs"):
        files += [
            path for path in sorted((ROOT / folder).rglob("*")) if path.is_file() and "__pycache__" not in path.parts
        ]
    return files


def made_contents() -> list[bytes]:
    """What is short, blank, or around the sizes at which the model looks at a file differently."""
    noise = random.Random(20)
    text = (ROOT / "LICENSE").read_bytes()
    return [
        b"",
        b" ",
        b"\n" * 5000,
        b"abc",
        b"abcdefg",
        b"\xff\xfe\x00",
        b"  12345678  ",
        b" " * 4096 + text[:2000],
        b" " * 4090 + text[:2000],
        *(noise.randbytes(size) for size in (7, 8, 9, 1023, 1024, 1025, 4095, 4096, 4097, 20_000)),
        *(text[:size] for size in (8, 50, 1024, 4096, 4097)),
        text[:3000] + b"\n" * 5000,
        sys.executable.encode(),
    ]


def assert_equal_to_magika(address: str, magika: Magika, contents: list[bytes]) -> None:
    with Client(address, "file_type", "identify") as client:
        alone = [client.infer({"content": content})[0] for content in contents]
        together = client.infer([{"content": content} for content in contents])
    assert isinstance(together, list), together
    for content, *answers in zip(contents, alone, together, strict=True):
        expected = magika.identify_bytes(content)
        for answer in answers:
            assert answer["label"] == str(expected.output.label), content[:40]
            assert answer["score"] == pytest.approx(expected.score, abs=1e-6), content[:40]


def test_the_client_labels_the_samples(address: str) -> None:
    printed = ask("file_type", "--address", address)
    labels = dict(re.findall(r"([^/\n]+): (\w+) \([01]\.\d{3}\)$", printed, re.MULTILINE))
    assert EXPECTED.items() <= labels.items()
    assert labels["README.md"] == "markdown"


def test_the_client_labels_given_files(address: str) -> None:
    printed = ask("file_type", "--address", address, ROOT / "Makefile")
    assert re.fullmatch(r".*/Makefile: makefile \([01]\.\d{3}\)\n", printed)


def test_this_repository_s_files_as_magika(address: str, magika: Magika) -> None:
    contents = [path.read_bytes() for path in repository_files()]
    assert len(contents) > 50
    assert_equal_to_magika(address, magika, contents)


def test_odd_contents_as_magika(address: str, magika: Magika) -> None:
    assert_equal_to_magika(address, magika, made_contents())


def test_a_wrong_input_is_its_own_error(address: str) -> None:
    with Client(address, "file_type", "identify") as client:
        right, wrong = client.infer([{"content": b"#!/bin/sh\necho hello\n" * 3}, {"contents": b""}])
    assert right["label"] == "shell"
    assert "Cannot find input content in instance input" in wrong["error"]


def test_preparing_again_changes_nothing(tmp_path: pathlib.Path) -> None:
    script = load_script(HERE / "prepare_model.py")
    script.prepare(tmp_path)
    files = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    assert {path.name for path in files} == {"1", "model.onnx", "content_types.json"}
    script.prepare(tmp_path)
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == files
