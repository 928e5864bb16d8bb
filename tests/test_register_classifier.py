"""Declaring what answers the Classifier, and what a worker makes of it."""

from __future__ import annotations

import pathlib
import sys
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from mindserve.control import ReadyMethod, TensorType
from mindserve.errors import ConfigError
from mindserve.register.values import METHOD_INPUT, Registration, ValueRef
from mindserve.rest.context import Backend, ServedClassifier, ServedVersion
from mindserve.rest.http import HttpError
from mindserve.rest.seldon import ClassifierTypes, encode_body
from mindserve.server import register
from mindserve.server.register import add_stage, register_method
from mindserve.worker.classifier import Plan, plan_classifier
from mindserve.worker.classifier_data import RefusedDataError
from register_support import registration as registration
from stubs import compile_protos

PROTO = """
package kinds;
message Four { float f1 = 1; float f2 = 2; float f3 = 3; float f4 = 4; }
message Mixed { int32 whole = 2; double wide = 1; bool yes = 3; }
message Named { string text = 1; bytes raw = 2; repeated sint64 numbers = 3; Four four = 4; enum E { A = 0; } E e = 5; }
"""


@pytest.fixture(scope="module")
def kinds(tmp_path_factory: pytest.TempPathFactory) -> ModuleType:
    folder: pathlib.Path = compile_protos(tmp_path_factory.mktemp("kinds"), classifier_kinds=PROTO)
    sys.path.insert(0, str(folder))
    try:
        import classifier_kinds_pb2
    finally:
        sys.path.remove(str(folder))
    return classifier_kinds_pb2


def method(name: str = "predict", inputs: str = "x", outputs: Any = "y", **options: Any) -> None:
    """A method whose one stage gives its inputs back, as often as there are outputs."""
    count = 1 if isinstance(outputs, str) else len(outputs)
    stage = eval(f"lambda {inputs}: None")
    if options:

        def stage(*values: Any) -> Any:
            yield values

    scope = {"add_stage": add_stage, "stage": stage}
    exec(f"def {name}({inputs}):\n    return add_stage(stage, {inputs}, outputs_count={count})", scope)
    register_method(outputs, **options)(scope[name])


def plan(registration: Registration, *types: TensorType | None) -> Plan:
    return plan_classifier(registration, lambda each: ReadyMethod(each.name, True, each.inputs, each.outputs, types))


def test_nothing_is_declared_for_others(registration: Registration) -> None:
    method()
    assert not registration.answers_classifier
    register.classifier()
    assert registration.answers_classifier


def test_the_only_method_is_taken_with_its_only_output(registration: Registration, kinds: ModuleType) -> None:
    method()
    register.data_handler(kinds.Four)
    made = plan(registration)
    assert made.method.name == "/io.seldon.api.rpc.Classifier/Predict"
    assert made.method.stages == registration.methods["predict"].stages
    assert made.outputs == (0, None, None, None)
    assert (made.classes, made.model_name, made.custom_type) == ((), "servable", "")
    described = made.describe()
    assert described.messages == ("kinds.Four",)
    assert len(described.files) == 1


@pytest.mark.parametrize(
    ("outputs", "expected"),
    [
        (["prediction", "predictedClass", "confidence"], (0, 1, 2, None)),
        (["predicted_class", "custom", "prediction"], (2, 0, None, 1)),
        (["label", "probabilities"], (1, None, None, None)),
        (["probability", "x"], (0, None, None, None)),
        (["y", "custom"], (0, None, None, 1)),
    ],
)
def test_outputs_are_known_by_their_names(registration: Registration, outputs: Any, expected: Any) -> None:
    method(outputs=outputs)
    register.classifier()
    assert plan(registration).outputs == expected


def test_all_may_be_said(registration: Registration, kinds: ModuleType) -> None:
    method("first")
    method("second", outputs=["a", "b", "custom"])
    register.classifier("second", output="b", classes=("no", "yes"), model_name="model_xgb", custom=kinds.Four)
    made = plan(registration)
    assert made.outputs == (1, None, None, 2)
    assert (made.classes, made.model_name, made.custom_type) == (("no", "yes"), "model_xgb", "kinds.Four")
    assert len(made.files) == 1


@pytest.mark.parametrize(
    ("declare", "text"),
    [
        ({"method": "other"}, "'classifier' names method 'other', which is not registered; there is 'one', 'two', 's'"),
        ({"method": "s"}, "names method 's', which is streaming"),
        ({"method": "two"}, "which output of method 'two' has a number for each class: it has 'a', 'b'"),
        ({"method": "one", "custom": "Four"}, "output 'custom' is, which method 'one' has not"),
        ({"output": "c"}, "can be answered by no method, there is 'one', 'two': one needs an output 'c'"),
        ({"method": "classed", "classes": ["a"]}, "'classes' of 'classifier' can't be given: output 'predictedClass'"),
    ],
)
def test_what_does_not_fit_says_why(
    registration: Registration, kinds: ModuleType, declare: dict[str, Any], text: str
) -> None:
    method("one")
    method("two", outputs=["a", "b"])
    if declare.get("method") == "classed":
        method("classed", outputs=["prediction", "predictedClass"])
    method("s", streaming=True)
    if "custom" in declare:
        declare = {**declare, "custom": kinds.Four}
    register.classifier(**declare)
    with pytest.raises(ConfigError) as raised:
        plan(registration)
    assert text in str(raised.value)


