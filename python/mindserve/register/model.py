"""Declares models."""

from __future__ import annotations

import os
from typing import Any

from mindserve import checks
from mindserve.errors import ConfigError, later
from mindserve.register.context import AclOptions, Context, GpuOptions
from mindserve.register.values import Model, current_registration

_LATER_FORMATS = ("mindir", "mindir_lite", "mindir_opt", "om")


def declare_model(
    model_file: Any,
    model_format: str,
    with_batch_dim: bool = True,
    options: Any = None,
    without_batch_dim_inputs: Any = None,
    context: Context | None = None,
    config_file: str | None = None,
) -> Model:
    """Declares a model of the servable whose ``servable_config.py`` is being loaded.

    Args:
        model_file: the file's path inside the version directory. Several files in a tuple or list, the subgraphs of one
            model, are not yet supported.
        model_format: "ONNX", case ignored. MindIR formats are not yet supported.
        with_batch_dim: whether the first dimension of the inputs and outputs is the batch's. Default True.
        options: deprecated `AclOptions` or `GpuOptions`: use ``context``.
        without_batch_dim_inputs: an int, or a tuple or list of int: the inputs, counted from 0, that have no batch
            dimension though ``with_batch_dim`` is True. Default None: none.
        context: threads and devices. Default None: the defaults.
        config_file: options of MindIR models. Not yet supported.

    Returns:
        The model, to be given to `add_stage`.

    Raises:
        ConfigError: a wrong parameter, or a file that another model uses.
        UnsupportedError: a format or an option that comes in a later version.
    """
    files = checks.check_str_or_list("model_file", model_file)
    if not files:
        raise ConfigError("Parameter 'model_file' should not be empty")
    for file in files:
        if os.path.isabs(file) or ".." in file.split("/"):
            raise ConfigError(
                f"Parameter 'model_file' should be a path inside the version directory, but actually '{file}'"
            )
    model_format = checks.check_str("model_format", model_format)
    if model_format.lower() in _LATER_FORMATS:
        raise later(f"Model format '{model_format}' of model file '{files[0]}' (only 'ONNX' is there)")
    if model_format.lower() != "onnx":
        raise ConfigError(f"Unsupported model format '{model_format}' of model file '{files[0]}', only support 'ONNX'")
    if len(files) > 1:
        raise later("Parameter 'model_file' with several files (subgraphs)")
    checks.check_bool("with_batch_dim", with_batch_dim)
    if config_file is not None:
        checks.check_str("config_file", config_file)
        raise later("Parameter 'config_file'")
    inputs: tuple[int, ...] = ()
    if without_batch_dim_inputs is not None:
        inputs = checks.check_int_or_list("without_batch_dim_inputs", without_batch_dim_inputs, 0)
        if inputs and not with_batch_dim:
            raise ConfigError("Parameter 'without_batch_dim_inputs' needs 'with_batch_dim' to be True")
    if context is not None and not isinstance(context, Context):
        raise ConfigError(f"Parameter 'context' should be Context, but actually {type(context)}")
    if options is not None:
        if not isinstance(options, AclOptions | GpuOptions):
            raise ConfigError(f"Parameter 'options' should be AclOptions or GpuOptions, but actually {type(options)}")
        if context is not None:
            raise ConfigError("Parameter 'options' and parameter 'context' should not be given both")
        context = options.context
    model = Model(os.path.normpath(files[0]), with_batch_dim, inputs, context)
    registration = current_registration()
    if registration is not None:
        registration.add_model(model)
    return model
