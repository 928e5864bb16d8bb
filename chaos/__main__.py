"""Puts load on a server, breaks it in every way, and accounts for every request.

Exit status 0 if every request is accounted for and the server is as it was, else 1; then the logs and ledgers are kept.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import platform
import random
import re
import shutil
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from chaos import accounting
from chaos.certificates import Certificates
from chaos.clients import Clients
from chaos.events import Fault
from chaos.faults import Faults
from chaos.ledger import Ledger, LedgerWriter, read_ledger
from chaos.models import make_servables
from chaos.report import Report, Table, make_tables
from chaos.resources import Snapshot, marked_processes, take_snapshot
from chaos.served import Served, until
from chaos.server import HANDLER_THREADS, MAX_ENQUEUED_BYTES
from mindserve.server import Limits, ServableStartConfig

# Seconds of load before the first snapshot, and requests, if that takes longer: what is made only once is made in it.
_WARM_UP = 8.0
_WARM_UP_REQUESTS = 3000
_HANDOVERS = 2
# Seconds of load before and after each.
_BETWEEN_HANDOVERS = 2.0
# Seconds until a server that nobody asks is quiet.
_QUIET = 30.0
_SHOWN_SORTS = 20
TOLERANCE = accounting.Tolerance(own_bytes=24 << 20, shared_bytes=MAX_ENQUEUED_BYTES, threads=2)


class Progress:
    """Says on the terminal what goes on."""

    def __init__(self) -> None:
        self._began = time.monotonic()

    def say(self, text: str) -> None:
        """A line with the time."""
        print(f"{time.monotonic() - self._began:7.1f} s  {text}", flush=True)

    def fault(self, fault: Fault) -> None:
        """A fault that is over."""
        name = f"{fault.kind}: {fault.servable}" if fault.servable else fault.kind
        failed = f"  FAILED: {fault.failed}" if fault.failed else ""
        self.say(f"{name:34} {fault.detail:36} all as before after {fault.seconds:5.2f} s{failed}")


class Run:
    """One run, in a scratch directory that it leaves behind.

    Args:
        scratch: an empty directory.
        seconds: of faults.
        seed: of everything that is chosen by chance.
        each: client processes by each transport.
        only: found in the names of the faults that are wanted.
        progress: told of what goes on.
    """

    def __init__(self, scratch: Path, seconds: float, seed: int, each: int, only: str, progress: Progress) -> None:
        self._scratch = scratch
        self._seconds = seconds
        self._seed = seed
        self._each = each
        self._only = only
        self._progress = progress
        self._offences: list[str] = []
        self._load = os.getloadavg()[0]

    def run(self) -> Report:
        """All of it."""
        directories = [self._scratch / name for name in ("servables", "certificates")]
        make_servables(directories[0])
        directories[1].mkdir()
        certificates = Certificates(directories[1])
        served = Served(self._scratch)
        clients = Clients(self._scratch, served.addresses, self._seed)
        try:
            with LedgerWriter(self._scratch / "faults.ledger") as ledger:
                faults = Faults(
                    served, directories[0], certificates, clients, ledger, self._seed, self._only, self._progress.fault
                )
                tables = self._phases(served, clients, faults)
        finally:
            clients.kill()
            served.close()
            if not until(lambda: not self._processes(), _QUIET):
                for pid in self._processes():
                    os.kill(pid, signal.SIGKILL)
        return self._report(tables)

    def _phases(self, served: Served, clients: Clients, faults: Faults) -> dict[str, Table]:
        """The same load three times: to warm up, with faults, and while the server is handed over."""
        self._progress.say(f"the server is ready: process {served.pid}, {len(served.workers())} workers")
        clients.start(self._each)
        time.sleep(_WARM_UP)
        until(lambda: served.stats()["requests"] >= _WARM_UP_REQUESTS, _QUIET)
        before = self._quiet_snapshot(served, clients)
        self._progress.say("warmed up")

        clients.start(self._each)
        faults.begin()
        over = threading.Event()
        watch = threading.Thread(target=self._watch, args=(served, over))
        watch.start()
        try:
            time.sleep(self._seconds)
        finally:
            faults.end()
            over.set()
            watch.join()
        after = self._quiet_snapshot(served, clients)
        self._offences += accounting.compare(before, after, TOLERANCE)
        ledgers = [*clients.ledgers(), self._own_ledger()]
        self._offences += accounting.check_counts(ledgers, self._notes(served), served.stats())

        clients.start(self._each)
        for _ in range(_HANDOVERS):
            time.sleep(_BETWEEN_HANDOVERS)
            faults.hand_over()
        time.sleep(_BETWEEN_HANDOVERS)
        after = self._quiet_snapshot(served, clients)
        self._offences += accounting.compare(before, after, TOLERANCE)
        self._end(served)
        return self._account(clients, served, faults, before, after)

    def _watch(self, served: Served, over: threading.Event) -> None:
        while not over.wait(5):
            stats = served.stats()
            ready = sum(worker["ready"] for worker in stats["workers"])
            self._progress.say(
                f"{stats['requests']:,} requests, {stats['in_flight']} held, {stats['connections']} connections,"
                f" {ready} of {len(stats['workers'])} workers ready"
            )

    def _quiet_snapshot(self, served: Served, clients: Clients) -> Snapshot:
        self._offences += clients.end()

        def quiet() -> bool:
            stats = served.stats()
            held = stats["in_flight"] + stats["enqueued_bytes"] + stats["connections"]
            return not held and all(worker["ready"] and not worker["in_flight"] for worker in stats["workers"])

        if not until(quiet, _QUIET):
            self._offences.append(f"the server is not quiet {_QUIET:.0f} s after its last client is gone")
        workers = served.workers()
        alive = [worker.pid for worker in workers if worker.pid is not None]

        def unended() -> list[str]:
            return accounting.check_streams(self._notes(served), alive)

        until(lambda: not unended(), _QUIET)
        self._offences += unended()
        return take_snapshot(served.pid, workers, *served.runtime)

    def _end(self, served: Served) -> None:
        status = served.end()
        if status != 0:
            self._offences.append(f"the server ended with status {status}: {served.log}")
        if not until(lambda: not self._processes(), _QUIET):
            self._offences.append(f"processes are left: {self._processes()}")
        left = [path for directory in served.runtime for path in directory.rglob("*") if not path.is_dir()]
        left += [path for path in [served.directory / "socket"] if path.exists()]
        self._offences += [f"the server has left {path} behind" for path in left]

    def _account(
        self, clients: Clients, served: Served, faults: Faults, before: Snapshot, after: Snapshot
    ) -> dict[str, Table]:
        ledgers = [*clients.ledgers(), self._own_ledger()]
        names = [field.name for kind in (Limits, ServableStartConfig) for field in dataclasses.fields(kind)]
        limits = [name for name in names if name.startswith("max_")]
        account = accounting.account_requests(ledgers, faults.all, limits)
        recoveries, late = accounting.check_recoveries(ledgers, faults.all)
        marks = [int(line) for line in served.marks.read_text().split()]
        self._offences += [f"{fault.kind} ({fault.servable}): {fault.failed}" for fault in faults.all if fault.failed]
        self._offences += [*late, *account.offences, *accounting.check_executions(ledgers, marks)]
        self._offences += accounting.check_begun(ledgers, faults.all, HANDLER_THREADS)
        return make_tables(ledgers, account, faults.all, recoveries, marks, before, after)

    def _notes(self, served: Served) -> list[str]:
        return served.notes.read_text(encoding="ascii").splitlines()

    def _own_ledger(self) -> Ledger:
        return read_ledger(self._scratch / "faults.ledger", killed=False)

    def _processes(self) -> list[int]:
        return marked_processes(str(self._scratch))

    def _report(self, tables: dict[str, Table]) -> Report:
        made = (
            f"{time.strftime('%Y-%m-%d')}, {os.cpu_count()} cores, Linux {platform.release()}, Python"
            f" {platform.python_version()}: {self._seconds / 60:.3g} minutes of faults and {_HANDOVERS} handovers,"
            f" seed {self._seed}, {3 * self._each} client processes at a time; load average before it {self._load:.1f}."
        )
        return Report(made, tables, self._offences)


def _by_sort(offences: Sequence[str]) -> Iterator[str]:
    """The first of each sort, that is of those that differ in numbers alone, and how many there are of it."""
    sorts: dict[str, list[str]] = {}
    for offence in offences:
        sorts.setdefault(re.sub(r"\d+", "0", offence.rpartition(": ")[2])[:80], []).append(offence)
    for number, same in enumerate(sorts.values()):
        if number == _SHOWN_SORTS:
            yield f"and {len(sorts) - number} other sorts"
            return
        yield same[0] if len(same) == 1 else f"{same[0]} (and {len(same) - 1} like it)"


def main() -> int:
    """See the module's text."""
    parser = argparse.ArgumentParser(prog="chaos", description=__doc__)
    parser.add_argument("--minutes", type=float, default=5.0, help="of faults (default: 5)")
    parser.add_argument("--seed", type=int, help="repeats the order of the faults (default: by chance)")
    parser.add_argument("--clients", type=int, default=2, help="processes by each transport (default: 2)")
    parser.add_argument("--only", default="", metavar="PATTERN", help="only faults of these names (default: all)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="where the results go, too")
    parser.add_argument("--write", type=Path, metavar="PAGE", help="a page into which the tables are written")
    options = parser.parse_args()
    seed = random.getrandbits(31) if options.seed is None else options.seed
    scratch = Path(tempfile.mkdtemp(prefix="chaos-"))
    progress = Progress()
    progress.say(f"seed {seed}, logs and ledgers in {scratch}")
    report = Run(scratch, options.minutes * 60, seed, options.clients, options.only, progress).run()
    for table in report.tables.values():
        print(f"\n{table.text()}")
    print(f"\n{report.made}")
    if options.json:
        report.write_json(options.json)
    if report.offences:
        print(f"\n{len(report.offences)} offences:", *_by_sort(report.offences), sep="\n- ")
        print(f"\nLogs and ledgers are kept in {scratch}; CHAOS_SEED={seed} repeats the order of the faults.")
        return 1
    if options.write:
        options.write.write_text(report.fill(options.write.read_text(encoding="utf-8")), encoding="utf-8")
    shutil.rmtree(scratch)
    print("\nEvery request is accounted for, and the server is as it was.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
