"""Server reflection, as clients that have no .proto files use it."""

import pathlib
from collections.abc import Iterator
from typing import Any

import grpc
import pytest
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

from conftest import ECHO_SERVABLE
from e2e_support import Served, serving, status_of
from mindserve import native
from mindserve.proto.descriptor import FILE_DESCRIPTOR_SET
from mindserve.proto.pool import POOL, message_class
from mindserve.server import services

VERSIONS = ("v1", "v1alpha")
BUILT_IN = sorted(services.BUILT_IN)


class Asked:
    """A reflection stream of one version."""

    def __init__(self, channel: grpc.Channel, version: str) -> None:
        self.package = f"grpc.reflection.{version}"
        self._ask = channel.stream_stream(
            f"/{self.package}.ServerReflection/ServerReflectionInfo",
            request_serializer=message_class(f"{self.package}.ServerReflectionRequest").SerializeToString,
            response_deserializer=message_class(f"{self.package}.ServerReflectionResponse").FromString,
        )

    def __call__(self, *requests: dict[str, Any]) -> list[Any]:
        """The responses to the requests, asked on one stream."""
        messages = [message_class(f"{self.package}.ServerReflectionRequest")(**request) for request in requests]
        responses = list(self._ask(iter(messages), timeout=60))
        assert [response.original_request for response in responses] == messages
        return responses

    def files(self, **request: Any) -> list[str]:
        """The names of the files that a request is answered with."""
        (response,) = self(request)
        assert response.WhichOneof("message_response") == "file_descriptor_response", response
        files = response.file_descriptor_response.file_descriptor_proto
        return [descriptor_pb2.FileDescriptorProto.FromString(file).name for file in files]

    def error(self, **request: Any) -> tuple[int, str]:
        (response,) = self(request)
        return response.error_response.error_code, response.error_response.error_message


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with serving(tmp_path_factory.mktemp("reflection"), "echo", ECHO_SERVABLE) as server:
        yield server


@pytest.fixture
def channel(served: Served) -> Iterator[grpc.Channel]:
    with grpc.insecure_channel(served.address) as channel:
        yield channel


def listed(channel: grpc.Channel, version: str) -> list[str]:
    (response,) = Asked(channel, version)({"list_services": ""})
    return [service.name for service in response.list_services_response.service]


@pytest.mark.parametrize("version", VERSIONS)
def test_every_service_is_listed(channel: grpc.Channel, version: str) -> None:
    assert listed(channel, version) == BUILT_IN


def test_a_client_of_grpcio_finds_every_built_in_service(channel: grpc.Channel) -> None:
    database = ProtoReflectionDescriptorDatabase(channel)
    assert list(database.get_services()) == BUILT_IN
    pool = descriptor_pool.DescriptorPool(database)
    for name in BUILT_IN:
        described = descriptor_pb2.ServiceDescriptorProto()
        pool.FindServiceByName(name).CopyToProto(described)
        expected = descriptor_pb2.ServiceDescriptorProto()
        POOL.FindServiceByName(name).CopyToProto(expected)
        assert described == expected


# As grpcurl and its like do it.
def test_what_reflection_tells_is_enough_to_call(channel: grpc.Channel) -> None:
    pool = descriptor_pool.DescriptorPool(ProtoReflectionDescriptorDatabase(channel))
    method = pool.FindServiceByName("grpc.health.v1.Health").FindMethodByName("Check")
    request, response = (message_factory.GetMessageClass(each) for each in (method.input_type, method.output_type))
    check = channel.unary_unary(
        "/grpc.health.v1.Health/Check",
        request_serializer=request.SerializeToString,
        response_deserializer=response.FromString,
    )
    assert check(request(service="echo"), timeout=60).status == 1


