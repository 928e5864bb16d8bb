"""YAML text as plain nodes that know their places. All that knows of YAML.

Scalars are what YAML 1.2 and JSON take them for: ``yes`` and ``on`` are text, not true; ``12:30`` is text, no number.
What would mean different things to different readers is refused: keys that come twice, numbers such as ``0600``.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Collection, Hashable, Mapping

import yaml

from mindserve.checks import PEM_BEGIN
from mindserve.configfile.problems import ConfigFileError, Place, Problem, brief

# A config is small: these only keep a file that is none, or a bomb of aliases, from taking all time and memory.
MAX_BYTES = 1 << 20
MAX_NODES = 10_000
MAX_DEPTH = 32


@dataclasses.dataclass(frozen=True)
class Scalar:
    """A single value.

    Attributes:
        place: where it begins.
        value: what it means.
        text: as it is written, without quotes.
    """

    place: Place
    value: str | int | float | bool | None
    text: str


@dataclasses.dataclass(frozen=True)
class Listing:
    """Values in their order."""

    place: Place
    items: tuple[Node, ...]


@dataclasses.dataclass(frozen=True)
class Entry:
    """What stands under a key; ``place`` is the key's."""

    place: Place
    node: Node


@dataclasses.dataclass(frozen=True)
class Table:
    """Values by their keys.

    Attributes:
        place: where it begins.
        entries: by key.
        whole: whether they are all there; else one of them could not be read, which has been told.
    """

    place: Place
    entries: Mapping[str, Entry]
    whole: bool = True


@dataclasses.dataclass(frozen=True)
class Broken:
    """In the place of what could not be read, which has been told."""

    place: Place


Node = Scalar | Listing | Table | Broken


def parse(data: bytes | str, file: str) -> Node:
    """The document in ``data``, without anything `Broken`.

    Args:
        data: the text; bytes are UTF-8.
        file: its name, for places.

    Raises:
        ConfigFileError: it is no YAML, holds nothing or more than one document, is too large, or says something twice.
    """
    node, problems = parse_leniently(data, file)
    if problems:
        raise ConfigFileError(problems)
    return node


def parse_leniently(data: bytes | str, file: str, known: Collection[str] = ()) -> tuple[Node, list[Problem]]:
    """As `parse`, with what is wrong where the rest can be read all the same: such as keys that come twice.

    Args:
        data: as for `parse`.
        file: its name.
        known: keys at the root. A file with none of them is taken for something else that was given in the place of a
            config, as a key or a token: errors repeat nothing of it but the names of keys. Default (): any may be.

    Raises:
        ConfigFileError: nothing of it can be read.
    """
    if len(data) > MAX_BYTES:
        raise _error(Place(file), f"the file has {len(data)} bytes, at most {MAX_BYTES} are expected")
    return _Reader(_decode(data, file) if isinstance(data, bytes) else data, file, known).document()


def _decode(data: bytes, file: str) -> str:
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        column = error.start - data.rfind(b"\n", 0, error.start)
        raise _error(Place(file, line, column), f"expected UTF-8, but found byte {data[error.start]:#04x}") from None


class _Loader(yaml.SafeLoader):
    """Composes nodes; what scalars mean is `_resolve`'s."""

    yaml_implicit_resolvers = {}  # noqa: RUF012


