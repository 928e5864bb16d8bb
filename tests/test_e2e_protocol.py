"""The gRPC service as any client of the published proto sees it."""

from __future__ import annotations

import os
import pathlib
import random
import subprocess
import sys
import threading
from collections.abc import Iterator

import grpc
import numpy as np
import pytest

from e2e_support import PREAMBLE, ROOT, Served, request, serving, status_of, tensor, until
from mindserve.proto import PREDICT, messages

CONFIG = (
    PREAMBLE
    + '''
import os


@method()
def echo(x):
    return x


@method()
def negative_fails(x):
    if x.item() < 0:
        raise ValueError("negative")
    return x


@method()
def pid(x):
    return os.getpid()


@method()
def grow(size):
    return np.arange(size.item(), dtype=np.uint8)


@method()
def block(fifo):
    """Tells through a FIFO that it runs, and ends when it is written to in turn."""
    with open(fifo, "w") as stream:
        stream.write("running")
    with open(fifo) as stream:
        return stream.read()


done = []


@method()
def note(text):
    done.append(text)
    return len(done)


@method()
def noted(x):
    return " ".join(done)
'''
)

SERVABLE = "protocol"


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("protocol")
    with serving(folder, SERVABLE, CONFIG, start="device_ids=(0, 1)") as server:
        yield server


@pytest.fixture
def channel(served: Served) -> Iterator[grpc.Channel]:
    with grpc.insecure_channel(served.address, [("grpc.max_receive_message_length", -1)]) as channel:
        yield channel


def echo_request(count: int = 1) -> bytes:
    return request(SERVABLE, "echo", *({"x": tensor(np.int64([n]))} for n in range(count))).SerializeToString()


# -- the published proto -----------------------------------------------------------------------------------------------

STUB_CLIENT = """
import sys, struct
import grpc
import ms_service_pb2 as pb
import ms_service_pb2_grpc

assert not any(name.startswith("mindserve") for name in sys.modules)
with grpc.insecure_channel(sys.argv[1]) as channel:
    stub = ms_service_pb2_grpc.MSServiceStub(channel)
    request = pb.PredictRequest()
    request.servable_spec.name = "protocol"
    request.servable_spec.method_name = "negative_fails"
    for number in (3, -1, 5):
        tensor = request.instances.add().items["x"]
        tensor.shape.dims.append(1)
        tensor.dtype = pb.MS_FLOAT32
        tensor.data = struct.pack("<f", number)
    reply = stub.Predict(request, timeout=60)
    assert reply.servable_spec == request.servable_spec, reply
    assert [error.error_code for error in reply.error_msg] == [0, 1, 0], reply
    assert b"ValueError: negative" in reply.error_msg[1].error_msg, reply
    assert len(reply.instances) == 3 and not reply.instances[1].items, reply
    for place, number in ((0, 3), (2, 5)):
        y = reply.instances[place].items["y"]
        assert list(y.shape.dims) == [1] and y.dtype == pb.MS_FLOAT32, reply
        assert struct.unpack("<f", y.data) == (number,), reply
    del request.instances[1]
    reply = stub.Predict(request, timeout=60)
    assert not reply.error_msg and len(reply.instances) == 2, reply
    request.servable_spec.name = "other"
    (error,) = stub.Predict(request, timeout=60).error_msg
    assert error.error_code == 5, error
    assert error.error_msg == b"Request Servable(other) method(negative_fails), servable is not available", error
print("right")
"""


def test_a_stub_generated_from_the_proto(served: Served, tmp_path: pathlib.Path) -> None:
    command = [sys.executable, "-m", "grpc_tools.protoc", f"-I{ROOT / 'protos'}", f"--python_out={tmp_path}",
               f"--grpc_python_out={tmp_path}", "ms_service.proto"]  # fmt: skip
    subprocess.run(command, check=True, timeout=60)
    (tmp_path / "client.py").write_text(STUB_CLIENT)
    command = [sys.executable, str(tmp_path / "client.py"), served.address]
    result = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert result.stdout == "right\n", result.stderr


