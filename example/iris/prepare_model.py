"""Trains the classifier of scikit-learn's Iris data and writes iris/1/classifier.joblib.

A joblib file is code: load only those that you wrote yourself, with the scikit-learn that wrote them. So this one isn't
kept, but written whenever the server starts, which takes a moment.
"""

import os
import pathlib

import joblib
from sklearn.datasets import load_iris
from sklearn.ensemble import GradientBoostingClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

MODEL_FILE = pathlib.Path(__file__).resolve().parent / "iris" / "1" / "classifier.joblib"
FEATURES = ["f1", "f2", "f3", "f4"]


def train():
    """A pipeline for a DataFrame with the columns f1 to f4: sepal length, sepal width, petal length and width."""
    data = load_iris(as_frame=True)
    frame = data.data.set_axis(FEATURES, axis="columns")
    names = data.target.map(lambda number: f"Iris-{data.target_names[number]}")
    return make_pipeline(
        StandardScaler().set_output(transform="pandas"), GradientBoostingClassifier(random_state=0)
    ).fit(frame, names)


def prepare():
    MODEL_FILE.parent.mkdir(parents=True, exist_ok=True)
    # Several servers may start at once: the file appears whole.
    part = MODEL_FILE.with_name(f".{MODEL_FILE.name}.{os.getpid()}")
    joblib.dump(train(), part)
    part.replace(MODEL_FILE)


if __name__ == "__main__":
    prepare()
    print(MODEL_FILE)
