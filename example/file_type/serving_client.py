"""Asks the servable "file_type" what the given files are; without any, the samples and scripts beside this one."""

import argparse
import pathlib

from mindserve.client import Client

HERE = pathlib.Path(__file__).resolve().parent


def default_files():
    samples = sorted((HERE / "samples").iterdir())
    return [*samples, *sorted(HERE.glob("*.py")), HERE / "README.md"]


def identify(address, paths):
    """One request, one instance a file; gives a dict with "label" and "score", or with "error", for each."""
    with Client(address, "file_type", "identify") as client:
        result = client.infer([{"content": path.read_bytes()} for path in paths])
    if isinstance(result, dict):
        raise SystemExit(result["error"])
    return result


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--address", default="127.0.0.1:5500", help="host:port or unix:path (default: %(default)s)")
    parser.add_argument("files", nargs="*", type=pathlib.Path)
    args = parser.parse_args()

    paths = args.files or default_files()
    for path, answer in zip(paths, identify(args.address, paths), strict=True):
        if "error" in answer:
            print(f"{path}: {answer['error']}")
        else:
            print(f"{path}: {answer['label']} ({answer['score']:.3f})")


if __name__ == "__main__":
    main()
