"""What stage functions do wrong, and what their instances and everybody else get for it."""

from __future__ import annotations

import os
from collections.abc import Iterator

import numpy as np
import pytest

from e2e_support import PREAMBLE, Served, request, serving, tensor

CONFIG = (
    PREAMBLE
    + '''
import gc
import os
import sys
import threading


class Unreadable(Exception):
    def __str__(self):
        raise RuntimeError("no text")


def endless(n):
    return endless(n + 1)


def half_way():
    yield 1
    raise ValueError("half way")


@method()
def run(code):
    return eval(code)


@method(tag="Preprocess")
def tagged(code):
    return eval(code)


@method()
def negative_fails(x):
    if x.item() < 0:
        raise ValueError(f"{x.item()} is negative")
    return x


@method()
def pid(x):
    return os.getpid()


# -- functions that take batches


@method("code", batch_size=0)
def run_batch(instances):
    return eval(instances[0][0])


@method("x", batch_size=0)
def until_negative(instances):
    """Ends, surely with results still due, at the first negative one."""
    assert type(instances) is tuple and all(type(instance) is tuple for instance in instances)
    for (x,) in instances:
        if x.item() < 0:
            return
        yield x


@method("x", batch_size=0)
def raise_at_negative(instances):
    for (x,) in instances:
        if x.item() < 0:
            raise ValueError("negative")
        yield x


@register.register_method(output_names="y", idempotent=False)
def raise_at_negative_once(x):
    return register.add_stage(raise_at_negative, x, outputs_count=1, batch_size=0)


calls = []


@method("x", batch_size=0)
def all_or_nothing(instances):
    calls.append(len(instances))
    if any(x.item() < 0 for (x,) in instances):
        raise ValueError("one is negative")
    return [x for (x,) in instances]


@method()
def calls_so_far(x):
    return np.array(calls)


@method("x", batch_size=0)
def no_result_for_negative(instances):
    return [None if x.item() < 0 else x for (x,) in instances]


@method("x", batch_size=0)
def surplus(instances):
    yield from (x for (x,) in instances)
    yield from range(3)
    raise ValueError("nobody asks for that")


@method("x", batch_size=0)
def endless_results(instances):
    x = instances[0][0]
    while True:
        yield np.float64(len(instances))


@method("x", batch_size=0)
def as_array(instances):
    return np.stack([x for (x,) in instances]) * 2


@method("x", batch_size=0)
def sizes(instances):
    return [len(instances)] * len(instances)


@method("x", batch_size=1)
def sizes_of_1(instances):
    return [len(instances)] * len(instances)


@method("x", batch_size=3)
def sizes_of_3(instances):
    return (len(instances) for _ in instances)


@method("x", batch_size=100)
def sizes_of_100(instances):
    return tuple([len(instances)] * len(instances))


@method("a b", batch_size=0)
def kinds(instances):
    """How many types and shapes meet in one batch: to be 1."""
    return [len({str([(type(x), getattr(x, "dtype", 0), getattr(x, "shape", 0)) for x in instance])
                 for instance in instances})] * len(instances)


@method("a b", 2, batch_size=2)
def swap(instances):
    return [(b, a) for a, b in instances]


@method("text", batch_size=0)
def texts(instances):
    return [text.upper() for (text,) in instances]
'''
)


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with serving(tmp_path_factory.mktemp("failures"), "failures", CONFIG) as server:
        yield server


@pytest.fixture(autouse=True)
def same_worker(served: Served) -> Iterator[None]:
    """Whatever a test does, the worker lives on."""
    before = served.value("pid", x=0)
    yield
    assert served.value("pid", x=0) == before


