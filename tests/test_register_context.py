"""The options that models are loaded with."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from mindserve.errors import ConfigError
from mindserve.register.context import ModelContext
from mindserve.server import register
from register_support import registration as registration


def test_context_keeps_its_options() -> None:
    context = register.Context(
        thread_num=3, thread_affinity_core_list=[1, 2], enable_parallel=True, graph_optimization="basic"
    )
    context.append_device_info(register.GPUDeviceInfo(precision_mode="fp16"))
    context.append_device_info(register.CPUDeviceInfo(precision_mode="origin"))
    context.append_device_info(
        register.AscendDeviceInfo(precision_mode="allow_mix_precision", input_format="NCHW", output_type="FP16")
    )
    kept = context.model_context
    assert kept.thread_num == 3
    assert kept.thread_affinity_core_list == (1, 2)
    assert kept.enable_parallel
    assert kept.graph_optimization == "basic"
    assert kept.device_list == [
        {"precision_mode": "fp16", "device_type": "gpu"},
        {"precision_mode": "origin", "device_type": "cpu"},
        {
            "precision_mode": "allow_mix_precision",
            "input_format": "NCHW",
            "output_type": "FP16",
            "device_type": "ascend",
        },
    ]
    assert context.device_options("GPU") == register.GPUDeviceInfo(precision_mode="fp16").context_map
    assert context.context_map == {
        "thread_num": "3",
        "thread_affinity_core_list": "(1, 2)",
        "enable_parallel": "True",
        "graph_optimization": "basic",
    }


def test_context_by_default() -> None:
    assert register.Context().model_context == ModelContext(None, (), None, None, [])
    assert register.Context().context_map == {}
    assert register.Context(thread_num=5000).model_context.thread_num == 5000


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: register.Context(thread_num="1"), "Parameter 'thread_num' should be int, but actually <class 'str'>"),
        (lambda: register.Context(thread_num=0), "Parameter 'thread_num' should be >= 1"),
        (lambda: register.Context(thread_num=2**31), "Parameter 'thread_num' should be <= 2147483647"),
        (
            lambda: register.Context(graph_optimization="fast"),
            "Parameter 'graph_optimization' can only be 'off', 'basic', 'extended', 'all', but actually 'fast'",
        ),
        (lambda: register.Context(graph_optimization=0), "Parameter 'graph_optimization' should be str, but actually"),
        (
            lambda: register.Context(thread_affinity_core_list=1),
            "Parameter 'thread_affinity_core_list' should be tuple/list of int, but actually <class 'int'>",
        ),
        (lambda: register.Context(enable_parallel=1), "Parameter 'enable_parallel' should be bool, but actually"),
        (lambda: register.Context(threads=1), "Set context failed, unsupported option threads"),
        (
            lambda: register.GPUDeviceInfo(precision_mode="fp8"),
            "Gpu device info 'precision_mode' can only be 'origin', 'fp16'",
        ),
        (lambda: register.GPUDeviceInfo(mode="fp16"), "Set gpu device info failed, unsupported option mode"),
        (lambda: register.CPUDeviceInfo(mode="fp16"), "Set cpu device info failed, unsupported option mode"),
        (lambda: register.AscendDeviceInfo(mode="x"), "Set ascend device info failed, unsupported option mode"),
        (lambda: register.AscendDeviceInfo(output_type="FP8"), "Ascend device info 'output_type' can only be 'FP32',"),
        (lambda: register.CPUDeviceInfo(precision_mode=1), "Parameter 'precision_mode' should be str, but actually"),
    ],
)
def test_wrong_contexts(make: Callable[[], Any], text: str) -> None:
    with pytest.raises(RuntimeError) as error:
        make()
    assert text in str(error.value)


def test_a_device_info_of_a_type_is_appended_once() -> None:
    context = register.Context()
    context.append_device_info(register.AscendDeviceInfo())
    with pytest.raises(ConfigError, match="Device info of type ascend has already been appended"):
        context.append_device_info(register.AscendDeviceInfo())
    with pytest.raises(ConfigError, match="Parameter 'device_info' should be CPUDeviceInfo, GPUDeviceInfo or"):
        context.append_device_info("gpu")  # type: ignore[arg-type]
