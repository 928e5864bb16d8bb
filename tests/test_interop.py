"""Clients of several makes, most of which aren't built on grpcio's core, against a service of a user's own proto.

Each client program calls every case of tests/interop/interop.proto and prints what came of it. The reference is
grpcio's own server; the same class serves both.
"""

from __future__ import annotations

import json
import pathlib
import shutil
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import grpc
import pytest

from certificates import Files
from e2e_support import server_process
from interop_support import HERE, LANGUAGES, generate, run

METADATA = {
    "initial": "one, two",
    "initial_bin": "0001ff",
    "trailing": "three, four",
    "trailing_bin": "ff000a",
    "request_id": "interop-17",
}
EXPECTED: dict[str, dict[str, Any]] = {
    "unary": {"code": 0, "text": "grüße ✓"},
    "unary_empty": {"code": 0, "text": "", "bytes": 0},
    "unary_large": {"code": 0, "equal": True},
    "gzip": {"code": 0, "equal": True},
    "server_streaming": {"code": 0, "count": 5000, "ordered": True},
    "server_streaming_empty": {"code": 0, "count": 0},
    "server_streaming_large": {"code": 0, "sizes": [(4 << 20) + 3] * 4},
    "client_streaming": {"sum": 4999 * 5000 // 2},
    "client_streaming_empty": {"sum": 0},
    "both_ways": {"code": 0, "lines": ["ONE", "TWO", "THREE"]},
    "both_ways_large": {"code": 0, "count": 3, "equal": True},
    "both_ways_ended_by_the_server": {"code": 9, "details": "because of two", "lines": ["ONE"]},
    "metadata": {"code": 0, **METADATA},
    "metadata_of_an_error": {"code": 5, **METADATA},
    "error_details": {"code": 9, "details": "50 % off: naïve ✗\nsecond line"},
    "details_of_ok": {"code": 0, "details": "all is well"},
    "status_details": {"code": 9, "details": "bad", "equal": True},
    "every_code": {"codes": [code.value[0] for code in grpc.StatusCode][1:]},
    "deadline": {"code": 4, "soon": True, "cancelled": True},
    "cancel": {"code": 1, "cancelled": True},
    "unknown_method": {"code": 12},
    "unknown_service": {"code": 12},
    "concurrent": {"right": 200},
}
# What a library doesn't do, or doesn't tell.
WITHOUT = {"grpcio": {"details_of_ok"}, "grpclib": {"gzip", "details_of_ok"}, "go": {"details_of_ok"}}

SERVABLE = """
from mindserve.server import register
from service import Interop

register.grpc_service(Interop)
"""
START = """
from mindserve import server

server.start_servables(server.ServableStartConfig({servables!r}, "interop"))
tls = server.SSLConfig({certificate!r}, {key!r})
mutual = server.SSLConfig({certificate!r}, {key!r}, {ca!r}, verify_client=True)
listeners = [server.Listener("127.0.0.1:0"), *(server.Listener("127.0.0.1:0", each) for each in (tls, mutual))]
functions = ["interop_pb2_grpc.add_InteropServicer_to_server"]
print(*server.start_grpc_server(listeners, grpc_servicer_functions=functions), flush=True)
"""


@pytest.fixture(scope="module")
def generated(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """The modules of interop.proto: protobuf's, grpcio's and grpclib's."""
    directory = tmp_path_factory.mktemp("generated")
    generate(directory)
    return directory


@pytest.fixture(scope="module")
def reference(generated: pathlib.Path) -> Iterator[str]:
    process = subprocess.Popen(
        [sys.executable, HERE / "reference_server.py", generated], stdout=subprocess.PIPE, text=True
    )
    try:
        yield process.stdout.readline().strip()
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


@pytest.fixture(scope="module")
def mindserve(
    generated: pathlib.Path, own_files: Files, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, str]]:
    """A server's addresses by the transport. Its servable holds the generated modules and the class."""
    folder = tmp_path_factory.mktemp("mindserve")
    servable = folder / "servables" / "interop"
    shutil.copytree(generated, servable)
    shutil.copy(HERE / "service.py", servable)
    (servable / "servable_config.py").write_text(SERVABLE, encoding="utf-8")
    files = {"certificate": own_files.server, "key": own_files.server_key, "ca": own_files.ca}
    script = START.format(servables=str(servable.parent), **files)
    with server_process(folder / "run", script) as process:
        yield dict(zip(("plaintext", "tls", "mutual"), process.line().split(), strict=True))


def results(language: str, generated: pathlib.Path, address: str, *files: str) -> dict[str, Any]:
    """What came of each case."""
    results = json.loads(run(language, generated, address, *files))
    assert isinstance(results, dict)
    return results


def expected(language: str) -> dict[str, Any]:
    return {name: result for name, result in EXPECTED.items() if name not in WITHOUT.get(language, ())}


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_reference(language: str, generated: pathlib.Path, reference: str) -> None:
    assert results(language, generated, reference) == expected(language)


@pytest.mark.parametrize("language", LANGUAGES)
def test_plaintext(language: str, generated: pathlib.Path, mindserve: dict[str, str]) -> None:
    assert results(language, generated, mindserve["plaintext"]) == expected(language)


@pytest.mark.parametrize("language", LANGUAGES)
def test_tls(language: str, generated: pathlib.Path, mindserve: dict[str, str], own_files: Files) -> None:
    assert results(language, generated, mindserve["tls"], own_files.ca) == expected(language)


@pytest.mark.parametrize("language", LANGUAGES)
def test_mutual_tls(language: str, generated: pathlib.Path, mindserve: dict[str, str], own_files: Files) -> None:
    files = (own_files.ca, own_files.client, own_files.client_key)
    assert results(language, generated, mindserve["mutual"], *files) == expected(language)
