"""The servable "data_preprocessor": an image's bytes to the 1×3×224×224 numbers that a classifier looks at."""

import io

import numpy as np
from PIL import Image

from mindserve.server import register

# Of the pictures that such classifiers are trained on: mean and deviation of red, green and blue.
mean = np.array([0.485, 0.456, 0.406], np.float32)
deviation = np.array([0.229, 0.224, 0.225], np.float32)


def to_tensor(content):
    """Scales the shorter side to 256, cuts the middle 224×224 out, normalises; channels first."""
    with Image.open(io.BytesIO(content)) as picture:
        picture = picture.convert("RGB")
    scale = 256 / min(picture.size)
    picture = picture.resize((max(256, round(picture.width * scale)), max(256, round(picture.height * scale))))
    left, top = (picture.width - 224) // 2, (picture.height - 224) // 2
    pixels = np.asarray(picture.crop((left, top, left + 224, top + 224)), np.float32) / 255
    return np.ascontiguousarray(((pixels - mean) / deviation).transpose(2, 0, 1)[np.newaxis])


@register.register_method(output_names=["tensor"])
def preprocess(content):
    tensor = register.add_stage(to_tensor, content, outputs_count=1)
    return tensor
