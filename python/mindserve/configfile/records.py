"""Keys and values in a config file that make an object of a class."""

from __future__ import annotations

import contextlib
import dataclasses
import re
from collections.abc import Mapping, Sequence
from typing import Any

from mindserve.configfile.document import Node, Scalar, Table
from mindserve.configfile.problems import closest, did_you_mean
from mindserve.configfile.shapes import ListOf, Reader, Schema, Shape, Wrong, shown
from mindserve.errors import MindserveError


@dataclasses.dataclass(frozen=True)
class Field:
    """A key of a record.

    Attributes:
        key: in the file.
        parameter: of the class.
        shape: of its value.
        required: whether it must be given.
        default: else; for the schema.
        text: what it is for.
        aliases: other spellings.
    """

    key: str
    parameter: str
    shape: Shape
    required: bool
    default: Any
    text: str
    aliases: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class Record:
    """Keys and values that make an object.

    Attributes:
        kind: the object's class.
        fields: its keys.
        text: what it is.
        hints: by names that are none of the keys: the key that is meant, or what to tell.
    """

    kind: type
    fields: Sequence[Field]
    text: str
    hints: Mapping[str, str] = dataclasses.field(default_factory=dict)

    @property
    def secret(self) -> bool:
        return False

    @property
    def expected(self) -> str:
        keys = ", ".join(field.key for field in self.fields[:3])
        return f"keys and values ({keys}{', …' if len(self.fields) > 3 else ''})"

    def accepts(self, node: Node) -> bool:
        return isinstance(node, Table)

    def read(self, node: Node, reader: Reader) -> Any:
        where = f"'{reader.here}'" if reader.here else "the file"
        if not isinstance(node, Table):
            raise reader.problem(node.place, f"{where} should be {self.expected}, but is {shown(node)}")
        before = len(reader.problems)
        values, meant = self._read_entries(node, reader, where)
        for field in self.fields:
            if field.required and not {field.key, *field.aliases} & (node.entries.keys() | meant):
                expected = field.shape.expected
                reader.problem(node.place, f"the key '{field.key}' is missing in {where}: expected {expected}")
        if len(reader.problems) > before:
            raise Wrong
        try:
            return self.kind(**values)
        except MindserveError as error:
            raise self._refused(str(error), node, reader) from error

    def _read_entries(self, node: Table, reader: Reader, where: str) -> tuple[dict[str, Any], set[str]]:
        """The values, and the keys that those which are not known may have been meant for."""
        fields = {name: field for field in self.fields for name in (field.key, *field.aliases)}
        values: dict[str, Any] = {}
        meant: set[str] = set()
        for key, entry in node.entries.items():
            field = fields.get(key)
            if field is None:
                if not self._is_extension(key, reader):
                    name, hint = self._meant(key, fields, reader)
                    meant.add(name)
                    place = entry.place
                    if name and fields[name].shape.secret:
                        place = place.without_source()
                    reader.problem(place, f"the key '{key}' is not known in {where}{hint}")
            elif field.parameter in values:
                reader.problem(entry.place, f"the key '{key}' is another word for '{field.key}', which is given too")
            elif isinstance(entry.node, Scalar) and entry.node.value is None and not field.required:
                continue  # As if it were not there: all that stood under it may be commented out.
            else:
                with reader.inside(field.key, entry.place, given=key), contextlib.suppress(Wrong):
                    values[field.parameter] = field.shape.read(entry.node, reader)
        return values, meant

    @staticmethod
    def _is_extension(key: str, reader: Reader) -> bool:
        """At the root, for what aliases lead to."""
        return key.startswith("x-") and not reader.here

    def _meant(self, key: str, known: Mapping[str, Field], reader: Reader) -> tuple[str, str]:
        """The key that was meant, if it can be guessed, and what to tell."""
        name = self.hints.get(key, "")
        if name and name not in known:
            return "", f"; {name}"
        if not name and (homes := [f"'{home}'" for home in reader.homes.get(key, ()) if home != reader.here]):
            return "", f"; expected under {' or '.join(homes)}"
        name = name or closest(key, known)
        return name, did_you_mean(name) or f"; expected one of {', '.join(field.key for field in self.fields)}"

    def _refused(self, text: str, node: Table, reader: Reader) -> Wrong:
        """What the class itself says is wrong, at the key that it names."""
        keys = {field.parameter: field.key for field in self.fields}
        named = [keys[name] for name in re.findall(r"'(\w+)'", text) if keys.get(name) in node.entries]
        text = re.sub(r"\b[Pp]arameter '(\w+)'", lambda found: f"'{keys.get(found[1], found[1])}'", text)
        if not named:
            return reader.problem(node.place, text)
        entry = node.entries[named[0]]
        with reader.inside(named[0], entry.place):
            return reader.problem(entry.node.place, text)

    def homes(self) -> dict[str, list[str]]:
        """By key, the fields of this record in whose values it is known."""
        found: dict[str, list[str]] = {}
        for field in self.fields:
            inner = field.shape.item if isinstance(field.shape, ListOf) else field.shape
            for known in inner.fields if isinstance(inner, Record) else ():
                found.setdefault(known.key, []).append(field.key)
        return found

    def schema(self, definitions: dict[str, Schema]) -> Schema:
        name = self.kind.__name__
        if name not in definitions:
            definitions[name] = {}  # holds the place
            definitions[name] = self.object_schema(definitions)
        return {"$ref": f"#/$defs/{name}"}

    def object_schema(self, definitions: dict[str, Schema]) -> Schema:
        """The object itself, without the indirection of `schema`."""
        properties: dict[str, Schema] = {}
        for field in self.fields:
            schema = field.shape.schema(definitions)
            if not field.required:
                schema = _or_null(schema)
            if field.text:
                schema["description"] = field.text
            if field.default not in (None, ()) and isinstance(field.default, bool | int | float | str):
                schema["default"] = field.default
            for name in (field.key, *field.aliases):
                properties[name] = schema
        required = [field.key for field in self.fields if field.required]
        return {
            "type": "object",
            "description": self.text,
            "properties": properties,
            **({"required": required} if required else {}),
            "additionalProperties": False,
        }


def _or_null(schema: Schema) -> Schema:
    return {"anyOf": [*schema.get("anyOf", [schema]), {"type": "null"}]}