# -- who answers -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("servable", "method", "version", "code", "text"),
    [
        ("other", "echo", 0, 5, "Request Servable(other) method(echo), servable is not available"),
        ("other", "echo", 3, 5, "Request Servable(other) method(echo) version(3), servable is not available"),
        ("protocol", "echo", 2, 5, "Request Servable(protocol) method(echo) version(2), servable is not available"),
        ("protocol", "none", 0, 2, "Request Servable(protocol) method(none), method is not available"),
        ("protocol", "none", 1, 2, "Request Servable(protocol) method(none) version(1), method is not available"),
        ("", "", 0, 5, "Request Servable() method(), servable is not available"),
        ("protocol", "", 0, 2, "Request Servable(protocol) method(), method is not available"),
        ("Protocol", "echo", 0, 5, "servable is not available"),
        ("grüße", "echo", 0, 5, "Request Servable(grüße) method(echo), servable is not available"),
        ("x" * 4000, "echo", 0, 5, "servable is not available"),
        ("protocol", "echo", 2**64 - 1, 5, "version(18446744073709551615), servable is not available"),
    ],
)
def test_unknown_names(served: Served, servable: str, method: str, version: int, code: int, text: str) -> None:
    sent = request(servable, method, {"x": tensor("x")}, version=version)
    reply = served.predict(sent)
    (error,) = reply.error_msg
    assert error.error_code == code
    assert text in error.error_msg.decode()
    assert not reply.instances
    assert reply.servable_spec == sent.servable_spec


@pytest.mark.parametrize("version", [0, 1])
def test_versions(served: Served, version: int) -> None:
    reply = served.predict(request(SERVABLE, "echo", {"x": tensor("x")}, version=version))
    assert not reply.error_msg
    assert reply.instances[0].items["y"].bytes_val[0] == b"x"


def test_no_instances(served: Served) -> None:
    reply = served.predict(request(SERVABLE, "echo"))
    assert [error.error_code for error in reply.error_msg] == [2]
    assert b"instances count is 0" in reply.error_msg[0].error_msg
    assert served.client("echo").infer([]) == {"error": reply.error_msg[0].error_msg.decode()}


def test_an_unknown_path(served: Served) -> None:
    for path in ("/mindspore.serving.proto.MSService/Other", "/other.Service/Predict", "/x"):
        code, _ = status_of(lambda path=path: served.raw(echo_request(), path))
        assert code is grpc.StatusCode.UNIMPLEMENTED


# -- bytes that are no request -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "body",
    [
        b"\xff" * 100,
        b"\x0a",
        b"\x0a\xff\xff\xff\xff\x0f",
        b"\x12\x05\x0a\x03",
        b"\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01",
        b"\x00",
        b"\x0f\x0f",
        b"\x0b\x0c",
    ],
)
def test_bytes_that_do_not_parse(served: Served, body: bytes) -> None:
    code, text = status_of(lambda: served.raw(body))
    assert code is grpc.StatusCode.INVALID_ARGUMENT
    assert text


def test_an_empty_body_is_an_empty_request(served: Served) -> None:
    (error,) = messages.PredictReply.FromString(served.raw(b"")).error_msg
    assert b"Request Servable() method(), servable is not available" in error.error_msg


def test_every_truncation_is_answered(served: Served) -> None:
    body = request(SERVABLE, "echo", {"x": tensor(np.arange(3))}, {"x": tensor("text")}).SerializeToString()
    for end in range(len(body)):
        try:
            reply = messages.PredictReply.FromString(served.raw(body[:end]))
        except grpc.RpcError as error:
            assert error.code() is grpc.StatusCode.INVALID_ARGUMENT, end
        else:
            # Cut between two fields: a request all the same, of another name or of one instance.
            assert reply.error_msg or len(reply.instances) == 1, end


def test_random_damage_is_answered(served: Served) -> None:
    chance = random.Random(7)
    instances = ({"x": tensor(np.arange(n))} for n in range(5))
    body = request(SERVABLE, "echo", *instances, {"x": tensor("text")}).SerializeToString()
    begin = len(request(SERVABLE, "echo").SerializeToString())
    for _ in range(1500):
        damaged = bytearray(body)
        for _ in range(chance.randint(1, 4)):
            damaged[chance.randrange(begin, len(damaged))] ^= 1 << chance.randrange(8)
        try:
            messages.PredictReply.FromString(served.raw(bytes(damaged)))
        except grpc.RpcError as error:
            assert error.code() in (grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.RESOURCE_EXHAUSTED), damaged
    for size in (1, 10, 1000, 100_000):
        for _ in range(20):
            code, _ = status_of(lambda size=size: served.raw(b"\x12" + chance.randbytes(size) + b"\x0a\x7f"))
            assert code is grpc.StatusCode.INVALID_ARGUMENT
    assert served.value("echo", x="still there") == "still there"


