"""The servable "iris": which kind of iris a flower is, by a pipeline of scikit-learn."""

import pathlib

import joblib
import numpy as np
import pandas as pd
from iris_pb2 import IrisPredictRequest

from mindserve.server import register

FEATURES = ["f1", "f2", "f3", "f4"]
MOST = 1000  # cm
classifier = joblib.load(pathlib.Path(__file__).resolve().parent / "1" / "classifier.joblib")
classes = [str(name) for name in classifier.classes_]


def to_row(f1, f2, f3, f4):
    """The four numbers of a flower, whatever types they came as; what is no length is the client's error."""
    return np.array([to_length(name, value) for name, value in zip(FEATURES, (f1, f2, f3, f4), strict=True)])


def to_length(name, value):
    number = np.asarray(value)
    if number.size != 1 or number.dtype.kind not in "biuf" or not 0 <= number.item() <= MOST:
        raise register.InvalidInput(f"{name} is {number.tolist()!s:.80}, expected one number of cm, from 0 to {MOST}")
    return float(number.item())


def classify(flowers):
    """Takes many flowers at once: the pipeline costs hardly more for a hundred than for one."""
    frame = pd.DataFrame([row for (row,) in flowers], columns=FEATURES)
    for probabilities in classifier.predict_proba(frame):
        yield probabilities, np.array(classes), probabilities


@register.register_method(output_names=["prediction", "predicted_class", "confidence"])
def predict(f1, f2, f3, f4):
    """Sepal length and width, petal length and width in cm; of each class its probability, its name, and how sure."""
    row = register.add_stage(to_row, f1, f2, f3, f4, outputs_count=1, tag="Preprocess")
    prediction, predicted_class, confidence = register.add_stage(classify, row, outputs_count=3, batch_size=64)
    return prediction, predicted_class, confidence


# Seldon's Classifier is answered by the same method, which is the only one: its outputs are what a reply has.
register.classifier(model_name="model_iris")


@register.data_handler(IrisPredictRequest)
class IrisCustomDataHandler:
    """As for Seldon's wrapper. `register.data_handler(IrisPredictRequest)` alone would do, and is faster: the message's
    fields have the names of the method's inputs.
    """

    def getData(self, request):
        dc = IrisPredictRequest()
        request.data.Unpack(dc)
        return pd.DataFrame([{"f1": dc.f1, "f2": dc.f2, "f3": dc.f3, "f4": dc.f4}])
