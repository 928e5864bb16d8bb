"""The client's calls, against a server on grpcio in this process."""

import asyncio
import os
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import numpy as np
import pytest

from mindserve.client import AsyncClient, Client, Failure, ResultList, SSLConfig
from mindserve.errors import MindserveError
from mindserve.proto.messages import ErrorMsg, Instance, PredictReply
from predict_server import PredictServer, echo, serving

pytestmark = pytest.mark.filterwarnings("error")


@pytest.fixture
def server():
    with serving() as server:
        yield server


@pytest.fixture
def client(server: PredictServer):
    with Client(server.address, "add", "add_common") as client:
        yield client


def run(coroutine_function, *args):
    return asyncio.run(coroutine_function(*args))


ONES = {"x1": np.ones((2, 2), np.float32), "x2": np.ones((2, 2), np.float32)}


def add(request, context):
    reply = PredictReply(servable_spec=request.servable_spec)
    for instance in request.instances:
        y = reply.instances.add().items["y"]
        y.CopyFrom(instance.items["x1"])
        x1, x2 = (np.frombuffer(instance.items[name].data, np.float32) for name in ("x1", "x2"))
        y.data = (x1 + x2).tobytes()
    return reply


def test_several_instances_have_their_results_in_order(server, client):
    server.handler = add
    instances = [{"x1": np.full((2, 2), n, np.float32), "x2": np.full((2, 2), n, np.float32)} for n in (1, 2, 3)]
    results = client.infer(instances)
    assert [result["y"].tolist() for result in results] == [[[2 * n] * 2] * 2 for n in (1, 2, 3)]
    assert str(results[0]) == "{'y': array([[2., 2.],\n       [2., 2.]], dtype=float32)}"
    assert client.infer(tuple(instances))[2]["y"][0, 0] == 6
    spec = server.requests[0].servable_spec
    assert (spec.name, spec.method_name, spec.version_number) == ("add", "add_common", 0)


def test_one_instance_has_a_list_of_one_result(server, client):
    server.handler = add
    (result,) = client.infer(ONES)
    assert result["y"].dtype == np.float32


def test_all_kinds_of_values_in_one_instance(client):
    values = {
        "array": np.arange(6, dtype=np.float16).reshape(2, 3),
        "number": np.uint8(7),
        "int": 3,
        "float": 0.5,
        "bool": True,
        "text": "tabby, tabby cat",
        "bytes": b"\x89PNG\0",
        "texts": np.array(["a", "bc"]),
        "empty": np.zeros((0, 4), np.int64),
    }
    (result,) = client.infer(values)
    assert result.keys() == values.keys()
    np.testing.assert_array_equal(result["array"], values["array"], strict=True)
    assert result["number"] == np.uint8(7)
    assert result["int"].tolist() == [3]
    assert result["float"].tolist() == [0.5]
    assert result["bool"].tolist() == [True]
    assert result["text"] == "tabby, tabby cat"
    assert result["bytes"] == b"\x89PNG\0"
    assert result["texts"].tolist() == ["a", "bc"]
    assert result["empty"].shape == (0, 4)


def test_a_version_is_sent(server):
    with Client(server.address, "add", "add_common", version_number=7) as client:
        client.infer(ONES)
    assert server.requests[0].servable_spec.version_number == 7


def test_errors_of_instances_stand_in_their_places(server, client):
    text = "Given model input 1 data type kMSI_Int32 not match the data type kMSI_Float32 defined in model"

    def second_fails(request, context):
        return PredictReply(
            instances=[request.instances[0], Instance(), request.instances[2]],
            error_msg=[ErrorMsg(), ErrorMsg(error_code=2, error_msg=text.encode()), ErrorMsg()],
        )

    server.handler = second_fails
    results = client.infer([{"x": 1.0}, {"x": np.int32(1)}, {"x": 3.0}])
    assert results[1] == {"error": text}
    assert [results[0]["x"][0], results[2]["x"][0]] == [1.0, 3.0]


