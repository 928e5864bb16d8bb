"""The shapes that values in a config file can have: each reads a node, and describes itself as JSON schema."""

from __future__ import annotations

import base64
import contextlib
import dataclasses
import os
import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any, Protocol

from mindserve.checks import PEM_BEGIN, Number, Range, Seconds
from mindserve.config import DEVICE_TYPES, LONGEST_UNIX_PATH, parse_device_type
from mindserve.configfile.document import Broken, Listing, Node, Scalar, Table
from mindserve.configfile.problems import Place, Problem, Problems, brief
from mindserve.configfile.settings import MAX_PORT, is_import_path
from mindserve.errors import ConfigError

# What the server takes as an address besides a Unix socket's path; it looks closer at it itself.
_TCP = re.compile(r"(?:\[[0-9a-f:.]+(?:%[\w.-]+)?\]|[\w.-]+):(?P<port>\d{1,9})", re.ASCII | re.IGNORECASE)

Path = tuple[str | int, ...]
Schema = dict[str, Any]


class Wrong(Exception):
    """A value could not be read; why is among the reader's problems."""


@dataclasses.dataclass(frozen=True)
class Made:
    """An object that was made of keys and values, or an import path.

    Attributes:
        value: it.
        doubtful: its parameters that hold something else than what was meant: what was given is wrong, and told.
    """

    value: Any
    doubtful: Collection[str] = ()


class Reader:
    """What the reading of one file knows and finds.

    Attributes:
        directory: what relative paths in the file start from.
        homes: by key, the sections at the root where it would be known.
        problems: found so far.
        places: of everything that was given, by its way from the root; of keys where there are.
        made: the objects that could be made, by their ways from the root.
        hidden: lines that no error must show.
    """

    def __init__(self, directory: str, homes: Mapping[str, Sequence[str]]) -> None:
        self.directory = directory
        self.homes = homes
        self.problems = Problems()
        self.places: dict[Path, Place] = {}
        self.made: dict[Path, Made] = {}
        self.hidden: set[int] = set()
        self._path: Path = ()
        self._given: Path = ()

    @contextlib.contextmanager
    def inside(self, step: str | int, place: Place, *, given: str = "") -> Iterator[None]:
        """Reads what stands under a key, or at a number of a list; ``given`` is another spelling of the key."""
        before = self._path, self._given
        self._path, self._given = (*self._path, step), (*self._given, given or step)
        self.places[self._path] = place
        try:
            yield
        finally:
            self._path, self._given = before

    def problem(self, place: Place, text: str) -> Wrong:
        """Notes a problem with what is being read."""
        self.problems.add(Problem(place, text, spell(self._given)))
        return Wrong()

    def problem_at(self, path: Path, text: str) -> None:
        """Notes a problem with something that was given, or with the default that stands for it."""
        self.problems.add(Problem(self.places[given_at(path, self.places)], text, spell(path)))

    def note_made(self, made: Made) -> None:
        """Notes the object that what is being read has made."""
        self.made[self._path] = made

    def resolve(self, path: str) -> str:
        """A path in the file as one that does not depend on the current directory."""
        return os.path.join(self.directory, path)

    @property
    def here(self) -> str:
        """What is being read, for texts: "servables[0].name"."""
        return spell(self._given)

    @property
    def section(self) -> str:
        """`here` as a place where keys are: "'servables[0]'"."""
        return f"'{self.here}'" if self._given else "the file"


def given_at(path: Path, places: Collection[Path]) -> Path:
    """The way itself if something was given there, or else to what it would be part of; () if to nothing."""
    while path and path not in places:
        path = path[:-1]
    return path


def spell(path: Path) -> str:
    """("servables", 0, "name") → "servables[0].name"."""
    return "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in path).lstrip(".")


class Shape(Protocol):
    """What a value should look like."""

    @property
    def secret(self) -> bool:
        """Whether what is given must not be shown."""
        ...

    @property
    def expected(self) -> str:
        """In words: "a whole number"."""
        ...

    def accepts(self, node: Node) -> bool:
        """Whether the node is of this kind, whatever is in it."""
        ...

    def read(self, node: Node, reader: Reader) -> Any:
        """The value. Tells of everything that is wrong with it.

        Raises:
            Wrong: there is none.
        """
        ...

    def stand_in(self) -> Any:
        """A value that is right, for where what was given is wrong."""
        ...

    def schema(self, definitions: dict[str, Schema]) -> Schema:
        """As JSON schema; what it refers to is added to ``definitions``."""
        ...


