"""Declares methods: runs their functions once on placeholders and records the stages."""

from __future__ import annotations

import contextvars
import inspect
from collections.abc import Callable
from typing import Any, TypeVar

from mindserve import checks
from mindserve.errors import ConfigError
from mindserve.register.values import (
    METHOD_INPUT,
    Method,
    Model,
    Registration,
    Stage,
    ValueRef,
    current_registration,
    function_name,
)

_Function = TypeVar("_Function", bound=Callable[..., Any])


class Recording:
    """The stages of the method whose function is being run."""

    def __init__(self, function: Callable[..., Any], registration: Registration, streaming: bool = False) -> None:
        self.function = function
        self.streaming = streaming
        self.name = function_name(function)
        self.registration = registration
        self.stages: list[Stage] = []
        # What the deprecated functions have called, by their own rules.
        self.called: list[str] = []

    def add(self, stage: Stage) -> tuple[_TensorDef, ...]:
        self.stages.append(stage)
        return tuple(_TensorDef(self, ValueRef(len(self.stages) - 1, index)) for index in range(stage.outputs_count))

    def refs(self, values: Any, complaint: str) -> tuple[ValueRef, ...]:
        """Where ``values`` come from; ``complaint`` begins the error for what is no placeholder of this method."""
        refs: list[ValueRef] = []
        for index, value in enumerate(values):
            if not isinstance(value, _TensorDef) or value.recording is not self:
                given = "one of another method" if isinstance(value, _TensorDef) else str(type(value))
                raise ConfigError(
                    f"{complaint} the method inputs or the outputs of its stages, but value {index} of method "
                    f"'{self.name}' is {given}"
                )
            refs.append(value.ref)
        return tuple(refs)


class _TensorDef:
    """Stands for a value that an instance will have. Has no value itself: it can only be passed on or returned."""

    __slots__ = ("recording", "ref")

    def __init__(self, recording: Recording, ref: ValueRef) -> None:
        self.recording = recording
        self.ref = ref


def register_method(
    output_names: Any, *, idempotent: bool = True, streaming: bool = False
) -> Callable[[_Function], _Function]:
    """Declares the decorated function as a method of the servable.

    The function runs once, when it is declared, with placeholders for its inputs. What it does with them through
    `add_stage` becomes the method's stages, what it returns the method's outputs. Its parameters name the inputs.

    Args:
        output_names: a str, or a tuple or list of str: names of the outputs.
        idempotent: True, the default: a request that was executed in part or in whole may be executed again, so that
            the death of a worker goes unnoticed where another one can answer. False: once any stage may have begun
            with a request, the death of its worker is answered UNAVAILABLE, and it is never executed twice.
        streaming: True: the last stage is a generator function of one instance, or an asynchronous one; each item that
            it yields is a result, which `mindserve.client.Client.infer_stream` gives at once. The outputs are that
            stage's. It runs like a handler: on one of ``handler_threads``, or on the event loop; it is held back while
            its client has not taken what it yielded, and closed when nobody waits for it any more. Default False.

    Returns:
        A decorator that gives the function back.

    Raises:
        ConfigError: a wrong parameter, or a function that breaks the rules of `add_stage`.
    """
    outputs = checks.check_str_or_list("output_names", output_names)
    checks.check_bool("idempotent", idempotent)
    checks.check_bool("streaming", streaming)

    def decorate(function: _Function) -> _Function:
        registration = current_registration() or Registration("")
        recording = Recording(function, registration, streaming)
        name = recording.name
        inputs = _input_names(name, function)
        placeholders = [_TensorDef(recording, ValueRef(METHOD_INPUT, index)) for index in range(len(inputs))]
        returned = record(recording, placeholders)
        if recording.called and "call_servable" not in recording.called:
            raise ConfigError(f"Not find the invoke of 'call_servable' in method '{name}'")
        values = returned if isinstance(returned, tuple | list) else (returned,)
        results = recording.refs(values, "Each value returned is a placeholder for data and must come from")
        if len(results) != len(outputs):
            raise ConfigError(
                f"Method return output size {len(results)} not match registered {len(outputs)}, method '{name}'"
            )
        if streaming:
            _check_streaming(recording, results)
        registration.add_method(
            Method(name, tuple(inputs), outputs, tuple(recording.stages), results, idempotent, streaming)
        )
        return function

    return decorate


def add_stage(
    stage: Model | Callable[..., Any],
    *args: Any,
    outputs_count: int,
    batch_size: int | None = None,
    tag: str | None = None,
    timeout: float | None = None,
) -> Any:
    """Adds a stage to the method whose function is running.

    Args:
        stage: a model, or a Python function.
        args: the stage's inputs: placeholders that the method got, or that earlier stages gave.
        outputs_count: how many outputs the stage gives, ≥ 1.
        batch_size: of a function: None, the default, it takes one instance's inputs as its arguments and returns its
            outputs; 0, it takes a tuple of instances, each a tuple of its inputs, as many as the server likes, and
            returns or yields one result for each; n ≥ 1, at most n instances.
        tag: put before the errors of this stage. Default None: nothing.
        timeout: seconds, > 0, that one run of the model or one call of the function may take. One that takes longer
            hangs: the worker logs what it executes and every Python thread's stack, ends with exit status 71, and is
            replaced. Of a model or function in several stages the shortest counts. Default None: any time.

    Returns:
        One placeholder, or a tuple of them for ``outputs_count`` > 1.

    Raises:
        ConfigError: a wrong parameter; a stage outside a method; inputs that are no placeholders of this method; a
            function that takes another number of arguments.
    """
    recording = current_recording("add_stage")
    checks.check_int("outputs_count", outputs_count, 1, 65535)
    if batch_size is not None:
        checks.check_int("batch_size", batch_size, 0, 2**20)
    tag = "" if tag is None else checks.check_str("tag", tag)
    if timeout is not None:
        timeout = checks.check_seconds("timeout", timeout, zero=False)
    inputs = recording.refs(args, "Each value of parameter *args is a placeholder for data and must come from")
    if isinstance(stage, Model):
        batch_size = None
    elif callable(stage):
        check_function(stage, len(inputs), batched=batch_size is not None, streaming=recording.streaming)
    else:
        raise ConfigError(
            f"Parameter 'stage' should be function or Model returned by declare_model, but actually {type(stage)}"
        )
    outputs = recording.add(Stage(stage, inputs, outputs_count, batch_size, tag, timeout))
    return outputs[0] if outputs_count == 1 else outputs


