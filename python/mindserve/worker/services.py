"""Finds the gRPC methods that a servable's handlers answer, in the generated modules that it has imported."""

from __future__ import annotations

import difflib
import functools
import inspect
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from google.protobuf import descriptor_pool, message_factory
from google.protobuf.descriptor import FileDescriptor, MethodDescriptor, ServiceDescriptor

from mindserve.control import ReadyRpc, ReadyService
from mindserve.errors import ConfigError, StartError
from mindserve.proto.adders import NotingServer
from mindserve.proto.generated import import_beside
from mindserve.proto.ray_serve import PredictRequest, PredictResponse
from mindserve.register.values import GrpcDriver, GrpcFunction, GrpcService, Registration, function_name
from mindserve.worker.answering import Handler
from mindserve.worker.driver import PATH, adapt_driver

if TYPE_CHECKING:
    from types import ModuleType

CONTEXT_PARAMETER = "grpc_context"

_MAX_NAMED = 20


def find_handlers(registration: Registration, report: Callable[[str], None]) -> list[Handler]:
    """What answers which method; makes the objects of the classes that were declared.

    Args:
        registration: of a servable whose servable_config.py has been imported.
        report: told of each class before an object of it is made.

    Raises:
        ConfigError: a handler that answers no method, or can't answer it; two for one.
        StartError: a class's constructor has raised.
    """
    finder = _Finder(imported_services())
    for function in registration.grpc_functions:
        finder.add_function(function)
    for service in registration.grpc_services:
        finder.add_class(service, report)
    if registration.driver is not None:
        finder.add_driver(registration.driver, report)
    return list(finder.handlers.values())


def describe_services(handlers: Iterable[Handler]) -> tuple[ReadyService, ...]:
    """What the worker answers, for its master."""
    rpcs: dict[str, list[ReadyRpc]] = {}
    for handler in handlers:
        service, _, method = handler.path[1:].partition("/")
        rpcs.setdefault(service, []).append(
            ReadyRpc(
                method,
                handler.client_streaming,
                handler.server_streaming,
                handler.request_type.DESCRIPTOR.full_name,
                handler.response_type.DESCRIPTOR.full_name,
            )
        )
    return tuple(ReadyService(name, tuple(methods)) for name, methods in rpcs.items())


def imported_services() -> dict[str, ServiceDescriptor]:
    """The services of all generated modules that this process has imported, by their full names."""
    for name in list(sys.modules):
        import_beside(name)
    services: dict[str, ServiceDescriptor] = {}
    for module in list(sys.modules.values()):
        file = getattr(module, "DESCRIPTOR", None)
        if isinstance(file, FileDescriptor):
            for service in file.services_by_name.values():
                services[service.full_name] = service
    return services


