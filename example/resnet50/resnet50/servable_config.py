"""The servable "resnet50": JPEG (or PNG, …) bytes in, the likeliest classes out."""

import io
import os

import numpy as np
from PIL import Image

from mindserve.server import register

# One class name a line, in the order of the model's outputs. Without the file a class is called by its number.
labels_file = os.path.join(os.path.dirname(os.path.realpath(__file__)), "labels.txt")
if os.path.exists(labels_file):
    with open(labels_file, encoding="utf-8") as file:
        labels = file.read().splitlines()
else:
    labels = [f"class {number}" for number in range(1000)]

# Of the pictures that ResNet-50 is trained on: mean and deviation of red, green and blue.
mean = np.array([0.485, 0.456, 0.406], np.float32)
deviation = np.array([0.229, 0.224, 0.225], np.float32)

model = register.declare_model(model_file="resnet50.onnx", model_format="ONNX")


def preprocess(image):
    """Decodes, scales the shorter side to 256, cuts the middle 224x224 out, normalises; channels first."""
    with Image.open(io.BytesIO(image)) as picture:
        picture = picture.convert("RGB")
    scale = 256 / min(picture.size)
    picture = picture.resize((max(256, round(picture.width * scale)), max(256, round(picture.height * scale))))
    left, top = (picture.width - 224) // 2, (picture.height - 224) // 2
    pixels = np.asarray(picture.crop((left, top, left + 224, top + 224)), np.float32) / 255
    return np.ascontiguousarray(((pixels - mean) / deviation).transpose(2, 0, 1))


def top1(scores):
    """The likeliest class."""
    return labels[int(scores.argmax())]


def top5(scores):
    """The five likeliest classes, joined by ";", and their probabilities."""
    best = np.argsort(-scores, kind="stable")[:5]
    return ";".join(labels[index] for index in best), scores[best]


@register.register_method(output_names=["label"])
def classify_top1(image):
    """The likeliest class of a picture."""
    tensor = register.add_stage(preprocess, image, outputs_count=1)
    scores = register.add_stage(model, tensor, outputs_count=1)
    label = register.add_stage(top1, scores, outputs_count=1)
    return label


@register.register_method(output_names=["label", "score"])
def classify_top5(image):
    """The five likeliest classes of a picture and their probabilities."""
    tensor = register.add_stage(preprocess, image, outputs_count=1)
    scores = register.add_stage(model, tensor, outputs_count=1)
    label, score = register.add_stage(top5, scores, outputs_count=2)
    return label, score