FAILURES = [
    ("throw(ValueError('mine'))", "ValueError: mine"),
    ("throw(ValueError())", "ValueError"),
    ("throw(KeyError('mine'))", "KeyError: 'mine'"),
    ("throw(SystemExit(3))", "SystemExit: 3"),
    ("sys.exit()", "SystemExit"),
    ("throw(KeyboardInterrupt())", "KeyboardInterrupt"),
    ("throw(GeneratorExit())", "GeneratorExit"),
    ("throw(StopIteration(1))", "StopIteration: 1"),
    ("throw(BaseException('base'))", "BaseException: base"),
    ("throw(type('Own', (BaseException,), {})('own'))", "Own: own"),
    ("throw(MemoryError())", "MemoryError"),
    ("throw(ValueError('grüße \\0 end'))", "ValueError: grüße \0 end"),
    ("throw(OSError(2, 'none', b'\\xff'.decode(errors='surrogateescape')))", "\\udcff"),
    ("throw(ValueError('ü' * 1_000_000))", "ValueError: üüü"),
    ("throw(Unreadable())", "Unreadable (whose text can't be had)"),
    (
        "throw(ExceptionGroup('group', [ValueError(1)]) if sys.version_info >= (3, 11) else ValueError('group'))",
        "group",
    ),
    ("endless(0)", "RecursionError: "),
    ("nothing", "NameError: name 'nothing' is not defined"),
    ("bytearray(2**60)", "MemoryError"),
]


@pytest.mark.parametrize(("code", "text"), FAILURES, ids=[code for code, _ in FAILURES])
def test_what_a_function_raises(served: Served, code: str, text: str) -> None:
    for name in ("run", "run_batch"):
        error = served.error(name, code=code)
        assert error.startswith(f"Call Function 'failures.{name}' Failed: ")
        assert text in error
        assert len(error) < 10_000
    assert served.error("tagged", code=code).startswith("Preprocess Failed: Call Function 'failures.tagged' Failed: ")


def test_an_instance_fails_alone(served: Served) -> None:
    results = served.ask("negative_fails", *({"x": number % 10 - 3} for number in range(100)))
    for number, result in enumerate(results):
        if number % 10 < 3:
            assert "Call Function 'failures.negative_fails' Failed: ValueError: " in result["error"]
            assert f"{number % 10 - 3} is negative" in result["error"]
        else:
            assert result["y"].tolist() == [number % 10 - 3]


def test_error_codes_on_the_wire(served: Served) -> None:
    instances = [{"x": tensor(np.int64([number]))} for number in (1, -1, 2)]
    reply = served.predict(request("failures", "negative_fails", *instances))
    assert [error.error_code for error in reply.error_msg] == [0, 1, 0]
    assert [len(instance.items) for instance in reply.instances] == [1, 0, 1]
    assert reply.servable_spec.name == "failures"
    assert reply.servable_spec.method_name == "negative_fails"


# -- batches -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["until_negative", "raise_at_negative_once"])
def test_fewer_results_than_instances(served: Served, name: str) -> None:
    values = [1, 2, -1, 3, 4]
    results = served.ask(name, *({"x": value} for value in values))
    expected = "results for the " if name == "until_negative" else "ValueError: negative"
    # A request's instances mostly meet in one batch; where they don't, those behind the failure are well, too. Methods
    # that may not be repeated are not asked again.
    for value, result in zip(values, results, strict=True):
        if "y" in result:
            assert result["y"].tolist() == [value]
        else:
            assert f"Call Function 'failures.{name.removesuffix('_once')}' Failed: " in result["error"]
            assert expected in result["error"]
    assert ["y" in result for result in results[:3]] == [True, True, False]


def test_only_the_instances_that_make_a_batch_raise_fail(served: Served) -> None:
    values = [1, 2, -1, 3, 4, -5, 6, 7]
    for name in ("raise_at_negative", "all_or_nothing"):
        before = served.value("calls_so_far", x=0).size
        results = served.ask(name, *({"x": value} for value in values))
        for value, result in zip(values, results, strict=True):
            if value < 0:
                assert f"Call Function 'failures.{name}' Failed: ValueError: " in result["error"]
            else:
                assert result["y"].tolist() == [value]
    # However the instances met: at most twice as many calls as instances.
    assert served.value("calls_so_far", x=0).size - before < 2 * len(values)


def test_a_result_that_can_not_be_sent_fails_alone(served: Served) -> None:
    values = [1, -1, 2, -2, 3]
    for value, result in zip(values, served.ask("no_result_for_negative", *({"x": v} for v in values)), strict=True):
        if value < 0:
            assert "a value of type 'NoneType' was given" in result["error"]
        else:
            assert result["y"].tolist() == [value]


