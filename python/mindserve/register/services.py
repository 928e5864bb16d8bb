"""Declares what answers the methods of gRPC services: functions, classes, and the driver.

Which methods these are is found out when the servable has been imported, and its generated modules with it.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import Any, TypeVar, overload

from mindserve import checks
from mindserve.errors import ConfigError
from mindserve.register.values import (
    GrpcDriver,
    GrpcFunction,
    GrpcService,
    current_registration,
    function_name,
)

_Function = TypeVar("_Function", bound=Callable[..., Any])
_Class = TypeVar("_Class", bound=type)
_Driver = TypeVar("_Driver", bound=Callable[..., Any])


@overload
def grpc_method(method: _Function, /) -> _Function: ...
@overload
def grpc_method(
    method: str | None = None, /, *, service: str | None = None, idempotent: bool = False
) -> Callable[[_Function], _Function]: ...
def grpc_method(method: Any = None, /, *, service: str | None = None, idempotent: bool = False) -> Any:
    """Declares a function as what answers a method of a gRPC service.

    The function takes the request and returns the response, both messages of the generated ``_pb2`` module. Where the
    client streams it takes an iterator of requests, a coroutine or an async generator an async iterator; where the
    server streams it is a generator, or returns an iterable. With a parameter ``grpc_context`` it is given the call's
    context.

    Args:
        method: name of the RPC, case included. Default: the function's own name.
        service: full name of the service, "pkg.Service". Default None: the services of the generated modules that
            servable_config.py has imported are searched for the method.
        idempotent: to execute a call again does no harm: if the worker dies, another one may answer in its place.
            Default False: a call whose function may have begun is never executed again.

    Returns:
        The function itself, or for a name or options a decorator that gives it back.

    Raises:
        ConfigError: a wrong parameter, or a function that can't be a handler.
    """
    if callable(method):
        return _add_function(method, None, None, False)
    name = None if method is None else checks.check_str("method", method)
    service = None if service is None else _service_name(service)
    checks.check_bool("idempotent", idempotent)
    return lambda function: _add_function(function, name, service, idempotent)


@overload
def grpc_service(service: _Class, /) -> _Class: ...
@overload
def grpc_service(service: str | None = None, /, *, idempotent: Sequence[str] = ()) -> Callable[[_Class], _Class]: ...
def grpc_service(service: Any = None, /, *, idempotent: Sequence[str] = ()) -> Any:
    """Declares a class as what answers a gRPC service: its methods are those of the service by their names.

    Each worker makes one object of the class, without arguments, before it serves; what the constructor raises ends the
    worker's start. Methods are as functions are for `grpc_method`. Attributes whose names are no RPC's are its own
    affair.

    A subclass of a generated ``XServicer`` answers the methods that it overrides, each with ``(request, context)``.

    Args:
        service: full name of the service, "pkg.Service". Default: of an ``XServicer``, its own; else those services of
            the generated modules that servable_config.py has imported which have methods of such names.
        idempotent: names of the methods that may be executed again; see `grpc_method`. Default: none.

    Returns:
        The class itself, or for a name or options a decorator that gives it back.

    Raises:
        ConfigError: a wrong parameter, or no class.
    """
    if isinstance(service, type):
        return _add_class(service, None, ())
    name = None if service is None else _service_name(service)
    names = checks.check_str_or_list("idempotent", idempotent)
    return lambda decorated: _add_class(decorated, name, names)


def driver(target: _Driver, /) -> _Driver:
    """Declares what answers ``ray.serve.PredictAPIsService/Predict`` for the servable.

    Args:
        target: a function or coroutine that takes a dict of str to bytes, the request's ``input``, and returns bytes,
            or a str that becomes UTF-8: the response's ``prediction``; or a class whose ``__call__`` is one, of which
            each worker makes one object. With a parameter ``grpc_context`` it is given the call's context.

    Returns:
        ``target`` itself.

    Raises:
        ConfigError: nothing that can be called, or a second driver.
    """
    if not callable(target) or (isinstance(target, type) and not _has_own(target, "__call__")):
        raise ConfigError(
            f"'driver' decorates a function or a class with '__call__', but actually {function_name(target)!r} of "
            f"{type(target)}"
        )
    registration = current_registration()
    if registration is not None:
        registration.add_driver(GrpcDriver(target))
    return target


def _service_name(service: Any) -> str:
    name = checks.check_str("service", service)
    if name.startswith("/") or name.endswith("."):
        raise ConfigError(f"Parameter 'service' should be a service's full name, 'pkg.Service', but actually '{name}'")
    return name


def _add_function(function: Any, method: str | None, service: str | None, idempotent: bool) -> Any:
    if isinstance(function, type):
        raise ConfigError(f"'grpc_method' decorates functions, use 'grpc_service' for class '{function.__name__}'")
    if not callable(function):
        raise ConfigError(f"'grpc_method' decorates functions, but actually {type(function)}")
    name = method if method is not None else getattr(function, "__name__", None)
    if name is None:
        raise ConfigError(f"'grpc_method' needs the method's name for what has none of its own: {type(function)}")
    if inspect.isfunction(function) and "." in function.__qualname__.rpartition("<locals>.")[2]:
        raise ConfigError(
            f"'grpc_method' decorates '{function.__qualname__}', which is a class's: decorate the class with "
            "'grpc_service', which finds the methods by their names"
        )
    registration = current_registration()
    if registration is not None:
        registration.grpc_functions.append(GrpcFunction(name, function, service, idempotent))
    return function


def _add_class(decorated: Any, service: str | None, idempotent: tuple[str, ...]) -> Any:
    if not isinstance(decorated, type):
        raise ConfigError(
            f"'grpc_service' decorates classes, use 'grpc_method' for functions; actually {type(decorated)}"
        )
    if inspect.isabstract(decorated):
        missing = ", ".join(sorted(getattr(decorated, "__abstractmethods__", ())))
        raise ConfigError(f"class '{decorated.__name__}' is abstract, it lacks {missing}")
    registration = current_registration()
    if registration is not None:
        registration.grpc_services.append(GrpcService(decorated, service, idempotent))
    return decorated


def _has_own(target: type, name: str) -> bool:
    """Whether a class or one of its bases defines the attribute; every class has a ``__call__`` of its metaclass."""
    return any(name in base.__dict__ for base in target.__mro__ if base is not object)