class _Finder:
    """The handlers found so far, by their paths."""

    def __init__(self, services: Mapping[str, ServiceDescriptor]) -> None:
        self.handlers: dict[str, Handler] = {}
        self._services = dict(services)

    def add_function(self, declared: GrpcFunction) -> None:
        what = f"handler '{function_name(declared.function)}'"
        for method in self._methods_named(declared, what):
            self._add(method, declared.function, what, declared.idempotent, CONTEXT_PARAMETER)

    def add_class(self, declared: GrpcService, report: Callable[[str], None]) -> None:
        what = f"class '{declared.type.__name__}'"
        bases = _servicer_bases(declared.type)
        if bases and declared.service is None:
            services = [self._service_of_base(base, module) for base, module in bases]
        elif declared.service is not None:
            services = [self._service(declared.service, what)]
        else:
            services = list(self._services.values())
        answered = [
            method
            for service in services
            for method in service.methods
            if _defines(declared.type, method.name, [base for base, _ in bases])
        ]
        if not answered:
            raise ConfigError(f"{what} has no method of {_names(services)}: {self._what_to_do(services)}")
        by_name = _by_name(answered)
        for name, methods in by_name.items():
            _check_alike(f"method '{name}' of {what}", methods)
        if unknown := [name for name in declared.idempotent if name not in by_name]:
            raise ConfigError(
                f"{what} has no method '{unknown[0]}' that answers an RPC, which parameter 'idempotent' names"
                f"{_suggestion(unknown[0], by_name)}"
            )
        instance = _make(declared.type, report)
        # A generated base's methods take the context by its position, whatever they call it.
        context = "" if bases else CONTEXT_PARAMETER
        for method in answered:
            function = getattr(instance, method.name)
            label = f"handler '{declared.type.__name__}.{method.name}'"
            self._add(method, function, label, method.name in declared.idempotent, context)

    def add_driver(self, driver: GrpcDriver, report: Callable[[str], None]) -> None:
        target: Any = driver.target
        what = f"driver '{function_name(target)}'"
        if isinstance(target, type):
            target = _make(target, report)
        kind = _Function(target)
        context = _context_of(kind, what, CONTEXT_PARAMETER, "a dict of str to bytes")
        if kind.is_generator:
            raise ConfigError(f"{what} is a generator, it should return bytes")
        self._insert(
            Handler(
                path=PATH,
                label=what.partition(" ")[2].strip("'"),
                function=adapt_driver(target, what, on_loop=kind.on_loop),
                request_type=PredictRequest,
                response_type=PredictResponse,
                client_streaming=False,
                server_streaming=False,
                context=context,
                on_loop=kind.on_loop,
                idempotent=False,
            ),
            what,
        )

    def _methods_named(self, declared: GrpcFunction, what: str) -> Sequence[MethodDescriptor]:
        if declared.service is not None:
            service = self._service(declared.service, what)
            method = service.methods_by_name.get(declared.method)
            if method is None:
                raise ConfigError(
                    f"{what}: service '{service.full_name}' has no method '{declared.method}'"
                    f"{_suggestion(declared.method, service.methods_by_name)}"
                )
            return [method]
        found = [
            service.methods_by_name[declared.method]
            for service in self._services.values()
            if declared.method in service.methods_by_name
        ]
        if not found:
            known = {method.name for service in self._services.values() for method in service.methods}
            raise ConfigError(
                f"{what}: there is no RPC '{declared.method}' in {_names(self._services.values())}"
                f"{_suggestion(declared.method, known)}: {self._what_to_do(self._services.values())}"
            )
        _check_alike(what, found)
        return found

    def _service(self, name: str, what: str) -> ServiceDescriptor:
        service = self._services.get(name)
        if service is None:
            try:
                # Not a generated module's own: whoever made it may have put it in the pool by other ways.
                service = descriptor_pool.Default().FindServiceByName(name)
            except KeyError:
                raise ConfigError(
                    f"{what}: there is no service '{name}', there is {_names(self._services.values())}"
                    f"{_suggestion(name, self._services)}: {self._what_to_do(())}"
                ) from None
        return service

    def _service_of_base(self, base: type, module: ModuleType) -> ServiceDescriptor:
        """The service of a generated ``XServicer``, by what its ``add_XServicer_to_server`` adds."""
        server = NotingServer()
        adder = getattr(module, _adder_name(base))
        adder(base(), server)
        if not server.services():
            raise ConfigError(f"'{module.__name__}.{adder.__name__}' has added no service")
        return self._service(server.services()[-1], f"class '{base.__name__}'")

    def _what_to_do(self, services: Iterable[ServiceDescriptor]) -> str:
        if any(True for _ in services):
            return "name them alike, case included, or import the generated '…_pb2' module of another service"
        return "import the generated '…_pb2' module of the service in servable_config.py"

    def _add(
        self, method: MethodDescriptor, function: Any, what: str, idempotent: bool, context_parameter: str
    ) -> None:
        path = _path(method)
        if not callable(function):
            raise ConfigError(f"{what}: what answers {path} should be a function, but actually {type(function)}")
        kind = _Function(function)
        if kind.is_generator and not method.server_streaming:
            raise ConfigError(
                f"{what} is a generator, but {path} answers with one message: return a {method.output_type.full_name}"
            )
        given = "an iterator of requests" if method.client_streaming else "the request"
        handler = Handler(
            path=path,
            label=what.partition(" ")[2].strip("'"),
            function=function,
            request_type=message_factory.GetMessageClass(method.input_type),
            response_type=message_factory.GetMessageClass(method.output_type),
            client_streaming=bool(method.client_streaming),
            server_streaming=bool(method.server_streaming),
            context=_context_of(kind, what, context_parameter, given),
            on_loop=kind.on_loop,
            idempotent=idempotent,
        )
        self._insert(handler, what)

    def _insert(self, handler: Handler, what: str) -> None:
        known = self.handlers.get(handler.path)
        if known is not None:
            raise ConfigError(f"{what} answers {handler.path}, and so does handler '{known.label}': one of them can")
        self.handlers[handler.path] = handler


