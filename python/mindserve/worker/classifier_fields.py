"""Messages whose fields are a method's inputs, as the native runtime reads them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from mindserve.control import TensorType
from mindserve.errors import ConfigError
from mindserve.register.values import DataHandler, Method

# Of each input type, shape, and whether it is one repeated field; of each field name, number, type, input and element.
Fields = tuple[list[tuple[str, list[int], bool]], list[tuple[str, int, int, int, int]]]

# By FieldDescriptorProto.Type.
_TYPES = {
    1: "float64",
    2: "float32",
    3: "int64",
    4: "uint64",
    5: "int32",
    6: "uint64",
    7: "uint32",
    8: "bool",
    9: "str",
    12: "bytes",
    13: "uint32",
    14: "int32",
    15: "int32",
    16: "int64",
    17: "int32",
    18: "int64",
}
_TEXTS = ("str", "bytes")


def map_fields(handler: DataHandler, method: Method, types: Sequence[TensorType | None]) -> Fields:
    """Which fields of a message are which inputs of a method.

    Raises:
        ConfigError: they are none.
    """
    descriptor: Any = handler.type.DESCRIPTOR  # type: ignore[attr-defined]
    used = [each for each in descriptor.fields if handler.fields is None or each.name in handler.fields]
    if handler.fields is not None:
        used.sort(key=lambda each: handler.fields.index(each.name))  # type: ignore[union-attr]
    where = f"message '{descriptor.full_name}' for method '{method.name}'"
    by_name = {each.name: each for each in used}
    if all(name in by_name for name in method.inputs):
        inputs = [_one(by_name[name], known, where) for name, known in zip(method.inputs, types, strict=True)]
        fields = [_field(by_name[name], number, 0) for number, name in enumerate(method.inputs)]
        return inputs, fields
    if len(method.inputs) == 1 and used:
        vector = _vector(used, types[0], f"{where}, whose input '{method.inputs[0]}' is a vector of all fields")
        return [vector], [_field(each, 0, element) for element, each in enumerate(used)]
    missing = next((name for name in method.inputs if name not in by_name), "")
    raise ConfigError(
        f"Data handler of {where}: the message has no field for input '{missing}', it has "
        f"{', '.join(by_name) or 'none'}: name fields like the inputs, or decorate a function with the handler"
    )


def has_numbers_alone(message_class: type) -> bool:
    """Whether a message of the class has nothing but single numbers, bools and enums."""
    fields = message_class.DESCRIPTOR.fields  # type: ignore[attr-defined]
    return all(not _is_repeated(each) and _TYPES.get(each.type, _TEXTS[0]) not in _TEXTS for each in fields)


def _field(field: Any, number: int, element: int) -> tuple[str, int, int, int, int]:
    return field.name, field.number, field.type, number, element


def _one(field: Any, known: TensorType | None, where: str) -> tuple[str, list[int], bool]:
    own = _type_of(field, where)
    if own in _TEXTS:
        if known is not None and known.type != "str":
            raise _wrong(field, f"can't be the model's {known.type}", where)
        return own, [1], _is_repeated(field)
    if _is_repeated(field):
        return _numbers(field, own, known, where), [0], True
    # A model may want its one number in a vector.
    shape = list(known.shape) if known is not None and all(dim == 1 for dim in known.shape) else []
    return _numbers(field, own, known, where), shape, False


def _vector(fields: Sequence[Any], known: TensorType | None, where: str) -> tuple[str, list[int], bool]:
    for field in fields:
        if _TYPES.get(field.type) in _TEXTS or _is_repeated(field):
            raise _wrong(field, "is no single number", where)
    own = [_type_of(each, where) for each in fields]
    common = np.result_type(*own).name
    if known is not None:
        for field, name in zip(fields, own, strict=True):
            _numbers(field, name, known, where)
        return known.type, [len(fields)], False
    return common, [len(fields)], False


def _numbers(field: Any, own: str, known: TensorType | None, where: str) -> str:
    """The type in which the field's numbers are given to the method."""
    if known is None:
        return own
    fits = np.dtype(known.type).kind in "biuf" if known.type != "str" else False
    if not fits or known.type == "float16" or (own.startswith("float") and not known.type.startswith("float")):
        raise _wrong(field, f"can't be the model's {known.type}", where)
    return known.type


def _type_of(field: Any, where: str) -> str:
    name = _TYPES.get(field.type)
    if name is None:
        raise _wrong(field, "is a message itself", where)
    if field.has_default_value and field.default_value:
        raise _wrong(field, "has a default value of its own", where)
    return name


def _is_repeated(field: Any) -> bool:
    # Newer versions of protobuf have the first alone.
    repeated = getattr(field, "is_repeated", None)
    return bool(field.label == field.LABEL_REPEATED if repeated is None else repeated)


def _wrong(field: Any, why: str, where: str) -> ConfigError:
    return ConfigError(
        f"Data handler of {where}: field '{field.name}' {why}: decorate a function with the handler, or leave the "
        "field out by fields=[...]"
    )
