"""Trains two classifiers of scikit-learn's pictures of digits and writes them as ONNX: digits/1 and digits/2.

Version 1 is linear, version 2 is a small neural network. Both learn from three pictures in four; the fourth is what the
test is about, see `held_out`.
"""

import os
import pathlib

import numpy as np
import onnx
from onnx import TensorProto, checker, helper, numpy_helper
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.neural_network import MLPClassifier

HERE = pathlib.Path(__file__).resolve().parent
MODEL_FILE = "digits.onnx"
# A picture has 8 x 8 points from 0 to 16.
POINTS = 64
WHITE = 16


def learned():
    """Three pictures in four, and the digits they show."""
    pictures, digits = load_digits(return_X_y=True)
    kept = np.arange(len(digits)) % 4 != 0
    return pictures[kept], digits[kept]


def held_out():
    """The others, which neither version has seen."""
    pictures, digits = load_digits(return_X_y=True)
    return pictures[::4], digits[::4]


def train_linear(pictures, digits):
    """Strongly regularised, and so not as good as it could be."""
    return LogisticRegression(C=0.005, max_iter=1000).fit(pictures / WHITE, digits)


def train_network(pictures, digits):
    return MLPClassifier((64,), max_iter=1000, random_state=0).fit(pictures / WHITE, digits)


def layers(classifier):
    """Of either kind: the weights and the biases of its layers."""
    if isinstance(classifier, MLPClassifier):
        return list(zip(classifier.coefs_, classifier.intercepts_, strict=True))
    return [(classifier.coef_.T, classifier.intercept_)]


def to_onnx(classifier):
    """A model of any number of pictures: of each the digit, and how probable each of the ten is."""
    weights = {"white": np.array(WHITE)}
    nodes = [helper.make_node("Div", ["picture", "white"], ["layer0"])]
    for number, (weight, bias) in enumerate(layers(classifier)):
        if number > 0:
            nodes.append(helper.make_node("Relu", [f"layer{number}"], [f"active{number}"]))
        weights |= {f"weight{number}": weight, f"bias{number}": bias}
        source = f"active{number}" if number > 0 else "layer0"
        nodes.append(helper.make_node("Gemm", [source, f"weight{number}", f"bias{number}"], [f"layer{number + 1}"]))
    last = nodes[-1].output[0]
    nodes.append(helper.make_node("ArgMax", [last], ["digit"], axis=1, keepdims=0))
    nodes.append(helper.make_node("Softmax", [last], ["probabilities"], axis=1))
    graph = helper.make_graph(
        nodes,
        "digits",
        [helper.make_tensor_value_info("picture", TensorProto.FLOAT, ["batch", POINTS])],
        [
            helper.make_tensor_value_info("digit", TensorProto.INT64, ["batch"]),
            helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["batch", 10]),
        ],
        [numpy_helper.from_array(value.astype(np.float32), name) for name, value in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8, producer_name="")
    checker.check_model(model)
    return model


def prepare():
    """Writes the models that aren't there yet. Several servers may start at once: each file appears whole."""
    for version, train in ((1, train_linear), (2, train_network)):
        target = HERE / "digits" / str(version) / MODEL_FILE
        if target.exists():
            continue
        target.parent.mkdir(parents=True, exist_ok=True)
        part = target.with_name(f".{target.name}.{os.getpid()}")
        onnx.save(to_onnx(train(*learned())), part)
        part.replace(target)


if __name__ == "__main__":
    prepare()
