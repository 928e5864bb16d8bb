"""Asks the servable "iris" by gRPC what kinds of iris three flowers are."""

import argparse

from mindserve.client import Client

# Sepal length and width, petal length and width in cm.
FLOWERS = [(5.1, 3.5, 1.4, 0.2), (6.4, 3.2, 4.5, 1.5), (1.0, 2.7, 5.3, 1.9)]


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--address", default="127.0.0.1:5500", help="host:port or unix:path (default: %(default)s)")
    args = parser.parse_args()

    instances = [dict(zip(("f1", "f2", "f3", "f4"), flower, strict=True)) for flower in FLOWERS]
    with Client(args.address, "iris", "predict") as client:
        results = client.infer(instances)
    if isinstance(results, dict):
        raise SystemExit(results["error"])
    for flower, result in zip(FLOWERS, results, strict=True):
        best = result["prediction"].argmax()
        print(f"{flower}: {result['predicted_class'][best]} ({result['confidence'][best]:.3f})")


if __name__ == "__main__":
    main()
