"""Writes app2/1/classifier.onnx: the SqueezeNet graph that the `onnx` package carries, with weights drawn by lot.

It costs what SqueezeNet costs, and its answers depend on the image, always in the same way; but as nobody has trained
it, they mean nothing.
"""

import importlib.util
import os
import pathlib

SERVABLE = pathlib.Path(__file__).resolve().parent / "app2"


def squeezenet():
    """The model as an onnx.ModelProto: input [batch, 3, 224, 224], output [batch, 1000, 1, 1] of probabilities."""
    if importlib.util.find_spec("onnx") is None:
        raise SystemExit("this example takes its graph from the package onnx: pip install onnx")
    import numpy as np
    import onnx
    from onnx import numpy_helper

    light = pathlib.Path(onnx.__file__).parent / "backend" / "test" / "data" / "light" / "light_squeezenet.onnx"
    model = onnx.load(light)
    graph = model.graph
    tensors = {tensor.name: tensor for tensor in graph.initializer}

    # The file keeps only the shapes of its weights, and fills them with a constant.
    lot = np.random.default_rng(224)
    for node in [node for node in graph.node if node.op_type == "ConstantOfShape"]:
        shape = numpy_helper.to_array(tensors[node.input[0]])
        # With this deviation, He's, what a layer gives is as large as what it takes.
        deviation = (2 / np.prod(shape[1:])) ** 0.5 if len(shape) > 1 else 0.1
        weights = lot.normal(0, deviation, shape).astype(np.float32)
        graph.initializer.append(numpy_helper.from_array(weights, node.output[0]))
        graph.initializer.remove(tensors[node.input[0]])
        graph.node.remove(node)

    # Old files list each weight as an input too, which keeps the engine from folding them.
    weights = {tensor.name for tensor in graph.initializer}
    inputs = [info for info in graph.input if info.name not in weights and not info.name.endswith("__SHAPE")]
    del graph.input[:]
    graph.input.extend(inputs)
    del graph.value_info[:]
    for info in (*graph.input, *graph.output):
        info.type.tensor_type.shape.dim[0].dim_param = "batch"
    model.ir_version = max(model.ir_version, 4)
    onnx.checker.check_model(model)
    return model


def prepare(servable: pathlib.Path = SERVABLE) -> None:
    """Writes the file if there is none: one that you have put there stays."""
    target = servable / "1" / "classifier.onnx"
    if target.exists():
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    # Several servers may start at once: the file appears whole or not at all.
    part = target.with_name(f".{target.name}.{os.getpid()}")
    part.write_bytes(squeezenet().SerializeToString())
    part.replace(target)


if __name__ == "__main__":
    prepare()
    print(SERVABLE)