def test_an_error_of_the_whole_request_is_one_dict(server, client):
    text = "Request Servable(add) method(x), method is not available"
    server.handler = lambda request, context: PredictReply(error_msg=[ErrorMsg(error_code=2, error_msg=text.encode())])
    assert client.infer([ONES, ONES]) == {"error": text}
    assert client.infer_async([ONES, ONES]).result() == {"error": text}


@pytest.mark.parametrize(
    ("code", "start"),
    [
        (grpc.StatusCode.UNAVAILABLE, "Grpc Error, (14, 'unavailable'), "),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, "Grpc Error, (8, 'resource exhausted'), "),
        (grpc.StatusCode.INVALID_ARGUMENT, "Grpc Error, (3, 'invalid argument'), "),
    ],
)
def test_a_grpc_status_is_an_error_with_its_code_and_details(server, client, code, start):
    server.handler = lambda request, context: context.abort(code, "the détails")
    expected = {"error": start + "the détails"}
    assert client.infer(ONES) == expected
    assert client.infer_async(ONES).result() == expected

    async def ask():
        async with AsyncClient(server.address, "add", "add_common") as asking:
            return await asking.infer(ONES)

    assert run(ask) == expected


def test_a_server_that_is_not_there_is_unavailable(tmp_path):
    for address in (f"unix:{tmp_path}/nobody", "localhost:1"):
        with Client(address, "add", "add_common") as client:
            result = client.infer(ONES)
            assert isinstance(result, dict)
            assert result["error"].startswith("Grpc Error, (14, 'unavailable'), ")


def test_an_unknown_method_of_the_server_is_unimplemented():
    server = grpc.server(ThreadPoolExecutor(1))
    port = server.add_insecure_port("localhost:0")
    server.start()
    with Client(f"localhost:{port}", "add", "add_common") as client:
        assert "Grpc Error, (12, 'unimplemented')" in client.infer(ONES)["error"]
    server.stop(None).wait()


def test_a_reply_that_is_none_is_an_error(server, client):
    server.handler = lambda request, context: b"\xff\xff"
    assert client.infer(ONES) == {"error": "The reply of 2 bytes is not a PredictReply message"}


@pytest.fixture
def hanging(server: PredictServer):
    """The server does not answer before the test's end; the fixture tells when a call has come."""
    arrived, release = threading.Event(), threading.Event()

    def hang(request, context):
        arrived.set()
        release.wait(60)
        return echo(request, context)

    server.handler = hang
    yield arrived
    release.set()


DEADLINE_EXCEEDED = "Grpc Error, (4, 'deadline exceeded'), "


@pytest.mark.parametrize("timeout", [0.05, 0, -1])
def test_a_timeout_ends_the_call(hanging, server, client, timeout):
    assert client.infer(ONES, timeout=timeout)["error"].startswith(DEADLINE_EXCEEDED)
    assert client.infer_async(ONES, timeout=timeout).result()["error"].startswith(DEADLINE_EXCEEDED)

    async def ask():
        async with AsyncClient(server.address, "add", "add_common") as asking:
            return await asking.infer(ONES, timeout=timeout)

    assert run(ask)["error"].startswith(DEADLINE_EXCEEDED)


def test_the_server_gets_to_know_the_deadline(server, client):
    client.infer(ONES, timeout=100)
    client.infer(ONES)
    assert 99 < server.deadlines[0] < 102  # grpcio rounds up
    # grpcio's way of saying none.
    assert server.deadlines[1] is None or server.deadlines[1] > 1e6


@pytest.mark.parametrize("timeout", [1e9, 1e300, float("inf"), 10**400])
def test_a_very_long_timeout_is_none(client, timeout):
    assert client.infer({"x": 1}, timeout=timeout)[0]["x"] == 1


@pytest.mark.parametrize("timeout", ["1", True, [1], float("nan")])
def test_a_timeout_must_be_seconds(client, timeout):
    with pytest.raises(MindserveError, match="Parameter 'timeout' should be"):
        client.infer(ONES, timeout=timeout)


