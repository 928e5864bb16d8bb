"""Makes a native runtime out of what a servable has declared."""

from __future__ import annotations

import dataclasses
import os
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mindserve import engines, logs
from mindserve.config import find_version, missing_version
from mindserve.control import ReadyMethod, ReadyService, WorkerParameters
from mindserve.errors import ConfigError, StartError
from mindserve.loader import load_servable
from mindserve.register.context import ModelContext
from mindserve.register.invalid_input import InvalidInput
from mindserve.register.values import METHOD_INPUT, Method, Model, Registration, Stage, ValueRef
from mindserve.worker.model_calls import bind_models, lazy_loops
from mindserve.worker.multiplexing import announce_models
from mindserve.worker.streaming import stream_handler
from mindserve.worker.tensor_types import TensorTypes

if TYPE_CHECKING:
    from mindserve._native import Runtime
    from mindserve.worker.answering import Handler
    from mindserve.worker.async_calls import Loops
    from mindserve.worker.classifier import HandledType, Plan

_StageTuple = tuple[str, int, Sequence[tuple[int, int]], int, str]

# Of CANN's options, those that there are for ONNX models; the others belong to the formats of MindIR.
_CANN_OPTIONS = ("precision_mode", "op_select_impl_mode")
# What stands in place of a large file where it was not fetched (https://github.com/git-lfs/git-lfs/blob/main/docs/spec.md).
_LFS_POINTER = b"version https://git-lfs.github.com/spec/"
# What it says of a model that it does not know yet, and what to tell instead.
_TOO_NEW = (
    (
        re.compile(
            r"Opset (?P<is>\d+) is under development.* domain (?P<domain>\S+) is till opset (?P<most>\d+)", re.DOTALL
        ),
        "the model is of opset {is} of {domain}, and ONNX Runtime knows opsets up to {most}: convert it to one",
    ),
    (
        re.compile(r"Unsupported model IR version: (?P<is>\d+), max supported IR version: (?P<most>\d+)"),
        "the model is of version {is} of the ONNX format, and ONNX Runtime knows versions up to {most}: save it as one",
    ),
)
_ORT_SOURCE = re.compile(r"/\S*/onnxruntime/\S+\.(?:cc|h):\d+ .*?\) (?=\S)")

_log = logs.get_logger("worker")


@dataclasses.dataclass(frozen=True)
class BuiltRuntime:
    """What a runtime serves.

    Attributes:
        methods: in the order of their numbers: Predict's, then those of gRPC services.
        functions: number and name of each stage function, for which the worker runs a thread.
        services: the gRPC services.
        handlers: what answers them, by their numbers.
    """

    methods: tuple[ReadyMethod, ...]
    functions: tuple[tuple[int, str], ...]
    services: tuple[ReadyService, ...]
    handlers: Mapping[int, Handler]


def build_runtime(runtime: Runtime, parameters: WorkerParameters, report: Callable[[str], None]) -> BuiltRuntime:
    """Imports the servable, loads its models, and adds everything to ``runtime``.

    Args:
        runtime: a new one.
        parameters: what to serve.
        report: told of each phase as it begins.

    Raises:
        ConfigError: what is wrong with the servable.
        StartError: a model, or what runs it, can't be loaded.
    """
    report("importing servable_config.py")
    registration = load_servable(parameters.servable_directory, parameters.servable_name)
    timeouts = _timeouts(registration)
    models = _load_models(runtime, registration, parameters, timeouts, report)
    builder = _MethodBuilder(runtime, registration, parameters, models, timeouts)
    plain = [method for method in registration.methods.values() if not method.streaming]
    for method in plain:
        builder.add(method)
    types = TensorTypes(runtime, models)
    methods = [types.describe(each) for each in plain]
    plan = None
    if registration.answers_classifier:
        # Only now: it imports protobuf.
        from mindserve.worker.classifier import plan_classifier

        plan = plan_classifier(registration, types.describe)
        methods.append(plan.describe())
        number = builder.add(plan.method)
    loops = lazy_loops()
    bind_models(runtime, models, loops)
    if plan is not None:
        builder.set_classifier(number, plan)
    for model, index in models.items():
        report(f"warming up {model.file}")
        _warm_up(runtime, model, index, parameters)
    streaming = [method for method in registration.methods.values() if method.streaming]
    streams = [builder.stream_handler(method, loops) for method in streaming]
    answering: list[Handler] = []
    services: tuple[ReadyService, ...] = ()
    if registration.has_grpc_handlers:
        # Only now: it imports protobuf.
        from mindserve.worker.services import describe_services, find_handlers

        answering = find_handlers(registration, report)
        services = describe_services(answering)
    handlers = [*streams, *answering]
    if handlers:
        announce_models(registration.multiplexed, runtime.set_model)
    methods += [
        dataclasses.replace(types.describe(method), name=handler.path)
        for method, handler in zip(streaming, streams, strict=True)
    ]
    methods += [ReadyMethod(handler.path, handler.idempotent) for handler in answering]
    numbered = {_add_handler(runtime, handler): handler for handler in handlers}
    return BuiltRuntime(tuple(methods), tuple(builder.functions), services, numbered)


