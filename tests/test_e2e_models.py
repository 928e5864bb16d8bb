"""Models and methods of several stages, through a real server."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

from e2e_support import PREAMBLE, TYPES, Served, onnx_models, request, same, serving, tensor

MODELS = (
    *("add", "add_batch4", "add_no_batch", "add_weights", "dynamic_inner", "two_outputs", "strings", "repeat_strings"),
    *("failing", "types", "scalar", "pass_through"),
)

CONFIG = (
    PREAMBLE
    + """
def declare(name, **options):
    return register.declare_model(f"{name}.onnx", "ONNX", **options)


def model_method(model, inputs, outputs, name):
    def body(*values):
        return register.add_stage(model, *values, outputs_count=len(outputs))

    kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
    body.__name__ = name
    body.__signature__ = inspect.Signature([inspect.Parameter(each, kind) for each in inputs])
    register.register_method(output_names=outputs)(body)


add = declare("add")
two = declare("two_outputs")
failing_model = declare("failing")
model_method(add, ["x1", "x2"], ["y"], "add")
model_method(declare("add_batch4"), ["x1", "x2"], ["y"], "add_batch4")
model_method(declare("add_no_batch", with_batch_dim=False), ["x1", "x2"], ["y"], "add_no_batch")
model_method(declare("add_weights", without_batch_dim_inputs=[1]), ["x", "w"], ["y"], "add_weights")
model_method(declare("dynamic_inner"), ["x"], ["y"], "dynamic_inner")
model_method(two, ["a", "b"], ["total", "larger"], "two_outputs")
model_method(declare("strings"), ["x"], ["y"], "strings")
model_method(declare("repeat_strings"), ["x"], ["y"], "repeat_strings")
model_method(failing_model, ["i"], ["y"], "failing")
model_method(declare("scalar", with_batch_dim=False), ["x"], ["y"], "scalar")
model_method(declare("pass_through"), ["x"], ["same", "y"], "pass_through")
types = "bool int8 uint8 int16 uint16 int32 uint32 int64 uint64 float16 float32 float64".split()
model_method(declare("types"), [f"x_{t}" for t in types], [f"y_{t}" for t in types], "types")


# -- methods of several stages


def double(x):
    return x * 2


def parts(x):
    return x.min(), x.max(), x


def describe(a, b, c):
    return f"{a} {b} {c}"


def pair(instances):
    return [(x + 1, x - 1) for (x,) in instances]


def drop(x):
    return 0


@register.register_method(output_names=["low", "text", "high", "same", "other"])
def diamond(x, y):
    low, high, same = register.add_stage(parts, x, outputs_count=3)
    doubled = register.add_stage(double, low, outputs_count=1)
    text = register.add_stage(describe, doubled, high, low, outputs_count=1)
    return low, text, high, same, y


@register.register_method(output_names=["x"])
def no_stages(x):
    return x


@register.register_method(output_names=["b", "a", "again"])
def exchange(a, b):
    return b, a, b


@register.register_method(output_names=["y", "x1"])
def model_function_model(x1, x2):
    y = register.add_stage(add, x1, x2, outputs_count=1)
    y = register.add_stage(double, y, outputs_count=1)
    y = register.add_stage(add, y, x1, outputs_count=1)
    return y, x1


@register.register_method(output_names=["y"])
def same_model_often(x):
    y = register.add_stage(add, x, x, outputs_count=1)
    for _ in range(9):
        y = register.add_stage(add, y, x, outputs_count=1)
    return y


@register.register_method(output_names=["up", "down", "total", "larger"])
def batches_between(x):
    up, down = register.add_stage(pair, x, outputs_count=2, batch_size=0)
    total, larger = register.add_stage(two, up, down, outputs_count=2)
    return up, down, total, larger


@register.register_method(output_names=["x"])
def result_nobody_wants(x):
    register.add_stage(drop, x, outputs_count=1)
    return x


@register.register_method(output_names=["y"])
def tagged_model(i):
    return register.add_stage(failing_model, i, outputs_count=1, tag="Inference")


@register.register_method(output_names=["y"])
def through_a_failure(i):
    y = register.add_stage(failing_model, i, outputs_count=1)
    return register.add_stage(double, y, outputs_count=1)


@register.register_method(output_names=["y"])
def many_stages(x):
    for _ in range(200):
        x = register.add_stage(double, x, outputs_count=1)
    return x
