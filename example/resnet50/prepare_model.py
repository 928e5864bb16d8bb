"""Writes resnet50/1/resnet50.onnx: the ResNet-50 graph that the `onnx` package carries, made to take any batch.

Its weights are constants, not trained ones: it costs what ResNet-50 costs, but what it answers means nothing.
"""

import importlib.util
import os
import pathlib

SERVABLE = pathlib.Path(__file__).resolve().parent / "resnet50"


def resnet50():
    """The model as an onnx.ModelProto: input [batch, 3, 224, 224], output [batch, 1000] of probabilities."""
    if importlib.util.find_spec("onnx") is None:
        raise SystemExit("this example takes its graph from the package onnx: pip install onnx")
    import numpy as np
    import onnx
    from onnx import numpy_helper

    light = pathlib.Path(onnx.__file__).parent / "backend" / "test" / "data" / "light" / "light_resnet50.onnx"
    model = onnx.load(light)
    graph = model.graph

    # The file fixes the batch at 1 in two places: the shapes of input and output, and the target of the last Reshape.
    weights = {tensor.name: tensor for tensor in graph.initializer}
    (reshape,) = (node for node in graph.node if node.op_type == "Reshape" and node.output[0] in graph.node[-2].input)
    target = weights[reshape.input[1]]
    target.CopyFrom(numpy_helper.from_array(np.array([-1, 2048], np.int64), target.name))

    # Old files list each weight as an input too, which keeps the engine from folding them.
    inputs = [info for info in graph.input if info.name not in weights]
    del graph.input[:]
    graph.input.extend(inputs)
    del graph.value_info[:]
    used = {name for node in graph.node for name in node.input}
    unused = [tensor for tensor in graph.initializer if tensor.name not in used]
    for tensor in unused:
        graph.initializer.remove(tensor)
    for info in (*graph.input, *graph.output):
        info.type.tensor_type.shape.dim[0].dim_param = "batch"
    model.ir_version = max(model.ir_version, 4)
    onnx.checker.check_model(model)
    return model


def prepare(servable: pathlib.Path = SERVABLE) -> None:
    """Writes the file if there is none: one that you have put there stays."""
    target = servable / "1" / "resnet50.onnx"
    if target.exists():
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    # Several servers may start at once: the file appears whole or not at all.
    part = target.with_name(f".{target.name}.{os.getpid()}")
    part.write_bytes(resnet50().SerializeToString())
    part.replace(target)


if __name__ == "__main__":
    prepare()
    print(SERVABLE)
