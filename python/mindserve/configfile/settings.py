"""What a config file says, as values: the classes that the file's keys are derived from."""

from __future__ import annotations

import dataclasses
from typing import Annotated

from mindserve import checks
from mindserve.checks import Range
from mindserve.config import AuthConfig, Limits, Listener, ServableStartConfig
from mindserve.errors import ConfigError
from mindserve.tls import SSLConfig
from mindserve.traffic import Split

DEFAULT_PORT = 9000
MAX_PORT = 65535
DEFAULT_REST_PORT = 5501


@dataclasses.dataclass(frozen=True, kw_only=True)
class GrpcSettings:
    """Where gRPC is answered, and which services of your own are.

    Attributes:
        address: "127.0.0.1:9000", "[::1]:9000" or "unix:path"; port 0 takes a free one. Default: ``port``.
        port: on 127.0.0.1 alone, instead of ``address``. Default 9000.
        ssl_config: certificates for TLS on ``address`` or ``port``. Default: plaintext.
        listeners: several addresses at once, each with its own certificates, instead of the three above.
        grpc_servicer_functions: import paths of generated functions, "user_pb2_grpc.add_UserServicer_to_server", for
            services of your own. Default: none.
        max_msg_mb_size: the largest request in MiB; the same as in ``limits``, and 100 if neither says.

    Raises:
        ConfigError: a value of the wrong type or out of its range, or more than one way to say where.
    """

    address: str | None = None
    port: Annotated[int | None, Range(0, MAX_PORT)] = None
    ssl_config: SSLConfig | None = None
    listeners: tuple[Listener, ...] = ()
    grpc_servicer_functions: tuple[str, ...] = ()
    max_msg_mb_size: Annotated[int | None, Range(1, 512)] = None

    def __post_init__(self) -> None:
        checks.check_fields(self)
        given = [name for name in ("listeners", "address", "port") if getattr(self, name) not in (None, ())]
        if len(given) > 1:
            raise ConfigError(f"Parameter '{given[1]}' is given besides '{given[0]}': expected one of them")
        if self.listeners and self.ssl_config is not None:
            raise ConfigError("Parameter 'ssl_config' belongs to each of 'listeners', where there are several")
        for path in self.grpc_servicer_functions:
            if not is_import_path(path):
                raise ConfigError(
                    "The item of parameter 'grpc_servicer_functions' should be an import path, such as "
                    f"'user_pb2_grpc.add_UserServicer_to_server', but actually '{path}'"
                )

    def all_listeners(self) -> tuple[Listener, ...]:
        """Every address, by whichever of the ways it was given."""
        if self.listeners:
            return self.listeners
        port = DEFAULT_PORT if self.port is None else self.port
        return (Listener(self.address or f"127.0.0.1:{port}", self.ssl_config),)


def is_import_path(text: str) -> bool:
    """Whether it reads "package.module.function" or "package.module:function"."""
    module, _, function = text.replace(":", ".").rpartition(".")
    return all(name.isidentifier() for name in (*module.split("."), function))


@dataclasses.dataclass(frozen=True, kw_only=True)
class RestSettings:
    """Where HTTP with JSON is answered.

    Attributes:
        address: "127.0.0.1:5501" or "[::1]:5501"; port 0 takes a free one. Default: ``port``.
        port: on 127.0.0.1 alone, instead of ``address``. Default 5501.
        ssl_config: certificates for HTTPS. Default: plain HTTP.
        max_msg_mb_size: the largest body in MiB. Default 100.

    Raises:
        ConfigError: a value of the wrong type or out of its range, or more than one way to say where.
    """

    address: str | None = None
    port: Annotated[int | None, Range(0, MAX_PORT)] = None
    ssl_config: SSLConfig | None = None
    max_msg_mb_size: Annotated[int, Range(1, 512)] = 100

    def __post_init__(self) -> None:
        checks.check_fields(self)
        if self.address is not None and self.port is not None:
            raise ConfigError("Parameter 'port' is given besides 'address': expected one of them")
        if self.address is not None and self.address.startswith("unix:"):
            raise ConfigError(
                f"RESTful server does not support binding to unix domain socket, address '{self.address}'"
            )

    def listener(self) -> Listener:
        """The address, by whichever of the ways it was given."""
        port = DEFAULT_REST_PORT if self.port is None else self.port
        return Listener(self.address or f"127.0.0.1:{port}", self.ssl_config)


@dataclasses.dataclass(frozen=True, kw_only=True)
class ServerSettings:
    """A server of MindServe: what it serves, where it answers, and what it admits.

    Attributes:
        servables: what to serve. A servable may come more than once, in other versions or on other devices.
        grpc: where gRPC is answered. Default: 127.0.0.1:9000.
        limits: what a server admits.
        rest: where HTTP with JSON is answered. Default: nowhere.
        auth: that clients have to show who they are, by gRPC and by HTTP. Default: nobody is asked.
        traffic: names whose calls are split between servables or versions. Default: none.

    That its parts agree with each other is checked by `mindserve.configfile.agreement`, which knows where they stand.

    Raises:
        ConfigError: no servables.
    """

    servables: tuple[ServableStartConfig, ...]
    grpc: GrpcSettings = dataclasses.field(default_factory=GrpcSettings)
    limits: Limits = dataclasses.field(default_factory=Limits)
    rest: RestSettings | None = None
    auth: AuthConfig | None = None
    traffic: tuple[Split, ...] = ()

    def __post_init__(self) -> None:
        if not self.servables:
            raise ConfigError("Parameter 'servables' should not be empty")

    def all_limits(self) -> Limits:
        """What is admitted, by whichever section it was given."""
        given = self.grpc.max_msg_mb_size
        return self.limits if given is None else dataclasses.replace(self.limits, max_msg_mb_size=given)
