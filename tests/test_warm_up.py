"""The first run of each model, on zeros, before its worker is ready."""

from __future__ import annotations

import pathlib

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from conftest import Servables, StartScript, serve
from mindserve.client import Client
from sanitizers import needs_bad_alloc

SERVABLE = """
from mindserve.server import register

model = register.declare_model("add.onnx", "ONNX")


@register.register_method(output_names=["y"])
def run(x):
    return register.add_stage(model, x, outputs_count=1)
"""


def model(node: onnx.NodeProto, element: int, dims: list[str | int] | None, **constants: object) -> onnx.ModelProto:
    """One node from x, (N, 1) of this type, to y, float32 of this shape."""
    graph = helper.make_graph(
        [node],
        "graph",
        [helper.make_tensor_value_info("x", element, ["N", 1])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, dims)],
        [numpy_helper.from_array(np.array(value), name) for name, value in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)


def log_of(cwd: pathlib.Path) -> str:
    return (cwd / "serving_logs" / "log_net_device0_version1.log").read_text()


def test_a_model_that_refuses_zeros_is_served(servables: Servables, start_script: StartScript) -> None:
    directory = servables.add("net", SERVABLE, versions=(1,))
    # Of texts, the zero is the empty one, which is no number.
    numbers = model(helper.make_node("Cast", ["x"], ["y"], to=TensorProto.FLOAT), TensorProto.STRING, ["N", 1])
    onnx.save(numbers, directory / "1" / "add.onnx")
    server = start_script(serve(servables.directory, "net"))
    with Client(server.line(), "net", "run") as client:
        assert client.infer({"x": "2.5"}) == [{"y": np.float32(2.5)}]
        assert "Run model 'add.onnx' failed: Non-zero status code" in client.infer({"x": ""})["error"]
    (line,) = (line for line in log_of(server.cwd).splitlines() if "[INFO]" not in line)
    assert line.startswith("[WARNING] ")
    assert "model file 'add.onnx' is not warmed up: its first run on zeros failed: Non-zero status code" in line


@pytest.mark.parametrize(
    ("node", "dims", "constants", "text"),
    [
        (
            helper.make_node("ReduceSum", ["x"], ["y"], keepdims=0),
            [],
            {},
            "its first run on zeros failed: output 0 has the shape (), in which the first dimension is not the batch's "
            "size 1",
        ),
        pytest.param(
            helper.make_node("Expand", ["x", "shape"], ["y"]),
            ["N", 1 << 50],
            {"shape": [1, 1 << 50]},
            "Failed to allocate memory",
            marks=needs_bad_alloc,
        ),
    ],
)
def test_what_no_data_can_mend_ends_the_start(
    servables: Servables,
    start_script: StartScript,
    node: onnx.NodeProto,
    dims: list[str | int],
    constants: dict[str, object],
    text: str,
) -> None:
    directory = servables.add("net", SERVABLE, versions=(1,))
    onnx.save(model(node, TensorProto.FLOAT, dims, **constants), directory / "1" / "add.onnx")
    start = f"""
    from mindserve import server
    try:
        server.start_servables(server.ServableStartConfig({str(servables.directory)!r}, "net"))
    except RuntimeError as error:
        print(ascii(str(error)), flush=True)
    """
    server = start_script(start)
    error = server.line()
    assert "Load model failed, servable directory: " in error
    assert "its first run on zeros failed: " in error
    assert text in error.replace("\\'", "'")
    assert server.wait() == 0
