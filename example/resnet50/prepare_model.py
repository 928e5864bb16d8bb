"""Writes resnet50/1/resnet50.onnx: the ResNet-50 graph that the `onnx` package carries, made to take any batch.

Its weights are constants, not trained ones: it costs what ResNet-50 costs, but what it answers means nothing.
"""

import pathlib
import sys

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

import light_models  # noqa: E402

SERVABLE = HERE / "resnet50"


def resnet50():
    """The model as an onnx.ModelProto: input [batch, 3, 224, 224], output [batch, 1000] of probabilities."""
    model = light_models.load("resnet50")
    import numpy as np
    from onnx import numpy_helper

    graph = model.graph

    # The file fixes the batch at 1 in two places: the shapes of input and output, and the target of the last Reshape.
    weights = {tensor.name: tensor for tensor in graph.initializer}
    (reshape,) = (node for node in graph.node if node.op_type == "Reshape" and node.output[0] in graph.node[-2].input)
    target = weights[reshape.input[1]]
    target.CopyFrom(numpy_helper.from_array(np.array([-1, 2048], np.int64), target.name))

    light_models.take_any_batch(model)
    return model


def prepare(servable: pathlib.Path = SERVABLE) -> None:
    """Writes the file if there is none: one that you have put there stays."""
    light_models.write_once(servable / "1" / "resnet50.onnx", resnet50)


if __name__ == "__main__":
    prepare()
    print(SERVABLE)
