"""What an ``add_XServicer_to_server`` function, as grpcio's compiler generates it, adds to a server.

It is found out by calling the function with a server and a servicer that only take notes, so that no server of grpcio
is needed; the generated module's own descriptors tell the rest.
"""

from __future__ import annotations

import base64
import binascii
import dataclasses
import types
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from mindserve.control import ReadyRpc, ReadyService
from mindserve.proto.adders import NotingServer
from mindserve.proto.generated import import_beside

# What an item of `grpc_servicer_functions` has to be.
EXPECTED = "a generated add_…Servicer_to_server function, or the import path of one"


class NotServicerError(Exception):
    """The function is no ``add_XServicer_to_server``. The text says what it is instead, or does."""


@dataclasses.dataclass(frozen=True)
class ProtoFile:
    """A proto file by its name, as a serialized FileDescriptorProto."""

    name: str
    descriptor: bytes


@dataclasses.dataclass(frozen=True)
class Description:
    """A gRPC service, and the proto files that it is made of, each after those that it imports."""

    service: ReadyService
    files: tuple[ProtoFile, ...]

    def to_json(self) -> dict[str, Any]:
        return {
            **dataclasses.asdict(self.service),
            "files": [[file.name, base64.b64encode(file.descriptor).decode()] for file in self.files],
        }

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Description:
        """Of what `to_json` gave.

        Raises:
            ValueError: it is nothing that it gave.
        """
        try:
            methods = tuple(ReadyRpc(**method) for method in values["methods"])
            files = tuple(ProtoFile(name, base64.b64decode(data, validate=True)) for name, data in values["files"])
            return cls(ReadyService(values["name"], methods), files)
        except (KeyError, TypeError, ValueError, binascii.Error) as error:
            raise ValueError(f"no description of a service: {error!r}") from error


def is_function(value: Any) -> bool:
    """Whether it can be called, and is no class: those of a generated module stand beside its functions."""
    return callable(value) and not isinstance(value, type)


def describe_value(value: Any) -> str:
    """What something is that should be a function."""
    return f"it is class '{value.__name__}'" if isinstance(value, type) else f"it is a value of {type(value)}"


def describe(function: Callable[..., Any]) -> list[Description]:
    """The services that ``function`` adds to a server; one for each generated function.

    Raises:
        NotServicerError: it adds none, or something else.
    """
    server = NotingServer()
    attributes: list[str] = []
    try:
        function(_noting_servicer(attributes), server)
    except (Exception, SystemExit) as error:
        raise NotServicerError(f"calling it with a servicer and a server fails: {_text(error)}") from error
    import_beside(str(getattr(function, "__module__", "")))
    found = dict(server.registered)
    for handler in server.generic:
        name, methods = _methods_of(handler, attributes)
        found.setdefault(name, methods)
    if not found:
        raise NotServicerError("calling it adds no service to the server")
    return [_describe(name, methods) for name, methods in found.items()]


def _noting_servicer(attributes: list[str]) -> object:
    """An object with every attribute; which were asked for is noted."""

    class Servicer:
        # Not __getattr__: a method may have the name of one that every object has.
        def __getattribute__(self, name: str) -> Callable[..., None]:
            attributes.append(name)
            return lambda *arguments: None

    return Servicer()


def _methods_of(handler: Any, attributes: Sequence[str]) -> tuple[str, Mapping[str, Any]]:
    """The service of a ``grpc.ServiceRpcHandler``, with those methods that were asked of the servicer."""
    try:
        service = str(handler.service_name())
        methods = {}
        for name in attributes:
            details = types.SimpleNamespace(method=f"/{service}/{name}", invocation_metadata=())
            method = handler.service(details)
            if method is not None:
                methods[name] = method
    except Exception as error:
        raise NotServicerError(f"it adds handlers that are not for one service: {_text(error)}") from error
    return service, methods


def _describe(name: str, handlers: Mapping[str, Any]) -> Description:
    if not handlers:
        raise NotServicerError(f"service '{name}' that it adds has no methods")
    requests = {method: _request_descriptor(name, method, handler) for method, handler in handlers.items()}
    pool = next(iter(requests.values())).file.pool
    try:
        service = pool.FindServiceByName(name)
    except KeyError as error:
        raise NotServicerError(
            f"service '{name}' that it adds is in no proto file that was imported with its messages: the generated "
            "'…_pb2' module should lie beside the '…_pb2_grpc' module"
        ) from error
    methods = []
    for method, handler in handlers.items():
        declared = service.methods_by_name.get(method)
        if declared is None:
            raise NotServicerError(
                f"it adds method '{method}', which service '{name}' does not have in file '{service.file.name}': "
                "generate both modules anew from one proto file"
            )
        rpc = ReadyRpc(
            method,
            bool(declared.client_streaming),
            bool(declared.server_streaming),
            declared.input_type.full_name,
            declared.output_type.full_name,
        )
        added = (bool(handler.request_streaming), bool(handler.response_streaming), requests[method].full_name)
        if added != (rpc.client_streaming, rpc.server_streaming, rpc.input_type):
            raise NotServicerError(
                f"it adds method '{name}/{method}' otherwise than file '{service.file.name}' has it: generate both "
                "modules anew from one proto file"
            )
        methods.append(rpc)
    return Description(ReadyService(name, tuple(methods)), _files(service.file))


def _request_descriptor(service: str, method: str, handler: Any) -> Any:
    """The descriptor of the messages that a method takes, by what makes them of bytes: ``Message.FromString``."""
    deserialize: Any = getattr(handler, "request_deserializer", None)
    descriptor = getattr(getattr(deserialize, "__self__", None), "DESCRIPTOR", None)
    if descriptor is None:
        # The pure Python implementation of protobuf has plain functions.
        try:
            descriptor = deserialize(b"").DESCRIPTOR
        except Exception:
            descriptor = None
    if not hasattr(descriptor, "full_name") or not hasattr(descriptor, "file"):
        raise NotServicerError(
            f"method '{service}/{method}' that it adds makes its requests with {deserialize!r}, not with the "
            "FromString of a generated message"
        )
    return descriptor


def _files(file: Any) -> tuple[ProtoFile, ...]:
    found: dict[str, ProtoFile] = {}

    def add(each: Any) -> None:
        if each.name not in found:
            for dependency in each.dependencies:
                add(dependency)
            found[each.name] = ProtoFile(each.name, each.serialized_pb)

    add(file)
    return tuple(found.values())


def _text(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}"