@pytest.mark.parametrize(
    ("known", "classes", "text"),
    [
        (TensorType("str", (3,)), None, "is str of shape [3]: the Classifier needs numbers in one dimension"),
        (TensorType("float32", (2, 3)), None, "is float32 of shape [2, 3]: the Classifier needs numbers in one"),
        (TensorType("float32", (4,)), ["a", "b"], "of shape [4]: parameter 'classes' of 'classifier' has 2 names"),
        (TensorType("float32", (1, 2)), ["a", "b"], ""),
        (TensorType("float32", (-1,)), ["a", "b"], ""),
        (TensorType("float32", (-1, 3)), None, ""),
        (None, ["a", "b"], ""),
    ],
)
def test_what_a_model_says_of_its_output_is_looked_at(
    registration: Registration, known: TensorType | None, classes: list[str] | None, text: str
) -> None:
    method()
    register.classifier(classes=classes)

    def described(each: Any) -> ReadyMethod:
        return ReadyMethod(each.name, True, each.inputs, each.outputs, (None,), (known,))

    if not text:
        assert plan_classifier(registration, described).outputs[0] == 0
        return
    with pytest.raises(ConfigError) as raised:
        plan_classifier(registration, described)
    assert text in str(raised.value)


def test_of_several_methods_one_is_named(registration: Registration) -> None:
    method("one")
    method("two")
    register.classifier()
    with pytest.raises(ConfigError, match=r"by the methods 'one', 'two': say which one by register\.classifier"):
        plan(registration)


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda: register.classifier(1), "'method'"),  # type: ignore[arg-type]
        (lambda: register.classifier(classes=["a", "a"]), "'classes'"),
        (lambda: register.classifier(mapping=1), "'mapping' should be a function"),  # type: ignore[arg-type]
        (lambda: register.classifier(mapping=print, output="y"), "can't be given with 'mapping'"),
        (lambda: register.classifier(custom=str), "'custom' should be a class of a protobuf message"),
        (lambda: register.data_handler(str), "'message_class' should be a class of a protobuf message"),
    ],
)
def test_wrong_parameters(registration: Registration, call: Any, text: str) -> None:
    with pytest.raises(ConfigError) as raised:
        call()
    assert text in str(raised.value)


def test_each_is_declared_once(registration: Registration, kinds: ModuleType) -> None:
    register.classifier()
    with pytest.raises(ConfigError, match="has been called already"):
        register.classifier()
    register.data_handler(kinds.Four)
    with pytest.raises(ConfigError, match=r"Message 'kinds.Four' has a data handler already"):
        register.data_handler(kinds.Four)


def test_wrong_handlers(registration: Registration, kinds: ModuleType) -> None:
    with pytest.raises(ConfigError, match="has no field 'f5', it has f1, f2, f3, f4"):
        register.data_handler(kinds.Four, fields=["f5"])
    with pytest.raises(ConfigError, match="no method 'getData"):
        register.data_handler(kinds.Four)(type("Handler", (), {}))
    with pytest.raises(ConfigError, match="'fields' can't be given with a handler"):
        register.data_handler(kinds.Mixed, fields=["yes"])(lambda message: 1)


def test_fields_by_name(registration: Registration, kinds: ModuleType) -> None:
    method(inputs="wide, yes")
    register.data_handler(kinds.Mixed)
    inputs, fields = plan(registration, None, None).fields["kinds.Mixed"]
    assert inputs == [("float64", [], False), ("bool", [], False)]
    assert fields == [("wide", 1, 1, 0, 0), ("yes", 3, 8, 1, 0)]
    # What a model wants.
    inputs, _ = plan(registration, TensorType("float32", (1,)), TensorType("bool", (-1,))).fields["kinds.Mixed"]
    assert inputs == [("float32", [1], False), ("bool", [], False)]


def test_texts_and_repeated_fields_by_name(registration: Registration, kinds: ModuleType) -> None:
    method(inputs="numbers, text, raw")
    register.data_handler(kinds.Named)
    inputs, fields = plan(registration, None, None, None).fields["kinds.Named"]
    assert inputs == [("int64", [0], True), ("str", [1], False), ("bytes", [1], False)]
    assert [each[1:3] for each in fields] == [(3, 18), (1, 9), (2, 12)]


