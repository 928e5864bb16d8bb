"""Keys and values in a config file that make an object of a class."""

from __future__ import annotations

import contextlib
import dataclasses
import re
from collections.abc import Mapping, Sequence, Set
from typing import Any

from mindserve.configfile.document import Node, Scalar, Table
from mindserve.configfile.problems import brief, closest, did_you_mean
from mindserve.configfile.shapes import BOOLEAN, ListOf, Made, Reader, Schema, Shape, Wrong, unlike
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

    def keys(self) -> list[str]:
        """All that are known, with their other spellings."""
        return [name for field in self.fields for name in (field.key, *field.aliases)]

    def accepts(self, node: Node) -> bool:
        return isinstance(node, Table)

    def read(self, node: Node, reader: Reader) -> Any:
        if not isinstance(node, Table):
            raise unlike(self, node, reader)
        before = len(reader.problems)
        values, wrong, meant = self._read_entries(node, reader)
        missing = {
            field.parameter: field
            for field in self.fields
            if field.required and field.parameter not in {*values, *wrong, *meant}
        }
        for field in missing.values() if node.whole else ():
            expected = field.shape.expected
            reader.problem(node.place, f"the key '{field.key}' is missing in {reader.section}: expected {expected}")
        made = _Maker(self, node, reader, values, wrong, {*meant, *missing}).make()
        if made is not None:
            reader.note_made(made)
        if made is None or len(reader.problems) > before or not node.whole:
            raise Wrong
        return made.value

    def _read_entries(self, node: Table, reader: Reader) -> tuple[dict[str, Any], set[str], set[str]]:
        """The values, which of the others are wrong, and which keys that are not known may have been meant for."""
        fields = {name: field for field in self.fields for name in (field.key, *field.aliases)}
        values: dict[str, Any] = {}
        wrong: set[str] = set()
        meant: set[str] = set()
        for key, entry in node.entries.items():
            field = fields.get(key)
            if field is None:
                if not self._is_extension(key, reader):
                    name, hint = self._meant(key, fields, reader)
                    place = entry.place.up_to(key)
                    if name:
                        meant.add(fields[name].parameter)
                    # Nobody knows what its value is; where it may share its line with others, theirs too.
                    if not place.source or (name and fields[name].shape.secret):
                        reader.hidden.add(place.line)
                    reader.problem(place, f"the key '{brief(key)}' is not known in {reader.section}{hint}")
            elif field.parameter in {*values, *wrong}:
                reader.problem(entry.place, f"the key '{key}' is another word for '{field.key}', which is given too")
            elif isinstance(entry.node, Scalar) and entry.node.value is None and not field.required:
                continue  # As if it were not there: all that stood under it may be commented out.
            else:
                wrong.add(field.parameter)
                with reader.inside(field.key, entry.place, given=key), contextlib.suppress(Wrong):
                    values[field.parameter] = field.shape.read(entry.node, reader)
                    wrong.remove(field.parameter)
        return values, wrong, meant - {*values, *wrong}

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

    def stand_in(self) -> Any:
        return self.kind(**{field.parameter: field.shape.stand_in() for field in self.fields if field.required})

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


class _Maker:
    """Makes a record's object, and tells everything that its class finds wrong: not only the first thing.

    What the class refuses is told, set aside, and the object is made of the rest, until the class has nothing against
    it. It is not told again of what is wrong anyway, nor of what follows from that.

    Args:
        record: what to make.
        node: what was given.
        reader: of the file.
        values: by the class's parameters: those that could be read.
        wrong: parameters whose values could not be read.
        unsure: parameters that nobody can tell whether, or as what, they were meant to be given.
    """

    def __init__(
        self,
        record: Record,
        node: Table,
        reader: Reader,
        values: Mapping[str, Any],
        wrong: Set[str],
        unsure: Set[str],
    ) -> None:
        self._fields = {field.parameter: field for field in record.fields}
        self._kind = record.kind
        self._node = node
        self._reader = reader
        self._values = dict(values)
        self._wrong = wrong
        # True and false are opposites: what may follow from either is not known.
        self._unsure = {*unsure, *(name for name in wrong if self._fields[name].shape is BOOLEAN)}
        for name in wrong | unsure:
            self._set_aside(name)

    def make(self) -> Made | None:
        """The object; None if there is none, even of what is right."""
        while True:
            try:
                return Made(self._kind(**self._values), self._wrong | self._unsure)
            except MindserveError as error:
                named = [name for name in re.findall(r"'(\w+)'", str(error)) if name in self._fields]
                given = [name for name in named if name in self._values]
                alone_wrong = len(given) == 1 and given[0] in self._wrong
                if not self._unsure & {*named} and not alone_wrong:
                    self._tell(str(error), given)
                left = [name for name in given if name not in self._unsure]
                if not left:
                    return None
                self._unsure.add(left[0])
                self._set_aside(left[0])

    def _set_aside(self, name: str) -> None:
        """Lets something that the class takes stand for a parameter."""
        field = self._fields[name]
        self._values.pop(name, None)
        if field.required or (name not in self._unsure and field.default in (None, ())):
            self._values[name] = field.shape.stand_in()

    def _tell(self, text: str, given: Sequence[str]) -> None:
        """What the class says is wrong, at the first of the keys that it names."""
        keys = {field.parameter: field.key for field in self._fields.values()}
        text = re.sub(r"\b[Pp]arameter '(\w+)'", lambda found: f"'{keys.get(found[1], found[1])}'", text)
        entries = self._node.entries
        for name in given:
            field = self._fields[name]
            for key in (field.key, *field.aliases):
                if key in entries:
                    with self._reader.inside(key, entries[key].place):
                        self._reader.problem(entries[key].node.place, text)
                    return
        self._reader.problem(self._node.place, text)


def _or_null(schema: Schema) -> Schema:
    return {"anyOf": [*schema.get("anyOf", [schema]), {"type": "null"}]}
