"""Admin sockets: where the command line finds a user's servers, and what it says to them.

Each process that runs a server has one: ``<pid>.sock`` in a directory that only its user may enter. A request is a line
of JSON, ``{"command": "status"}`` with the command's arguments beside it; the answer is lines of JSON,
``{"progress": text}`` as often as there is something to tell, and at the end ``{"result": {…}}`` or
``{"error": text}``.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import socket
import stat
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from mindserve.control import LineBuffer
from mindserve.errors import MindserveError

# Seconds in which a server begins to answer, or is taken for one that hangs.
_CONNECT_TIMEOUT = 10.0


class AdminError(MindserveError):
    """No such server, more than one, or one that could not do what it was asked for."""


def own_directories() -> list[Path]:
    """Where a server of this process's user may have its socket, best first."""
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    fallback = _temporary_directory() / f"mindserve-{os.geteuid()}"
    return [Path(runtime) / "mindserve", fallback] if runtime else [fallback]


def _temporary_directory() -> Path:
    try:
        return Path(tempfile.gettempdir())
    except FileNotFoundError:
        # None that can be written to, as where disks are full: the caller finds out, and does without.
        return Path(os.environ.get("TMPDIR") or "/tmp")


def open_directory(path: Path, uid: int, *, create: bool = False) -> int:
    """A descriptor of a directory for admin sockets, which must be its user's alone.

    Args:
        path: the directory.
        uid: whose it must be.
        create: makes it if it is not there.

    Raises:
        OSError: it isn't there, can't be made, or others may have put something into it.
    """
    if create:
        with contextlib.suppress(FileExistsError):
            path.mkdir(mode=0o700)
    directory = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    status = os.fstat(directory)
    if status.st_uid != uid or stat.S_IMODE(status.st_mode) & 0o077:
        os.close(directory)
        raise PermissionError(
            errno.EACCES, f"not a directory of user {uid} alone (mode 0700), so admin sockets in it are not used", path
        )
    return directory


def socket_path(directory: int, pid: int) -> str:
    """The path of a server's socket in an open directory: short enough for any directory's."""
    return f"/proc/self/fd/{directory}/{pid}.sock"


def connect(directory: int, pid: int) -> socket.socket | None:
    """A connection to that server; None if there is none. Removes a socket that a server has left behind."""
    connection = socket.socket(socket.AF_UNIX)
    try:
        connection.settimeout(_CONNECT_TIMEOUT)
        connection.connect(socket_path(directory, pid))
    except (FileNotFoundError, ConnectionRefusedError, PermissionError) as error:
        connection.close()
        if isinstance(error, ConnectionRefusedError):
            with contextlib.suppress(OSError):
                os.unlink(f"{pid}.sock", dir_fd=directory)
        return None
    except BaseException:
        connection.close()
        raise
    return connection


def pids_in(directory: int) -> list[int]:
    """The servers that have, or had, a socket there."""
    names = (name.partition(".sock") for name in os.listdir(directory))
    return sorted(int(pid) for pid, end, rest in names if end and not rest and pid.isascii() and pid.isdecimal())


def ask(pid: int | None, command: str, arguments: Mapping[str, Any], progress: Callable[[str], None]) -> dict[str, Any]:
    """Has a server do something, and waits until it has.

    Args:
        pid: its process; None: the only server of this user.
        command: what to do.
        arguments: of the command.
        progress: is called with each line that the server tells meanwhile.

    Returns:
        What the server answers.

    Raises:
        AdminError: there is no such server or, without ``pid``, not exactly one; or what the server says is wrong.
    """
    try:
        pid, connection = _find_only() if pid is None else (pid, _find(pid))
    except BlockingIOError as error:
        raise AdminError("A server has no room for more who ask: many do now, or it is stopped, or hangs") from error
    try:
        with connection:
            # One that takes no more clients may have said so before, and closed it.
            with contextlib.suppress(BrokenPipeError):
                connection.sendall(json.dumps({**arguments, "command": command}).encode() + b"\n")
            for answer in _answers(connection):
                match answer:
                    case {"progress": str(text)}:
                        progress(text)
                    case {"result": dict(result)}:
                        return result
                    case {"error": str(text)}:
                        raise AdminError(text)
    except TimeoutError as error:
        raise AdminError(f"The server, process {pid}, does not answer: it is stopped, or hangs") from error
    raise AdminError(f"The server, process {pid}, ended before it had answered")


def _answers(connection: socket.socket) -> Iterator[Any]:
    lines = LineBuffer()
    with contextlib.suppress(ConnectionError):
        while data := connection.recv(65536):
            connection.settimeout(None)  # It lives, and what it does may take long.
            yield from map(json.loads, lines.feed(data))


def _directories(uid: int) -> list[Path]:
    """Where that user's servers may have their sockets, as far as another process can know."""
    if uid == os.geteuid() and "XDG_RUNTIME_DIR" in os.environ:
        return own_directories()
    return [Path(f"/run/user/{uid}/mindserve"), Path(tempfile.gettempdir()) / f"mindserve-{uid}"]


def _open_all(uid: int, stack: contextlib.ExitStack) -> list[int]:
    found: list[int] = []
    for path in _directories(uid):
        with contextlib.suppress(OSError):
            found.append(open_directory(path, uid))
            stack.callback(os.close, found[-1])
    return found


def _find(pid: int) -> socket.socket:
    try:
        uid = os.stat(f"/proc/{pid}").st_uid
    except OSError as error:
        raise AdminError(f"There is no process {pid}") from error
    with contextlib.ExitStack() as stack:
        for directory in _open_all(uid, stack):
            connection = connect(directory, pid)
            if connection is not None:
                return connection
    places = ", ".join(str(path) for path in _directories(uid))
    raise AdminError(f"Process {pid} runs no MindServe server: there is no socket of it in {places}")


def _find_only() -> tuple[int, socket.socket]:
    uid = os.geteuid()
    found: dict[int, socket.socket] = {}
    with contextlib.ExitStack() as stack:
        for directory in _open_all(uid, stack):
            for pid in pids_in(directory):
                if pid not in found and (connection := connect(directory, pid)) is not None:
                    found[pid] = connection
    if len(found) == 1:
        return found.popitem()
    for connection in found.values():
        connection.close()
    if found:
        pids = ", ".join(str(pid) for pid in sorted(found))
        raise AdminError(f"Several MindServe servers of this user run: say which, processes {pids}")
    places = ", ".join(str(path) for path in _directories(uid))
    raise AdminError(f"No MindServe server of this user runs: there is no socket of one in {places}")
