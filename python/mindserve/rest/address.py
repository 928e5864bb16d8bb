"""Where a REST server listens: the text of an address, and the sockets."""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import ipaddress
import os
import re
import socket

from mindserve.errors import ConfigError, StartError

_HOST = re.compile(r"[0-9A-Za-z._-]{1,253}")
_PORT = re.compile(r"(-?)([0-9]+)")
_BACKLOG = 4096
# How a client that is gone without a word is noticed, as csrc/net/transport.cc has it: seconds without a byte, between
# probes, and how many of these go unanswered.
_KEEPALIVE_IDLE, _KEEPALIVE_INTERVAL, _KEEPALIVE_PROBES = 60, 15, 4


@dataclasses.dataclass(frozen=True)
class Address:
    """A host, as name or number without brackets, and a port; 0: any free one."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def parse_address(text: str) -> Address:
    """The address that ``text`` stands for: "127.0.0.1:5501", "localhost:5501" or "[::1]:5501".

    Raises:
        ConfigError: it is none, or that of a Unix socket.
    """
    if text.startswith("unix:"):
        raise ConfigError(f"RESTful server does not support binding to unix domain socket, address '{text}'")
    illegal = ConfigError(
        f"The format of the RESTful server address '{text}' is illegal: expected 'host:port', such as '127.0.0.1:5501'"
    )
    host, colon, digits = text.rpartition(":")
    port = _PORT.fullmatch(digits)
    if not colon or port is None or not digits.isascii():
        raise illegal
    if host.startswith("["):
        if not host.endswith("]"):
            raise illegal
        host = host[1:-1]
        try:
            ipaddress.IPv6Address(host)
        except ValueError:
            raise illegal from None
    elif not _HOST.fullmatch(host):
        raise illegal
    number = int(port[2]) if len(port[2]) < 10 else 65536
    if number > 65535 or (port[1] and number):
        raise ConfigError(f"The port of the RESTful server address '{text}' is out of legal range [1 ~ 65535]")
    return Address(host, number)


def bind(address: Address) -> tuple[list[socket.socket], str]:
    """Sockets that listen at each of the host's addresses, on one port, and the address with the port that was taken.

    Raises:
        StartError: it can't be bound.
    """
    try:
        return _bind(address)
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno and error.errno > 0 else str(error)
        if error.errno == errno.EADDRINUSE:
            reason += ": another server listens there, or give port 0 for a free one"
        raise StartError(
            f"Serving Error: RESTful server start failed, bind to the socket address {address} failed: {reason}"
        ) from error


def _bind(address: Address) -> tuple[list[socket.socket], str]:
    # Without AI_ADDRCONFIG, which leaves out ::1 where there is no other IPv6.
    found = socket.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    targets = list(dict.fromkeys((family, sockaddr) for family, _, _, _, sockaddr in found))
    port = address.port
    with contextlib.ExitStack() as undo:
        sockets: list[socket.socket] = []
        for family, target in targets:
            try:
                listening = socket.socket(family, socket.SOCK_STREAM)
            except OSError:
                if len(targets) > 1:  # no IPv6 here
                    continue
                raise
            undo.enter_context(listening)
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                listening.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0 if len(targets) == 1 else 1)
            try:
                listening.bind((target[0], port, *target[2:]))
            except OSError as error:
                if error.errno == errno.EADDRNOTAVAIL and len(targets) > 1:
                    continue
                raise
            listening.listen(_BACKLOG)
            listening.setblocking(False)
            port = listening.getsockname()[1]
            sockets.append(listening)
        if not sockets:
            raise OSError(errno.EADDRNOTAVAIL, "")
        undo.pop_all()
    return sockets, str(Address(address.host, port))


def adopt(fds: tuple[int, ...]) -> list[socket.socket]:
    """Sockets of a predecessor that listen already. The descriptors stay the caller's."""
    sockets = [socket.socket(fileno=os.dup(fd)) for fd in fds]
    for each in sockets:
        each.setblocking(False)
    return sockets


def prepare_accepted(accepted: socket.socket) -> None:
    """Sets the options of a connection: no delays, and an end for it if its client does not answer any more."""
    tcp = socket.IPPROTO_TCP
    accepted.setsockopt(tcp, socket.TCP_NODELAY, 1)
    accepted.setsockopt(tcp, socket.TCP_KEEPIDLE, _KEEPALIVE_IDLE)
    accepted.setsockopt(tcp, socket.TCP_KEEPINTVL, _KEEPALIVE_INTERVAL)
    accepted.setsockopt(tcp, socket.TCP_KEEPCNT, _KEEPALIVE_PROBES)
    # Probes are sent only while nothing else is under way; this is for data that the client does not take.
    patience = 1000 * (_KEEPALIVE_IDLE + _KEEPALIVE_PROBES * _KEEPALIVE_INTERVAL)
    accepted.setsockopt(tcp, socket.TCP_USER_TIMEOUT, patience)
    accepted.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