@pytest.mark.parametrize("version", VERSIONS)
def test_files_and_symbols(channel: grpc.Channel, version: str) -> None:
    ask = Asked(channel, version)
    assert ask.files(file_by_filename="ms_service.proto") == ["ms_service.proto"]
    for symbol in (
        "mindspore.serving.proto.MSService",
        "mindspore.serving.proto.MSService.Predict",
        "mindspore.serving.proto.Instance.ItemsEntry",
        "mindspore.serving.proto.MS_INT8",
    ):
        assert ask.files(file_containing_symbol=symbol) == ["ms_service.proto"]
    assert ask.files(file_containing_symbol="ray.serve.HealthzRequest") == ["ray_serve.proto"]


@pytest.mark.parametrize("version", VERSIONS)
def test_what_is_not_there(channel: grpc.Channel, version: str) -> None:
    ask = Asked(channel, version)
    assert ask.error(file_by_filename="nowhere.proto") == (5, "no file 'nowhere.proto' is known")
    assert ask.error(file_containing_symbol="no.Such") == (5, "no symbol 'no.Such' is known")
    assert ask.error(all_extension_numbers_of_type="no.Such") == (5, "no message 'no.Such' is known")
    extension = {"containing_type": "ray.serve.HealthzRequest", "extension_number": 7}
    code, text = ask.error(file_containing_extension=extension)
    assert (code, text) == (5, "no extension 7 of a message 'ray.serve.HealthzRequest' is known")
    assert ask.error()[0] == 3
    # One request's error is not the stream's.
    missing, there = ask({"file_by_filename": "nowhere.proto"}, {"file_by_filename": "ms_service.proto"})
    assert missing.HasField("error_response")
    assert there.HasField("file_descriptor_response")


def test_bytes_that_are_no_request_end_the_stream(channel: grpc.Channel) -> None:
    raw = channel.stream_stream("/grpc.reflection.v1.ServerReflection/ServerReflectionInfo")
    code, details = status_of(lambda: list(raw(iter([b"\x1a\x7f"]), timeout=60)))
    assert code is grpc.StatusCode.INVALID_ARGUMENT
    assert "ServerReflectionRequest" in details


# --- The users' services: a gateway of its own, since reflection needs nobody who answers them. ---

USERS = {
    "fruit/base.proto": """
syntax = "proto2";
package fruit;
import "google/protobuf/timestamp.proto";
message Base { optional google.protobuf.Timestamp at = 1; extensions 100 to 200; }
""",
    "fruit/stand.proto": """
syntax = "proto2";
package fruit;
import "fruit/base.proto";
message Order { optional Base base = 1; }
extend Base { optional int32 amount = 111; }
service FruitStand { rpc Buy(Order) returns (stream Order); }
""",
    # A name that a built-in file has.
    "ms_service.proto": """
syntax = "proto3";
package mine;
message Mine {}
service MyService { rpc Do(Mine) returns (Mine); }
""",
}


def compiled(folder: pathlib.Path, files: dict[str, str]) -> bytes:
    """A FileDescriptorSet of the files and all that they import."""
    protoc = pytest.importorskip("grpc_tools.protoc")
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text, encoding="utf-8")
    out = folder / "set"
    well_known = pathlib.Path(protoc.__file__).parent / "_proto"
    command = ["protoc", f"-I{folder}", f"-I{well_known}", f"--descriptor_set_out={out}", "--include_imports", *files]
    assert protoc.main(command) == 0
    return out.read_bytes()


@pytest.fixture
def gateway() -> Iterator[Any]:
    gateway = native.load().Gateway(io_threads=2, descriptors=FILE_DESCRIPTOR_SET)
    yield gateway
    gateway.stop_listening(0)


@pytest.fixture
def gateway_channel(gateway: Any) -> Iterator[grpc.Channel]:
    (address,) = gateway.listen([{"address": "127.0.0.1:0"}], {})
    with grpc.insecure_channel(address) as channel:
        yield channel


USERS_SERVICES = [
    ("fruit.FruitStand", [("Buy", False, True)]),
    ("mine.MyService", [("Do", False, False)]),
]


