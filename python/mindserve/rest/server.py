"""The REST server: its sockets, its thread, and how both begin and end."""

from __future__ import annotations

import asyncio
import collections
import contextlib
import errno
import os
import socket
import ssl
import threading
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from uvicorn.config import Config

from mindserve import logs
from mindserve.config import Limits
from mindserve.errors import StartError
from mindserve.rest.address import Address, adopt, bind, prepare_accepted
from mindserve.rest.app import App
from mindserve.rest.calls import Calls
from mindserve.rest.connection import Connection, Shared, peer_text
from mindserve.rest.context import Backend, Context, Memory
from mindserve.rest.pool import Pool
from mindserve.rest.tls import make_context
from mindserve.tls import ServerTls

if TYPE_CHECKING:
    from mindserve._native import Gateway

T = TypeVar("T")

# Connections that are accepted in one round of the event loop, so that those that are there have their turn.
_ACCEPT_AT_A_TIME = 64
# Seconds without accepting when no descriptor or memory is left for another connection.
_ACCEPT_PAUSE = 0.1
_THREADS = 2
# Seconds for answers to reach their clients, once there are all.
_FLUSH_TIMEOUT = 5.0
# More than a loop of uvloop has.
_LOOP_DESCRIPTORS = 16
_SHORT_OF = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)

_log = logs.get_logger("rest")


