"""How a server hands its listening sockets over to a successor: the old side, the new side, and what they say.

The successor is the same command line, run again. Both hold one end of a Unix socket, on which each message is a JSON
object. The old one sends at once ``{"protocol", "listeners", "servables"}`` with the listening sockets as descriptors.
The successor starts its workers, listens with those sockets, and tells how far it is (``{"phase": text}``), without
accepting; then, when it is ready::

    successor   {"ready": [places of the listeners that it took]}
    old         {"go": true, "traffic": […]} from here on the successor may accept, and owns Unix sockets' files;
                                             "traffic": what `TrafficTable.handed_over` gave
    successor   {"accepting": true}          and only now the old one stops accepting

Before "go" either may give up, and the old one goes on as if nothing had been. The end of the stream tells either that
the other is gone; a successor that loses the old one before "go" ends.
"""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import errno
import json
import os
import select
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from mindserve import logs
from mindserve.errors import StartError

ENVIRONMENT = "MINDSERVE_HANDOVER_FD"
# What the address of a REST server's listener begins with, so that it is none of the gRPC server's.
HTTP = "http://"
_PROTOCOL = 1
# More than a socket takes at once, so that no message is cut.
_MAX_MESSAGE = 1 << 20
_MAX_FDS = 253  # of one message, by the kernel
_MAX_TEXT = 8 * 1024
# Seconds for the last steps, in which nothing has to be waited for.
_STEP_TIMEOUT = 30.0
# Seconds between telling a successor to end and making it.
_TERMINATE_TIMEOUT = 5.0
# Milliseconds that poll takes at most, which is less than a user may give.
_LONGEST_POLL = 2**31 - 1
_OUTPUT_LINES = 20

_log = logs.get_logger("server")


def _working_directory() -> str | None:
    try:
        return os.getcwd()
    except OSError:
        return None


# Where the process was started, as far as anyone can know: by now the start script has only been importing.
_DIRECTORY = _working_directory()


class _Closed(Exception):
    """The other side is gone."""


class _Pipe:
    """One end of the socket. Thread-safe."""

    def __init__(self, end: socket.socket) -> None:
        self._end = end

    def send(self, message: dict[str, Any], fds: Sequence[int] = ()) -> None:
        try:
            socket.send_fds(self._end, [json.dumps(message).encode()], list(fds))
        except OSError as error:
            raise _Closed from error

    def receive(self, deadline: float | None = None) -> tuple[dict[str, Any], list[int]]:
        """The next message and its descriptors, which are not inheritable.

        Raises:
            _Closed: there is none, nor will there be.
            TimeoutError: ``deadline`` by ``time.monotonic`` has passed.
            OSError: its descriptors have no room in this process; all are closed.
        """
        timeout = None if deadline is None else min(1000 * max(0.0, deadline - time.monotonic()), _LONGEST_POLL)
        poll = select.poll()
        poll.register(self._end, select.POLLIN)
        if not poll.poll(timeout):
            raise TimeoutError
        try:
            data, fds, flags, _ = socket.recv_fds(self._end, _MAX_MESSAGE, _MAX_FDS, socket.MSG_CMSG_CLOEXEC)
        except OSError as error:
            raise _Closed from error
        if flags & socket.MSG_CTRUNC:
            for fd in fds:
                os.close(fd)
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
        if not data:
            raise _Closed
        return json.loads(data), fds

    def shut_down(self) -> None:
        """Wakes who waits, on both sides. The end itself is closed with this object's last reference."""
        with contextlib.suppress(OSError):
            self._end.shutdown(socket.SHUT_RDWR)


@dataclasses.dataclass(frozen=True)
class SharedListener:
    """A listener of the old server.

    Attributes:
        given: its address as the start script gave it.
        bound: the address with the port that was taken.
        fds: descriptors of its sockets.
        file: device and inode of a Unix socket's file.
    """

    given: str
    bound: str
    fds: tuple[int, ...]
    file: tuple[int, int] | None

    @property
    def is_http(self) -> bool:
        """It is a REST server's."""
        return self.given.startswith(HTTP)

    def as_native(self) -> dict[str, Any]:
        return {"fds": list(self.fds), "file": self.file}

    def close(self) -> None:
        for fd in self.fds:
            os.close(fd)


