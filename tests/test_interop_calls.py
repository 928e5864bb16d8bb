"""Clients of several makes call MindServe's own services, compress, and meet or show certificates that are wrong.

Each is told to make calls of bytes (interop_support.py), so that the messages are made and read here, and what passes
between them can be recorded. Calls of a user's own service by generated stubs are in test_interop.py.
"""

from __future__ import annotations

import contextlib
import gzip
import pathlib
import re
import shutil
import zlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import grpc
import numpy as np
import pytest
from google.protobuf import any_pb2, descriptor_pb2

from certificates import Authority
from e2e_support import request, server_process, tensor, until, varint, write_servable
from interop_support import HERE, LANGUAGES, Answer, Call, generate, make_calls
from mindserve.proto import CLASSIFY, PREDICT, PREDICT_STREAM, messages
from mindserve.proto.pool import message_class
from mindserve.proto.ray_serve import HealthzResponse
from mindserve.proto.seldon import ClassificationReply, ClassificationRequest
from mindserve.server import services
from recorder import recording
from wrong_certificates import Pair, issued, write_pair

Answers = dict[str, Answer]

ECHO = "/interop.Interop/Echo"
OK = grpc.StatusCode.OK.value[0]
CANCELLED = grpc.StatusCode.CANCELLED.value[0]
INVALID_ARGUMENT = grpc.StatusCode.INVALID_ARGUMENT.value[0]
DEADLINE_EXCEEDED = grpc.StatusCode.DEADLINE_EXCEEDED.value[0]
NOT_FOUND = grpc.StatusCode.NOT_FOUND.value[0]
UNIMPLEMENTED = grpc.StatusCode.UNIMPLEMENTED.value[0]
UNAVAILABLE = grpc.StatusCode.UNAVAILABLE.value[0]

INTEROP = """
from mindserve.server import register
from service import Interop

register.grpc_service(Interop)


def add(x1, x2):
    return x1 + x2


def count(n):
    for i in range(n.item()):
        yield f"item {i}"


def shares(x):
    return x / x.sum()


@register.register_method(output_names="y")
def total(x1, x2):
    return register.add_stage(add, x1, x2, outputs_count=1)


@register.register_method(output_names="word", streaming=True)
def words(n):
    return register.add_stage(count, n, outputs_count=1)


@register.register_method(output_names="probabilities")
def classify(x):
    return register.add_stage(shares, x, outputs_count=1)


register.classifier(method="classify", classes=["one", "two"])
"""
# Its instances wait for others to fill a batch, as long as they may.
PATIENT = """
from mindserve.server import register


def same(instances):
    return [x for (x,) in instances]


@register.register_method(output_names="x")
def wait(x):
    return register.add_stage(same, x, outputs_count=1, batch_size=64)
"""
START = """
from mindserve import server

server.start_servables(
    (
        server.ServableStartConfig({servables!r}, "interop"),
        server.ServableStartConfig({servables!r}, "patient", max_queue_delay_us=60_000_000),
    )
)
right, *wrong = {pairs!r}
tls = [
    server.SSLConfig(*right),
    server.SSLConfig(*right, {ca!r}, verify_client=True),
    *(server.SSLConfig(*pair) for pair in wrong),
]
listeners = [server.Listener("127.0.0.1:0"), *(server.Listener("127.0.0.1:0", each) for each in tls)]
functions = ["interop_pb2_grpc.add_InteropServicer_to_server"]
print(*server.start_grpc_server(listeners, grpc_servicer_functions=functions), flush=True)
"""


