"""The servable "digits": which digit a small picture shows. Its versions are different models with the same inputs."""

from mindserve.server import register

model = register.declare_model(model_file="digits.onnx", model_format="ONNX")


@register.register_method(output_names=["digit", "probabilities"])
def predict(picture):
    """64 points from 0 to 16, row by row, as float32; the digit, and how probable each of the ten is."""
    digit, probabilities = register.add_stage(model, picture, outputs_count=2)
    return digit, probabilities
