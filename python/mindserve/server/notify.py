"""Tells a service manager such as systemd how it stands with the server (``sd_notify``); without one, nothing."""

from __future__ import annotations

import contextlib
import os
import socket


def notify(state: str) -> None:
    """Sends ``state``, as "READY=1", to the socket that the environment's NOTIFY_SOCKET names, if it does."""
    path = os.environ.get("NOTIFY_SOCKET", "")
    if not path.startswith(("/", "@")):
        return
    address = f"\0{path[1:]}" if path[0] == "@" else path
    with (
        contextlib.suppress(OSError),
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as manager,
    ):
        manager.sendto(state.encode(), address)
