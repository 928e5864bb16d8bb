"""Which handlers answer which methods of which services, and what is wrong with those that can't."""

from __future__ import annotations

import functools
import importlib
import pathlib
import sys
from typing import Any

import pytest

from answering_support import generated as generated
from answering_support import kinds as kinds
from mindserve.control import ReadyRpc, ReadyService
from mindserve.errors import ConfigError, StartError
from mindserve.register.values import Registration
from mindserve.server import register
from mindserve.worker.answering import Handler
from mindserve.worker.services import describe_services, find_handlers, imported_services
from stubs import compile_protos

pytestmark = pytest.mark.usefixtures("kinds")


def find(declare: Any, phases: list[str] | None = None) -> dict[str, Handler]:
    registration = Registration("kinds")
    with registration.collecting():
        declare()
    return {
        handler.path: handler
        for handler in find_handlers(registration, phases.append if phases is not None else lambda phase: None)
    }


def decorated(function: Any, *arguments: Any, **options: Any) -> Any:
    return lambda: register.grpc_method(*arguments, **options)(function)


def test_services_are_those_of_the_modules_imported(generated: Any) -> None:
    services = imported_services()
    for name in ("Kinds", "Twin", "Mirror"):
        assert services[f"kinds.{name}"] is generated[0].DESCRIPTOR.services_by_name[name]


def test_a_function_answers_the_method_of_its_name() -> None:
    def Down(request):
        yield request

    handlers = find(lambda: register.grpc_method(Down))
    (handler,) = handlers.values()
    assert handler.path == "/kinds.Kinds/Down"
    assert handler.function is Down
    assert handler.request_type.DESCRIPTOR.full_name == "kinds.Ask"
    assert handler.response_type.DESCRIPTOR.full_name == "kinds.Answer"
    assert (handler.client_streaming, handler.server_streaming) == (False, True)
    assert handler.context is None
    assert not handler.on_loop
    assert not handler.idempotent


def test_the_name_may_be_given() -> None:
    async def anything(request, grpc_context): ...

    (handler,) = find(decorated(anything, "__call__", idempotent=True)).values()
    assert handler.path == "/kinds.Kinds/__call__"
    assert handler.context == "grpc_context"
    assert handler.on_loop
    assert handler.idempotent


def test_a_name_of_several_services_answers_all_of_them() -> None:
    handlers = find(decorated(lambda request: None, "One"))
    assert sorted(handlers) == ["/kinds.Kinds/One", "/kinds.Twin/One"]
    assert list(find(decorated(lambda request: None, "One", service="kinds.Twin"))) == ["/kinds.Twin/One"]


def test_a_name_of_services_that_differ_needs_a_service() -> None:
    with pytest.raises(
        ConfigError, match=r"several services have an RPC 'Turn', of different types: kinds.Mirror, kin"
    ):
        find(decorated(lambda request: None, "Turn"))
    assert list(find(decorated(lambda request: None, "Turn", service="kinds.Mirror"))) == ["/kinds.Mirror/Turn"]


@pytest.mark.parametrize(
    ("name", "options", "text"),
    [
        ("Onne", {}, "handler '<lambda>': there is no RPC 'Onne' in .*'kinds.Kinds' .*, did you mean 'One'"),
        ("one", {}, "did you mean 'One'?"),
        ("One", {"service": "kinds.Kindss"}, "there is no service 'kinds.Kindss', .* did you mean 'kinds.Kinds'"),
        ("Donw", {"service": "kinds.Kinds"}, "service 'kinds.Kinds' has no method 'Donw', did you mean 'Down'"),
        ("Nothing", {"service": "kinds.Twin"}, "service 'kinds.Twin' has no method 'Nothing'$"),
    ],
)
def test_a_name_that_is_not_there(name: str, options: Any, text: str) -> None:
    with pytest.raises(ConfigError, match=text):
        find(decorated(lambda request: None, name, **options))


def test_without_a_generated_module_the_error_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mindserve.worker.services.imported_services", dict)
    with pytest.raises(ConfigError, match="no generated module has been imported: import the generated '…_pb2' module"):
        find(decorated(lambda request: None, "One"))


def generator(request):
    yield request


async def async_generator(request):
    yield request


@pytest.mark.parametrize(
    ("function", "name", "text"),
    [
        (lambda: None, "Down", r"has the parameters \(\), it should have one parameter, the request, and one named"),
        (lambda a, b: None, "Down", "it should have one parameter, the request"),
        (lambda a, b: None, "Up", "it should have one parameter, an iterator of requests"),
        (lambda a, *, b: None, "Down", "it should have one parameter"),
        (lambda grpc_context: None, "Down", "it should have one parameter"),
        (generator, "__call__", "'generator' is a generator, but /kinds.Kinds/__call__ answers with one message"),
        (async_generator, "Up", "'async_generator' is a generator, but /kinds.Kinds/Up answers with one message"),
        (functools.partial(generator), "Up", "is a generator"),
    ],
)
def test_functions_that_can_not_answer(function: Any, name: str, text: str) -> None:
    with pytest.raises(ConfigError, match=text):
        find(decorated(function, name))


