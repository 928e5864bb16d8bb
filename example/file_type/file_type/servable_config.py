"""The servable "file_type": what kind of content some bytes are, by a trained model of their beginning and end."""

import json
import os

import numpy as np

from mindserve.server import register

with open(os.path.join(os.path.dirname(os.path.realpath(__file__)), "content_types.json"), encoding="utf-8") as file:
    known = json.load(file)
labels = known["labels"]
text_labels = set(known["text"])

model = register.declare_model(model_file="model.onnx", model_format="ONNX")


def preprocess(content):
    """Makes what the model looks at: the first and the last bytes as numbers, without surrounding white space.

    The second result answers for content that is too short to look at; it is empty for all other.
    """
    content = bytes(content)
    begin = content[: known["block_size"]]
    end = content[-known["block_size"] :].rstrip()[-known["end_size"] :]
    stripped = begin.lstrip()[: known["begin_size"]]

    features = np.full(known["begin_size"] + known["end_size"], known["padding"], np.int32)
    features[: len(stripped)] = np.frombuffer(stripped, np.uint8)
    features[len(features) - len(end) :] = np.frombuffer(end, np.uint8)

    answer = ""
    if not content:
        answer = "empty"
    elif len(stripped) < known["smallest"]:
        try:
            begin.decode("utf-8")
            answer = "txt"
        except UnicodeDecodeError:
            answer = "unknown"
    return features, answer


def postprocess(scores, answer):
    """The label of the highest score, if that is high enough for this label, else only whether it is text."""
    if answer:
        return answer, np.float32(1)
    best = int(scores.argmax())
    score = scores[best]
    label = known["renamed"].get(labels[best], labels[best])
    if score < known["thresholds"].get(labels[best], known["threshold"]):
        label = "txt" if label in text_labels else "unknown"
    return label, score


@register.register_method(output_names=["label", "score"])
def identify(content):
    """Bytes in; label ("png", "python", …) and score (0 to 1) out."""
    features, answer = register.add_stage(preprocess, content, outputs_count=2)
    scores = register.add_stage(model, features, outputs_count=1)
    label, score = register.add_stage(postprocess, scores, answer, outputs_count=2)
    return label, score