@pytest.mark.parametrize("form", [dict, lambda pairs: dict(pairs).items(), list, tuple])
def test_metadata_travels(server, client, form):
    pairs = [("authorization", "Bearer secret"), ("x-trace-bin", b"\0\xff")]
    client.infer(ONES, metadata=form(pairs))
    client.infer_async(ONES, metadata=form(pairs)).result()

    async def ask():
        async with AsyncClient(server.address, "add", "add_common") as asking:
            return await asking.infer(ONES, metadata=form(pairs))

    run(ask)
    assert len(server.metadata) == 3
    for metadata in server.metadata:
        assert metadata["authorization"] == "Bearer secret"
        assert metadata["x-trace-bin"] == b"\0\xff"


@pytest.mark.parametrize(
    "metadata",
    [
        {"Authorization": "secret"},
        {"with space": "secret"},
        {"": "secret"},
        {1: "secret"},
        {"grpc-timeout": "secret"},
        {"a": "secret\n"},
        {"a": "secret é"},
        {"a": b"secret\0"},
        {"a": ["secret"]},
        {"a-bin": "secret"},
        "secret",
        5,
        [("a", "secret", "c")],
    ],
    ids=str,
)
def test_metadata_that_grpc_cannot_carry_is_refused_without_telling_its_value(server, client, metadata):
    with pytest.raises(MindserveError, match="'metadata'") as caught:
        client.infer(ONES, metadata=metadata)
    assert "secret" not in str(caught.value)
    assert server.requests == []


def telling(request, context):
    context.set_trailing_metadata((("request_id", "r7"), ("key-bin", b"\0"), ("twice", "1"), ("twice", "2")))
    if request.instances[0].items["x1"].shape.dims[0] == 1:
        context.abort(grpc.StatusCode.UNAVAILABLE, "not now")
    return add(request, context)


TOLD = {"request_id": "r7", "key-bin": b"\0", "twice": "2"}
ONE = {name: np.ones((1, 1), np.float32) for name in ONES}


def test_results_tell_the_metadata_of_the_answer(server, client):
    server.handler = telling
    results = client.infer([ONES, ONES])
    assert isinstance(results, ResultList)
    assert isinstance(results, list)
    assert results.metadata == TOLD
    pending = client.infer_async(ONES)
    assert pending.result().metadata == TOLD
    # Also if all failed.
    for failure in (client.infer(ONE), client.infer_async(ONE).result()):
        assert isinstance(failure, Failure)
        assert failure == {"error": "Grpc Error, (14, 'unavailable'), not now"}
        assert failure.metadata == TOLD


def test_results_of_an_async_client_tell_it_too(server):
    server.handler = telling

    async def ask():
        async with AsyncClient(server.address, "add", "add_common") as client:
            return await client.infer([ONES]), await client.infer(ONE)

    results, failure = run(ask)
    assert isinstance(results, ResultList)
    assert results.metadata == TOLD
    assert isinstance(failure, Failure)
    assert failure.metadata == TOLD


def test_where_no_server_has_answered_there_is_no_metadata(hanging, client, tmp_path):
    with Client(f"unix:{tmp_path}/none", "add", "add_common") as lonely:
        failure = lonely.infer(ONES)
    assert (list(failure), failure.metadata) == (["error"], {})
    pending = client.infer_async(ONES)
    pending.cancel()
    assert pending.result().metadata == {}


def test_infer_async_answers_when_it_can(hanging, client):
    pending = client.infer_async({"x": 1})
    assert hanging.wait(60)
    assert not pending.done()
    pending.cancel()
    assert pending.result()["error"].startswith("Grpc Error, (1, 'cancelled'), ")
    assert pending.done()


def test_many_calls_may_be_under_way(client):
    pending = [client.infer_async([{"x": number}, {"x": -number}]) for number in range(50)]
    for number, call in enumerate(pending):
        assert [result["x"][0] for result in call.result()] == [number, -number]
        assert call.result() == call.result()


