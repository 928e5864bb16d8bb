"""The thread that owns the worker processes."""

from __future__ import annotations

import collections
import contextlib
import itertools
import selectors
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Protocol

from mindserve import control, logs
from mindserve.control import ReadyMethod, ReadyService
from mindserve.supervisor.job import Replacement, StartJob, WorkerSpec
from mindserve.supervisor.process import WorkerProcess
from mindserve.supervisor.restart import describe_exit
from mindserve.supervisor.slot import Slot, WorkerState

# Seconds for the link's handshake: the worker is waiting for it when it says that it is ready.
_ATTACH_TIMEOUT = 30.0
# Seconds between telling a worker to end and making it.
_TERMINATE_TIMEOUT = 5.0
# Seconds between questions where the kernel doesn't tell by itself that a process has ended.
_POLL_INTERVAL = 0.2
# Seconds that a worker which was not ready in time has to log where it is, before it is killed.
_STACKS_TIME = 0.5
# Seconds of sleep at most: the kernel takes no more than 24 days at a time, and users may give longer timeouts.
_LONGEST_SLEEP = 3600.0
_LOG_LINES = 20
_STACK_LINES = 80

_log = logs.get_logger("supervisor")


class Gateway(Protocol):
    """What a supervisor needs of the native gateway."""

    def attach_worker(
        self,
        fd: int,
        worker_id: int,
        servable: str,
        version: int,
        methods: Sequence[tuple[str, bool]],
        heartbeat_timeout: float,
        timeout: float,
    ) -> None: ...

    def drain_worker(self, worker_id: int) -> None: ...

    def detach_worker(self, worker_id: int, dead: bool = False) -> None: ...

    def lost_workers_fd(self) -> int: ...

    def take_lost_workers(self) -> Sequence[tuple[int, str]]: ...

    def remove_version(self, servable: str, version: int) -> None: ...

    def replies(self) -> int: ...


class ServiceJudge(Protocol):
    """Whether workers answer gRPC services as the server was told of them. Asked in the supervisor's thread."""

    def wrong(self, servable: str, answered: Sequence[ReadyService]) -> str:
        """What is wrong with what a worker of a servable answers; empty: nothing."""

    def unanswered(self, answered: Mapping[str, Sequence[ReadyService]], replaced: Iterable[ReadyService]) -> str:
        """What is missing from all that the servables answer, now that ``replaced`` falls away; empty: nothing."""


