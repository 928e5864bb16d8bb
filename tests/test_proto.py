"""The messages, and that they get along with stubs that others generate from the published file."""

import ast
import importlib
import runpy
import sys
from pathlib import Path

import numpy as np
import pytest
from google.protobuf import descriptor_pb2
from google.protobuf.descriptor import FieldDescriptor
from grpc_reflection.v1alpha import reflection_pb2

from mindserve.client import dtypes
from mindserve.client.decoding import decode_reply
from mindserve.client.encoding import encode_request, encode_spec
from mindserve.proto import PREDICT, messages, ray_serve
from mindserve.proto.descriptor import FILE_DESCRIPTOR_SET
from mindserve.proto.pool import POOL

ROOT = Path(__file__).resolve().parent.parent
MESSAGES = ("ErrorMsg", "Instance", "PredictReply", "PredictRequest", "ServableSpec", "Tensor", "TensorShape")


RAY_MESSAGES = (
    *("HealthzRequest", "HealthzResponse", "ListApplicationsRequest", "ListApplicationsResponse"),
    *("PredictRequest", "PredictResponse"),
)


def test_the_descriptors_are_those_of_the_published_files():
    pytest.importorskip("grpc_tools")
    generator = runpy.run_path(str(ROOT / "protos" / "generate.py"))
    written = descriptor_pb2.FileDescriptorSet.FromString(FILE_DESCRIPTOR_SET)
    assert written == descriptor_pb2.FileDescriptorSet.FromString(generator["file_descriptor_set"]())
    published = {str(path.relative_to(ROOT / "protos")) for path in (ROOT / "protos").rglob("*.proto")}
    # What they import of protobuf's own files has to be there for who asks for them by reflection.
    assert {file.name for file in written.file} == published | {"google/protobuf/any.proto"}


@pytest.mark.parametrize("version", ["v1", "v1alpha"])
def test_reflection_is_that_of_grpc(version):
    published = descriptor_pb2.FileDescriptorProto()
    reflection_pb2.DESCRIPTOR.CopyToProto(published)
    own = descriptor_pb2.FileDescriptorProto()
    POOL.FindFileByName(f"grpc/reflection/{version}/reflection.proto").CopyToProto(own)
    text = str(own.message_type) + str(own.service)
    assert text.replace(f"grpc.reflection.{version}.", "grpc.reflection.v1alpha.") == (
        str(published.message_type) + str(published.service)
    )


def test_the_field_numbers_are_those_of_ray_serve():
    numbers = {
        name: {field.name: field.number for field in getattr(ray_serve, name).DESCRIPTOR.fields}
        for name in RAY_MESSAGES
    }
    assert numbers == {
        "PredictRequest": {"input": 2},
        "PredictResponse": {"prediction": 1},
        "ListApplicationsRequest": {},
        "ListApplicationsResponse": {"application_names": 1},
        "HealthzRequest": {},
        "HealthzResponse": {"message": 1},
    }
    methods = {
        service.name: [method.name for method in service.methods]
        for service in POOL.FindFileByName("ray_serve.proto").services_by_name.values()
    }
    assert methods == {"PredictAPIsService": ["Predict"], "RayServeAPIService": ["ListApplications", "Healthz"]}


def test_the_field_numbers_are_those_of_mindspore_serving():
    numbers = {
        name: {field.name: field.number for field in getattr(messages, name).DESCRIPTOR.fields} for name in MESSAGES
    }
    assert numbers == {
        "PredictRequest": {"servable_spec": 1, "instances": 2},
        "PredictReply": {"servable_spec": 1, "instances": 3, "error_msg": 4},
        "ErrorMsg": {"error_code": 1, "error_msg": 2},
        "ServableSpec": {"name": 1, "method_name": 2, "version_number": 3},
        "Instance": {"items": 1},
        "Tensor": {"shape": 1, "dtype": 2, "data": 3, "bytes_val": 4},
        "TensorShape": {"dims": 1},
    }
    assert PREDICT == "/mindspore.serving.proto.MSService/Predict"


