"""Make the small ONNX models that tests run.

    python make_models.py DIRECTORY [NAME ...]

Each function below whose name is in MODELS makes one file, DIRECTORY/NAME.onnx; its docstring says what the model does.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, checker, helper, numpy_helper

Dims = Sequence[int | str | None] | None
"""A dimension may be a number, a symbol, or None; no list at all means that even the rank is unknown."""

OPSET = 17
IR_VERSION = 8  # what ONNX Runtime 1.16 and newer read


def tensor(name: str, dims: Dims, element: int = TensorProto.FLOAT) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, element, dims)


def model(
    nodes: Sequence[onnx.NodeProto],
    inputs: Sequence[onnx.ValueInfoProto],
    outputs: Sequence[onnx.ValueInfoProto],
    constants: Sequence[onnx.TensorProto] = (),
) -> onnx.ModelProto:
    graph = helper.make_graph(nodes, "graph", inputs, outputs, constants)
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION)
    return made


def addition(first: Dims) -> onnx.ModelProto:
    node = helper.make_node("Add", ["x1", "x2"], ["y"])
    return model([node], [tensor("x1", first), tensor("x2", first)], [tensor("y", first)])


def add() -> onnx.ModelProto:
    """Give y = x1 + x2, float32 (N, 2, 2)."""
    return addition(["N", 2, 2])


def add_dynamic() -> onnx.ModelProto:
    """Give y = x1 + x2, float32 (N, K) and (N, M): sizes that don't fit fail at the run."""
    node = helper.make_node("Add", ["x1", "x2"], ["y"])
    return model([node], [tensor("x1", ["N", "K"]), tensor("x2", ["N", "M"])], [tensor("y", ["N", "L"])])


def add_batch4() -> onnx.ModelProto:
    """Give y = x1 + x2, float32 (4, 2, 2): a fixed batch size."""
    return addition([4, 2, 2])


def add_no_batch() -> onnx.ModelProto:
    """Give y = x1 + x2, float32 (2, 2): no batch dimension."""
    return addition([2, 2])


def add_weights() -> onnx.ModelProto:
    """Give y = x + w, float32 x (N, 2, 2), w (2, 2): w has no batch dimension."""
    node = helper.make_node("Add", ["x", "w"], ["y"])
    return model([node], [tensor("x", ["N", 2, 2]), tensor("w", [2, 2])], [tensor("y", ["N", 2, 2])])


def dynamic_inner() -> onnx.ModelProto:
    """Give y = -x, float32 (N, L, 2): a dynamic dimension besides the batch's."""
    dims: Dims = ["N", "L", 2]
    return model([helper.make_node("Neg", ["x"], ["y"])], [tensor("x", dims)], [tensor("y", dims)])


def scalar() -> onnx.ModelProto:
    """Give y = -x, float32 (): no dimension at all."""
    return model([helper.make_node("Neg", ["x"], ["y"])], [tensor("x", [])], [tensor("y", [])])


def unranked() -> onnx.ModelProto:
    """Give y = -x, float32, of whatever shape."""
    return model([helper.make_node("Neg", ["x"], ["y"])], [tensor("x", None)], [tensor("y", None)])


def deep() -> onnx.ModelProto:
    """Give y = -x, float32 (N, 1, 1, 1, 1, 1, 1, 1, 1, 3): more dimensions than most."""
    dims: Dims = ["N", 1, 1, 1, 1, 1, 1, 1, 1, 3]
    return model([helper.make_node("Neg", ["x"], ["y"])], [tensor("x", dims)], [tensor("y", dims)])


def two_outputs() -> onnx.ModelProto:
    """Give total = a + b (float32), larger = a > b (bool), both (N, 2)."""
    nodes = [helper.make_node("Add", ["a", "b"], ["total"]), helper.make_node("Greater", ["a", "b"], ["larger"])]
    dims: Dims = ["N", 2]
    outputs = [tensor("total", dims), tensor("larger", dims, TensorProto.BOOL)]
    return model(nodes, [tensor("a", dims), tensor("b", dims)], outputs)


def no_inputs() -> onnx.ModelProto:
    """Give y = [1, 2, 3], float32 (3,): nothing goes in."""
    value = numpy_helper.from_array(np.array([1, 2, 3], np.float32), "value")
    return model([helper.make_node("Constant", [], ["y"], value=value)], [], [tensor("y", [3])])


def pass_through() -> onnx.ModelProto:
    """Give x itself and y = -x, float32 (N, 2): an output that is an input."""
    dims: Dims = ["N", 2]
    return model([helper.make_node("Neg", ["x"], ["y"])], [tensor("x", dims)], [tensor("x", dims), tensor("y", dims)])


def reshape() -> onnx.ModelProto:
    """Give y = x as (N, 4), float32 x (N, 2, 2): the same bytes under another shape."""
    shape = numpy_helper.from_array(np.array([-1, 4], np.int64), "shape")
    node = helper.make_node("Reshape", ["x", "shape"], ["y"])
    return model([node], [tensor("x", ["N", 2, 2])], [tensor("y", ["N", 4])], [shape])


def strings() -> onnx.ModelProto:
    """Give y = x, strings (N, 2)."""
    dims: Dims = ["N", 2]
    node = helper.make_node("Identity", ["x"], ["y"])
    return model([node], [tensor("x", dims, TensorProto.STRING)], [tensor("y", dims, TensorProto.STRING)])


