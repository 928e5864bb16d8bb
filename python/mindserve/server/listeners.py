"""The gateway's listeners: their certificates, and the sockets that come from a predecessor or go to a successor."""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

from mindserve import native
from mindserve.config import Limits, Listener
from mindserve.errors import ConfigError, StartError
from mindserve.server import descriptors
from mindserve.server.certificates import Certificates
from mindserve.server.handover import Predecessor, SharedListener
from mindserve.server.internal import InternalSocket
from mindserve.server.watch import FileWatch
from mindserve.tls import ServerTls

if TYPE_CHECKING:
    from mindserve._native import Gateway


class Listeners:
    """Has the gateway take calls: of clients, and from inside the process. Guarded by its user's lock.

    Args:
        gateway: the gateway; raises StartError once the server has been stopped.
        use: held by whoever might else be the last to hold the gateway.
        internal: where workers call; listened on with the first listeners.
    """

    def __init__(self, gateway: Callable[[], Gateway], use: threading.Lock, internal: InternalSocket) -> None:
        self._gateway = gateway
        self._use = use
        self._internal = internal
        self._open = False  # the gateway takes calls, at least those from inside the process
        self._given: list[str] = []
        self.certificates: Certificates | None = None  # there while clients are listened to
        self.addresses: list[str] = []  # as bound

    @property
    def listening(self) -> bool:
        """To clients."""
        return self.certificates is not None

    def begin(
        self, listeners: Sequence[Listener], limits: Limits, predecessor: Predecessor | None, watch: FileWatch
    ) -> list[str]:
        """Listens to clients; with a predecessor by its sockets, accepting nobody yet.

        Returns:
            The addresses, as bound.

        Raises:
            ConfigError: an illegal address, or certificates that don't work.
            StartError: an address can't be bound, or the server has been stopped.
        """
        certificates = Certificates(listeners, self._set_tls)
        given = [_as_native(listener, certificates.native(number)) for number, listener in enumerate(listeners)]
        inherited: Sequence[SharedListener | None] = [None] * len(given)
        if predecessor is not None:
            inherited = predecessor.claim([listener.address for listener in listeners])
        for item, sockets in zip(given, inherited, strict=True):
            item["inherited"] = None if sockets is None else sockets.as_native()
        descriptors.make_room(limits.max_connections)
        try:
            bound = self._listen(given, limits, accept=predecessor is None)
        except native.load().NativeError as error:
            if error.code == "INVALID_ARGUMENT":
                raise ConfigError(str(error)) from None
            raise StartError(_listen_error(str(error), listeners)) from None
        certificates.begin(bound, watch)
        self.certificates = certificates
        self._given = [listener.address for listener in listeners]
        self.addresses = bound
        return bound

    def begin_inside(self, limits: Limits, *, accept: bool) -> None:
        """Has the gateway take calls from inside the process, unless it does."""
        if not self._open:
            self._listen([], limits, accept=accept)

    def share(self) -> list[SharedListener]:
        """The sockets, for a successor."""
        try:
            shared = self._gateway().share_listeners()
        except native.load().NativeError as error:
            raise StartError(f"The listening sockets can't be shared: {error}") from error
        listeners = [
            SharedListener(given, bound, tuple(each["fds"]), each["file"])
            for given, bound, each in zip(self._given, self.addresses, shared, strict=False)
        ]
        for each in shared[len(listeners) :]:  # the internal one: a successor has its own
            for fd in each["fds"]:
                os.close(fd)
        return listeners

    def disown(self, places: Iterable[int]) -> None:
        """Those of the listeners are a successor's now: `share` has their places."""
        self._gateway().disown_listeners([place for place in places if place < len(self.addresses)])

    def _listen(self, listeners: Sequence[dict[str, Any]], limits: Limits, *, accept: bool) -> list[str]:
        given = list(listeners)
        if not self._open and (address := self._internal.address):
            given.append({"address": address, "internal": True})
        bound = self._gateway().listen(given, limits.as_native(), accept)
        self._open = True
        return bound[: len(listeners)]

    def _set_tls(self, listener: int, values: ServerTls) -> None:
        with self._use:
            try:
                self._gateway().set_tls(listener, values)
            except native.load().NativeError as error:
                if error.code == "FAILED_PRECONDITION":  # it listens no more
                    raise StartError(str(error)) from error
                raise ConfigError(str(error)) from error


def _listen_error(text: str, listeners: Sequence[Listener]) -> str:
    if text.endswith(os.strerror(errno.EADDRINUSE)):
        text += ": another server listens there, or give port 0 for a free one"
    if text.startswith("Serving Error: "):
        return text
    addresses = ", ".join(listener.address for listener in listeners)
    return f"Serving Error: Serving gRPC server start failed, create server failed, address {addresses}: {text}"


def _as_native(listener: Listener, certificates: ServerTls | None) -> dict[str, Any]:
    return {"address": listener.address, "unix_mode": listener.mode, "tls": certificates}
