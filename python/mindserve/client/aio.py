"""The client for asyncio."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING, Any

import grpc
import grpc.aio

from mindserve.client.decoding import Result, decode_item, decode_reply
from mindserve.client.encoding import Instance, Instances, as_instance, as_instances, encode_request
from mindserve.client.endpoint import Endpoint, Metadata, as_metadata, check_timeout, grpc_error
from mindserve.client.results import Failure, ResultList, named, with_metadata
from mindserve.client.ssl_config import SSLConfig
from mindserve.errors import MindserveError
from mindserve.proto import PREDICT, PREDICT_STREAM

if TYPE_CHECKING:
    from typing_extensions import Self


class AsyncClient:
    """`mindserve.client.Client` for asyncio: the same arguments, values and errors.

    It may be made outside of an event loop, and belongs to the loop of its first call. Cancelling the task that waits
    for a call cancels the call.
    """

    def __init__(
        self,
        address: str,
        servable_name: str,
        method_name: str,
        version_number: int = 0,
        ssl_config: SSLConfig | None = None,
    ) -> None:
        self._endpoint = Endpoint(address, servable_name, method_name, version_number, ssl_config)
        self._credentials = self._endpoint.credentials()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._channel: grpc.aio.Channel | None = None
        self._closed = False

    async def infer(
        self, instances: Instances, timeout: float | None = None, metadata: Metadata | None = None
    ) -> ResultList | Failure:
        """Run instances through the method; see `mindserve.client.Client.infer`."""
        instances = as_instances(instances)
        request = encode_request(self._endpoint.spec, instances)
        timeout, pairs = check_timeout(timeout), as_metadata(metadata)
        self._connect()
        try:
            call = self._predict(request, timeout=timeout, metadata=pairs)
            reply = await call
            trailing = await call.trailing_metadata()
        except grpc.aio.AioRpcError as error:
            return Failure(grpc_error(error.code(), error.details()), error.trailing_metadata())
        except asyncio.CancelledError:
            # gRPC also says so to the calls of a channel that is closed; those get an answer.
            if self._closed and not _is_being_cancelled(asyncio.current_task()):
                return Failure(grpc_error(grpc.StatusCode.CANCELLED, "The client was closed"))
            raise
        return with_metadata(decode_reply(reply, len(instances)), trailing)

    def infer_stream(
        self, instance: Instance, timeout: float | None = None, metadata: Metadata | None = None
    ) -> AsyncResultStream:
        """Send an instance to a method that streams; see `mindserve.client.Client.infer_stream`.

        Called while the loop runs; ``async for result in client.infer_stream(instance)``. Cancelling the task that
        waits for a result cancels the call, and so does the end of ``async with client.infer_stream(…) as results``.
        """
        request = encode_request(self._endpoint.spec, [as_instance(instance)])
        timeout, pairs = check_timeout(timeout), as_metadata(metadata)
        self._connect()
        return AsyncResultStream(self._predict_stream(request, timeout=timeout, metadata=pairs), lambda: self._closed)

    async def close(self) -> None:
        """End the connection; calls that are still under way end with an error. May be called again."""
        self._closed = True
        if self._channel is not None:
            await self._channel.close(None)

    def _connect(self) -> None:
        if self._closed:
            raise MindserveError(f"The client of {self._endpoint.address} is closed")
        loop = asyncio.get_running_loop()
        if self._channel is None:
            address, options = self._endpoint.address, self._endpoint.options()
            if self._credentials is None:
                self._channel = grpc.aio.insecure_channel(address, options)
            else:
                self._channel = grpc.aio.secure_channel(address, self._credentials, options)
            self._loop = loop
            self._predict = self._channel.unary_unary(PREDICT, bytes, bytes)
            self._predict_stream = self._channel.unary_stream(PREDICT_STREAM, bytes, bytes)
        elif loop is not self._loop:
            raise MindserveError(
                f"The client of {self._endpoint.address} belongs to another event loop: make one client for each loop"
            )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()


class AsyncResultStream:
    """The results of a call that `AsyncClient.infer_stream` has begun, as an asynchronous iterator.

    ``async with client.infer_stream(instance) as results: …`` closes it at the end of the block, however that is left.

    Attributes:
        metadata: as of `mindserve.client.ResultStream`.
    """

    def __init__(self, call: grpc.aio.UnaryStreamCall[bytes, bytes], client_closed: Callable[[], bool]) -> None:
        self._call = call
        self._client_closed = client_closed
        self.metadata: dict[str, str | bytes] = {}
        self._begun = False
        self._given_up = False
        self._over = False
        self._closed = False

    def __aiter__(self) -> AsyncResultStream:
        return self

    async def __anext__(self) -> Result:
        if self._over or self._closed:
            await self._end()
            raise StopAsyncIteration
        try:
            data = await self._call.read()
            if not self._begun:
                self._begun = True
                self.metadata.update(named(await self._call.initial_metadata()))
        except grpc.RpcError as error:
            await self._end()
            return grpc_error(error.code(), error.details())
        except asyncio.CancelledError:
            self._over = True
            if not _is_being_cancelled(asyncio.current_task(), self._given_up):
                if self._closed:
                    raise StopAsyncIteration from None
                if self._given_up:
                    return grpc_error(grpc.StatusCode.CANCELLED, "The call was cancelled by the client")
                if self._client_closed():
                    return grpc_error(grpc.StatusCode.CANCELLED, "The client was closed")
            raise
        if not isinstance(data, bytes):
            # gRPC's mark of the end.
            await self._end()
            raise StopAsyncIteration
        item, self._over = decode_item(data)
        return item

    async def _end(self) -> None:
        self._over = True
        # Of a call that was given up there is nothing to wait for.
        self.metadata.update(named(await self._call.trailing_metadata()))

    def cancel(self) -> None:
        """Give the call up, if it is still under way; the server stops working on it.

        The iterator then tells so by its last item, ``{"error": text}``.
        """
        self._given_up = True
        self._call.cancel()

    async def close(self) -> None:
        """Give the call up, if it is still under way, and end the iterator: there is no further item.

        A task that waits for the next item waits no longer. May be called again.
        """
        self._closed = True
        self.cancel()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()


def _is_being_cancelled(task: asyncio.Task[Any] | None, given_up: bool = False) -> bool:
    # Python 3.10 cannot tell: there, closing the client counts as cancelling its callers, giving up a call does not.
    cancelling = getattr(task, "cancelling", None)
    return not given_up if cancelling is None else bool(cancelling())
