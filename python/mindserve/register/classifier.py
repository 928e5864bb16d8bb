"""Declares how a servable answers ``io.seldon.api.rpc.Classifier/Predict``."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from mindserve import checks
from mindserve.errors import ConfigError
from mindserve.register.values import Classifier, DataHandler, current_registration, function_name

_Handler = TypeVar("_Handler", bound=Callable[..., Any])


def classifier(
    method: str | None = None,
    *,
    output: str | None = None,
    classes: Sequence[str] | None = None,
    model_name: str | None = None,
    mapping: Callable[..., Any] | None = None,
    custom: type | None = None,
) -> None:
    """Says which method answers the Classifier, and what of its outputs is what of a ``ClassificationReply``.

    Of the outputs, ``prediction`` (or ``output``, ``probabilities``, ``probability``, or one that is the only one) has
    a number for each class; ``predictedClass`` (or ``predicted_class``), if there is one, their names;
    ``confidence`` their confidences, without which these are the predictions; ``custom`` is bytes, the reply's own
    ``custom``: a serialized ``google.protobuf.Any``, or what ``custom`` here says.

    Args:
        method: name of the method. Default None: the only one that has such outputs.
        output: name of the output with the numbers. Default None: as above.
        classes: names of the classes, in the order of the numbers. Default None: output ``predictedClass``, else the
            classes' numbers, from "0".
        model_name: the reply's ``modelName``. Default None: the servable's name.
        mapping: a function that is given the method's outputs and returns the predictions: one for each class, each a
            number, a tuple ``(prediction, predictedClass, confidence)`` or a dict of these; or a tuple of such a list
            and a message, or None, for ``custom``. Then outputs may have any names. Default None: none is called.
        custom: class of the message that output ``custom`` is serialized from. Default None: it is an ``Any``.

    Raises:
        ConfigError: a wrong parameter, or a second call. Whether method and outputs are there is looked at when a
            worker starts.
    """
    if method is not None:
        checks.check_str("method", method)
    if output is not None:
        checks.check_str("output", output)
    names = None if classes is None else checks.check_str_or_list("classes", classes)
    if model_name is not None:
        checks.check_str("model_name", model_name)
    if mapping is not None and not callable(mapping):
        raise ConfigError(f"Parameter 'mapping' should be a function, but actually {type(mapping)}")
    if mapping is not None and (output is not None or custom is not None):
        raise ConfigError(
            "Parameters 'output' and 'custom' can't be given with 'mapping', which returns all of a reply"
        )
    if custom is not None:
        message_type("custom", custom)
    registration = current_registration()
    if registration is None:
        return
    if registration.classifier is not None:
        raise ConfigError("'classifier' has been called already: a servable answers the Classifier by one method")
    registration.classifier = Classifier(method, output, names, model_name, mapping, custom)


def data_handler(message_class: type, *, fields: Sequence[str] | None = None) -> Callable[[_Handler], _Handler]:
    """Says that the Classifier takes messages of a class as ``data``, and what becomes of them.

    Called alone, the fields of the message are the method's inputs: each input the field of its name, or, if the method
    takes one input and no field has its name, that one a vector of all fields, in the order of their declaration. The
    fields are numbers, bool, str or bytes, or for an input of their name repeated ones of these. No Python is on a
    request's way then.

    As a decorator it makes a function the handler: it takes a message and returns what the method takes: a dict with
    the inputs by name; a tuple of them; an array or a number for the only one; or a ``pandas.DataFrame`` of one row,
    whose columns are the inputs by their names, or, for a method that takes one input, the elements of a vector. What
    it raises is answered with its text: INTERNAL, or INVALID_ARGUMENT if it is `InvalidInput`. A class with a method
    ``getData(request)``, as Seldon's ``CustomDataHandler`` has one, may be decorated too: each worker makes one object
    of it, and ``request`` is the ``ClassificationRequest`` as it came, with the ``meta.puid`` that it is answered with,
    which was made if the client gave none.

    Args:
        message_class: a class of a generated ``_pb2`` module.
        fields: without a handler, names of the fields to be used, in their order. Default None: all.

    Returns:
        A decorator that gives the function or class back.

    Raises:
        ConfigError: no message class, fields that it has not, or a class that has a handler already.
    """
    name = message_type("message_class", message_class)
    used = None if fields is None else checks.check_str_or_list("fields", fields)
    known = [field.name for field in message_class.DESCRIPTOR.fields]  # type: ignore[attr-defined]
    for field in used or ():
        if field not in known:
            raise ConfigError(f"Message '{name}' has no field '{field}', it has {', '.join(known) or 'none'}")
    registration = current_registration()
    if registration is not None:
        if name in registration.data_handlers:
            raise ConfigError(f"Message '{name}' has a data handler already")
        registration.data_handlers[name] = DataHandler(message_class, None, used)

    def decorate(function: _Handler) -> _Handler:
        if not callable(function):
            raise ConfigError(f"'data_handler' decorates functions and classes, but actually {type(function)}")
        if isinstance(function, type) and not callable(getattr(function, "getData", None)):
            raise ConfigError(
                f"'data_handler' decorates class '{function_name(function)}', which has no method 'getData(request)'"
            )
        if used is not None:
            raise ConfigError("Parameter 'fields' can't be given with a handler, which looks at the message itself")
        if registration is not None:
            registration.data_handlers[name] = DataHandler(message_class, function, None)
        return function

    return decorate


def message_type(parameter: str, value: Any) -> str:
    """The full name of a message class.

    Raises:
        ConfigError: it is none.
    """
    name = getattr(getattr(value, "DESCRIPTOR", None), "full_name", None)
    if not isinstance(value, type) or name is None or not hasattr(value, "FromString"):
        raise ConfigError(f"Parameter '{parameter}' should be a class of a protobuf message, but actually {value!r}")
    return str(name)
