"""A model alone."""

from mindserve.server import register

model = register.declare_model(model_file="add.onnx", model_format="ONNX", with_batch_dim=True)


@register.register_method(output_names=["y"])
def add(x1, x2):
    """The sum."""
    return register.add_stage(model, x1, x2, outputs_count=1)
