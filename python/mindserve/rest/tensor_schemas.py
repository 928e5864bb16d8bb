"""JSON schemas and examples of tensors, as requests and answers of servables' methods have them."""

from __future__ import annotations

import base64
import math
from typing import Any

from mindserve.control import TensorType

Schema = dict[str, Any]

# Elements that an example has at most, and levels of arrays that a schema spells out.
_MAX_EXAMPLE = 256
_MAX_LEVELS = 16
# Of the types that plain JSON becomes; others are sent as bytes with a type.
_PLAIN: dict[str, tuple[Schema, Any]] = {
    "bool": ({"type": "boolean"}, True),
    "int32": ({"type": "integer", "format": "int32", "minimum": -(2**31), "maximum": 2**31 - 1}, 1),
    # No whole number: it would be an int32.
    "float32": ({"type": "number", "format": "float"}, 0.5),
}
# Bytes of an element.
_SIZES = dict.fromkeys(("bool", "int8", "uint8"), 1)
_SIZES |= dict.fromkeys(("int16", "uint16", "float16"), 2)
_SIZES |= dict.fromkeys(("int32", "uint32", "float32"), 4)
_SIZES |= dict.fromkeys(("int64", "uint64", "float64"), 8)
_NAMES = [*_SIZES, "fp16", "fp32", "fp64", "str", "bytes"]

# Schemas that those of single inputs and outputs refer to.
COMMON: dict[str, Schema] = {
    "Encoded": {
        "title": "Bytes with a type",
        "description": "Little-endian bytes of all elements in base64, what they are, and the tensor's shape.",
        "type": "object",
        "required": ["b64"],
        "properties": {
            "b64": {"type": "string", "format": "byte", "contentEncoding": "base64"},
            "type": {"type": "string", "enum": _NAMES, "default": "bytes"},
            "shape": {"type": "array", "items": {"type": "integer", "minimum": 0}},
        },
    },
    "InputArray": {
        "description": "An array of one type, in any depth. Whole numbers become int32, others float32.",
        "type": "array",
        "minItems": 1,
        "items": {"anyOf": [{"type": ["number", "boolean"]}, {"$ref": "#/components/schemas/InputArray"}]},
    },
    "Input": {
        "description": "Whole numbers become int32, others float32; other types are bytes with a type.",
        "anyOf": [
            {"type": ["number", "boolean", "string"]},
            {"$ref": "#/components/schemas/InputArray"},
            {"$ref": "#/components/schemas/Encoded"},
        ],
    },
    "OutputArray": {
        "description": "NaN and infinities are null.",
        "type": "array",
        "items": {
            "anyOf": [
                {"type": ["number", "boolean", "string", "null"]},
                {"$ref": "#/components/schemas/OutputArray"},
                {"$ref": "#/components/schemas/OutputBytes"},
            ]
        },
    },
    "OutputBytes": {
        "type": "object",
        "required": ["b64"],
        "properties": {"b64": {"type": "string", "format": "byte", "contentEncoding": "base64"}},
    },
    "Output": {
        "anyOf": [
            {"type": ["number", "boolean", "string", "null"]},
            {"$ref": "#/components/schemas/OutputArray"},
            {"$ref": "#/components/schemas/OutputBytes"},
        ]
    },
}


def input_schema(known: TensorType | None) -> Schema:
    """The schema of a method's input.

    Args:
        known: what its model says; None: it is a function's.
    """
    if known is None:
        return {"$ref": "#/components/schemas/Input"}
    encoded = {"$ref": "#/components/schemas/Encoded"}
    schema: Schema = {"description": _describe(known), "x-tensor": {"type": known.type, "shape": list(known.shape)}}
    if known.type == "str":
        return {**schema, "anyOf": [{"type": "string"}, encoded]}
    if known.type not in _PLAIN:
        return {**schema, "allOf": [encoded]}
    return {**schema, "anyOf": [_nested(_PLAIN[known.type][0], known.shape, fewest=1), encoded]}


def output_schema(known: TensorType | None) -> Schema:
    """The schema of a method's output; see `input_schema`."""
    if known is None:
        return {"$ref": "#/components/schemas/Output"}
    schema: Schema = {"description": _describe(known), "x-tensor": {"type": known.type, "shape": list(known.shape)}}
    if known.type == "str":  # alone it is no array, and bytes if it is not UTF-8
        return {**schema, "allOf": [{"$ref": "#/components/schemas/Output"}]}
    if known.type == "bool":
        item: Schema = {"type": "boolean"}
    elif known.type.startswith("float"):
        item = {"type": ["number", "null"]}  # null: no number
    else:
        item = {"type": "integer"}
    return {**schema, **_nested(item, known.shape, fewest=0)}


def example(known: TensorType | None) -> Any:
    """A value that an input takes; of a type that nobody knows a number, and None for one that is too large to show."""
    if known is None:
        return 0.5
    shape = [1 if size < 0 else size for size in known.shape]
    count = math.prod(shape)
    if known.type == "str":
        return "text"
    if count > _MAX_EXAMPLE:
        return None
    if known.type not in _PLAIN or not count:
        data = base64.b64encode(bytes(count * _SIZES.get(known.type, 1))).decode()
        return {"b64": data, "type": known.type, "shape": shape}
    value = _PLAIN[known.type][1]
    for size in reversed(shape):
        value = [value] * size
    return value


def _nested(item: Schema, shape: tuple[int, ...], *, fewest: int) -> Schema:
    """Arrays in arrays."""
    if len(shape) > _MAX_LEVELS:
        return {"type": "array"}
    schema = item
    for size in reversed(shape):
        bounds = {"minItems": fewest} if size < 0 else {"minItems": size, "maxItems": size}
        schema = {"type": "array", **bounds, "items": schema}
    return schema


def _describe(known: TensorType) -> str:
    sizes = ", ".join("any" if size < 0 else str(size) for size in known.shape)
    text = f"{known.type} of shape [{sizes}]"
    if known.type == "float32":
        text += "; write floats with a point and a fraction, since whole numbers become int32"
    return text + "."
