"""Servers of several servables that call each other."""

from __future__ import annotations

import contextlib
import json
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import grpc

import stubs
from e2e_support import Served, server_process, write_servable

KINDS = "kinds_pb2_grpc.add_KindsServicer_to_server"

# What a servable may begin with: `predict` makes a function a method of one stage, whose output is "y".
PREAMBLE = """
import asyncio, contextlib, contextvars, inspect, json, logging, os, threading, time
import kinds_pb2
from kinds_pb2 import Answer, Ask
from mindserve.errors import CallError
from mindserve.server import register

log = logging.getLogger("servable")


def predict(function=None, *, name=None, inputs=None, **stage):
    def decorate(function):
        names = inputs or list(inspect.signature(function).parameters)

        def body(*values):
            return register.add_stage(function, *values, outputs_count=1, **stage)

        kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
        body.__name__ = name or function.__name__
        body.__signature__ = inspect.Signature([inspect.Parameter(each, kind) for each in names])
        register.register_method(output_names="y")(body)
        return function

    return decorate(function) if function else decorate


def failure(call):
    # How a call fails, as text.
    try:
        return f"it gave {call()!r}"
    except CallError as error:
        return json.dumps([error.code, str(error)])


async def failure_async(awaitable):
    try:
        return f"it gave {await awaitable!r}"
    except CallError as error:
        return json.dumps([error.code, str(error)])


def wait_for(path, seconds=60):
    # Until a file is there.
    end = time.monotonic() + seconds
    while not os.path.exists(path):
        assert time.monotonic() < end, path
        time.sleep(0.001)
"""


class Composed(Served):
    """A server of several servables, and a channel to it."""

    def __init__(self, process: Any, addresses: list[str], kinds: tuple[Any, Any]) -> None:
        super().__init__(process, addresses, "")
        self.pb2, self.pb2_grpc = kinds
        self.channel = grpc.insecure_channel(self.address)
        self.stub = self.pb2_grpc.KindsStub(self.channel)

    def one(self, servable: str, text: str = "", number: int = 0, **options: Any) -> str:
        """The text that kinds.Kinds/One of a servable answers with."""
        metadata = [("application", servable), *options.pop("metadata", [])]
        ask = self.pb2.Ask(text=text, number=number)
        return str(self.stub.One(ask, metadata=metadata, **{"timeout": 60, **options}).text)

    def failed(self, servable: str, text: str = "", number: int = 0, **options: Any) -> tuple[str, str]:
        """Code and text of the `CallError` that a servable has caught, and answers."""
        code, message = json.loads(self.one(servable, text, number, **options))
        return code, message

    def log(self, servable: str) -> str:
        (path,) = (self.process.cwd / "serving_logs").glob(f"log_{servable}_device*.log")
        return path.read_text(encoding="utf-8")

    def close(self) -> None:
        self.channel.close()
        super().close()


@contextlib.contextmanager
def composed(
    folder: pathlib.Path,
    generated: tuple[Any, Any],
    servables: Mapping[str, str],
    *,
    start: Mapping[str, str] | None = None,
    started: Sequence[str] | None = None,
    services: Sequence[str] = (KINDS,),
    after: str = "",
) -> Iterator[Composed]:
    """A server of these servables, by their names; each config follows `PREAMBLE`.

    Args:
        folder: an empty directory for it.
        generated: the modules of kinds.proto.
        servables: name and ``servable_config.py`` of each.
        start: further arguments of the ``ServableStartConfig`` of some, as text.
        started: which are started; None: all.
        services: what is given as ``grpc_servicer_functions``.
        after: more of the start script.
    """
    directory = folder / "servables"
    for name, config in servables.items():
        write_servable(directory, name, PREAMBLE + config)
        stubs.generate(directory / name)
    configs = "".join(
        f"    server.ServableStartConfig({str(directory)!r}, {name!r}, {(start or {}).get(name, '')}),\n"
        for name in (servables if started is None else started)
    )
    script = (
        "from mindserve import server\n"
        f"server.start_servables([\n{configs}])\n"
        f"print(*server.start_grpc_server('127.0.0.1:0', grpc_servicer_functions={list(services)!r}), flush=True)\n"
        f"{after}"
    )
    with server_process(folder / "run", script) as process:
        served = Composed(process, process.line().split(), generated)
        try:
            yield served
        finally:
            served.close()


__all__ = ["KINDS", "PREAMBLE", "Composed", "composed"]
