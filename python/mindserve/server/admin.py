"""A server's admin socket, and the table of commands that it answers; see `mindserve.admin` for what is said there."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import struct
import threading
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from mindserve import admin, checks, logs
from mindserve.control import ControlError, LineBuffer
from mindserve.errors import MindserveError

if TYPE_CHECKING:
    from mindserve.server.core import Server

# Connections at a time; more are told so, and closed.
_MAX_CONNECTIONS = 16
# Seconds for a request to come, and as many for an answer to be taken.
_REQUEST_TIMEOUT = 10.0
# Seconds that the end of a server waits for commands that are being answered.
_JOIN_TIMEOUT = 10.0
# Seconds until another try where no connection can be taken, for want of descriptors or memory.
_BACK_OFF = 1.0
_CREDENTIALS = struct.Struct("3i")  # struct ucred

_log = logs.get_logger("server")

Arguments = Mapping[str, Any]
Progress = Callable[[str], None]


def _status(server: Server, arguments: Arguments, progress: Progress) -> dict[str, Any]:
    return server.status()


def _handover(server: Server, arguments: Arguments, progress: Progress) -> dict[str, Any]:
    return {"pid": server.handover(arguments.get("timeout"), progress), "predecessor": os.getpid()}


def _reload(server: Server, arguments: Arguments, progress: Progress) -> dict[str, Any]:
    servable = arguments.get("servable")
    if servable is not None:
        checks.check_str("servable", servable)
    progress("loading")
    server.reload(servable)
    return {
        "pid": os.getpid(),
        "servables": [
            {"servable": each.servable, "versions": list(each.versions)}
            for each in server.stats().servables
            if servable in (None, each.servable)
        ],
    }


def _traffic(server: Server, arguments: Arguments, progress: Progress) -> dict[str, Any]:
    """Shows it, after it has changed what "set" or "clear" says."""
    name = arguments.get("name")
    if (change := arguments.get("set")) is not None:
        server.traffic.change(checks.check_str("name", name), change)
    elif arguments.get("clear"):
        server.traffic.remove(checks.check_str("name", name))
        name = None
    splits = server.traffic.splits()
    return {"pid": os.getpid(), "traffic": [splits[each].as_dict() for each in splits if name in (None, each)]}


# What a server can be asked to do. A command gets the server, the request's arguments and where to tell how far it is;
# what it returns is the result, and a MindserveError that it raises is the error.
COMMANDS: dict[str, Callable[[Server, Arguments, Progress], dict[str, Any]]] = {
    "handover": _handover,
    "reload": _reload,
    "status": _status,
    "traffic": _traffic,
}


class AdminSocket:
    """Listens for commands, from a thread of its own; each is run in another one.

    A server does without if the socket can't be made, and warns.
    """

    def __init__(self, server: Server) -> None:
        self._server = server
        self._lock = threading.Lock()
        self._busy: dict[threading.Thread, socket.socket] = {}
        self._closed = threading.Event()
        self._name = f"{os.getpid()}.sock"
        self._listening: tuple[socket.socket, int] | None = self._listen_somewhere()
        if self._listening is not None:
            listening, _ = self._listening
            threading.Thread(target=self._accept, args=(listening,), name="mindserve-admin", daemon=True).start()

    def close(self) -> None:
        """Takes no more commands. Returns at once; see `join`."""
        self._closed.set()
        with self._lock:
            before, self._listening = self._listening, None
        if before is not None:
            listening, directory = before
            with contextlib.suppress(OSError):
                os.unlink(self._name, dir_fd=directory)
            os.close(directory)
            listening.shutdown(socket.SHUT_RDWR)  # ends accept
            listening.close()
        with self._lock:
            busy = list(self._busy.values())
        for connection in busy:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RD)  # those that wait for a request

    def join(self) -> None:
        """Waits a while until the commands that came are answered. For the very end: what they wait for ends before."""
        deadline = time.monotonic() + _JOIN_TIMEOUT
        with self._lock:
            busy = list(self._busy)
        for thread in busy:
            thread.join(max(0.0, deadline - time.monotonic()))

    def _listen_somewhere(self) -> tuple[socket.socket, int] | None:
        errors: list[str] = []
        for path in admin.own_directories():
            try:
                return self._listen(admin.open_directory(path, os.geteuid(), create=True))
            except OSError as error:
                errors.append(f"{path}: {error.strerror or error}")
        _log.warning(
            "there is no admin socket, so that the mindserve command can't reach this server (%s)", "; ".join(errors)
        )
        return None

    def _listen(self, directory: int) -> tuple[socket.socket, int]:
        """Takes over the descriptor of the directory."""
        with contextlib.ExitStack() as undo:
            undo.callback(os.close, directory)
            for pid in admin.pids_in(directory):
                # One that hangs may refuse, which is no concern of this one's.
                with contextlib.suppress(OSError):
                    if (other := admin.connect(directory, pid)) is not None:  # else it is removed
                        other.close()
            listening = undo.enter_context(socket.socket(socket.AF_UNIX))
            # The permissions that the file gets, by Linux; the directory keeps others out in any case.
            os.fchmod(listening.fileno(), 0o600)
            listening.bind(admin.socket_path(directory, os.getpid()))
            listening.listen(_MAX_CONNECTIONS)
            undo.pop_all()
        return listening, directory

    def _accept(self, listening: socket.socket) -> None:
        while True:
            try:
                connection, _ = listening.accept()
            except OSError:
                if self._closed.wait(_BACK_OFF):
                    return
                continue
            thread = threading.Thread(
                target=self._serve, args=(connection,), name="mindserve-admin-command", daemon=True
            )
            with self._lock:
                if self._listening is None or not _is_allowed(connection):
                    connection.close()
                    continue
                if len(self._busy) >= _MAX_CONNECTIONS:
                    _refuse(connection)
                    continue
                try:
                    thread.start()
                except RuntimeError:  # there can be no more threads
                    connection.close()
                    continue
                self._busy[thread] = connection

    def _serve(self, connection: socket.socket) -> None:
        try:
            with connection, contextlib.suppress(OSError, ControlError):
                connection.settimeout(_REQUEST_TIMEOUT)
                line = _read_line(connection)
                connection.settimeout(_REQUEST_TIMEOUT)
                if line:
                    _send(connection, self._answer(line, lambda text: _send(connection, {"progress": text})))
        finally:
            with self._lock:
                del self._busy[threading.current_thread()]

    def _answer(self, line: bytes, progress: Progress) -> dict[str, Any]:
        def tell(text: str) -> None:
            with contextlib.suppress(OSError):  # who asked is gone; the command goes on
                progress(text)

        try:
            request = json.loads(line)
            command = COMMANDS[request.pop("command")]
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            known = ", ".join(sorted(COMMANDS))
            return {"error": f"A request should be a JSON object with a 'command' among {known}, but is {line[:200]!r}"}
        try:
            return {"result": command(self._server, request, tell)}
        except MindserveError as error:
            return {"error": str(error)}
        except Exception as error:
            _log.exception("a fault in a command of the admin socket")
            return {"error": f"a fault in the server, see its log: {type(error).__name__}: {error}"}


def _is_allowed(connection: socket.socket) -> bool:
    credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    _, uid, _ = _CREDENTIALS.unpack(credentials)
    return uid in (0, os.geteuid())


def _refuse(connection: socket.socket) -> None:
    text = (
        f"The server, process {os.getpid()}, runs, but its admin socket has {_MAX_CONNECTIONS} clients, the most at a "
        f"time: end some of them, or try again. One that asks for nothing is disconnected after {_REQUEST_TIMEOUT:g} s"
    )
    with connection, contextlib.suppress(OSError):
        connection.setblocking(False)  # it has room: nothing was sent there yet
        _send(connection, {"error": text})


def _read_line(connection: socket.socket) -> bytes:
    deadline = time.monotonic() + _REQUEST_TIMEOUT
    lines = LineBuffer()
    while data := connection.recv(65536):
        if whole := lines.feed(data):
            return whole[0]
        # However it drips.
        connection.settimeout(max(0.001, deadline - time.monotonic()))
    return b""


def _send(connection: socket.socket, values: dict[str, Any]) -> None:
    connection.sendall(json.dumps(values).encode() + b"\n")
