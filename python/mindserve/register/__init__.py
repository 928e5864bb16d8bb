"""Declares a servable in its ``servable_config.py``: its models, its methods as graphs of stages, its gRPC handlers.

Example::

    from mindserve.server import register

    model = register.declare_model(model_file="add.onnx", model_format="ONNX", with_batch_dim=False)


    @register.register_method(output_names=["y"])
    def add_common(x1, x2):
        return register.add_stage(model, x1, x2, outputs_count=1)
"""

from mindserve.register.classifier import classifier, data_handler
from mindserve.register.context import (
    AclOptions,
    AscendDeviceInfo,
    Context,
    CPUDeviceInfo,
    GPUDeviceInfo,
    GpuOptions,
)
from mindserve.register.deprecated import (
    call_postprocess,
    call_postprocess_pipeline,
    call_preprocess,
    call_preprocess_pipeline,
    call_servable,
    declare_servable,
)
from mindserve.register.invalid_input import InvalidInput
from mindserve.register.method import add_stage, register_method
from mindserve.register.model import declare_model
from mindserve.register.multiplexing import multiplexed
from mindserve.register.request import get_multiplexed_model_id, get_request_id
from mindserve.register.servables import get_servable
from mindserve.register.services import driver, grpc_method, grpc_service
from mindserve.register.values import Model

__all__ = [
    "AclOptions",
    "AscendDeviceInfo",
    "CPUDeviceInfo",
    "Context",
    "GPUDeviceInfo",
    "GpuOptions",
    "InvalidInput",
    "Model",
    "add_stage",
    "call_postprocess",
    "call_postprocess_pipeline",
    "call_preprocess",
    "call_preprocess_pipeline",
    "call_servable",
    "classifier",
    "data_handler",
    "declare_model",
    "declare_servable",
    "driver",
    "get_multiplexed_model_id",
    "get_request_id",
    "get_servable",
    "grpc_method",
    "grpc_service",
    "multiplexed",
    "register_method",
]
