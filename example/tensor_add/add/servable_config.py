"""The servable "add": the sum of two 2x2 tensors."""

import numpy as np

from mindserve.server import register

model = register.declare_model(model_file="tensor_add.onnx", model_format="ONNX")


def to_float32(x1, x2):
    """A stage in Python: whatever number type the client has, the model takes float32."""
    return x1.astype(np.float32), x2.astype(np.float32)


@register.register_method(output_names=["y"])
def add_common(x1, x2):
    """float32 in, float32 out: the model alone, no Python on the way."""
    y = register.add_stage(model, x1, x2, outputs_count=1)
    return y


@register.register_method(output_names=["y"])
def add_cast(x1, x2):
    """Any number type in, float32 out."""
    x1, x2 = register.add_stage(to_float32, x1, x2, outputs_count=2)
    y = register.add_stage(model, x1, x2, outputs_count=1)
    return y
