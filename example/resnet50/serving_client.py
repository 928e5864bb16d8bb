"""Asks the servable "resnet50" what is on the given pictures; without any, those in images/."""

import argparse
import pathlib

from mindserve.client import Client

HERE = pathlib.Path(__file__).resolve().parent


def run(address, method, paths):
    """One request, one instance a picture."""
    instances = []
    for path in paths:
        instances.append({"image": path.read_bytes()})
    with Client(address, "resnet50", method) as client:
        result = client.infer(instances)
    print(method)
    if isinstance(result, dict):
        raise SystemExit(result["error"])
    for path, answer in zip(paths, result, strict=True):
        print(f"  {path.name}: {answer}")


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--address", default="127.0.0.1:5500", help="host:port or unix:path (default: %(default)s)")
    parser.add_argument("pictures", nargs="*", type=pathlib.Path)
    args = parser.parse_args()

    paths = args.pictures or sorted((HERE / "images").iterdir())
    run(args.address, "classify_top1", paths)
    run(args.address, "classify_top5", paths)


if __name__ == "__main__":
    main()