class Supervisor:
    """Runs workers as direct children of this process, from one long-lived thread.

    The thread is no daemon: as long as it runs, the process lives on after its main thread has ended. Methods may be
    called from any thread.

    Args:
        gateway: is told of workers that become ready, and of those that are gone; let go of by the end of `join`.
        judge: a worker that it finds wrong fails as one that can't start; so do those that are started together if,
            all being ready, something is missing.
        append_logs: whether the first workers go on with log files that are there, as those of another master.
    """

    def __init__(self, gateway: Gateway, judge: ServiceJudge, *, append_logs: bool = False) -> None:
        self._gateway = gateway
        self._judge = judge
        self._slots: list[Slot] = []
        self._append_logs = append_logs
        self._next_number = 1
        self._stopping = False
        self._over = threading.Event()
        self._attaching: list[threading.Thread] = []
        self._calls: collections.deque[Callable[[], None]] = collections.deque()
        self._wake_read, self._wake_write = socket.socketpair()
        self._wake_read.setblocking(False)
        self._wake_write.setblocking(False)
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._wake_read, selectors.EVENT_READ, None)
        self._selector.register(gateway.lost_workers_fd(), selectors.EVENT_READ, self._on_lost)
        self._thread = threading.Thread(target=self._run, name="mindserve-supervisor", daemon=False)
        self._thread.start()

    def start(self, specs: Sequence[WorkerSpec]) -> StartJob:
        """Begins to start workers. The job ends when all are ready, or one has failed and all are gone."""
        job = StartJob(specs)
        self._post(lambda: self._start(job))
        return job

    def replace(
        self, keys: Iterable[tuple[str, int, int]], specs: Sequence[WorkerSpec], drain_timeout: float
    ) -> StartJob:
        """Begins to start workers that take the place of others.

        The job ends when all of them take requests, and the others no more: these then finish what they hold, and end.
        Or it ends when one of them has failed and all are gone; then the others go on.

        Args:
            keys: of the workers to replace, one or more servables'. Those that don't run any more are passed over.
            specs: what to start. May be of the same keys.
            drain_timeout: seconds that the replaced workers have to finish what they hold.
        """
        job = StartJob(specs, Replacement(frozenset(keys), drain_timeout))
        self._post(lambda: self._start(job))
        return job

    def stop(self) -> None:
        """Tells the workers to end, and makes them after a while. Returns at once; see `join`."""
        self._post(self._stop)

    def kill(self) -> None:
        """Ends the workers at once. Returns at once; see `join`."""
        self._post(self._kill)

    def join(self) -> None:
        """Waits until, after `stop`, no worker is left and the thread has ended."""
        self._thread.join()

    def busy(self) -> bool:
        """Whether any worker runs or is to be started."""
        return bool(self._slots or self._calls)

    def longest_start_timeout(self) -> float:
        """Seconds that a start of all workers may take; 0 without any."""
        return max((slot.spec.start_timeout for slot in list(self._slots)), default=0.0)

    def states(self) -> list[WorkerState]:
        """Of all workers, by servable, version and device; a worker that is replaced comes before its successor."""
        states = [slot.state() for slot in list(self._slots)]  # at once: the supervisor's thread goes on
        return sorted(states, key=lambda state: (state.servable, state.version, state.device_id, not state.draining))

    def services(self) -> dict[str, list[ReadyService]]:
        """What each servable's workers answer: those that take requests, or will when they are started again."""
        slots = (slot for slot in list(self._slots) if not slot.retired)
        return _services(slot for slot in slots if slot.origin is None or slot.state().ready)

    def methods(self) -> dict[tuple[str, int], tuple[ReadyMethod, ...]]:
        """What the workers of each servable's version serve, by its name and number; without those that are retired."""
        found: dict[tuple[str, int], tuple[ReadyMethod, ...]] = {}
        for slot in list(self._slots):
            if slot.methods and not slot.retired:
                name, version, _ = slot.spec.key
                found.setdefault((name, version), slot.methods)
        return found

    def streams(self, servable: str, method: str, version: int) -> bool:
        """Whether the method gives its results one by one, of this version, or of the newest for 0. Cheap."""
        found, newest = False, 0
        for slot in self._slots.copy():
            name, number, _ = slot.spec.key
            if name == servable and version in (0, number) and number > newest and slot.methods and not slot.retired:
                found, newest = method in slot.streaming, number
        return found

    # All that follows happens in the supervisor's thread.

    def _post(self, function: Callable[[], None]) -> None:
        self._calls.append(function)
        # Full: it will wake anyway. Closed: it has ended.
        with contextlib.suppress(BlockingIOError, OSError):
            self._wake_write.send(b"\0")
        if self._over.is_set():
            self._take_calls()  # A start that comes too late has to hear of it.

    def _take_calls(self) -> None:
        with contextlib.suppress(IndexError):
            while True:
                self._guarded(self._calls.popleft())

    def _run(self) -> None:
        while not (self._stopping and not self._slots and not self._calls):
            for key, _ in self._selector.select(self._timeout()):
                if key.data is not None:
                    self._guarded(key.data)
            self._drain_wake()
            self._take_calls()
            self._guarded(self._on_time)
        # Their workers are gone, and with them what they wait for.
        for thread in self._attaching:
            thread.join()
        self._over.set()
        self._take_calls()
        self._selector.close()
        del self._gateway
        self._wake_read.close()
        self._wake_write.close()

    def _guarded(self, function: Callable[[], None]) -> None:
        """A fault in one worker's handling must not end the watch over the others."""
        try:
            function()
        except Exception:
            _log.exception("a fault in the supervisor")

    def _drain_wake(self) -> None:
        with contextlib.suppress(BlockingIOError):
            while self._wake_read.recv(4096):
                pass

    def _timeout(self) -> float | None:
        times: list[float] = []
        for slot in self._slots:
            times += (at for at in (slot.restart_at, slot.drain_until, slot.kill_at) if at is not None)
            if slot.process is not None:
                if slot.process.deadline is not None:
                    times.append(slot.process.deadline)
                if slot.process.starting:
                    times.append(slot.process.remind_at)
                if slot.process.pidfd is None:
                    times.append(time.monotonic() + _POLL_INTERVAL)
        return min(max(0.0, min(times) - time.monotonic()), _LONGEST_SLEEP) if times else None

    def _on_time(self) -> None:
        now = time.monotonic()
        for slot in list(self._slots):
            process = slot.process
            if process is None:
                if slot.restart_at is not None and slot.restart_at <= now:
                    self._spawn(slot)
                continue
            if slot.drain_until is not None and slot.drain_until <= now:
                slot.drain_until = None
                _log.warning("%s, process %d, has not ended within the drain_timeout", slot.spec, process.pid)
                self._terminate(slot, process)
            if slot.kill_at is not None and slot.kill_at <= now:
                slot.kill_at = None
                _log.warning("%s, process %d, does not end and is killed", slot.spec, process.pid)
                process.signal(signal.SIGKILL)
            if process.deadline is not None and process.deadline <= now:
                self._give_up(slot, process, now)
            if process.starting and process.remind_at <= now:
                process.remind(now)
            if process.pidfd is None and process.poll() is not None:
                self._on_exit(slot, process)

    def _give_up(self, slot: Slot, process: WorkerProcess, now: float) -> None:
        """Ends a worker that is not ready in time; one that does not say why has a moment to log where it is."""
        process.deadline = None
        if process.error or process.methods is not None:
            process.signal(signal.SIGKILL)
        else:
            process.deadline = now + _STACKS_TIME
            process.ask_for_stacks()
        late = f"not ready within the start_timeout of {slot.spec.start_timeout:g} s"
        process.error = process.error or late + (f": it was still {process.phase}" if process.phase else "")

    def _on_lost(self) -> None:
        """The gateway has given workers up: their processes are stopped, hang, or talk nonsense."""
        lost = dict(self._gateway.take_lost_workers())
        for slot in self._slots:
            if slot.process is not None and slot.process.number in lost:
                slot.process.error = slot.process.error or lost[slot.process.number]
                # Also ends one that is stopped, before it can wake up and go on.
                slot.process.signal(signal.SIGKILL)

    def _start(self, job: StartJob) -> None:
        if self._stopping:
            job.fail("the server is being stopped")
            job.end()
            return
        replaced = self._replaced_by(job)
        taken = {slot.spec.key for slot in self._slots if not slot.retired and slot not in replaced}
        for spec in job.specs:
            if spec.key in taken:
                job.fail(f"{spec} is already running")
                job.end()
                return
        slots = [Slot(spec, origin=job, job=job) for spec in job.specs]
        self._slots += slots
        for slot in slots:
            if not job.error:
                self._spawn(slot)
        if not slots:
            self._finish(job)
        self._end_failed_job(job)

    def _replaced_by(self, job: StartJob) -> list[Slot]:
        """The slots that a job's take the place of: none that are being started themselves."""
        keys = job.replaces.keys if job.replaces is not None else frozenset()
        return [slot for slot in self._slots if slot.spec.key in keys and slot.origin is None and not slot.retired]

    def _spawn(self, slot: Slot) -> None:
        slot.restart_at = None
        slot.starts += 1
        # The worker to be replaced still writes to it.
        shared = any(other is not slot and other.spec.log_path == slot.spec.log_path for other in self._slots)
        number = self._next_number
        self._next_number += 1
        try:
            process = WorkerProcess(slot.spec, number, append_log=self._append_logs or slot.starts > 1 or shared)
        except OSError as error:
            text = f"{slot.spec} can't be started: {error}"
            if slot.job is not None:
                slot.job.set_failed(slot.spec, text)
            else:
                _log.error("%s", text)
                self._plan_restart(slot, 1, ready_for=None, answered=False)
            return
        slot.process = process
        if process.pidfd is not None:
            self._selector.register(process.pidfd, selectors.EVENT_READ, lambda: self._on_exit(slot, process))
        self._selector.register(process.control, selectors.EVENT_READ, lambda: self._on_control(slot, process))

    def _on_control(self, slot: Slot, process: WorkerProcess) -> None:
        if slot.process is not process:
            return  # It ended earlier in this round.
        try:
            events = process.read_events()
        except control.ControlError as error:
            _log.error("%s, process %d: %s", slot.spec, process.pid, error)
            process.error = process.error or str(error)
            process.signal(signal.SIGKILL)
            self._forget_control(process)
            return
        for event in events:
            self._on_event(slot, process, event)
        if process.silent:
            self._forget_control(process)  # The process is ending too.

    def _forget_control(self, process: WorkerProcess) -> None:
        with contextlib.suppress(KeyError):
            self._selector.unregister(process.control)

    def _on_event(self, slot: Slot, process: WorkerProcess, event: control.Event) -> None:
        if isinstance(event, control.Phase):
            _log.debug("%s: %s", slot.spec, event.text)
            process.phase = event.text
            if slot.job is not None:
                slot.job.set_phase(slot.spec, event.text)
        elif isinstance(event, control.Failed):
            process.error = event.error
            # It exits by itself; if not, this ends it.
            process.deadline = time.monotonic() + _TERMINATE_TIMEOUT
        elif process.methods is None:
            process.phase = ""
            process.error = process.error or self._judge.wrong(slot.spec.parameters.servable_name, event.services)
            if process.error:
                process.signal(signal.SIGKILL)
                return
            process.methods, slot.services = event.methods, event.services
            slot.methods = event.methods
            slot.streaming = frozenset(name for each in event.methods if (name := each.streaming_name))
            self._on_ready(slot, process)

    def _on_ready(self, slot: Slot, process: WorkerProcess) -> None:
        job = slot.job
        if job is None:
            self._begin_to_attach(slot, process)
            return
        starting = [each for each in self._slots if each.origin is job]
        if all(each.services is not None for each in starting):
            replaced = self._replaced_by(job)
            stay = (each for each in self._slots if not each.retired and each not in replaced)
            gone = itertools.chain.from_iterable(_services(replaced).values())
            if missing := self._judge.unanswered(_services(stay), gone):
                job.fail(missing)
                self._end_failed_job(job)
                return
        if job.replaces is None:
            self._begin_to_attach(slot, process)
            return
        # None takes requests before all can: the others' deadlines, and handshake_timeout, bound the wait.
        process.deadline = None
        job.set_phase(slot.spec, "waiting for the others")
        workers = [(each, each.process) for each in starting]
        ready = [(each, worker) for each, worker in workers if worker is not None and worker.methods is not None]
        if len(ready) < len(job.specs):
            _log.info("%s is loaded and waits for the others, process %d", slot.spec, process.pid)
            return
        for each, worker in ready:
            self._begin_to_attach(each, worker)

    def _begin_to_attach(self, slot: Slot, process: WorkerProcess) -> None:
        link = process.take_link()
        if link is None:
            return
        # Noted first: it may have answered, and died, before this thread hears that it has its link.
        process.ready_at = time.monotonic()
        process.replies_before = self._replies()
        # A handshake may wait; the watch over the others must not.
        self._attaching = [thread for thread in self._attaching if thread.is_alive()]
        thread = threading.Thread(
            target=self._attach, args=(slot, process, link, process.methods), name="mindserve-attach", daemon=True
        )
        self._attaching.append(thread)
        thread.start()

    def _attach(self, slot: Slot, process: WorkerProcess, link: int, methods: Sequence[control.ReadyMethod]) -> None:
        """Thread of its own: hands the worker's link to the gateway."""
        name, version, _ = slot.spec.key
        error = ""
        try:
            self._gateway.attach_worker(
                link,
                process.number,
                name,
                version,
                [(method.name, method.idempotent) for method in methods],
                slot.spec.heartbeat_timeout,
                _ATTACH_TIMEOUT,
            )
        except Exception as caught:
            error = f"the link's handshake failed: {caught}"
        self._post(lambda: self._on_attached(slot, process, error))

    def _on_attached(self, slot: Slot, process: WorkerProcess, error: str) -> None:
        if slot.process is not process or slot.retired or (slot.job is not None and slot.job.error):
            self._gateway.detach_worker(process.number)  # It died meanwhile, or is being ended.
            return
        if error:
            process.error = process.error or error
            process.ready_at = None
            # If it was the worker that gave up, it is about to say why, and exits by itself; if not, this ends it.
            process.deadline = time.monotonic() + _TERMINATE_TIMEOUT
            return
        process.deadline = None
        process.attached = True
        _log.info("%s is ready, process %d", slot.spec, process.pid)
        job = slot.job
        if job is None:
            return
        if job.replaces is None:
            slot.job = None
        if job.set_ready(slot.spec) and not job.error:
            self._finish(job)

    def _finish(self, job: StartJob) -> None:
        """All of the job's workers are ready: nothing is left to do but to retire those that they replace."""
        try:
            replaced = self._replaced_by(job)
            for slot in self._slots:
                if slot.origin is job:
                    slot.origin = slot.job = None
            if job.replaces is not None:
                for slot in replaced:
                    self._retire(slot, job.replaces.drain_timeout)
                self._forget_versions(job.replaces.keys)
        finally:
            job.end()

    def _retire(self, slot: Slot, drain_timeout: float) -> None:
        """Its worker gets nothing new, finishes what it holds, ends, and has no successor."""
        slot.retired = True
        slot.origin = slot.job = slot.restart_at = None
        process = slot.process
        if process is None:
            self._slots.remove(slot)
        elif process.attached and slot.kill_at is None:
            slot.drain_until = time.monotonic() + drain_timeout
            self._gateway.drain_worker(process.number)
        else:
            self._end(process, signal.SIGKILL)

    def _forget_versions(self, keys: Iterable[tuple[str, int, int]]) -> None:
        """Versions of which no worker is left, and none is to come, are not available any more."""
        served = {slot.spec.key[:2] for slot in self._slots if not slot.retired}
        for name, version in {key[:2] for key in keys} - served:
            self._gateway.remove_version(name, version)

    def _on_exit(self, slot: Slot, process: WorkerProcess) -> None:
        if slot.process is not process:
            return
        returncode = process.poll()
        if returncode is None:
            return
        # What it said last may still be unread, and tells why.
        with contextlib.suppress(control.ControlError):
            for event in process.read_events():
                if isinstance(event, control.Failed):
                    process.error = event.error
                elif isinstance(event, control.Phase):
                    process.phase = event.text
        self._forget_control(process)
        if process.pidfd is not None:
            self._selector.unregister(process.pidfd)
        ready_for = time.monotonic() - process.ready_at if process.ready_at is not None else None
        process.close()
        asked = slot.kill_at is not None
        if slot.retired:
            self._slots.remove(slot)
        slot.process = None
        slot.kill_at = slot.drain_until = None
        self._gateway.detach_worker(process.number, dead=True)
        text = self._describe_death(slot, process, returncode)
        if slot.retired:
            if returncode == 0 or asked or not process.attached:
                _log.info("%s, process %d, has been replaced and has ended", slot.spec, process.pid)
            else:
                _log.warning("%s, after it was replaced", text)
            return
        if self._stopping:
            self._slots.remove(slot)
            if slot.job is not None:
                slot.job.fail("the server is being stopped")
                self._end_failed_job(slot.job)
            return
        if slot.job is not None:
            if slot.job.error and not process.error:
                slot.job.set_ended(slot.spec)
            else:
                slot.job.set_failed(slot.spec, text)
            self._end_failed_job(slot.job)
            return
        _log.error("%s", text) if process.error else _log.warning("%s", text)
        # Other workers' answers are counted too: better a restart too soon than a servable that is missing.
        answered = self._replies() > process.replies_before
        self._plan_restart(slot, returncode, ready_for=ready_for, answered=answered)

    def _describe_death(self, slot: Slot, process: WorkerProcess, returncode: int) -> str:
        path = slot.spec.log_path
        if slot.job is None:
            reason = f": {process.error}" if process.error else ""
            return f"{slot.spec}, process {process.pid}, {describe_exit(returncode)}{reason}; its log: {path}"
        during = f" while {process.phase}" if process.phase else ""
        reason = process.error or f"its process {describe_exit(returncode)}{during}"
        text = f"Start of {slot.spec} failed: {reason}\nIts log is {path}"
        lines = _LOG_LINES
        if process.stacks_begin is not None:
            lines += len(logs.tail(path, _STACK_LINES, begin=process.stacks_begin).splitlines())
        end = logs.tail(path, lines, begin=process.log_begin)
        return f"{text}, which ends so:\n{end}" if end else text

    def _replies(self) -> int:
        return self._gateway.replies()

    def _plan_restart(self, slot: Slot, returncode: int, *, ready_for: float | None, answered: bool) -> None:
        delay = slot.policy.after_death(returncode, ready_for=ready_for, answered=answered)
        if delay is None:
            _log.info("%s was told to end and is not started again", slot.spec)
            self._slots.remove(slot)
            return
        slot.restart_at = time.monotonic() + delay
        if delay > 0:
            _log.info("%s is started again in %g s", slot.spec, delay)
        else:
            self._spawn(slot)

    def _end_failed_job(self, job: StartJob) -> None:
        """If the job has failed, ends its other workers, and the job once they are gone."""
        if not job.error:
            return
        left = False
        for slot in [each for each in self._slots if each.origin is job]:
            slot.job = job
            if slot.process is None:
                self._slots.remove(slot)
            elif job.replaces is not None and slot.process.attached:
                # It may hold requests, which those that it was to replace would have answered.
                job.set_ended(slot.spec)
                self._retire(slot, job.replaces.drain_timeout)
            else:
                left = True
                self._end(slot.process, signal.SIGKILL)
        if not left:
            self._forget_versions(spec.key for spec in job.specs)
            job.end()

    def _stop(self) -> None:
        self._stopping = True
        for slot in list(self._slots):
            if slot.process is None:
                self._slots.remove(slot)
            else:
                self._terminate(slot, slot.process)

    def _kill(self) -> None:
        self._stopping = True
        for slot in self._slots:
            if slot.process is not None:
                self._end(slot.process, signal.SIGKILL)

    def _terminate(self, slot: Slot, process: WorkerProcess) -> None:
        slot.drain_until = None
        slot.kill_at = time.monotonic() + _TERMINATE_TIMEOUT
        self._end(process, signal.SIGTERM)

    def _end(self, process: WorkerProcess, number: signal.Signals) -> None:
        """Ends a worker that nothing is wrong with: the gateway, told first, does not take it for a loss."""
        self._gateway.detach_worker(process.number)
        process.signal(number)


def _services(slots: Iterable[Slot]) -> dict[str, list[ReadyService]]:
    """What servables answer, by their names; those of which nothing is known yet are left out."""
    found: dict[str, list[ReadyService]] = {}
    for slot in slots:
        if slot.services is not None:
            known = found.setdefault(slot.spec.parameters.servable_name, [])
            known += (service for service in slot.services if service not in known)
    return found