def test_fields_as_a_vector(registration: Registration, kinds: ModuleType) -> None:
    method()
    register.data_handler(kinds.Four, fields=["f3", "f1"])
    register.data_handler(kinds.Mixed)
    fields = plan(registration, None).fields
    assert fields["kinds.Four"] == ([("float32", [2], False)], [("f3", 3, 2, 0, 0), ("f1", 1, 2, 0, 1)])
    # In the order of their declaration, in the type that has room for all.
    inputs, elements = fields["kinds.Mixed"]
    assert inputs == [("float64", [3], False)]
    assert [each[0] for each in elements] == ["whole", "wide", "yes"]
    known = plan(registration, TensorType("float32", (-1,))).fields["kinds.Mixed"]
    assert known[0] == [("float32", [3], False)]


@pytest.mark.parametrize(
    ("inputs", "types", "name", "text"),
    [
        ("a, b", (), "Four", "no field for input 'a', it has f1, f2, f3, f4"),
        ("x", (), "Named", "field 'text' is no single number"),
        ("four", (), "Named", "field 'four' is a message itself"),
        ("f1", (TensorType("int64", ()),), "Four", "field 'f1' can't be the model's int64"),
        ("f1", (TensorType("float16", ()),), "Four", "field 'f1' can't be the model's float16"),
        ("f1", (TensorType("str", ()),), "Four", "field 'f1' can't be the model's str"),
        ("text", (TensorType("float32", ()),), "Named", "field 'text' can't be the model's float32"),
    ],
)
def test_fields_that_do_not_fit(
    registration: Registration, kinds: ModuleType, inputs: str, types: Any, name: str, text: str
) -> None:
    method(inputs=inputs)
    register.data_handler(getattr(kinds, name))
    with pytest.raises(ConfigError) as raised:
        plan(registration, *(types or [None] * len(inputs.split(","))))
    assert text in str(raised.value)
    assert f"message 'kinds.{name}' for method 'predict'" in str(raised.value)


def test_a_handler_is_a_stage_in_front(registration: Registration, kinds: ModuleType) -> None:
    method(inputs="x1, x2")

    @register.data_handler(kinds.Four)
    def halves(message: Any) -> Any:
        return [message.f1], np.float64(message.f2)

    made = plan(registration, TensorType("float32", (1,)), TensorType("float32", ()))
    handled = made.handlers["kinds.Four"]
    assert handled.label == "servable.halves"
    (stage,) = handled.stages
    assert stage.inputs == (ValueRef(0, 0), ValueRef(0, 1))
    assert made.method.stages[0].inputs == (ValueRef(METHOD_INPUT, 0), ValueRef(METHOD_INPUT, 1))
    assert handled.results == (ValueRef(1, 0),)
    take = handled.make()
    first, second = take(kinds.Four(f1=1, f2=2).SerializeToString())
    # In the types that the model wants.
    assert (first.dtype, first.shape, second.dtype) == (np.float32, (1,), np.float32)
    with pytest.raises(RefusedDataError, match=r"of type 'kinds\.Four', is wrong"):
        take(b"\x0d")


def test_a_mapping_is_a_stage_behind(registration: Registration, kinds: ModuleType) -> None:
    method(outputs=["a", "b"])

    def reply(a: Any, b: Any) -> Any:
        return ([a, (b, "named", 0.5)], kinds.Four(f1=1)) if b else [a]

    register.classifier(mapping=reply, classes=["first", "second"])
    made = plan(registration)
    assert made.outputs == (0, 1, 2, 3)
    *_, stage = made.method.stages
    assert stage.inputs == registration.methods["predict"].results
    target: Any = stage.target
    assert target.__name__ == "reply"
    prediction, names, confidence, custom = target(1, 2)
    assert prediction.tolist() == [1, 2]
    assert names.tolist() == ["first", "named"]
    assert confidence.tolist() == [1, 0.5]
    assert custom.startswith(b"\n\x1etype.googleapis.com/kinds.Four")
    # As many as it has given: that there should be two is known where the reply is written.
    assert target(1, 0)[1].tolist() == ["first"]
    assert made.classes == ("first", "second")


@pytest.mark.parametrize("given", [("a", "b"), (1, 2, 3), {"predictedClass": "x"}, {"prediction": 1, "more": 2}])
def test_what_is_no_prediction(registration: Registration, given: Any) -> None:
    method()
    register.classifier(mapping=lambda y: [given])
    target: Any = plan(registration).method.stages[-1].target
    with pytest.raises(ValueError, match="expected"):
        target(0)


def test_proto_files_that_are_too_large_are_kept(
    registration: Registration, kinds: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By gRPC the messages are taken all the same; HTTP says why it can't."""
    monkeypatch.setattr("mindserve.worker.classifier._MOST_FILES", 10)
    method()
    register.data_handler(kinds.Four)
    described = plan(registration, None).describe()
    assert described.messages == ("kinds.Four",)
    assert described.files == ()
    backend = Backend(
        ready=lambda: True,
        services=tuple,
        versions=lambda: [ServedVersion("iris", 1, True, 1, (), (), ServedClassifier(described.messages, ()))],
    )
    name, taken = ClassifierTypes(backend).find("")
    assert name == "iris"
    with pytest.raises(HttpError, match=r"the proto files of kinds\.Four are too large") as raised:
        encode_body(b'{"data": {}}', taken)
    assert raised.value.status == 400
