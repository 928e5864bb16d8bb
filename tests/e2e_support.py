"""Servers for end-to-end tests: processes of their own, and what it takes to ask and to watch them."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import pathlib
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeVar

import grpc
import numpy as np
import onnx

from conftest import PACKAGE, ServerProcess
from mindserve.client import Client
from mindserve.proto import PREDICT, messages

ROOT = PACKAGE.parent
T = TypeVar("T")

TYPES = (
    *("bool", "int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64"),
    *("float16", "float32", "float64"),
)

# What a servable_config.py may begin with: `method` makes a stage function a method of the same name.
PREAMBLE = """
import inspect
import numpy as np
from mindserve.server import register


def method(inputs=None, outputs_count=1, **options):
    def decorate(function):
        names = inputs.split() if inputs else list(inspect.signature(function).parameters)

        def body(*values):
            return register.add_stage(function, *values, outputs_count=outputs_count, **options)

        kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
        body.__name__ = function.__name__
        body.__signature__ = inspect.Signature([inspect.Parameter(name, kind) for name in names])
        outputs = "y" if outputs_count == 1 else [f"y{number}" for number in range(outputs_count)]
        register.register_method(output_names=outputs)(body)
        return function

    return decorate


def throw(error):
    raise error
"""


def notes_internal_address(path: pathlib.Path) -> str:
    """For a servable_config.py: each worker adds a line to the file `path`, the internal address that it was told."""
    return f"""
import gc
from mindserve import control

# Of the call that loads this file.
_parameters = next(each for each in gc.get_objects() if isinstance(each, control.WorkerParameters))
with open({str(path)!r}, "a") as _stream:
    _stream.write(_parameters.internal_address + "\\n")
"""


def onnx_models() -> Any:
    """The module that makes the small models of the C++ tests."""
    spec = importlib.util.spec_from_file_location("make_models", ROOT / "csrc" / "testing" / "make_models.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def write_servable(
    directory: pathlib.Path, name: str, config: str, models: Mapping[str, onnx.ModelProto] | None = None
) -> None:
    """A servable with this ``servable_config.py`` and, in version 1, the models by their files' names."""
    (directory / name / "1").mkdir(parents=True)
    (directory / name / "servable_config.py").write_text(config, encoding="utf-8")
    for file, model in (models or {}).items():
        onnx.save(model, directory / name / "1" / file)


class Served:
    """A server that runs, and clients of it."""

    def __init__(self, process: ServerProcess, addresses: list[str], servable: str) -> None:
        self.process = process
        self.addresses = addresses
        self.address = addresses[0]
        self._servable = servable
        self._channel = grpc.insecure_channel(self.address, [("grpc.max_receive_message_length", -1)])
        self._clients: dict[tuple[str, str], Client] = {}

    def client(self, method: str, servable: str | None = None) -> Client:
        """A client of this method, one for all who ask."""
        key = (servable or self._servable, method)
        if key not in self._clients:
            self._clients[key] = Client(self.address, *key)
        return self._clients[key]

    def ask(self, method: str, *instances: Mapping[str, Any], servable: str | None = None) -> list[Any]:
        """The result of each instance; fails if the whole request did."""
        result = self.client(method, servable).infer(list(instances), timeout=60)
        assert isinstance(result, list), result
        assert len(result) == len(instances)
        return result

    def value(self, method: str, **inputs: Any) -> Any:
        """The output ``y`` for one instance; fails if there is none."""
        (result,) = self.ask(method, inputs)
        assert "y" in result, result
        return result["y"]

    def error(self, method: str, **inputs: Any) -> str:
        """The error of one instance, which is its request's; fails if it has none."""
        result = self.client(method).infer(inputs, timeout=60)
        assert isinstance(result, dict), result
        return str(result["error"])

    def raw(self, request: bytes, path: str = PREDICT, **options: Any) -> bytes:
        """The reply's bytes to a request's."""
        reply = self._channel.unary_unary(path)(request, timeout=60, **options)
        assert isinstance(reply, bytes)
        return reply

    def predict(self, request: Any) -> Any:
        """The PredictReply to a PredictRequest."""
        return messages.PredictReply.FromString(self.raw(request.SerializeToString()))

    def close(self) -> None:
        for client in self._clients.values():
            client.close()
        self._channel.close()


