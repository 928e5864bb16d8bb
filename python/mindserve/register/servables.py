"""Other servables of the same server, which handlers and stage functions may call."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mindserve.register.servable_handle import ServableHandle


def _nothing(_: object) -> None:
    pass


@dataclass
class Server:
    """Where the calls of this process go; see `set_server`. ``address`` None: it is not known yet."""

    address: str | None = None
    begin_call: Callable[[object], None] = _nothing
    end_call: Callable[[object], None] = _nothing


server = Server()


def set_server(
    address: str,
    begin_call: Callable[[object], None] = _nothing,
    end_call: Callable[[object], None] = _nothing,
) -> None:
    """Says where the calls of this worker go; for the worker, before it serves.

    Args:
        address: of its server's gateway; empty: there is no way to it.
        begin_call: called where something begins to wait for an answer, with the request for which, or None.
        end_call: called there when it has waited, with the same.
    """
    server.address, server.begin_call, server.end_call = address, begin_call, end_call


def get_servable(name: str, *, method: str, version_number: int = 0) -> ServableHandle:
    """Another servable of the same server, to be called from handlers and stage functions.

    Nothing is sent before the first call, so that servables may name each other and be started in any order. The
    deadline of the request for which a call is made, its id, and its cancellation go along. A chain of more than 16
    calls within calls, as servables that call each other in a circle make, ends with FAILED_PRECONDITION.

    Args:
        name: of the servable.
        method: a method made by ``register_method``; or "pkg.Service/Method" for one of a gRPC service, whose
            generated module (``…_pb2``) must have been imported.
        version_number: the servable's version. Default 0: the newest, which is always called of a gRPC service.

    Returns:
        What to call.

    Raises:
        ConfigError: a wrong parameter, or a service that no imported module has.

    Example::

        downloader = register.get_servable("downloader", method="download")


        async def Predict(request):
            image = await downloader.call_async(url=request.url)
    """
    from mindserve.register.servable_handle import ServableHandle

    return ServableHandle(name, method, version_number)
