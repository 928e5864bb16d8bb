"""The models and the requests of the benchmarks."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper

from mindserve.client.encoding import encode_request, encode_spec

HERE = Path(__file__).resolve().parent
LARGE = 3 * 224 * 224  # float32s: 602 KB
SMALL = 1000  # float32s: 4 KB


def _save(path: Path, nodes: list[Any], inputs: list[Any], outputs: list[Any], constants: list[Any]) -> None:
    graph = helper.make_graph(nodes, path.stem, inputs, outputs, constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    onnx.checker.check_model(model)
    onnx.save(model, str(path))


def make_bench_models(directory: Path) -> None:
    """``add.onnx``: two N×2×2; ``head.onnx``: the first 1000 of N×150528."""
    pair = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", 2, 2]) for name in ("x1", "x2", "y")]
    _save(directory / "add.onnx", [helper.make_node("Add", ["x1", "x2"], ["y"])], pair[:2], pair[2:], [])
    ends = {"starts": [0], "ends": [SMALL], "axes": [1]}
    _save(
        directory / "head.onnx",
        [helper.make_node("Slice", ["x", *ends], ["y"])],
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", LARGE])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", SMALL])],
        [helper.make_tensor(name, TensorProto.INT64, [1], values) for name, values in ends.items()],
    )


def make_servables(directory: Path, resnet50: Path) -> None:
    """Lay the servables ``bench`` and ``resnet50`` out under ``directory``."""
    for name in ("bench", "resnet50"):
        version = directory / name / "1"
        version.mkdir(parents=True)
        shutil.copy(HERE / "servables" / name / "servable_config.py", version.parent)
    make_bench_models(directory / "bench" / "1")
    shutil.copy(resnet50, directory / "resnet50" / "1" / "resnet50.onnx")


def write_body(path: Path, servable: str, method: str, instance: dict[str, Any]) -> Path:
    """A file with one gRPC message: a PredictRequest of one instance, behind its prefix."""
    body = encode_request(encode_spec(servable, method, 0), [instance])
    path.write_bytes(b"\0" + len(body).to_bytes(4, "big") + body)
    return path


def add_instance() -> dict[str, Any]:
    """One instance of two 2×2 float32."""
    ones = np.ones((2, 2), np.float32)
    return {"x1": ones, "x2": ones}
