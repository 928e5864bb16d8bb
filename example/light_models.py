"""Graphs of well-known models that the `onnx` package carries for its own tests, without their large weights."""

import importlib.util
import os
import pathlib


def load(name):
    """The graph `light_<name>.onnx` as an onnx.ModelProto."""
    if importlib.util.find_spec("onnx") is None:
        raise SystemExit("this example takes its graph from the package onnx: pip install onnx")
    import onnx

    return onnx.load(pathlib.Path(onnx.__file__).parent / "backend" / "test" / "data" / "light" / f"light_{name}.onnx")


def take_any_batch(model):
    """Lets the first dimension of inputs and outputs be any; drops weights that are listed as inputs, or not used."""
    import onnx

    graph = model.graph
    # Old files list each weight as an input too, which keeps the engine from folding them.
    weights = {tensor.name for tensor in graph.initializer}
    inputs = [info for info in graph.input if info.name not in weights and not info.name.endswith("__SHAPE")]
    del graph.input[:]
    graph.input.extend(inputs)
    del graph.value_info[:]
    used = {name for node in graph.node for name in node.input}
    for tensor in [tensor for tensor in graph.initializer if tensor.name not in used]:
        graph.initializer.remove(tensor)
    for info in (*graph.input, *graph.output):
        info.type.tensor_type.shape.dim[0].dim_param = "batch"
    model.ir_version = max(model.ir_version, 4)
    onnx.checker.check_model(model)


def write_once(target: pathlib.Path, make) -> None:
    """Writes what `make` gives, an onnx.ModelProto, if there is no such file: one that you have put there stays."""
    if target.exists():
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    # Several servers may start at once: the file appears whole or not at all.
    part = target.with_name(f".{target.name}.{os.getpid()}")
    part.write_bytes(make().SerializeToString())
    part.replace(target)