def test_threads_may_share_a_client(client):
    with ThreadPoolExecutor(8) as pool:
        results = list(pool.map(lambda number: client.infer({"x": number})[0]["x"][0], range(200)))
    assert results == list(range(200))


def test_messages_have_no_size_limit_of_the_clients_own(server, client):
    value = np.arange(5_000_000, dtype=np.float32)  # 20 MB
    np.testing.assert_array_equal(client.infer({"x": value})[0]["x"], value)

    async def ask():
        async with AsyncClient(server.address, "add", "add_common") as asking:
            return await asking.infer({"x": value})

    np.testing.assert_array_equal(run(ask)[0]["x"], value)


def test_what_cannot_be_sent_raises_before_anything_is_sent(server, client):
    for call in (client.infer, client.infer_async):
        with pytest.raises(RuntimeError, match="Not support value type <class 'list'>"):
            call({"x": [1, 2]})
        with pytest.raises(RuntimeError, match="Unknown data type object"):
            call({"x": np.array([None])})
        with pytest.raises(RuntimeError, match="'instances' should be dict or tuple/list of dict, but actually"):
            call("x")
    assert server.requests == []


def test_a_closed_client_says_so(server):
    client = Client(server.address, "add", "add_common")
    client.infer(ONES)
    client.close()
    client.close()
    for call in (client.infer, client.infer_async):
        with pytest.raises(MindserveError, match=f"The client of {server.address} is closed"):
            call(ONES)


def test_calls_under_way_end_when_the_client_is_closed(hanging, server):
    client = Client(server.address, "add", "add_common")
    pending = client.infer_async(ONES)
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(client.infer, ONES)
        assert hanging.wait(60)
        client.close()
        for result in (pending.result(), waiting.result(60)):
            assert result["error"].startswith("Grpc Error, (1, 'cancelled'), ")


def test_asyncio(server):
    async def ask():
        async with AsyncClient(server.address, "add", "add_common", version_number=2) as client:
            return await asyncio.gather(*(client.infer([{"x": number}]) for number in range(50)))

    results = run(ask)
    assert [result[0]["x"][0] for result in results] == list(range(50))
    assert server.requests[0].servable_spec.version_number == 2


def test_an_async_client_may_be_made_before_its_loop(server):
    client = AsyncClient(server.address, "add", "add_common")

    async def ask():
        async with client:
            return await client.infer({"x": "text"})

    assert run(ask) == [{"x": "text"}]
    with pytest.raises(MindserveError, match="is closed"):
        run(client.infer, ONES)


def test_an_async_client_belongs_to_one_loop(server):
    client = AsyncClient(server.address, "add", "add_common")
    loop = asyncio.new_event_loop()
    loop.run_until_complete(client.infer(ONES))
    with pytest.raises(MindserveError, match="belongs to another event loop"):
        run(client.infer, ONES)
    loop.run_until_complete(client.close())
    loop.close()


def test_cancelling_the_task_cancels_the_call(hanging, server):
    ended = threading.Event()
    hang = server.handler

    def watched(request, context):
        context.add_callback(ended.set)
        return hang(request, context)

    server.handler = watched

    async def ask():
        async with AsyncClient(server.address, "add", "add_common") as client:
            task = asyncio.create_task(client.infer(ONES))
            await asyncio.to_thread(hanging.wait, 60)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            return await asyncio.to_thread(ended.wait, 60)

    assert run(ask)


@pytest.mark.skipif(sys.version_info < (3, 11), reason="a task cannot tell who cancelled it")
def test_calls_under_way_end_when_the_async_client_is_closed(hanging, server):
    async def ask():
        client = AsyncClient(server.address, "add", "add_common")
        task = asyncio.create_task(client.infer(ONES))
        await asyncio.to_thread(hanging.wait, 60)
        await client.close()
        return await task

    assert run(ask)["error"].startswith("Grpc Error, (1, 'cancelled'), ")


