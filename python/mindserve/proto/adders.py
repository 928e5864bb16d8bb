"""What ``add_XServicer_to_server`` functions, as grpcio's compiler generates them, do to a server."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any


class NotingServer:
    """In place of a ``grpc.Server``, of which generated functions use these methods only: takes notes.

    Attributes:
        generic: handlers of whole services, ``grpc.ServiceRpcHandler``: all that older functions add.
        registered: handlers of methods, by their names, by the services' names.
    """

    def __init__(self) -> None:
        self.generic: list[Any] = []
        self.registered: dict[str, Mapping[str, Any]] = {}

    def add_generic_rpc_handlers(self, generic_rpc_handlers: Iterable[Any]) -> None:
        self.generic += generic_rpc_handlers

    def add_registered_method_handlers(self, service_name: str, method_handlers: Mapping[str, Any]) -> None:
        self.registered[service_name] = dict(method_handlers)

    def services(self) -> list[str]:
        """The names of the services that were added, each once."""
        return list(dict.fromkeys([*self.registered, *(str(handler.service_name()) for handler in self.generic)]))