class _Reader:
    def __init__(self, text: str, file: str, known: Collection[str]) -> None:
        self._text = text
        self._file = file
        self._known = known
        # Something else than a config, which may be secret. Until it has been parsed, by what its lines look like.
        self._foreign = bool(known) and not re.search(_KEY_AT_ROOT.format("|".join(map(re.escape, known))), text)
        # As YAML counts them. Where a key was put into the file, in place of its path, no line of it is to be shown.
        self._lines = [] if PEM_BEGIN in text else re.split("\r\n|[\r\n\x85\u2028\u2029]", text)
        self._nodes = 0
        self._problems: list[Problem] = []

    def document(self) -> tuple[Node, list[Problem]]:
        root = self._compose()
        if root is None:
            raise _error(Place(self._file), "the file is empty: expected at least 'servables:'")
        if self._known:
            self._check_root(root)
        node = self._convert(root, 1)
        # What an alias repeats is told once.
        return node, list(dict.fromkeys(self._problems))

    def _check_root(self, root: yaml.Node) -> None:
        self._foreign = True
        if isinstance(root, yaml.MappingNode):
            self._foreign = not any(
                isinstance(key, yaml.ScalarNode) and key.value in self._known for key, _ in root.value
            )
            return
        kind = self._kind(root) if isinstance(root, yaml.ScalarNode) else "a list"
        raise _error(self._at(root), f"the file holds no keys and values, but {kind}: expected at least 'servables:'")

    def _kind(self, scalar: yaml.ScalarNode) -> str:
        plain = scalar.style is None and not _TAGGED.match(self._text, scalar.start_mark.index)
        value = self._resolve(scalar.value, self._at(scalar)) if plain else ""
        if value is None:
            return "nothing"
        return "true or false" if isinstance(value, bool) else "a text" if isinstance(value, str) else "a number"

    def _compose(self) -> yaml.Node | None:
        try:
            return yaml.compose(self._text, _Loader)
        except yaml.reader.ReaderError as error:
            before = self._text[: error.position]
            place = self._place(before.count("\n"), len(before) - before.rfind("\n") - 1)
            raise _error(place, f"the character {chr(error.character)!r} may not stand in YAML") from None
        except yaml.MarkedYAMLError as error:
            mark = error.problem_mark or error.context_mark
            place = Place(self._file) if mark is None else self._place(mark.line, mark.column)
            if self._foreign:
                raise _error(place, "this is no YAML: expected keys and values, at least 'servables:'") from None
            context = f", {error.context}" if error.context else ""
            problem = re.sub("'([^']*)'", lambda found: f"'{brief(found[1])}'", f"{error.problem}{context}")
            raise _error(place, f"this is no YAML: {problem}{_advice(place)}") from None
        except RecursionError:
            raise _error(Place(self._file), f"expected at most {MAX_DEPTH} levels, one inside the other") from None

    def _place(self, line: int, column: int) -> Place:
        shown = not self._foreign and line < len(self._lines)
        return Place(self._file, line + 1, column + 1, self._lines[line] if shown else "")

    def _at(self, node: yaml.Node) -> Place:
        return self._place(node.start_mark.line, node.start_mark.column)

    def _problem(self, place: Place, text: str) -> None:
        self._problems.append(Problem(place, "what stands here can't be read" if self._foreign else text))

    def _convert(self, node: yaml.Node, depth: int) -> Node:
        place = self._at(node)
        self._nodes += 1  # each time that an alias leads there
        if self._nodes > MAX_NODES:
            raise _error(place, f"expected at most {MAX_NODES} values, with what aliases (*name) repeat")
        if depth > MAX_DEPTH:
            raise _error(place, f"expected at most {MAX_DEPTH} levels, one inside the other")
        if isinstance(node, yaml.ScalarNode):
            return self._scalar(node, place)
        if node.tag not in ("tag:yaml.org,2002:seq", "tag:yaml.org,2002:map"):
            self._problem(place, f"the tag {_tag(node)} is not known here")
            return Broken(place)
        if isinstance(node, yaml.SequenceNode):
            return Listing(place, tuple(self._convert(item, depth + 1) for item in node.value))
        assert isinstance(node, yaml.MappingNode)
        return self._table(node, place, depth)

    def _table(self, node: yaml.MappingNode, place: Place, depth: int) -> Table:
        entries: dict[str, Entry] = {}
        merged: dict[str, Entry] = {}
        whole = True
        for key_node, value_node in node.value:
            at = self._at(key_node)
            if not isinstance(key_node, yaml.ScalarNode):
                self._problem(at, "a key should be text")
                whole = False
                continue
            key: str = key_node.value
            if key == "<<" and key_node.style is None:
                whole &= self._merge(self._convert(value_node, depth + 1), merged)
                continue
            if key in entries:
                first = entries[key].place
                self._problem(
                    at.up_to(key), f"the key '{brief(key)}' is given twice, first in line {first.line}: expected once"
                )
                continue
            entries[key] = Entry(at, self._convert(value_node, depth + 1))
        return Table(place, {**merged, **entries}, whole)

    def _merge(self, node: Node, into: dict[str, Entry]) -> bool:
        """What ``<<: *name`` brings along; of several, the first has the last word. Whether that is all there is."""
        whole = True
        for item in node.items if isinstance(node, Listing) else (node,):
            if not isinstance(item, Table):
                whole = False
                if not isinstance(item, Broken):
                    expected = "'<<' takes the keys of another mapping: expected an alias such as *defaults"
                    self._problem(item.place, expected)
                continue
            whole &= item.whole
            for key, entry in item.entries.items():
                into.setdefault(key, entry)
        return whole

    def _scalar(self, node: yaml.ScalarNode, place: Place) -> Scalar | Broken:
        before = len(self._problems)
        scalar = self._read_scalar(node, place)
        return scalar if len(self._problems) == before else Broken(place)

    def _read_scalar(self, node: yaml.ScalarNode, place: Place) -> Scalar:
        text: str = node.value
        if node.tag == "tag:yaml.org,2002:str":
            # Without quotes or a tag of its own it may be something else.
            plain = node.style is None and not _TAGGED.match(self._text, node.start_mark.index)
            return Scalar(place, self._resolve(text, place) if plain else text, text)
        kinds = _TAGS.get(node.tag)
        value = self._resolve(text, place)
        if kinds is None or type(value) not in kinds:
            self._problem(place, f"the tag {_tag(node)} is not known here, or not for '{brief(text)}'")
        return Scalar(place, value, text)

    def _resolve(self, text: str, place: Place) -> str | int | float | bool | None:
        """By the core schema of YAML 1.2."""
        if text in _WORDS:
            return _WORDS[text]
        try:
            for base, pattern in _INTEGERS:
                if pattern.fullmatch(text):
                    return int(text, base)
            if _FLOAT.fullmatch(text) and not _AMBIGUOUS.fullmatch(text):
                return float(text.lower().replace(".inf", "inf").replace(".nan", "nan"))
        except ValueError:  # Python bounds the digits
            self._problem(place, f"a number of {len(text)} characters is too long")
        if _AMBIGUOUS.fullmatch(text):
            self._problem(
                place,
                f"{text} means {int(text, 8) if set(text) <= set('01234567') else 'something'} to some readers of YAML "
                f"and {int(text)} to others: write 0o{text.lstrip('0')} for octal digits, or {int(text)}",
            )
        return text


