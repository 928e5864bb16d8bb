"""The REST server as a part of this process's server: certificates, handover, and what it is told of the rest."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mindserve.config import Limits, Listener
from mindserve.errors import StartError
from mindserve.server.certificates import Certificates
from mindserve.server.handover import HTTP, Predecessor, SharedListener
from mindserve.server.watch import FileWatch
from mindserve.tls import ServerTls

if TYPE_CHECKING:
    from mindserve._native import Gateway
    from mindserve.rest.context import Backend


class Restful:
    """A REST server that runs, with what it takes from the rest of the process. Thread-safe.

    Args:
        listener: where, and by which certificates.
        limits: what it admits.
        backend: what it asks.
        predecessor: whose sockets it takes over, if there is one.

    Raises:
        ConfigError: an illegal address, or certificates that don't work.
        StartError: the address can't be bound.
    """

    def __init__(self, listener: Listener, limits: Limits, backend: Backend, predecessor: Predecessor | None) -> None:
        # Only here: whoever serves gRPC alone does without what HTTP needs.
        from mindserve.rest.address import parse_address
        from mindserve.rest.server import RestServer

        address = parse_address(listener.address)
        self._given = HTTP + listener.address
        self.certificates = Certificates([listener], self._set_tls)
        inherited = None if predecessor is None else predecessor.claim([self._given])[0]
        self._rest = RestServer(
            address, limits, self.certificates.native(0), backend, () if inherited is None else inherited.fds
        )
        self.limits = limits
        self.address = self._rest.bound
        scheme = "http" if listener.ssl_config is None else "https"
        self.url = f"{scheme}://{self.address}"

    def start(self, gateway: Gateway, watch: FileWatch, *, accept: bool) -> None:
        """Begins to answer; without ``accept``, once that is called."""
        self._rest.start(gateway, accept=accept)
        self.certificates.begin([self.address], watch)

    def accept(self) -> None:
        """Begins to accept connections."""
        self._rest.accept()

    def share(self) -> SharedListener:
        """Its sockets, for a successor."""
        return SharedListener(self._given, HTTP + self.address, self._rest.share(), None)

    @property
    def refused(self) -> int:
        """How often ``max_enqueued_bytes`` left no room for a body or an answer."""
        return self._rest.refused

    def drain(self, idle: float) -> None:
        """Accepts nothing more; see `mindserve.rest.server.RestServer.drain`."""
        self._rest.drain(idle)

    def close(self) -> None:
        """Ends, once the answers that there are have been sent."""
        self._rest.close()

    def _set_tls(self, listener: int, values: ServerTls) -> None:
        try:
            self._rest.set_tls(values)
        except OSError as error:
            raise StartError(str(error)) from error
