"""Calls of models from a worker's Python code."""

from __future__ import annotations

import functools
import math
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from mindserve import native
from mindserve.errors import CallError
from mindserve.register.request import current

if TYPE_CHECKING:
    from mindserve._native import LocalMethod, Runtime
    from mindserve.register.values import Model
    from mindserve.worker.async_calls import Loops


# Of calls that end, or are refused, since the worker is stopping.
_STOPPING = "UNAVAILABLE"
# Seconds until such a call raises: threads that call again and again would keep the interpreter's lock, in the moment
# that all have to end, from those that end.
_PAUSE = 0.01


def bind_models(runtime: Runtime, models: Mapping[Model, int], loops: Callable[[], Loops]) -> None:
    """Makes models callable, as soon as ``runtime`` serves. Comes after all its methods.

    Args:
        runtime: has loaded the models.
        models: with their numbers there.
        loops: the event loops that make calls.
    """
    for model, number in models.items():
        inputs = [name for name, _, _ in runtime.model_inputs(number)]
        outputs = [name for name, _, _ in runtime.model_outputs(number)]
        method = runtime.add_local_method(
            model.file,
            inputs,
            outputs,
            [("model", number, [(-1, index) for index in range(len(inputs))], len(outputs), "")],
            [(0, index) for index in range(len(outputs))],
            prefix=f"Model({model.file}).call() failed: ",
        )
        model.bind(MethodCaller(method, loops))


class MethodCaller:
    """Calls one method of the worker's own engine. Any thread, any event loop."""

    def __init__(self, method: LocalMethod, loops: Callable[[], Loops]) -> None:
        self._method = method
        self._loops = loops
        self._failure: type[Exception] = native.load().NativeError

    def call(self, arguments: tuple[Any, ...]) -> Any:
        """Waits for the results; see `mindserve.register.Model.call`."""
        try:
            return self._method.call(arguments, *made_for())
        except self._failure as failure:
            error = _call_error(failure)
            if error.code == _STOPPING:
                time.sleep(_PAUSE)
            raise error from None

    async def call_async(self, arguments: tuple[Any, ...]) -> Any:
        """The same for coroutines."""
        try:
            return await self._loops().current().run(self._method, arguments, *made_for())
        except self._failure as failure:
            error = _call_error(failure)
            if error.code == _STOPPING:
                import asyncio  # there by now, but not in every worker

                await asyncio.sleep(_PAUSE)
            raise error from None


def made_for() -> tuple[float, int]:
    """Until when, on `time.monotonic`, and for which client the running code calls, as far as handlers' code goes."""
    request = current.get()
    if request is None:
        return math.inf, 0
    deadline = request.deadline
    return math.inf if deadline is None else deadline, request.client


def _call_error(error: Exception) -> CallError:
    return CallError(str(error), getattr(error, "code", "INTERNAL"))


def lazy_loops() -> Callable[[], Loops]:
    """Gives the event loops that make calls, always the same; made by the first coroutine that calls."""
    return functools.cache(_make_loops)


def _make_loops() -> Loops:
    from mindserve.worker.async_calls import Loops

    return Loops()
