"""Writes python/mindserve/proto/descriptor.py from the .proto files here; run it after a change of one.

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
FILES = (
    "ms_service.proto",
    "ray_serve.proto",
    "google/protobuf/any.proto",
    "seldon.proto",
    "stream_service.proto",
    "grpc/health/v1/health.proto",
    "grpc/reflection/v1/reflection.proto",
    "grpc/reflection/v1alpha/reflection.proto",
)


def file_descriptor_set() -> bytes:
    """The files as a serialized FileDescriptorSet, each in the same form as protoc's own Python stubs hold it."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "set"
        includes = [f"-I{PROTOS}", f"-I{importlib.resources.files('grpc_tools') / '_proto'}"]
        if protoc.main(["protoc", *includes, f"--descriptor_set_out={out}", *FILES]) != 0:
            raise SystemExit("protoc refused the files")
        files = descriptor_pb2.FileDescriptorSet.FromString(out.read_bytes())
    for file in files.file:
        for message in _messages(file.message_type):
            for field in message.field:
                field.ClearField("json_name")
    return files.SerializeToString(deterministic=True)


def _messages(messages):
    for message in messages:
        yield message
        yield from _messages(message.nested_type)


def module_text(descriptors: bytes) -> str:
    """The Python module that holds `descriptors`."""
    lines = [f"    {descriptors[at : at + 40]!r}" for at in range(0, len(descriptors), 40)]
    return (
        '"""Written by protos/generate.py from the files in protos/: do not edit."""\n\n'
        "# ruff: noqa\n"
        "# fmt: off\n"
        "FILE_DESCRIPTOR_SET = (\n" + "\n".join(lines) + "\n)\n"
    )


if __name__ == "__main__":
    TARGET.write_text(module_text(file_descriptor_set()))
