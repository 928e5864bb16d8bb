"""The server under load, as a process of its own."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_LISTENING = "listening on "
# By which the processes of a run are found, whoever their parents are by then.
MARK = "CHAOS_RUN"
TRANSPORTS = ("TCP", "Unix", "mTLS")


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


class Served:
    """Starts the server; any thread may ask it.

    Args:
        scratch: a directory for its files, with ``servables`` and ``certificates`` in it.
    """

    def __init__(self, scratch: Path) -> None:
        self.directory = scratch / "server"
        self.temporary = self.directory / "tmp"
        self.temporary.mkdir(parents=True)
        self.marks = scratch / "marks"
        self.log = self.directory / "stderr"
        self._lock = threading.Lock()
        # Addresses of Unix sockets are short: relative to where the server runs, absolute for its clients.
        command = [sys.executable, "-m", "chaos.server", str(scratch / "servables"), str(scratch / "certificates")]
        environment = {
            **os.environ,
            "TMPDIR": str(self.temporary),
            "CHAOS_MARKS": str(self.marks),
            "PYTHONPATH": os.pathsep.join(sys.path[1:] if sys.path[0] == "" else sys.path),
            MARK: str(scratch),
        }
        with self.log.open("w") as stream:
            self.process = subprocess.Popen(
                [*command, "socket"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=stream,
                cwd=self.directory,
                env=environment,
                text=True,
            )
        addresses = self._line().removeprefix(_LISTENING).split()
        addresses[1] = f"unix:{self.directory / 'socket'}"
        self.addresses = dict(zip(TRANSPORTS, addresses, strict=True))

    @property
    def pid(self) -> int:
        return self.process.pid

    def stats(self) -> dict[str, Any]:
        """What `mindserve.server.stats` says there."""
        return self._ask("stats")

    def reload(self) -> str:
        """`mindserve.server.reload`; returns its error's text, or nothing."""
        return str(self._ask("reload").get("error", ""))

    def workers(self, servable: str | None = None) -> list[Worker]:
        """All workers, or those of one servable."""
        names = Worker.__dataclass_fields__
        found = [Worker(**{name: worker[name] for name in names}) for worker in self.stats()["workers"]]
        return [worker for worker in found if servable in (None, worker.servable)]

    def failed_reloads(self, servable: str) -> int:
        """How often a reload of this servable has failed."""
        return sum(int(item["reloads_failed"]) for item in self.stats()["servables"] if item["servable"] == servable)

    def end(self) -> int:
        """SIGTERM. Returns the exit status, or that of SIGKILL if it does not end within a minute."""
        self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(60)
        except subprocess.TimeoutExpired:
            return self.kill()

    def kill(self) -> int:
        """Ends it, if it has not ended."""
        self.process.kill()
        for stream in (self.process.stdin, self.process.stdout):
            assert stream is not None
            stream.close()
        return self.process.wait()

    def _ask(self, command: str) -> dict[str, Any]:
        assert self.process.stdin is not None
        with self._lock:
            self.process.stdin.write(f"{command}\n")
            self.process.stdin.flush()
            answer: dict[str, Any] = json.loads(self._line())
        return answer

    def _line(self) -> str:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError(f"the server has ended:\n{self.log.read_text(errors='replace')[-4000:]}")
        return line.rstrip("\n")


def until(condition: Callable[[], bool], seconds: float, pause: float = 0.05) -> bool:
    """Whether the condition came true within so many seconds."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(pause)
    return True
