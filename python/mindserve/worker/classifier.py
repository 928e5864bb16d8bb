"""How a servable answers the Classifier: which method does, what it makes of messages, and of that method's outputs."""

from __future__ import annotations

import base64
import dataclasses
import functools
import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from mindserve import logs
from mindserve.control import ReadyMethod, TensorType
from mindserve.errors import ConfigError
from mindserve.proto import CLASSIFY
from mindserve.register.values import METHOD_INPUT, Classifier, Method, Registration, Stage, ValueRef
from mindserve.worker.classifier_data import adapt_handler, takes_request
from mindserve.worker.classifier_fields import Fields, has_numbers_alone, map_fields
from mindserve.worker.classifier_reply import REPLY_OUTPUTS, adapt_mapping

# Bytes of proto files that the master is told: they are part of a line.
_MOST_FILES = 512 * 1024
_PREDICTION = ("prediction", "probabilities", "probability")
_CLASSES = ("predictedClass", "predicted_class")
_CONFIDENCE = "confidence"
_CUSTOM = "custom"

_log = logs.get_logger("worker")


@dataclasses.dataclass(frozen=True)
class HandledType:
    """A message that a function makes inputs of.

    Attributes:
        label: names the function in errors.
        make: makes what takes the message's bytes, or the request's and its puid, and returns the inputs; it makes the
            object of a handler's class.
        takes_request: the latter.
        fixed: the message has single numbers alone: of what type and size inputs are is not its sender's choice.
        stages: of the method whose first stage is that function, all that follow.
        results: its results.
    """

    label: str
    make: Callable[[], Callable[..., Any]]
    takes_request: bool
    fixed: bool
    stages: tuple[Stage, ...]
    results: tuple[ValueRef, ...]


@dataclasses.dataclass(frozen=True)
class Plan:
    """What the native runtime is told.

    Attributes:
        answers: name of the method that answers.
        method: the same, under the name of its path, and with the mapping behind it.
        outputs: which of its outputs are predictions, classes, confidences and ``custom``.
        classes: names of classes, of which a reply has as many; none: an output has them, or they are numbers.
        model_name: what replies call the model.
        custom_type: full name of the message that output ``custom`` is; empty: an Any.
        fields: of messages that are read natively, by their types.
        handlers: of the others.
        files: of all these messages, as `ReadyMethod` has them.
    """

    answers: str
    method: Method
    outputs: tuple[int, int | None, int | None, int | None]
    classes: tuple[str, ...]
    model_name: str
    custom_type: str
    fields: Mapping[str, Fields]
    handlers: Mapping[str, HandledType]
    files: tuple[str, ...]

    def describe(self) -> ReadyMethod:
        """The method as the master is told of it."""
        return ReadyMethod(
            self.method.name,
            self.method.idempotent,
            messages=tuple(sorted((*self.fields, *self.handlers))),
            files=self.files,
        )


def plan_classifier(registration: Registration, described: Callable[[Method], ReadyMethod]) -> Plan:
    """What a servable that answers the Classifier has declared of it. Runs no code of the servable's.

    Args:
        registration: all that it has declared.
        described: tells of a method what is known of its inputs' types.

    Raises:
        ConfigError: there is no such method, or not one alone; its outputs, or a message's fields, don't fit.
    """
    declared = registration.classifier or Classifier()
    target = _find_method(registration, declared)
    method = dataclasses.replace(target, name=CLASSIFY)
    if declared.mapping is not None:
        method = _mapped(method, declared, registration)
        outputs: tuple[int, int | None, int | None, int | None] = (0, 1, 2, 3)
    else:
        outputs = _find_outputs(target, declared)
        if outputs[1] is not None and declared.classes is not None:
            raise ConfigError(
                f"Parameter 'classes' of 'classifier' can't be given: output '{target.outputs[outputs[1]]}' of method "
                f"'{target.name}' has the classes' names"
            )
    known = described(target)
    if declared.mapping is None and known.output_types:
        _check_prediction(target, known.output_types[outputs[0]], outputs[0], declared.classes)
    types = known.input_types or (None,) * len(target.inputs)
    fields: dict[str, Fields] = {}
    handlers: dict[str, HandledType] = {}
    for name, handler in registration.data_handlers.items():
        if handler.function is None:
            fields[name] = map_fields(handler, target, types)
            continue
        label = registration.function_label(handler.function)
        handlers[name] = HandledType(
            label,
            functools.partial(adapt_handler, handler, handler.function, target, types, label),
            takes_request(handler.function),
            has_numbers_alone(handler.type),
            tuple(map(_behind, method.stages)),
            tuple(_moved(ref) for ref in method.results),
        )
    return Plan(
        target.name,
        method,
        outputs,
        declared.classes or (),
        declared.model_name or registration.servable_name,
        "" if declared.custom is None else declared.custom.DESCRIPTOR.full_name,  # type: ignore[attr-defined]
        fields,
        handlers,
        _files_of([each.type for each in registration.data_handlers.values()], declared.custom),
    )


