"""Calls of other servables of the same server, from handlers and stage functions."""

from __future__ import annotations

import copy
import threading
import weakref
from collections.abc import AsyncIterator, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from mindserve import checks
from mindserve.errors import CallError, ConfigError, MindserveError
from mindserve.register.request import current

if TYPE_CHECKING:
    import asyncio

    from mindserve.client import AsyncClient, Client
    from mindserve.client.service import AsyncServiceCaller, ServiceCaller, ServiceMethod

# The metadata by which the gateway knows for which call another one is made. It takes it from its own workers only.
PARENT_KEY = "mindserve-parent"

_NEVER = object()


class _Server:
    """Where calls of this worker go; set once, before it serves."""

    address = ""


def set_server(address: str) -> None:
    """Calls go to the server at ``address`` from now on."""
    _Server.address = address


def get_servable(name: str, *, method: str, version_number: int = 0) -> ServableHandle:
    """Another servable of the same server, to be called from handlers and stage functions.

    Nothing is sent before the first call, so that servables may name each other and be started in any order. Calls
    leave the host's memory by no TCP; the deadline of the request for which the call is made, its id, and its
    cancellation go along. A chain of more than 16 calls within calls, as servables that call each other in a circle
    make, ends with FAILED_PRECONDITION.

    Args:
        name: of the servable.
        method: a method made by ``register_method``; or "pkg.Service/Method" for one of a gRPC service, whose
            generated module (``…_pb2``) must have been imported.
        version_number: the servable's version. Default 0: the newest. Of a gRPC service always the newest is called.

    Returns:
        What to call.

    Raises:
        ConfigError: a wrong parameter, or a service that no imported module has.

    Example::

        downloader = register.get_servable("downloader", method="download")


        async def Predict(request):
            image = await downloader.call_async(url=request.url)
    """
    return ServableHandle(name, method, version_number)


class ServableHandle:
    """A method of another servable; made by `get_servable`. Threads and event loops may share it."""

    def __init__(self, name: str, method: str, version_number: int = 0) -> None:
        checks.check_str("name", name)
        checks.check_str("method", method)
        checks.check_int("version_number", version_number, 0)
        self._name = name
        self._method = method
        self._version = version_number
        self._timeout: float | None = None
        self._model_id = ""
        self._connections = _Connections(name, method, version_number)

    def options(self, *, timeout: Any = _NEVER, multiplexed_model_id: Any = _NEVER) -> ServableHandle:
        """The same with other options; what is not given stays.

        Args:
            timeout: seconds that a call may take, besides the deadline of the request that it is made for. Default
                None: any time.
            multiplexed_model_id: the model that is asked for, of a gRPC method.
        """
        changed = copy.copy(self)
        if timeout is not _NEVER:
            changed._timeout = None if timeout is None else checks.check_seconds("timeout", timeout, zero=False)
        if multiplexed_model_id is not _NEVER:
            changed._model_id = checks.check_str("multiplexed_model_id", multiplexed_model_id)
        return changed

    def call(self, *request: Any, **inputs: Any) -> Any:
        """Calls the method and waits. In a coroutine use `call_async`: this would block its event loop.

        Args:
            request: nothing, with the inputs by their names; a dict of inputs; a list or tuple of such for many
                instances; of a gRPC method its message, or an iterable of messages.
            inputs: one instance's.

        Returns:
            A dict of outputs; for a list, a list with one for each, ``{"error": text}`` in place of what failed; of a
            gRPC method its message.

        Raises:
            CallError: the call failed, or its one instance did.
            MindserveError: a value that can't be sent, or there is no server, as while ``servable_config.py`` is
                imported.
        """
        service = self._connections.service
        if service is not None:
            from grpc import RpcError

            message = self._message(request, inputs)
            self._check_streaming(service, wanted=False)
            try:
                return self._connections.service_caller().call(message, self._timeout, self._metadata())
            except RpcError as error:
                raise _call_error(self, error) from error
        instances, single = self._instances(request, inputs)
        results = self._connections.client().infer(instances, self._timeout, self._metadata())
        return self._results(results, single)

    async def call_async(self, *request: Any, **inputs: Any) -> Any:
        """`call` for coroutines. Cancelling the task cancels the call; `asyncio.gather` makes many at once."""
        service = self._connections.service
        if service is not None:
            from grpc import RpcError

            message = self._message(request, inputs)
            self._check_streaming(service, wanted=False)
            try:
                return await self._connections.async_service_caller().call(message, self._timeout, self._metadata())
            except RpcError as error:
                raise _call_error(self, error) from error
        instances, single = self._instances(request, inputs)
        results = await self._connections.async_client().infer(instances, self._timeout, self._metadata())
        return self._results(results, single)

    def stream(self, *request: Any, **inputs: Any) -> Iterator[Any]:
        """Calls a method that streams: made with ``streaming=True``, or of a gRPC service.

        Args:
            request: as of `call`, one instance.
            inputs: as of `call`.

        Yields:
            Each item as soon as it is there. Closing the iterator cancels the call.

        Raises:
            CallError: the call failed.
        """
        service = self._connections.service
        if service is not None:
            from grpc import RpcError

            message = self._message(request, inputs)
            self._check_streaming(service, wanted=True)
            try:
                yield from self._connections.service_caller().stream(message, self._timeout, self._metadata())
            except RpcError as error:
                raise _call_error(self, error) from error
            return
        for item in self._connections.client().infer_stream(
            self._instance(request, inputs), self._timeout, self._metadata()
        ):
            yield self._result(item)

    async def stream_async(self, *request: Any, **inputs: Any) -> AsyncIterator[Any]:
        """`stream` for coroutines."""
        service = self._connections.service
        if service is not None:
            from grpc import RpcError

            message = self._message(request, inputs)
            self._check_streaming(service, wanted=True)
            caller = self._connections.async_service_caller()
            try:
                async for item in caller.stream(message, self._timeout, self._metadata()):
                    yield item
            except RpcError as error:
                raise _call_error(self, error) from error
            return
        async for item in self._connections.async_client().infer_stream(
            self._instance(request, inputs), self._timeout, self._metadata()
        ):
            yield self._result(item)

    def __repr__(self) -> str:
        return f"get_servable({self._name!r}, method={self._method!r}, version_number={self._version})"

    def _metadata(self) -> list[tuple[str, str | bytes]]:
        pairs: list[tuple[str, str | bytes]] = []
        if self._connections.service is not None:
            pairs.append(("application", self._name))
            if self._model_id:
                pairs.append(("multiplexed_model_id", self._model_id))
        request = current.get()
        if request is not None:
            pairs.append((PARENT_KEY, request.parent))
        return pairs

    def _message(self, request: tuple[Any, ...], inputs: Mapping[str, Any]) -> Any:
        if inputs or len(request) != 1:
            raise MindserveError(
                f"{self!r} takes one message, but {len(request)} values and {len(inputs)} keywords were given"
            )
        return request[0]

    def _check_streaming(self, service: ServiceMethod, *, wanted: bool) -> None:
        if service.server_streaming != wanted:
            what, instead = ("streams", "stream") if service.server_streaming else ("gives one message", "call")
            raise MindserveError(f"{self!r} {what}: use '{instead}'")

    def _instances(self, request: tuple[Any, ...], inputs: Mapping[str, Any]) -> tuple[Any, bool]:
        if len(request) == 1 and not inputs and isinstance(request[0], list | tuple):
            return request[0], False
        return self._instance(request, inputs), True

    def _instance(self, request: tuple[Any, ...], inputs: Mapping[str, Any]) -> Any:
        if not request:
            return inputs
        if len(request) > 1 or inputs or not isinstance(request[0], Mapping):
            raise MindserveError(f"{self!r} takes its inputs by their names, one dict of them, or a list of dicts")
        return request[0]

    def _results(self, results: Any, single: bool) -> Any:
        if isinstance(results, dict):
            raise CallError(f"{self!r} failed: {results['error']}")
        return self._result(results[0]) if single else results

    def _result(self, result: Any) -> Any:
        if set(result) == {"error"} and isinstance(result["error"], str):
            raise CallError(f"{self!r} failed: {result['error']}")
        return result


