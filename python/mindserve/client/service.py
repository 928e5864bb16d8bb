"""Calls of a method of a gRPC service whose generated module this process has imported; for calls between servables."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import grpc

from mindserve.errors import ConfigError

if TYPE_CHECKING:
    import grpc.aio

_OPTIONS = (
    ("grpc.max_receive_message_length", -1),
    ("grpc.max_send_message_length", -1),
    ("grpc.enable_http_proxy", 0),
)


@dataclass(frozen=True)
class ServiceMethod:
    """A method as its service's descriptor has it.

    Attributes:
        path: "/pkg.Service/Method".
        client_streaming: the caller sends a stream of messages.
        server_streaming: the answer is one.
        serialize: bytes of a request.
        parse: the message of an answer's bytes.
    """

    path: str
    client_streaming: bool
    server_streaming: bool
    serialize: Callable[[Any], bytes]
    parse: Callable[[bytes], Any]

    @classmethod
    def find(cls, name: str) -> ServiceMethod:
        """The method named "pkg.Service/Method", from the generated modules that were imported.

        Raises:
            ConfigError: none of them has it.
        """
        from google.protobuf import descriptor_pool, message_factory

        service_name, _, method_name = name.strip("/").partition("/")
        try:
            service = descriptor_pool.Default().FindServiceByName(service_name)
        except KeyError:
            raise ConfigError(
                f"Service '{service_name}' of method '{name}' is not known: import its generated module (…_pb2)"
            ) from None
        method = service.methods_by_name.get(method_name)
        if method is None:
            raise ConfigError(
                f"Service '{service_name}' has no method '{method_name}', only {', '.join(service.methods_by_name)}"
            )
        request = message_factory.GetMessageClass(method.input_type)
        response = message_factory.GetMessageClass(method.output_type)

        def serialize(message: Any) -> bytes:
            if not isinstance(message, request):
                raise ConfigError(f"'{name}' takes {method.input_type.full_name}, but actually {type(message)}")
            return bytes(message.SerializeToString())

        return cls(
            f"/{service_name}/{method_name}",
            method.client_streaming,
            method.server_streaming,
            serialize,
            response.FromString,
        )

    def _callable(self, channel: grpc.Channel | grpc.aio.Channel) -> Any:
        kinds = {True: "stream", False: "unary"}
        make = getattr(channel, f"{kinds[self.client_streaming]}_{kinds[self.server_streaming]}")
        return make(self.path, self.serialize, self.parse)


class ServiceCaller:
    """Calls one method, from any thread.

    Args:
        address: of the server.
        method: what is called.
    """

    def __init__(self, address: str, method: ServiceMethod) -> None:
        self._call = method._callable(grpc.insecure_channel(address, _OPTIONS))

    def call(self, request: Any, timeout: float | None, metadata: Any) -> Any:
        """The one message of the answer. Raises `grpc.RpcError`."""
        return self._call(request, timeout=timeout, metadata=metadata)

    def stream(self, request: Any, timeout: float | None, metadata: Any) -> Iterator[Any]:
        """Each message of the answer; closed early, the call is cancelled. Raises `grpc.RpcError`."""
        call = self._call(request, timeout=timeout, metadata=metadata)
        try:
            yield from call
        finally:
            call.cancel()


class AsyncServiceCaller:
    """The same for asyncio; belongs to the loop that runs when it is made."""

    def __init__(self, address: str, method: ServiceMethod) -> None:
        import grpc.aio

        self._call = method._callable(grpc.aio.insecure_channel(address, _OPTIONS))

    async def call(self, request: Any, timeout: float | None, metadata: Any) -> Any:
        """See `ServiceCaller.call`. Cancelling the task cancels the call."""
        return await self._call(request, timeout=timeout, metadata=metadata)

    async def stream(self, request: Any, timeout: float | None, metadata: Any) -> AsyncIterator[Any]:
        """See `ServiceCaller.stream`."""
        call = self._call(request, timeout=timeout, metadata=metadata)
        try:
            async for message in call:
                yield message
        finally:
            call.cancel()