@dataclasses.dataclass(frozen=True)
class Plain:
    """One scalar.

    Attributes:
        expected: in words.
        types: of the value.
        json: its schema.
        bounds: of the value; None: there are none.
        secret: must not be shown.
    """

    expected: str
    types: tuple[type, ...]
    json: Mapping[str, Any]
    bounds: Range | Seconds | Number | None = None
    secret: bool = False

    def accepts(self, node: Node) -> bool:
        return isinstance(node, Scalar) and type(node.value) in self.types

    def read(self, node: Node, reader: Reader) -> Any:
        if isinstance(node, Scalar) and PEM_BEGIN in node.text:
            expected = "expected the path of a file, if it belongs here"
            raise reader.problem(node.place, f"'{reader.here}' is PEM text itself: {expected}")
        if not isinstance(node, Scalar) or type(node.value) not in self.types:
            raise unlike(self, node, reader)
        number = node.value if isinstance(node.value, int | float) else 0
        if self.bounds is not None and (wrong := self.bounds.wrong(number)):
            raise reader.problem(node.place, f"'{reader.here}' {wrong}, but is {shown(node)}")
        return node.value

    def stand_in(self) -> Any:
        if isinstance(self.bounds, Range):
            return self.bounds.minimum
        if isinstance(self.bounds, Seconds):
            return self.bounds.above + 1
        if isinstance(self.bounds, Number):
            return self.bounds.maximum
        return "-" if str in self.types else self.types[0]()

    def schema(self, definitions: dict[str, Schema]) -> Schema:
        return dict(self.json)


TEXT = Plain("text", (str,), {"type": "string"})
BOOLEAN = Plain("true or false", (bool,), {"type": "boolean"})


def whole_number(minimum: int | None = None, maximum: int | None = None) -> Plain:
    """An int."""
    bounds = {"minimum": minimum, "maximum": maximum}
    schema = {"type": "integer", **{name: bound for name, bound in bounds.items() if bound is not None}}
    return Plain("a whole number", (int,), schema, None if minimum is None else Range(minimum, maximum))


@dataclasses.dataclass(frozen=True)
class Converted:
    """A scalar that is turned into something else.

    Attributes:
        plain: how it is written.
        convert: gives the value; raises ValueError with what is expected.
        right: some value that is right.
        secret: must not be shown.
    """

    plain: Plain
    convert: Callable[[Scalar, Reader], Any]
    right: Any = "-"
    secret: bool = False

    @property
    def expected(self) -> str:
        return self.plain.expected

    def accepts(self, node: Node) -> bool:
        return self.plain.accepts(node)

    def read(self, node: Node, reader: Reader) -> Any:
        if self.secret:
            reader.hidden.add(node.place.line)
            if not self.accepts(node) and not isinstance(node, Broken):
                raise reader.problem(node.place, f"'{reader.here}' should be {self.expected}")
        self.plain.read(node, reader)
        assert isinstance(node, Scalar)
        try:
            return self.convert(node, reader)
        except ValueError as error:
            what = "" if self.secret else f", but is {shown(node)}"
            raise reader.problem(node.place, f"'{reader.here}' should be {error}{what}") from None

    def stand_in(self) -> Any:
        return self.right

    def schema(self, definitions: dict[str, Schema]) -> Schema:
        return self.plain.schema(definitions)


@dataclasses.dataclass(frozen=True)
class ListOf:
    """Values of one shape, as a tuple.

    Attributes:
        item: of each.
        unique: whether a value may stand there only once.
    """

    item: Shape
    unique: bool = False

    @property
    def secret(self) -> bool:
        return self.item.secret

    @property
    def expected(self) -> str:
        return f"a list, each item {self.item.expected}"

    def accepts(self, node: Node) -> bool:
        return isinstance(node, Listing)

    def read(self, node: Node, reader: Reader) -> Any:
        if not isinstance(node, Listing):
            raise unlike(self, node, reader)
        values: list[Any] = []
        for number, item in enumerate(node.items):
            with reader.inside(number, item.place), contextlib.suppress(Wrong):
                value = self.item.read(item, reader)
                if self.unique and value in values:
                    raise reader.problem(item.place, f"'{reader.here}' is {shown(item)} again: expected it once")
                values.append(value)
        if len(values) != len(node.items):
            raise Wrong
        return tuple(values)

    def stand_in(self) -> Any:
        return (self.item.stand_in(),)

    def schema(self, definitions: dict[str, Schema]) -> Schema:
        return {"type": "array", "items": self.item.schema(definitions)}


