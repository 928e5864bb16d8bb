"""For tests of what servables declare: a registration, and short ways to declare."""

from __future__ import annotations

import textwrap
from collections.abc import Callable
from typing import Any

import pytest

from mindserve.register.values import Registration
from mindserve.server import register
from mindserve.server.register import add_stage, declare_model, register_method


@pytest.fixture
def registration() -> Any:
    registration = Registration("servable")
    with registration.collecting():
        yield registration


def model(file: str = "model.onnx", **options: Any) -> register.Model:
    return declare_model(model_file=file, model_format="ONNX", **options)


def two(x1: Any, x2: Any) -> Any:
    return x1, x2


def batch(instances: Any) -> Any:
    return instances


def declare(body: str, output_names: Any = "y", streaming: bool = False, **names: Any) -> Callable[[], Any]:
    """Registers a method ``method(x1, x2)`` of this body."""

    def run() -> Any:
        scope = {"add_stage": add_stage, "two": two, "batch": batch, **names}
        exec("def method(x1, x2):\n" + textwrap.indent(textwrap.dedent(body).strip(), "    "), scope)
        return register_method(output_names, streaming=streaming)(scope["method"])

    return run
