"""Stubs of tests/kinds.proto, generated once for each run of the tests, and a way to import them; and of others."""

from __future__ import annotations

import importlib.resources
import pathlib
import sys
from typing import Any

from grpc_tools import protoc

PROTOS = pathlib.Path(__file__).resolve().parent


def generate(directory: pathlib.Path, *protos: pathlib.Path) -> None:
    """Puts the Python modules of these files, by default of kinds.proto, into a directory."""
    for proto in protos or (PROTOS / "kinds.proto",):
        includes = [f"-I{proto.parent}", f"-I{importlib.resources.files('grpc_tools') / '_proto'}"]
        outputs = [f"--python_out={directory}", f"--grpc_python_out={directory}"]
        assert protoc.main(["protoc", *includes, *outputs, proto.name]) == 0


def compile_protos(folder: pathlib.Path, **protos: str) -> pathlib.Path:
    """Writes ``<name>.proto`` for each of `protos`, and its Python modules beside it."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in protos.items():
        (folder / f"{name}.proto").write_text(f'syntax = "proto3";\n{text}', encoding="utf-8")
    generate(folder, *(folder / f"{name}.proto" for name in protos))
    return folder


def load(directory: pathlib.Path) -> tuple[Any, Any]:
    """The modules kinds_pb2 and kinds_pb2_grpc, which are generated into ``directory`` unless they are imported."""
    if "kinds_pb2_grpc" not in sys.modules:
        generate(directory)
        sys.path.insert(0, str(directory))
        try:
            import kinds_pb2_grpc  # noqa: F401
        finally:
            sys.path.remove(str(directory))
    return sys.modules["kinds_pb2"], sys.modules["kinds_pb2_grpc"]