def test_surplus_results_are_ignored(served: Served) -> None:
    values = list(range(50))
    assert [r["y"].item() for r in served.ask("surplus", *({"x": value} for value in values))] == values
    results = served.ask("endless_results", *({"x": value} for value in values))
    assert all(1 <= result["y"] <= 50 for result in results)


def test_the_rows_of_an_array_are_results(served: Served) -> None:
    results = served.ask("as_array", *({"x": np.full(3, float(number))} for number in range(20)))
    for number, result in enumerate(results):
        assert result["y"].tolist() == [number * 2.0] * 3


@pytest.mark.parametrize(
    ("code", "text"),
    [
        ("None", "it gave a value of type 'NoneType', expected a list, tuple or generator"),
        ("3", "it gave a value of type 'int', expected a list"),
        ("{'a': 1}", "it gave a value of type 'dict', expected a list"),
        ("'text'", "it gave a value of type 'str', expected a list"),
        ("b'text'", "it gave a value of type 'bytes', expected a list"),
        ("np.array(3)", "it gave a value of type 'numpy.ndarray', expected a list"),
        ("[]", "it gave 0 results for the 1 instances"),
        ("iter(())", "it gave 0 results for the 1 instances"),
        ("[(1, 2)]", "the stage has 1 outputs, the function gave 2"),
        ("[[1]]", "a value of type 'list' was given"),
    ],
)
def test_what_is_no_batch_of_results(served: Served, code: str, text: str) -> None:
    assert f"Call Function 'failures.run_batch' Failed: {text}" in served.error("run_batch", code=code).replace(
        "TypeError: ", ""
    )


def test_a_result_before_the_failure_counts(served: Served) -> None:
    assert served.value("run_batch", code="half_way()") == 1


@pytest.mark.parametrize(("name", "most"), [("sizes", 32), ("sizes_of_1", 1), ("sizes_of_3", 3), ("sizes_of_100", 100)])
def test_batches_are_no_larger_than_they_may(served: Served, name: str, most: int) -> None:
    results = [result["y"] for result in served.ask(name, *({"x": number} for number in range(250)))]
    assert max(results) == most
    assert min(results) >= 1


def test_unequal_shapes_share_no_batch(served: Served) -> None:
    shapes = [(), (1,), (2,), (3,), (2, 1), (0,)]
    instances = []
    for number in range(240):
        a = np.zeros(shapes[number % 6], ("float32", "float64")[number % 7 % 2])
        b = ("text", np.array(["a", "b"]), b"bytes", np.zeros(2))[number % 5 % 4]
        instances.append({"a": a[()] if a.shape == () else a, "b": b})
    assert [result["y"] for result in served.ask("kinds", *instances)] == [1] * 240


def test_batches_with_two_inputs_and_outputs(served: Served) -> None:
    results = served.ask("swap", *({"a": number, "b": f"text {number}"} for number in range(7)))
    for number, result in enumerate(results):
        assert result["y0"] == f"text {number}"
        assert result["y1"].tolist() == [number]


def test_inputs_without_a_python_form_fail_alone(served: Served) -> None:
    instances = [{"text": tensor(f"text {number}")} for number in range(20)]
    for number in (0, 7, 19):
        instances[number]["text"].bytes_val[0] = b"\xff"
    reply = served.predict(request("failures", "texts", *instances))
    for number, (instance, error) in enumerate(zip(reply.instances, reply.error_msg, strict=True)):
        if number in (0, 7, 19):
            assert error.error_code == 2
            assert b"input 0 kMSI_String (1,) has no form in Python: UnicodeDecodeError" in error.error_msg
        else:
            assert instance.items["y"].bytes_val[0] == f"TEXT {number}".encode()
    (only,) = served.predict(request("failures", "texts", instances[0])).error_msg
    assert only.error_code == 2


def test_failures_leave_the_server_alone(served: Served) -> None:
    """No descriptors, no memory of failed calls stay behind."""
    (worker,) = served.process.workers()
    for _ in range(2):
        open_before = len(os.listdir(f"/proc/{worker}/fd"))
        served.ask("negative_fails", *({"x": -1} for _ in range(2000)))
        assert len(os.listdir(f"/proc/{worker}/fd")) <= open_before
