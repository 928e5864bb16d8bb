"""Calls by a method's path, of whatever service; for calls between servables."""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import grpc

from mindserve.client.endpoint import channel_options
from mindserve.errors import ConfigError
from mindserve.proto import PREDICT, PREDICT_STREAM

Pairs = Sequence[tuple[str, str | bytes]]


class FailedCall(Exception):
    """A call ended with a status that is not OK.

    Attributes:
        code: its name, as "UNAVAILABLE".
        details: its text.
    """

    def __init__(self, error: Any) -> None:
        self.code: str = error.code().name
        self.details: str = error.details() or ""
        super().__init__(f"{self.code}, {self.details}")


@dataclass(frozen=True, eq=False)
class RemoteMethod:
    """A method of a gRPC service.

    Attributes:
        path: "/pkg.Service/Method".
        client_streaming: the caller sends a stream of messages.
        server_streaming: the answer is one.
        serialize: bytes of a request; `ConfigError` for what is none.
        parse: the message of an answer's bytes.
    """

    path: str
    client_streaming: bool
    server_streaming: bool
    serialize: Callable[[Any], bytes]
    parse: Callable[[bytes], Any]

    @classmethod
    def find(cls, name: str) -> RemoteMethod:
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
                f"Service '{service_name}' has no method '{method_name}', it has {', '.join(service.methods_by_name)}"
            )
        request = message_factory.GetMessageClass(method.input_type)
        response = message_factory.GetMessageClass(method.output_type)

        def serialize(message: Any) -> bytes:
            if not isinstance(message, request):
                raise ConfigError(
                    f"Method '{service_name}/{method_name}' takes {method.input_type.full_name}, but actually "
                    f"{type(message)} was given"
                )
            return bytes(message.SerializeToString())

        return cls(
            f"/{service_name}/{method_name}",
            bool(method.client_streaming),
            bool(method.server_streaming),
            serialize,
            response.FromString,
        )

    def callable_of(self, channel: Any) -> Any:
        """The method, of a channel of grpc or grpc.aio. Its requests are bytes."""
        kinds = {True: "stream", False: "unary"}
        make = getattr(channel, f"{kinds[self.client_streaming]}_{kinds[self.server_streaming]}")
        return make(self.path, None, self.parse)


# With bytes: whoever calls knows what they mean.
PREDICT_METHOD = RemoteMethod(PREDICT, False, False, bytes, bytes)
PREDICT_STREAM_METHOD = RemoteMethod(PREDICT_STREAM, False, True, bytes, bytes)


class Calls:
    """Calls methods of the server at an address, from any thread.

    Args:
        address: of the server, without TLS.
    """

    def __init__(self, address: str) -> None:
        self._channel = grpc.insecure_channel(address, channel_options(address))

    def call(self, method: RemoteMethod, request: Any, timeout: float | None, metadata: Pairs) -> Any:
        """The one message of the answer; ``request`` is a message, or an iterable of them.

        Raises:
            FailedCall: it ended otherwise.
            ConfigError: the request is not the method's.
            BaseException: what the iteration over the requests has raised.
        """
        requests = _serialized(method, request)
        try:
            return method.callable_of(self._channel)(requests, timeout=timeout, metadata=metadata)
        except grpc.RpcError as error:
            raise _raised_by(requests) or FailedCall(error) from None

    def stream(self, method: RemoteMethod, request: Any, timeout: float | None, metadata: Pairs) -> Stream:
        """Begins a call whose answer is a stream. Raises `ConfigError`."""
        requests = _serialized(method, request)
        return Stream(method.callable_of(self._channel)(requests, timeout=timeout, metadata=metadata), requests)


