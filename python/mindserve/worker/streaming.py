"""Methods that stream: their last stage, a generator, answers like a handler of a gRPC method."""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, cast

from mindserve import logs, native
from mindserve.proto import PREDICT_STREAM
from mindserve.register.invalid_input import InvalidInput
from mindserve.register.request import current
from mindserve.register.values import Method, function_name
from mindserve.worker.answering import Handler
from mindserve.worker.model_calls import made_for
from mindserve.worker.status import MAX_LOGGED_BYTES, end_of, trace_of

if TYPE_CHECKING:
    from google.protobuf.message import Message

    from mindserve._native import Runtime, StreamMethod
    from mindserve.worker.async_calls import Loops

NativeStage = tuple[str, int, Sequence[tuple[int, int]], int, str]

_log = logs.get_logger("worker")


def stream_handler(
    runtime: Runtime, method: Method, stages: Sequence[NativeStage], label: str, loops: Callable[[], Loops]
) -> Handler:
    """What answers a method that streams. Comes after all methods that don't.

    Args:
        runtime: gets the method's other stages.
        method: the method.
        stages: those, in native form.
        label: the last one's function with its servable's name.
        loops: the event loops that make calls.
    """
    last = method.stages[-1]
    native_method = runtime.add_stream_method(
        method.name,
        method.inputs,
        method.outputs,
        stages,
        [ref.as_native() for ref in last.inputs],
        function=label,
        items=last.outputs_count,
        order=[result.index for result in method.results],
        tag=f"{last.tag} Failed" if last.tag else "",
        idempotent=method.idempotent,
    )
    generator: Any = last.target
    answers = _Answers(native_method, generator, label, loops)
    on_loop = inspect.isasyncgenfunction(generator)
    return Handler(
        path=f"{PREDICT_STREAM}/{method.name}",
        label=function_name(generator),
        function=answers.on_loop if on_loop else answers.on_thread,
        request_type=cast("type[Message]", _Request),
        response_type=cast("type[Message]", Item),
        client_streaming=False,
        server_streaming=True,
        context=None,
        on_loop=on_loop,
        idempotent=method.idempotent,
    )


class Item:
    """A message of the answer, that is made already."""

    __slots__ = ("_data",)

    def __init__(self, data: bytes) -> None:
        self._data = data

    def SerializeToString(self) -> bytes:
        return self._data


class _Request:
    """Stands for the request's type: native code reads it."""

    @staticmethod
    def FromString(data: bytes) -> bytes:
        return data


class _Answers:
    """The answers of one method. Any thread."""

    def __init__(
        self, method: StreamMethod, generator: Callable[..., Any], label: str, loops: Callable[[], Loops]
    ) -> None:
        self._method = method
        self._generator = generator
        self._label = label
        self._loops = loops
        self._native_error: type[Exception] = native.load().NativeError

    def on_thread(self, request: bytes) -> Iterator[Item]:
        items = None
        try:
            items = self._generator(*self._method.call(request, *made_for(), current.get()))
            for item in items:
                yield Item(self._method.encode(item))
        except GeneratorExit:
            raise
        except BaseException as error:
            yield self._failed(error)
        finally:
            if items is not None:
                items.close()

    async def on_loop(self, request: bytes) -> AsyncIterator[Item]:
        import asyncio

        items = None
        try:
            if self._method.has_stages:
                arguments = await self._loops().current().run(self._method, request, *made_for(), current.get())
            else:
                arguments = self._method.call(request)
            items = self._generator(*arguments)
            async for item in items:
                yield Item(self._method.encode(item))
        except (GeneratorExit, asyncio.CancelledError):
            raise
        except BaseException as error:
            yield self._failed(error)
        finally:
            if items is not None:
                await items.aclose()

    def _failed(self, error: BaseException) -> Item:
        invalid = isinstance(error, InvalidInput)
        if not invalid and not isinstance(error, self._native_error):
            _log.warning("stage function '%s' raised:\n%s", self._label, end_of(trace_of(error), MAX_LOGGED_BYTES))
        return Item(self._method.failed(error, invalid_input=invalid))
