"""The client that blocks."""

from __future__ import annotations

from types import TracebackType
from typing import TYPE_CHECKING

import grpc

from mindserve.client.decoding import Result, decode_item, decode_reply
from mindserve.client.encoding import Instance, Instances, as_instance, as_instances, encode_request
from mindserve.client.endpoint import Endpoint, Metadata, as_metadata, check_timeout, grpc_error
from mindserve.client.results import Failure, ResultList, named, with_metadata
from mindserve.client.ssl_config import SSLConfig
from mindserve.errors import MindserveError
from mindserve.proto import PREDICT, PREDICT_STREAM

if TYPE_CHECKING:
    from typing_extensions import Self


class Client:
    """Calls one method of a servable. Threads may share it.

    An instance is a dict of values by the names of the method's inputs. A value may be a numpy array or a numpy number
    of a bool, integer or float type (to 64 bits), a numpy array of str or bytes, or Python's bool, int (as int64),
    float (as float64), str and bytes, which the method gets as arrays of one element.

    A result is a dict of values by the names of the method's outputs: numpy arrays, which belong to the caller and may
    be written to; a numpy number where the output has no dimensions; str and bytes where it has one element; an array
    of Python objects where it has several.

    Args:
        address: "host:port", "[IPv6]:port" or "unix:path", the path relative or absolute.
        servable_name: the servable.
        method_name: its method.
        version_number: the servable's version; 0: the newest.
        ssl_config: for TLS; None: without.

    Raises:
        MindserveError: an argument is not what it should be, or a file of `ssl_config` cannot be read. Nothing is sent
            before the first call: a server that is not there shows in that call's result.
    """

    def __init__(
        self,
        address: str,
        servable_name: str,
        method_name: str,
        version_number: int = 0,
        ssl_config: SSLConfig | None = None,
    ) -> None:
        self._endpoint = endpoint = Endpoint(address, servable_name, method_name, version_number, ssl_config)
        credentials, options = endpoint.credentials(), endpoint.options()
        if credentials is None:
            self._channel = grpc.insecure_channel(address, options)
        else:
            self._channel = grpc.secure_channel(address, credentials, options)
        self._predict = self._channel.unary_unary(PREDICT, bytes, bytes)
        self._predict_stream = self._channel.unary_stream(PREDICT_STREAM, bytes, bytes)
        self._closed = False

    def infer(
        self, instances: Instances, timeout: float | None = None, metadata: Metadata | None = None
    ) -> ResultList | Failure:
        """Run instances through the method and wait for the results.

        Args:
            instances: one instance or a list or tuple of them.
            timeout: seconds until the call ends without a result; None: never. The server gets to know it, too.
            metadata: names and values to go with the call: ``{"authorization": "Bearer …"}``.

        Returns:
            A list with a result for each instance, in their order; where one failed, ``{"error": text}`` stands in its
            place. One ``{"error": text}`` alone where the whole call failed. Both have an attribute ``metadata``: see
            `ResultList`.

        Raises:
            MindserveError: a value that cannot be sent, a wrong argument, or a closed client.
        """
        instances = as_instances(instances)
        request = encode_request(self._endpoint.spec, instances)
        timeout, pairs = check_timeout(timeout), as_metadata(metadata)
        self._check_open()
        try:
            reply, call = self._predict.with_call(request, timeout=timeout, metadata=pairs)
        except grpc.RpcError as error:
            return Failure(grpc_error(error.code(), error.details()), error.trailing_metadata())
        except ValueError:
            self._check_open()
            raise
        return with_metadata(decode_reply(reply, len(instances)), call.trailing_metadata())

    def infer_async(
        self, instances: Instances, timeout: float | None = None, metadata: Metadata | None = None
    ) -> PendingResults:
        """Send instances and return at once; the arguments and errors are those of `infer`."""
        instances = as_instances(instances)
        request = encode_request(self._endpoint.spec, instances)
        timeout, pairs = check_timeout(timeout), as_metadata(metadata)
        self._check_open()
        try:
            future = self._predict.future(request, timeout=timeout, metadata=pairs)
        except ValueError:
            self._check_open()
            raise
        return PendingResults(future, len(instances))

    def infer_stream(
        self, instance: Instance, timeout: float | None = None, metadata: Metadata | None = None
    ) -> ResultStream:
        """Send an instance to a method that streams, and get each result as soon as it is there.

        ``for result in client.infer_stream({"prompt": "…"}): …``. A method that does not stream gives its one result.

        Args:
            instance: one instance; see `Client`.
            timeout: seconds until the call ends, with what has come by then; None: never. The server gets to know it.
            metadata: as for `infer`.

        Returns:
            An iterator of results, each a dict like one of `infer`. What fails, and be it the connection, is told by a
            last item ``{"error": text}``, as `infer` tells it. The request is sent at once. Who may stop early uses it
            by ``with``, or `ResultStream.close`; the server then closes the method's generator. That also happens when
            nobody holds the iterator any more.

        Raises:
            MindserveError: a value that cannot be sent, a wrong argument, or a closed client.
        """
        request = encode_request(self._endpoint.spec, [as_instance(instance)])
        timeout, pairs = check_timeout(timeout), as_metadata(metadata)
        self._check_open()
        try:
            return ResultStream(self._predict_stream(request, timeout=timeout, metadata=pairs))
        except ValueError:
            self._check_open()
            raise

    def close(self) -> None:
        """End the connection; calls that are still under way end with an error. May be called again."""
        self._closed = True
        self._channel.close()

    def _check_open(self) -> None:
        if self._closed:
            raise MindserveError(f"The client of {self._endpoint.address} is closed")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        endpoint = self._endpoint
        return (
            f"Client({endpoint.address!r}, {endpoint.servable_name!r}, {endpoint.method_name!r},"
            f" version_number={endpoint.version_number})"
        )