def _add_handler(runtime: Runtime, handler: Handler) -> int:
    streams = handler.client_streaming or handler.server_streaming
    natively = not (streams or handler.on_loop or handler.context is not None)
    return runtime.add_handler(
        handler.path,
        idempotent=handler.idempotent,
        client_streaming=handler.client_streaming,
        server_streaming=handler.server_streaming,
        on_loop=handler.on_loop,
        unary=(handler.request_type.FromString, handler.function, handler.response_type) if natively else None,
    )


def _timeouts(registration: Registration) -> dict[int, float]:
    """The shortest timeout of the stages that use a model or function, in seconds, by its id; for those with one."""
    timeouts: dict[int, float] = {}
    for method in registration.methods.values():
        for stage in method.stages:
            if stage.timeout is not None:
                target = id(stage.target)
                timeouts[target] = min(stage.timeout, timeouts.get(target, stage.timeout))
    return timeouts


def _load_models(
    runtime: Runtime,
    registration: Registration,
    parameters: WorkerParameters,
    timeouts: Mapping[int, float],
    report: Callable[[str], None],
) -> dict[Model, int]:
    if not registration.models:
        return {}
    directory, name = parameters.servable_directory, parameters.servable_name
    if find_version(directory, name, parameters.version) is None:
        raise missing_version(directory, name, parameters.version_asked)
    version_directory = Path(directory) / name / str(parameters.version)
    report("loading ONNX Runtime")
    device_type = engines.open_engine(runtime, parameters.device_type, servable_name=name)
    models: dict[Model, int] = {}
    for model in registration.models:
        report(f"loading model {model.file}")
        path = version_directory / model.file
        models[model] = _load_model(runtime, model, path, device_type, parameters, timeouts.get(id(model), 0.0))
    return models


def _load_model(
    runtime: Runtime, model: Model, path: Path, device_type: str, parameters: WorkerParameters, timeout: float
) -> int:
    context = model.context.model_context if model.context else ModelContext()
    options = model.context.device_options(device_type) if model.context else {}
    if device_type == "Ascend":
        for name in options:
            if name not in (*_CANN_OPTIONS, "device_type"):
                _log.warning("model file '%s': option '%s' is not used for ONNX models", model.file, name)
    try:
        if not path.is_file():
            what = "is no regular file" if path.exists() or path.is_symlink() else "not exist"
            raise StartError(f"model file '{path}' {what}")
        return runtime.load_model(
            str(path),
            name=model.file,
            device_type=device_type,
            device_id=parameters.device_id,
            intra_op_threads=context.thread_num or parameters.intra_op_threads,
            parallel=bool(context.enable_parallel),
            affinity=context.thread_affinity_core_list,
            fp16=options.get("precision_mode") == "fp16",
            optimization=context.graph_optimization or "all",
            provider_options=(
                {name: options[name] for name in _CANN_OPTIONS if name in options} if device_type == "Ascend" else {}
            ),
            with_batch_dim=model.with_batch_dim,
            without_batch_dim_inputs=model.without_batch_dim_inputs,
            max_batch_size=parameters.max_batch_size,
            max_queue_delay_us=parameters.max_queue_delay_us,
            timeout=timeout,
        )
    except RuntimeError as error:
        raise StartError(f"Load model failed, {_where(model, parameters)}: {_reason(error, path)}") from error


def _reason(error: RuntimeError, path: Path) -> str:
    """Why a model can't be loaded: as ONNX Runtime says, but in plain words for models that are too new for it."""
    text = str(error)
    for pattern, plain in _TOO_NEW:
        if found := pattern.search(text):
            return f"{plain.format(**found.groupdict())}, or install a newer ONNX Runtime"
    # Without what its caller says too, and places in ONNX Runtime's sources.
    text = text.removeprefix("Load model failed, ").replace(f"Load model from {path} failed:", "")
    advice = _advice(path) if "Protobuf parsing failed" in text else ""
    return _ORT_SOURCE.sub("", text) + advice


def _advice(path: Path) -> str:
    """On a file that is no ONNX model."""
    try:
        with path.open("rb") as file:
            begin = file.read(len(_LFS_POINTER))
            size = os.fstat(file.fileno()).st_size
    except OSError:
        return ""  # it is not there any more
    if begin == _LFS_POINTER:
        return " It is a pointer of Git LFS: 'git lfs pull' fetches the model"
    return f" An ONNX model is expected, and it has {size} bytes: is it another format, or cut off?"