class Callable:
    async def __call__(self, request, grpc_context=None): ...


@pytest.mark.parametrize(
    ("function", "on_loop", "context"),
    [
        (lambda request: None, False, None),
        (lambda request, more=1: None, False, None),
        (lambda *requests: None, False, None),
        (lambda request, *, grpc_context: None, False, "grpc_context"),
        (functools.partial(lambda a, request: None, 1), False, None),
        (functools.partial(async_generator), True, None),
        (Callable(), True, "grpc_context"),
        ("{}".format, False, None),
        (Callable().__call__, True, "grpc_context"),
    ],
)
def test_functions_of_all_forms(function: Any, on_loop: bool, context: str | None) -> None:
    (handler,) = find(decorated(function, "Down")).values()
    assert (handler.on_loop, handler.context) == (on_loop, context)


def test_two_for_one_path() -> None:
    def declare() -> None:
        register.grpc_method("Down")(generator)
        register.grpc_method("Down")(async_generator)

    with pytest.raises(
        ConfigError, match=r"handler 'async_generator' answers /kinds.Kinds/Down, and so does handler 'generator'"
    ):
        find(declare)


def test_a_class_answers_by_its_methods_names() -> None:
    made = []

    class Base:
        def Up(self, requests): ...

    class Greeter(Base):
        def __init__(self):
            made.append(self)

        def __call__(self, request):
            return self

        async def Down(self, request, grpc_context):
            yield self

        def helper(self): ...

    def declare() -> None:
        assert register.grpc_service("kinds.Kinds", idempotent=["Up"])(Greeter) is Greeter

    phases: list[str] = []
    handlers = find(declare, phases)
    assert list(handlers) == ["/kinds.Kinds/Down", "/kinds.Kinds/Up", "/kinds.Kinds/__call__"]
    assert phases == ["making Greeter"]
    (instance,) = made
    assert handlers["/kinds.Kinds/__call__"].function(None) is instance
    assert handlers["/kinds.Kinds/__call__"].label == "Greeter.__call__"
    assert [handler.idempotent for handler in handlers.values()] == [False, True, False]
    assert [handler.on_loop for handler in handlers.values()] == [True, False, False]
    assert [handler.context for handler in handlers.values()] == ["grpc_context", None, None]


def test_a_class_without_a_service_answers_those_that_have_its_names() -> None:
    class Greeter:
        def One(self, request): ...

        def Both(self, requests): ...

    assert sorted(find(lambda: register.grpc_service(Greeter))) == [
        "/kinds.Kinds/Both",
        "/kinds.Kinds/One",
        "/kinds.Twin/One",
    ]


def test_an_overridden_servicer_answers_what_it_overrides(kinds: Any) -> None:
    class Middle(kinds[1].KindsServicer):
        def Up(self, request_iterator, context): ...

    class Mine(Middle):
        async def One(self, request, context): ...

    handlers = find(lambda: register.grpc_service(Mine))
    assert sorted(handlers) == ["/kinds.Kinds/One", "/kinds.Kinds/Up"]
    assert [handler.context for handler in handlers.values()] == ["", ""]
    assert handlers["/kinds.Kinds/One"].on_loop


def test_a_servicer_of_two_services(kinds: Any) -> None:
    class Mine(kinds[1].TwinServicer, kinds[1].MirrorServicer):
        def One(self, request, context): ...

    assert list(find(lambda: register.grpc_service(Mine))) == ["/kinds.Twin/One"]


