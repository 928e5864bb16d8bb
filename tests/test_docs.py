"""What the documentation says about files, limits and packages is so."""

import ast
import dataclasses
import pathlib
import re
import sys

import pytest

from mindserve.config import Limits, ServableStartConfig

ROOT = pathlib.Path(__file__).resolve().parent.parent
PAGES = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").glob("*.md")), *ROOT.glob("example/*/*.md")]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: pathlib.Path) -> None:
    text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if not re.match(r"[a-z]+:", target):
            assert (page.parent / target.partition("#")[0]).exists(), f"{page.relative_to(ROOT)} links to {target}"


def test_every_page_can_be_found() -> None:
    pages = {page.name for page in (ROOT / "docs").glob("*.md")}
    nav = re.findall(r"^  - (\S+)$", (ROOT / "scripts" / "mkdocs.yml").read_text(encoding="utf-8"), re.MULTILINE)
    assert sorted(nav) == sorted(pages)
    index = (ROOT / "docs" / "index.md").read_text(encoding="utf-8")
    assert set(re.findall(r"^- \[[^]]*\]\((\S+)\)", index, re.MULTILINE)) == pages - {"index.md"}


def table(page: str, heading: str) -> dict[str, str]:
    """The first two columns of the table under a heading."""
    text = (ROOT / "docs" / page).read_text(encoding="utf-8").partition(f"## {heading}\n")[2].partition("\n## ")[0]
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines() if line.startswith("| `")]
    return {row[0].strip("`"): row[1] for row in rows}


def number(cell: str) -> float:
    return float(cell.partition(":")[0])


def test_limits_of_a_server() -> None:
    assert {name: number(cell) for name, cell in table("limits.md", "Of a gRPC server").items()} == {
        field.name: field.default for field in dataclasses.fields(Limits)
    }


def test_limits_of_a_servable() -> None:
    defaults = {field.name: field.default for field in dataclasses.fields(ServableStartConfig)}
    documented = table("limits.md", "Of a servable")
    assert documented
    assert {name: number(cell) for name, cell in documented.items()} == {name: defaults[name] for name in documented}


def test_limits_have_the_same_names_and_defaults_in_the_core() -> None:
    text = (ROOT / "csrc" / "gateway" / "limits.h").read_text(encoding="utf-8")
    native = {}
    for milliseconds, name, value in re.findall(r"(milliseconds)?\s+(\w+)(?: = |\{)([\d'* ]+)\}?;", text):
        product = 1.0
        for factor in value.replace("'", "").split("*"):
            product *= float(factor)
        native[name] = product / 1000 if milliseconds else product
    assert native == {field.name: field.default for field in dataclasses.fields(Limits)}


@pytest.mark.parametrize(
    ("page", "heading", "rows"),
    [
        ("classifier.md", "What Seldon's document says", 15),
        ("ray_serve.md", "Set up a gRPC service", 40),
        ("security.md", "What shows it", 45),
        ("tokens.md", "What shows it", 10),
        ("traffic.md", "What shows it", 10),
    ],
)
def test_each_row_names_tests_that_are_there(page: str, heading: str, rows: int) -> None:
    """In the last column of the tables behind that heading, of which there are so many rows at least."""
    text = (ROOT / "docs" / page).read_text(encoding="utf-8").partition(f"\n## {heading}\n")[2]
    cells = [line.split("|")[-2].strip() for line in text.splitlines() if line.startswith("|")]
    # Not those under which each table's columns are named.
    named = [cell for cell in cells if cell not in ("test", "tests") and not set(cell) <= set("- ")]
    assert len(named) >= rows
    assert [cell for cell in named if not re.fullmatch(r"(`\w+\.(py|cc)::\w+`(, |$))+", cell)] == []
    for file, test in re.findall(r"`(\w+\.\w+)::(\w+)`", text):
        assert test in names_of_tests(file), f"docs/{page} names {file}::{test}"


def test_each_promise_of_http_names_tests_that_are_there() -> None:
    text = (ROOT / "docs" / "rest.md").read_text(encoding="utf-8").partition("\n## What it promises")[2]
    named = re.findall(r"`(\w+\.\w+)::(\w+)`", text)
    assert len(named) > 15
    for file, test in named:
        assert test in names_of_tests(file), f"docs/rest.md names {file}::{test}"


def names_of_tests(file: str) -> list[str]:
    """The names of the tests in a file of tests/ or csrc/; none if it isn't there."""
    found: list[str] = []
    if file.endswith(".py") and (path := ROOT / "tests" / file).exists():
        tree = ast.parse(path.read_text(encoding="utf-8"))
        found += [node.name for node in tree.body if isinstance(node, ast.FunctionDef)]
    for path in (ROOT / "csrc").glob(f"*/{file}"):
        found += re.findall(r"^TEST(?:_F|_P)?\(\w+, (\w+)\)", path.read_text(encoding="utf-8"), re.MULTILINE)
    return found


def test_extras_of_the_readme_and_install_page() -> None:
    sys.path.insert(0, str(ROOT / "scripts"))
    try:
        from requirements import requirements
    finally:
        sys.path.pop(0)
    packages = {
        "cpu": "onnxruntime>",
        "gpu": "onnxruntime-gpu[cuda,cudnn]>",
        "ascend": "onnxruntime-cann>",
    }
    plain = requirements(ROOT / "pyproject.toml", [])
    assert not any("onnx" in requirement for requirement in plain)
    for extra, package in packages.items():
        (found,) = set(requirements(ROOT / "pyproject.toml", [extra])) - set(plain)
        assert found.startswith(package)
        assert f"'.[{extra}]'" in (ROOT / "docs" / "install.md").read_text(encoding="utf-8")


def test_setup_installs_what_the_install_page_names() -> None:
    script = (ROOT / "scripts" / "setup.sh").read_text(encoding="utf-8")
    packages = set(re.search(r"^PACKAGES=\((.*)\)$", script, re.MULTILINE)[1].split()) | {"g++"}
    row = re.search(r"apt-get install ([^`]*)`", (ROOT / "docs" / "install.md").read_text(encoding="utf-8"))[1]
    assert packages | {"python3-dev", "python3-venv"} == set(row.split())