def _warm_up(runtime: Runtime, model: Model, number: int, parameters: WorkerParameters) -> None:
    try:
        impossible = runtime.warm_up(number)
    except RuntimeError as error:
        raise StartError(f"Load model failed, {_where(model, parameters)}: {error}") from error
    if impossible:
        _log.warning("model file '%s' is not warmed up: %s; its first requests will be slower", model.file, impossible)


def _where(model: Model, parameters: WorkerParameters) -> str:
    return (
        f"servable directory: '{parameters.servable_directory}', servable name: '{parameters.servable_name}', "
        f"model file: '{model.file}', version number: {parameters.version}"
    )


class _MethodBuilder:
    """Adds methods to a runtime, and the functions that their stages need."""

    def __init__(
        self,
        runtime: Runtime,
        registration: Registration,
        parameters: WorkerParameters,
        models: dict[Model, int],
        timeouts: Mapping[int, float],
    ) -> None:
        self.functions: list[tuple[int, str]] = []
        self._runtime = runtime
        self._registration = registration
        self._parameters = parameters
        self._models = models
        self._timeouts = timeouts
        self._numbers: dict[tuple[int, int | None], int] = {}

    def add(self, method: Method) -> int:
        """The method's number."""
        stages = [self._stage(method, stage) for stage in method.stages]
        return self._runtime.add_method(
            method.name,
            method.inputs,
            method.outputs,
            stages,
            [ref.as_native() for ref in method.results],
            idempotent=method.idempotent,
        )

    def set_classifier(self, number: int, plan: Plan) -> None:
        """Says how the method of this number answers the Classifier; comes after all `add`."""
        method = plan.method
        self._runtime.set_classifier(
            number,
            model_name=plan.model_name,
            outputs=plan.outputs,
            classes=plan.classes,
            custom_type=plan.custom_type,
            fields=plan.fields,
            handlers={name: self._handled(method, handled) for name, handled in plan.handlers.items()},
        )

    def _handled(
        self, method: Method, handled: HandledType
    ) -> tuple[Sequence[_StageTuple], Sequence[tuple[int, int]], bool, bool]:
        from mindserve.worker.classifier_data import RefusedDataError

        inputs = len(method.inputs)
        function = self._runtime.add_function(
            handled.label,
            handled.make(),
            batched=False,
            max_batch_size=self._parameters.max_batch_size,
            invalid_input=InvalidInput,
            refusal=RefusedDataError,
        )
        self.functions.append((function, handled.label))
        given = [ValueRef(METHOD_INPUT, index).as_native() for index in range(2 if handled.takes_request else 1)]
        first = ("function", function, given, inputs, "")
        stages = [first, *(self._stage(method, stage) for stage in handled.stages)]
        return stages, [ref.as_native() for ref in handled.results], handled.takes_request, handled.fixed

    def stream_handler(self, method: Method, loops: Callable[[], Loops]) -> Handler:
        """What answers a method that streams; comes after all `add`."""
        *before, last = method.stages
        stages = [self._stage(method, stage) for stage in before]
        assert not isinstance(last.target, Model)
        label = self._registration.function_label(last.target)
        return stream_handler(self._runtime, method, stages, label, loops)

    def _stage(self, method: Method, stage: Stage) -> _StageTuple:
        if isinstance(stage.target, Model):
            kind, number = "model", self._model(method, stage, stage.target)
        else:
            kind, number = "function", self._function(stage.target, stage.batch_size)
        tag = f"{stage.tag} Failed" if stage.tag else ""
        return kind, number, [ref.as_native() for ref in stage.inputs], stage.outputs_count, tag

    def _model(self, method: Method, stage: Stage, model: Model) -> int:
        number = self._models.get(model)
        if number is None:
            raise ConfigError(
                f"Method '{method.name}' uses model file '{model.file}', which this servable has not declared"
            )
        inputs = len(self._runtime.model_inputs(number))
        outputs = len(self._runtime.model_outputs(number))
        for what, registered, defined in (
            ("inputs", len(stage.inputs), inputs),
            ("outputs", stage.outputs_count, outputs),
        ):
            if registered != defined:
                raise ConfigError(
                    f"The {what} count {registered} in register_method not equal to the count {defined} defined in "
                    f"model, method '{method.name}', {_where(model, self._parameters)}"
                )
        return number

    def _function(self, function: Callable[..., Any], batch_size: int | None) -> int:
        # Stages that use a function alike share its queue and its thread.
        key = (id(function), batch_size)
        number = self._numbers.get(key)
        if number is None:
            label = self._registration.function_label(function)
            number = self._runtime.add_function(
                label,
                function,
                batched=batch_size is not None,
                max_batch_size=batch_size or self._parameters.max_batch_size,
                max_queue_delay_us=self._parameters.max_queue_delay_us if batch_size is not None else 0,
                timeout=self._timeouts.get(id(function), 0.0),
                invalid_input=InvalidInput,
            )
            self._numbers[key] = number
            self.functions.append((number, label))
        return number
