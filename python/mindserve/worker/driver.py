"""The built-in service's Predict, of which a servable's driver sees a dict of bytes and gives bytes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

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


def _message_classes() -> tuple[type[Any], type[Any]]:
    """The messages, in a pool of their own: a servable may have imported a stub of the same names."""
    field = descriptor_pb2.FieldDescriptorProto
    file = descriptor_pb2.FileDescriptorProto(name="ray_serve_driver.proto", package="ray.serve", syntax="proto3")
    request = file.message_type.add(name="PredictRequest")
    request.field.add(
        name="input",
        number=2,
        label=field.LABEL_REPEATED,
        type=field.TYPE_MESSAGE,
        type_name=".ray.serve.PredictRequest.InputEntry",
    )
    entry = request.nested_type.add(name="InputEntry")
    entry.options.map_entry = True
    entry.field.add(name="key", number=1, label=field.LABEL_OPTIONAL, type=field.TYPE_STRING)
    entry.field.add(name="value", number=2, label=field.LABEL_OPTIONAL, type=field.TYPE_BYTES)
    response = file.message_type.add(name="PredictResponse")
    response.field.add(name="prediction", number=1, label=field.LABEL_OPTIONAL, type=field.TYPE_BYTES)
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    find = pool.FindMessageTypeByName
    return (
        message_factory.GetMessageClass(find("ray.serve.PredictRequest")),
        message_factory.GetMessageClass(find("ray.serve.PredictResponse")),
    )


PredictRequest, PredictResponse = _message_classes()