class _Connections:
    """The clients of a method, made when they are first used: one for all threads, and one for each event loop."""

    def __init__(self, name: str, method: str, version_number: int) -> None:
        self._name = name
        self._method = method
        self._version = version_number
        self.service: ServiceMethod | None = None
        if "/" in method:
            from mindserve.client.service import ServiceMethod

            self.service = ServiceMethod.find(method)
        self._lock = threading.Lock()
        self._client: Client | None = None
        self._service_caller: ServiceCaller | None = None
        self._by_loop: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, Any] = weakref.WeakKeyDictionary()

    def client(self) -> Client:
        from mindserve.client import Client

        with self._lock:
            if self._client is None:
                self._client = Client(_address(), self._name, self._method, self._version)
            return self._client

    def service_caller(self) -> ServiceCaller:
        from mindserve.client.service import ServiceCaller

        assert self.service is not None
        with self._lock:
            if self._service_caller is None:
                self._service_caller = ServiceCaller(_address(), self.service)
            return self._service_caller

    def async_client(self) -> AsyncClient:
        from mindserve.client import AsyncClient

        client: AsyncClient = self._of_loop(lambda: AsyncClient(_address(), self._name, self._method, self._version))
        return client

    def async_service_caller(self) -> AsyncServiceCaller:
        from mindserve.client.service import AsyncServiceCaller

        service = self.service
        assert service is not None
        caller: AsyncServiceCaller = self._of_loop(lambda: AsyncServiceCaller(_address(), service))
        return caller

    def _of_loop(self, make: Any) -> Any:
        import asyncio

        loop = asyncio.get_running_loop()
        with self._lock:
            if loop not in self._by_loop:
                self._by_loop[loop] = make()
            return self._by_loop[loop]


def _address() -> str:
    if not _Server.address:
        raise ConfigError("Servables can be called once the worker serves, not while servable_config.py is imported")
    return _Server.address


def _call_error(handle: ServableHandle, error: Any) -> CallError:
    code = error.code()
    return CallError(f"{handle!r} failed: {code.name}, {error.details()}", code.name)
