"""A Python function for a batch, then a model; and a model that some inputs make fail."""

from mindserve.server import register

model = register.declare_model(model_file="add.onnx", model_format="ONNX", with_batch_dim=True)
table = register.declare_model(model_file="table.onnx", model_format="ONNX", with_batch_dim=True)


def halve(instances):
    """As many instances as the server likes."""
    for x1, x2 in instances:
        yield x1 // 2, x2


@register.register_method(output_names=["y"])
def half(x1, x2):
    """Half of the first, and the second."""
    x1, x2 = register.add_stage(halve, x1, x2, outputs_count=2, batch_size=0)
    return register.add_stage(model, x1, x2, outputs_count=1)


@register.register_method(output_names=["y"])
def inner_half(x1, x2):
    """The same, for another servable."""
    x1, x2 = register.add_stage(halve, x1, x2, outputs_count=2, batch_size=0)
    return register.add_stage(model, x1, x2, outputs_count=1)


@register.register_method(output_names=["y"])
def look_up(row):
    """A row that the table doesn't have fails the whole batch in the engine."""
    return register.add_stage(table, row, outputs_count=1)