"""
)


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    made = onnx_models()
    models = {f"{name}.onnx": getattr(made, name)() for name in MODELS}
    with serving(tmp_path_factory.mktemp("models"), "models", CONFIG, models) as server:
        yield server


def matrix(value: float, *shape: int) -> np.ndarray:
    """Of distinct elements."""
    size = int(np.prod(shape or (2, 2)))
    return (np.arange(size, dtype=np.float32) + np.float32(value)).reshape(shape or (2, 2))


# -- batches of models -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["add", "add_batch4", "add_no_batch"])
@pytest.mark.parametrize("count", [1, 2, 3, 4, 5, 7, 8, 9, 100])
def test_each_instance_gets_its_own_result(served: Served, name: str, count: int) -> None:
    instances = [{"x1": matrix(number), "x2": matrix(number * 3)} for number in range(count)]
    for instance, result in zip(instances, served.ask(name, *instances), strict=True):
        assert same(result["y"], instance["x1"] + instance["x2"])


def test_all_types(served: Served) -> None:
    instances = []
    for number in range(5):
        values = np.array([0, 1, number])
        instances.append({f"x_{name}": values.astype(name) for name in TYPES})
    for instance, result in zip(instances, served.ask("types", *instances), strict=True):
        for name in TYPES:
            assert same(result[f"y_{name}"], instance[f"x_{name}"]), name


def test_several_outputs(served: Served) -> None:
    instances = [{"a": matrix(number, 2), "b": matrix(5, 2)} for number in range(10)]
    for instance, result in zip(instances, served.ask("two_outputs", *instances), strict=True):
        assert same(result["total"], instance["a"] + instance["b"])
        assert same(result["larger"], instance["a"] > instance["b"])


def test_an_input_without_a_batch_dimension(served: Served) -> None:
    # Only instances with the same weights share a batch.
    instances = [{"x": matrix(number), "w": matrix(number % 3 * 10)} for number in range(30)]
    for instance, result in zip(instances, served.ask("add_weights", *instances), strict=True):
        assert same(result["y"], instance["x"] + instance["w"])


def test_lengths_of_all_kinds_in_one_request(served: Served) -> None:
    instances = [{"x": matrix(number, number % 7, 2)} for number in range(40)]
    for instance, result in zip(instances, served.ask("dynamic_inner", *instances), strict=True):
        assert same(result["y"], -instance["x"])


def test_a_scalar_model(served: Served) -> None:
    results = served.ask("scalar", *({"x": np.float32(number)} for number in range(5)))
    assert [result["y"] for result in results] == [0, -1, -2, -3, -4]


def test_an_output_that_is_an_input(served: Served) -> None:
    instances = [{"x": matrix(number, 2)} for number in range(6)]
    for instance, result in zip(instances, served.ask("pass_through", *instances), strict=True):
        assert same(result["same"], instance["x"])
        assert same(result["y"], -instance["x"])


def test_strings(served: Served) -> None:
    texts = [["a", "grüße"], ["", "x" * 1000], ["\0", "𝄞"]]
    results = served.ask("strings", *({"x": np.array(pair, object).astype("U")} for pair in texts[:2]))
    assert [result["y"].tolist() for result in results] == texts[:2]
    results = served.ask("repeat_strings", *({"x": text} for text in ("one", "", "drei")))
    assert [result["y"].tolist() for result in results] == [["one"] * 3, [""] * 3, ["drei"] * 3]


# -- inputs that do not fit --------------------------------------------------------------------------------------------


def test_only_the_size_counts_for_static_shapes(served: Served) -> None:
    for shape in ((2, 2), (4,), (1, 4), (1, 2, 2, 1)):
        result = served.value("add_no_batch", x1=matrix(1, *shape), x2=matrix(2))
        assert same(result, matrix(1) + matrix(2))
        result = served.value("add", x1=matrix(1, *shape), x2=matrix(2))
        assert same(result, matrix(1) + matrix(2))


@pytest.mark.parametrize("name", ["add", "add_batch4", "add_no_batch"])
def test_texts_for_static_shapes(served: Served, name: str) -> None:
    good, text = {"x1": matrix(1), "x2": matrix(2)}, "Given model input"
    for wrong, error in (
        ({"x1": matrix(1, 3)}, f"{text} 0 size 12 not match the size 16 defined in model"),
        ({"x2": matrix(1, 3)}, f"{text} 1 size 12 not match the size 16 defined in model"),
        ({"x2": matrix(1, 0)}, f"{text} 1 size 0 not match the size 16 defined in model"),
        ({"x2": matrix(1, 2, 2, 2)}, f"{text} 1 size 32 not match the size 16 defined in model"),
        (
            {"x2": np.zeros((2, 2), np.int32)},
            f"{text} 1 data type kMSI_Int32 not match the data type kMSI_Float32 defined in model",
        ),
        ({"x1": "text"}, f"{text} 0 data type kMSI_String not match the data type kMSI_Float32 defined in model"),
    ):
        results = served.ask(name, good, {**good, **wrong}, good)
        assert error in results[1]["error"]
        for result in (results[0], results[2]):
            assert same(result["y"], matrix(1) + matrix(2))


def test_texts_for_dynamic_shapes(served: Served) -> None:
    good = {"x": matrix(1, 3, 2)}
    for wrong in (matrix(1, 3, 3), matrix(1, 6), matrix(1, 3, 2, 1), np.float32(1), np.zeros((3, 2), np.float64)):
        results = served.ask("dynamic_inner", good, {"x": wrong}, good)
        assert "Given model input 0" in results[1]["error"], wrong.shape
        assert "not match the" in results[1]["error"]
        assert same(results[0]["y"], -good["x"])
        assert same(results[2]["y"], -good["x"])


def test_inputs_that_are_missing_and_inputs_too_many(served: Served) -> None:
    one = {"x1": tensor(matrix(1))}
    both = {**one, "x2": tensor(matrix(2))}
    reply = served.predict(request("models", "add", both, one, {**both, "x3": tensor("text")}, {}))
    assert [error.error_code for error in reply.error_msg] == [0, 2, 0, 2]
    assert b"Cannot find input x2 in instance input" in reply.error_msg[1].error_msg
    assert b"Cannot find input x1 in instance input" in reply.error_msg[3].error_msg
    for place in (0, 2):
        assert reply.instances[place].items["y"].data == (matrix(1) + matrix(2)).tobytes()


def test_a_model_that_fails(served: Served) -> None:
    for name in ("failing", "through_a_failure"):
        factor = 1 if name == "failing" else 2
        assert served.value(name, i=np.int64(2)) == 30 * factor
        error = served.error(name, i=np.int64(7))
        # Once, and without a path of the server's.
        assert "Run model 'failing.onnx' failed: Non-zero status code returned while running Gather node" in error
        assert error.count("failing.onnx") == 1
        assert served.value(name, i=np.int64(1)) == 20 * factor
    assert served.error("tagged_model", i=np.int64(7)).startswith("Inference Failed: Run model 'failing.onnx' failed: ")


# -- several stages ----------------------------------------------------------------------------------------------------


def test_values_of_all_earlier_stages(served: Served) -> None:
    results = served.ask("diamond", *({"x": np.array([number, -number, 7]), "y": f"y{number}"} for number in range(9)))
    for number, result in enumerate(results):
        low, high = -number, max(number, 7)
        assert same(result["low"], np.int64(low))
        assert same(result["high"], np.int64(high))
        assert result["text"] == f"{low * 2} {high} {low}"
        assert result["same"].tolist() == [number, -number, 7]
        assert result["other"] == f"y{number}"


@pytest.mark.parametrize("value", [np.arange(3), np.float32(2), "text", b"bytes", np.zeros((0, 3))])
def test_inputs_as_results(served: Served, value: object) -> None:
    assert same(served.ask("no_stages", {"x": value})[0]["x"], value)
    result = served.ask("exchange", {"a": value, "b": "b"})[0]
    assert same(result["a"], value)
    assert [result["b"], result["again"]] == ["b", "b"]
    # Sent on as it came: no Python has looked at it.
    results = served.ask("exchange", *({"a": np.full(100, number), "b": number} for number in range(100)))
    assert [result["a"][99] for result in results] == list(range(100))


def test_models_and_functions_in_turn(served: Served) -> None:
    instances = [{"x1": matrix(number), "x2": matrix(1)} for number in range(50)]
    for instance, result in zip(instances, served.ask("model_function_model", *instances), strict=True):
        x1 = instance["x1"]
        assert same(result["y"], (x1 + instance["x2"]) * 2 + x1)
        assert same(result["x1"], x1)
    results = served.ask("same_model_often", *({"x": matrix(number)} for number in range(50)))
    for number, result in enumerate(results):
        assert same(result["y"], matrix(number) * 11)


def test_batched_functions_feed_models(served: Served) -> None:
    for number, result in enumerate(served.ask("batches_between", *({"x": matrix(n, 2)} for n in range(40)))):
        x = matrix(number, 2)
        assert same(result["up"], x + 1)
        assert same(result["down"], x - 1)
        assert same(result["total"], 2 * x)
        assert result["larger"].tolist() == [True, True]


def test_a_stage_fails_between_others(served: Served) -> None:
    # An int has no min(): the first stage fails for it alone; a (3,) does not fit the model.
    results = served.ask("model_function_model", *({"x1": matrix(1), "x2": matrix(1, 2 + n % 3)} for n in range(9)))
    for number, result in enumerate(results):
        assert ("error" in result) == (number % 3 != 2)


def test_a_stage_whose_results_nobody_wants(served: Served) -> None:
    assert served.ask("result_nobody_wants", {"x": "x"}) == [{"x": "x"}]


def test_many_stages(served: Served) -> None:
    for number, result in enumerate(served.ask("many_stages", *({"x": np.float64(n)} for n in range(20)))):
        assert result["y"] == number * 2.0**200
