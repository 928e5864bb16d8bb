"""The config file of ``mindserve run``, as bytes: what is wrong with it is told, whatever it is.

With atheris (https://github.com/google/atheris), which has libFuzzer's options, as `scripts/fuzz.sh` runs it:

    python csrc/fuzz/fuzz_config_file.py [OPTIONS] [CORPUS ...]

The inputs that are kept are run by tests/test_fuzzers.py, without atheris. One whose first byte is 2, which no
YAML has, says what has been read in the file: few bytes that came by chance are YAML, and fewer have one of its keys.
"""

from __future__ import annotations

import functools
import gc
import json
import sys
import types
from collections.abc import Iterator
from typing import Any

WORDS = (
    "add",
    "models",
    "127.0.0.1:5500",
    "unix:/tmp/s.sock",
    "[::1]:0",
    "1.5",
    "0x10",
    "yes",
    "~",
    "",
    "h\u00e9",
    "a=b",
)


@functools.cache
def whole_schema() -> Any:
    """With properties in order, so that an input means the same wherever a new one stands."""
    from mindserve.configfile.schema import json_schema

    return json.loads(json.dumps(json_schema(), sort_keys=True))


@functools.cache
def referred(path: str) -> Any:
    return functools.reduce(lambda at, name: at[name], path.removeprefix("#/").split("/"), whole_schema())


def node_of(data: Iterator[int], schema: Any, depth: int) -> Any:
    """A value as YAML is read, of as many bytes as it takes; where they end there is null. Mostly one that `schema` is
    of."""
    from mindserve.configfile.document import MAX_DEPTH, Entry, Listing, Scalar, Table
    from mindserve.configfile.problems import Place

    while "$ref" in schema:
        schema = referred(schema["$ref"])
    byte = next(data, 3)
    kind, more = byte % 4, byte // 4
    place = Place("config.yaml", depth, byte)
    choices = schema.get("oneOf") or schema.get("anyOf")
    if choices and kind and depth < MAX_DEPTH:
        return node_of(data, choices[more % len(choices)], depth + 1)
    properties = schema.get("properties", {})
    known = tuple(properties)
    if depth < MAX_DEPTH and kind != 3 and (known or more < 4):
        entries = {}
        for _ in range(more % 8):
            names = known if known and kind else WORDS
            name = names[next(data, 0) % len(names)]
            entries[name] = Entry(place, node_of(data, properties.get(name, {}), depth + 1))
        return Table(place, entries, whole=byte != 255)
    if depth < MAX_DEPTH and kind != 3 and schema.get("type") == "array":
        return Listing(place, tuple(node_of(data, schema.get("items", {}), depth + 1) for _ in range(more % 8)))
    value = scalar_of(data, kind, more)
    return Scalar(place, value, str(value))


def scalar_of(data: Iterator[int], kind: int, more: int) -> str | int | float | bool | None:
    if kind == 0:
        return int.from_bytes(bytes(next(data, 0) for _ in range(more % 9 + 1)), "little", signed=True)
    if kind == 1:
        return WORDS[next(data, 0) % len(WORDS)]
    if kind == 2:
        return "".join(map(chr, (next(data, 0) for _ in range(more))))
    numbers = (1.5, 1, 65536, 1e308, float("inf"), float("nan"))
    return (None, True, False, *numbers)[more % (3 + len(numbers))]


def run(data: bytes) -> None:
    """One file.

    Raises:
        AssertionError: it was not answered as it has to be; any other error is a finding, too.
    """
    from mindserve.configfile import ConfigFileError
    from mindserve.configfile.document import parse_leniently
    from mindserve.configfile.load import read

    written = data[:1] != b"\2"
    try:
        if written:
            node, problems = parse_leniently(data, "config.yaml")
        else:
            node, problems = node_of(iter(data[1:]), whole_schema(), 0), []
        draft = read(node, "config.yaml", "/nowhere", problems)
        file = draft.finish()
    except ConfigFileError as error:
        assert error.problems, "an error without a problem"
        for problem in error.problems:
            assert problem.text, "a problem without a text"
            # It repeats what the file says, maybe as escapes, in a sentence.
            most = (10 if written else 40) * len(data) + 1000
            assert len(problem.text) <= most, f"a problem of {len(problem.text)} characters"
            assert problem.place.line >= 0
            assert problem.place.column >= 0
        return
    assert file.settings is not None
    assert not draft.problems


def main() -> None:
    """Let atheris look for more."""
    import atheris

    run(b"servables: []")
    # By import hooks, as atheris would, an editable install can't be instrumented.
    for each in gc.get_objects():
        if isinstance(each, types.FunctionType) and str(each.__module__).startswith("mindserve.configfile"):
            atheris.instrument_func(each)
    atheris.Setup(sys.argv, run)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
