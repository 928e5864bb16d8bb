"""Writes python/mindserve/proto/descriptor.py from ms_service.proto; run it after a change there.

Needs grpcio-tools. A test compares the result with the file that is committed.
"""

from __future__ import annotations

import importlib.resources
import tempfile
from pathlib import Path

from google.protobuf import descriptor_pb2
from grpc_tools import protoc

PROTOS = Path(__file__).resolve().parent
TARGET = PROTOS.parent / "python" / "mindserve" / "proto" / "descriptor.py"


def file_descriptor() -> bytes:
    """ms_service.proto as a serialized FileDescriptorProto, in the same form as protoc's own Python stubs hold it."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "set"
        includes = [f"-I{PROTOS}", f"-I{importlib.resources.files('grpc_tools') / '_proto'}"]
        if protoc.main(["protoc", *includes, f"--descriptor_set_out={out}", "ms_service.proto"]) != 0:
            raise SystemExit("protoc refused ms_service.proto")
        files = descriptor_pb2.FileDescriptorSet.FromString(out.read_bytes())
    descriptor = files.file[0]
    for message in [descriptor, *_messages(descriptor.message_type)]:
        for field in getattr(message, "field", ()):
            field.ClearField("json_name")
    return descriptor.SerializeToString(deterministic=True)


def _messages(messages):
    for message in messages:
        yield message
        yield from _messages(message.nested_type)


def module_text(descriptor: bytes) -> str:
    """The Python module that holds `descriptor`."""
    lines = [f"    {descriptor[at : at + 40]!r}" for at in range(0, len(descriptor), 40)]
    return (
        '"""Written by protos/generate.py from protos/ms_service.proto: do not edit."""\n\n'
        "# ruff: noqa\n"
        "# fmt: off\n"
        "FILE_DESCRIPTOR = (\n" + "\n".join(lines) + "\n)\n"
    )


if __name__ == "__main__":
    TARGET.write_text(module_text(file_descriptor()))
