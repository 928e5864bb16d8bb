"""The functions that a start script calls. They act on the one server of this process."""

from __future__ import annotations

import dataclasses
import sys
import threading
from collections.abc import Callable, Sequence
from typing import Any

from mindserve import checks, logs
from mindserve.config import AuthConfig, Limits, Listener, ServableStartConfig, check_servable_configs
from mindserve.errors import ConfigError, StartError, later
from mindserve.server.core import Server
from mindserve.server.descriptors import advise_of_lack
from mindserve.server.handover import Predecessor, from_environment
from mindserve.server.services import check_functions
from mindserve.server.signals import SignalWatch
from mindserve.server.statistics import Stats
from mindserve.tls import SSLConfig
from mindserve.traffic import Mirror, Split, Variation

_DEFAULT_MAX_MSG_MB_SIZE = Limits().max_msg_mb_size

_log = logs.get_logger("server")


def start_servables(
    servable_configs: ServableStartConfig | tuple[ServableStartConfig, ...] | list[ServableStartConfig],
    enable_lite: bool = False,
) -> None:
    """Starts a worker for each servable and device, and waits until all of them are ready.

    May be called before or after `start_grpc_server`, and several times; all workers of a call start, or none: also if
    one of them fails, or is running already. On a terminal it shows how far each worker is.
    Each worker logs to ``serving_logs/log_{name}_device{d}_version{v}.log`` under the current directory. A worker that
    dies is restarted; one that is ended by SIGINT or SIGTERM is not.

    The first call from the main thread takes over SIGINT and SIGTERM until the server has stopped; one from another
    thread can't, and logs a warning if none has. With either signal, calls in flight are finished (a second signal:
    given up), then the workers end. If the main thread has ended by then, so does the process, with status 0 if the
    start script did well; if it still runs, SIGINT arrives there as ``KeyboardInterrupt`` and SIGTERM as
    ``SystemExit(0)``. A start script that raises takes its server with it.

    Args:
        servable_configs: one, or a tuple or list of them.
        enable_lite: not yet supported. Default False.

    Raises:
        ConfigError: a wrong parameter, a directory or a file that is missing; or an import path of the server's
            ``grpc_servicer_functions`` that leads nowhere with these servables either.
        StartError: a worker failed to start, with its own error and the end of its log; or one of ``servable_configs``
            is running already, in the same version on the same device; or, if the server was started before, a
            service of its ``grpc_servicer_functions`` that no servable answers, or one otherwise than its proto file
            says. What ran before goes on.
        UnsupportedError: ``enable_lite`` is True.
    """
    configs = check_servable_configs(servable_configs)
    if checks.check_bool("enable_lite", enable_lite):
        raise later("Parameter 'enable_lite'")
    with advise_of_lack():
        _current.get().start_servables(configs)


def start_grpc_server(
    address: str | list[Listener] | tuple[Listener, ...],
    max_msg_mb_size: int = _DEFAULT_MAX_MSG_MB_SIZE,
    ssl_config: SSLConfig | None = None,
    *,
    limits: Limits | None = None,
    grpc_servicer_functions: Sequence[str | Callable[..., None]] | None = None,
    auth: AuthConfig | None = None,
) -> list[str]:
    """Starts to answer gRPC.

    Besides MindServe's own services it answers those of ``grpc_servicer_functions``, which the servables' handlers are
    for. Each service must be answered by a servable: of those that run, or else of those of the next `start_servables`.

    Args:
        address: "127.0.0.1:5500", "localhost:5500", "[::1]:5500" or "unix:path", whose directory must exist; port 0
            takes a free one. Or a list of `Listener` to answer on several at once, each with its own certificates.
        max_msg_mb_size: the largest request in MiB, 1 to 512. Default 100.
        ssl_config: certificates for TLS on ``address``. Default None: plaintext.
        limits: what the server admits. Default None: the defaults of `Limits`.
        grpc_servicer_functions: for each of your own gRPC services the generated ``add_XServicer_to_server`` function,
            or its import path, "user_pb2_grpc.add_XServicer_to_server" or "package.module:function". Modules of import
            paths are looked for in ``sys.path`` and in the servables' directories, and imported by a process of their
            own; what isn't found before any servable is started is looked for again then. Default None: none.
        auth: clients have to show who they are, by tokens or certificates; of `start_restful_server` the same. Default
            None: nobody is asked.

    Returns:
        The addresses, with the ports that were taken.

    Raises:
        ConfigError: a wrong parameter, an illegal address, or certificates or keys that don't work; ``auth`` on plain
            TCP beyond loopback, or another than `start_restful_server` was given; an item of
            ``grpc_servicer_functions`` that can't be imported, is no such function, or is for a service that another
            one is for.
        StartError: the server is running already, or an address can't be bound; or the servables that run answer a
            service not at all, or otherwise than its proto file says.
    """
    listeners = _listeners(address, ssl_config)
    effective = _effective_limits(limits, max_msg_mb_size)
    functions = check_functions(grpc_servicer_functions)
    with advise_of_lack():
        return _current.get().start_grpc_server(listeners, effective, functions, _check_auth(auth))


