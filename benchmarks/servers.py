"""The servers that are measured: started in a scratch directory, as processes of their own, ended in the end."""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
import urllib.request
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Any

from calls import Call
from load import Load, Running
from models import make_servables, make_services
from tokens import make_token

from mindserve.certs import make_certificates

HERE = Path(__file__).resolve().parent
_LISTENING = "listening on "


@dataclass(frozen=True)
class Served:
    """One MindServe server by its addresses; `rest` for HTTP with JSON."""

    tcp: Running
    unix: Running
    tls: Running
    rest: Running
    process: subprocess.Popen[str]

    def stats(self) -> dict[str, Any]:
        """What `mindserve.server.stats` says there."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write("stats\n")
        self.process.stdin.flush()
        stats: dict[str, Any] = json.loads(self.process.stdout.readline())
        return stats


class Servers:
    """Starts servers, and ends those that are left when it is left.

    Args:
        scratch: an empty directory.
        do_nothing: the do_nothing_server program.
        stream_source: the stream_source program.
        resnet50: the ResNet-50 model, or None if it is not to be served.
    """

    def __init__(self, scratch: Path, do_nothing: Path, stream_source: Path, resnet50: Path | None) -> None:
        self.scratch = scratch
        self.servables = scratch / "servables"
        make_servables(self.servables, resnet50)
        self._do_nothing = do_nothing
        self._stream_source = stream_source
        self._certificates = make_certificates(scratch / "certificates")
        self._numbers = itertools.count()
        self._stack = ExitStack()
        self._mindserve: dict[str, Served] = {}
        self._grpcio: Running | None = None
        self._services: Running | None = None
        self._grpcio_services: Running | None = None

    def __enter__(self) -> Servers:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def mindserve(self, purpose: str, names: Sequence[str] = ("bench",), workers: int = 1) -> Served:
        """A MindServe server, started when it is first asked for.

        Args:
            purpose: tells servers apart: small calls are not measured where large tensors were before.
            names: the servables.
            workers: for each of them.
        """
        if purpose not in self._mindserve:
            self._mindserve[purpose] = self.start_mindserve(self._stack, names, workers)
        return self._mindserve[purpose]

    def start_mindserve(
        self, stack: ExitStack, names: Sequence[str] = ("bench",), workers: int = 1, options: Sequence[str] = ()
    ) -> Served:
        """A MindServe server that lives as long as ``stack``; ``options`` are further ones of server.py."""
        files = self._certificates
        directory = self._directory("mindserve")
        command = [sys.executable, str(HERE / "server.py"), str(self.servables), "127.0.0.1:0", *names]
        command += ["--workers", str(workers), "--unix", f"unix:{directory}/socket"]
        command += ["--tls", str(files.server_certificate), str(files.server_key), "--rest", *options]
        process, (tcp, unix, tls, rest) = _start(stack, command, directory)
        pid = process.pid
        return Served(
            Running(pid, tcp), Running(pid, unix), Running(pid, tls, files.ca_certificate), Running(pid, rest), process
        )

    def with_token(self) -> Running:
        """A MindServe server that asks for tokens, and a token for it."""
        token, keys = make_token(self._directory("keys"))
        served = self.start_mindserve(self._stack, options=["--keys", keys])
        return replace(served.tcp, token=token)

    def with_split(self, name: str, weights: Sequence[float]) -> Served:
        """A MindServe server of "bench", by a name that is split between as many variations as there are weights."""
        return self.start_mindserve(self._stack, options=["--split", name, *map(str, weights)])

    def ceiling(self, load: Load) -> Load:
        """The same load for a do-nothing server that answers with as many bytes."""
        return self.start_ceiling(self._stack, load)

    def start_ceiling(self, stack: ExitStack, load: Load) -> Load:
        """The same load for a do-nothing server that lives as long as ``stack``."""
        directory = self._directory("do-nothing")
        address = f"unix:{directory}/socket" if load.server.address.startswith("unix:") else "0"
        process, (bound,) = _start(stack, [str(self._do_nothing), address, str(load.message_bytes)], directory)
        return Load("do-nothing", Running(process.pid, bound), load.body, load.message_bytes)

    def grpcio(self) -> Running:
        """The server written by hand in Python."""
        if self._grpcio is None:
            command = [sys.executable, str(HERE / "grpcio_server.py"), "127.0.0.1:0"]
            process, (address,) = _start(self._stack, command, self._directory("grpcio"))
            self._grpcio = Running(process.pid, address)
        return self._grpcio

    def services_directory(self) -> Path:
        """Of the servable with a service of its own, and its generated modules."""
        directory = self.servables / "services"
        return directory if directory.exists() else make_services(self.servables)

    def services(self) -> Running:
        """A MindServe server of that servable."""
        if self._services is None:
            self.services_directory()
            command = [sys.executable, str(HERE / "server.py"), str(self.servables), "127.0.0.1:0", "services"]
            command += ["--service", "bench_pb2_grpc.add_BenchServicer_to_server"]
            process, (address,) = _start(self._stack, command, self._directory("services"))
            self._services = Running(process.pid, address)
        return self._services

    def grpcio_services(self) -> Running:
        """A grpcio server with the same handlers."""
        if self._grpcio_services is None:
            directory = self.services_directory()
            command = [sys.executable, str(HERE / "grpcio_services.py"), str(directory), "127.0.0.1:0"]
            process, (address,) = _start(self._stack, command, self._directory("grpcio-services"))
            self._grpcio_services = Running(process.pid, address)
        return self._grpcio_services

    def native_stream(self, messages: int, message_bytes: int) -> Running:
        """A server whose worker streams so many messages to each call, without Python."""
        command = [str(self._stream_source), "0", str(messages), str(message_bytes)]
        process, (address,) = _start(self._stack, command, self._directory("stream-source"))
        return Running(process.pid, address)

    def load(self, name: str, server: Running, call: Call) -> Load:
        """A call as a load for a server, which has been seen to answer it rightly."""
        return call.load(name, server, call.write(self.scratch / f"body{next(self._numbers)}"))

    def load_json(self, name: str, server: Running, path: str, instances: list[dict[str, Any]]) -> Load:
        """The same by HTTP with JSON."""
        body = self.scratch / f"body{next(self._numbers)}"
        body.write_bytes(json.dumps({"instances": instances}).encode())
        request = urllib.request.Request(f"http://{server.address}{path}", body.read_bytes())
        with urllib.request.urlopen(request, timeout=60) as answer:
            text = answer.read()
        if "instances" not in json.loads(text):
            raise RuntimeError(f"{path}: {text[:1000]!r}")
        return Load(name, server, body, len(text), path)

    def _directory(self, name: str) -> Path:
        # Each has its own: servers of the same servables would write to the same logs.
        directory = self.scratch / f"{name}{next(self._numbers)}"
        directory.mkdir()
        return directory


def _start(stack: ExitStack, command: list[str], directory: Path) -> tuple[subprocess.Popen[str], list[str]]:
    """Starts a process in ``directory``; returns it, and the addresses that it prints."""
    errors = directory / "stderr"
    with errors.open("w") as stream:
        process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=stream, cwd=directory, text=True
        )
    stack.callback(_end, process)
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith(_LISTENING):
            return process, line.removeprefix(_LISTENING).split()
    raise RuntimeError(f"{' '.join(command)} has ended:\n{errors.read_text()[-4000:]}")


def _end(process: subprocess.Popen[str]) -> None:
    process.terminate()
    try:
        process.wait(60)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    finally:
        for stream in (process.stdin, process.stdout):
            assert stream is not None
            stream.close()
