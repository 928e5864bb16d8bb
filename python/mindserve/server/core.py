"""The master's parts, and how they start and stop together."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import os
import signal
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mindserve import checks, logs, native
from mindserve.config import AuthConfig, Limits, Listener, ServableStartConfig
from mindserve.errors import ConfigError, StartError
from mindserve.proto.descriptor import FILE_DESCRIPTOR_SET
from mindserve.server import secrecy
from mindserve.server.admin import AdminSocket
from mindserve.server.authentication import Authentication
from mindserve.server.certificates import Certificates
from mindserve.server.handover import Predecessor, Successor
from mindserve.server.internal import InternalSocket
from mindserve.server.listeners import Listeners
from mindserve.server.notify import notify
from mindserve.server.reloader import Reloader
from mindserve.server.restful import Restful
from mindserve.server.servables import Started, make_specs, resolve
from mindserve.server.services import Described, Item, Services
from mindserve.server.signals import SignalWatch
from mindserve.server.statistics import Stats, make_stats
from mindserve.server.traffic_table import TrafficTable
from mindserve.server.watch import FileWatch
from mindserve.supervisor import Supervisor
from mindserve.supervisor.progress import wait_with_progress
from mindserve.traffic import Split

if TYPE_CHECKING:
    from mindserve._native import Gateway
    from mindserve.rest.context import Backend

# Seconds that a successor has besides those for its workers: for its start script.
_SCRIPT_TIMEOUT = 60.0
_MOST_MSG_MB = 512
# Seconds that HTTP clients have to send one more request by connections that a successor can't take over: its answer
# tells them to connect anew, while one that crosses the connection's end would be lost.
_IDLE_AFTER_HANDOVER = 2.0

_log = logs.get_logger("server")


class Server:
    """A gateway, the workers behind it, and the signals that end them. Used once: started, then stopped.

    Its methods may be called from any thread.

    Args:
        signals: tells it of SIGINT and SIGTERM.
        on_stopped: called when it has stopped, for whatever reason, from the thread that stopped it.
        predecessor: another process's server that hands over to this one: it answers when that one lets it.
    """

    def __init__(
        self, signals: SignalWatch, on_stopped: Callable[[Server], None], predecessor: Predecessor | None = None
    ) -> None:
        self._on_stopped = on_stopped
        core = native.load()
        core.set_log_level(logs.configure_master())
        core.set_log_sink(logs.native_sink)
        self._native = core
        # Only this and the supervisor hold the gateway: its threads must end with the server, not whenever its last
        # reference goes, which could be in a thread that is being torn down with the interpreter.
        self._gateway_or_none: Gateway | None = core.Gateway(descriptors=FILE_DESCRIPTOR_SET)
        self._services = Services()
        self._internal = InternalSocket()
        self._directories: dict[Path, None] = {}  # of the servables that were started, in their order
        self._supervisor = Supervisor(self._gateway, self._services, append_logs=predecessor is not None)
        self._signals = signals
        self._lock = threading.Lock()
        self._gateway_use = threading.Lock()  # held by whoever might else be the last to hold the gateway
        self._listeners = Listeners(lambda: self._gateway, self._gateway_use, self._internal)
        self._rest: Restful | None = None
        self._begun = time.time()
        self._ready = False
        self._predecessor = predecessor
        self._successor: Successor | None = None
        self._handing_over = False
        self._handed_over = False
        self._patient = False  # with the next signal, although it stops already
        self._handover_over = threading.Condition(self._lock)
        self._drain_timeout = Limits().drain_timeout
        self._watch = FileWatch()
        self._reloader = Reloader(
            self._supervisor, self._watch, lambda: self._drain_timeout, lambda: self._internal.address
        )
        self._auth: Authentication | None = None  # None: nobody is asked for a token
        self._declared: dict[str, tuple[int, int]] = {}  # servables, and their limits
        self.traffic = TrafficTable(self._apply_traffic, self._served)
        self._stopping = False
        self._stopped = threading.Event()
        try:
            self._admin = None if predecessor is not None else AdminSocket(self)
            signals.begin(self._on_signal)
        except BaseException:
            # Nobody else would: its thread keeps the process alive.
            self._supervisor.stop()
            raise

    @property
    def _gateway(self) -> Gateway:
        if self._gateway_or_none is None:
            raise StartError("the server has been stopped")
        return self._gateway_or_none

    @property
    def stopping(self) -> bool:
        """It is being stopped, or has been."""
        return self._stopping

    def wait_stopped(self) -> None:
        """Waits until it has been stopped."""
        self._stopped.wait()

    def start_servables(self, configs: Sequence[ServableStartConfig]) -> None:
        """See `mindserve.server.start_servables`."""
        self._signals.install()
        try:
            self._start_servables(configs)
        except BaseException as error:
            self._stop_if_idle(error)
            raise
        self._check_ready()

    def start_grpc_server(
        self, listeners: Sequence[Listener], limits: Limits, functions: Sequence[Item], auth: AuthConfig | None
    ) -> list[str]:
        """See `mindserve.server.start_grpc_server`."""
        self._signals.install()
        try:
            bound = self._start_grpc_server(listeners, limits, functions, auth)
        except BaseException as error:
            self._stop_if_idle(error)
            raise
        self._check_ready()
        return bound

    def start_restful_server(self, listener: Listener, limits: Limits, auth: AuthConfig | None) -> str:
        """See `mindserve.server.start_restful_server`."""
        self._signals.install()
        try:
            bound = self._start_restful_server(listener, limits, auth)
        except BaseException as error:
            self._stop_if_idle(error)
            raise
        self._check_ready()
        return bound

    def reload(self, servable_name: str | None) -> None:
        """See `mindserve.server.reload`."""
        if servable_name is None:
            for certificates in self._all_certificates():
                certificates.reload()
        try:
            self._reloader.reload(servable_name)
        except StartError:
            # By a signal: it comes to this thread, if it is the main one, while this waits.
            if self._stopping and threading.current_thread() is threading.main_thread():
                self._stopped.wait()
            raise

    def set_max_enqueued_requests(self, count: int) -> None:
        """See `mindserve.server.master.context.set_max_enqueued_requests`."""
        self._gateway.set_max_enqueued_requests(count)

    def _apply_traffic(self, splits: Sequence[Split]) -> None:
        with self._gateway_use:
            self._gateway.set_traffic([split.as_dict() for split in splits])

    def _served(self) -> dict[str, set[int]]:
        """The servables that were started, and their versions."""
        with self._lock:
            served: dict[str, set[int]] = {name: set() for name in self._declared}
        for state in self._supervisor.states():
            served.setdefault(state.servable, set()).add(state.version)
        return served

    def stats(self) -> Stats:
        """See `mindserve.server.stats`."""
        with self._gateway_use:
            native = self._gateway.stats()
        if self._rest is not None:
            native["refused"]["max_enqueued_bytes"] += self._rest.refused
        shown = [each for certificates in self._all_certificates() for each in certificates.stats()]
        return make_stats(native, self._supervisor.states(), self._reloader.stats(), shown)

    def status(self) -> dict[str, Any]:
        """What ``mindserve status`` shows."""
        stats = self.stats()
        with self._lock:
            state = "stopping" if self._stopping else "handing over" if self._handing_over else "serving"
            if state == "serving" and not self._ready:
                state = "starting"
            addresses = list(self._listeners.addresses)
            if self._rest is not None:
                addresses.append(self._rest.url)
        return {
            "pid": os.getpid(),
            "state": state,
            "seconds": time.time() - self._begun,
            "addresses": addresses,
            "connections": stats.connections,
            "in_flight": stats.in_flight,
            "workers": [dataclasses.asdict(worker) for worker in self._supervisor.states()],
            "time": time.monotonic(),
            "stats": stats.as_dict(),
        }

    def script_ended(self) -> None:
        """The start script has: what it has started is all there will be."""
        self._check_ready()

    def handover(self, timeout: float | None = None, progress: Callable[[str], None] = lambda text: None) -> int:
        """See `mindserve.server.handover`. ``progress`` is told each step."""
        if timeout is not None:
            timeout = checks.check_seconds("timeout", timeout, zero=False)
        with self._lock:
            if self._stopping:
                raise StartError("There is nothing to hand over: the server is being stopped")
            if not (self._listeners.listening or self._rest) or not self._ready:
                raise StartError("There is nothing to hand over: the server does not serve yet")
            if self._handing_over:
                raise StartError("A handover is under way already")
            self._handing_over = True
        try:
            return self._hand_over(timeout, progress)
        except StartError as error:
            _log.error("%s", error)
            raise
        finally:
            with self._lock:
                self._handing_over = False
                self._successor = None
                self._handover_over.notify_all()

    def _hand_over(self, timeout: float | None, progress: Callable[[str], None]) -> int:
        if timeout is None:
            timeout = self._supervisor.longest_start_timeout() + _SCRIPT_TIMEOUT
        listeners = self._listeners.share()
        if self._rest is not None:
            listeners.append(self._rest.share())
        successor = Successor(listeners, sorted(self._ready_servables()))
        with self._lock:
            self._successor = successor
            if self._stopping:
                successor.abort("the server is being stopped")
        _log.info("handing over to process %d", successor.pid)
        try:
            progress(f"process {successor.pid} starts")
            taken = successor.wait_ready(timeout, progress)
            successor.begin(self.traffic.handed_over())
        except BaseException:
            successor.end()
            raise
        with self._lock:
            first, self._stopping = not self._stopping, True
            self._handed_over = self._patient = first
        if not first:
            successor.end()
            raise StartError("The handover was given up: the server is being stopped")
        self._listeners.disown(taken)
        notify(f"MAINPID={successor.pid}")
        _log.info("process %d has taken over", successor.pid)
        if self._admin is not None:
            self._admin.close()
        threading.Thread(
            target=self._stop_for_signal, args=(signal.SIGTERM,), name="mindserve-stop", daemon=False
        ).start()
        return successor.pid

    def stop(self) -> None:
        """Lets what is in flight finish and ends the workers. Waits for a stop that is under way."""
        self._stop(logging.INFO)

    def _stop(self, level: int) -> None:
        with self._lock:
            first, self._stopping = not self._stopping, True
        if not first:
            self._stopped.wait()
            return
        try:
            self._shut_down(level)
        finally:
            self._signals.end()
            self._on_stopped(self)
            self._stopped.set()

    def _start_servables(self, configs: Sequence[ServableStartConfig]) -> None:
        started = [resolve(item) for item in configs]
        with self._lock:
            before = dict(self._directories)
            self._directories |= {Path(item.servable_directory) / item.servable_name: None for item in configs}
            directories = list(self._directories)
        described = self._services.described
        try:
            if described.deferred:
                self._set_services(described.resume(directories))
            self._start_workers(configs, started)
        except BaseException:
            if described.deferred:
                self._set_services(described)
            with self._lock:
                self._directories = before
            raise
        if self._listeners.listening:
            self._services.note_answered()
        self._warn_of_services()

    def _start_workers(self, configs: Sequence[ServableStartConfig], started: Sequence[Started]) -> None:
        sources = self._reloader.look(configs)
        running = sum(state.pid is not None for state in self._supervisor.states())
        specs = make_specs(started, running, self._internal.address)
        declared = {item.servable_name: (item.max_enqueued_requests, item.max_enqueued_bytes) for item in configs}
        with self._lock:
            before = dict(self._declared)
            self._declared |= declared
        for name, limits in declared.items():
            self._gateway.declare_servable(name, *limits)
        job = self._supervisor.start(specs)
        wait_with_progress(job)
        if not job.error:
            self._reloader.add(started, sources)
            return
        if self._stopping:
            # By a signal: it comes to this thread, if it is the main one, while this waits.
            self._stopped.wait()
            raise StartError(job.error)
        # It may be stopping by now.
        with self._lock, contextlib.suppress(StartError):
            for name in declared:
                if name in before:
                    self._declared[name] = before[name]
                    self._gateway.declare_servable(name, *before[name])
                else:
                    del self._declared[name]
                    self._gateway.remove_servable(name)
        raise StartError(job.error)

    def _start_grpc_server(
        self, listeners: Sequence[Listener], limits: Limits, functions: Sequence[Item], auth: AuthConfig | None
    ) -> list[str]:
        with self._lock:
            self._check_not_listening()
            directories = list(self._directories)
        described = Described().add(functions, directories)  # may take seconds
        with self._lock:
            self._check_not_listening()
            self._set_services(described)
            try:
                self._check_services()
                self._require(auth, listeners, "start_grpc_server")
                bound = self._listeners.begin(listeners, limits, self._predecessor, self._watch)
                self._drain_timeout = limits.drain_timeout
            except BaseException:
                self._set_services(Described())
                raise
        _log.info("Serving gRPC server start success, listening on %s", ", ".join(bound))
        self._warn_of_services()
        return bound

    def _check_not_listening(self) -> None:
        if self._stopping:
            raise StartError("Serving Error: Serving gRPC server start failed, the server is being stopped")
        if self._listeners.listening:
            raise StartError("Serving Error: Serving gRPC server is already running")

    def _start_restful_server(self, listener: Listener, limits: Limits, auth: AuthConfig | None) -> str:
        with self._lock:
            if self._stopping:
                raise StartError("Serving Error: RESTful server start failed, the server is being stopped")
            if self._rest is not None:
                raise StartError("Serving Error: RESTful server is already running")
            self._require(auth, [listener], "start_restful_server")
            rest = Restful(listener, limits, self._backend(), self._predecessor)
            try:
                # A message may be larger than the JSON that it is made of, whose size the REST server bounds.
                accept = self._predecessor is None
                self._listeners.begin_inside(dataclasses.replace(limits, max_msg_mb_size=_MOST_MSG_MB), accept=accept)
                rest.start(self._gateway, self._watch, accept=accept)
            except BaseException:
                rest.close()
                raise
            self._rest = rest
            if not self._listeners.listening:
                self._drain_timeout = limits.drain_timeout
        _log.info("Serving RESTful server start success, listening on %s", rest.url)
        return rest.address

    def _require(self, auth: AuthConfig | None, listeners: Sequence[Listener], function: str) -> None:
        """Takes in what clients have to show, or sees that it is what was said before."""
        if auth is not None:
            for listener in listeners:
                auth.check_listener(listener)
        if auth is not None or any(listener.ssl_config is not None for listener in listeners):
            secrecy.keep_memory_private()
        given = None if self._auth is None else self._auth.config
        if auth == given:
            return
        if self._listeners.listening or self._rest is not None or given is not None:
            other = "start_restful_server" if function == "start_grpc_server" else "start_grpc_server"
            raise ConfigError(
                f"Parameter 'auth' of {function} is different from that of {other}: expected the same for both"
            )
        assert auth is not None
        authentication = Authentication(auth)
        authentication.begin(self._gateway, self._watch)
        self._auth = authentication

    def _backend(self) -> Backend:
        from mindserve.server.inventory import make_backend

        return make_backend(
            self._supervisor,
            self._services,
            lambda: self._ready and not self._stopping and bool(self._ready_servables()),
            self.traffic,
            None if self._auth is None else self._auth.authority,
        )

    def _all_certificates(self) -> list[Certificates]:
        found = [self._listeners.certificates, None if self._rest is None else self._rest.certificates]
        return [each for each in found if each is not None]

    def _set_services(self, described: Described) -> None:
        self._services.set(described)
        with contextlib.suppress(StartError):  # it may be stopping by now
            self._gateway.set_services(described.native_services(), described.descriptors())

    def _check_services(self) -> None:
        """Whether the servables that run, if any, answer the services."""
        answered = self._supervisor.services()
        wrong = [text for servable, services in answered.items() if (text := self._services.wrong(servable, services))]
        if answered and not wrong:
            wrong = [text] if (text := self._services.unanswered(answered)) else []
        if wrong:
            raise StartError("\n".join(wrong))
        if answered:
            self._services.note_answered()

    def _warn_of_services(self) -> None:
        """Once both are there: of services that servables answer in vain."""
        if self._listeners.listening:
            for text in self._services.unlisted(self._supervisor.services()):
                _log.warning("%s", text)

    def _ready_servables(self) -> set[str]:
        return {state.servable for state in self._supervisor.states() if state.ready}

    def _check_ready(self) -> None:
        """Whether the server can do what is expected of it; the first time that it can, it begins.

        A successor is expected to serve what its predecessor serves, or whatever its start script has left it with.
        """
        servables = self._ready_servables()
        with self._lock:
            if self._ready or self._stopping:
                return
            predecessor, answers = self._predecessor, self._listeners.listening or self._rest is not None
            waits = [] if predecessor is None else self._not_yet_of(predecessor, servables)
            all_started = not threading.main_thread().is_alive()
            enough = all_started or (bool(servables) if predecessor is None else not waits)
            self._ready = answers and enough
        if not self._ready:
            if predecessor is not None:
                predecessor.report(
                    f"it waits for {', '.join(waits)}, or for its start script to end"
                    if waits
                    else "it is about to be ready"
                )
            return
        if predecessor is not None:
            if not predecessor.take_over(lambda: self._begin_to_accept(predecessor)):
                return
            self._predecessor = None
        notify("READY=1")

    def _not_yet_of(self, predecessor: Predecessor, servables: set[str]) -> list[str]:
        """What the predecessor has that this one does not have yet, in words."""
        waits = ["start_grpc_server"] if predecessor.has_grpc and not self._listeners.listening else []
        waits += ["start_restful_server"] if predecessor.has_http and self._rest is None else []
        return waits + [f"servable '{name}'" for name in sorted(predecessor.servables - servables)]

    def _begin_to_accept(self, predecessor: Predecessor) -> bool:
        """Returns False if it is being stopped, so that it is no successor."""
        try:
            self.traffic.take_over(predecessor.traffic)
            self._gateway.accept()
        except StartError:
            return False
        if self._rest is not None:
            self._rest.accept()
        admin = AdminSocket(self)
        with self._lock:
            self._admin, stopping = admin, self._stopping
        if stopping:
            admin.close()
        return not stopping

    def _stop_if_idle(self, error: BaseException) -> None:
        """After a failure: a server that has nothing must not keep the process alive."""
        if not self._listeners.listening and self._rest is None and not self._supervisor.busy() and not self._stopping:
            predecessor = self._predecessor
            if predecessor is not None:
                predecessor.give_up(str(error) or type(error).__name__)  # now: the script has not printed it yet
            self._stop(logging.DEBUG)

    def _shut_down(self, level: int) -> None:
        _log.log(level, "the server stops")
        self._reloader.close()
        self._watch.close()
        with self._lock:
            predecessor, successor = self._predecessor, self._successor
        if predecessor is not None:
            predecessor.give_up("it was stopped before it was ready")
        if not self._handed_over:
            notify("STOPPING=1")
            if successor is not None:
                successor.abort("the server is being stopped")
        if self._admin is not None:
            self._admin.close()
        try:
            if self._rest is not None:
                self._rest.drain(_IDLE_AFTER_HANDOVER if self._handed_over else 0.0)
            self._gateway.stop_listening(self._drain_timeout)
        finally:
            if self._rest is not None:
                self._rest.close()
            self._wait_for_handover()
            if self._auth is not None:
                self._auth.close()
            self._supervisor.stop()
            self._supervisor.join()
            self._internal.remove()
            self._reloader.join()
            if self._admin is not None:
                self._admin.join()
            with self._gateway_use:
                self._gateway_or_none = None
            self._native.set_log_sink(None)
        _log.log(level, "the server has stopped")

    def _wait_for_handover(self) -> None:
        """Until a handover that was given up has ended its successor."""
        with self._lock:
            self._handover_over.wait_for(lambda: self._handed_over or not self._handing_over)

    def _on_signal(self, number: int) -> None:
        """The signal watch's thread: a signal has come."""
        with self._lock:
            first, self._stopping = not self._stopping, True
            # A first signal after a handover is not the second of a stop.
            patient, self._patient = self._patient, False
        if first:
            # Not a daemon: the process must not end before the requests in flight have.
            threading.Thread(target=self._stop_for_signal, args=(number,), name="mindserve-stop", daemon=False).start()
            return
        if patient:
            return
        # Without workers the gateway answers UNAVAILABLE to what is in flight, and so is done.
        _log.warning("asked to stop once more: what is in flight is given up")
        self._supervisor.kill()

    def _stop_for_signal(self, number: int) -> None:
        try:
            self._shut_down(logging.INFO)
        finally:
            self._on_stopped(self)
            self._signals.deliver(number)
            self._stopped.set()