def reload(servable_name: str | None = None) -> None:
    """Loads servables anew while they are served, and waits until the new workers have taken over.

    New workers are started beside those that run, import ``servable_config.py``, load their models and run each once.
    When all are ready they take the requests; the old ones finish what they hold, within ``Limits.drain_timeout``, and
    end. If one fails, all new ones are ended and the old ones go on. Without a call this happens by itself when files
    change: see ``ServableStartConfig.hot_reload``.

    A config with version number 0 is loaded in the version that is the newest now. Workers that were told to end are
    started too. If a reload is under way already, another one follows.

    Args:
        servable_name: which. Default None: all that were started, after the listeners' certificates.

    Raises:
        ConfigError: no servable of this name was started; or certificates don't work: then their listeners keep what
            they had, and no servable is loaded.
        StartError: a new worker failed, with its own error and the end of its log; or no server runs in this process,
            or it is being stopped.
    """
    if servable_name is not None:
        checks.check_str("servable_name", servable_name)
    with advise_of_lack():
        _current.reload(servable_name)


def set_traffic(
    name: str,
    variations: tuple[Variation, ...] | list[Variation],
    sticky: str | None = None,
    mirrors: tuple[Mirror, ...] | list[Mirror] = (),
) -> None:
    """Splits the calls of a name between servables or versions, or splits them otherwise than before.

    Holds for every call that comes after it has returned; those under way stay where they are. May be called at any
    time while servables run, as often as weights are to change. Of what was changed while the server ran, a
    `handover` passes on what was changed by ``mindserve traffic``; the rest is the new server's start script's to say.

    Args:
        name: what clients ask for: a name of its own, or a servable's, of which then only the calls without a version
            are split.
        variations: who answers, and how often.
        sticky: a key of metadata; calls with the same value of it go to the same variation. Default None: all calls
            take turns.
        mirrors: who gets copies of the calls besides. Nobody waits for them, and of streams there are none. Default:
            nobody.

    Raises:
        ConfigError: a wrong parameter: a weight that is negative or no number, weights that sum to 0, two variations of
            one name, or none; or a servable that was not started, or not in that version.
        StartError: no server runs in this process, or it is being stopped.
    """
    given = tuple(variations) if isinstance(variations, list) else variations
    copied = tuple(mirrors) if isinstance(mirrors, list) else mirrors
    _current.set_traffic(Split(name, given, sticky, copied))


def clear_traffic(name: str) -> None:
    """From now on the calls of a name are split no more. No-op for one that is not split.

    Raises:
        StartError: no server runs in this process, or it is being stopped.
    """
    _current.clear_traffic(checks.check_str("name", name))


def traffic() -> dict[str, Split]:
    """The names that are split, and how, in alphabetical order.

    Raises:
        StartError: no server runs in this process.
    """
    return _current.traffic()


