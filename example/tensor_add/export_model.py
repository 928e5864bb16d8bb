"""Writes add/1/tensor_add.onnx: y = x1 + x2 for 2x2 float32 matrices, any number of them in a batch."""

import pathlib

import onnx
from onnx import TensorProto, checker, helper

MODEL_FILE = pathlib.Path(__file__).resolve().parent / "add" / "1" / "tensor_add.onnx"


def tensor_add() -> onnx.ModelProto:
    def matrix(name: str) -> onnx.ValueInfoProto:
        return helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", 2, 2])

    graph = helper.make_graph(
        [helper.make_node("Add", ["x1", "x2"], ["y"])], "tensor_add", [matrix("x1"), matrix("x2")], [matrix("y")]
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8, producer_name="")
    checker.check_model(model)
    return model


if __name__ == "__main__":
    MODEL_FILE.parent.mkdir(parents=True, exist_ok=True)
    MODEL_FILE.write_bytes(tensor_add().SerializeToString(deterministic=True))
    print(MODEL_FILE)
