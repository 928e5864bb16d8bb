"""Bodies of users' RPCs and of the Classifier by HTTP: a message, or a client's error.

With atheris (https://github.com/google/atheris), which has libFuzzer's options, as `scripts/fuzz.sh` runs it:

    python csrc/fuzz/fuzz_rest_body.py [OPTIONS] [CORPUS ...]

The inputs that are kept are run by tests/test_fuzzers.py, without atheris. The first byte says whose body the rest is
(bit 0: the Classifier's, else an RPC's), and whether it is the body itself or (bit 1) says what was read of it: few
bytes that came by chance are JSON.
"""

from __future__ import annotations

import functools
import gc
import json
import math
import struct
import sys
import types
from collections.abc import Callable, Sequence
from typing import Any

LONGEST_ERROR = 1500
"""Characters."""

DEEPEST = 110
"""Levels, one inside the other: some more than are taken."""

WORDS = (
    *("@type", "value", "seconds", "nanos", "typeUrl", "paths", "key"),
    *(
        "t.All",
        "x/t.All",
        "t.Large",
        "x/google.protobuf.BytesValue",
        "x/google.protobuf.Any",
        "x/google.protobuf.Struct",
    ),
    *("x/google.protobuf.Timestamp", "x/google.protobuf.FieldMask", "mindspore.serving.proto.Instance"),
    *(
        "aGk=",
        "-_",
        "a",
        "!!!!",
        "RED",
        "GREEN",
        "1",
        "-1",
        "1e3",
        "1.5",
        "true",
        "false",
        "NaN",
        "Infinity",
        "-Infinity",
    ),
    *(
        "1.5s",
        "-315576000001s",
        "1972-01-01T10:00:20.021-05:00",
        "9999-12-31T23:59:59.999999999Z",
        "0001-01-01T00:00:00Z",
    ),
    *("oneInt32,inner.left", "a..b", "a_b", "\ud83d", "\udc00", "\0", ""),
)
"""What means something in one place or another."""


@functools.cache
def descriptors() -> Any:
    """A pool with the message t.All, which has a field of every kind, and those of protobuf's own that have forms of
    their own in JSON."""
    from google.protobuf import (
        any_pb2,
        descriptor_pb2,
        descriptor_pool,
        duration_pb2,
        field_mask_pb2,
        struct_pb2,
        timestamp_pb2,
        wrappers_pb2,
    )

    pool = descriptor_pool.DescriptorPool()
    file = descriptor_pb2.FileDescriptorProto(name="all.proto", package="t", syntax="proto3")
    own = (any_pb2, duration_pb2, field_mask_pb2, struct_pb2, timestamp_pb2, wrappers_pb2)
    for module in own:
        pool.AddSerializedFile(module.DESCRIPTOR.serialized_pb)
        file.dependency.append(module.DESCRIPTOR.name)
    file.enum_type.add(name="Colour").value.add(name="RED", number=0)
    file.enum_type[0].value.add(name="GREEN", number=1)
    message = file.message_type.add(name="All")
    message.oneof_decl.add(name="choice")
    kinds = descriptor_pb2.FieldDescriptorProto

    def add(name: str, kind: int, of: str = "", label: int = kinds.LABEL_OPTIONAL) -> Any:
        return message.field.add(name=name, number=len(message.field) + 1, type=kind, type_name=of or None, label=label)

    for kind in range(kinds.TYPE_DOUBLE, kinds.TYPE_SINT64 + 1):
        if kind in (kinds.TYPE_GROUP, kinds.TYPE_MESSAGE):
            continue
        of = ".t.Colour" if kind == kinds.TYPE_ENUM else ""
        name = kinds.Type.Name(kind).removeprefix("TYPE_").lower()
        add(f"one_{name}", kind, of)
        add(f"many_{name}", kind, of, kinds.LABEL_REPEATED)
    for module in own:
        for own_name in module.DESCRIPTOR.message_types_by_name:
            add(f"own_{own_name.lower()}", kinds.TYPE_MESSAGE, f".google.protobuf.{own_name}")
    add("inner", kinds.TYPE_MESSAGE, ".t.All")
    add("inners", kinds.TYPE_MESSAGE, ".t.All", kinds.LABEL_REPEATED)
    add("left", kinds.TYPE_BYTES).oneof_index = 0
    add("right", kinds.TYPE_INT32).oneof_index = 0
    for key in (kinds.TYPE_STRING, kinds.TYPE_BOOL, kinds.TYPE_INT64):
        for value, of in ((kinds.TYPE_BYTES, ""), (kinds.TYPE_MESSAGE, ".t.All")):
            entry = message.nested_type.add(name=f"Map{key}{value}Entry")
            entry.options.map_entry = True
            entry.field.add(name="key", number=1, type=key, label=kinds.LABEL_OPTIONAL)
            entry.field.add(name="value", number=2, type=value, type_name=of or None, label=kinds.LABEL_OPTIONAL)
            add(f"map{key}{value}", kinds.TYPE_MESSAGE, f".t.All.{entry.name}", kinds.LABEL_REPEATED)
    pool.AddSerializedFile(file.SerializeToString())
    return pool