@contextlib.contextmanager
def server_process(folder: pathlib.Path, script: str, **environment: str) -> Iterator[ServerProcess]:
    """Runs a start script in the directory `folder`, and ends what is left of it afterwards."""
    folder.mkdir(parents=True, exist_ok=True)
    path = os.pathsep.join(filter(None, [str(PACKAGE), os.environ.get("PYTHONPATH", "")]))
    (folder / "start.py").write_text(script, encoding="utf-8")
    process = ServerProcess(folder / "start.py", folder, {**os.environ, "PYTHONPATH": path, **environment})
    try:
        yield process
    finally:
        process.close()


@contextlib.contextmanager
def serving(
    folder: pathlib.Path,
    servable: str,
    config: str,
    models: Mapping[str, onnx.ModelProto] | None = None,
    *,
    start: str = "",
    listen: str = "'127.0.0.1:0'",
    after: str = "",
) -> Iterator[Served]:
    """A server of one servable.

    Args:
        folder: an empty directory for it.
        servable: its name.
        config: its ``servable_config.py``.
        models: its models.
        start: further arguments of ``ServableStartConfig``, as text.
        listen: arguments of ``start_grpc_server``, as text.
        after: more of the start script.
    """
    write_servable(folder / "servables", servable, config, models)
    script = (
        "from mindserve import server\n"
        f"config = server.ServableStartConfig({str(folder / 'servables')!r}, {servable!r}, {start})\n"
        "server.start_servables(config)\n"
        f"print(*server.start_grpc_server({listen}), sep=' ', flush=True)\n"
        f"{after}"
    )
    with server_process(folder / "run", script) as process:
        served = Served(process, process.line().split(), servable)
        try:
            yield served
        finally:
            served.close()


def request(servable: str, method: str, *instances: Mapping[str, Any], version: int = 0) -> Any:
    """A PredictRequest with Tensor messages as the instances' values."""
    spec = messages.ServableSpec(name=servable, method_name=method, version_number=version)
    return messages.PredictRequest(
        servable_spec=spec, instances=[messages.Instance(items=instance) for instance in instances]
    )


def tensor(value: Any) -> Any:
    """A Tensor message of an array, or of str or bytes."""
    types = messages.DATA_TYPES
    if isinstance(value, str):
        value = value.encode()
        return messages.Tensor(shape={"dims": [1]}, dtype=types["MS_STRING"], bytes_val=[value])
    if isinstance(value, bytes):
        return messages.Tensor(shape={"dims": [1]}, dtype=types["MS_BYTES"], bytes_val=[value])
    array = np.asarray(value)
    dtype = types[f"MS_{array.dtype.name.upper()}"]
    return messages.Tensor(shape={"dims": array.shape}, dtype=dtype, data=array.tobytes())


def varint(number: int) -> bytes:
    """As protobuf writes it."""
    out = bytearray()
    while number >= 0x80:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*out, number])


def status_of(call: Callable[[], Any]) -> tuple[grpc.StatusCode, str]:
    """How a call that must fail ends."""
    try:
        reply = call()
    except grpc.RpcError as error:
        return error.code(), error.details() or ""  # type: ignore[attr-defined]
    raise AssertionError(f"it was answered: {reply!r}")


def until(ask: Callable[[], T], right: Callable[[T], bool] = bool, seconds: float = 60) -> T:
    """Asks again until the answer is right; fails with the last one when the time is over."""
    deadline = time.monotonic() + seconds
    pause = threading.Event()
    while not right(answer := ask()):
        assert time.monotonic() < deadline, answer
        pause.wait(0.005)
    return answer


def same(actual: Any, expected: Any) -> bool:
    """Equal in type, shape and every bit."""
    if isinstance(expected, str | bytes):
        return type(actual) is type(expected) and actual == expected
    if isinstance(expected, np.ndarray) and expected.dtype == object:
        return (
            isinstance(actual, np.ndarray) and actual.shape == expected.shape and actual.tolist() == expected.tolist()
        )
    expected = np.asarray(expected)
    expected = expected.astype(expected.dtype.newbyteorder("="))
    if isinstance(actual, np.ndarray) == (expected.shape == ()):
        return False
    return actual.dtype == expected.dtype and actual.shape == expected.shape and actual.tobytes() == expected.tobytes()