def test_users_services_are_described_beside_the_built_in_ones(
    gateway: Any, gateway_channel: grpc.Channel, tmp_path: pathlib.Path
) -> None:
    gateway.set_services(USERS_SERVICES, compiled(tmp_path, USERS))
    database = ProtoReflectionDescriptorDatabase(gateway_channel)
    assert sorted(database.get_services()) == sorted([*BUILT_IN, "fruit.FruitStand", "mine.MyService"])
    pool = descriptor_pool.DescriptorPool(database)
    buy = pool.FindServiceByName("fruit.FruitStand").FindMethodByName("Buy")
    assert (buy.client_streaming, buy.server_streaming) == (False, True)
    at = buy.input_type.fields_by_name["base"].message_type.fields_by_name["at"]
    assert at.message_type.full_name == "google.protobuf.Timestamp"
    # Both files of one name.
    assert pool.FindServiceByName("mine.MyService").file.name == "ms_service.proto"
    predict = pool.FindServiceByName("mindspore.serving.proto.MSService").FindMethodByName("Predict")
    assert predict.input_type.fields_by_name["instances"].number == 2


@pytest.mark.parametrize("version", VERSIONS)
def test_imports_and_extensions_of_users_files(
    gateway: Any, gateway_channel: grpc.Channel, tmp_path: pathlib.Path, version: str
) -> None:
    gateway.set_services(USERS_SERVICES, compiled(tmp_path, USERS))
    ask = Asked(gateway_channel, version)
    closure = ["fruit/stand.proto", "fruit/base.proto", "google/protobuf/timestamp.proto"]
    assert ask.files(file_containing_symbol="fruit.FruitStand") == closure
    assert ask.files(file_by_filename="google/protobuf/timestamp.proto") == closure[2:]
    assert ask.files(file_containing_extension={"containing_type": "fruit.Base", "extension_number": 111}) == closure
    (response,) = ask({"all_extension_numbers_of_type": "fruit.Base"})
    assert list(response.all_extension_numbers_response.extension_number) == [111]
    assert response.all_extension_numbers_response.base_type_name == "fruit.Base"


def test_servables_may_have_files_of_the_same_names(
    gateway: Any, gateway_channel: grpc.Channel, tmp_path: pathlib.Path
) -> None:
    sets = b""
    for package in ("one", "two"):
        files = {
            "common.proto": f'syntax = "proto3"; package {package}; message M {{}}',
            "service.proto": f'syntax = "proto3"; package {package}; import "common.proto"; '
            "service S { rpc Do(M) returns (M); }",
        }
        sets += compiled(tmp_path / package, files)
    gateway.set_services([(f"{package}.S", [("Do", False, False)]) for package in ("one", "two")], sets)
    pool = descriptor_pool.DescriptorPool(ProtoReflectionDescriptorDatabase(gateway_channel))
    for package in ("one", "two"):
        do = pool.FindServiceByName(f"{package}.S").FindMethodByName("Do")
        assert do.input_type.full_name == f"{package}.M"


def test_services_can_be_set_again(gateway: Any, gateway_channel: grpc.Channel, tmp_path: pathlib.Path) -> None:
    gateway.set_services(USERS_SERVICES, compiled(tmp_path, USERS))
    gateway.set_services([], b"")
    assert listed(gateway_channel, "v1") == BUILT_IN
    assert Asked(gateway_channel, "v1").error(file_containing_symbol="fruit.Base")[0] == 5


@pytest.mark.parametrize(
    ("given", "descriptors", "text"),
    [
        ([("no package.Service", [])], b"", "'no package.Service' has no name that protobuf allows"),
        ([("grpc.health.v1.Health", [])], b"", "'grpc.health.v1.Health' is built in"),
        ([("a.A", []), ("a.A", [])], b"", "'a.A' is given twice"),
        ([("a.A", [("B", False, False), ("B", True, False)])], b"", "has the method 'B' twice"),
        ([], b"\x0a\x7f", "no serialized google.protobuf.FileDescriptorSet: file 1"),
    ],
)
def test_services_that_can_not_be_are_refused(gateway: Any, given: Any, descriptors: bytes, text: str) -> None:
    with pytest.raises(native.load().NativeError) as error:
        gateway.set_services(given, descriptors)
    assert error.value.code == "INVALID_ARGUMENT"
    assert text in str(error.value)
