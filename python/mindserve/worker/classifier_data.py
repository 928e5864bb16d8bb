"""What a data handler's function gives, as a method's inputs."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from google.protobuf.message import DecodeError

from mindserve.control import TensorType
from mindserve.errors import MindserveError
from mindserve.proto.seldon import ClassificationRequest
from mindserve.register.values import DataHandler, Method


class RefusedDataError(MindserveError):
    """The Classifier's data is wrong in itself: answered INVALID_ARGUMENT with this text."""


def takes_request(function: Callable[..., Any]) -> bool:
    """Whether a handler is a class with ``getData``, which is asked with the request."""
    return isinstance(function, type)


def adapt_handler(
    handler: DataHandler,
    function: Callable[..., Any],
    method: Method,
    types: Sequence[TensorType | None],
    label: str,
) -> Callable[..., Any]:
    """What gives the method's inputs: of a message's bytes, or of a request's, and its puid, if `takes_request`.

    Args:
        handler: knows the message's class.
        function: takes a message, or is a class with ``getData``, of which an object is made here.
        method: whose inputs these are.
        types: of the inputs, where they are known.
        label: names the function in errors.
    """
    message_class: Any = handler.type
    name: str = message_class.DESCRIPTOR.full_name
    several = len(method.inputs) > 1

    def parse(data: bytes) -> Any:
        try:
            return message_class.FromString(data)
        except DecodeError as error:
            raise RefusedDataError(
                f"the data of the ClassificationRequest, of type '{name}', is wrong: {error}"
            ) from None

    def fit(given: Any) -> Any:
        inputs = _inputs_of(given, method.inputs, label)
        fitted = tuple(_fit(value, type) for value, type in zip(inputs, types, strict=True))
        return fitted if several else fitted[0]

    def take(data: bytes) -> Any:
        return fit(function(parse(data)))

    if not takes_request(function):
        return take
    get_data = function().getData

    def take_request(data: bytes, puid: str) -> Any:
        request = ClassificationRequest.FromString(data)
        request.meta.puid = puid
        parse(request.data.value)  # bytes that are none are the client's error, whatever the handler makes of them
        return fit(get_data(request))

    return take_request


def _inputs_of(given: Any, names: Sequence[str], label: str) -> Sequence[Any]:
    if _is_frame(given):
        return _of_frame(given, names, label)
    if isinstance(given, dict):
        missing = [name for name in names if name not in given]
        if missing:
            raise ValueError(f"{label} gave no '{missing[0]}', the inputs are {', '.join(names)}")
        return [given[name] for name in names]
    if isinstance(given, tuple):
        if len(given) != len(names):
            raise ValueError(f"{label} gave {len(given)} values, the inputs are {', '.join(names)}")
        return given
    if len(names) != 1:
        raise ValueError(
            f"{label} gave a value of type '{type(given).__name__}', expected a dict, a tuple or a DataFrame with the "
            f"inputs {', '.join(names)}"
        )
    return [given]


def _is_frame(value: Any) -> bool:
    # Where nobody has imported pandas, nothing is a DataFrame.
    pandas = sys.modules.get("pandas")
    return pandas is not None and isinstance(value, pandas.DataFrame)


def _of_frame(frame: Any, names: Sequence[str], label: str) -> Sequence[Any]:
    if len(frame) != 1:
        raise ValueError(f"{label} gave a DataFrame of {len(frame)} rows, expected one: a request is one instance")
    columns = list(frame.columns)
    if all(name in columns for name in names):
        return [frame[name].to_numpy()[0] for name in names]
    if len(names) == 1:
        return [frame.to_numpy()[0]]
    missing = next(name for name in names if name not in columns)
    raise ValueError(f"{label} gave a DataFrame without column '{missing}', the inputs are {', '.join(names)}")


def _fit(value: Any, known: TensorType | None) -> Any:
    """The value in the type that a model wants of it, if it is numbers that lose nothing but digits by that."""
    if isinstance(value, list):
        value = np.asarray(value)
    if known is None or known.type == "str" or isinstance(value, str | bytes):
        return value
    array = np.asarray(value)
    wanted = np.dtype(known.type)
    if array.dtype != wanted and array.dtype.kind in "biuf" and np.can_cast(array.dtype, wanted, "same_kind"):
        array = array.astype(wanted)
    if (
        array.shape != known.shape
        and -1 not in known.shape
        and _without_ones(array.shape) == _without_ones(known.shape)
    ):
        array = array.reshape(known.shape)
    return array


def _without_ones(shape: Sequence[int]) -> list[int]:
    return [dim for dim in shape if dim != 1]
