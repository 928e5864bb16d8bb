"""The servable "app2": answers userdefinedprotos.ImageClassificationService, with the help of two others."""

import os

import grpc
import numpy as np
from user_defined_protos_pb2 import ImageClass

from mindserve.errors import CallError
from mindserve.server import register

# One class name a line, in the order of the model's outputs. Without the file a class is called by its number.
labels_file = os.path.join(os.path.dirname(os.path.realpath(__file__)), "labels.txt")
if os.path.exists(labels_file):
    with open(labels_file, encoding="utf-8") as file:
        labels = file.read().splitlines()
else:
    labels = [f"class {number}" for number in range(1000)]

downloader = register.get_servable("image_downloader", method="download")
preprocessor = register.get_servable("data_preprocessor", method="preprocess")
model = register.declare_model(model_file="classifier.onnx", model_format="ONNX")


@register.grpc_method(service="userdefinedprotos.ImageClassificationService", idempotent=True)
async def Predict(image_data, grpc_context):
    """The five likeliest classes of the image at an address, likeliest first."""
    try:
        image = await downloader.call_async(url=image_data.url)
        prepared = await preprocessor.call_async(content=image["content"])
    except CallError as error:
        what = image_data.filename or image_data.url
        grpc_context.abort(grpc.StatusCode.INVALID_ARGUMENT, f"{what} is no image to classify: {error}")
    # The model's batches are shared with other calls: an instance has no batch dimension.
    scores = await model.call_async(prepared["tensor"][0])
    probabilities = np.ravel(scores)
    best = np.argsort(-probabilities, kind="stable")[:5]
    return ImageClass(classes=[labels[index] for index in best], probabilities=probabilities[best])