# --- the old side -----------------------------------------------------------------------------------------------------


class Successor:
    """The process that is to take over. Whatever fails ends it.

    Args:
        listeners: what it gets; their descriptors are closed here.
        servables: the names of those that it has to serve before it is ready, or else its start script to end.

    Raises:
        StartError: there is no command line to run again, or it can't be run.
    """

    def __init__(self, listeners: Sequence[SharedListener], servables: Sequence[str]) -> None:
        self._aborted = ""
        self._phase = "it has not started anything yet"
        self._output: collections.deque[bytes] = collections.deque(maxlen=_OUTPUT_LINES)
        try:
            self._start(listeners, servables)
        except OSError as error:
            raise StartError(f"The successor can't be started: {error}; its command line: {_command_line()}") from error
        finally:
            for listener in listeners:
                listener.close()

    def _start(self, listeners: Sequence[SharedListener], servables: Sequence[str]) -> None:
        command = _command_line()
        fds = [fd for listener in listeners for fd in listener.fds]
        if len(fds) >= _MAX_FDS:
            raise StartError(f"The server listens on {len(fds)} sockets, at most {_MAX_FDS - 1} can be handed over")
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        errors_read, errors_write = os.pipe()
        with theirs, contextlib.ExitStack() as undo:
            undo.callback(ours.close)
            undo.callback(os.close, errors_read)
            self._pipe = _Pipe(ours)
            hello = {
                "protocol": _PROTOCOL,
                "servables": list(servables),
                "listeners": [
                    {"given": each.given, "bound": each.bound, "fds": len(each.fds), "file": each.file}
                    for each in listeners
                ],
            }
            # What the successor writes comes here until it has taken over, to be part of the error if it fails; then it
            # goes where this process's goes.
            with contextlib.suppress(OSError):
                os.fstat(2)
                fds.append(2)
            try:
                self._process = subprocess.Popen(
                    command,
                    cwd=_DIRECTORY,
                    env={**os.environ, ENVIRONMENT: str(theirs.fileno())},
                    stderr=errors_write,
                    pass_fds=(theirs.fileno(),),
                    # Signals of this one's terminal or job are not for it.
                    start_new_session=True,
                )
            finally:
                os.close(errors_write)
            self._relay = threading.Thread(
                target=self._relay_output, args=(errors_read,), name="mindserve-successor-output", daemon=True
            )
            self._relay.start()
            undo.pop_all()
        with contextlib.suppress(_Closed):  # then it has failed, as will be seen
            self._pipe.send(hello, fds)

    @property
    def pid(self) -> int:
        return self._process.pid

    def wait_ready(self, timeout: float, progress: Callable[[str], None]) -> list[int]:
        """Waits until it could take over. Returns the places of the listeners that it has taken.

        Raises:
            StartError: it has failed, ended, or is not ready after ``timeout`` seconds.
        """
        deadline = time.monotonic() + timeout
        while True:
            match self._receive(deadline, f"was not ready within {timeout:g} s: "):
                case {"phase": str(text)}:
                    if text != self._phase:
                        self._phase = text
                        progress(f"process {self.pid}: {text}")
                case {"failed": str(text)}:
                    raise self._error(f"failed: {text}")
                case {"ready": list(taken)}:
                    return [int(place) for place in taken]

    def begin(self, traffic: Sequence[Mapping[str, Any]]) -> None:
        """Has it accept.

        Args:
            traffic: what its start script does not know of how calls are split.

        Raises:
            StartError: it does not.
        """
        deadline = time.monotonic() + _STEP_TIMEOUT
        with contextlib.suppress(_Closed):
            self._pipe.send({"go": True, "traffic": list(traffic)})
        self._phase = "it was told to begin"
        while "accepting" not in self._receive(deadline, "did not begin: "):
            pass

    def abort(self, why: str) -> None:
        """Lets whoever waits for it fail with ``why``. Any thread."""
        self._aborted = self._aborted or why
        self._pipe.shut_down()

    def end(self) -> None:
        """Ends it, if it still runs; its workers end with it."""
        self._pipe.shut_down()
        if self._process.poll() is not None:
            return
        self._process.terminate()
        try:
            self._process.wait(_TERMINATE_TIMEOUT)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _receive(self, deadline: float, late: str) -> dict[str, Any]:
        try:
            return self._pipe.receive(deadline)[0]
        except TimeoutError:
            raise self._error(late + self._phase) from None
        except _Closed:
            raise self._error("") from None

    def _error(self, what: str) -> StartError:
        """Ends the process and makes the error that tells why."""
        if self._aborted:
            self.end()
            return StartError(f"The handover to process {self.pid} was given up: {self._aborted}")
        if not what:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(_TERMINATE_TIMEOUT)
            status = self._process.poll()
            what = "let go of the handover" if status is None else f"{_describe_exit(status)} before it was ready"
        self.end()
        self._relay.join(1.0)  # something else that it started may have its stderr for longer
        output = b"".join(self._output).decode("utf-8", "replace").rstrip()[-_MAX_TEXT:]
        text = f"The successor, process {self.pid}, {what}\nThis server goes on."
        return StartError(f"{text} The successor's last output:\n{output}" if output else text)

    def _relay_output(self, read: int) -> None:
        with open(read, "rb") as stream:
            while line := stream.readline(_MAX_TEXT):
                self._output.append(line)
                with contextlib.suppress(OSError):
                    os.write(2, line)


