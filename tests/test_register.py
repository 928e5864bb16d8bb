"""Declaring servables: models, methods, stages."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import pytest

from mindserve.errors import CallError, ConfigError, UnsupportedError
from mindserve.register.values import METHOD_INPUT, Method, Registration, Stage, ValueRef
from mindserve.server import register
from mindserve.server.register import add_stage, declare_model, register_method
from register_support import batch, declare, model, two
from register_support import registration as registration

INPUT = functools.partial(ValueRef, METHOD_INPUT)


# -- models ------------------------------------------------------------------------------------------------------------


def test_declare_model_gives_a_value(registration: Registration) -> None:
    context = register.Context(thread_num=2)
    declared = model("sub/model.onnx", without_batch_dim_inputs=1, context=context)
    assert declared.file == "sub/model.onnx"
    assert declared.with_batch_dim
    assert declared.without_batch_dim_inputs == (1,)
    assert declared.context is context
    assert registration.models == [declared]


def test_declare_model_needs_no_registration() -> None:
    assert model() is not model()


def test_model_format_is_read_in_any_case(registration: Registration) -> None:
    declare_model("a.onnx", "onnx")
    assert [declared.file for declared in registration.models] == ["a.onnx"]


@pytest.mark.parametrize("model_format", ["MindIR", "MindIR_Lite", "OM"])
def test_formats_of_later_versions(model_format: str) -> None:
    with pytest.raises(UnsupportedError, match=f"Model format '{model_format}'.*comes in a later version"):
        declare_model("a.mindir", model_format)


def test_unknown_format() -> None:
    with pytest.raises(ConfigError, match="Unsupported model format 'pickle' of model file 'a', only support 'ONNX'"):
        declare_model("a", "pickle")


def test_several_files_come_later() -> None:
    with pytest.raises(UnsupportedError, match="several files"):
        declare_model(["a.onnx", "b.onnx"], "ONNX")


def test_config_file_comes_later() -> None:
    with pytest.raises(UnsupportedError, match="config_file"):
        model(config_file="config.ini")


def test_a_model_that_no_worker_has_loaded_can_not_be_called() -> None:
    with Registration("servable").collecting():
        declared = declare_model("a.onnx", "ONNX")
        with pytest.raises(CallError, match=r"Model\(a\.onnx\)\.call\(\) failed: the worker does not serve yet"):
            declared.call(1)
    with pytest.raises(CallError, match="the model is not declared"):
        declared.call(1)
    with pytest.raises(CallError, match="does not have subgraph of index 1, the subgraph count of the model is 1"):
        declared.call(1, subgraph=1)
    with pytest.raises(ConfigError, match="Parameter 'subgraph' should be >= 0"):
        declared.call(1, subgraph=-1)


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"model_file": 1}, "Parameter 'model_file' should be str or tuple/list of str, but actually <class 'int'>"),
        ({"model_file": ""}, "The item of parameter 'model_file' should not be empty str"),
        ({"model_file": []}, "Parameter 'model_file' should not be empty"),
        ({"model_file": "/etc/passwd"}, "Parameter 'model_file' should be a path inside the version directory"),
        ({"model_file": "../2/a.onnx"}, "Parameter 'model_file' should be a path inside the version directory"),
        ({"model_format": 1}, "Parameter 'model_format' should be str, but actually <class 'int'>"),
        ({"model_format": ""}, "Parameter 'model_format' should not be empty str"),
        ({"with_batch_dim": 1}, "Parameter 'with_batch_dim' should be bool, but actually <class 'int'>"),
        ({"without_batch_dim_inputs": "1"}, "Parameter 'without_batch_dim_inputs' should be int or tuple/list of int"),
        (
            {"without_batch_dim_inputs": -1},
            "The item value '-1' in parameter 'without_batch_dim_inputs' should be >= 0",
        ),
        ({"without_batch_dim_inputs": 0, "with_batch_dim": False}, "needs 'with_batch_dim' to be True"),
        ({"context": 1}, "Parameter 'context' should be Context, but actually <class 'int'>"),
        ({"options": 1}, "Parameter 'options' should be AclOptions or GpuOptions, but actually <class 'int'>"),
    ],
)
def test_wrong_parameters_of_declare_model(arguments: dict[str, Any], text: str) -> None:
    with pytest.raises(RuntimeError) as error:
        declare_model(**{"model_file": "a.onnx", "model_format": "ONNX", **arguments})
    assert text in str(error.value)


def test_a_model_file_is_declared_once(registration: Registration) -> None:
    model("a.onnx")
    with pytest.raises(ConfigError, match=r"model file 'a\.onnx' has already been used"):
        model("./a.onnx")


# -- methods -----------------------------------------------------------------------------------------------------------


def test_a_method_is_its_graph(registration: Registration) -> None:
    declared = model()

    @register_method(output_names=["y", "x"])
    def method(x1, x2):  # type: ignore[no-untyped-def]
        a, b = add_stage(two, x2, x1, outputs_count=2, tag="Preprocess")
        y = add_stage(declared, b, a, outputs_count=1)
        y = add_stage(batch, y, outputs_count=1, batch_size=4)
        return y, x1

    assert registration.methods == {
        "method": Method(
            "method",
            ("x1", "x2"),
            ("y", "x"),
            (
                Stage(two, (INPUT(1), INPUT(0)), 2, None, "Preprocess"),
                Stage(declared, (ValueRef(0, 1), ValueRef(0, 0)), 1),
                Stage(batch, (ValueRef(1, 0),), 1, 4),
            ),
            (ValueRef(2, 0), INPUT(0)),
        )
    }


def test_a_method_says_whether_it_may_be_repeated(registration: Registration) -> None:
    @register_method("x", idempotent=False)
    def once(x):  # type: ignore[no-untyped-def]
        return x

    @register_method("x")
    def often(x):  # type: ignore[no-untyped-def]
        return x

    assert {name: method.idempotent for name, method in registration.methods.items()} == {"once": False, "often": True}
    with pytest.raises(ConfigError, match="'idempotent' should be bool, but actually <class 'int'>"):
        register_method("x", idempotent=0)  # type: ignore[arg-type]


def test_register_method_gives_the_function_back() -> None:
    def method(x):  # type: ignore[no-untyped-def]
        return x

    assert register_method("x")(method) is method


def test_keyword_only_inputs(registration: Registration) -> None:
    @register_method("y")
    def method(x1, *, x2):  # type: ignore[no-untyped-def]
        return x2

    assert registration.methods["method"].inputs == ("x1", "x2")
    assert registration.methods["method"].results == (INPUT(1),)


def test_what_a_method_may_do_between_stages(registration: Registration) -> None:
    @register_method("y")
    def method(x):  # type: ignore[no-untyped-def]
        for _ in range(3):
            x = add_stage(lambda value: value, x, outputs_count=1)
        return x

    assert len(registration.methods["method"].stages) == 3


def test_stage_functions_with_defaults_and_any_count(registration: Registration) -> None:
    def default(x1, x2=1):  # type: ignore[no-untyped-def]
        return x1

    def any_count(*values):  # type: ignore[no-untyped-def]
        return values

    @register_method("y")
    def method(x):  # type: ignore[no-untyped-def]
        x = add_stage(default, x, outputs_count=1)
        x = add_stage(any_count, x, x, outputs_count=1)
        return add_stage(len, x, outputs_count=1)

    assert len(registration.methods["method"].stages) == 3


def generator(x1: Any, x2: Any) -> Any:
    yield x1


async def async_generator(x1: Any, x2: Any) -> Any:
    yield x1


@pytest.mark.parametrize("last", [generator, async_generator])
def test_streaming_methods(registration: Registration, last: Callable[..., Any]) -> None:
    @register_method(["a", "b"], streaming=True, idempotent=False)
    def method(x1, x2):  # type: ignore[no-untyped-def]
        x1 = add_stage(two, x1, x2, outputs_count=1)
        first, second = add_stage(last, x1, x2, outputs_count=2)
        return second, first

    declared = registration.methods["method"]
    assert (declared.streaming, declared.idempotent) == (True, False)
    assert [stage.target for stage in declared.stages] == [two, last]
    assert declared.results == (ValueRef(1, 1), ValueRef(1, 0))


@pytest.mark.parametrize(
    ("body", "text"),
    [
        ("return x1", "its last stage should be a generator function, it has no stage"),
        (
            "return add_stage(two, x1, x2, outputs_count=1)",
            "its last stage should be a generator function, but actually function two has no 'yield'",
        ),
        (
            "x1 = add_stage(generator, x1, x2, outputs_count=1)\nreturn add_stage(model, x1, outputs_count=1)",
            "its last stage should be a generator function, but actually is model 'model.onnx'",
        ),
        (
            "return add_stage(coroutine, x1, x2, outputs_count=1)",
            "function coroutine is asynchronous, a stage should be a plain function",
        ),
        (
            "x1 = add_stage(async_generator, x1, x2, outputs_count=1)\n"
            "return add_stage(generator, x1, x2, outputs_count=1)",
            "function async_generator is asynchronous, only the last stage of method 'method' can be",
        ),
        (
            "return add_stage(generator, x1, x2, outputs_count=1), x1",
            "Method return output size 2 not match registered 1",
        ),
        (
            "add_stage(generator, x1, x2, outputs_count=1)\nreturn x1",
            "its outputs should be those of its last stage, generator",
        ),
        (
            "return add_stage(one_generator, x1, outputs_count=1, batch_size=1)",
            "Parameter 'batch_size' should be None for the last stage of streaming method 'method'",
        ),
        (
            "return add_stage(generator, x1, x2, outputs_count=1, timeout=1)",
            "Parameter 'timeout' should be None for the last stage of streaming method 'method'",
        ),
    ],
)
def test_wrong_streaming_methods(registration: Registration, body: str, text: str) -> None:
    def one_generator(x: Any) -> Any:
        yield x

    names = {
        "generator": generator,
        "async_generator": async_generator,
        "coroutine": coroutine,
        "one_generator": one_generator,
    }
    with pytest.raises(ConfigError) as error:
        declare(body, streaming=True, model=model(), **names)()
    assert text in str(error.value)
    assert not registration.methods


def test_a_method_that_does_not_stream_takes_no_asynchronous_generator(registration: Registration) -> None:
    with pytest.raises(ConfigError, match="function async_generator is asynchronous, a stage should be a plain"):
        declare("return add_stage(async_generator, x1, x2, outputs_count=1)", async_generator=async_generator)()
    with pytest.raises(ConfigError, match="Parameter 'streaming' should be bool, but actually <class 'int'>"):
        register_method("y", streaming=1)  # type: ignore[arg-type]


def one(x: Any) -> Any:
    return x


def three(x1: Any, x2: Any, x3: Any) -> Any:
    return x1


def keyword(x1: Any, x2: Any, *, x3: Any) -> Any:
    return x1


async def coroutine(x1: Any, x2: Any) -> Any:
    return x1


@pytest.mark.parametrize(
    ("body", "text"),
    [
        ("return 1", "Each value returned is a placeholder for data and must come from the method"),
        ("pass", "Each value returned is a placeholder for data and must come from"),
        (
            "return add_stage(two, x1, 1, outputs_count=1)",
            "Each value of parameter *args is a placeholder for data and must come from the method inputs or",
        ),
        ("return x1, x2", "Method return output size 2 not match registered 1"),
        (
            "return add_stage(three, x1, x2, outputs_count=1)",
            "function three input args count 3 not match the count 2 registered in method",
        ),
        (
            "return add_stage(one, x1, x2, outputs_count=1)",
            "function one input args count 1 not match the count 2 registered in method",
        ),
        (
            "return add_stage(two, x1, x2, outputs_count=1, batch_size=0)",
            "function two input args count 2 not match the count 1: with 'batch_size' a function takes a tuple of",
        ),
        ("return add_stage(keyword, x1, x2, outputs_count=1)", "function keyword has a keyword-only parameter 'x3'"),
        ("return add_stage(coroutine, x1, x2, outputs_count=1)", "function coroutine is asynchronous"),
        (
            "return add_stage('two', x1, x2, outputs_count=1)",
            "Parameter 'stage' should be function or Model returned by declare_model, but actually <class 'str'>",
        ),
        ("return add_stage(two, x1, x2, outputs_count='1')", "Parameter 'outputs_count' should be int, but actually"),
        ("return add_stage(two, x1, x2, outputs_count=0)", "Parameter 'outputs_count' should be in range [1,"),
        (
            "return add_stage(batch, x1, outputs_count=1, batch_size=-1)",
            "Parameter 'batch_size' should be in range [0,",
        ),
        ("return add_stage(batch, x1, outputs_count=1, batch_size=True)", "Parameter 'batch_size' should be int, but"),
        ("return add_stage(two, x1, x2, outputs_count=1, tag=1)", "Parameter 'tag' should be str, but actually"),
        (
            "a = add_stage(two, x1, x2, outputs_count=1)\nreturn add_stage(two, a, x1, outputs_count=2)[0]",
            "'servable.two' outputs count 2 not match last registered count 1",
        ),
        (
            "a = add_stage(len, x1, outputs_count=1)\nreturn add_stage(len, a, outputs_count=1, batch_size=1)",
            "parameter 'batch_size' in multiple 'add_stage' should be enabled or disabled consistently",
        ),
        (
            "a = add_stage(model, x1, x2, outputs_count=1)\nreturn add_stage(model, a, outputs_count=1)",
            "RegisterInputOutputInfo failed, inputs count 1 not match old count 2",
        ),
        (
            "a = add_stage(any_count, x1, x2, outputs_count=1)\n"
            "return add_stage(any_count, a, x1, x2, outputs_count=1)",
            "'servable.any_count' inputs count 3 not match last registered count 2",
        ),
    ],
)
def test_wrong_methods(registration: Registration, body: str, text: str) -> None:
    def any_count(*values: Any) -> Any:
        return values

    names = {"one": one, "three": three, "keyword": keyword, "coroutine": coroutine, "any_count": any_count}
    with pytest.raises(RuntimeError) as error:
        declare(body, model=model(), **names)()
    assert text in str(error.value)
    assert not registration.methods


def test_unpacking_one_output_is_pythons_own_error(registration: Registration) -> None:
    with pytest.raises(TypeError, match="cannot unpack non-iterable _TensorDef object"):
        declare("y1, y2 = add_stage(two, x1, x2, outputs_count=1)\nreturn y1")()
    with pytest.raises(ValueError, match=r"too many values to unpack \(expected 2"):
        declare("y1, y2 = add_stage(two, x1, x2, outputs_count=3)\nreturn y1")()


def test_placeholders_of_another_method(registration: Registration) -> None:
    kept: list[Any] = []
    declare("kept.append(x1)\nreturn x1", kept=kept)()
    with pytest.raises(ConfigError, match="but value 0 of method 'method' is one of another method"):
        declare("return add_stage(two, kept[0], x1, outputs_count=1)", kept=kept)()


def test_inputs_that_are_no_names(registration: Registration) -> None:
    with pytest.raises(ConfigError, match="'method' input x2 cannot be VAR_KEYWORD !"):

        @register_method("y")
        def method(x1, **x2):  # type: ignore[no-untyped-def]
            return x1

    with pytest.raises(ConfigError, match="'method' input x2 cannot be VAR_POSITIONAL !"):

        @register_method("y")
        def method(x1, *x2):  # type: ignore[no-untyped-def]
            return x1


def test_a_method_is_registered_once(registration: Registration) -> None:
    declare("return x1")()
    with pytest.raises(ConfigError, match=r"Method method has been registered more than once\."):
        declare("return x1")()


@pytest.mark.parametrize(
    ("output_names", "text"),
    [
        (1, "Parameter 'output_names' should be str or tuple/list of str, but actually <class 'int'>"),
        (["y", 1], "The item of parameter 'output_names' should be str, but actually <class 'int'>"),
        ("", "The item of parameter 'output_names' should not be empty str"),
        (["y", "y"], "The item value 'y' in parameter 'output_names' should not be repeated"),
    ],
)
def test_wrong_output_names(output_names: Any, text: str) -> None:
    with pytest.raises(RuntimeError) as error:
        declare("return x1", output_names)()
    assert text in str(error.value)


def test_add_stage_outside_a_method() -> None:
    with pytest.raises(ConfigError, match="'add_stage' should be called in a function that is decorated with"):
        add_stage(two, 1, 2, outputs_count=1)


def test_registrations_are_apart() -> None:
    first, second = Registration("first"), Registration("second")
    with first.collecting():
        declare("return x1")()
        with second.collecting():
            declare("return x1")()
            model("a.onnx")
        model("a.onnx")
    assert list(first.methods) == list(second.methods) == ["method"]
    assert len(first.models) == len(second.models) == 1