class _Function:
    """Of which kind a callable is, by the function that it comes down to."""

    def __init__(self, target: Any) -> None:
        function = target
        while isinstance(function, functools.partial):
            function = function.func
        if not inspect.isroutine(function):
            # An object with __call__.
            function = type(function).__call__
        self.target = target
        self.on_loop = inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function)
        self.is_generator = inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function)


def _context_of(function: _Function, what: str, parameter: str, given: str) -> str | None:
    """How the function takes the context; see `Handler.context`."""
    try:
        signature = inspect.signature(function.target)
    except (TypeError, ValueError):
        return None if parameter else ""  # Some builtin functions have no signature to ask.
    by_name = parameter if parameter and parameter in signature.parameters else None
    arguments = (None,) if parameter else (None, None)
    try:
        signature.bind(*arguments, **({by_name: None} if by_name else {}))
    except TypeError:
        wanted = f"one parameter, {given}" if parameter else f"two parameters, {given} and the context"
        also = f", and one named '{parameter}' if it likes" if parameter else ""
        raise ConfigError(f"{what} has the parameters {signature}, it should have {wanted}{also}") from None
    return by_name if parameter else ""


def _servicer_bases(declared: type) -> list[tuple[type, ModuleType]]:
    """The generated ``XServicer`` classes among the bases of a class, with their modules."""
    bases = []
    for base in declared.__mro__[1:]:
        module = sys.modules.get(base.__module__)
        if module is not None and base.__name__.endswith("Servicer") and hasattr(module, _adder_name(base)):
            bases.append((base, module))
    return bases


def _adder_name(servicer: type) -> str:
    return f"add_{servicer.__name__}_to_server"


def _defines(declared: type, name: str, generated: Sequence[type]) -> bool:
    """Whether a class or a base that people wrote has the attribute; generated ones have all, and answer nothing."""
    return any(name in base.__dict__ for base in declared.__mro__ if base is not object and base not in generated)


def _make(declared: type, report: Callable[[str], None]) -> Any:
    report(f"making {declared.__name__}")
    try:
        return declared()
    except Exception as error:
        raise StartError(
            f"The constructor of class '{declared.__name__}' failed: {type(error).__name__}: {error}"
        ) from error


def _by_name(methods: Iterable[MethodDescriptor]) -> dict[str, list[MethodDescriptor]]:
    found: dict[str, list[MethodDescriptor]] = {}
    for method in methods:
        found.setdefault(method.name, []).append(method)
    return found


def _check_alike(what: str, methods: Sequence[MethodDescriptor]) -> None:
    """Whether one handler can answer all these methods of several services."""
    kinds = {(m.input_type.full_name, m.output_type.full_name, m.client_streaming, m.server_streaming) for m in methods}
    if len(kinds) > 1:
        services = ", ".join(sorted(method.containing_service.full_name for method in methods))
        raise ConfigError(
            f"{what}: several services have an RPC '{methods[0].name}', of different types: {services}; say which one "
            "with 'service='"
        )


def _path(method: MethodDescriptor) -> str:
    return f"/{method.containing_service.full_name}/{method.name}"


def _names(services: Iterable[ServiceDescriptor]) -> str:
    """For messages: "service 'a.B' (Ping, Pong)"."""
    texts = [f"'{service.full_name}' ({', '.join(method.name for method in service.methods)})" for service in services]
    if not texts:
        return "no service, since no generated module has been imported"
    shown = ", ".join(texts[:_MAX_NAMED]) + (", …" if len(texts) > _MAX_NAMED else "")
    return f"service {shown}" if len(texts) == 1 else f"services {shown}"


def _suggestion(name: str, known: Iterable[str]) -> str:
    close = difflib.get_close_matches(name, list(known), 1)
    if not close:
        # Only the case, or an underscore, differs.
        plain = name.replace("_", "").lower()
        close = [each for each in known if each.replace("_", "").lower() == plain][:1]
    return f", did you mean '{close[0]}'?" if close else ""