@pytest.mark.parametrize("name", [b"\xff", b"protocol\xc3", b"\xed\xa0\x80", b"\xc0\x80"])
def test_names_that_are_not_utf_8(served: Served, name: bytes) -> None:
    """Protobuf refuses such a string, so no reply that repeats it could be read."""
    for spec in (b"\x0a" + bytes([len(name)]) + name, b"\x0a\x08protocol\x12" + bytes([len(name)]) + name):
        code, _ = status_of(lambda spec=spec: served.raw(b"\x0a" + bytes([len(spec)]) + spec))
        assert code is grpc.StatusCode.INVALID_ARGUMENT


# -- many instances, large messages ------------------------------------------------------------------------------------


def test_ten_thousand_instances_over_two_workers(served: Served) -> None:
    numbers = np.random.default_rng(3).integers(-20, 1000, 10_000)
    results = served.ask("negative_fails", *({"x": number} for number in numbers))
    for number, result in zip(numbers, results, strict=True):
        if number < 0:
            assert "ValueError: negative" in result["error"]
        else:
            assert result["y"] == number
    pids = {result["y"].item() for result in served.ask("pid", *({"x": 0} for _ in range(1000)))}
    assert pids == set(served.process.workers())


def test_failures_in_one_workers_share_only(served: Served) -> None:
    for place in (0, 99):
        results = served.ask("negative_fails", *({"x": -1 if n == place else n} for n in range(100)))
        assert [n for n, result in enumerate(results) if "error" in result] == [place]
        assert all(result["y"] == n for n, result in enumerate(results) if n != place)


def test_more_instances_than_allowed(served: Served) -> None:
    body = request(SERVABLE, "echo").SerializeToString() + b"\x12\x00" * 100_001
    code, text = status_of(lambda: served.raw(body))
    assert code is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert "max_instances_per_request" in text


@pytest.mark.parametrize("megabytes", [5, 60, 99])
def test_large_messages(served: Served, megabytes: int) -> None:
    array = np.random.default_rng(4).integers(0, 256, megabytes << 20, np.uint8)
    assert np.array_equal(served.value("echo", x=array), array)


def test_messages_that_are_too_large(served: Served) -> None:
    code, text = status_of(lambda: served.raw(b"\x12" * (100 << 20) + b"\x12"))
    assert code is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert "max_msg_mb_size" in text
    # The limit is the requests'; an answer may be larger.
    assert served.value("grow", size=150 << 20).size == 150 << 20
    assert served.value("echo", x=1) == 1


# -- what gRPC itself brings -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("compression", [grpc.Compression.Gzip, grpc.Compression.Deflate])
def test_compressed_requests(served: Served, channel: grpc.Channel, compression: grpc.Compression) -> None:
    array = np.zeros(4_000_000)
    body = request(SERVABLE, "echo", {"x": tensor(array)}).SerializeToString()
    predict = channel.unary_unary(PREDICT)
    reply = messages.PredictReply.FromString(predict(body, compression=compression, timeout=60))
    assert reply.instances[0].items["y"].data == array.tobytes()
    code, text = status_of(lambda: predict(b"\0" * ((100 << 20) + 1), compression=compression, timeout=60))
    assert code is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert "max_msg_mb_size" in text


def test_metadata(served: Served, channel: grpc.Channel) -> None:
    predict = channel.unary_unary(PREDICT)
    pairs = [(f"key-{number}", "x" * 100) for number in range(50)] + [("data-bin", bytes(range(256)) * 4)]
    assert predict(echo_request(), metadata=pairs, timeout=60)
    code, _ = status_of(lambda: predict(echo_request(), metadata=[("key", "x" * 20_000)], timeout=60))
    assert code is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert predict(echo_request(), timeout=60)


class Blocked:
    """A call of `block` that runs in its function, until it is let go."""

    def __init__(self, served: Served, fifo: pathlib.Path, **options: float) -> None:
        self.fifo = fifo
        os.mkfifo(fifo)
        channel = served._channel
        body = request(SERVABLE, "block", {"fifo": tensor(str(fifo))}).SerializeToString()
        self.call = channel.unary_unary(PREDICT).future(body, **options)
        assert fifo.read_text() == "running"

    def let_go(self) -> None:
        self.fifo.write_text("end")


def test_deadlines(served: Served, tmp_path: pathlib.Path) -> None:
    blocked = Blocked(served, tmp_path / "fifo", timeout=2)
    try:
        code, _ = status_of(blocked.call.result)
        assert code is grpc.StatusCode.DEADLINE_EXCEEDED
    finally:
        blocked.let_go()
    assert served.value("echo", x=1) == 1


