"""What is done to the server and its clients, in an order that a seed repeats."""

from __future__ import annotations

import contextlib
import os
import random
import re
import shutil
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence, Set
from dataclasses import dataclass
from pathlib import Path

import grpc

from chaos.calls import deadly
from chaos.certificates import Certificates, server_serial
from chaos.clients import Clients
from chaos.events import Excuses, Fault
from chaos.ledger import Ended, LedgerWriter, Sent
from chaos.models import SERVABLES, config_template
from chaos.outcomes import failed, told, wrong
from chaos.served import Served, until
from chaos.server import DEVICES, HEARTBEAT_TIMEOUT
from chaos.work import DIE, WorkCall, messages
from mindserve.client import Client

# Seconds for whatever must come back, or be noticed: far more than it takes, so that a slow machine is no failure.
_PATIENCE = 30.0
# Seconds in which a bad certificate would have been taken.
_UNTAKEN = 3.0
# Those whose workers are harmed from outside. With the other, a request that happened to be executed alone would take
# the blame, as it must while a servable has to do with requests that kill.
_HARMLESS = tuple(name for name in SERVABLES if name != "risky")
# Most of what is lost with a worker is of a user's service: streams, and calls that have begun.
_LOSING = (*_HARMLESS, "work", "work", "front")
# Requests of the faults' own client.
_FIRST_NUMBER = 1


class FaultError(Exception):
    """The server did not do what it must."""


@dataclass(frozen=True)
class _Kind:
    """A sort of fault.

    Attributes:
        name: of it.
        act: brings it about for a servable that has these workers, waits until all is as before, and returns which of
            its sort it was.
        servables: that it may befall.
        excuses: see `Fault`.
    """

    name: str
    act: Callable[[str, frozenset[int]], str]
    servables: Sequence[str] = ("",)
    excuses: Excuses = "nothing"


