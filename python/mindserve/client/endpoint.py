"""Where a client's calls go, and what is the same in all of them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import grpc

from mindserve import checks
from mindserve.client.encoding import encode_spec
from mindserve.client.ssl_config import SSLConfig
from mindserve.errors import ConfigError

Metadata = Mapping[str, str | bytes] | Iterable[tuple[str, str | bytes]]


@dataclass(frozen=True)
class Endpoint:
    """A method of a servable at an address: the checked arguments of a client.

    Raises:
        ConfigError: an argument is not what it should be.
    """

    address: str
    servable_name: str
    method_name: str
    version_number: int
    ssl_config: SSLConfig | None
    # The request's bytes that name the method.
    spec: bytes = field(init=False, repr=False)

    def __post_init__(self) -> None:
        checks.check_str("address", self.address)
        checks.check_str("servable_name", self.servable_name)
        checks.check_str("method_name", self.method_name)
        checks.check_int("version_number", self.version_number, minimum=0)
        checks.check_int("version_number", self.version_number, maximum=2**64 - 1)
        if self.ssl_config is not None and not isinstance(self.ssl_config, SSLConfig):
            raise ConfigError(
                f"Parameter 'ssl_config' should be mindserve.client.SSLConfig, but actually {type(self.ssl_config)}"
            )
        _check_address(self.address)
        try:
            spec = encode_spec(self.servable_name, self.method_name, self.version_number)
        except UnicodeEncodeError as error:
            raise ConfigError(f"A servable's or method's name cannot be written as UTF-8: {error.reason}") from None
        object.__setattr__(self, "spec", spec)

    def options(self) -> list[tuple[str, int | str]]:
        """The channel's options."""
        options = channel_options(self.address)
        if self.ssl_config is not None:
            # gRPC itself would look for a socket's path in the certificate.
            name = self.ssl_config.server_name or ("localhost" if self.address.startswith("unix") else None)
            if name is not None:
                options.append(("grpc.ssl_target_name_override", name))
        return options

    def credentials(self) -> grpc.ChannelCredentials | None:
        """The channel's credentials; None without TLS."""
        return None if self.ssl_config is None else self.ssl_config.credentials()


def channel_options(address: str) -> list[tuple[str, int | str]]:
    """The options of every channel to a server, with or without TLS."""
    # The server decides how large messages may be.
    options: list[tuple[str, int | str]] = [
        ("grpc.max_receive_message_length", -1),
        ("grpc.max_send_message_length", -1),
    ]
    if _is_local(address):
        options.append(("grpc.enable_http_proxy", 0))
    return options


def as_metadata(metadata: Metadata | None) -> tuple[tuple[str, str | bytes], ...] | None:
    """Metadata in gRPC's form.

    Raises:
        ConfigError: what gRPC does not carry. The text has no values, which may be secrets.
    """
    if metadata is None:
        return None
    try:
        pairs = tuple((key, value) for key, value in (metadata.items() if isinstance(metadata, Mapping) else metadata))
    except (TypeError, ValueError):
        raise ConfigError("Parameter 'metadata' should be dict or pairs of name and value") from None
    for key, value in pairs:
        if not isinstance(key, str) or not key or not set(key) <= _METADATA_KEY:
            raise ConfigError(
                f"The name {key!r} in parameter 'metadata' should be lower-case letters, digits, '_', '-' and '.'"
            )
        if key.startswith("grpc-"):
            raise ConfigError(f"The name {key!r} in parameter 'metadata' is one of gRPC's own")
        if key.endswith("-bin"):
            if not isinstance(value, bytes):
                raise ConfigError(f"The value of {key!r} in parameter 'metadata' should be bytes")
        elif not _is_printable(value):
            raise ConfigError(f"The value of {key!r} in parameter 'metadata' should be str of printable ASCII")
    return pairs


def check_timeout(timeout: float | None) -> float | None:
    """The timeout to give to gRPC.

    Raises:
        ConfigError: it is neither None nor a number of seconds.
    """
    if timeout is None:
        return None
    if isinstance(timeout, bool) or not isinstance(timeout, int | float) or timeout != timeout:
        raise ConfigError(f"Parameter 'timeout' should be a number of seconds or None, but actually {timeout!r}")
    # gRPC takes 0 for no limit at times, and very long times for negative ones.
    if timeout <= 0:
        return -1.0
    return timeout if timeout < _LONGEST_SECONDS else None


def grpc_error(code: grpc.StatusCode, details: str | None) -> dict[str, str]:
    """What a client returns for a call that ended with a gRPC status."""
    return {"error": f"Grpc Error, {code.value}, {details or ''}"}


_LONGEST_SECONDS = 100_000_000
_METADATA_KEY = frozenset("abcdefghijklmnopqrstuvwxyz0123456789_-.")


def _is_printable(value: object) -> bool:
    if isinstance(value, str):
        return value.isascii() and value.isprintable()
    return isinstance(value, bytes) and value.isascii() and value.decode().isprintable()


def _check_address(address: str) -> None:
    """Refuse what cannot be an address; gRPC itself would try to look it up, and report only that it is unavailable."""
    if address.startswith("unix:"):
        if not address.removeprefix("unix:").removeprefix("//"):
            raise ConfigError(f"The address '{address}' has no path of a Unix socket")
        return
    # Other schemes (dns:, ipv4:, …) are gRPC's own business.
    if _has_scheme(address):
        return
    host, separator, port = address.rpartition(":")
    bracketed = host.startswith("[") and host.endswith("]")
    if not separator or not host or not port.isdecimal() or not port.isascii() or (":" in host and not bracketed):
        raise ConfigError(
            f"The format of the address '{address}' is illegal, expected 'host:port', '[IPv6]:port' or 'unix:path'"
        )
    if not 1 <= int(port) <= 65535:
        raise ConfigError(f"The port of the address '{address}' is out of legal range [1 ~ 65535]")


def _has_scheme(address: str) -> bool:
    return address.startswith(("dns:", "ipv4:", "ipv6:", "vsock:", "xds:", "unix-abstract:"))


def _is_local(address: str) -> bool:
    return address.startswith(("unix", "localhost:", "127.", "[::1]:"))
