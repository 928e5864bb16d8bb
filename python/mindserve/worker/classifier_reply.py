"""What a mapping function gives, as the outputs that a reply of the Classifier is made of."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.message import Message

from mindserve.register.values import function_name

REPLY_OUTPUTS = ("prediction", "predictedClass", "confidence", "custom")


def adapt_mapping(
    mapping: Callable[..., Any], classes: Sequence[str] | None, label: str
) -> Callable[..., tuple[Any, Any, Any, bytes]]:
    """What takes a method's outputs and gives those of a reply.

    Args:
        mapping: the function that was registered.
        classes: names of the classes, where it gives just numbers; None: their numbers. Whether it gives as many is
            looked at where the reply is written.
        label: names it in errors.
    """

    def answer(*outputs: Any) -> tuple[Any, Any, Any, bytes]:
        given = mapping(*outputs)
        custom = b""
        if isinstance(given, tuple) and len(given) == 2 and (given[1] is None or isinstance(given[1], Message)):
            given, message = given
            custom = b"" if message is None else _packed(message)
        entries = [_entry(each, number, classes, label) for number, each in enumerate(given)]
        return (
            np.array([each[0] for each in entries], np.float64),
            np.array([each[1] for each in entries], object),
            np.array([each[2] for each in entries], np.float64),
            custom,
        )

    answer.__name__ = function_name(mapping)
    return answer


def _packed(message: Message) -> bytes:
    if message.DESCRIPTOR.full_name == AnyMessage.DESCRIPTOR.full_name:
        return message.SerializeToString()
    packed = AnyMessage()
    packed.Pack(message)
    return packed.SerializeToString()


def _entry(given: Any, number: int, classes: Sequence[str] | None, label: str) -> tuple[float, str, float]:
    name = str(number) if classes is None or number >= len(classes) else classes[number]
    if isinstance(given, dict):
        unknown = [key for key in given if key not in REPLY_OUTPUTS[:3]]
        if unknown or "prediction" not in given:
            raise ValueError(
                f"{label} gave a prediction with {', '.join(map(str, given)) or 'nothing'}, expected "
                f"{', '.join(REPLY_OUTPUTS[:3])}"
            )
        prediction = given["prediction"]
        given = (prediction, given.get("predictedClass", name), given.get("confidence", prediction))
    elif not isinstance(given, tuple):
        given = (given, name, given)
    if len(given) != 3 or not isinstance(given[1], str):
        raise ValueError(f"{label} gave the prediction {given!r}, expected (prediction, predictedClass, confidence)")
    return float(given[0]), given[1], float(given[2])
