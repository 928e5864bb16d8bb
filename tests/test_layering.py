"""Who may know whom: reads the includes under csrc/ and the imports in the package (picture: docs/architecture.md)."""

import ast
import functools
import pathlib
import re
import subprocess
import sys
from collections.abc import Iterator

import pytest

ROOT = pathlib.Path(__file__).resolve().parent.parent
CSRC = ROOT / "csrc"
PACKAGE = ROOT / "python" / "mindserve"

# Folder: the folders just below it. What those know it may know too.
CPP_BELOW = {
    "base": set(),
    "tensor": {"base"},
    "wire": {"tensor"},
    "batching": {"tensor"},
    "device": {"tensor"},
    "pipeline": {"batching", "device"},
    "net": {"base"},
    "link": {"net"},
    "gateway": {"wire", "net", "link"},
    "worker": {"pipeline", "wire", "link"},
    "bindings": {"gateway", "worker"},
    # Helpers of tests: only tests include them.
    "testing": {"gateway", "worker"},
    "fuzz": {"gateway", "worker"},
}

# Outside headers that one folder keeps to itself, tests included.
CPP_OUTSIDE = {
    r"sys/epoll\.h": "net",
    r"openssl/.*": "net",
    r"nghttp2/.*": "gateway",
    r"protozero/.*": "wire",
    r"simdjson\.h": "wire",
    r"pybind11/.*": "bindings",
    r"Python\.h": "bindings",
}

CPP_FILES = sorted(path for pattern in ("*.h", "*.cc") for path in CSRC.rglob(pattern))


@functools.cache
def reachable(folder: str) -> frozenset[str]:
    """The folder itself and everything below it."""
    return frozenset({folder}).union(*(reachable(below) for below in CPP_BELOW[folder]))


def includes(path: pathlib.Path) -> Iterator[tuple[int, str, str]]:
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        if found := re.match(r'\s*#\s*include\s*(["<])([^">]+)[">]', line):
            yield number, found[1], found[2]


def is_test(path: pathlib.Path) -> bool:
    return path.parent.name in ("testing", "fuzz") or re.search(r"(^|_)(test|fixture)(_|$)", path.stem) is not None


def test_every_folder_is_named_here() -> None:
    assert {path.name for path in CSRC.iterdir() if path.is_dir()} <= CPP_BELOW.keys()


def test_folders_include_only_what_lies_below() -> None:
    wrong = []
    for path in CPP_FILES:
        folder = path.parent.name
        for number, quote, header in includes(path):
            if quote != '"':
                continue
            where = f"{path.relative_to(ROOT)}:{number}: {header}"
            other = header.partition("/")[0]
            if not (CSRC / header).is_file():
                wrong.append(f"{where} is no file under csrc/; own headers are included by their path from there")
            elif other == "testing" and is_test(path):
                continue
            elif other not in reachable(folder):
                wrong.append(f"{where}: {folder} may only include {', '.join(sorted(reachable(folder)))}")
    assert not wrong, "\n".join(wrong)


def test_outside_libraries_stay_in_their_folder() -> None:
    wrong = []
    for path in CPP_FILES:
        for number, _, header in includes(path):
            for pattern, folder in CPP_OUTSIDE.items():
                if re.fullmatch(pattern, header) and path.parent.name != folder:
                    wrong.append(f"{path.relative_to(ROOT)}:{number}: {header} is only for csrc/{folder}")
            if re.match(r"(gtest|gmock)/", header) and not is_test(path):
                wrong.append(f"{path.relative_to(ROOT)}:{number}: {header} in a file that is no test")
    assert not wrong, "\n".join(wrong)


def test_onnx_runtime_is_known_to_one_file() -> None:
    openers = [
        path.relative_to(CSRC) for path in CPP_FILES if re.search(r"\bdlopen\(", path.read_text(encoding="utf-8"))
    ]
    assert [str(path) for path in openers] == ["device/onnxruntime.cc"]
    users = [path for path in CPP_FILES if any(header == "device/ort_api.h" for _, _, header in includes(path))]
    assert {path.name for path in users} <= {"onnxruntime.cc"}


def test_cmake_links_what_may_be_included() -> None:
    wrong = []
    for path in CSRC.glob("*/CMakeLists.txt"):
        for name, arguments in re.findall(r"mindserve_library\(\s*(\w+)([^)]*)\)", path.read_text(encoding="utf-8")):
            deps = re.search(r"\bDEPS\s+((?:[a-z]+\s*)*)", arguments)
            surplus = set(deps[1].split() if deps else []) - reachable(name)
            if surplus:
                wrong.append(f"{path.relative_to(ROOT)}: {name} links {', '.join(sorted(surplus))}")
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("folder", sorted(CPP_BELOW))
def test_no_circle(folder: str) -> None:
    assert all(folder not in reachable(below) for below in CPP_BELOW[folder])