def _command_line() -> list[str]:
    """The arguments that this process was started with."""
    if os.getpid() == 1:
        raise StartError(
            "This server is process 1 of its container, which ends with it, and would take a successor along: have the "
            "platform start a new container before it stops this one"
        )
    if not sys.executable or sys.argv[:1] in ([], [""], ["-"]):  # interactive, embedded, or read from stdin
        raise StartError(
            "A handover runs the server's command line again, but this one can't be: its arguments are "
            f"{sys.orig_argv}. Start the server with `python start.py`"
        )
    return [sys.executable, *sys.orig_argv[1:]]


def _describe_exit(status: int) -> str:
    return f"exited with status {status}" if status >= 0 else f"was ended by signal {-status}"


# --- the new side -----------------------------------------------------------------------------------------------------


class Predecessor:
    """The server that this process is to succeed.

    Attributes:
        servables: the names of those that it serves.
        traffic: once this one may accept: what `Successor.begin` got.

    Args:
        end: this process's end of the socket.

    Raises:
        StartError: that server is gone, or speaks another protocol.
    """

    def __init__(self, end: socket.socket) -> None:
        self._pipe = _Pipe(end)
        try:
            hello, fds = self._pipe.receive(time.monotonic() + _STEP_TIMEOUT)
        except (_Closed, TimeoutError) as error:
            raise StartError("The server that hands over to this one is gone") from error
        except OSError as error:
            raise StartError(f"The sockets of the server that hands over can't be taken: {error}") from error
        if hello.get("protocol") != _PROTOCOL:
            raise StartError(
                f"The server that hands over to this one speaks protocol {hello.get('protocol')} of the handover, "
                f"expected {_PROTOCOL}: stop it and start this one instead"
            )
        self.servables = frozenset(hello["servables"])
        self._listeners: list[SharedListener] = []
        rest = iter(fds)
        for each in hello["listeners"]:
            taken = tuple(next(rest) for _ in range(each["fds"]))
            file = None if each["file"] is None else (each["file"][0], each["file"][1])
            self._listeners.append(SharedListener(each["given"], each["bound"], taken, file))
        self._stderr = next(rest, None)
        self._taken: list[int] = []
        self.traffic: list[dict[str, Any]] = []
        self._go = threading.Event()
        self._lock = threading.Lock()
        self._settled = False  # taken over, or given up
        threading.Thread(target=self._watch, name="mindserve-predecessor", daemon=True).start()

    def claim(self, addresses: Sequence[str]) -> list[SharedListener | None]:
        """For each address to listen on, the listener that has it already; those with port 0 in their order.

        Each call is about the addresses of one server, gRPC or REST, and takes the place of its call before.
        """
        http = any(address.startswith(HTTP) for address in addresses)
        self._taken = [place for place in self._taken if self._listeners[place].is_http != http]
        found: list[SharedListener | None] = []
        for address in addresses:
            places = (
                place
                for place, each in enumerate(self._listeners)
                if place not in self._taken and address in (each.given, each.bound)
            )
            place = next(places, None)
            if place is not None:
                self._taken.append(place)
            found.append(None if place is None else self._listeners[place])
        return found

    @property
    def has_grpc(self) -> bool:
        """Whether it answers gRPC."""
        return any(not each.is_http for each in self._listeners)

    @property
    def has_http(self) -> bool:
        """Whether it has a REST server."""
        return any(each.is_http for each in self._listeners)

    def report(self, phase: str) -> None:
        """Tells how far this process is."""
        with contextlib.suppress(_Closed):
            self._pipe.send({"phase": phase[:_MAX_TEXT]})

    def give_up(self, why: str) -> None:
        """Tells that this process won't take over."""
        if self._settle():
            with contextlib.suppress(_Closed):
                self._pipe.send({"failed": why[:_MAX_TEXT]})
            self._pipe.shut_down()
            self._go.set()

    def take_over(self, accept: Callable[[], bool]) -> bool:
        """Succeeds: calls ``accept`` when the other is about to stop accepting. Ends the process if that is gone.

        Returns:
            Whether it has taken over: it may have been given up meanwhile, and ``accept`` may return False.
        """
        with contextlib.suppress(_Closed):
            self._pipe.send({"ready": self._taken})
        self._go.wait()  # or it has been given up, or the watch ends the process
        if not self._settle():
            return False
        if not accept():
            self._pipe.shut_down()
            return False
        self._restore_stderr()
        for listener in self._listeners:
            listener.close()
        with contextlib.suppress(_Closed):
            self._pipe.send({"accepting": True})
        return True

    def _restore_stderr(self) -> None:
        """To where the other's goes, without a way through it."""
        if self._stderr is not None:
            sys.stderr.flush()
            os.dup2(self._stderr, 2)
            os.close(self._stderr)

    def _settle(self) -> bool:
        with self._lock:
            first, self._settled = not self._settled, True
        return first

    def _watch(self) -> None:
        with contextlib.suppress(_Closed):
            while True:
                message, _ = self._pipe.receive()
                if message.get("go"):
                    self.traffic = message.get("traffic", [])
                    self._go.set()
        if self._go.is_set() or not self._settle():
            return
        # Two servers that know nothing of each other would be worse than none: whoever looks after the old one knows
        # nothing of this one.
        self._restore_stderr()
        _log.error("the server that hands over to this one is gone, or has given up: this one ends")
        os._exit(1)


def from_environment() -> socket.socket | None:
    """This process's end of a handover's socket, if it was started for one. Takes it out of the environment."""
    text = os.environ.pop(ENVIRONMENT, None)
    if text is None:
        return None
    try:
        end = socket.socket(fileno=int(text))
    except (ValueError, OSError):
        return None  # Of a process further up, which has not closed its environment to its children.
    credentials = struct.Struct("3i")
    try:
        pid, _, _ = credentials.unpack(end.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, credentials.size))
    except OSError:
        pid = 0
    # The old server is this process's parent; or it has died since, which its end of the socket will tell.
    from_parent = pid == os.getppid() or (pid > 0 and not os.path.exists(f"/proc/{pid}"))
    if end.family != socket.AF_UNIX or end.type != socket.SOCK_SEQPACKET or not from_parent:
        end.detach()  # Somebody else's descriptor of the same number.
        return None
    end.set_inheritable(False)
    return end