def start_restful_server(
    address: str,
    max_msg_mb_size: int = _DEFAULT_MAX_MSG_MB_SIZE,
    ssl_config: SSLConfig | None = None,
    *,
    limits: Limits | None = None,
    auth: AuthConfig | None = None,
) -> str:
    """Starts to answer HTTP with JSON.

    Besides the servables' methods, ``POST /model/{servable}[/version/{version}]:{method}``, it answers the services of
    `start_grpc_server`'s ``grpc_servicer_functions``, ``POST /{package.Service}/{Method}``, and ``GET`` of health and
    of what is served. May be called before or after `start_servables` and `start_grpc_server`, or without the latter.

    Args:
        address: "127.0.0.1:5501", "localhost:5501" or "[::1]:5501"; port 0 takes a free one.
        max_msg_mb_size: the largest body in MiB, as it comes and unpacked, 1 to 512. Default 100.
        ssl_config: certificates for HTTPS. Default None: plain HTTP.
        limits: of connections, headers, bodies and their times, for this server; without `start_grpc_server` also what
            is admitted over all. Default None: the defaults of `Limits`.
        auth: as that of `start_grpc_server`; with it ``/token`` gives tokens. Default None: nobody is asked.

    Returns:
        The address, with the port that was taken.

    Raises:
        ConfigError: a wrong parameter, an illegal address or that of a Unix socket, or certificates or keys that don't
            work; ``auth`` on plain TCP beyond loopback, or another than `start_grpc_server` was given.
        StartError: the server is running already, or the address can't be bound.
    """
    checks.check_str("address", address)
    _check_ssl_config(ssl_config)
    effective = _effective_limits(limits, max_msg_mb_size)
    with advise_of_lack():
        return _current.get().start_restful_server(Listener(address, ssl_config), effective, _check_auth(auth))


def handover(*, timeout: float | None = None) -> int:
    """Replaces this server by a new one, which runs this process's command line again, without losing a call.

    The new process gets the listening sockets, starts its own workers beside this server's, and accepts connections
    once it listens and has ready what this server has, or once its start script has ended. Then this server stops as by
    SIGTERM: it accepts nothing more, tells its clients to connect anew, finishes what is in flight within
    ``Limits.drain_timeout``, and ends. Until then both need memory. If the new one fails, it is ended, and this server
    goes on as if nothing had been.

    Any thread may call it; ``mindserve handover`` does the same from outside. Once the new process has taken over,
    every change of this one's is too late: what `stats` counts begins anew there.

    Args:
        timeout: seconds until the new server must be ready. Default None: 60 more than the longest ``start_timeout``.

    Returns:
        The new process's id, when it has begun to accept.

    Raises:
        ConfigError: ``timeout`` is no time.
        StartError: this server does not serve, is being stopped or is handing over already; its command line can't be
            run again; or the new one has failed, with the end of its output.
    """
    with advise_of_lack():
        return _current.handover(timeout)


def stop() -> None:
    """Stops the server: finishes the calls in flight, within ``Limits.drain_timeout``, and ends the workers.

    Returns when all is gone; then everything can be started again. Any thread may call it, also when nothing runs.
    """
    _current.stop()


def stats() -> Stats:
    """What the server has done since it began, and holds now.

    Counting is always on. Reading waits until each of the server's threads has finished its round, so that it takes
    longer while they have much to do; not to be called from a handler of ``logging``, for which they may be waiting.

    Raises:
        StartError: no server runs in this process.
    """
    return _current.stats()


def set_max_enqueued_requests(count: int) -> None:
    """See `mindserve.server.master.context.set_max_enqueued_requests`."""
    _current.set_max_enqueued_requests(count)


