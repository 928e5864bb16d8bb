"""The servables of the load, laid out with their models and generated modules."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from grpc_tools import protoc  # type: ignore[import-untyped]
from onnx import TensorProto, helper, numpy_helper

from chaos.calls import TABLE_ROWS

SERVABLES = ("add", "half", "once", "sleepy", "risky", "work", "front")
PROTO = Path(__file__).resolve().parent / "work.proto"
_TEMPLATES = Path(__file__).resolve().parent / "servables"


def make_servables(directory: Path) -> None:
    """Lays `SERVABLES` out under ``directory``, each with version 1."""
    for name in SERVABLES:
        version = directory / name / "1"
        version.mkdir(parents=True)
        shutil.copy(config_template(name), version.parent)
        # A version directory without a file counts as not there.
        (version / "version.txt").write_text("Here would be what the functions need.\n", encoding="utf-8")
        if name in ("work", "front"):
            _generate(version.parent)
        if name in ("add", "half"):
            values = [
                helper.make_tensor_value_info(value, TensorProto.INT64, ["N", "L"]) for value in ("x1", "x2", "y")
            ]
            _save(version / "add.onnx", helper.make_node("Add", ["x1", "x2"], ["y"]), values[:2], values[2:], [])
        if name == "half":
            row, y = (helper.make_tensor_value_info(value, TensorProto.INT64, ["N", 1]) for value in ("row", "y"))
            table = numpy_helper.from_array(np.arange(TABLE_ROWS, dtype=np.int64) ** 2, "table")
            _save(version / "table.onnx", helper.make_node("Gather", ["table", "row"], ["y"]), [row], [y], [table])


def config_template(name: str) -> Path:
    """The ``servable_config.py`` as it lies in the tree."""
    return _TEMPLATES / name / "servable_config.py"


def _generate(directory: Path) -> None:
    outputs = [f"--python_out={directory}", f"--grpc_python_out={directory}"]
    if protoc.main(["protoc", f"-I{PROTO.parent}", *outputs, PROTO.name]) != 0:
        raise RuntimeError(f"protoc has failed over {PROTO}")


def _save(path: Path, node: Any, inputs: list[Any], outputs: list[Any], constants: list[Any]) -> None:
    graph = helper.make_graph([node], path.stem, inputs, outputs, constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    onnx.checker.check_model(model)
    onnx.save(model, str(path))