class Faults:
    """Brings faults about, one after the other, from two threads: one for what concerns workers, one for the rest.

    Args:
        served: the server.
        servables: directory of its servables.
        certificates: of the server and its clients.
        clients: that may be killed.
        ledger: for the requests that are faults themselves.
        seed: of the order.
        only: found in the names of those that are wanted, a regular expression.
        report: told of each fault when it is over.
    """

    def __init__(
        self,
        served: Served,
        servables: Path,
        certificates: Certificates,
        clients: Clients,
        ledger: LedgerWriter,
        seed: int,
        only: str,
        report: Callable[[Fault], None],
    ) -> None:
        self._served = served
        self._servables = servables
        self._certificates = certificates
        self._clients = clients
        self._ledger = ledger
        self._random = random.Random(seed)
        self._only = only
        self._report = report
        self._number = _FIRST_NUMBER
        self._stop = threading.Event()
        self._lock = threading.Lock()
        # Held while reload() must find nothing that can't be loaded.
        self._files_good = threading.Lock()
        self._faults: list[Fault] = []
        self._threads: list[threading.Thread] = []
        self._original = {name: config_template(name).read_text(encoding="utf-8") for name in SERVABLES}

    def begin(self) -> None:
        """Starts the two threads."""
        for kinds, when in ((self._worker_kinds(), self._all_ready), (self._other_kinds(), lambda: True)):
            wanted = [kind for kind in kinds if re.search(self._only, kind.name)]
            choice = random.Random(self._random.random())
            if wanted:
                self._threads.append(threading.Thread(target=self._run, args=(wanted, choice, when)))
        for thread in self._threads:
            thread.start()

    def end(self) -> None:
        """Waits until the last ones are over, and each kind has come once."""
        self._stop.set()
        for thread in self._threads:
            thread.join()

    @property
    def all(self) -> list[Fault]:
        """Those that are over."""
        with self._lock:
            return list(self._faults)

    def hand_over(self) -> None:
        """Not beside others: the successor's statistics begin anew."""
        self._bring_about(_Kind("handover", self._hand_over), "", self._all_ready)

    def _worker_kinds(self) -> list[_Kind]:
        return [
            _Kind("kill a worker", self._kill_worker, _LOSING, "begun"),
            _Kind("stop a worker", self._stop_worker, _LOSING, "unrepeatable"),
            _Kind("slow a worker", self._slow_worker, _HARMLESS),
            _Kind("kill all workers", self._kill_all_workers, _HARMLESS, "everything"),
            _Kind("deadly request", self._deadly_request, ("risky",)),
            _Kind("hung stage", self._hung_stage, ("risky",)),
            _Kind("deadly call", self._deadly_call, (DIE.servable,), "begun"),
            _Kind("new version", self._new_version, SERVABLES),
            _Kind("changed configuration", self._changed_configuration, SERVABLES),
            _Kind("reload()", self._reload, ("",)),
            _Kind("broken configuration", self._broken_configuration, SERVABLES),
        ]

    def _other_kinds(self) -> list[_Kind]:
        return [
            _Kind("kill a client", lambda *_: self._clients.kill_one(self._random)),
            _Kind("new server certificate", self._new_server_certificate),
            _Kind("new client authority", self._new_client_authority),
            _Kind("revoked client", self._revoked_client),
            _Kind("bad certificate file", self._bad_certificate_file),
        ]

    def _run(self, kinds: Sequence[_Kind], choice: random.Random, when: Callable[[], bool]) -> None:
        for number, kind in enumerate(_rounds(kinds, choice)):
            if self._stop.wait(choice.uniform(0.2, 0.8)) and number >= len(kinds):
                return
            servable = choice.choice(kind.servables)
            self._bring_about(kind, servable, when)

    def _bring_about(self, kind: _Kind, servable: str, when: Callable[[], bool]) -> None:
        failed = detail = ""
        if not until(when, _PATIENCE):
            failed = f"before it: not all workers became ready within {_PATIENCE:.0f} s: {self._served.workers()}"
        workers = self._pids(servable)
        began = time.monotonic()
        try:
            detail = kind.act(servable, workers)
        except Exception as error:
            failed = failed or f"{type(error).__name__}: {error}"
        fault = Fault(kind.name, servable, detail, kind.excuses, began, time.monotonic(), failed)
        with self._lock:
            self._faults.append(fault)
        self._report(fault)

    # -- workers -------------------------------------------------------------------------------------------------------

    def _kill_worker(self, servable: str, workers: frozenset[int]) -> str:
        number = self._random.choice((signal.SIGKILL, signal.SIGSEGV, signal.SIGABRT))
        victim = self._random.choice(sorted(workers))
        os.kill(victim, number)
        self._wait_replaced(servable, {victim})
        return number.name

    def _stop_worker(self, servable: str, workers: frozenset[int]) -> str:
        victim = self._random.choice(sorted(workers))
        os.kill(victim, signal.SIGSTOP)
        try:
            self._wait_replaced(servable, {victim})
        finally:
            # If it still is there, the requests that it holds come to an end this way.
            with contextlib.suppress(ProcessLookupError):
                os.kill(victim, signal.SIGKILL)
        return "SIGSTOP"

    def _slow_worker(self, servable: str, workers: frozenset[int]) -> str:
        victim = self._random.choice(sorted(workers))
        for _ in range(5):
            os.kill(victim, signal.SIGSTOP)
            time.sleep(HEARTBEAT_TIMEOUT / 5)
            os.kill(victim, signal.SIGCONT)
            time.sleep(0.02)
        if victim not in self._pids(servable):
            raise FaultError("a worker that was only slow has been replaced")
        return "stopped for a while, five times"

    def _kill_all_workers(self, servable: str, workers: frozenset[int]) -> str:
        for worker in workers:
            os.kill(worker, signal.SIGKILL)
        self._wait_replaced(servable, workers)
        return f"{len(workers)} times SIGKILL"

    def _deadly_request(self, _: str, workers: frozenset[int]) -> str:
        return self._end_workers("die", workers)

    def _hung_stage(self, _: str, workers: frozenset[int]) -> str:
        return self._end_workers("hang", workers)

    def _end_workers(self, method: str, workers: frozenset[int]) -> str:
        """By a request that is to be set aside after it has cost two."""

        def ask(number: int) -> Ended:
            call = deadly(number, method)
            with Client(self._served.addresses["TCP"], call.servable, call.method) as client:
                result = client.infer(list(call.instances))
            return told(result["error"]) or wrong(str(result)) if isinstance(result, dict) else wrong(str(result))

        self._send_deadly("risky", method, ask)
        # At least one is gone, and that is seen a little later than its request is answered.
        if not until(lambda: not workers <= self._pids("risky") and self._all_ready(), _PATIENCE):
            raise FaultError(f"not all workers are back after {_PATIENCE:.0f} s")
        return f"{len(workers - self._pids('risky'))} workers lost"

    def _deadly_call(self, servable: str, workers: frozenset[int]) -> str:
        """Of a user's service, by a handler that must not be called twice: it costs one worker."""

        def ask(number: int) -> Ended:
            with grpc.insecure_channel(self._served.addresses["TCP"]) as channel:
                die = channel.unary_unary(DIE.path, messages().Ask.SerializeToString, messages().Answer.FromString)
                try:
                    return wrong(str(die(WorkCall(number, DIE).ask(0))))
                except grpc.RpcError as error:
                    return failed(error)

        self._send_deadly(servable, DIE.name, ask)
        if not until(lambda: not workers <= self._pids(servable) and self._all_ready(), _PATIENCE):
            raise FaultError(f"no worker is lost and replaced after {_PATIENCE:.0f} s")
        if (lost := len(workers - self._pids(servable))) != 1:
            raise FaultError(f"it has cost {lost} workers")
        return "1 worker lost"

    def _send_deadly(self, servable: str, method: str, ask: Callable[[int], Ended]) -> None:
        """Until it isn't refused, as any request may be while the load is at a limit."""

        def executed() -> bool:
            number = self._number
            self._number += 1
            self._ledger.sent(Sent(number, time.monotonic(), "TCP", servable, method, "deadly request", 1, None))
            ended = ask(number)
            self._ledger.ended(number, ended)
            return ended.code != "RESOURCE_EXHAUSTED"

        if not until(executed, _PATIENCE):
            raise FaultError(f"the request is refused for {_PATIENCE:.0f} s")

    def _pids(self, servable: str) -> frozenset[int]:
        return frozenset(worker.pid for worker in self._served.workers(servable) if worker.pid is not None)

    def _all_ready(self) -> bool:
        workers = self._served.workers()
        counts = {name: sum(worker.servable == name for worker in workers) for name in SERVABLES}
        return all(worker.ready for worker in workers) and counts == {name: len(DEVICES[name]) for name in SERVABLES}

    def _wait_replaced(self, servable: str, victims: Set[int]) -> None:
        """Until none of the victims is there, and all their successors are ready."""
        if not until(lambda: victims.isdisjoint(self._pids(servable)) and self._all_ready(), _PATIENCE):
            raise FaultError(f"not replaced after {_PATIENCE:.0f} s: {self._served.workers(servable)}")

    # -- reloads -------------------------------------------------------------------------------------------------------

    def _new_version(self, servable: str, workers: frozenset[int]) -> str:
        directory = self._servables / servable
        newest = max(int(path.name) for path in directory.iterdir() if path.name.isdecimal())
        shutil.copytree(directory / str(newest), directory / str(newest + 1))
        self._wait_replaced(servable, workers)
        versions = {worker.version for worker in self._served.workers(servable)}
        if versions != {newest + 1}:
            raise FaultError(f"it serves {versions} instead of version {newest + 1}")
        return f"version {newest + 1}"

    def _changed_configuration(self, servable: str, workers: frozenset[int]) -> str:
        self._configure(servable, f"\n# {time.time()}\n")
        self._wait_replaced(servable, workers)
        return "another comment"

    def _reload(self, *_: object) -> str:
        before = {name: self._pids(name) for name in SERVABLES}
        with self._files_good:
            self._served.reload()
        for name, pids in before.items():
            self._wait_replaced(name, pids)
        return "all servables"

    def _broken_configuration(self, servable: str, workers: frozenset[int]) -> str:
        before = self._served.failed_reloads(servable)
        self._configure(servable, "\nthis is no Python\n")
        try:
            if not until(lambda: self._served.failed_reloads(servable) > before, _PATIENCE):
                raise FaultError(f"nothing was said of it within {_PATIENCE:.0f} s")
            if workers != self._pids(servable) or not self._all_ready():
                raise FaultError("workers were replaced for a configuration that can't be loaded")
        finally:
            self._configure(servable, "")
        self._wait_replaced(servable, workers)
        return "a syntax error, then repaired"

    def _hand_over(self, *_: object) -> str:
        predecessor = self._served.pid
        self._served.hand_over()
        return f"process {predecessor} to {self._served.pid}"

    def _configure(self, servable: str, more: str) -> None:
        path = self._servables / servable / "servable_config.py"
        path.write_text(self._original[servable] + more, encoding="utf-8")

    # -- certificates --------------------------------------------------------------------------------------------------

    def _new_server_certificate(self, *_: object) -> str:
        serial = self._certificates.renew_server()
        self._wait_handshake("client", lambda shown: shown == serial, "the new certificate is not shown")
        return "of the same authority"

    def _new_client_authority(self, *_: object) -> str:
        self._certificates.add_client_authority()
        self._certificates.issue_client("probe")
        self._wait_handshake("probe", lambda shown: shown is not None, "a client of the new authority is refused")
        # Now others may use it.
        self._certificates.issue_client("client")
        return "another one trusted"

    def _revoked_client(self, *_: object) -> str:
        certificate = self._certificates.issue_client("revoked")
        self._wait_handshake("revoked", lambda shown: shown is not None, "a good client is refused")
        self._certificates.revoke_client(certificate)
        self._wait_handshake("revoked", lambda shown: shown is None, "a revoked client is not refused")
        self._wait_handshake("client", lambda shown: shown is not None, "a good client is refused")
        return "and another that is not"

    def _bad_certificate_file(self, *_: object) -> str:
        file = self._certificates.files.server
        before = self._handshake("client")
        with self._files_good:
            good = file.read_bytes()
            file.write_bytes(b"no certificate\n")
            time.sleep(_UNTAKEN)
            shown = self._handshake("client")
            file.write_bytes(good)
        if shown is None or shown != before:
            raise FaultError(f"the server has taken a file without a certificate: {before} became {shown}")
        return "no PEM"

    def _handshake(self, client: str) -> int | None:
        return server_serial(self._served.addresses["mTLS"], self._certificates.files, client)

    def _wait_handshake(self, client: str, right: Callable[[int | None], bool], otherwise: str) -> None:
        if not until(lambda: right(self._handshake(client)), _PATIENCE):
            raise FaultError(f"{otherwise} after {_PATIENCE:.0f} s")


def _rounds(kinds: Sequence[_Kind], choice: random.Random) -> Iterator[_Kind]:
    """Each kind once, in an order made by chance, before any comes again."""
    while True:
        yield from choice.sample(kinds, len(kinds))
