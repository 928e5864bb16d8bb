"""What tests of the OpenAPI document serve: a model, functions, and a service with all sorts of fields."""

from __future__ import annotations

import contextlib
import os
import pathlib
import re
import subprocess
import sys
from collections.abc import Iterator

from conftest import ADD_SERVABLE, add_model
from e2e_support import PREAMBLE, write_servable
from rest_support import Rest, serving_rest
from stubs import compile_protos

SORTS = """
package sorts.v1;
import "google/protobuf/any.proto";
import "google/protobuf/duration.proto";
import "google/protobuf/empty.proto";
import "google/protobuf/field_mask.proto";
import "google/protobuf/struct.proto";
import "google/protobuf/timestamp.proto";
import "google/protobuf/wrappers.proto";

enum Color { UNKNOWN = 0; RED = 1; GREEN = 2; }

message Scalars {
  double a_double = 1;
  float a_float = 2;
  int32 an_int32 = 3;
  int64 an_int64 = 4;
  uint32 a_uint32 = 5;
  uint64 a_uint64 = 6;
  sint64 a_sint64 = 7;
  fixed32 a_fixed32 = 8;
  sfixed32 an_sfixed32 = 9;
  bool a_bool = 10;
  string a_string = 11;
  bytes some_bytes = 12;
  Color color = 13;
  optional int32 maybe = 14;
  string renamed = 15 [json_name = "otherName"];
}

message Known {
  google.protobuf.Any any = 1;
  google.protobuf.Duration duration = 2;
  google.protobuf.Empty empty = 3;
  google.protobuf.FieldMask mask = 4;
  google.protobuf.Struct struct = 5;
  google.protobuf.Value value = 6;
  google.protobuf.ListValue list = 7;
  google.protobuf.NullValue nothing = 8;
  google.protobuf.Timestamp at = 9;
  google.protobuf.Int64Value int64 = 10;
  google.protobuf.BytesValue bytes = 11;
  google.protobuf.BoolValue bool = 12;
}

message Sorts {
  message Inner { string text = 1; Sorts again = 2; }
  Scalars scalars = 1;
  Known known = 2;
  repeated Inner inner = 3;
  repeated Color colors = 4;
  map<string, double> by_name = 5;
  map<int32, Inner> by_number = 6;
  map<bool, Color> by_bool = 7;
  map<uint64, bytes> by_uint64 = 8;
  oneof choice { string text = 9; int32 number = 10; Inner one = 11; }
}

service SortService {
  rpc Echo(Sorts) returns (Sorts);
  rpc Scalar(Scalars) returns (Scalars);
  rpc Tell(google.protobuf.StringValue) returns (google.protobuf.Value);
  rpc Down(Scalars) returns (stream Scalars);
  rpc Up(stream Scalars) returns (Scalars);
  rpc Both(stream Scalars) returns (stream Scalars);
}
"""
ADD_SORTS = "sorts_pb2_grpc.add_SortServiceServicer_to_server"

SORTS_CONFIG = (
    PREAMBLE
    + """
from google.protobuf import json_format, struct_pb2

from sorts_pb2 import Scalars


@method()
def same(x):
    return x


@method()
def size(text, data):
    return len(text) if isinstance(text, (str, bytes)) else text.nbytes


def repeat(x):
    for _ in range(3):
        yield x


@register.register_method(output_names="y", streaming=True)
def thrice(x):
    return register.add_stage(repeat, x, outputs_count=1)


def score(number, count):
    return np.array([number, count], np.float64)


@register.register_method(output_names=["probabilities"])
def scores(a_double, an_int32):
    return register.add_stage(score, a_double, an_int32, outputs_count=1)


register.classifier(method="scores", classes=["number", "count"])
register.data_handler(Scalars)


@register.grpc_method
def Echo(request):
    return request


@register.grpc_method
def Scalar(request):
    return request


@register.grpc_method
def Tell(request):
    return struct_pb2.Value(string_value=request.value)


@register.grpc_method
def Down(request):
    for number in range(3):
        yield Scalars(a_string=request.a_string, an_int64=number)


@register.grpc_method
def Up(requests):
    return Scalars(a_uint32=len(list(requests)))


@register.grpc_method
def Both(requests):
    yield from requests
"""
)


# Schemathesis knows no NDJSON: a message on a line in, the last line out.
HOOKS = """
import json
import schemathesis


@schemathesis.serializer("application/x-ndjson")
def write(context, value):
    return json.dumps(value).encode() + b"\\n"


@schemathesis.deserializer("application/x-ndjson")
def read(context, response):
    return json.loads(response.content.splitlines()[-1]) if response.content else {}
"""
# It tries timeouts too short for any answer.
SETTINGS = '[checks.not_a_server_error]\nexpected-statuses = ["2xx", "3xx", "4xx", 504]\n'
CHECKS = "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance"


@contextlib.contextmanager
def serving_sorts(folder: pathlib.Path, listen: str = "'127.0.0.1:0'", keys: str = "") -> Iterator[Rest]:
    """A server with "add", a model; "sorts", functions that take anything; and the service sorts.v1.SortService.

    With a keys file it asks its clients for tokens.
    """
    write_servable(folder / "servables", "add", ADD_SERVABLE, {"add.onnx": add_model()})
    write_servable(folder / "servables", "sorts", SORTS_CONFIG)
    compile_protos(folder / "servables" / "sorts", sorts=SORTS)
    auth = f", auth=server.AuthConfig({keys!r})" if keys else ""
    listen += auth
    grpc = f"server.start_grpc_server('127.0.0.1:0', grpc_servicer_functions=['{ADD_SORTS}']{auth})\n"
    with serving_rest(folder, "add", "sorts", before=grpc, listen=listen) as rest:
        yield rest


def schemathesis(rest: Rest, folder: pathlib.Path, *options: str, checks: str = "") -> int:
    """Runs the tester against the server's document, from `folder`; it has to find nothing.

    Args:
        rest: the server.
        folder: an empty directory.
        options: more of it.
        checks: more of them, each behind a comma.

    Returns:
        How many operations it has tested.
    """
    (folder / "hooks.py").write_text(HOOKS, encoding="utf-8")
    (folder / "schemathesis.toml").write_text(SETTINGS, encoding="utf-8")
    program = pathlib.Path(sys.executable).parent / "schemathesis"
    limits = ["--phases", "examples,coverage,fuzzing", "--max-examples", "25", "--no-shrink"]
    fixed = ["--seed", "20", "--generation-database", "none", "--request-timeout", "60", "--no-color"]
    done = subprocess.run(
        [program, "run", f"{rest.url}/openapi.json", "--checks", CHECKS + checks, *limits, *fixed, *options],
        cwd=folder,
        env={**os.environ, "SCHEMATHESIS_HOOKS": "hooks", "PYTHONPATH": str(folder)},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=900,  # a machine with other work takes minutes
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr + rest.process.errors()[-5000:]
    (operations,) = re.findall(r"Tested: (\d+)", done.stdout)
    return int(operations)