class Stream(Iterator[Any]):
    """The messages of an answer as they come; fails as `Calls.call` does. Dropped or closed early, it is cancelled."""

    def __init__(self, call: Any, requests: Any) -> None:
        self._call = call
        self._requests = requests

    def __next__(self) -> Any:
        try:
            return next(self._call)
        except grpc.RpcError as error:
            raise _raised_by(self._requests) or FailedCall(error) from None

    def close(self) -> None:
        self._call.cancel()

    def __del__(self) -> None:
        self._call.cancel()


class AsyncCalls:
    """`Calls` for asyncio; belongs to the loop that runs when it is made."""

    def __init__(self, address: str) -> None:
        import grpc.aio

        self._channel = grpc.aio.insecure_channel(address, channel_options(address))

    async def call(self, method: RemoteMethod, request: Any, timeout: float | None, metadata: Pairs) -> Any:
        """See `Calls.call`; ``request`` may be an async iterable, too. Cancelling the task cancels the call."""
        requests = _serialized(method, request)
        try:
            return await method.callable_of(self._channel)(requests, timeout=timeout, metadata=metadata)
        except grpc.RpcError as error:
            raise _raised_by(requests) or FailedCall(error) from None
        except asyncio.CancelledError:
            # So grpc ends a call whose requests it can't get.
            if raised := _raised_by(requests):
                raise raised from None
            raise

    def stream(self, method: RemoteMethod, request: Any, timeout: float | None, metadata: Pairs) -> AsyncStream:
        """See `Calls.stream`."""
        requests = _serialized(method, request)
        return AsyncStream(method.callable_of(self._channel)(requests, timeout=timeout, metadata=metadata), requests)


class AsyncStream(AsyncIterator[Any]):
    """`Stream` for asyncio."""

    def __init__(self, call: Any, requests: Any) -> None:
        self._call = call
        self._requests = requests
        self._messages: Any = None

    async def __anext__(self) -> Any:
        if self._messages is None:
            self._messages = aiter(self._call)
        try:
            return await anext(self._messages)
        except grpc.RpcError as error:
            raise _raised_by(self._requests) or FailedCall(error) from None
        except asyncio.CancelledError:
            if raised := _raised_by(self._requests):
                raise raised from None
            raise

    async def aclose(self) -> None:
        self._call.cancel()

    def __del__(self) -> None:
        self._call.cancel()


def _serialized(method: RemoteMethod, request: Any) -> Any:
    if not method.client_streaming:
        return method.serialize(request)
    if isinstance(request, AsyncIterable):
        return _AsyncRequests(method, request)
    if isinstance(request, Iterable):
        return _Requests(method, request)
    raise ConfigError(f"Method '{method.path[1:]}' takes an iterable of messages, but actually {type(request)}")


def _raised_by(requests: Any) -> BaseException | None:
    """What kept grpc from the next request, of which it tells nothing itself."""
    return requests.error if isinstance(requests, _Requests | _AsyncRequests) else None


class _Requests(Iterator[bytes]):
    """A stream of requests. grpc iterates over it in a thread of its own.

    Attributes:
        error: what the iteration has raised.
    """

    def __init__(self, method: RemoteMethod, requests: Iterable[Any]) -> None:
        self.error: BaseException | None = None
        self._serialize = method.serialize
        self._requests = iter(requests)
        # Who makes the requests does so for what the caller is doing.
        self._context = contextvars.copy_context()

    def __next__(self) -> bytes:
        try:
            return self._serialize(self._context.run(next, self._requests))
        except StopIteration:
            raise
        except BaseException as error:
            self.error = error
            raise


class _AsyncRequests(AsyncIterator[bytes]):
    """`_Requests` for ``async for``; in a task of grpc's."""

    def __init__(self, method: RemoteMethod, requests: AsyncIterable[Any]) -> None:
        self.error: BaseException | None = None
        self._serialize = method.serialize
        self._requests = aiter(requests)

    async def __anext__(self) -> bytes:
        try:
            return self._serialize(await anext(self._requests))
        except (StopAsyncIteration, asyncio.CancelledError):
            raise
        except BaseException as error:
            self.error = error
            raise
