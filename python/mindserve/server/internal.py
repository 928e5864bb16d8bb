"""Where a server's gateway answers the server's own workers, which call other servables there."""

from __future__ import annotations

import contextlib
import os
import secrets
import socket
import threading
from pathlib import Path

from mindserve import admin, logs
from mindserve.config import LONGEST_UNIX_PATH

_PREFIX = "internal-"
_SOCKET = "grpc.sock"
# For where the directory for temporary files has too long a path.
_SHORT_PATH = Path("/tmp")

_log = logs.get_logger("server")


class InternalSocket:
    """A path for a Unix socket in a directory of its own, which only its user may enter. Thread-safe.

    The directory is made when the address is asked for first. A server does without if it can't be made, and warns.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._path: str | None = None  # of the directory; empty: there is none

    @property
    def address(self) -> str:
        """As a listener's, "unix:/…"; empty if there is none."""
        with self._lock:
            if self._path is None:
                self._path = _make_directory()
            return f"unix:{self._path}/{_SOCKET}" if self._path else ""

    def remove(self) -> None:
        """Removes the directory, and the socket if the gateway has not."""
        with self._lock:
            path, self._path = self._path, ""
        if path:
            _remove(path)


def _make_directory() -> str:
    errors: list[str] = []
    for parent in dict.fromkeys([*admin.own_directories(), _SHORT_PATH / f"mindserve-{os.geteuid()}"]):
        path = os.path.join(parent, _PREFIX + secrets.token_hex(4))
        try:
            if len(os.fsencode(f"{path}/{_SOCKET}")) > LONGEST_UNIX_PATH:
                raise OSError("its path is too long for a Unix socket")
            os.close(admin.open_directory(parent, os.geteuid(), create=True))
            _remove_stale(os.fspath(parent))
            os.mkdir(path, 0o700)
        except OSError as error:
            errors.append(f"{parent}: {error.strerror or error}")
        else:
            return path
    _log.warning("there is no internal socket, so that servables can't call each other (%s)", "; ".join(errors))
    return ""


def _remove_stale(parent: str) -> None:
    """What servers have left behind that were killed. One that has no socket yet may be about to listen."""
    for name in os.listdir(parent):
        path = os.path.join(parent, name)
        if not name.startswith(_PREFIX) or not os.path.exists(f"{path}/{_SOCKET}"):
            continue
        with socket.socket(socket.AF_UNIX) as connection:
            connection.setblocking(False)
            try:
                connection.connect(f"{path}/{_SOCKET}")
            except ConnectionRefusedError:
                _remove(path)
            except OSError:
                pass  # It lives, and is busy or another user's; or is gone by now.


def _remove(path: str) -> None:
    with contextlib.suppress(OSError):
        os.unlink(f"{path}/{_SOCKET}")
    with contextlib.suppress(OSError):
        os.rmdir(path)
