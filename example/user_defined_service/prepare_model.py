"""Writes app2/1/classifier.onnx: the SqueezeNet graph that the `onnx` package carries, with weights drawn by lot.

It costs what SqueezeNet costs, and its answers depend on the image, always in the same way; but as nobody has trained
it, they mean nothing.
"""

import pathlib
import sys

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

import light_models  # noqa: E402

SERVABLE = HERE / "app2"


def squeezenet():
    """The model as an onnx.ModelProto: input [batch, 3, 224, 224], output [batch, 1000, 1, 1] of probabilities."""
    model = light_models.load("squeezenet")
    import numpy as np
    from onnx import numpy_helper

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

    light_models.take_any_batch(model)
    return model


def prepare(servable: pathlib.Path = SERVABLE) -> None:
    """Writes the file if there is none: one that you have put there stays."""
    light_models.write_once(servable / "1" / "classifier.onnx", squeezenet)


if __name__ == "__main__":
    prepare()
    print(SERVABLE)