@dataclasses.dataclass(frozen=True)
class OneOf:
    """The first of several shapes that is of the node's kind."""

    shapes: tuple[Shape, ...]

    @property
    def secret(self) -> bool:
        return any(shape.secret for shape in self.shapes)

    @property
    def expected(self) -> str:
        return ", or ".join(shape.expected for shape in self.shapes)

    def accepts(self, node: Node) -> bool:
        return any(shape.accepts(node) for shape in self.shapes)

    def read(self, node: Node, reader: Reader) -> Any:
        for shape in self.shapes:
            if shape.accepts(node):
                return shape.read(node, reader)
        raise unlike(self, node, reader)

    def stand_in(self) -> Any:
        return self.shapes[0].stand_in()

    def schema(self, definitions: dict[str, Schema]) -> Schema:
        return {"anyOf": [shape.schema(definitions) for shape in self.shapes]}


def unlike(shape: Shape, node: Node, reader: Reader) -> Wrong:
    """Tells that what is being read is not of its shape's kind, unless it could not be read, which has been told."""
    if isinstance(node, Broken):
        return Wrong()
    where = f"'{reader.here}'" if reader.here else "the file"
    return reader.problem(node.place, f"{where} should be {shape.expected}, but is {shown(node, shape)}")


def shown(node: Node, shape: Shape | None = None) -> str:
    """What was given, in words."""
    if isinstance(node, Broken):
        return "something else"
    if isinstance(node, Listing):
        return f"a list of {len(node.items)}"
    if isinstance(node, Table):
        return "keys and values"
    if node.value is None:
        return "nothing"
    text = brief(node.text)
    if isinstance(node.value, str):
        advice = {"yes": "true", "on": "true", "no": "false", "off": "false"}.get(text.lower(), "")
        return f"the text '{text}'" + (f": write {advice}" if shape is BOOLEAN and advice else "")
    kind = "" if isinstance(node.value, bool) else "the number "
    return f"{kind}{text}" + (": put it in quotes to make it text" if shape is TEXT else "")


def _as_path(scalar: Scalar, reader: Reader) -> str:
    if "\n" in scalar.text.strip():
        # It may be a file's content.
        reader.hidden.add(scalar.place.line)
        raise reader.problem(scalar.place, f"'{reader.here}' should be a path, but is several lines")
    return reader.resolve(str(scalar.value)) if scalar.value else ""


def _as_address(scalar: Scalar, reader: Reader) -> str:
    text = str(scalar.value)
    scheme, _, path = text.partition(":")
    if scheme == "unix" and path:
        whole = path if path.startswith("/") else reader.resolve(path)
        # The native server takes "unix:///path" as "unix:/path".
        size = len(whole.removeprefix("//").encode(errors="surrogatepass"))
        if size > LONGEST_UNIX_PATH:
            counted = "it" if whole == path else "with the file's directory it"
            raise ValueError(f"'unix:path' with a path of at most {LONGEST_UNIX_PATH} bytes ({counted} has {size})")
        return f"unix:{whole}"
    tcp = _TCP.fullmatch(text)
    if tcp is None or int(tcp["port"]) > MAX_PORT:
        raise ValueError(f"'host:port', '[IPv6]:port' or 'unix:path', with a port up to {MAX_PORT}")
    return text


def _as_device_type(scalar: Scalar, reader: Reader) -> str | None:
    try:
        return parse_device_type(scalar.value)
    except ConfigError:
        raise ValueError(f"one of {', '.join(DEVICE_TYPES)}") from None


def _as_import_path(scalar: Scalar, reader: Reader) -> str:
    text = str(scalar.value)
    if not is_import_path(text):
        raise ValueError("an import path, such as 'user_pb2_grpc.add_UserServicer_to_server'")
    reader.note_made(Made(text))
    return text


def _as_mode(scalar: Scalar, reader: Reader) -> int:
    if not re.fullmatch("0o[0-7]{1,3}", scalar.text):
        raise ValueError("permissions as octal digits, such as 0o660")
    return int(scalar.text, 8)


def _as_bytes(scalar: Scalar, reader: Reader) -> bytes:
    try:
        return base64.b64decode(str(scalar.value), validate=True)
    except ValueError:
        raise ValueError("bytes in base64") from None


PATH = Converted(TEXT, _as_path)
ADDRESS = Converted(TEXT, _as_address)
DEVICE_TYPE = Converted(TEXT, _as_device_type, None)
IMPORT_PATH = Converted(TEXT, _as_import_path, "module.function")
MODE = Converted(
    Plain(
        "permissions as octal digits, such as 0o660",
        (int, str),
        {
            "anyOf": [
                {"type": "integer", "minimum": 0, "maximum": 0o777},
                {"type": "string", "pattern": "^0o[0-7]{1,3}$"},
            ]
        },
    ),
    _as_mode,
    0o600,
)
BYTES = Converted(
    Plain("bytes in base64", (str,), {"type": "string", "contentEncoding": "base64"}), _as_bytes, None, secret=True
)
