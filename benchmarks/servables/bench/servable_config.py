"""What the benchmarks call: a tiny model alone, behind Python stages, and models with large inputs."""

import numpy as np

from mindserve.server import register

add = register.declare_model(model_file="add.onnx", model_format="ONNX", with_batch_dim=True)
head = register.declare_model(model_file="head.onnx", model_format="ONNX", with_batch_dim=True)
first = register.declare_model(model_file="first.onnx", model_format="ONNX", with_batch_dim=True)


def cast(x1, x2):
    """One instance."""
    return x1.astype(np.float32), x2.astype(np.float32)


def cast_batch(instances):
    """As many instances as the server likes."""
    for x1, x2 in instances:
        yield x1.astype(np.float32), x2.astype(np.float32)


@register.register_method(output_names=["y"])
def add_common(x1, x2):
    """The model alone."""
    return register.add_stage(add, x1, x2, outputs_count=1)


@register.register_method(output_names=["y"])
def add_cast(x1, x2):
    """A Python stage called for each instance, then the model."""
    x1, x2 = register.add_stage(cast, x1, x2, outputs_count=2)
    return register.add_stage(add, x1, x2, outputs_count=1)


@register.register_method(output_names=["y"])
def add_cast_batch(x1, x2):
    """A Python stage called once for a batch, then the model."""
    x1, x2 = register.add_stage(cast_batch, x1, x2, outputs_count=2, batch_size=0)
    return register.add_stage(add, x1, x2, outputs_count=1)


@register.register_method(output_names=["y"])
def take_head(x):
    """602 KB in, 4 KB out."""
    return register.add_stage(head, x, outputs_count=1)


@register.register_method(output_names=["y"])
def take_first(x):
    """Any number of float32 in, 16 bytes out."""
    return register.add_stage(first, x, outputs_count=1)
