"""The client programs of tests/interop, by their language: how they are run, and calls that they are told to make."""

from __future__ import annotations

import base64
import json
import os
import pathlib
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pytest

from e2e_support import ROOT

HERE = ROOT / "tests" / "interop"
BUILT = ROOT / "build" / "interop"
LANGUAGES = ("grpcio", "grpclib", "javascript", "go")


@dataclass(frozen=True)
class Call:
    """A call that every client can make, of messages that are bytes.

    Attributes:
        path: the method's.
        requests: the messages; one unless it streams.
        streams: if the method streams, either way.
        metadata: names and values.
        timeout: seconds.
        compression: of the requests: "gzip" or "deflate"; empty: none.
        take: after so many answers the call is cancelled; 0: it goes on to its end.
    """

    path: str
    requests: Sequence[bytes]
    streams: bool = False
    metadata: Sequence[tuple[str, str]] = ()
    timeout: float = 60
    compression: str = ""
    take: int = 0


@dataclass(frozen=True)
class Answer:
    """What came of a call.

    Attributes:
        code: the number of its status.
        details: the status's text.
        messages: those that were received.
        metadata: the trailing ones, those of text.
    """

    code: int
    details: str
    messages: Sequence[bytes]
    metadata: Sequence[tuple[str, str]]


def generate(directory: pathlib.Path) -> None:
    """Puts the modules of interop.proto into a directory: protobuf's, grpcio's and grpclib's."""
    kinds = ("python", "grpc_python", "grpclib_python")
    plugin = pathlib.Path(sys.executable).parent / "protoc-gen-grpclib_python"
    subprocess.run(
        [
            *(sys.executable, "-m", "grpc_tools.protoc", f"-I{HERE}"),
            *(f"--{kind}_out={directory}" for kind in kinds),
            *(f"--plugin=protoc-gen-grpclib_python={plugin}", "interop.proto"),
        ],
        check=True,
    )


def command(language: str, generated: pathlib.Path) -> list[object]:
    """What runs a client; its arguments, an address and perhaps certificates, follow."""
    if language in ("grpcio", "grpclib"):
        return [sys.executable, HERE / f"{language}_client.py", generated]
    stamp = BUILT / {"javascript": "node", "go": "go"}[language] / ".stamp"
    if not stamp.exists():
        reason = f"the client for {language} isn't built: scripts/interop.sh builds it, with what docs/install.md names"
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)
    if language == "go":
        return [stamp.parent / "client"]
    return ["node", stamp.parent / "client.js", HERE / "interop.proto"]


def run(language: str, generated: pathlib.Path, *arguments: str, given: str = "") -> str:
    """What a client prints.

    Args:
        language: whose client.
        generated: where the modules of interop.proto are.
        arguments: of the client.
        given: its standard input.
    """
    done = subprocess.run(
        [*map(str, command(language, generated)), *arguments],
        input=given,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def make_calls(
    calls: Mapping[str, Call], language: str, generated: pathlib.Path, address: str, *files: str
) -> dict[str, Answer]:
    """Has a client make calls, one after the other, and gives what came of each.

    Args:
        calls: by any names.
        language: whose client.
        generated: where the modules of interop.proto are.
        address: the server's.
        files: by TLS: of the authority's certificate, of the client's own, and of its key.
    """
    given = [
        {**vars(call), "requests": [base64.b64encode(request).decode() for request in call.requests]}
        for call in calls.values()
    ]
    printed = json.loads(run(language, generated, "--calls", address, *files, given=json.dumps(given)))
    answers = [
        Answer(
            each["code"],
            each["details"],
            [base64.b64decode(message) for message in each["messages"]],
            [(name, value) for name, value in each["metadata"]],
        )
        for each in printed
    ]
    return dict(zip(calls, answers, strict=True))
