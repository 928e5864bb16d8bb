"""The client for asyncio."""

from __future__ import annotations

import asyncio
from types import TracebackType
from typing import TYPE_CHECKING, Any

import grpc
import grpc.aio

from mindserve.client.decoding import Results, decode_reply
from mindserve.client.encoding import Instances, as_instances, encode_request
from mindserve.client.endpoint import Endpoint, Metadata, as_metadata, check_timeout, grpc_error
from mindserve.client.ssl_config import SSLConfig
from mindserve.errors import MindserveError
from mindserve.proto import PREDICT

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
    ) -> Results:
        """Run instances through the method; see `mindserve.client.Client.infer`."""
        instances = as_instances(instances)
        request = encode_request(self._endpoint.spec, instances)
        timeout, pairs = check_timeout(timeout), as_metadata(metadata)
        predict = self._connect()
        try:
            reply = await predict(request, timeout=timeout, metadata=pairs)
        except grpc.RpcError as error:
            return grpc_error(error.code(), error.details())
        except asyncio.CancelledError:
            # gRPC also says so to the calls of a channel that is closed; those get an answer.
            if self._closed and not _is_being_cancelled(asyncio.current_task()):
                return grpc_error(grpc.StatusCode.CANCELLED, "The client was closed")
            raise
        return decode_reply(reply, len(instances))

    async def close(self) -> None:
        """End the connection; calls that are still under way end with an error. May be called again."""
        self._closed = True
        if self._channel is not None:
            await self._channel.close(None)

    def _connect(self) -> grpc.aio.UnaryUnaryMultiCallable[bytes, bytes]:
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
        elif loop is not self._loop:
            raise MindserveError(
                f"The client of {self._endpoint.address} belongs to another event loop: make one client for each loop"
            )
        return self._predict

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()


def _is_being_cancelled(task: asyncio.Task[Any] | None) -> bool:
    # Python 3.10 cannot tell: there, closing the client counts as cancelling its callers.
    cancelling = getattr(task, "cancelling", None)
    return cancelling is None or bool(cancelling())
