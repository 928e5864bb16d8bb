"""A servable's method as another servable calls it. Apart from the rest, since it imports grpc."""

from __future__ import annotations

import asyncio
import copy
import threading
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from typing import Any

from mindserve import checks
from mindserve.client.decoding import decode_reply
from mindserve.client.encoding import encode_request, encode_spec
from mindserve.client.service import (
    PREDICT_METHOD,
    PREDICT_STREAM_METHOD,
    AsyncCalls,
    AsyncStream,
    Calls,
    FailedCall,
    RemoteMethod,
    Stream,
)
from mindserve.errors import CallError, ConfigError
from mindserve.register.request import current
from mindserve.register.servables import server

# Metadata of a call by another call, which the gateway takes from its own workers only: how deep it is, and which call
# it is made for.
DEPTH_KEY = "mindserve-depth"
PARENT_KEY = "mindserve-parent"

_KEEP: Any = object()


class ServableHandle:
    """A method of another servable; made by `get_servable`. Threads and event loops may share it."""

    def __init__(self, name: str, method: str, version_number: int = 0) -> None:
        self._name = checks.check_str("name", name)
        self._method = checks.check_str("method", method)
        self._version = checks.check_int("version_number", version_number, 0, 2**64 - 1)
        self._timeout: float | None = None
        self._model_id = ""
        self._remote: RemoteMethod | None = None  # of a gRPC service
        self._spec = b""
        if "/" in method:
            if version_number:
                raise ConfigError(f"Parameter 'version_number' should be 0 for the gRPC method '{method}'")
            self._remote = RemoteMethod.find(method)

    def options(self, *, timeout: float | None = _KEEP, multiplexed_model_id: str = _KEEP) -> ServableHandle:
        """The same with other options; what is not given stays.

        Args:
            timeout: seconds that a call may take, besides the deadline of the request that it is made for. Default
                None: any time.
            multiplexed_model_id: the model that a method of a gRPC service is asked for; "": none, the default.

        Raises:
            ConfigError: a wrong parameter.
        """
        changed = copy.copy(self)
        if timeout is not _KEEP:
            changed._timeout = None if timeout is None else checks.check_seconds("timeout", timeout, zero=False)
        if multiplexed_model_id is not _KEEP:
            if self._remote is None:
                raise ConfigError("Parameter 'multiplexed_model_id' is for methods of gRPC services")
            if multiplexed_model_id != "":
                checks.check_str("multiplexed_model_id", multiplexed_model_id)
            changed._model_id = multiplexed_model_id
        return changed

    def call(self, *request: Any, **inputs: Any) -> Any:
        """Calls the method and waits. Coroutines use `call_async`.

        Args:
            request: one dict of inputs; or a list or tuple of such, for many instances; or nothing, with one instance's
                inputs as keywords. Of a gRPC method its message, or an iterable of messages where its client streams.
            inputs: one instance's, by their names.

        Returns:
            A dict of outputs; for many a list with one for each, ``{"error": text}`` in place of what failed; of a gRPC
            method its message.

        Raises:
            CallError: the call failed, or its one instance did; or the worker doesn't serve, as while
                ``servable_config.py`` is imported; or the running thread has an event loop, which would stand still.
            MindserveError: a value that can't be sent.
        """
        self._check_kind(streams=False)
        self._check_may_block("call")
        method, sent, count = self._request(PREDICT_METHOD, request, inputs)
        calls, terms = _connections.calls(self), self._terms()
        with _Waiting():
            try:
                answer = calls.call(method, sent, *terms)
            except FailedCall as error:
                raise self._failed(error) from None
        return self._answer(answer, count)

    async def call_async(self, *request: Any, **inputs: Any) -> Any:
        """`call` for coroutines, of any asyncio loop. Cancelling the task cancels the call."""
        self._check_kind(streams=False)
        method, sent, count = self._request(PREDICT_METHOD, request, inputs)
        calls, terms = _connections.async_calls(self), self._terms()
        with _Waiting():
            try:
                answer = await calls.call(method, sent, *terms)
            except FailedCall as error:
                raise self._failed(error) from None
        return self._answer(answer, count)

    def stream(self, *request: Any, **inputs: Any) -> Iterator[Any]:
        """Begins a call of a method that streams.

        Args:
            request: as of `call`.
            inputs: as of `call`.

        Returns:
            The messages, each as soon as it is there. Its ``close()``, or letting go of it, cancels the call. It raises
            `CallError` where the call fails.

        Raises:
            CallError, MindserveError: as of `call`.
        """
        self._check_kind(streams=True)
        self._check_may_block("stream")
        method, sent, _ = self._request(PREDICT_STREAM_METHOD, request, inputs)
        return _Items(self, _connections.calls(self).stream(method, sent, *self._terms()))

    def stream_async(self, *request: Any, **inputs: Any) -> AsyncIterator[Any]:
        """`stream` for coroutines, called without await: ``async for item in handle.stream_async(...)``."""
        self._check_kind(streams=True)
        method, sent, _ = self._request(PREDICT_STREAM_METHOD, request, inputs)
        return _AsyncItems(self, _connections.async_calls(self).stream(method, sent, *self._terms()))

    def __repr__(self) -> str:
        version = f", version_number={self._version}" if self._version else ""
        return f"get_servable({self._name!r}, method={self._method!r}{version})"

    def _terms(self) -> tuple[float | None, list[tuple[str, str | bytes]]]:
        """Timeout and metadata: what the request for which it is called has to say about it."""
        timeout = self._timeout
        pairs: list[tuple[str, str | bytes]] = []
        if self._remote is not None:
            pairs.append(("application", self._name))
            if self._model_id:
                pairs.append(("multiplexed_model_id", self._model_id))
        request = current.get()
        pairs.append((DEPTH_KEY, str(1 if request is None else request.depth + 1)))
        if request is None:
            return timeout, pairs
        if request.cancelled:
            raise self._error("CANCELLED", "the request that it is called for was given up")
        if request.deadline is not None:
            left = request.deadline - time.monotonic()
            if left <= 0:
                raise self._error("DEADLINE_EXCEEDED", "the deadline of the request that it is called for has passed")
            timeout = left if timeout is None else min(timeout, left)
        for key, value in (("request_id", request.request_id), (PARENT_KEY, request.parent)):
            if value:
                pairs.append((key, value))
        return timeout, pairs

    def _check_kind(self, *, streams: bool) -> None:
        if self._remote is None or self._remote.server_streaming == streams:
            return
        what, use = ("one message", "call") if streams else ("a stream", "stream")
        raise ConfigError(f"{self!r} answers with {what}: use '{use}' or '{use}_async'")

    def _check_may_block(self, function: str) -> None:
        if asyncio._get_running_loop() is not None:
            raise self._error("FAILED_PRECONDITION", f"'{function}' would block the event loop, use '{function}_async'")

    def _request(
        self, predict: RemoteMethod, request: tuple[Any, ...], inputs: Mapping[str, Any]
    ) -> tuple[RemoteMethod, Any, int | None]:
        """What is called, with what, and the count of instances; None: one alone, or a message.

        Args:
            predict: what is called if it is no method of a gRPC service.
            request: as of `call`.
            inputs: as of `call`.
        """
        if self._remote is not None:
            if inputs or len(request) != 1:
                raise ConfigError(
                    f"{self!r} takes one message, or an iterable of them, but {len(request)} values and {len(inputs)} "
                    "keywords were given"
                )
            return self._remote, request[0], None
        if not self._spec:
            self._spec = encode_spec(self._name, self._method, self._version)
        many = len(request) == 1 and not inputs and isinstance(request[0], list | tuple)
        if many and predict is PREDICT_STREAM_METHOD:
            raise ConfigError(f"{self!r}: a stream is of one instance, ask for each by itself")
        if not many and (len(request) > 1 or (request and (inputs or not isinstance(request[0], Mapping)))):
            raise ConfigError(
                f"{self!r} takes the inputs of one instance by their names, a dict of them, or a list of dicts for many"
            )
        instances = request[0] if many else [request[0] if request else inputs]
        return predict, encode_request(self._spec, instances), len(instances) if many else None

    def _answer(self, answer: Any, count: int | None) -> Any:
        if self._remote is not None:
            return answer
        results = decode_reply(answer, 1 if count is None else count)
        if isinstance(results, dict):
            raise CallError(f"{self!r} failed: {results['error']}")
        if count is not None:
            return results
        (result,) = results
        if result.keys() == {"error"} and isinstance(result["error"], str):
            raise CallError(f"{self!r} failed: {result['error']}")
        return result

    def _failed(self, error: FailedCall) -> CallError:
        return self._error(error.code, error.details)

    def _error(self, code: str, text: str) -> CallError:
        return CallError(f"{self!r} failed: {code}, {text}", code)