def test_a_cancelled_call_frees_its_place(served: Served, tmp_path: pathlib.Path) -> None:
    blocked = Blocked(served, tmp_path / "fifo")
    try:
        assert blocked.call.cancel()
        assert blocked.call.cancelled()
        assert served.value("echo", x=1) == 1
    finally:
        blocked.let_go()
    again = Blocked(served, tmp_path / "again")
    again.let_go()
    reply = messages.PredictReply.FromString(again.call.result(timeout=60))
    assert reply.instances[0].items["y"].bytes_val[0] == b"end"


def test_what_is_cancelled_in_the_queue_never_runs(tmp_path: pathlib.Path) -> None:
    queue = CONFIG.replace("def block(fifo):", "def block(fifo):\n    done.append('block')")
    # One function for both, hence one queue.
    queue += """

def both(text):
    return block(text) if text.startswith("/") else note(text)


@register.register_method(output_names="y")
def noted_after(fifo):
    return register.add_stage(both, fifo, outputs_count=1)
"""
    with serving(tmp_path / "server", SERVABLE, queue) as served:
        fifo = tmp_path / "fifo"
        os.mkfifo(fifo)
        predict = served._channel.unary_unary(PREDICT)
        send = lambda text, **options: predict.future(  # noqa: E731
            request(SERVABLE, "noted_after", {"fifo": tensor(text)}).SerializeToString(), **options
        )
        blocked = send(str(fifo))
        assert fifo.read_text() == "running"
        late, cancelled, kept = send("late", timeout=0.3), send("cancelled"), send("kept")
        assert status_of(late.result)[0] is grpc.StatusCode.DEADLINE_EXCEEDED
        assert cancelled.cancel()
        # Another call on the same connection: by its answer the server has seen the cancellation.
        assert served.value("noted", x=0) == "block"
        fifo.write_text("end")
        assert blocked.result(timeout=60)
        assert kept.result(timeout=60)
        assert served.value("noted", x=0) == "block kept"


def test_many_calls_on_one_connection(served: Served, channel: grpc.Channel) -> None:
    predict = channel.unary_unary(PREDICT)
    bodies = [request(SERVABLE, "echo", {"x": tensor(np.int64([n]))}).SerializeToString() for n in range(2000)]
    calls = [predict.future(body, timeout=60) for body in bodies]
    for number, call in enumerate(calls):
        data = messages.PredictReply.FromString(call.result()).instances[0].items["y"].data
        assert int.from_bytes(data, "little") == number


# -- health ------------------------------------------------------------------------------------------------------------

CHECK, WATCH = "/grpc.health.v1.Health/Check", "/grpc.health.v1.Health/Watch"
SERVING, NOT_SERVING, SERVICE_UNKNOWN = b"\x08\x01", b"\x08\x02", b"\x08\x03"


def service(name: str) -> bytes:
    return b"\x0a" + bytes([len(name)]) + name.encode() if name else b""


def test_health_check(served: Served) -> None:
    assert served.raw(service(""), CHECK) == SERVING
    assert served.raw(service(SERVABLE), CHECK) == SERVING
    code, _ = status_of(lambda: served.raw(service("other"), CHECK))
    assert code is grpc.StatusCode.NOT_FOUND
    code, _ = status_of(lambda: served.raw(b"\x0a\x7f", CHECK))
    assert code is grpc.StatusCode.INVALID_ARGUMENT


def test_health_watch(tmp_path: pathlib.Path) -> None:
    import signal

    with serving(tmp_path / "server", SERVABLE, CONFIG) as served:
        watches = {name: served._channel.unary_stream(WATCH)(service(name)) for name in ("", SERVABLE, "other")}
        assert next(watches[""]) == SERVING
        assert next(watches[SERVABLE]) == SERVING
        assert next(watches["other"]) == SERVICE_UNKNOWN
        (worker,) = served.process.workers()
        os.kill(worker, signal.SIGTERM)
        assert next(watches[SERVABLE]) == NOT_SERVING
        code, _ = status_of(lambda: served.raw(echo_request()))
        assert code is grpc.StatusCode.UNAVAILABLE
        watches["other"].cancel()
        served.process.send(signal.SIGTERM)
        for name in ("", SERVABLE):
            said, ended = [], threading.Event()

            def drain(name: str = name, said: list[bytes] = said, ended: threading.Event = ended) -> None:
                try:
                    said.extend(watches[name])
                except grpc.RpcError:
                    ended.set()

            threading.Thread(target=drain, daemon=True).start()
            assert ended.wait(60)
            assert said in ([], [NOT_SERVING])
        assert served.process.wait() == 0


def test_the_server_is_well_after_all_that(served: Served) -> None:
    assert len(served.process.workers()) == 2
    until(lambda: served.value("echo", x=7), lambda answer: answer == 7)
    assert "Traceback" not in served.process.errors(), served.process.errors()
