"""Connections that have shaken hands and then say nothing."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from load import Running

_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_FRAME_HEAD = 9
_SETTINGS = b"\0\0\0\4\0\0\0\0\0"  # no settings
_SETTINGS_TYPE = 4
_ACK = 1
_SETTINGS_ACK = b"\0\0\0\4\1\0\0\0\0"


class IdleConnections:
    """Opens connections to a server, and closes them when it is left."""

    def __init__(self, server: Running) -> None:
        self._server = server
        self._stack = ExitStack()
        self._count = 0
        self._tls = None
        if server.ca is not None:
            self._tls = ssl.create_default_context(cafile=str(server.ca))
            self._tls.set_alpn_protocols(["h2"])

    def grow(self, count: int) -> None:
        """Opens what is missing to ``count``; each has shaken hands, HTTP/2's included, when this returns."""
        for _ in range(count - self._count):
            self._stack.enter_context(self._open())
            self._count += 1

    def __enter__(self) -> IdleConnections:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def _open(self) -> socket.socket:
        host, _, port = self._server.address.rpartition(":")
        connection = socket.create_connection((host, int(port)), timeout=60)
        if self._tls is not None:
            connection = self._tls.wrap_socket(connection, server_hostname=host)
        connection.sendall(_PREFACE + _SETTINGS)
        acknowledged = greeted = False
        while not (acknowledged and greeted):
            head = _read(connection, _FRAME_HEAD)
            _read(connection, int.from_bytes(head[:3], "big"))
            if head[3] == _SETTINGS_TYPE:
                if head[4] & _ACK:
                    acknowledged = True
                else:
                    greeted = True
                    connection.sendall(_SETTINGS_ACK)
        return connection


@contextmanager
def idle_connections(server: Running, count: int) -> Iterator[None]:
    """``count`` connections to the server as long as this lasts."""
    with IdleConnections(server) as connections:
        connections.grow(count)
        yield


def _read(connection: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        more = connection.recv(size - len(data))
        if not more:
            raise RuntimeError("the server has closed an idle connection")
        data += more
    return data