def repeat_strings() -> onnx.ModelProto:
    """Give y = x repeated: strings (N, 1) to (N, 3)."""
    shape = numpy_helper.from_array(np.array([1, 3], np.int64), "shape")
    node = helper.make_node("Tile", ["x", "shape"], ["y"])
    inputs = [tensor("x", ["N", 1], TensorProto.STRING)]
    return model([node], inputs, [tensor("y", ["N", 3], TensorProto.STRING)], [shape])


NUMERIC = {
    "bool": TensorProto.BOOL,
    "int8": TensorProto.INT8,
    "uint8": TensorProto.UINT8,
    "int16": TensorProto.INT16,
    "uint16": TensorProto.UINT16,
    "int32": TensorProto.INT32,
    "uint32": TensorProto.UINT32,
    "int64": TensorProto.INT64,
    "uint64": TensorProto.UINT64,
    "float16": TensorProto.FLOAT16,
    "float32": TensorProto.FLOAT,
    "float64": TensorProto.DOUBLE,
}


def types() -> onnx.ModelProto:
    """For each type T of NUMERIC: y_T = x_T, (N, 3)."""
    dims: Dims = ["N", 3]
    nodes = [helper.make_node("Identity", [f"x_{name}"], [f"y_{name}"]) for name in NUMERIC]
    inputs = [tensor(f"x_{name}", dims, element) for name, element in NUMERIC.items()]
    return model(nodes, inputs, [tensor(f"y_{name}", dims, element) for name, element in NUMERIC.items()])


def casts() -> onnx.ModelProto:
    """For each type T of NUMERIC: y_T = x as T, from float32 x (N,)."""
    nodes = [helper.make_node("Cast", ["x"], [f"y_{name}"], to=element) for name, element in NUMERIC.items()]
    outputs = [tensor(f"y_{name}", ["N"], element) for name, element in NUMERIC.items()]
    return model(nodes, [tensor("x", ["N"])], outputs)


def failing() -> onnx.ModelProto:
    """Give y = table[i], int64 i (N,), table of 3: an index out of range fails at the run."""
    table = numpy_helper.from_array(np.array([10, 20, 30], np.float32), "table")
    node = helper.make_node("Gather", ["table", "i"], ["y"])
    return model([node], [tensor("i", ["N"], TensorProto.INT64)], [tensor("y", ["N"])], [table])


def expand() -> onnx.ModelProto:
    """Give y = as many ones as n says, int64 n (1,): no machine has the memory for any number."""
    one = numpy_helper.from_array(np.array([1], np.float32), "one")
    node = helper.make_node("Expand", ["one", "n"], ["y"])
    return model([node], [tensor("n", [1], TensorProto.INT64)], [tensor("y", ["N"])], [one])


def matmul() -> onnx.ModelProto:
    """Give y = x @ w, float32 x (N, 256), w a constant (256, 256): work enough for several threads."""
    w = numpy_helper.from_array(np.eye(256, dtype=np.float32), "w")
    node = helper.make_node("MatMul", ["x", "w"], ["y"])
    return model([node], [tensor("x", ["N", 256])], [tensor("y", ["N", 256])], [w])


def bfloat16_input() -> onnx.ModelProto:
    """Give y = x as float32, bfloat16 x: a type that MindServe does not carry."""
    node = helper.make_node("Cast", ["x"], ["y"], to=TensorProto.FLOAT)
    return model([node], [tensor("x", ["N"], TensorProto.BFLOAT16)], [tensor("y", ["N"])])


def bfloat16_output() -> onnx.ModelProto:
    """Give y = x as bfloat16, float32 x."""
    node = helper.make_node("Cast", ["x"], ["y"], to=TensorProto.BFLOAT16)
    return model([node], [tensor("x", ["N"])], [tensor("y", ["N"], TensorProto.BFLOAT16)])


def sequence_output() -> onnx.ModelProto:
    """Give y = x split into a sequence of tensors."""
    node = helper.make_node("SplitToSequence", ["x"], ["y"])
    return model(
        [node], [tensor("x", ["N", 2])], [helper.make_tensor_sequence_value_info("y", TensorProto.FLOAT, None)]
    )


def later_opset() -> onnx.ModelProto:
    """The add model in an opset that nobody has written yet."""
    made = add()
    made.opset_import[0].version = 4000
    return made


MODELS: tuple[Callable[[], onnx.ModelProto], ...] = (
    add,
    add_dynamic,
    add_batch4,
    add_no_batch,
    add_weights,
    dynamic_inner,
    scalar,
    unranked,
    deep,
    two_outputs,
    no_inputs,
    pass_through,
    reshape,
    strings,
    repeat_strings,
    types,
    casts,
    failing,
    expand,
    matmul,
    bfloat16_input,
    bfloat16_output,
    sequence_output,
    later_opset,
)


def main() -> None:
    directory = Path(sys.argv[1])
    wanted = sys.argv[2:]
    directory.mkdir(parents=True, exist_ok=True)
    for make in MODELS:
        if wanted and make.__name__ not in wanted:
            continue
        made = make()
        if make not in (unranked, later_opset):
            checker.check_model(made)
        onnx.save(made, directory / f"{make.__name__}.onnx")


if __name__ == "__main__":
    main()
