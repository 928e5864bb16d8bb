"""The older way to declare a servable of one model: deprecated, `declare_model` and `add_stage` do more.

A method calls `call_preprocess` or `call_preprocess_pipeline`, `call_servable`, and `call_postprocess` or
`call_postprocess_pipeline`, each at most once and in this order. How many outputs a call gives is read from the source
text: the names to its left.
"""

from __future__ import annotations

import ast
import inspect
import itertools
import textwrap
import warnings
from collections.abc import Callable
from typing import Any

from mindserve.errors import ConfigError
from mindserve.register.method import Recording, check_function, current_recording
from mindserve.register.model import declare_model
from mindserve.register.values import Model, Stage, function_name

_PREPROCESS = ("call_preprocess", "call_preprocess_pipeline")
_SERVABLE = ("call_servable",)
_POSTPROCESS = ("call_postprocess", "call_postprocess_pipeline")
_ORDER = (_PREPROCESS, _SERVABLE, _POSTPROCESS)
_PLAIN_STATEMENTS = (ast.Assign, ast.AnnAssign, ast.Expr, ast.Return, ast.Pass)


def declare_servable(
    servable_file: Any,
    model_format: str,
    with_batch_dim: bool = True,
    options: Any = None,
    without_batch_dim_inputs: Any = None,
) -> Model:
    """Deprecated: `declare_model`, with the same arguments."""
    _warn("declare_servable", "declare_model", 1)
    return declare_model(servable_file, model_format, with_batch_dim, options, without_batch_dim_inputs)


def call_preprocess(preprocess_fun: Callable[..., Any], *args: Any) -> Any:
    """Deprecated: `add_stage` with a function that takes one instance's inputs."""
    return _call_function("call_preprocess", preprocess_fun, args, batch_size=None, tag="Preprocess")


def call_preprocess_pipeline(preprocess_fun: Callable[..., Any], *args: Any) -> Any:
    """Deprecated: `add_stage` with a function that takes instances, ``batch_size=0``."""
    return _call_function("call_preprocess_pipeline", preprocess_fun, args, batch_size=0, tag="Preprocess")


def call_servable(*args: Any) -> Any:
    """Deprecated: `add_stage` with the only model that is declared."""
    recording = _enter("call_servable", 2)
    models = recording.registration.models
    if not models:
        raise ConfigError("There is no model declared, you can use declare_model to declare models")
    if len(models) > 1:
        raise ConfigError("There are more than one servable declared, use 'add_stage' to replace 'call_servable'")
    return _add(recording, "call_servable", models[0], args, None, "")


def call_postprocess(postprocess_fun: Callable[..., Any], *args: Any) -> Any:
    """Deprecated: `add_stage` with a function that takes one instance's inputs."""
    return _call_function("call_postprocess", postprocess_fun, args, batch_size=None, tag="Postprocess")


def call_postprocess_pipeline(postprocess_fun: Callable[..., Any], *args: Any) -> Any:
    """Deprecated: `add_stage` with a function that takes instances, ``batch_size=0``."""
    return _call_function("call_postprocess_pipeline", postprocess_fun, args, batch_size=0, tag="Postprocess")


def _call_function(
    name: str, function: Callable[..., Any], args: tuple[Any, ...], *, batch_size: int | None, tag: str
) -> Any:
    recording = _enter(name, 3)
    if not callable(function):
        raise ConfigError(f"The first parameter of '{name}' should be function, but actually {type(function)}")
    check_function(function, len(args), batched=batch_size is not None)
    return _add(recording, name, function, args, batch_size, tag)


def _enter(name: str, depth: int) -> Recording:
    """The method being recorded, if ``name`` may be called now."""
    _warn(name, "add_stage", depth)
    recording = current_recording(name)
    group = next(group for group in _ORDER if name in group)
    if any(called in group for called in recording.called):
        also = "".join(f", nor with {other}" for other in group if other != name)
        raise ConfigError(f"{name} should not be invoked more than once{also}, method '{recording.name}'")
    later = [called for called in recording.called if called in itertools.chain(*_ORDER[_ORDER.index(group) + 1 :])]
    if later:
        raise ConfigError(f"{later[0]} should be invoked after {name}, method '{recording.name}'")
    return recording


def _add(recording: Recording, name: str, target: Any, args: tuple[Any, ...], batch_size: int | None, tag: str) -> Any:
    inputs = recording.refs(args, "Each value of parameter *args is a placeholder for data and must come from")
    count = _outputs_count(recording.function, name)
    recording.called.append(name)
    outputs = recording.add(Stage(target, inputs, count or 1, batch_size, tag))
    return outputs[0] if count is None else outputs


def _outputs_count(function: Callable[..., Any], name: str) -> int | None:
    """How many names take the outputs of the call of ``name`` in a method's source; None: one name, or no unpacking."""
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(function)))
    except (OSError, TypeError, SyntaxError) as error:
        raise ConfigError(
            f"The source of method '{function_name(function)}' can't be read ({error}), which '{name}' needs: "
            f"use 'add_stage' to replace '{name}'"
        ) from error
    definition = tree.body[0]
    if not isinstance(definition, ast.FunctionDef):
        raise ConfigError(f"'{name}' should be called in a function, use 'add_stage' to replace '{name}'")
    body = definition.body
    if any(not isinstance(statement, _PLAIN_STATEMENTS) for statement in body):
        raise ConfigError(
            "complex statements such as conditions and loops are not supported in register_method when the "
            f"interface '{name}' is used, use 'add_stage' to replace '{name}'"
        )
    for statement in body:
        if isinstance(statement, ast.Assign) and _calls(statement.value, name):
            target = statement.targets[0]
            return len(target.elts) if isinstance(target, ast.Tuple | ast.List) else None
    return None


def _calls(value: ast.expr, name: str) -> bool:
    if not isinstance(value, ast.Call):
        return False
    function = value.func
    return (isinstance(function, ast.Name) and function.id == name) or (
        isinstance(function, ast.Attribute) and function.attr == name
    )


def _warn(name: str, instead: str, depth: int) -> None:
    """``depth``: how many calls lie between this and the servable's own."""
    warnings.warn(f"'{name}' is deprecated, use '{instead}' instead", DeprecationWarning, stacklevel=depth + 2)