def _files_of(messages: Iterable[type], custom: type | None) -> tuple[str, ...]:
    """The messages' proto files, each after those that it imports."""
    found: dict[str, str] = {}

    def add(file: Any) -> None:
        if file.name in found:
            return
        for imported in file.dependencies:
            add(imported)
        found[file.name] = base64.b64encode(file.serialized_pb).decode()

    for each in (*messages, *(() if custom is None else (custom,))):
        add(each.DESCRIPTOR.file)
    files = tuple(found.values())
    if sum(map(len, files)) <= _MOST_FILES:
        return files
    _log.warning(
        "the proto files of the Classifier's messages come to more than %d bytes: POST /js/predict can't take them",
        _MOST_FILES,
    )
    return ()


def _find_method(registration: Registration, declared: Classifier) -> Method:
    methods = registration.methods
    if declared.method is not None:
        method = methods.get(declared.method)
        if method is None:
            raise ConfigError(
                f"'classifier' names method '{declared.method}', which is not registered; there is "
                f"{_quoted(methods) or 'none'}"
            )
        if method.streaming:
            raise ConfigError(f"'classifier' names method '{method.name}', which is streaming: a reply is one message")
        return method
    plain = [method for method in methods.values() if not method.streaming]
    if declared.mapping is None:
        fits = [method for method in plain if _prediction(method, declared.output) is not None]
    else:
        fits = plain
    if len(fits) == 1:
        return fits[0]
    if fits:
        raise ConfigError(
            f"The Classifier can be answered by the methods {_quoted(each.name for each in fits)}: say which one by "
            "register.classifier(method=...)"
        )
    raise ConfigError(
        f"The Classifier can be answered by no method, there is {_quoted(each.name for each in plain) or 'none'}: "
        f"one needs an output '{declared.output or _PREDICTION[0]}', or just one output; or say by "
        "register.classifier(method=..., output=...) or register.classifier(method=..., mapping=...) what it answers"
    )


def _prediction(method: Method, named: str | None) -> int | None:
    if named is not None:
        return method.outputs.index(named) if named in method.outputs else None
    for name in _PREDICTION:
        if name in method.outputs:
            return method.outputs.index(name)
    others = [index for index, name in enumerate(method.outputs) if name != _CUSTOM]
    return others[0] if len(others) == 1 else None


def _find_outputs(method: Method, declared: Classifier) -> tuple[int, int | None, int | None, int | None]:
    prediction = _prediction(method, declared.output)
    if prediction is None:
        raise ConfigError(
            f"'classifier' needs to know which output of method '{method.name}' has a number for each class: it has "
            f"{_quoted(method.outputs)}, say which one by register.classifier(output=...)"
        )

    def find(*names: str) -> int | None:
        return next((method.outputs.index(name) for name in names if name in method.outputs), None)

    custom = find(_CUSTOM)
    if declared.custom is not None and custom is None:
        raise ConfigError(
            f"Parameter 'custom' of 'classifier' says what output '{_CUSTOM}' is, which method '{method.name}' has "
            f"not: it has {_quoted(method.outputs)}"
        )
    return prediction, find(*_CLASSES), find(_CONFIDENCE), custom


def _check_prediction(method: Method, known: TensorType | None, output: int, classes: tuple[str, ...] | None) -> None:
    """Raises `ConfigError` for an output that a model says is no line of numbers, or not one for each class."""
    if known is None:
        return
    given = f"Output '{method.outputs[output]}' of method '{method.name}' is {known.type} of shape {list(known.shape)}"
    if known.type == "str" or sum(size not in (1, -1) for size in known.shape) > 1:
        raise ConfigError(
            f"{given}: the Classifier needs numbers in one dimension, one for each class; say by "
            "register.classifier(output=...) which output has them, or make them by register.classifier(mapping=...)"
        )
    if classes is not None and -1 not in known.shape and math.prod(known.shape) != len(classes):
        raise ConfigError(f"{given}: parameter 'classes' of 'classifier' has {len(classes)} names, one for each number")


def _mapped(method: Method, declared: Classifier, registration: Registration) -> Method:
    """With the mapping function as its last stage."""
    assert declared.mapping is not None
    label = registration.function_label(declared.mapping)
    stage = Stage(adapt_mapping(declared.mapping, declared.classes, label), method.results, len(REPLY_OUTPUTS))
    stages = (*method.stages, stage)
    results = tuple(ValueRef(len(stages) - 1, index) for index in range(len(REPLY_OUTPUTS)))
    return dataclasses.replace(method, outputs=REPLY_OUTPUTS, stages=stages, results=results)


def _behind(stage: Stage) -> Stage:
    """The stage of a method that has one more in front, whose outputs are the method's inputs."""
    return dataclasses.replace(stage, inputs=tuple(map(_moved, stage.inputs)))


def _moved(ref: ValueRef) -> ValueRef:
    return ValueRef(0 if ref.stage == METHOD_INPUT else ref.stage + 1, ref.index)


def _quoted(names: Iterable[str]) -> str:
    return ", ".join(f"'{name}'" for name in names)