def test_a_servicer_whose_messages_are_of_other_files(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = 'import "elsewhere_messages.proto"; package elsewhere; service Post { rpc Send(Letter) returns (Letter); }'
    compile_protos(tmp_path, elsewhere=text, elsewhere_messages="package elsewhere; message Letter {}")
    monkeypatch.syspath_prepend(str(tmp_path))
    grpc_module = importlib.import_module("elsewhere_pb2_grpc")
    try:
        assert "elsewhere_pb2" not in sys.modules
        assert "elsewhere.Post" in imported_services()

        class Mine(grpc_module.PostServicer):
            def Send(self, request, context): ...

        assert list(find(lambda: register.grpc_service(Mine))) == ["/elsewhere.Post/Send"]
    finally:
        for name in ("elsewhere_pb2_grpc", "elsewhere_pb2", "elsewhere_messages_pb2"):
            sys.modules.pop(name, None)


class Empty:
    def helper(self): ...


class Parameters:
    def Down(self): ...


class NoFunction:
    Down = 7


class Fails:
    def __init__(self):
        raise OSError("no such file: weights.bin")

    def Down(self, request): ...


class Turns:
    def Turn(self, request): ...


@pytest.mark.parametrize(
    ("declared", "options", "error", "text"),
    [
        (
            Empty,
            {},
            ConfigError,
            "class 'Empty' has no method of services .*'kinds.Kinds' .*name them alike, case incl",
        ),
        (
            Parameters,
            {},
            ConfigError,
            r"handler 'Parameters.Down' has the parameters \(\), it should have one parameter",
        ),
        (
            NoFunction,
            {},
            ConfigError,
            "what answers /kinds.Kinds/Down should be a function, but actually <class 'int'>",
        ),
        (Fails, {}, StartError, "The constructor of class 'Fails' failed: OSError: no such file: weights.bin"),
        (Turns, {}, ConfigError, "method 'Turn' of class 'Turns': several services have an RPC 'Turn'"),
        (Callable, {"idempotent": "__cal__"}, ConfigError, "has no method '__cal__' that .*did you mean '__call__'"),
    ],
)
def test_classes_that_can_not_answer(declared: Any, options: Any, error: Any, text: str) -> None:
    with pytest.raises(error, match=text):
        find(lambda: register.grpc_service(**options)(declared))


def test_a_servicers_method_has_two_parameters(kinds: Any) -> None:
    class Mine(kinds[1].KindsServicer):
        def Up(self, request_iterator): ...

    with pytest.raises(ConfigError, match="it should have two parameters, an iterator of requests and the context"):
        find(lambda: register.grpc_service(Mine))


def test_the_driver() -> None:
    (handler,) = find(lambda: register.driver(lambda inputs: b"-".join(sorted(inputs.values())))).values()
    assert handler.path == "/ray.serve.PredictAPIsService/Predict"
    request = handler.parse(b"\x12\x06\n\x01a\x12\x01x\x12\x06\n\x01b\x12\x01y")  # {"a": b"x", "b": b"y"}
    assert handler.function(request).SerializeToString() == b"\n\x03x-y"


def test_a_driver_may_be_a_class_and_return_text() -> None:
    class Driver:
        def __call__(self, inputs):
            return f"ä {inputs}"

    (handler,) = find(lambda: register.driver(Driver)).values()
    assert handler.function(handler.parse(b"")).prediction == "ä {}".encode()


def test_what_is_answered_is_described() -> None:
    def declare() -> None:
        register.grpc_method("One")(lambda request: None)
        register.grpc_method("Both")(generator)
        register.driver(lambda inputs: b"")

    assert describe_services(find(declare).values()) == (
        ReadyService(
            "kinds.Kinds",
            (
                ReadyRpc("One", False, False, "kinds.Ask", "kinds.Answer"),
                ReadyRpc("Both", True, True, "kinds.Ask", "kinds.Answer"),
            ),
        ),
        ReadyService("kinds.Twin", (ReadyRpc("One", False, False, "kinds.Ask", "kinds.Answer"),)),
        ReadyService(
            "ray.serve.PredictAPIsService",
            (ReadyRpc("Predict", False, False, "ray.serve.PredictRequest", "ray.serve.PredictResponse"),),
        ),
    )


@pytest.mark.parametrize(
    ("declare", "text"),
    [
        (lambda: register.grpc_method(5), "Parameter 'method' should be str, but actually <class 'int'>"),
        (lambda: register.grpc_method(""), "Parameter 'method' should not be empty str"),
        (lambda: register.grpc_method("One")(5), "'grpc_method' decorates functions, but actually <class 'int'>"),
        (lambda: register.grpc_method("One", service="/kinds.Kinds"), "should be a service's full name, 'pkg.Service'"),
        (lambda: register.grpc_method("One", idempotent=1), "Parameter 'idempotent' should be bool"),
        (lambda: register.grpc_method(Empty), "use 'grpc_service' for class 'Empty'"),
        (lambda: register.grpc_method(Empty.helper), "decorates 'Empty.helper', which is a class's"),
        (lambda: register.grpc_method(functools.partial(generator)), "needs the method's name"),
        (lambda: register.grpc_service(generator), "Parameter 'service' should be str"),
        (lambda: register.grpc_service("kinds.Kinds")(generator), "use 'grpc_method' for functions"),
        (lambda: register.driver(5), "'driver' decorates a function or a class with '__call__'"),
        (
            lambda: register.driver(Empty),
            "'driver' decorates a function or a class with '__call__', but actually 'Empty'",
        ),
        (lambda: (register.driver(len), register.driver(len)), "'len' is a second driver"),
        (lambda: find(lambda: register.driver(generator)), "driver 'generator' is a generator, it should return bytes"),
        (lambda: find(lambda: register.driver(lambda: b"")), "it should have one parameter, a dict of str to bytes"),
    ],
)
def test_wrong_declarations(declare: Any, text: str) -> None:
    with Registration("kinds").collecting(), pytest.raises(ConfigError, match=text):
        declare()
