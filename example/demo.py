"""What `make run` shows: two servables in one server, asked over gRPC with real input; fails if an answer is wrong."""

import pathlib
import sys

import numpy as np

from mindserve import server
from mindserve.client import Client

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE / "file_type"))

import prepare_model  # noqa: E402


def ask(address, servable, method, instances):
    with Client(address, servable, method) as client:
        result = client.infer(instances)
    if isinstance(result, dict):
        raise SystemExit(f"{servable}.{method}: {result['error']}")
    return result


def add(address):
    print("add.add_common: a tiny ONNX model, three instances in one request")
    instances = [{name: np.full((2, 2), value, np.float32) for name in ("x1", "x2")} for value in (1, 2, 3)]
    right = True
    for instance, answer in zip(instances, ask(address, "add", "add_common", instances), strict=True):
        total = answer["y"]
        right &= np.array_equal(total, instance["x1"] + instance["x2"])
        print(f"  {instance['x1'].tolist()} + {instance['x2'].tolist()} = {total.tolist()}")
    return right


def file_type(address):
    print("file_type.identify: a trained model between two Python stages, on real files")
    expected = {
        "file_type/samples/picture.png": "png",
        "file_type/samples/page.pdf": "pdf",
        "file_type/samples/archive.zip": "zip",
        "file_type/samples/script.py": "python",
        "../csrc/base/status.cc": "cpp",
        "../README.md": "markdown",
    }
    instances = [{"content": (HERE / path).read_bytes()} for path in expected]
    right = True
    for path, answer in zip(expected, ask(address, "file_type", "identify", instances), strict=True):
        right &= answer.get("label") == expected[path]
        print(f"  {path.rpartition('/')[2]:12} {answer.get('label', answer)} ({answer.get('score', 0):.3f})")
    return right


def main():
    prepare_model.prepare()
    server.start_servables(
        (
            server.ServableStartConfig(str(HERE / "tensor_add"), "add", device_ids=0),
            # One file at a time: see file_type/serving_server.py.
            server.ServableStartConfig(str(HERE / "file_type"), "file_type", device_ids=0, max_batch_size=1),
        )
    )
    (address,) = server.start_grpc_server("127.0.0.1:0")
    print(f"Serving at {address}")
    try:
        right = [add(address), file_type(address)]
    finally:
        server.stop()
    if not all(right):
        raise SystemExit("wrong answers")
    print("All answers are right. The server has stopped.")


if __name__ == "__main__":
    main()
