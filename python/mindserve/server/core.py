"""The master's parts, and how they start and stop together."""

from __future__ import annotations

import contextlib
import logging
import os
import threading
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from mindserve import config, logs, native, tls
from mindserve.config import Limits, Listener, ServableStartConfig
from mindserve.control import WorkerParameters
from mindserve.errors import ConfigError, StartError
from mindserve.server.signals import SignalWatch
from mindserve.server.statistics import CertificateStats, Stats, make_stats
from mindserve.supervisor import Supervisor, WorkerSpec
from mindserve.supervisor.progress import wait_with_progress

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
        self._declared: dict[str, tuple[int, int]] = {}  # servables, and their limits
        self._certificates: list[CertificateStats] = []
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

    def set_max_enqueued_requests(self, count: int) -> None:
        """See `mindserve.server.master.context.set_max_enqueued_requests`."""
        self._gateway.set_max_enqueued_requests(count)

    def stats(self) -> Stats:
        """See `mindserve.server.stats`."""
        with self._gateway_use:
            native = self._gateway.stats()
        return make_stats(native, self._supervisor.states(), self._certificates)

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
        specs = make_specs(configs, running=len(self._supervisor.pids()))
        declared = {item.servable_name: (item.max_enqueued_requests, item.max_enqueued_bytes) for item in configs}
        with self._lock:
            before = dict(self._declared)
            self._declared |= declared
        for name, limits in declared.items():
            self._gateway.declare_servable(name, *limits)
        job = self._supervisor.start(specs)
        wait_with_progress(job)
        if not job.error:
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

    def _start_grpc_server(self, listeners: Sequence[Listener], limits: Limits) -> list[str]:
        with self._lock:
            if self._stopping:
                raise StartError("Serving Error: Serving gRPC server start failed, the server is being stopped")
            if self._listening:
                raise StartError("Serving Error: Serving gRPC server is already running")
            given = [_as_native(listener) for listener in listeners]
            try:
                bound: list[str] = self._gateway.listen(given, limits.as_native())
            except self._native.NativeError as error:
                if error.code == "INVALID_ARGUMENT":
                    raise ConfigError(str(error)) from error
                raise StartError(_listen_error(str(error), listeners)) from error
            self._listening = True
            self._certificates = [
                CertificateStats(address, listener.ssl_config.certificate, tls["expires"])
                for address, listener, tls in zip(bound, listeners, (item["tls"] for item in given), strict=True)
                if listener.ssl_config is not None
            ]
            self._drain_timeout = limits.drain_timeout
        _log.info("Serving gRPC server start success, listening on %s", ", ".join(bound))
        return bound

    def _stop_if_idle(self) -> None:
        """After a failure: a server that has nothing must not keep the process alive."""
        if not self._listening and not self._supervisor.busy() and not self._stopping:
            self._stop(logging.DEBUG)

    def _shut_down(self, level: int) -> None:
        _log.log(level, "the server stops")
        try:
            self._gateway.stop_listening(self._drain_timeout)
        finally:
            self._supervisor.stop()
            self._supervisor.join()
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


def make_specs(configs: Sequence[ServableStartConfig], running: int) -> list[WorkerSpec]:
    """One worker for each device of each config, each once.

    Args:
        configs: what to start.
        running: workers that run on this host already; they share the cores.

    Raises:
        ConfigError: a directory or a file is missing.
    """
    wanted: dict[tuple[str, int, int], ServableStartConfig] = {}
    for item in configs:
        config.check_servable_directory(item)
        # A servable of functions alone needs no version directory; the worker knows whether it has models.
        version = config.find_version(item.servable_directory, item.servable_name, item.version_number)
        for device_id in item.device_ids:
            wanted.setdefault((item.servable_name, version or item.version_number or 1, device_id), item)
    threads = max(1, len(os.sched_getaffinity(0)) // (len(wanted) + running))
    return [
        WorkerSpec(
            WorkerParameters(
                servable_directory=item.servable_directory,
                servable_name=name,
                version=version,
                version_asked=item.version_number,
                device_id=device_id,
                device_type=item.device_type,
                intra_op_threads=threads,
                max_batch_size=item.max_batch_size,
                max_queue_delay_us=item.max_queue_delay_us,
                refuse_late=item.refuse_late,
            ),
            logs.worker_log_path(name, device_id, version),
            item.start_timeout,
            item.heartbeat_timeout,
        )
        for (name, version, device_id), item in wanted.items()
    ]


def _listen_error(text: str, listeners: Sequence[Listener]) -> str:
    if text.startswith("Serving Error: "):
        return text
    addresses = ", ".join(listener.address for listener in listeners)
    return f"Serving Error: Serving gRPC server start failed, create server failed, address {addresses}: {text}"


def _as_native(listener: Listener) -> dict[str, Any]:
    return {
        "address": listener.address,
        "unix_mode": listener.mode,
        "tls": None if listener.ssl_config is None else dict(tls.load_server_tls(listener.ssl_config)),
    }