# -- Python ------------------------------------------------------------------------------------------------------------

# Part of the package (a module or a sub-package directly below mindserve): the parts that it may import.
PYTHON_BELOW: dict[str, set[str]] = {
    "": set(),
    "errors": set(),
    "checks": {"errors"},
    "files": set(),
    "tls": {"checks", "files"},
    "certs": {"checks", "files"},
    "config": {"checks", "tls"},
    "limited_log": set(),
    "logs": {"errors", "limited_log"},
    "native": {"errors"},
    "proto": set(),
    # It calls servables by way of "client", once they do.
    "register": {"config", "client"},
    "traffic": {"checks"},
    "configfile": {"config", "traffic"},
    # Clients, their keys and tokens; the keys file is read as config files are.
    "auth": {"configfile", "native", "logs"},
    "loader": {"register"},
    # It looks at what is declared as a worker does.
    "inspection": {"worker"},
    # Of "proto" the paths alone.
    "control": {"errors", "proto"},
    "admin": {"control"},
    "engines": {"checks"},
    "worker": {"loader", "engines", "control", "native", "logs", "proto"},
    "supervisor": {"config", "control", "native", "logs"},
    # HTTP with JSON: it is given what it needs of the server.
    "rest": {"auth", "config", "traffic", "control", "native", "logs", "proto", ""},
    # It has "register" only to hand it on under the name that servables import.
    "server": {"supervisor", "register", "admin", "proto", "rest", "auth", "traffic"},
    "client": {"config", "proto"},
    "cli": {"server", "client", "configfile", "inspection", "certs", "admin", "auth", ""},
    "main": {"cli"},
}

# What only some parts may import, and the rest of the package must do without.
PYTHON_OUTSIDE = {
    # proto: only for the types of its stubs.
    "grpc": {"client", "proto"},
    "google": {"proto", "client", "worker", "rest"},
    "cryptography": {"tls", "certs"},
    "starlette": {"rest"},
    "uvicorn": {"rest"},
    "uvloop": {"rest"},
    "httptools": {"rest"},
    "typer": {"cli"},
    "yaml": {"configfile", "auth"},
    "jwt": {"auth"},
    "rich": {"cli", "supervisor", "server"},
}

PYTHON_FILES = sorted(path for path in PACKAGE.rglob("*.py*") if path.suffix in (".py", ".pyi"))


def part_of(module: str) -> str:
    """ "mindserve.server.tls" → "server"; the package itself is ""."""
    return module.partition(".")[2].partition(".")[0].strip("_")


def imports(path: pathlib.Path) -> Iterator[tuple[int, str]]:
    """Line and full name of each module that a file imports, wherever in the file."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, name.name) for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path.relative_to(ROOT)}:{node.lineno}: relative import"
            if node.module == "mindserve":
                # A name of the package itself, as __version__, belongs to no part.
                names = (name.name for name in node.names)
                yield from ((node.lineno, "mindserve" if "__" in name else f"mindserve.{name}") for name in names)
            else:
                yield node.lineno, node.module or ""


@functools.cache
def python_reachable(part: str) -> frozenset[str]:
    return frozenset({part}).union(*(python_reachable(below) for below in PYTHON_BELOW[part]))


def test_modules_import_only_what_lies_below() -> None:
    wrong = []
    for path in PYTHON_FILES:
        part = part_of(".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(".__init__"))
        for number, module in imports(path):
            where = f"{path.relative_to(ROOT)}:{number}: {module}"
            top = module.partition(".")[0]
            if top == "mindserve" and part_of(module) not in python_reachable(part):
                wrong.append(f"{where}: {part} may only import {', '.join(sorted(python_reachable(part)))}")
            elif part not in PYTHON_OUTSIDE.get(top, {part}):
                wrong.append(f"{where} is only for {', '.join(sorted(PYTHON_OUTSIDE[top]))}")
    assert not wrong, "\n".join(wrong)


def test_the_client_never_sees_the_native_module() -> None:
    assert "native" not in python_reachable("client")


@pytest.mark.parametrize("module", ["mindserve.server", "mindserve.client", "mindserve.worker", "mindserve.cli"])
def test_what_is_slow_to_import_waits_until_it_is_used(module: str) -> None:
    slow = [
        "cryptography",
        "onnxruntime",
        "rich.progress",
        "google.protobuf",
        "grpc",
        "starlette",
        "uvicorn",
        "mindserve._native",
    ]
    if module == "mindserve.client":
        slow.remove("grpc")
        slow.remove("google.protobuf")
    code = f"import sys, {module}; print(*(name for name in {slow} if name in sys.modules))"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert loaded.split() == []