class Server:
    """One server with several listeners, and what its clients are given for TLS.

    Attributes:
        addresses: of the listeners: "plaintext", "tls", "mutual", and with certificates that are wrong "stranger", of
            another authority, and "elsewhere", of another name.
        files: by what a client shows, "nothing", "right" or "stranger": of the authority that it trusts, and its own.
    """

    def __init__(self, folder: pathlib.Path) -> None:
        self._folder = folder
        root, other = Authority("Root"), Authority("Other")
        (folder / "ca.crt").write_bytes(root.pem)
        self._ca = str(folder / "ca.crt")
        self._pairs = [
            self._write("server", issued(root, "localhost")),
            self._write("server of another authority", issued(other, "localhost")),
            self._write("server of another name", issued(root, "elsewhere.example")),
        ]
        self.files: dict[str, tuple[str, ...]] = {
            "nothing": (self._ca,),
            "right": (self._ca, *self._write("client", issued(root))),
            "stranger": (self._ca, *self._write("client of another authority", issued(other))),
        }
        self.addresses: dict[str, str] = {}

    def _write(self, name: str, pair: Pair) -> tuple[str, str]:
        folder = self._folder / name
        folder.mkdir()
        return write_pair(folder, pair)

    @contextlib.contextmanager
    def serving(self) -> Iterator[None]:
        self.generated = self._folder / "servables" / "interop"
        write_servable(self.generated.parent, "interop", INTEROP)
        write_servable(self.generated.parent, "patient", PATIENT)
        generate(self.generated)
        shutil.copy(HERE / "service.py", self.generated)
        script = START.format(servables=str(self.generated.parent), pairs=self._pairs, ca=self._ca)
        with server_process(self._folder / "run", script) as process:
            names = ("plaintext", "tls", "mutual", "stranger", "elsewhere")
            # By name, which is what certificates are for.
            addresses = [address.replace("127.0.0.1", "localhost") for address in process.line().split()]
            self.addresses = dict(zip(names, addresses, strict=True))
            self.log = process.errors
            yield

    def make(self, language: str, calls: Mapping[str, Call], listener: str = "plaintext", shows: str = "") -> Answers:
        """What comes of a client's calls."""
        files = self.files[shows] if shows else ()
        return make_calls(calls, language, self.generated, self.addresses[listener], *files)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = Server(tmp_path_factory.mktemp("server"))
    with server.serving():
        yield server


# -- the built-in services ---------------------------------------------------------------------------------------------

X1 = np.arange(6, dtype=np.float32).reshape(2, 3)
X2 = np.full((2, 3), 0.5, np.float32)
# Of 4 MiB each, as is the answer.
LARGE = np.arange(1 << 20, dtype=np.float32)


def predict(method: str, *instances: Mapping[str, Any], servable: str = "interop", **options: Any) -> Call:
    sent = request(servable, method, *instances).SerializeToString()
    return Call(options.pop("path", PREDICT), [sent], **options)


def health(method: str, service: str, **options: Any) -> Call:
    sent = message_class("grpc.health.v1.HealthCheckRequest")(service=service)
    return Call(f"/grpc.health.v1.Health/{method}", [sent.SerializeToString()], **options)


def reflection(version: str, *requests: dict[str, str]) -> Call:
    kind = message_class(f"grpc.reflection.{version}.ServerReflectionRequest")
    sent = [kind(**each).SerializeToString() for each in requests]
    return Call(f"/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo", sent, streams=True)


def classify(**inputs: Any) -> Call:
    data = any_pb2.Any()
    data.Pack(messages.Instance(items=inputs))
    sent = ClassificationRequest(meta={"puid": "interop-18"}, data=data)
    return Call(CLASSIFY, [sent.SerializeToString()])


