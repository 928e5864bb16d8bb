"""The server under load, as a process of its own."""

from __future__ import annotations

import ctypes
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_LISTENING = "listening on "
# By which the processes of a run are found, whoever their parents are by then.
MARK = "CHAOS_RUN"
TRANSPORTS = ("TCP", "Unix", "mTLS")
# Seconds for a server to end.
_END = 60.0
_PR_SET_CHILD_SUBREAPER = 36


@dataclass(frozen=True)
class Worker:
    """A worker, or the place of one."""

    servable: str
    version: int
    device_id: int
    pid: int | None
    ready: bool
    restarts: int
    in_flight: int


class ServerError(Exception):
    """The server could not do what it was asked for."""


class Served:
    """Starts the server; any thread may ask it.

    Args:
        scratch: a directory for its files, with ``servables`` and ``certificates`` in it.

    Attributes:
        pid: of the process that serves now.
        runtime: directories where it may leave files while it runs, and none afterwards.
    """

    def __init__(self, scratch: Path) -> None:
        self.directory = scratch / "server"
        self.runtime = [self.directory / "tmp", self.directory / "run"]
        for directory in self.runtime:
            directory.mkdir(mode=0o700, parents=True)
        self.marks = scratch / "marks"
        self.notes = scratch / "notes"
        self.log = self.directory / "stderr"
        # A successor's parent ends before it does: so it becomes a child of this process, which learns how it ends.
        if ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
            raise OSError("this process can't become the parent of the server's successors")
        # The socket's address is relative for the server, absolute for its clients.
        command = [sys.executable, "-m", "chaos.server", str(scratch / "servables"), str(scratch / "certificates")]
        environment = {
            **os.environ,
            "TMPDIR": str(self.runtime[0]),
            "XDG_RUNTIME_DIR": str(self.runtime[1]),
            "CHAOS_MARKS": str(self.marks),
            "CHAOS_NOTES": str(self.notes),
            # It runs elsewhere, and must find this package.
            "PYTHONPATH": str(Path(__file__).resolve().parent.parent),
            MARK: str(scratch),
        }
        with self.log.open("w") as stream:
            self._process = subprocess.Popen(
                [*command, "socket"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=stream,
                cwd=self.directory,
                env=environment,
                text=True,
            )
        self.pid = self._process.pid
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line.startswith(_LISTENING):
            raise ServerError(f"the server has ended:\n{self.log.read_text(errors='replace')[-4000:]}")
        addresses = line.removeprefix(_LISTENING).split()
        addresses[1] = f"unix:{self.directory / 'socket'}"
        self.addresses = dict(zip(TRANSPORTS, addresses, strict=True))

    def stats(self) -> dict[str, Any]:
        """What `mindserve.server.stats` says there."""
        return self._ask("stats")

    def reload(self) -> None:
        """`mindserve.server.reload`.

        Raises:
            ServerError: it has failed.
        """
        self._ask("reload")

    def hand_over(self) -> None:
        """`mindserve.server.handover`; returns when the predecessor has ended.

        Raises:
            ServerError: it has failed, or the predecessor has not ended well.
        """
        predecessor, self.pid = self.pid, self._ask("handover")["pid"]
        if (status := _wait(predecessor, _END)) != 0:
            raise ServerError(f"the predecessor ended with status {status}")

    def workers(self, servable: str | None = None) -> list[Worker]:
        """All workers, or those of one servable."""
        names = Worker.__dataclass_fields__
        found = [Worker(**{name: worker[name] for name in names}) for worker in self.stats()["workers"]]
        return [worker for worker in found if servable in (None, worker.servable)]

    def failed_reloads(self, servable: str) -> int:
        """How often a reload of this servable has failed."""
        return sum(int(item["reloads_failed"]) for item in self.stats()["servables"] if item["servable"] == servable)

    def end(self) -> int | None:
        """SIGTERM. Returns the exit status; None if it does not end."""
        os.kill(self.pid, signal.SIGTERM)
        return _wait(self.pid, _END)

    def close(self) -> None:
        """Makes an end of what is left, and of its successors: they stop with their input."""
        for stream in (self._process.stdin, self._process.stdout):
            assert stream is not None
            stream.close()

    def _ask(self, command: str) -> dict[str, Any]:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.connect(str(self.directory / f"commands-{self.pid}"))
            with connection.makefile("rw") as stream:
                stream.write(f"{command}\n")
                stream.flush()
                answer: dict[str, Any] = json.loads(stream.read())
        if "error" in answer:
            raise ServerError(answer["error"])
        return answer


def until(condition: Callable[[], bool], seconds: float, pause: float = 0.05) -> bool:
    """Whether the condition came true within so many seconds."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(pause)
    return True


def _wait(pid: int, seconds: float) -> int | None:
    """The exit status of a child, negative for a signal; None, and SIGKILL for it, if it does not end in time."""
    statuses: list[int] = []

    def ended() -> bool:
        found, status = os.waitpid(pid, os.WNOHANG)
        if found:
            statuses.append(os.waitstatus_to_exitcode(status))
        return bool(found)

    if until(ended, seconds):
        return statuses[0]
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    return None
