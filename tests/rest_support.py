"""Servers for tests of HTTP: start scripts, requests by `requests` and by plain sockets."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import pathlib
import socket
from collections.abc import Iterator
from typing import Any

import requests

from conftest import ServerProcess
from e2e_support import server_process


@dataclasses.dataclass(frozen=True)
class RawAnswer:
    """What came back over a socket until it was closed, or until an answer was whole."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class Rest:
    """A server that runs, and requests to it."""

    def __init__(self, process: ServerProcess, address: str) -> None:
        self.process = process
        self.address = address
        self.url = f"http://{address}"
        self.session = requests.Session()
        self.session.trust_env = False  # no proxy

    def post(self, path: str, body: Any = None, **options: Any) -> requests.Response:
        """Posts ``body``, as JSON unless it is bytes."""
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        return self.session.post(self.url + path, data=data, timeout=60, **options)

    def get(self, path: str, **options: Any) -> requests.Response:
        return self.session.get(self.url + path, timeout=60, **options)

    def ask(self, path: str, *instances: Any) -> Any:
        """The instances of the answer, which has to have some."""
        answer = self.post(path, {"instances": list(instances)})
        assert answer.status_code == 200, answer.text
        assert "instances" in answer.json(), answer.text
        return answer.json()["instances"]

    def error(self, path: str, body: Any, status: int = 200) -> str:
        """The ``error_msg`` of an answer with this status."""
        answer = self.post(path, body)
        assert answer.status_code == status, answer.text
        assert list(answer.json()) == ["error_msg"], answer.text
        return str(answer.json()["error_msg"])

    def connect(self) -> socket.socket:
        """A plain connection."""
        host, _, port = self.address.rpartition(":")
        return socket.create_connection((host, int(port)), timeout=60)

    def raw(self, *parts: bytes) -> RawAnswer:
        """The answer to bytes that a client sends, read to the connection's end, or the answer's."""
        with self.connect() as connection:
            for part in parts:
                connection.sendall(part)
            return read_answer(connection)

    def close(self) -> None:
        self.session.close()


def read_answer(connection: socket.socket, left: bytearray | None = None) -> RawAnswer:
    """The next answer of a connection.

    Args:
        connection: where it comes from.
        left: bytes that came before, and were not part of an answer; those behind this one are put there.
    """
    data = bytearray() if left is None else left

    def more() -> None:
        part = connection.recv(65536)
        assert part, f"the connection was closed after {bytes(data)!r}"
        data.extend(part)

    while b"\r\n\r\n" not in data:
        more()
    head, _, rest = bytes(data).partition(b"\r\n\r\n")
    status_line, *lines = head.decode("latin-1").split("\r\n")
    headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
    size = int(headers.get("content-length", "0"))
    start = len(data) - len(rest)
    while len(data) < start + size:
        more()
    body = bytes(data[start : start + size])
    del data[: start + size]
    return RawAnswer(int(status_line.split()[1]), headers, body)


def is_closed(connection: socket.socket, seconds: float = 30) -> bool:
    """Whether the other side closes the connection, within that time, having sent nothing more."""
    connection.settimeout(seconds)
    try:
        return connection.recv(1) == b""
    except ConnectionResetError:
        return True


def head(path: str, *headers: str, method: str = "POST") -> bytes:
    """A request's beginning."""
    return "\r\n".join([f"{method} {path} HTTP/1.1", "Host: x", *headers, "", ""]).encode("latin-1")


@contextlib.contextmanager
def serving_rest(
    folder: pathlib.Path,
    *servables: str,
    listen: str = "'127.0.0.1:0'",
    before: str = "",
    after: str = "",
    **options: str,
) -> Iterator[Rest]:
    """A server of servables in ``folder/servables``.

    Args:
        folder: for it; its servables are there already.
        servables: their names.
        listen: arguments of ``start_restful_server``, as text.
        before: of the start script, before it.
        after: of the start script, behind it.
        options: the environment.
    """
    configs = "".join(f"server.ServableStartConfig({str(folder / 'servables')!r}, {name!r}), " for name in servables)
    script = (
        "import sys\n"
        "from mindserve import server\n"
        + (f"server.start_servables([{configs}])\n" if servables else "")
        + before
        + f"print(server.start_restful_server({listen}), flush=True)\n"
        + after
    )
    with server_process(folder / "run", script, **options) as process:
        rest = Rest(process, process.line())
        try:
            yield rest
        finally:
            rest.close()