class _Current:
    """The server of this process: what lets plain functions be the API. The only state that the package keeps."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._server: Server | None = None
        self._max_enqueued_requests: int | None = None
        self._signals: SignalWatch | None = None
        self._handover = from_environment()

    def get(self) -> Server:
        """The server that runs; a new one if there is none."""
        with self._lock:
            server = self._server
        if server is not None and server.stopping:
            server.wait_stopped()
        with self._lock:
            if self._signals is None:
                self._signals = SignalWatch()
                threading.Thread(target=self._watch_main_thread, name="mindserve-main-watch", daemon=True).start()
            if self._server is None or self._server.stopping:
                end, self._handover = self._handover, None
                self._server = Server(self._signals, self._forget, None if end is None else Predecessor(end))
            return self._server

    def stats(self) -> Stats:
        return self._running().stats()

    def handover(self, timeout: float | None) -> int:
        return self._running().handover(timeout)

    def reload(self, servable_name: str | None) -> None:
        self._running().reload(servable_name)

    def set_traffic(self, split: Split) -> None:
        self._running().traffic.set(split)

    def clear_traffic(self, name: str) -> None:
        self._running().traffic.clear(name)

    def traffic(self) -> dict[str, Split]:
        return self._running().traffic.splits()

    def _running(self) -> Server:
        with self._lock:
            server = self._server
        if server is None:
            raise StartError("no server runs in this process: see start_servables and start_grpc_server")
        return server

    def stop(self) -> None:
        with self._lock:
            server = self._server
        if server is not None:
            server.stop()

    def _forget(self, server: Server) -> None:
        """Lets go of a server that has stopped, and so of its native threads and memory."""
        with self._lock:
            if self._server is server:
                self._server = None

    def _watch_main_thread(self) -> None:
        """A start script that fails after it has started something must not leave a half-started server behind."""
        threading.main_thread().join()
        failed = getattr(sys, "last_value", None)
        with self._lock:
            server = self._server
        if server is None:
            return
        if failed is None:
            server.script_ended()
        else:
            _log.error("the start script has failed (%s: %s), so the server stops", type(failed).__name__, failed)
            threading.Thread(target=self.stop, name="mindserve-stop", daemon=False).start()

    def default_limits(self) -> Limits:
        with self._lock:
            count = self._max_enqueued_requests
        return Limits() if count is None else Limits(max_enqueued_requests=count)

    def set_max_enqueued_requests(self, count: int) -> None:
        with self._lock:
            self._max_enqueued_requests = count
            server = self._server
        if server is not None and not server.stopping:
            server.set_max_enqueued_requests(count)


def _effective_limits(limits: Any, max_msg_mb_size: Any) -> Limits:
    checks.check_int("max_msg_mb_size", max_msg_mb_size, 1, 512)
    if limits is not None and not isinstance(limits, Limits):
        raise ConfigError(f"Parameter 'limits' should be Limits, but actually {type(limits)}")
    effective = limits if limits is not None else _current.default_limits()
    if max_msg_mb_size == _DEFAULT_MAX_MSG_MB_SIZE:
        return effective
    if effective.max_msg_mb_size not in (_DEFAULT_MAX_MSG_MB_SIZE, max_msg_mb_size):
        raise ConfigError(
            f"Parameter 'max_msg_mb_size' {max_msg_mb_size} is different from that of parameter 'limits', "
            f"{effective.max_msg_mb_size}"
        )
    return dataclasses.replace(effective, max_msg_mb_size=max_msg_mb_size)


def _check_auth(auth: Any) -> AuthConfig | None:
    if auth is not None and not isinstance(auth, AuthConfig):
        raise ConfigError(f"Parameter 'auth' should be AuthConfig, but actually {type(auth)}")
    return auth


def _check_ssl_config(ssl_config: Any) -> None:
    if ssl_config is not None and not isinstance(ssl_config, SSLConfig):
        raise ConfigError(f"Parameter 'ssl_config' should be SSLConfig, but actually {type(ssl_config)}")


def _listeners(address: Any, ssl_config: Any) -> list[Listener]:
    _check_ssl_config(ssl_config)
    if not isinstance(address, list | tuple):
        return [Listener(checks.check_str("address", address), ssl_config)]
    if ssl_config is not None:
        raise ConfigError("Parameter 'ssl_config' belongs to each Listener where parameter 'address' is a list of them")
    if not address:
        raise ConfigError("Parameter 'address' should not be an empty list")
    for item in address:
        if not isinstance(item, Listener):
            raise ConfigError(f"The item of parameter 'address' should be Listener, but actually {type(item)}")
    return list(address)


_current = _Current()
