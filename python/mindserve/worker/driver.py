"""The built-in service's Predict, of which a servable's driver sees a dict of bytes and gives bytes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from mindserve.proto.ray_serve import PredictResponse
from mindserve.worker.status import INTERNAL, StatusError

PATH = "/ray.serve.PredictAPIsService/Predict"


def adapt_driver(target: Callable[..., Any], label: str, *, on_loop: bool) -> Callable[..., Any]:
    """What takes and returns messages in place of a driver; a coroutine function if the driver is one.

    Args:
        target: the driver.
        label: names it in errors.
        on_loop: it is a coroutine function.
    """
    # A context, if the driver takes one, comes by its name.
    if on_loop:

        async def answer_later(request: Any, **context: Any) -> Any:
            return _respond(await target(dict(request.input), **context), label)

        return answer_later

    def answer(request: Any, **context: Any) -> Any:
        return _respond(target(dict(request.input), **context), label)

    return answer


def _respond(prediction: Any, label: str) -> Any:
    if isinstance(prediction, str):
        prediction = prediction.encode()
    elif isinstance(prediction, bytearray | memoryview):
        prediction = bytes(prediction)
    elif not isinstance(prediction, bytes):
        raise StatusError(INTERNAL, f"method {PATH}: {label} returned {type(prediction)}, expected bytes or str")
    return PredictResponse(prediction=prediction)
