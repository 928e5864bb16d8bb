"""Schemas and examples of tensors, by what models say of them."""

from __future__ import annotations

import base64
from typing import Any

import jsonschema
import pytest

from mindserve.control import TensorType
from mindserve.rest.tensor_schemas import COMMON, example, input_schema, output_schema


def accepts(schema: Any, value: Any) -> bool:
    whole = {**schema, "components": {"schemas": COMMON}}
    return bool(jsonschema.Draft202012Validator(whole).is_valid(value))


@pytest.mark.parametrize(
    ("known", "value"),
    [
        (TensorType("float32", ()), 0.5),
        (TensorType("float32", (2,)), [0.5, 0.5]),
        (TensorType("int32", (1, -1)), [[1]]),
        (TensorType("bool", (-1,)), [True]),
        (TensorType("str", (1,)), "text"),
        (TensorType("int64", (2,)), {"b64": base64.b64encode(bytes(16)).decode(), "type": "int64", "shape": [2]}),
        (TensorType("float16", ()), {"b64": "AAA=", "type": "float16", "shape": []}),
        (TensorType("float32", (0, 3)), {"b64": "", "type": "float32", "shape": [0, 3]}),
        (None, 0.5),
    ],
)
def test_examples_fit(known: TensorType | None, value: Any) -> None:
    assert example(known) == value
    assert accepts(input_schema(known), value)


def test_large_tensors_have_none() -> None:
    assert example(TensorType("float32", (3, 224, 224))) is None
    assert example(TensorType("int64", (257,))) is None


@pytest.mark.parametrize(
    ("known", "good", "bad"),
    [
        (TensorType("float32", (2,)), [[0.5, None], [1.0, 2.0]], [[0.5], "text", [[1.0, 2.0]], 1.0, [True, False]]),
        (TensorType("int64", (-1,)), [[], [1], [2**63 - 1, 0]], [[0.5], [None], ["1"]]),
        (TensorType("bool", ()), [True], [1, "true", [True]]),
        (TensorType("str", (1,)), ["text", {"b64": "AA=="}, ["a", "b"]], [{"other": 1}]),
        (None, [1, "a", None, [[{"b64": "AA=="}]], {"b64": "AA=="}], [{"other": 1}]),
    ],
)
def test_outputs(known: TensorType | None, good: list[Any], bad: list[Any]) -> None:
    assert [accepts(output_schema(known), value) for value in good] == [True] * len(good)
    assert [accepts(output_schema(known), value) for value in bad] == [False] * len(bad)


def test_very_many_dimensions_are_not_spelled_out() -> None:
    assert accepts(output_schema(TensorType("int32", (1,) * 40)), [])
    assert "items" not in output_schema(TensorType("int32", (1,) * 40))