# And what their clients show.
TRANSPORTS = {"plaintext": "", "tls": "nothing", "mutual": "right"}
VERSIONS = ("v1", "v1alpha")
SYMBOLS = ("mindspore.serving.proto.MSService", "interop.Interop.Echo")
CALLS = {
    "predict": predict(
        *("total", {"x1": tensor(X1), "x2": tensor(X2)}, {"x1": tensor(X2), "x2": tensor(X2)}),
        metadata=[("request_id", "interop-17")],
    ),
    "unknown servable": predict("total", {"x1": tensor(X1)}, servable="nobody"),
    "unknown method": predict("nothing", {"x1": tensor(X1)}),
    "missing input": predict("total", {"x1": tensor(X1)}, {"x1": tensor(X1), "x2": tensor(X2)}),
    "large": predict("total", {"x1": tensor(LARGE), "x2": tensor(LARGE)}),
    "deadline": predict("wait", {"x": tensor(X1)}, servable="patient", timeout=0.5),
    "no request": Call(PREDICT, [b"\xff\xff"]),
    "no such method": Call(PREDICT.replace("Predict", "Nothing"), [b""]),
    "stream": predict("words", {"n": tensor(np.int64(1000))}, path=PREDICT_STREAM, streams=True),
    "stream of an unknown servable": predict("words", {}, servable="nobody", path=PREDICT_STREAM, streams=True),
    "stream that is cancelled": predict(
        "words", {"n": tensor(np.int64(1 << 40))}, path=PREDICT_STREAM, streams=True, take=3
    ),
    "classifier": classify(x=tensor(np.array([1, 3], np.float32))),
    "classifier without its input": classify(),
    "health of the server": health("Check", ""),
    "health of a servable": health("Check", "interop"),
    "health of a service": health("Check", "interop.Interop"),
    "health of nobody": health("Check", "nobody"),
    "watch": health("Watch", "interop", streams=True, take=1),
    "watch nobody": health("Watch", "nobody", streams=True, take=1),
    **{
        f"reflection {version}": reflection(
            version,
            {"list_services": ""},
            {"file_containing_symbol": "nobody.Nothing"},
            *({"file_containing_symbol": symbol} for symbol in SYMBOLS),
        )
        for version in VERSIONS
    },
    "ray serve": Call("/ray.serve.RayServeAPIService/Healthz", [b""]),
}


