"""The context of handlers of gRPC methods, by grpcio's clients: metadata, statuses, streams, identities, models."""

from __future__ import annotations

import json
import pathlib
import threading
from collections.abc import Iterator
from typing import Any

import grpc
import pytest

import stubs
from answering_support import generated as generated
from e2e_support import serving, until
from services_handlers_support import ADDERS, CONFIG, Asked, failed, served

CONTEXT = """

def set_all(context):
    given = context.invocation_metadata()
    metadata = [[key, value.hex() if isinstance(value, bytes) else value] for key, value in given]
    known = {
        "metadata": [pair for pair in metadata if pair[0].startswith("test-")],
        "peer": context.peer(),
        "auth": sorted(context.auth_context()),
        "key": context.peer_identity_key(),
        "remaining": context.time_remaining(),
        "active": context.is_active(),
    }
    context.set_trailing_metadata((("num", "0"), ("raw-bin", b"\\x00\\xff")))
    return json.dumps(known)


@register.grpc_service
class Servicer(kinds_pb2_grpc.KindsServicer):
    def One(self, request, context):
        context.send_initial_metadata((("first", "yes"),))
        known = set_all(context)
        if request.text == "code":
            context.set_code(grpc.StatusCode.INVALID_ARGUMENT)
            context.set_details("ä\\nnot found")
        if request.text == "large":
            context.set_trailing_metadata([("large", "t" * request.number)])
            context.abort(grpc.StatusCode.NOT_FOUND, "d" * request.number)
        if request.text == "abort":
            context.abort(grpc.StatusCode.FAILED_PRECONDITION, "aborted")
        if request.text == "raise":
            context.set_code(grpc.StatusCode.NOT_FOUND)
            raise ValueError("as asked")
        return Answer(text=known)

    async def Down(self, request, context):
        context.set_compression(grpc.Compression.Gzip)
        await context.send_initial_metadata((("first", "yes"),))
        known = set_all(context)
        for number in range(request.number):
            await context.write(Answer(number=number, text="x" * 1000))
        if request.text == "abort":
            await context.abort(grpc.StatusCode.FAILED_PRECONDITION, "aborted")

    async def Up(self, request_iterator, context):
        count = 0
        while await context.read() is not grpc.aio.EOF:
            count += 1
        return Answer(number=count)

    def Both(self, request_iterator, context):
        set_all(context)
        for request in request_iterator:
            if request.text == "cancel":
                context.cancel()
            if request.text == "wait":
                over = threading.Event()
                context.add_callback(over.set)
                state["waiting"] += 1
                assert over.wait(120)
                state["over"] += 1
            yield Answer(text=request.text)


class ModelOf:
    def __init__(self, name):
        self.name = name


@register.multiplexed(max_num_models_per_worker=1)
async def get_model(model_id):
    loads.append(model_id)
    return ModelOf(model_id)


@register.grpc_method("Turn", service="kinds.Twin")
async def turn(request):
    model = await get_model(register.get_multiplexed_model_id())
    return Answer(text=f"loading model: {model.name}")


@register.driver
def drive(inputs):
    return b"".join(key.encode() + value for key, value in sorted(inputs.items()))
"""


@pytest.fixture(scope="module")
def with_context(tmp_path_factory: pytest.TempPathFactory, generated: Any) -> Iterator[Asked]:
    with served(tmp_path_factory.mktemp("context"), generated, CONFIG + CONTEXT, ADDERS) as server:
        yield server


def test_what_a_context_knows_and_says(with_context: Asked) -> None:
    answer, call = with_context.stub.One.with_call(
        with_context.ask(), timeout=60, metadata=[("test-text", "abc"), ("test-raw-bin", b"\x01\xfe")]
    )
    known = json.loads(answer.text)
    assert known["metadata"] == [["test-text", "abc"], ["test-raw-bin", "01fe"]]
    assert known["peer"].startswith("ipv4:127.0.0.1:")
    assert known["auth"] == []
    assert known["key"] is None
    # grpcio rounds up what it sends.
    assert 0 < known["remaining"] <= 61
    assert known["active"]
    assert dict(call.initial_metadata())["first"] == "yes"
    trailing = dict(call.trailing_metadata())
    assert trailing.pop("request_id")
    assert trailing == {"num": "0", "raw-bin": b"\x00\xff"}


@pytest.mark.parametrize(
    ("text", "code", "details"),
    [
        ("code", grpc.StatusCode.INVALID_ARGUMENT, "ä\nnot found"),
        ("abort", grpc.StatusCode.FAILED_PRECONDITION, "aborted"),
        ("raise", grpc.StatusCode.INTERNAL, "ValueError: as asked"),
    ],
)
def test_statuses_of_a_context(with_context: Asked, text: str, code: Any, details: str) -> None:
    error = failed(lambda: with_context.stub.One(with_context.ask(text), timeout=60))
    assert error.code() == code
    assert (error.details() or "").endswith(details)
    trailing = dict(error.trailing_metadata())
    assert trailing["num"] == "0"
    assert trailing["request_id"]