@functools.cache
def classifier_types() -> Any:
    """What a servable takes that has registered t.All, and one whose files are too large to be known."""
    from mindserve.rest.context import ServedClassifier
    from mindserve.rest.seldon import _Taken

    known = ServedClassifier(("t.All",), (descriptors().FindFileByName("all.proto").serialized_pb,))
    too_large = ServedClassifier(("t.Large",), ())
    return _Taken({known: descriptors(), too_large: descriptors()})


def run(data: bytes) -> None:
    """One body.

    Raises:
        AssertionError: it was not answered as it has to be; any other error is a finding, too.
    """
    from mindserve.rest.message_json import parse_json

    how = data[0] if data else 0
    body = data[1:]
    value = value_of(bytearray(reversed(body)), 0) if how & 2 else None
    if how & 1:
        classification(json.dumps({"data": value, "meta": {"puid": "p1"}}).encode() if how & 2 else body)
    elif how & 2:
        message(lambda: value)
    else:
        message(lambda: parse_json(body))


def value_of(data: bytearray, depth: int) -> Any:
    """A value, of as many bytes from the end of `data` as it takes; an object or a list ends where they do."""
    byte = data.pop() if data else 7
    kind, more = byte % 8, byte // 8
    if kind < 2 and depth < DEEPEST:
        members = {}
        while data and len(members) < more:
            name = names()[data.pop()]
            members[name] = value_of(data, depth + 1)
        return members
    if kind == 2 and depth < DEEPEST:
        return [value_of(data, depth + 1) for _ in range(more) if data]
    if kind == 3:
        number = int.from_bytes(take(data, more % 9 + 1), "little", signed=True)
        return number if more < 16 else str(number)
    if kind == 4:
        number = struct.unpack("<d", take(data, 8).ljust(8, b"\0"))[0]
        return number if math.isfinite(number) else str(number)
    if kind == 5:
        return WORDS[data.pop() % len(WORDS)] if data else WORDS[0]
    if kind == 6:
        return take(data, more).decode("latin-1")
    return (None, True, False)[more % 3]


def take(data: bytearray, count: int) -> bytes:
    found = bytes(data[: -count - 1 : -1])
    del data[len(data) - len(found) :]
    return found


@functools.cache
def names() -> Sequence[str]:
    """What a byte stands for as a key: mostly a field of t.All."""
    fields = descriptors().FindMessageTypeByName("t.All").fields
    known = [name for field in fields for name in (field.name, field.camelcase_name)]
    return [*known, *(WORDS[byte % len(WORDS)] for byte in range(len(known), 256))]


def message(value: Callable[[], Any]) -> None:
    from google.protobuf import json_format, message_factory

    from mindserve.rest.message_json import fill_message

    pool = descriptors()
    kind = message_factory.GetMessageClass(pool.FindMessageTypeByName("t.All"))
    try:
        taken = fill_message(kind(), value(), pool)
    except ValueError as error:
        assert 0 < len(str(error)) <= LONGEST_ERROR, f"an error of {len(str(error))} characters"
        return
    # What is taken has a form in JSON again: a service that sends it back does no more than that.
    json.dumps(json_format.MessageToDict(kind.FromString(taken), descriptor_pool=pool))


def classification(body: bytes) -> None:
    from mindserve.proto.seldon import ClassificationRequest
    from mindserve.rest.http import HttpError
    from mindserve.rest.seldon import encode_body

    try:
        taken = encode_body(body, classifier_types())
    except HttpError as error:
        assert error.status == 400, f"status {error.status}"
        assert 0 < len(str(error)) <= LONGEST_ERROR, f"an error of {len(str(error))} characters"
        return
    assert ClassificationRequest.FromString(taken).data.type_url.startswith("type.googleapis.com/")


def main() -> None:
    """Let atheris look for more."""
    import atheris

    run(b"\0{}")
    run(b"\1{}")
    # By import hooks, as atheris would, an editable install can't be instrumented.
    names = ("mindserve.rest.message_json", "mindserve.rest.seldon", "google.protobuf.json_format")
    for each in gc.get_objects():
        if isinstance(each, types.FunctionType) and each.__module__ in names:
            atheris.instrument_func(each)
    atheris.Setup(sys.argv, run)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
