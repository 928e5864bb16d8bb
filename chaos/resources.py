"""What the server's processes hold, as the kernel tells it."""

from __future__ import annotations

import contextlib
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from chaos.served import MARK, Worker

# What changes in names while nothing does: numbers, such as process ids, what the kernel adds, and the random part of
# the internal socket's directory.
_UNSTEADY = re.compile(r"(?<=/internal-)[0-9a-f]+|:?\[\d+\]$| \(deleted\)$|\d+")


@dataclass(frozen=True)
class Process:
    """One process.

    Attributes:
        role: "master", or the worker's servable.
        descriptors: how many of each kind are open.
        threads: how many.
        own_bytes: memory in RAM that it shares with nobody: heaps and stacks.
        shared_bytes: its part of shared memory in RAM.
    """

    role: str
    descriptors: Mapping[str, int]
    threads: int
    own_bytes: int
    shared_bytes: int


@dataclass(frozen=True)
class Snapshot:
    """All processes of the server at one time, and the files that it has in its directories.

    Attributes:
        processes: the master and its children.
        files: below the directories given, without the numbers in their names, such as process ids.
    """

    processes: tuple[Process, ...]
    files: tuple[str, ...]

    def of(self, role: str) -> list[Process]:
        """The processes of one role."""
        return [process for process in self.processes if process.role == role]

    @property
    def roles(self) -> list[str]:
        """All that there are, the master first."""
        return list(dict.fromkeys(process.role for process in self.processes))


def take_snapshot(master: int, workers: list[Worker], *directories: Path) -> Snapshot:
    """The server's processes as they are now, while nothing is under way.

    Args:
        master: its process id.
        workers: as the server names them; a child of the master that is none of them gets the role "unknown".
        directories: whose files are listed.
    """
    roles = {worker.pid: worker.servable for worker in workers}
    processes = [_process(master, "master")]
    processes += [_process(pid, roles.get(pid, "unknown")) for pid in sorted(children(master))]
    found = [str(path) for directory in directories for path in directory.rglob("*") if not path.is_dir()]
    return Snapshot(tuple(processes), tuple(sorted(_UNSTEADY.sub("", path) for path in found)))


def children(pid: int) -> set[int]:
    """Direct children of a process."""
    found: set[int] = set()
    for task in Path(f"/proc/{pid}/task").iterdir():
        with contextlib.suppress(FileNotFoundError):
            found.update(int(child) for child in (task / "children").read_text().split())
    return found


def marked_processes(mark: str) -> list[int]:
    """Processes, whoever their parents are, that were started with this mark in their environment."""
    wanted = f"{MARK}={mark}".encode()
    found = []
    for directory in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if wanted in (directory / "environ").read_bytes().split(b"\0"):
                found.append(int(directory.name))
    return found


def _process(pid: int, role: str) -> Process:
    directory = Path(f"/proc/{pid}")
    rollup = dict(re.findall(r"^(\w+): +(\d+) kB$", (directory / "smaps_rollup").read_text(), re.MULTILINE))
    return Process(
        role,
        _descriptors(directory / "fd"),
        len(list((directory / "task").iterdir())),
        int(rollup["Pss_Anon"]) * 1024,
        int(rollup["Pss_Shmem"]) * 1024,
    )


def _descriptors(directory: Path) -> Mapping[str, int]:
    kinds: Counter[str] = Counter()
    for link in directory.iterdir():
        with contextlib.suppress(FileNotFoundError):  # the one that lists
            target = str(link.readlink())
            # "socket:[123]", "anon_inode:[eventfd]", "/memfd:requests (deleted)", or a path, such as that of a log, in
            # which there is the version.
            kinds[_UNSTEADY.sub("", target)] += 1
    return dict(kinds)