def test_the_clients_type_numbers_are_those_of_the_enum():
    names = {f"MS_{np.dtype(kind).name.upper()}": number for kind, number in dtypes.NUMERIC.items()}
    names |= {"MS_UNKNOWN": 0, "MS_STRING": dtypes.MS_STRING, "MS_BYTES": dtypes.MS_BYTES}
    assert names == messages.DATA_TYPES


@pytest.mark.parametrize(
    ("module", "name"),
    [*((messages, name) for name in MESSAGES), *((ray_serve, name) for name in RAY_MESSAGES)],
    ids=lambda value: value if isinstance(value, str) else value.__name__.rpartition(".")[2],
)
def test_the_type_stub_has_the_fields_of_the_messages(module, name):
    tree = ast.parse(Path(module.__file__).with_suffix(".pyi").read_text())
    stub = next(node for node in tree.body if isinstance(node, ast.ClassDef) and node.name == name)
    settable = {node.target.id: ast.unparse(node.annotation) for node in stub.body if isinstance(node, ast.AnnAssign)}
    readable = {node.name for node in stub.body if isinstance(node, ast.FunctionDef) and node.name != "__init__"}
    types = {
        FieldDescriptor.TYPE_STRING: "str",
        FieldDescriptor.TYPE_BYTES: "bytes",
        FieldDescriptor.TYPE_UINT64: "int",
        FieldDescriptor.TYPE_INT64: "int",
        FieldDescriptor.TYPE_ENUM: "int",
    }
    scalars = {}
    others = set()
    for field in descriptor_pb2.DescriptorProto.FromString(_message_descriptor(getattr(module, name))).field:
        if field.type in types and field.label != field.LABEL_REPEATED:
            scalars[field.name] = types[field.type]
        else:
            others.add(field.name)
    assert (settable, readable) == (scalars, others)


def _message_descriptor(message) -> bytes:
    proto = descriptor_pb2.DescriptorProto()
    message.DESCRIPTOR.CopyToProto(proto)
    return proto.SerializeToString()


@pytest.mark.parametrize("file_name", ["ms_service", "predict_of_somebody"])
def test_a_generated_stub_lives_in_the_same_process_and_understands_the_client(file_name, tmp_path, monkeypatch):
    protoc = pytest.importorskip("grpc_tools.protoc")
    published = (ROOT / "protos" / "ms_service.proto").read_text()
    # A package of its own where the file name is another: one process can have only one such file by protobuf's rules.
    if file_name != "ms_service":
        published = published.replace("mindspore.serving.proto", "somebody.proto")
    (tmp_path / f"{file_name}.proto").write_text(published)
    assert protoc.main(["protoc", f"-I{tmp_path}", f"--python_out={tmp_path}", f"{file_name}.proto"]) == 0
    monkeypatch.syspath_prepend(tmp_path)
    stub = importlib.import_module(f"{file_name}_pb2")
    monkeypatch.delitem(sys.modules, f"{file_name}_pb2")

    value = np.arange(6, dtype=np.int16).reshape(2, 3)
    data = encode_request(encode_spec("add", "add_common", 3), [{"x": value, "text": "é"}])
    request = stub.PredictRequest.FromString(data)
    assert request.servable_spec == stub.ServableSpec(name="add", method_name="add_common", version_number=3)
    x = request.instances[0].items["x"]
    assert (list(x.shape.dims), x.dtype, x.data) == ([2, 3], stub.MS_INT16, value.tobytes())
    assert list(request.instances[0].items["text"].bytes_val) == ["é".encode()]

    reply = stub.PredictReply(instances=request.instances)
    (result,) = decode_reply(reply.SerializeToString(), 1)
    np.testing.assert_array_equal(result["x"], value)
    assert result["text"] == "é"
