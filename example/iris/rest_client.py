"""Asks the servable "iris" by HTTP with JSON, as any program can, what kind of iris a flower is."""

import argparse

import requests


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--url", default="http://127.0.0.1:5501", help="where the server answers (%(default)s)")
    parser.add_argument("features", nargs="*", type=float, default=[1, 2.7, 5.3, 1.9], help="four numbers, in cm")
    args = parser.parse_args()

    instance = dict(zip(("f1", "f2", "f3", "f4"), args.features, strict=True))
    answer = requests.post(f"{args.url}/model/iris:predict", json={"instances": [instance]}, timeout=10)
    answer.raise_for_status()
    reply = answer.json()
    # What is wrong with the request stands in the answer, what is wrong with an instance in its place.
    result = reply if "error_msg" in reply else reply["instances"][0]
    if "error_msg" in result:
        raise SystemExit(result["error_msg"])
    for name, probability in zip(result["predicted_class"], result["prediction"], strict=True):
        print(f"{name}: {probability:.4f}")


if __name__ == "__main__":
    main()