_WORDS: dict[str, bool | None] = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL"), None),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
}
_INTEGERS = (
    (10, re.compile(r"[-+]?(0|[1-9][0-9]*)", re.ASCII)),
    (8, re.compile(r"0o[0-7]+")),
    (16, re.compile(r"0x[0-9a-fA-F]+")),
)
_AMBIGUOUS = re.compile(r"0[0-9]{1,20}", re.ASCII)
_FLOAT = re.compile(
    r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)", re.ASCII
)
# How a line begins that has a key at the root, of YAML or JSON.
_KEY_AT_ROOT = r"(?m)^(?: {{0,4}}|\t)\{{?[ \t]*[\"']?(?:{})[\"']?[ \t]*:"
_TAGGED = re.compile(r"(&\S+\s+)?!")
_TAGS: dict[Hashable, tuple[type, ...]] = {
    "tag:yaml.org,2002:int": (int,),
    "tag:yaml.org,2002:float": (float, int),
    "tag:yaml.org,2002:bool": (bool,),
    "tag:yaml.org,2002:null": (type(None),),
}


def _tag(node: yaml.Node) -> str:
    return brief(str(node.tag).replace("tag:yaml.org,2002:", "!!"))


def _advice(place: Place) -> str:
    if "\t" in place.source[: place.column]:
        return "; lines are indented by spaces, not by tabs"
    return ""


def _error(place: Place, text: str) -> ConfigFileError:
    return ConfigFileError([Problem(place, text)])