def record(recording: Recording, placeholders: list[_TensorDef]) -> Any:
    """Runs a method's function on placeholders for its inputs, its stages going to ``recording``."""
    parameters = inspect.signature(recording.function).parameters.values()
    by_name = {
        parameter.name: value
        for parameter, value in zip(parameters, placeholders, strict=True)
        if parameter.kind is inspect.Parameter.KEYWORD_ONLY
    }
    token = _recording.set(recording)
    try:
        return recording.function(*placeholders[: len(placeholders) - len(by_name)], **by_name)
    finally:
        _recording.reset(token)


def current_recording(caller: str) -> Recording:
    """The method that is being recorded; ``caller`` names the function that needs one."""
    recording = _recording.get()
    if recording is None:
        raise ConfigError(f"'{caller}' should be called in a function that is decorated with 'register_method'")
    return recording


def check_function(function: Callable[..., Any], inputs_count: int, *, batched: bool, streaming: bool = False) -> None:
    """Whether a stage function takes what it will be given: its inputs, or for ``batched`` the instances.

    Of a ``streaming`` method one may be an asynchronous generator function.
    """
    name = function_name(function)
    if inspect.iscoroutinefunction(function) or (inspect.isasyncgenfunction(function) and not streaming):
        raise ConfigError(f"function {name} is asynchronous, a stage should be a plain function")
    try:
        parameters = inspect.signature(function).parameters.values()
    except ValueError:
        return  # Some builtin functions have no signature to ask.
    kind = inspect.Parameter
    positional = [p for p in parameters if p.kind in (kind.POSITIONAL_ONLY, kind.POSITIONAL_OR_KEYWORD)]
    for parameter in parameters:
        if parameter.kind is kind.KEYWORD_ONLY and parameter.default is kind.empty:
            raise ConfigError(f"function {name} has a keyword-only parameter '{parameter.name}', nothing fills it")
    required = sum(1 for p in positional if p.default is kind.empty)
    unbounded = any(p.kind is kind.VAR_POSITIONAL for p in parameters)
    count = 1 if batched else inputs_count
    if required <= count and (unbounded or count <= len(positional)):
        return
    if batched:
        raise ConfigError(
            f"function {name} input args count {len(positional)} not match the count 1: "
            "with 'batch_size' a function takes a tuple of instances"
        )
    raise ConfigError(
        f"function {name} input args count {len(positional)} not match the count {inputs_count} registered in method"
    )


def _check_streaming(recording: Recording, results: tuple[ValueRef, ...]) -> None:
    """Whether the last stage of a method is a generator that can be its answer, and no other one is."""
    name = recording.name
    if not recording.stages:
        raise ConfigError(
            f"Method '{name}' is streaming, its last stage should be a generator function, it has no stage"
        )
    *before, last = recording.stages
    for stage in before:
        if inspect.isasyncgenfunction(stage.target):
            raise ConfigError(
                f"function {function_name(stage.target)} is asynchronous, only the last stage of method '{name}' can be"
            )
    if isinstance(last.target, Model):
        raise ConfigError(
            f"Method '{name}' is streaming, its last stage should be a generator function, but actually is model "
            f"'{last.target.file}'"
        )
    function = function_name(last.target)
    if not (inspect.isgeneratorfunction(last.target) or inspect.isasyncgenfunction(last.target)):
        raise ConfigError(
            f"Method '{name}' is streaming, its last stage should be a generator function, but actually function "
            f"{function} has no 'yield'"
        )
    for parameter, value in (("batch_size", last.batch_size), ("timeout", last.timeout)):
        if value is not None:
            raise ConfigError(f"Parameter '{parameter}' should be None for the last stage of streaming method '{name}'")
    if any(result.stage != len(before) for result in results):
        raise ConfigError(f"Method '{name}' is streaming, its outputs should be those of its last stage, {function}")


def _input_names(name: str, function: Callable[..., Any]) -> list[str]:
    names: list[str] = []
    for parameter in inspect.signature(function).parameters.values():
        if parameter.kind in (inspect.Parameter.VAR_KEYWORD, inspect.Parameter.VAR_POSITIONAL):
            raise ConfigError(f"'{name}' input {parameter.name} cannot be {parameter.kind.name} !")
        names.append(parameter.name)
    return names


_recording: contextvars.ContextVar[Recording | None] = contextvars.ContextVar("recording", default=None)