def test_a_stream_written_by_its_context(with_context: Asked) -> None:
    call = with_context.stub.Down(with_context.ask(number=2000), timeout=60)
    assert dict(call.initial_metadata())["first"] == "yes"
    answers = list(call)
    assert [answer.number for answer in answers] == list(range(2000))
    assert {answer.text for answer in answers} == {"x" * 1000}
    assert dict(call.trailing_metadata())["num"] == "0"
    call = with_context.stub.Down(with_context.ask("abort", number=2), timeout=60)
    error = failed(lambda: list(call))
    assert (error.code(), error.details()) == (grpc.StatusCode.FAILED_PRECONDITION, "aborted")


def test_a_client_that_reads_by_the_context(with_context: Asked) -> None:
    assert with_context.stub.Up((with_context.ask() for _ in range(300)), timeout=60).number == 300


def test_a_handler_may_cancel(with_context: Asked) -> None:
    call = with_context.stub.Both(iter([with_context.ask("a"), with_context.ask("cancel")]), timeout=60)
    error = failed(lambda: list(call))
    assert error.code() == grpc.StatusCode.CANCELLED


def test_a_callback_wakes_a_handler_whose_client_has_gone(with_context: Asked) -> None:
    go_on = threading.Event()

    def requests() -> Iterator[Any]:
        yield with_context.ask("wait")
        go_on.wait(60)

    before = with_context.state().get("over", 0)
    waiting = with_context.state().get("waiting", 0)
    call = with_context.stub.Both(requests(), timeout=60)
    until(lambda: with_context.state().get("waiting", 0) > waiting)
    assert with_context.state().get("over", 0) == before
    call.cancel()
    until(lambda: with_context.state().get("over", 0) > before)
    go_on.set()


@pytest.mark.parametrize("size", [4000, 1_000_000])
def test_metadata_and_details_of_any_size_are_an_answer(with_context: Asked, size: int) -> None:
    error = failed(lambda: with_context.stub.One(with_context.ask("large", size), timeout=60))
    if size == 4000:
        assert error.code() == grpc.StatusCode.NOT_FOUND
        assert error.details() == "d" * size
        assert dict(error.trailing_metadata())["large"] == "t" * size
    else:
        # More than a client takes, or the gateway sends; but a status, and the connection goes on.
        assert error.code() in (grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.INTERNAL, grpc.StatusCode.NOT_FOUND)
    assert with_context.stub.One(with_context.ask(), timeout=60).text


def test_models_are_loaded_on_demand(with_context: Asked) -> None:
    stub = with_context.pb2_grpc.TwinStub(with_context.channel)
    for model in ("999", "999", "1000", "999"):
        answer = stub.Turn(with_context.ask(), timeout=60, metadata=[("multiplexed_model_id", model)])
        assert answer.text == f"loading model: {model}"
    assert with_context.state()["loads"] == ["999", "1000", "999"]
    error = failed(lambda: stub.Turn(with_context.ask(), timeout=60))
    assert error.code() == grpc.StatusCode.INTERNAL
    assert "has no 'multiplexed_model_id'" in (error.details() or "")


def test_what_is_not_answered_is_unimplemented(with_context: Asked) -> None:
    error = failed(lambda: with_context.pb2_grpc.TwinStub(with_context.channel).One(with_context.ask(), timeout=60))
    assert error.code() == grpc.StatusCode.UNIMPLEMENTED


def test_identities_of_a_client(tmp_path: pathlib.Path, generated: Any, own_files: Any) -> None:
    config = (
        CONFIG
        + """
@register.grpc_method("One", service="kinds.Kinds")
def who(request, grpc_context):
    auth = {key: [value.decode() for value in values] for key, values in grpc_context.auth_context().items()}
    names = [name.decode() for name in grpc_context.peer_identities()]
    return Answer(text=json.dumps([auth, grpc_context.peer_identity_key(), names]))
"""
    )
    (tmp_path / "servables" / "kinds").mkdir(parents=True)
    stubs.generate(tmp_path / "servables" / "kinds")
    files = own_files
    ssl_config = (
        f"server.SSLConfig({str(files.server)!r}, {str(files.server_key)!r}, {str(files.ca)!r}, verify_client=True)"
    )
    listen = f"'localhost:0', ssl_config={ssl_config}, grpc_servicer_functions={ADDERS[:1]!r}"
    with serving(tmp_path, "kinds", config, listen=listen) as server:
        key, certificate, ca = (pathlib.Path(path).read_bytes() for path in (files.client_key, files.client, files.ca))
        credentials = grpc.ssl_channel_credentials(ca, key, certificate)
        with grpc.secure_channel(server.address, credentials) as channel:
            answer = generated[1].KindsStub(channel).One(generated[0].Ask(), timeout=60)
    auth, key_name, names = json.loads(answer.text)
    assert auth["transport_security_type"] == ["ssl"]
    (pem,) = auth["x509_pem_cert"]
    assert pem.strip() == certificate.decode().strip()
    assert auth["x509_common_name"]
    assert names == auth[key_name]
