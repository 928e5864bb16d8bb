"""A tiny model that gives a vector what it has for three classes and one more, by Predict and by the Classifier."""

import four
import numpy as np

from mindserve.server import register

first = register.declare_model(model_file="first.onnx", model_format="ONNX", with_batch_dim=True)


@register.register_method(output_names=["prediction"])
def predict(x):
    """Any number of float32 in, 16 bytes out."""
    return register.add_stage(first, x, outputs_count=1)


register.classifier(classes=["Iris-setosa", "Iris-versicolor", "Iris-virginica", "none"])
# Read natively.
register.data_handler(four.Four)


@register.data_handler(four.Handled)
def from_message(message):
    """In Python."""
    return np.array([message.f1, message.f2, message.f3, message.f4], np.float32)
