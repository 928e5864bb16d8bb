"""ResNet-50, tensor in and scores out."""

from mindserve.server import register

model = register.declare_model(model_file="resnet50.onnx", model_format="ONNX", with_batch_dim=True)


@register.register_method(output_names=["scores"])
def classify(image):
    """``image``: float32 (3, 224, 224)."""
    return register.add_stage(model, image, outputs_count=1)
