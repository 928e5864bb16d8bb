"""Too few file descriptors to start: one error that says what to do, and nothing that is left behind."""

from __future__ import annotations

import pathlib

import pytest

from conftest import ECHO_SERVABLE
from e2e_support import server_process, write_servable
from sanitizers import needs_no_descriptors

SCRIPT = """
import os
import resource
from mindserve import server
from mindserve.errors import StartError

resource.setrlimit(resource.RLIMIT_NOFILE, (200, 200))
held = []
try:
    while True:
        held.append(os.open("/dev/null", os.O_RDONLY))
except OSError:
    pass
for fd in [held.pop() for _ in range(LEFT)]:
    os.close(fd)
try:
    START
    print("started", flush=True)
except StartError as error:
    print(str(error).replace(chr(10), " "), flush=True)
for fd in held:
    os.close(fd)
server.stop()
START
print("started", flush=True)
server.stop()
"""


@needs_no_descriptors
@pytest.mark.parametrize("left", [0, 2, 3, 4, 5, 6, 9, 12, 15, 18])
@pytest.mark.parametrize("start", ["servables", "grpc", "http"])
def test_a_start_with_too_few_file_descriptors(tmp_path: pathlib.Path, start: str, left: int) -> None:
    write_servable(tmp_path / "servables", "echo", ECHO_SERVABLE)
    call = {
        "servables": f"server.start_servables(server.ServableStartConfig({str(tmp_path / 'servables')!r}, 'echo'))",
        "grpc": "server.start_grpc_server('127.0.0.1:0')",
        "http": "server.start_restful_server('127.0.0.1:0')",
    }[start]
    script = SCRIPT.replace("START", call).replace("LEFT", str(left))
    with server_process(tmp_path / "run", script) as process:
        said = process.line()
        if said != "started":
            assert "Too many open files" in said
            assert said.endswith("RLIMIT_NOFILE is 200: raise it (ulimit -n, LimitNOFILE=)")
        assert process.line() == "started"
        assert process.wait() == 0
    if left < 9:
        assert said != "started"