class PendingResults:
    """A call that `Client.infer_async` has begun."""

    def __init__(self, future: grpc.CallFuture[bytes], count: int) -> None:
        self._future = future
        self._count = count

    def result(self) -> ResultList | Failure:
        """Wait for the results, which are those that `Client.infer` would return."""
        try:
            reply = self._future.result()
        except grpc.FutureCancelledError:
            return Failure(grpc_error(grpc.StatusCode.CANCELLED, "The call was cancelled by the client"))
        except grpc.RpcError as error:
            return Failure(grpc_error(error.code(), error.details()), error.trailing_metadata())
        return with_metadata(decode_reply(reply, self._count), self._future.trailing_metadata())

    def done(self) -> bool:
        """Whether `result` would return at once."""
        return self._future.done()

    def cancel(self) -> None:
        """Give the call up, if it is still under way; the server stops working on it."""
        self._future.cancel()  # type: ignore[no-untyped-call]


class ResultStream:
    """The results of a call that `Client.infer_stream` has begun, as an iterator. One thread at a time.

    ``with client.infer_stream(instance) as results: …`` closes it at the end of the block, however that is left.

    Attributes:
        metadata: what the server has sent along, as of `ResultList`: from the first result on what came before it,
            ``mindserve-variation``; once the iteration has ended also the rest, ``request_id``.
    """

    def __init__(self, call: grpc.CallIterator[bytes]) -> None:
        self.metadata: dict[str, str | bytes] = {}
        self._call = call
        self._begun = False
        self._messages = iter(call)
        self._over = False
        self._closed = False

    def __iter__(self) -> ResultStream:
        return self

    def __next__(self) -> Result:
        if self._over or self._closed:
            self._end()
            raise StopIteration
        try:
            data = next(self._messages)
        except StopIteration:
            self._end()
            raise
        except grpc.RpcError as error:
            self._end()
            if self._closed:
                raise StopIteration from None
            return grpc_error(error.code(), error.details())
        if not self._begun:
            self._begun = True
            self.metadata.update(named(self._call.initial_metadata()))
        item, self._over = decode_item(data)
        return item

    def _end(self) -> None:
        self._over = True
        # Of a call that was given up there is nothing to wait for.
        self.metadata.update(named(self._call.trailing_metadata()))

    def cancel(self) -> None:
        """Give the call up, if it is still under way; the server stops working on it. Any thread.

        The iterator then tells so by its last item, ``{"error": text}``.
        """
        self._call.cancel()  # type: ignore[no-untyped-call]

    def close(self) -> None:
        """Give the call up, if it is still under way, and end the iterator: there is no further item.

        Any thread; one that waits for the next item waits no longer. May be called again.
        """
        self._closed = True
        self.cancel()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