@pytest.fixture(scope="module", params=TRANSPORTS)
def transport(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module", params=LANGUAGES)
def answers(request: pytest.FixtureRequest, transport: str, server: Server) -> Answers:
    """What each make's client gets by each transport, on one connection where that is the library's way."""
    return server.make(request.param, CALLS, transport, TRANSPORTS[transport])


def replies(answer: Answer) -> list[Any]:
    """Those of Predict, whose status is OK."""
    assert (answer.code, answer.details) == (OK, "")
    return [messages.PredictReply.FromString(message) for message in answer.messages]


def array(sent: Any) -> Any:
    """That of a tensor of float32."""
    assert sent.dtype == messages.DATA_TYPES["MS_FLOAT32"]
    return np.frombuffer(sent.data, np.float32).reshape(sent.shape.dims)


def error_of(answer: Answer) -> tuple[int, str]:
    """That of the only reply, about the whole request."""
    (reply,) = replies(answer)
    (error,) = reply.error_msg
    assert not reply.instances
    return error.error_code, error.error_msg.decode()


def test_predict(answers: Answers) -> None:
    (reply,) = replies(answers["predict"])
    assert not reply.error_msg
    assert [array(each.items["y"]).tolist() for each in reply.instances] == [(X1 + X2).tolist(), (X2 + X2).tolist()]
    assert ("request_id", "interop-17") in answers["predict"].metadata


def test_errors_of_predict(answers: Answers) -> None:
    text = "Request Servable({}) method({}), {} is not available"
    assert error_of(answers["unknown servable"]) == (5, text.format("nobody", "total", "servable"))
    assert error_of(answers["unknown method"]) == (2, text.format("interop", "nothing", "method"))
    (reply,) = replies(answers["missing input"])
    assert [error.error_code for error in reply.error_msg] == [2, 0]
    assert reply.error_msg[0].error_msg.decode() == "Cannot find input x2 in instance input"
    assert [list(each.items) for each in reply.instances] == [[], ["y"]]


def test_large_messages(answers: Answers) -> None:
    (reply,) = replies(answers["large"])
    assert not reply.error_msg
    assert np.array_equal(array(reply.instances[0].items["y"]), LARGE * 2)


def test_calls_that_fail(answers: Answers) -> None:
    assert answers["deadline"].code == DEADLINE_EXCEEDED
    assert answers["no request"].code == INVALID_ARGUMENT
    assert answers["no such method"].code == UNIMPLEMENTED
    assert not any(answers[name].messages for name in ("deadline", "no request", "no such method"))


def test_streams(answers: Answers) -> None:
    def words(answer: Answer) -> list[str]:
        found = [messages.PredictReply.FromString(message) for message in answer.messages]
        return [reply.instances[0].items["word"].bytes_val[0].decode() for reply in found]

    assert answers["stream"].code == OK
    assert words(answers["stream"]) == [f"item {i}" for i in range(1000)]
    assert error_of(answers["stream of an unknown servable"])[0] == 5
    assert answers["stream that is cancelled"].code == CANCELLED
    assert words(answers["stream that is cancelled"])[:3] == ["item 0", "item 1", "item 2"]


def test_the_classifier(answers: Answers) -> None:
    assert answers["classifier"].code == OK
    reply = ClassificationReply.FromString(answers["classifier"].messages[0])
    assert (reply.meta.puid, reply.meta.modelName) == ("interop-18", "interop")
    assert [(each.predictedClass, each.prediction) for each in reply.predictions] == [("one", 0.25), ("two", 0.75)]
    wrong = answers["classifier without its input"]
    assert wrong.code == INVALID_ARGUMENT
    assert "Cannot find input x" in wrong.details


def test_health(answers: Answers) -> None:
    def status(name: str) -> str:
        reply = message_class("grpc.health.v1.HealthCheckResponse").FromString(answers[name].messages[0])
        return str(reply.ServingStatus.Name(reply.status))

    for name in ("health of the server", "health of a servable", "health of a service"):
        assert answers[name].code == OK
        assert status(name) == "SERVING"
    assert answers["health of nobody"].code == NOT_FOUND
    assert (answers["watch"].code, status("watch")) == (CANCELLED, "SERVING")
    assert (answers["watch nobody"].code, status("watch nobody")) == (CANCELLED, "SERVICE_UNKNOWN")


@pytest.mark.parametrize("version", VERSIONS)
def test_reflection(answers: Answers, version: str) -> None:
    answer = answers[f"reflection {version}"]
    assert answer.code == OK
    kind = message_class(f"grpc.reflection.{version}.ServerReflectionResponse")
    listed, unknown, *found = (kind.FromString(message) for message in answer.messages)
    names = [service.name for service in listed.list_services_response.service]
    assert names == sorted([*services.BUILT_IN, "interop.Interop"])
    assert unknown.error_response.error_code == NOT_FOUND
    for symbol, reply in zip(SYMBOLS, found, strict=True):
        file = descriptor_pb2.FileDescriptorProto.FromString(reply.file_descriptor_response.file_descriptor_proto[0])
        assert any(symbol.startswith(f"{file.package}.{service.name}") for service in file.service)


def test_services_of_ray_serve(answers: Answers) -> None:
    assert answers["ray serve"].code == OK
    assert HealthzResponse.FromString(answers["ray serve"].messages[0]).message == "success"


# -- compression -------------------------------------------------------------------------------------------------------

# What each make packs requests by. grpclib can't; Go has gzip, and a deflate that its program brings.
PACKED = [(language, by) for language in ("grpcio", "javascript", "go") for by in ("gzip", "deflate")]
UNPACK: dict[str, Callable[[bytes], bytes]] = {"gzip": gzip.decompress, "deflate": zlib.decompress}
TEXT = b"interop " * 100_000
# An EchoRequest whose field `payload` is TEXT, and the EchoReply to it.
ECHOED = b"\x12" + varint(len(TEXT)) + TEXT
ZEROS = np.zeros(1 << 18, np.float32)


@pytest.mark.parametrize(("language", "compression"), [*((language, "") for language in LANGUAGES), *PACKED])
def test_compression(server: Server, language: str, compression: str) -> None:
    """On the wire requests are packed as the client was told, answers by gzip if it takes that and the handler asks."""
    calls = {
        "echo": Call(ECHO, [ECHOED], metadata=[("x-compress", "gzip")], compression=compression),
        "predict": predict("total", {"x1": tensor(ZEROS), "x2": tensor(ZEROS)}, compression=compression),
    }
    with recording(server.addresses["plaintext"]) as recorder:
        got = make_calls(calls, language, server.generated, recorder.address)
    assert (got["echo"].code, got["echo"].messages) == (OK, [ECHOED])
    (reply,) = replies(got["predict"])
    assert np.array_equal(array(reply.instances[0].items["y"]), ZEROS)

    sides = {sent.fields[":path"]: (sent, received) for sent, received in recorder.calls()}
    for call in calls.values():
        sent, _ = sides[call.path]
        assert sent.fields.get("grpc-encoding", "identity") == (compression or "identity")
        ((packed, message),) = sent.messages()
        assert packed == bool(compression)
        assert (UNPACK[compression](message) if packed else message) == call.requests[0]
        assert not packed or len(message) < len(call.requests[0]) / 50
    asked, answered = sides[ECHO]
    # Go takes what it sends, grpclib nothing.
    takes_gzip = language in ("grpcio", "javascript") or compression == "gzip"
    assert ("gzip" in asked.fields.get("grpc-accept-encoding", "")) == takes_gzip
    assert answered.fields.get("grpc-encoding") == ("gzip" if takes_gzip else None)
    ((packed, message),) = answered.messages()
    assert packed == takes_gzip
    assert (gzip.decompress(message) if packed else message) == ECHOED


def test_an_encoding_that_nobody_knows(server: Server) -> None:
    """Which only Go's library can be taught."""
    calls = {"unknown": Call(ECHO, [ECHOED], compression="unknown"), "next": Call(ECHO, [ECHOED], compression="gzip")}
    answers = server.make("go", calls)
    assert answers["unknown"].code == UNIMPLEMENTED
    assert "'unknown' is not supported, only identity,deflate,gzip are" in answers["unknown"].details
    assert ("grpc-accept-encoding", "identity,deflate,gzip") in answers["unknown"].metadata
    assert answers["next"].code == OK


# -- certificates ------------------------------------------------------------------------------------------------------

ALIVE = {"": health("Check", "")}
# What the server's log says of clients that show that.
REFUSED = {
    "nothing": "the client sent no certificate, and one is required",
    "stranger": "unable to get local issuer certificate",
}


@pytest.mark.parametrize("shows", REFUSED)
@pytest.mark.parametrize("language", LANGUAGES)
def test_clients_that_mutual_tls_refuses(server: Server, language: str, shows: str) -> None:
    """And then it serves one that it takes."""
    before = len(server.log())
    assert server.make(language, ALIVE, "mutual", shows)[""].code == UNAVAILABLE
    until(lambda: server.log()[before:], lambda lines: REFUSED[shows] in lines)
    assert server.make(language, ALIVE, "mutual", "right")[""].code == OK


# What libraries say of servers that show that, each in its own words.
DISTRUSTED = {"stranger": "certificate", "elsewhere": "hostname|elsewhere.example"}


@pytest.mark.parametrize("listener", DISTRUSTED)
@pytest.mark.parametrize("language", LANGUAGES)
def test_servers_that_clients_refuse(server: Server, language: str, listener: str) -> None:
    answer = server.make(language, ALIVE, listener, "nothing")[""]
    assert answer.code == UNAVAILABLE
    assert re.search(DISTRUSTED[listener], answer.details, re.IGNORECASE)
    assert server.make(language, ALIVE, "tls", "nothing")[""].code == OK
