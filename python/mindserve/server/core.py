"""The master's parts, and how they start and stop together."""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from mindserve import logs, native
from mindserve.config import Limits, Listener, ServableStartConfig
from mindserve.errors import ConfigError, StartError
from mindserve.server.certificates import Certificates
from mindserve.server.reloader import Reloader
from mindserve.server.servables import make_specs, resolve
from mindserve.server.signals import SignalWatch
from mindserve.server.statistics import Stats, make_stats
from mindserve.server.watch import FileWatch
from mindserve.supervisor import Supervisor
from mindserve.supervisor.progress import wait_with_progress
from mindserve.tls import ServerTls

if TYPE_CHECKING:
    from mindserve._native import Gateway

_log = logs.get_logger("server")


class Server:
    """A gateway, the workers behind it, and the signals that end them. Used once: started, then stopped.

    Its methods may be called from any thread.

    Args:
        signals: tells it of SIGINT and SIGTERM.
        on_stopped: called when it has stopped, for whatever reason, from the thread that stopped it.
    """

    def __init__(self, signals: SignalWatch, on_stopped: Callable[[Server], None]) -> None:
        self._on_stopped = on_stopped
        core = native.load()
        core.set_log_level(logs.configure_master())
        core.set_log_sink(logs.native_sink)
        self._native = core
        # Only this and the supervisor hold the gateway: its threads must end with the server, not whenever its last
        # reference goes, which could be in a thread that is being torn down with the interpreter.
        self._gateway_or_none: Gateway | None = core.Gateway()
        self._supervisor = Supervisor(self._gateway)
        self._signals = signals
        self._lock = threading.Lock()
        self._gateway_use = threading.Lock()  # held by whoever might else be the last to hold the gateway
        self._listening = False
        self._drain_timeout = Limits().drain_timeout
        self._watch = FileWatch()
        self._reloader = Reloader(self._supervisor, self._watch, lambda: self._drain_timeout)
        self._declared: set[str] = set()
        self._certificates: Certificates | None = None  # there while it listens
        self._stopping = False
        self._stopped = threading.Event()
        signals.begin(self._on_signal)

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
        except BaseException:
            self._stop_if_idle()
            raise

    def start_grpc_server(self, listeners: Sequence[Listener], limits: Limits) -> list[str]:
        """See `mindserve.server.start_grpc_server`."""
        self._signals.install()
        try:
            return self._start_grpc_server(listeners, limits)
        except BaseException:
            self._stop_if_idle()
            raise

    def reload(self, servable_name: str | None) -> None:
        """See `mindserve.server.reload`."""
        if servable_name is None and self._certificates is not None:
            self._certificates.reload()
        try:
            self._reloader.reload(servable_name)
        except StartError:
            if self._stopping:
                self._stopped.wait()
            raise

    def set_max_enqueued_requests(self, count: int) -> None:
        """See `mindserve.server.master.context.set_max_enqueued_requests`."""
        self._gateway.set_max_enqueued_requests(count)

    def stats(self) -> Stats:
        """See `mindserve.server.stats`."""
        with self._gateway_use:
            native = self._gateway.stats()
        certificates = self._certificates
        shown = certificates.stats() if certificates else ()
        return make_stats(native, self._supervisor.states(), self._reloader.stats(), shown)

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
        sources = self._reloader.look(configs)
        specs = make_specs(started, running=sum(state.pid is not None for state in self._supervisor.states()))
        names = {spec.parameters.servable_name for spec in specs}
        with self._lock:
            new_names = names - self._declared
            self._declared |= names
        for name in new_names:
            self._gateway.declare_servable(name)
        job = self._supervisor.start(specs)
        wait_with_progress(job)
        if not job.error:
            self._reloader.add(started, sources)
            return
        if self._stopping:
            # By a signal: it comes to this thread, if it is the main one, while this waits.
            self._stopped.wait()
            raise StartError(job.error)
        with self._lock:
            self._declared -= new_names
        # It may be stopping by now.
        with contextlib.suppress(StartError):
            for name in new_names:
                self._gateway.remove_servable(name)
        raise StartError(job.error)

    def _start_grpc_server(self, listeners: Sequence[Listener], limits: Limits) -> list[str]:
        with self._lock:
            if self._stopping:
                raise StartError("Serving Error: Serving gRPC server start failed, the server is being stopped")
            if self._listening:
                raise StartError("Serving Error: Serving gRPC server is already running")
            certificates = Certificates(listeners, self._set_tls)
            given = [_as_native(listener, certificates.native(number)) for number, listener in enumerate(listeners)]
            try:
                bound: list[str] = self._gateway.listen(given, limits.as_native())
            except self._native.NativeError as error:
                if error.code == "INVALID_ARGUMENT":
                    raise ConfigError(str(error)) from error
                raise StartError(_listen_error(str(error), listeners)) from error
            self._listening = True
            certificates.begin(bound, self._watch)
            self._certificates = certificates
            self._drain_timeout = limits.drain_timeout
        _log.info("Serving gRPC server start success, listening on %s", ", ".join(bound))
        return bound

    def _set_tls(self, listener: int, values: ServerTls) -> None:
        with self._gateway_use:
            try:
                self._gateway.set_tls(listener, values)
            except self._native.NativeError as error:
                if error.code == "FAILED_PRECONDITION":  # it listens no more
                    raise StartError(str(error)) from error
                raise ConfigError(str(error)) from error

    def _stop_if_idle(self) -> None:
        """After a failure: a server that has nothing must not keep the process alive."""
        if not self._listening and not self._supervisor.busy() and not self._stopping:
            self._stop(logging.DEBUG)

    def _shut_down(self, level: int) -> None:
        _log.log(level, "the server stops")
        self._reloader.close()
        self._watch.close()
        try:
            self._gateway.stop_listening(self._drain_timeout)
        finally:
            self._supervisor.stop()
            self._supervisor.join()
            self._reloader.join()
            with self._gateway_use:
                self._gateway_or_none = None
            self._native.set_log_sink(None)
        _log.log(level, "the server has stopped")

    def _on_signal(self, number: int) -> None:
        """The signal watch's thread: a signal has come."""
        with self._lock:
            first, self._stopping = not self._stopping, True
        if first:
            # Not a daemon: the process must not end before the requests in flight have.
            threading.Thread(target=self._stop_for_signal, args=(number,), name="mindserve-stop", daemon=False).start()
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


def _listen_error(text: str, listeners: Sequence[Listener]) -> str:
    if text.startswith("Serving Error: "):
        return text
    addresses = ", ".join(listener.address for listener in listeners)
    return f"Serving Error: Serving gRPC server start failed, create server failed, address {addresses}: {text}"


def _as_native(listener: Listener, certificates: ServerTls | None) -> dict[str, Any]:
    return {"address": listener.address, "unix_mode": listener.mode, "tls": certificates}