class _Waiting:
    """While it is entered, the request that is being handled waits for a servable."""

    __slots__ = ("_request",)

    def __enter__(self) -> None:
        self._request = current.get()
        server.begin_call(self._request)

    def __exit__(self, *_: object) -> None:
        server.end_call(self._request)


class _Items(Iterator[Any]):
    """What `ServableHandle.stream` gives."""

    def __init__(self, handle: ServableHandle, stream: Stream) -> None:
        self._handle = handle
        self._stream = stream

    def __next__(self) -> Any:
        with _Waiting():
            try:
                answer = next(self._stream)
            except FailedCall as error:
                raise self._handle._failed(error) from None
        return self._handle._answer(answer, None)

    def close(self) -> None:
        """Cancels the call; for one that is over nothing."""
        self._stream.close()


class _AsyncItems(AsyncIterator[Any]):
    """What `ServableHandle.stream_async` gives."""

    def __init__(self, handle: ServableHandle, stream: AsyncStream) -> None:
        self._handle = handle
        self._stream = stream

    async def __anext__(self) -> Any:
        with _Waiting():
            try:
                answer = await anext(self._stream)
            except FailedCall as error:
                raise self._handle._failed(error) from None
        return self._handle._answer(answer, None)

    async def aclose(self) -> None:
        """Cancels the call; for one that is over nothing."""
        await self._stream.aclose()


class _Connections:
    """To the worker's server, made when they are first used: one for all threads, and one for each event loop.

    Thread-safe.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._calls: Calls | None = None
        self._by_loop: dict[asyncio.AbstractEventLoop, AsyncCalls] = {}

    def calls(self, handle: ServableHandle) -> Calls:
        """For threads."""
        with self._lock:
            if self._calls is None:
                self._calls = Calls(_address(handle))
            return self._calls

    def async_calls(self, handle: ServableHandle) -> AsyncCalls:
        """For the running event loop."""
        loop = asyncio.get_running_loop()
        with self._lock:
            calls = self._by_loop.get(loop)
            if calls is None:
                # A connection keeps its loop alive, so that a weak reference would not do.
                for ended in [each for each in self._by_loop if each.is_closed()]:
                    del self._by_loop[ended]
                calls = self._by_loop[loop] = AsyncCalls(_address(handle))
            return calls


_connections = _Connections()


def _address(handle: ServableHandle) -> str:
    if server.address:
        return server.address
    if server.address is None:
        raise handle._error("FAILED_PRECONDITION", "the worker does not serve yet")
    raise handle._error("FAILED_PRECONDITION", "its server has no internal socket, for the reason that its log has")
