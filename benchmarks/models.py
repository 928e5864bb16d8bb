"""The servables of the benchmarks, laid out with their models."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import onnx
from onnx import TensorProto, helper

HERE = Path(__file__).resolve().parent
LARGE = 3 * 224 * 224  # float32s: 602 KB
SMALL = 1000  # float32s: 4 KB
FIRST = 4  # float32s: 16 bytes


def _save(path: Path, nodes: list[Any], inputs: list[Any], outputs: list[Any], constants: list[Any]) -> None:
    graph = helper.make_graph(nodes, path.stem, inputs, outputs, constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    onnx.checker.check_model(model)
    onnx.save(model, str(path))


def _save_slice(path: Path, size: int | str, end: int) -> None:
    """The first ``end`` of N×``size``."""
    bounds = {"starts": [0], "ends": [end], "axes": [1]}
    _save(
        path,
        [helper.make_node("Slice", ["x", *bounds], ["y"])],
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", size])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", end])],
        [helper.make_tensor(name, TensorProto.INT64, [1], values) for name, values in bounds.items()],
    )


def make_bench_models(directory: Path) -> None:
    """``add.onnx``: two N×2×2; ``head.onnx``: the first 1000 of N×150528; ``first.onnx``: the first 4 of N×any."""
    pair = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", 2, 2]) for name in ("x1", "x2", "y")]
    _save(directory / "add.onnx", [helper.make_node("Add", ["x1", "x2"], ["y"])], pair[:2], pair[2:], [])
    _save_slice(directory / "head.onnx", LARGE, SMALL)
    _save_slice(directory / "first.onnx", "L", FIRST)


def make_servables(directory: Path, resnet50: Path | None) -> None:
    """Lay ``bench``, ``classifier`` and, if its model is given, ``resnet50`` out under ``directory``."""
    made = _make_version(directory, "bench", "bench")
    make_bench_models(made)
    shutil.copy(made / "first.onnx", _make_version(directory, "classifier", "classifier"))
    if resnet50 is not None:
        shutil.copy(resnet50, _make_version(directory, "resnet50", "resnet50") / "resnet50.onnx")


def make_copies(directory: Path, count: int) -> list[str]:
    """Lay ``count`` servables out that have the tiny model alone. Returns their names."""
    names = [f"add{number:03}" for number in range(count)]
    made = directory / "bench" / "1" / "add.onnx"
    for name in names:
        shutil.copy(made, _make_version(directory, "add", name) / "add.onnx")
    return names


def make_services(directory: Path) -> Path:
    """Lay the servable ``services`` out under ``directory``, with its generated modules. Returns its directory."""
    made = directory / "services"
    shutil.copytree(HERE / "servables" / "services", made)
    arguments = ["-I.", "--python_out=.", "--grpc_python_out=.", "bench.proto"]
    subprocess.run([sys.executable, "-m", "grpc_tools.protoc", *arguments], cwd=made, check=True)
    return made


def _make_version(directory: Path, template: str, name: str) -> Path:
    version = directory / name / "1"
    version.mkdir(parents=True)
    for file in (HERE / "servables" / template).glob("*.py"):
        shutil.copy(file, version.parent)
    return version
