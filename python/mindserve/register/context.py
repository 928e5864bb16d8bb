"""Threads and devices of a model: `Context` and the device infos."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Mapping
from typing import Any, ClassVar

from mindserve import checks
from mindserve.errors import ConfigError


@dataclasses.dataclass
class ModelContext:
    """What a `Context` holds.

    Attributes:
        thread_num: threads that run one operator; None: the cores divided by the workers.
        thread_affinity_core_list: the cores for these threads; empty: any.
        enable_parallel: run independent operators at once; None: no.
        graph_optimization: how far the engine rewrites the model before it runs it; None: "all".
        device_list: the ``context_map`` of each device info, in the order in which they were appended.
    """

    thread_num: int | None = None
    thread_affinity_core_list: tuple[int, ...] = ()
    enable_parallel: bool | None = None
    graph_optimization: str | None = None
    device_list: list[dict[str, str]] = dataclasses.field(default_factory=list)


_PRECISION_OPTIONS = {"precision_mode": ("origin", "fp16")}
_ASCEND_OPTIONS: dict[str, tuple[str, ...]] = {
    "insert_op_cfg_path": (),
    "input_format": (),
    "input_shape": (),
    "output_type": ("FP32", "UINT8", "FP16"),
    "precision_mode": ("force_fp16", "allow_fp32_to_fp16", "must_keep_origin_dtype", "allow_mix_precision"),
    "op_select_impl_mode": ("high_performance", "high_precision"),
    "fusion_switch_config_path": (),
    "buffer_optimize_mode": ("l1_optimize", "l2_optimize", "off_optimize", "l1_and_l2_optimize"),
}


class DeviceInfoContext:
    """What is common to the device infos, whose options are given by name.

    Attributes:
        context_map: the options as texts, with the device's type under "device_type".

    Raises:
        ConfigError: an option that there is not, or a wrong value.
    """

    # The device's type, and the values that each option may have; an empty tuple: any text.
    _device_type: ClassVar[str]
    _options: ClassVar[Mapping[str, tuple[str, ...]]]

    def __init__(self, **kwargs: Any) -> None:
        self.context_map: dict[str, str] = {}
        for name, value in kwargs.items():
            if name not in self._options:
                raise ConfigError(f"Set {self._device_type} device info failed, unsupported option {name}")
            checks.check_str(name, value)
            allowed = self._options[name]
            if allowed and value not in allowed:
                choices = ", ".join(f"'{choice}'" for choice in allowed)
                raise ConfigError(
                    f"{self._device_type.capitalize()} device info '{name}' can only be {choices}, "
                    f"but actually '{value}'"
                )
            self.context_map[name] = value
        self.context_map["device_type"] = self._device_type


class CPUDeviceInfo(DeviceInfoContext):
    """Options of a model on CPUs.

    Args:
        precision_mode: "origin", compute as the model says, or "fp16", in half precision where the engine can: ONNX
            Runtime can't on CPUs and GPUs, which is logged as a warning. Default: "origin".
    """

    _device_type = "cpu"
    _options = _PRECISION_OPTIONS


class GPUDeviceInfo(DeviceInfoContext):
    """Options of a model on GPUs: those of `CPUDeviceInfo`."""

    _device_type = "gpu"
    _options = _PRECISION_OPTIONS


class AscendDeviceInfo(DeviceInfoContext):
    """Options of a model on Ascend devices, each a str; absent ones are the engine's own choice.

    Args:
        insert_op_cfg_path: file with operators to insert, for models of other formats than ONNX.
        input_format: layout of the inputs, likewise.
        input_shape: shapes of the inputs, likewise.
        output_type: "FP32", "UINT8" or "FP16", likewise.
        precision_mode: "force_fp16", "allow_fp32_to_fp16", "must_keep_origin_dtype" or "allow_mix_precision".
        op_select_impl_mode: "high_performance" or "high_precision".
        fusion_switch_config_path: file with fusion switches, for models of other formats than ONNX.
        buffer_optimize_mode: "l1_optimize", "l2_optimize", "off_optimize" or "l1_and_l2_optimize", likewise.
    """

    _device_type = "ascend"
    _options = _ASCEND_OPTIONS


class Context:
    """Threads and devices of a model, an argument of `declare_model`.

    Args:
        thread_num: threads that run one operator, ≥ 1. Default: the cores divided by the workers.
        thread_affinity_core_list: tuple or list of the cores for these threads. Default: any.
        enable_parallel: whether independent operators run at once. Default: False.
        graph_optimization: how far the engine rewrites the model when it is loaded: "off"; "basic", constants are
            folded and what is unused is left out; "extended", operators are also merged; "all", memory layouts are
            also changed. Default: "all".

    Attributes:
        model_context: the options that were given.

    Raises:
        ConfigError: an option that there is not, or a wrong value.
    """

    def __init__(self, **kwargs: Any) -> None:
        self.model_context = ModelContext()
        for name, value in kwargs.items():
            if name == "thread_num":
                self.model_context.thread_num = _check_thread_num(value)
            elif name == "thread_affinity_core_list":
                self.model_context.thread_affinity_core_list = checks.check_int_list(name, value, 0)
            elif name == "enable_parallel":
                self.model_context.enable_parallel = checks.check_bool(name, value)
            elif name == "graph_optimization":
                self.model_context.graph_optimization = _check_graph_optimization(value)
            else:
                raise ConfigError(f"Set context failed, unsupported option {name}")

    @property
    def context_map(self) -> dict[str, str]:
        """The options that were given, as texts."""
        values = {
            "thread_num": self.model_context.thread_num,
            "thread_affinity_core_list": self.model_context.thread_affinity_core_list or None,
            "enable_parallel": self.model_context.enable_parallel,
            "graph_optimization": self.model_context.graph_optimization,
        }
        return {name: str(value) for name, value in values.items() if value is not None}

    def append_device_info(self, device_info: DeviceInfoContext) -> None:
        """Adds the options for one type of device; they count when the model is loaded on such a device.

        Raises:
            ConfigError: no device info, or one of its type is there already.
        """
        if not isinstance(device_info, DeviceInfoContext):
            raise ConfigError(
                "Parameter 'device_info' should be CPUDeviceInfo, GPUDeviceInfo or AscendDeviceInfo, "
                f"but actually {type(device_info)}"
            )
        device_type = device_info.context_map["device_type"]
        if self.device_options(device_type):
            raise ConfigError(f"Device info of type {device_type} has already been appended")
        self.model_context.device_list.append(device_info.context_map)

    def device_options(self, device_type: str) -> dict[str, str]:
        """The options for ``device_type`` in any case, with "device_type" among them; empty if there are none."""
        for options in self.model_context.device_list:
            if options["device_type"] == device_type.lower():
                return options
        return {}

    def __repr__(self) -> str:
        return f"Context({self.context_map}, device_list={self.model_context.device_list})"


class AclOptions:
    """Deprecated: use `Context` with `AscendDeviceInfo`, whose options it takes."""

    def __init__(self, **kwargs: Any) -> None:
        self.context = _options_context("AclOptions", AscendDeviceInfo(**kwargs))


class GpuOptions:
    """Deprecated: use `Context` with `GPUDeviceInfo`, whose options it takes."""

    def __init__(self, **kwargs: Any) -> None:
        self.context = _options_context("GpuOptions", GPUDeviceInfo(**kwargs))


_GRAPH_OPTIMIZATIONS = ("off", "basic", "extended", "all")
_LARGEST_INT32 = 2**31 - 1


def _check_thread_num(value: Any) -> int:
    checks.check_int("thread_num", value, 1)
    return checks.check_int("thread_num", value, None, _LARGEST_INT32)


def _check_graph_optimization(value: Any) -> str:
    checks.check_str("graph_optimization", value)
    if value not in _GRAPH_OPTIMIZATIONS:
        choices = ", ".join(f"'{choice}'" for choice in _GRAPH_OPTIMIZATIONS)
        raise ConfigError(f"Parameter 'graph_optimization' can only be {choices}, but actually '{value}'")
    return str(value)


def _options_context(name: str, device_info: DeviceInfoContext) -> Context:
    instead = type(device_info).__name__
    warnings.warn(f"'{name}' is deprecated, use Context and {instead} instead", DeprecationWarning, stacklevel=3)
    context = Context()
    context.append_device_info(device_info)
    return context
