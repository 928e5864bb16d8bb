"""Fixtures: servables in temporary directories, servers as processes, certificates."""

from __future__ import annotations

import contextlib
import os
import pathlib
import select
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from typing import Any

import onnx
import pytest

import certificates
from certificates import Files
from mindserve.certs import make_certificates

# A shell has what it runs in the background ignore SIGINT, and so would all that the tests start.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

PACKAGE = pathlib.Path(__file__).resolve().parent.parent / "python"

ADD_SERVABLE = """
import numpy as np
from mindserve.server import register

model = register.declare_model(model_file="add.onnx", model_format="ONNX", with_batch_dim=False)


def to_float(x1, x2):
    return x1.astype(np.float32), x2.astype(np.float32)


@register.register_method(output_names=["y"])
def add_common(x1, x2):
    return register.add_stage(model, x1, x2, outputs_count=1)


@register.register_method(output_names=["y"])
def add_cast(x1, x2):
    x1, x2 = register.add_stage(to_float, x1, x2, outputs_count=2, tag="Preprocess")
    return register.add_stage(model, x1, x2, outputs_count=1)
"""

# A servable without a model: its worker needs no engine, and is ready in no time.
ECHO_SERVABLE = """
import os
from mindserve.server import register


def echo(x):
    return x


def pid(x):
    return os.getpid()


@register.register_method(output_names="x")
def same(x):
    return register.add_stage(echo, x, outputs_count=1)


@register.register_method(output_names="pid")
def worker_pid(x):
    return register.add_stage(pid, x, outputs_count=1)
"""

# Its method writes to a FIFO that it runs, and then answers what it reads there.
BLOCKING_SERVABLE = """
import os, threading
from mindserve.server import register


def block(fifo):
    with open(fifo, "w") as stream:
        stream.write("running")
    with open(fifo) as stream:
        return stream.read()


@register.register_method(output_names="text")
def method(fifo):
    return register.add_stage(block, fifo, outputs_count=1)
"""


class Servables:
    """A temporary ``servable_directory``."""

    def __init__(self, directory: pathlib.Path) -> None:
        self.directory = directory

    def add(self, name: str, config: str, *, versions: tuple[int, ...] = (), model: str = "add.onnx") -> pathlib.Path:
        """A servable with this ``servable_config.py`` and the add model in each of ``versions``."""
        servable = self.directory / name
        servable.mkdir(parents=True)
        (servable / "servable_config.py").write_text(config, encoding="utf-8")
        for version in versions:
            (servable / str(version)).mkdir()
            onnx.save(add_model(), servable / str(version) / model)
        return servable


def add_model(shape: tuple[int | str, ...] = (2, 2)) -> onnx.ModelProto:
    """Adds two float32 tensors."""
    value = lambda name: onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape)  # noqa: E731
    node = onnx.helper.make_node("Add", ["x1", "x2"], ["y"])
    graph = onnx.helper.make_graph([node], "add", [value("x1"), value("x2")], [value("y")])
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 13)], ir_version=8)
    onnx.checker.check_model(model)
    return model


@pytest.fixture
def servables(tmp_path: pathlib.Path) -> Servables:
    return Servables(tmp_path / "servables")


class ServerProcess:
    """A start script that runs as a process of its own, in a temporary current directory.

    Its standard output is for the test: `line` waits for the next one.
    """

    def __init__(self, script: pathlib.Path, cwd: pathlib.Path, environment: dict[str, str]) -> None:
        self.cwd = cwd
        self._errors = cwd / "stderr.txt"
        with self._errors.open("wb") as errors:
            self.process = subprocess.Popen(
                [sys.executable, script],
                cwd=cwd,
                env=environment,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
            )

    @property
    def pid(self) -> int:
        return self.process.pid

    def line(self) -> str:
        """The next line that the script prints; fails with its errors if it ends instead."""
        line = self.process.stdout.readline()
        assert line, f"the server has ended: {self.errors()}"
        return line.rstrip("\n")

    def tell(self, text: str) -> None:
        """A line for the script's standard input."""
        self.process.stdin.write(text + "\n")
        self.process.stdin.flush()

    def errors(self) -> str:
        """What it has written to stderr so far."""
        return self._errors.read_text(encoding="utf-8", errors="replace")

    def send(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def wait(self) -> int:
        """Its exit status, waiting for the end."""
        return self.process.wait(60)

    def workers(self) -> list[int]:
        """Its children."""
        return children(self.pid)

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        self.process.stdin.close()
        self.process.stdout.close()


def children(pid: int) -> list[int]:
    """The direct children of a process; none once it is gone."""
    found: list[int] = []
    for task in pathlib.Path(f"/proc/{pid}/task").glob("*"):
        with contextlib.suppress(OSError):
            found += [int(child) for child in (task / "children").read_text().split()]
    return found


def is_alive(pid: int) -> bool:
    """Whether a process runs; a zombie doesn't."""
    try:
        return pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def wait_gone(pids: list[int]) -> None:
    """Waits until none of these processes runs; fails after a minute."""
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            descriptor = os.pidfd_open(pid)
            try:
                assert select.select([descriptor], [], [], 60)[0], f"process {pid} is still there"
            finally:
                os.close(descriptor)


@pytest.fixture
def start_script(tmp_path: pathlib.Path) -> Iterator[Callable[..., ServerProcess]]:
    """Runs a start script given as text; ends what is left of it afterwards."""
    started: list[ServerProcess] = []

    def start(text: str, **environment: str) -> ServerProcess:
        cwd = tmp_path / f"run{len(started)}"
        cwd.mkdir()
        script = cwd / "start.py"
        script.write_text(textwrap.dedent(text), encoding="utf-8")
        path = os.pathsep.join(filter(None, [str(PACKAGE), os.environ.get("PYTHONPATH", "")]))
        started.append(ServerProcess(script, cwd, {**os.environ, "PYTHONPATH": path, **environment}))
        return started[-1]

    yield start
    for server in started:
        server.close()


StartScript = Callable[..., ServerProcess]


def serve(directory: pathlib.Path, *names: str, after: str = "", **options: Any) -> str:
    """A start script that prints its address."""
    given = "".join(f", {name}={value!r}" for name, value in options.items())
    configs = "".join(f"server.ServableStartConfig({str(directory)!r}, {name!r}{given})," for name in names)
    return (
        "import sys\n"
        "from mindserve import server\n"
        f"server.start_servables(({configs}))\n"
        "print(server.start_grpc_server('127.0.0.1:0')[0], flush=True)\n" + textwrap.dedent(after)
    )


def pid_of(answer: Any) -> int:
    return int(answer[0]["pid"]) if isinstance(answer, list) else 0


@pytest.fixture(scope="module")
def reference_files(tmp_path_factory: pytest.TempPathFactory) -> Files:
    """Certificates as MindSpore Serving's documentation makes them."""
    return certificates.make_reference_certificates(tmp_path_factory.mktemp("reference"))


@pytest.fixture(scope="module")
def own_files(tmp_path_factory: pytest.TempPathFactory) -> Files:
    """Certificates as ``mindserve certs`` makes them."""
    directory = tmp_path_factory.mktemp("own")
    make_certificates(directory)
    return certificates.files_in(directory)


@pytest.fixture(params=["reference", "own"])
def files(request: pytest.FixtureRequest, reference_files: Files, own_files: Files) -> Files:
    """Each of the two in turn."""
    return reference_files if request.param == "reference" else own_files