class RestServer:
    """Answers HTTP at one address. Used once: made, `start`, then maybe `accept`, `drain`, `close`. Thread-safe.

    Args:
        address: where.
        limits: what it admits; those of the gateway's calls are not its business.
        tls: certificates; None: plain HTTP.
        backend: the rest of the server.
        inherited: descriptors of sockets of a predecessor that listen there already; none: the address is bound. They
            stay the caller's.

    Raises:
        ConfigError: certificates that don't work.
        StartError: the address can't be bound.
    """

    def __init__(
        self, address: Address, limits: Limits, tls: ServerTls | None, backend: Backend, inherited: tuple[int, ...] = ()
    ) -> None:
        self._limits = limits
        self._backend = backend
        self._tls: ssl.SSLContext | None = None if tls is None else make_context(tls)
        if inherited:
            self._sockets = adopt(inherited)
            self.bound = str(Address(address.host, self._sockets[0].getsockname()[1]))
        else:
            self._sockets, self.bound = bind(address)
        try:
            self._loop = _new_loop()
        except OSError as error:
            for each in self._sockets:
                each.close()
            raise StartError(f"the RESTful server's event loop can't be made: {error.strerror}") from error
        self._thread = threading.Thread(target=self._run, name="mindserve-rest", daemon=True)
        self._pool = Pool(_THREADS)
        self._memory = Memory(limits.max_enqueued_bytes or _default_memory())
        self._shared: Shared | None = None
        self._calls: Calls | None = None
        self._peers: collections.Counter[str] = collections.Counter()
        self._open = 0  # connections, with those in their handshakes
        self._handshakes: set[asyncio.Task[None]] = set()
        self._warned = False
        self._waiting = False  # connections, for descriptors or memory; said in the log
        self._none_left = threading.Event()
        self._closed = False

    # --- any thread ---

    def start(self, gateway: Gateway, *, accept: bool) -> None:
        """Starts the thread; without ``accept`` connections wait until that is called."""
        self._thread.start()
        self._call(lambda: self._begin(gateway))
        if accept:
            self.accept()

    def accept(self) -> None:
        """Begins to accept connections."""
        self._call(self._accept_all)

    def set_tls(self, tls: ServerTls) -> None:
        """Exchanges the certificates, for new connections.

        Raises:
            ConfigError: they don't work.
        """
        self._tls = make_context(tls)

    def share(self) -> tuple[int, ...]:
        """New descriptors of its sockets, for a successor."""
        return tuple(os.dup(each.fileno()) for each in self._sockets)

    def drain(self, idle: float) -> None:
        """Stops accepting. Connections end with their next answers, those without a request after ``idle`` seconds.

        Waits until none is left, ``idle`` seconds at most.
        """
        self._call(self._drain)
        if idle:
            self._none_left.wait(idle)
        self._call(self._close_idle)

    def close(self) -> None:
        """Ends, after answers that there are have been sent. No-op the second time."""
        if self._closed:
            return
        self._closed = True
        if self._thread.is_alive() and self._shared is not None:
            self._call(self._drain)
            self._call(self._close_idle)
            self._none_left.wait(_FLUSH_TIMEOUT)
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()
        for each in self._sockets:
            each.close()
        self._pool.close()
        if not self._loop.is_closed():
            self._loop.close()

    @property
    def connections(self) -> int:
        """That are open."""
        return self._open

    @property
    def refused(self) -> int:
        """How often ``max_enqueued_bytes`` left no room for a body or an answer."""
        return self._memory.refused

    def _call(self, function: Callable[[], T]) -> T:
        """Has the event loop's thread call it, and waits."""

        async def calling() -> T:
            return function()

        return asyncio.run_coroutine_threadsafe(calling(), self._loop).result()

    # --- the event loop's thread ---

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_forever()
        left = asyncio.all_tasks(self._loop)
        for task in left:
            task.cancel()
        self._loop.run_until_complete(asyncio.gather(*left, return_exceptions=True))
        for connection in list(self._connections()):
            connection.transport.abort()
        if self._calls is not None:
            self._calls.close()
        self._loop.run_until_complete(asyncio.sleep(0))  # aborted transports tell their connections
        self._loop.close()

    def _begin(self, gateway: Gateway) -> None:
        self._calls = Calls(gateway)
        memory = self._memory
        max_body = self._limits.max_msg_mb_size << 20
        most = self._limits.max_instances_per_request
        app = App(Context(self._calls, self._backend, max_body, most, memory, self._pool, self._backend.authority))
        config = Config(
            app,
            http=Connection,
            ws="none",
            lifespan="off",
            interface="asgi3",
            log_config=None,
            access_log=False,
            proxy_headers=False,
            server_header=False,
            date_header=False,
        )
        config.load()
        self._shared = Shared(config, self._limits, self._loop, on_closed=self._on_closed)

    def _accept_all(self) -> None:
        for each in self._sockets:
            self._loop.add_reader(each.fileno(), self._on_connections, each)

    def _on_connections(self, listening: socket.socket) -> None:
        for _ in range(_ACCEPT_AT_A_TIME):
            try:
                accepted, address = listening.accept()
            except BlockingIOError:
                self._waiting = False  # nobody does
                return
            except ConnectionAbortedError:
                continue
            except OSError as error:
                self._on_accept_failed(listening, error)
                return
            peer = str(address[0])
            if not self._enter(peer):
                accepted.close()
                continue
            accepted.setblocking(False)
            task = self._loop.create_task(self._connect(accepted, (peer, address[1])))
            self._handshakes.add(task)
            task.add_done_callback(self._handshakes.discard)

    def _on_accept_failed(self, listening: socket.socket, error: OSError) -> None:
        if error.errno not in _SHORT_OF:
            _log.error("a connection can't be accepted: %s", error)
            return
        if not self._waiting:  # once until all are accepted
            self._waiting = True
            _log.warning("connections to %s have to wait: accept: %s", self.bound, error.strerror)
        self._loop.remove_reader(listening.fileno())

        def resume() -> None:
            if self._shared is not None and not self._shared.draining:
                self._loop.add_reader(listening.fileno(), self._on_connections, listening)

        self._loop.call_later(_ACCEPT_PAUSE, resume)

    async def _connect(self, accepted: socket.socket, client: tuple[str, int]) -> None:
        assert self._shared is not None
        shared = self._shared
        connection = Connection(shared, client[0], accepted)
        options: dict[str, Any] = {}
        if self._tls is not None:
            options = {
                "ssl": self._tls,
                "ssl_handshake_timeout": self._limits.header_timeout,
                "ssl_shutdown_timeout": 2.0,
            }
        try:
            prepare_accepted(accepted)
            await self._loop.connect_accepted_socket(lambda: connection, accepted, **options)
        except (OSError, asyncio.TimeoutError) as error:
            # Of TLS: what a client sent is no handshake, or a certificate that is not trusted.
            shared.log.warn(f"a connection from {peer_text(client)} was refused: {str(error) or type(error).__name__}")
            self._give_up(connection, accepted)
        except BaseException:
            self._give_up(connection, accepted)
            raise

    def _give_up(self, connection: Connection, accepted: socket.socket) -> None:
        if not connection.made:  # else it tells by itself when it is closed
            self._leave(connection.host)
        accepted.close()

    def _enter(self, peer: str) -> bool:
        """Counts a connection, if there may be another one."""
        limits = self._limits
        most = limits.max_connections_per_peer
        if self._open >= limits.max_connections or (most and self._peers[peer] >= most):
            if not self._warned:  # once until there is room again
                self._warned = True
                _log.warning(
                    "connection of %s refused: max_connections %d or max_connections_per_peer %d is reached",
                    peer,
                    limits.max_connections,
                    most,
                )
            return False
        self._open += 1
        self._peers[peer] += 1
        return True

    def _leave(self, peer: str) -> None:
        self._open -= 1
        self._warned = False
        self._peers[peer] -= 1
        if not self._peers[peer]:
            del self._peers[peer]
        self._look_whether_done()

    def _on_closed(self, connection: Connection) -> None:
        self._leave(connection.host)

    def _look_whether_done(self) -> None:
        if self._shared is not None and self._shared.draining and not self._open:
            self._none_left.set()

    def _drain(self) -> None:
        assert self._shared is not None
        self._shared.draining = True
        for each in self._sockets:
            if each.fileno() >= 0:
                self._loop.remove_reader(each.fileno())
                each.close()
        for connection in self._connections():
            if connection.cycle is not None:
                connection.cycle.keep_alive = False
        self._look_whether_done()

    def _close_idle(self) -> None:
        for connection in list(self._connections()):
            if connection.idle:
                connection.transport.close()

    def _connections(self) -> Sequence[Connection]:
        return [] if self._shared is None else list(self._shared.state.connections)  # type: ignore[arg-type]


def _new_loop() -> asyncio.AbstractEventLoop:
    """A loop of uvloop, or without that of Python's own.

    Raises:
        OSError: there are too few file descriptors.
    """
    with contextlib.suppress(ImportError):
        import uvloop

        _need_descriptors(_LOOP_DESCRIPTORS)
        return uvloop.new_event_loop()
    return asyncio.new_event_loop()


def _need_descriptors(count: int) -> None:
    """Raises an OSError if there are not so many. libuv would end the process, and all that it serves."""
    held: list[int] = []
    try:
        for _ in range(count):
            held.append(os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC))
    finally:
        for each in held:
            os.close(each)


def _default_memory() -> int:
    """As the gateway's max_enqueued_bytes: a quarter of the machine's memory, at most 4 GB."""
    return int(min(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 4, 4_000_000_000))
