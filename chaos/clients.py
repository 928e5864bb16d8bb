"""The client processes of a run."""

from __future__ import annotations

import itertools
import os
import random
import subprocess
import sys
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from chaos.ledger import Ledger, read_ledger
from chaos.load import PATIENCE
from chaos.served import MARK

# Numbers of requests that a process has for itself.
_REQUESTS_PER_PROCESS = 10_000_000


@dataclass(frozen=True)
class _Client:
    name: str
    transport: str
    process: subprocess.Popen[bytes]


class Clients:
    """Starts client processes, kills some, and ends the others.

    Args:
        scratch: where their ledgers go, and where ``certificates`` are.
        addresses: the server's, by transport.
        seed: of what the clients choose by chance.
    """

    def __init__(self, scratch: Path, addresses: Mapping[str, str], seed: int) -> None:
        self._scratch = scratch
        self._directory = scratch / "clients"
        self._directory.mkdir()
        self._addresses = addresses
        self._random = random.Random(seed)
        self._ordinals = itertools.count(1)
        self._lock = threading.Lock()
        self._running: list[_Client] = []
        self._killed: list[_Client] = []
        self._ended: list[_Client] = []

    def start(self, each: int) -> None:
        """``each`` processes by each transport."""
        with self._lock:
            for transport in self._addresses:
                for _ in range(each):
                    self._running.append(self._start(transport))

    def kill_one(self, choice: random.Random) -> str:
        """Kills one, with all that it has under way, and starts another by its transport. Returns its name."""
        with self._lock:
            victim = choice.choice(self._running)
            if victim.process.poll() is not None:
                raise RuntimeError(f"the client process {victim.name} has ended: {self._log(victim)}")
            victim.process.kill()
            victim.process.wait()
            self._running.remove(victim)
            self._killed.append(victim)
            self._running.append(self._start(victim.transport))
        return victim.name

    def end(self) -> list[str]:
        """Lets all finish what is under way. Returns what went wrong with the processes themselves."""
        complaints = []
        with self._lock:
            for client in self._running:
                assert client.process.stdin is not None
                client.process.stdin.close()
            for client in self._running:
                try:
                    status = client.process.wait(PATIENCE + 20)
                except subprocess.TimeoutExpired:
                    client.process.kill()
                    status = client.process.wait()
                if status != 0:
                    complaints.append(f"the client process {client.name} ended with {status}: {self._log(client)}")
            self._ended += self._running
            self._running.clear()
        return complaints

    def kill(self) -> None:
        """Ends what still runs."""
        with self._lock:
            for client in self._running:
                client.process.kill()
                client.process.wait()
            self._running.clear()

    def ledgers(self) -> list[Ledger]:
        """Of all processes, once they have ended."""
        ended = [(client, False) for client in self._ended] + [(client, True) for client in self._killed]
        paths = [(self._directory / f"{client.name}.ledger", killed) for client, killed in ended]
        # A process that was killed young has none.
        return [read_ledger(path, killed=killed) for path, killed in paths if path.exists()]

    def _start(self, transport: str) -> _Client:
        ordinal = next(self._ordinals)
        name = f"{ordinal:03}-{transport}"
        command = [sys.executable, "-m", "chaos.load", str(self._directory / name)]
        command += [str(ordinal * _REQUESTS_PER_PROCESS), str(self._random.getrandbits(32))]
        command += [transport, self._addresses[transport]]
        if transport == "mTLS":
            command.append(str(self._scratch / "certificates"))
        environment = {**os.environ, MARK: str(self._scratch)}
        with (self._directory / f"{name}.log").open("wb") as log:
            process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=log, stderr=log, env=environment)
        return _Client(name, transport, process)

    def _log(self, client: _Client) -> str:
        return (self._directory / f"{client.name}.log").read_text(errors="replace")[-2000:]