@pytest.mark.parametrize("relative", [False, True])
def test_unix_sockets(tmp_path, monkeypatch, relative):
    monkeypatch.chdir(tmp_path)
    address = "unix:predict.sock" if relative else f"unix:{tmp_path}/predict.sock"
    with serving(address), Client(address, "add", "add_common") as client:
        assert client.infer({"x": "text"}) == [{"x": "text"}]


def test_numeric_addresses(server):
    with Client(f"127.0.0.1:{server.port}", "add", "add_common") as client:
        result = client.infer({"x": "text"})
    # "localhost" may have been bound in one family only.
    with Client(f"[::1]:{server.port}", "add", "add_common") as client:
        assert [{"x": "text"}] in (result, client.infer({"x": "text"}))


def test_a_proxy_is_not_asked_for_this_machine(server, monkeypatch):
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    with Client(server.address, "add", "add_common") as client:
        assert client.infer({"x": "text"}) == [{"x": "text"}]


@pytest.mark.parametrize("client_class", [Client, AsyncClient])
@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ((1, "a", "b"), "Parameter 'address' should be str, but actually <class 'int'>"),
        (("", "a", "b"), "Parameter 'address' should not be empty str"),
        (("localhost:1", None, "b"), "Parameter 'servable_name' should be str, but actually <class 'NoneType'>"),
        (("localhost:1", "", "b"), "Parameter 'servable_name' should not be empty str"),
        (("localhost:1", "a", 5), "Parameter 'method_name' should be str, but actually <class 'int'>"),
        (("localhost:1", "a", "b", "1"), "Parameter 'version_number' should be int, but actually <class 'str'>"),
        (("localhost:1", "a", "b", -1), "Parameter 'version_number' should be >= 0"),
        (("localhost:1", "a", "b", 2**64), "Parameter 'version_number' should be <= 18446744073709551615"),
        (("localhost:1", "a", "b", 0, {}), "Parameter 'ssl_config' should be mindserve.client.SSLConfig, but actually"),
        (("localhost", "a", "b"), "The format of the address 'localhost' is illegal"),
        (("::1:5500", "a", "b"), "The format of the address '::1:5500' is illegal"),
        (("localhost:port", "a", "b"), "The format of the address 'localhost:port' is illegal"),
        ((":5500", "a", "b"), "The format of the address ':5500' is illegal"),
        (("localhost:0", "a", "b"), "The port of the address 'localhost:0' is out of legal range [1 ~ 65535]"),
        (("localhost:65536", "a", "b"), "The port of the address 'localhost:65536' is out of legal range"),
        (("unix:", "a", "b"), "The address 'unix:' has no path"),
        (("localhost:1", "\ud800", "b"), "cannot be written as UTF-8"),
    ],
)
def test_arguments_are_checked(client_class, arguments, text):
    with pytest.raises(RuntimeError) as caught:
        client_class(*arguments)
    assert text in str(caught.value)


def test_the_client_shows_what_it_calls_and_no_more():
    with Client("localhost:1", "add", "add_common", 2, SSLConfig(server_name="host")) as client:
        assert repr(client) == "Client('localhost:1', 'add', 'add_common', version_number=2)"


def test_the_client_needs_no_native_module():
    """Nor anything else of the server's."""
    program = (
        "import sys, mindserve.client\n"
        "own = {name for name in sys.modules if name.startswith('mindserve')}\n"
        "print(*sorted(name for name in own if not name.startswith(('mindserve.client', 'mindserve.proto'))))\n"
        "print(*{'cryptography', 'google.protobuf', 'rich', 'typer'} & set(sys.modules))"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent.parent / "python")}
    output = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, check=True, text=True
    )
    modules, outside = output.stdout.splitlines()
    assert set(modules.split()) <= {
        "mindserve",
        "mindserve.checks",
        "mindserve.config",
        "mindserve.errors",
        "mindserve.files",
    }
    assert outside == ""
