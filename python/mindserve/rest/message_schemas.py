"""JSON schemas of protobuf messages, as protobuf's JSON mapping writes them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from google.protobuf.descriptor import Descriptor, EnumDescriptor, FieldDescriptor

Schema = dict[str, Any]

_PACKAGE = "google.protobuf."
_INT32 = {"type": "integer", "format": "int32", "minimum": -(2**31), "maximum": 2**31 - 1}
_UINT32 = {"type": "integer", "format": "int64", "minimum": 0, "maximum": 2**32 - 1}
# Written as strings, since JSON's readers often have doubles only; numbers are taken, too.
_INT64 = {"type": ["string", "integer"], "format": "int64", "pattern": "^-?[0-9]{1,19}$"}
_UINT64 = {"type": ["string", "integer"], "format": "uint64", "pattern": "^[0-9]{1,20}$", "minimum": 0}
_MAX_FLOAT = 3.4028235e38
_NO_NUMBER = {"type": "string", "enum": ["NaN", "Infinity", "-Infinity"]}
_FLOAT = {"anyOf": [{"type": "number", "format": "float", "minimum": -_MAX_FLOAT, "maximum": _MAX_FLOAT}, _NO_NUMBER]}
_DOUBLE = {"anyOf": [{"type": "number", "format": "double"}, _NO_NUMBER]}
_BOOL = {"type": "boolean"}
_STRING = {"type": "string"}
_BYTES = {"type": "string", "format": "byte", "contentEncoding": "base64"}

_SCALARS: dict[int, Schema] = {
    FieldDescriptor.TYPE_DOUBLE: _DOUBLE,
    FieldDescriptor.TYPE_FLOAT: _FLOAT,
    FieldDescriptor.TYPE_INT64: _INT64,
    FieldDescriptor.TYPE_SINT64: _INT64,
    FieldDescriptor.TYPE_SFIXED64: _INT64,
    FieldDescriptor.TYPE_UINT64: _UINT64,
    FieldDescriptor.TYPE_FIXED64: _UINT64,
    FieldDescriptor.TYPE_INT32: _INT32,
    FieldDescriptor.TYPE_SINT32: _INT32,
    FieldDescriptor.TYPE_SFIXED32: _INT32,
    FieldDescriptor.TYPE_UINT32: _UINT32,
    FieldDescriptor.TYPE_FIXED32: _UINT32,
    FieldDescriptor.TYPE_BOOL: _BOOL,
    FieldDescriptor.TYPE_STRING: _STRING,
    FieldDescriptor.TYPE_BYTES: _BYTES,
}
# Keys of maps are strings in JSON.
_KEYS: dict[int, Schema] = {
    FieldDescriptor.CPPTYPE_INT32: {"pattern": "^-?[0-9]{1,10}$"},
    FieldDescriptor.CPPTYPE_INT64: {"pattern": "^-?[0-9]{1,19}$"},
    FieldDescriptor.CPPTYPE_UINT32: {"pattern": "^[0-9]{1,10}$"},
    FieldDescriptor.CPPTYPE_UINT64: {"pattern": "^[0-9]{1,20}$"},
    FieldDescriptor.CPPTYPE_BOOL: {"enum": ["true", "false"]},
}
# Messages that have a form of their own.
_WELL_KNOWN: dict[str, Schema] = {
    "Any": {
        "type": "object",
        "description": "Any message: '@type' is 'type.googleapis.com/' and its full name; its fields stand beside it, "
        "or its own form in 'value'.",
        "properties": {"@type": {"type": "string"}},
        "examples": [{}],
    },
    "BoolValue": _BOOL,
    "BytesValue": _BYTES,
    "DoubleValue": _DOUBLE,
    "Duration": {
        "type": "string",
        "description": "Seconds, such as '1.5s'.",
        "pattern": "^-?[0-9]{1,12}([.][0-9]{1,9})?s$",
        "examples": ["1.5s"],
    },
    "FieldMask": {"type": "string", "description": "Names of fields, joined by commas: 'user.name,photo'."},
    "FloatValue": _FLOAT,
    "Int32Value": _INT32,
    "Int64Value": _INT64,
    "ListValue": {"type": "array"},
    "StringValue": _STRING,
    "Struct": {"type": "object"},
    "Timestamp": {"type": "string", "format": "date-time", "examples": ["2024-01-02T03:04:05Z"]},
    "UInt32Value": _UINT32,
    "UInt64Value": _UINT64,
    "Value": {"description": "Any JSON."},
}


class MessageSchemas:
    """The schemas of messages, each once, by names; also of those that are fields of others.

    Args:
        refer: what a schema is referred to by, by its name.
        prefix: put before the names.

    Attributes:
        found: by name.
    """

    def __init__(self, refer: Callable[[str], Schema], prefix: str = "") -> None:
        self.found: dict[str, Schema] = {}
        self._refer = refer
        self._prefix = prefix

    def add(self, message: Descriptor) -> Schema:
        """A reference to a message's schema."""
        todo = [message]  # no recursion: messages may refer to each other for ever
        while todo:
            each = todo.pop()
            if self._name(each) not in self.found:
                self.found[self._name(each)] = self._message(each, todo)
        return self._refer(self._name(message))

    def _name(self, message: Descriptor | EnumDescriptor) -> str:
        return self._prefix + str(message.full_name)

    def _message(self, message: Descriptor, todo: list[Descriptor]) -> Schema:
        name = str(message.full_name)
        if name.startswith(_PACKAGE) and (known := _WELL_KNOWN.get(name[len(_PACKAGE) :])) is not None:
            return known
        schema: Schema = {
            "type": "object",
            "properties": {field.json_name: self._field(field, todo) for field in message.fields},
            "additionalProperties": False,
        }
        if required := [field.json_name for field in message.fields if _is_required(field)]:
            schema["required"] = required
        groups = [[field.json_name for field in oneof.fields] for oneof in message.oneofs if len(oneof.fields) > 1]
        if groups:
            schema["allOf"] = [_at_most_one(names) for names in groups]
        return schema

    def _field(self, field: FieldDescriptor, todo: list[Descriptor]) -> Schema:
        kind = field.message_type
        if kind is not None and kind.GetOptions().map_entry:
            key, value = (kind.fields_by_name[name] for name in ("key", "value"))
            schema: Schema = {"type": "object", "additionalProperties": self._value(value, todo)}
            if key.cpp_type in _KEYS:
                schema["propertyNames"] = _KEYS[key.cpp_type]
            return schema
        if is_repeated(field):
            return {"type": "array", "items": self._value(field, todo)}
        return self._value(field, todo)

    def _value(self, field: FieldDescriptor, todo: list[Descriptor]) -> Schema:
        if field.enum_type is not None:
            return self._enum(field.enum_type)
        if field.message_type is not None:
            todo.append(field.message_type)
            return self._refer(self._name(field.message_type))
        return _SCALARS[field.type]

    def _enum(self, enum: EnumDescriptor) -> Schema:
        if enum.full_name == _PACKAGE + "NullValue":
            return {"type": "null"}
        name = self._name(enum)
        self.found[name] = {
            "description": "Its name; or a number, as others than these are written.",
            "anyOf": [{"type": "string", "enum": [value.name for value in enum.values]}, _INT32],
        }
        return self._refer(name)


def _at_most_one(names: list[str]) -> Schema:
    given: list[Schema] = [{"required": [name]} for name in names]
    return {"oneOf": [*given, {"not": {"anyOf": given}}]}


# protobuf before 6.31 has no `is_repeated` and `is_required`, and later ones warn of `label`.


def is_repeated(field: FieldDescriptor) -> bool:
    """Whether the field holds several values, or a map."""
    found = getattr(field, "is_repeated", None)
    return bool(found) if found is not None else _label(field) == FieldDescriptor.LABEL_REPEATED


def _is_required(field: FieldDescriptor) -> bool:
    found = getattr(field, "is_required", None)
    return bool(found) if found is not None else _label(field) == FieldDescriptor.LABEL_REQUIRED


def _label(field: Any) -> int:
    return int(field.label)
