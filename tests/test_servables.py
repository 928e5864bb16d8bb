"""Handles of other servables: what they refuse without asking anybody."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from answering_support import generated as generated
from mindserve.errors import CallError, ConfigError
from mindserve.register import servables
from mindserve.register.request import current
from mindserve.server import register


@pytest.fixture
def nowhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process whose calls go to a socket that nobody listens on."""
    monkeypatch.setattr("mindserve.register.servable_handle._connections.calls", _no_calls)
    monkeypatch.setattr("mindserve.register.servable_handle._connections.async_calls", _no_calls)


def _no_calls(handle: Any) -> Any:
    return SimpleNamespace()


@contextlib.contextmanager
def handling(**known: Any) -> Iterator[None]:
    """While a request is handled."""
    request: Any = SimpleNamespace(
        **{"request_id": "", "parent": "", "depth": 0, "deadline": None, "cancelled": False, **known}
    )
    token = current.set(request)
    try:
        yield
    finally:
        current.reset(token)


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"name": "", "method": "m"}, "Parameter 'name' should not be empty"),
        ({"name": 1, "method": "m"}, "Parameter 'name' should be str"),
        ({"name": "s", "method": ""}, "Parameter 'method' should not be empty"),
        ({"name": "s", "method": "m", "version_number": -1}, "Parameter 'version_number' should be"),
        ({"name": "s", "method": "kinds.Kinds/One", "version_number": 1}, "should be 0 for the gRPC method"),
        ({"name": "s", "method": "no.Service/One"}, "Service 'no.Service' of method .* is not known: import"),
        ({"name": "s", "method": "kinds.Kinds/Two"}, "Service 'kinds.Kinds' has no method 'Two', it has One, Down"),
    ],
)
def test_wrong_parameters(generated: Any, arguments: dict[str, Any], text: str) -> None:
    with pytest.raises(ConfigError, match=text):
        register.get_servable(**arguments)


def test_wrong_options(generated: Any) -> None:
    handle = register.get_servable("s", method="m")
    with pytest.raises(ConfigError, match="Parameter 'timeout' should be > 0 seconds"):
        handle.options(timeout=0)
    with pytest.raises(ConfigError, match="Parameter 'multiplexed_model_id' is for methods of gRPC services"):
        handle.options(multiplexed_model_id="m")
    of_service = register.get_servable("s", method="kinds.Kinds/One")
    with pytest.raises(ConfigError, match="Parameter 'multiplexed_model_id' should be str"):
        of_service.options(multiplexed_model_id=1)  # type: ignore[arg-type]
    assert of_service.options(multiplexed_model_id="m").options(multiplexed_model_id="", timeout=None) is not of_service


def test_it_says_what_it_is(generated: Any) -> None:
    assert repr(register.get_servable("s", method="m")) == "get_servable('s', method='m')"
    assert repr(register.get_servable("s", method="m", version_number=2)).endswith("method='m', version_number=2)")


@pytest.mark.usefixtures("nowhere")
def test_what_is_sent_is_checked(generated: Any) -> None:
    pb2, _ = generated
    predict = register.get_servable("s", method="m")
    one = register.get_servable("s", method="kinds.Kinds/One")
    up = register.get_servable("s", method="kinds.Kinds/Up")
    down = register.get_servable("s", method="kinds.Kinds/Down")
    for call, text in [
        (lambda: predict.call(1), "takes the inputs of one instance by their names"),
        (lambda: predict.call({"x": 1}, y=2), "takes the inputs of one instance by their names"),
        (lambda: predict.call({"x": 1}, {"x": 2}), "takes the inputs of one instance by their names"),
        (lambda: predict.stream([{"x": 1}]), "a stream is of one instance"),
        (lambda: one.call(), "takes one message, or an iterable of them, but 0 values and 0 keywords"),
        (lambda: one.call(x=1), "takes one message, or an iterable of them, but 0 values and 1 keywords"),
        (lambda: one.stream(pb2.Ask()), "answers with one message: use 'call' or 'call_async'"),
        (lambda: down.call(pb2.Ask()), "answers with a stream: use 'stream' or 'stream_async'"),
        (lambda: asyncio.run(down.call_async(pb2.Ask())), "answers with a stream: use 'stream' or 'stream_async'"),
    ]:
        with pytest.raises(ConfigError, match=text):
            call()
    from mindserve.client.service import Calls

    calls = Calls("unix:/nowhere")
    with pytest.raises(ConfigError, match=r"Method 'kinds.Kinds/One' takes kinds.Ask, but actually <class 'kinds_pb2"):
        calls.call(one._remote, pb2.Answer(), 1.0, ())  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=r"Method 'kinds.Kinds/Up' takes an iterable of messages"):
        calls.call(up._remote, pb2.Ask(), 1.0, ())  # type: ignore[arg-type]


def test_before_the_worker_serves(generated: Any) -> None:
    handle = register.get_servable("s", method="m")
    for call in (lambda: handle.call(x=1), lambda: asyncio.run(handle.call_async(x=1)), lambda: handle.stream(x=1)):
        with pytest.raises(CallError, match="failed: FAILED_PRECONDITION, the worker does not serve yet") as error:
            call()
        assert error.value.code == "FAILED_PRECONDITION"


def test_without_an_internal_socket(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(servables.server, "address", "")
    with pytest.raises(CallError, match="its server has no internal socket"):
        register.get_servable("s", method="m").call(x=1)


@pytest.mark.usefixtures("nowhere")
def test_a_coroutine_is_not_blocked(generated: Any) -> None:
    handle = register.get_servable("s", method="m")

    async def call(function: Any) -> None:
        function(x=1)

    for function, text in ((handle.call, "use 'call_async'"), (handle.stream, "use 'stream_async'")):
        with pytest.raises(CallError, match=text):
            asyncio.run(call(function))


def test_the_terms_are_those_of_the_request(generated: Any) -> None:
    handle = register.get_servable("s", method="m")
    assert handle._terms() == (None, [("mindserve-depth", "1")])
    with handling(request_id="r", parent="p", depth=4):
        pairs = [("mindserve-depth", "5"), ("request_id", "r"), ("mindserve-parent", "p")]
        assert handle._terms() == (None, pairs)
        assert handle.options(timeout=5)._terms() == (5, pairs)
    with handling(deadline=time.monotonic() + 1000):
        timeout, _ = handle._terms()
        assert timeout is not None
        assert 0 < timeout <= 1000
        assert handle.options(timeout=5)._terms()[0] == 5
        limited, _ = handle.options(timeout=5000)._terms()
        assert limited is not None
        assert limited <= 1000
    of_service = register.get_servable("s", method="kinds.Kinds/One").options(multiplexed_model_id="m")
    assert of_service._terms()[1][:2] == [("application", "s"), ("multiplexed_model_id", "m")]


@pytest.mark.usefixtures("nowhere")
def test_what_nobody_waits_for_is_not_called() -> None:
    handle = register.get_servable("s", method="m")
    with handling(cancelled=True), pytest.raises(CallError, match="was given up") as error:
        handle.call(x=1)
    assert error.value.code == "CANCELLED"
    with handling(deadline=time.monotonic() - 1), pytest.raises(CallError, match="has passed") as error:
        handle.call(x=1)
    assert error.value.code == "DEADLINE_EXCEEDED"


def test_a_thread_of_its_own_knows_of_no_request() -> None:
    handle = register.get_servable("s", method="m")
    found: list[Any] = []
    with handling(request_id="r"):
        thread = threading.Thread(target=lambda: found.append(handle._terms()))
        thread.start()
        thread.join()
    assert found == [(None, [("mindserve-depth", "1")])]
