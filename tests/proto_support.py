"""Proto files of tests, compiled as their users compile them."""

from __future__ import annotations

import importlib.resources
import pathlib
import subprocess
import sys


def compile_protos(folder: pathlib.Path, **protos: str) -> pathlib.Path:
    """Writes ``<name>.proto`` for each of `protos`, and beside them ``<name>_pb2.py`` and ``<name>_pb2_grpc.py``."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in protos.items():
        (folder / f"{name}.proto").write_text(f'syntax = "proto3";\n{text}', encoding="utf-8")
    subprocess.run(
        [
            *(sys.executable, "-m", "grpc_tools.protoc"),
            f"-I{folder}",
            f"-I{importlib.resources.files('grpc_tools') / '_proto'}",
            f"--python_out={folder}",
            f"--grpc_python_out={folder}",
            *(f"{name}.proto" for name in protos),
        ],
        check=True,
        # A module of the current directory must not be taken for one of protoc's.
        cwd=folder,
    )
    return folder
