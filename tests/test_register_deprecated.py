"""Servables that are declared by the functions of older versions."""

from __future__ import annotations

import textwrap
from typing import Any

import pytest

from mindserve.errors import ConfigError
from mindserve.register.values import Registration
from mindserve.server import register
from register_support import declare, model
from register_support import registration as registration

OLD_SERVABLE = """
register.declare_servable(servable_file="a.onnx", model_format="ONNX", with_batch_dim=False)


def pre(x1, x2):
    return x1, x2


def pre_batch(instances):
    return instances


def post(y):
    return y


@register.register_method(output_names=["y"])
def method(x1, x2):
"""


def old(registration: Registration, tmp_path: Any, body: str, before: str = "") -> None:
    """A servable by the old functions; their reading of the source needs a file."""
    path = tmp_path / "old.py"
    path.write_text(before + OLD_SERVABLE + textwrap.indent(textwrap.dedent(body).strip(), "    ") + "\n")
    with pytest.warns(DeprecationWarning, match="is deprecated, use"):
        exec(compile(path.read_text(), str(path), "exec"), {"register": register})


def test_old_servable(registration: Registration, tmp_path: Any) -> None:
    old(
        registration,
        tmp_path,
        """
        x1, x2 = register.call_preprocess(pre, x1, x2)
        y = register.call_servable(x1, x2)
        y = register.call_postprocess_pipeline(pre_batch, y)
        return y
        """,
    )
    (declared,) = registration.models
    stages = registration.methods["method"].stages
    assert [stage.outputs_count for stage in stages] == [2, 1, 1]
    assert [stage.batch_size for stage in stages] == [None, None, 0]
    assert [stage.tag for stage in stages] == ["Preprocess", "", "Postprocess"]
    assert stages[1].target is declared


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (
            "y = register.call_servable(x1, x2)\nx1, x2 = register.call_preprocess(pre, x1, x2)\nreturn y",
            "call_servable should be invoked after call_preprocess",
        ),
        (
            "y = register.call_postprocess(post, x1)\nx1, x2 = register.call_preprocess_pipeline(pre_batch, x1, x2)",
            "call_postprocess should be invoked after call_preprocess_pipeline",
        ),
        (
            "y = register.call_postprocess(post, x1)\ny = register.call_servable(x1, x2)",
            "call_postprocess should be invoked after call_servable",
        ),
        (
            "y = register.call_postprocess_pipeline(pre_batch, x1)\ny = register.call_servable(x1, x2)",
            "call_postprocess_pipeline should be invoked after call_servable",
        ),
        (
            "x1, x2 = register.call_preprocess(pre, x1, x2)\nx1 = register.call_preprocess_pipeline(pre_batch, x1)",
            "call_preprocess_pipeline should not be invoked more than once, nor with call_preprocess",
        ),
        (
            "x1, x2 = register.call_preprocess(pre, x1, x2)\nx1 = register.call_preprocess(pre, x1, x2)",
            "call_preprocess should not be invoked more than once",
        ),
        (
            "y = register.call_servable(x1, x2)\ny = register.call_servable(x1, x2)\nreturn y",
            "call_servable should not be invoked more than once",
        ),
        ("x1, x2 = register.call_preprocess(pre, x1, x2)\nreturn x1", "Not find the invoke of 'call_servable'"),
        (
            "if True:\n    y = register.call_servable(x1, x2)\nreturn y",
            "complex statements such as conditions and loops are not supported in register_method when the interface "
            "'call_servable' is used, use 'add_stage' to replace 'call_servable'",
        ),
        (
            "y = register.call_preprocess(1, x1)\nreturn y",
            "The first parameter of 'call_preprocess' should be function",
        ),
    ],
)
def test_wrong_old_servables(registration: Registration, tmp_path: Any, body: str, text: str) -> None:
    with pytest.raises(RuntimeError) as error:
        old(registration, tmp_path, body)
    assert text in str(error.value)


def test_old_servable_with_two_models(registration: Registration, tmp_path: Any) -> None:
    with pytest.raises(ConfigError, match="There are more than one servable declared"):
        old(
            registration,
            tmp_path,
            "return register.call_servable(x1, x2)",
            'register.declare_model(model_file="b.onnx", model_format="ONNX")',
        )


def test_call_servable_without_a_model() -> None:
    with (
        pytest.warns(DeprecationWarning, match="call_servable"),
        pytest.raises(ConfigError, match="There is no model declared, you can use declare_model to declare models"),
    ):
        declare("return register.call_servable(x1, x2)", register=register)()


def test_old_options() -> None:
    with pytest.warns(DeprecationWarning, match="'GpuOptions' is deprecated, use Context and GPUDeviceInfo instead"):
        options = register.GpuOptions(precision_mode="fp16")
    assert options.context.model_context.device_list[0]["precision_mode"] == "fp16"
    assert model(options=options).context is options.context
    with pytest.warns(DeprecationWarning, match="'AclOptions' is deprecated"):
        assert register.AclOptions(output_type="FP16").context.device_options("Ascend")["output_type"] == "FP16"
