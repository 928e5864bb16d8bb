"""What a server is told: limits, listeners, and which servables to start. Values, checked where they are made."""

from __future__ import annotations

import dataclasses
import ipaddress
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

from mindserve import checks
from mindserve.checks import Range, Seconds
from mindserve.errors import ConfigError, later
from mindserve.tls import SSLConfig

DEVICE_TYPES = ("Ascend", "GPU", "CPU")
DEFAULT_MAX_BATCH_SIZE = 32
DEFAULT_START_TIMEOUT = 600.0
DEFAULT_HEARTBEAT_TIMEOUT = 10.0
DEFAULT_HANDLER_THREADS = 32
MAX_PARALLEL_WORKERS = 64
# Of `ServableStartConfig`: what all versions and devices of a servable have in common.
SHARED_PARAMETERS = ("servable_directory", "max_enqueued_requests", "max_enqueued_bytes")
MAX_HANDLER_THREADS = 1024
MAX_TOKEN_LIFETIME = 30 * 24 * 3600
# Bytes that the kernel takes as a Unix socket's path.
LONGEST_UNIX_PATH = 107

_Count = Annotated[int, Range(1, 2**31 - 1)]
_CountOrNone = Annotated[int, Range(0, 2**31 - 1)]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Limits:
    """What a gRPC server admits. What goes over a limit is refused at once, never queued without bound.

    Attributes:
        max_msg_mb_size: largest request message in MiB, 1 to 512. Default 100.
        max_instances_per_request: Default 100,000.
        max_enqueued_requests: requests that have not been answered yet, over all servables. Default 10,000.
        max_enqueued_bytes: bytes of such requests; 0, the default: a quarter of the machine's memory, at most 4 GB.
        max_connections: open connections. Default 10,000.
        max_connections_per_peer: from one address; 0, the default: no limit.
        max_concurrent_streams: calls at a time on one connection. Default 1,000.
        max_metadata_bytes: headers of one call. Default 16 KiB.
        max_resets_per_second: streams that one connection may reset each second. Default 2,000.
        max_control_frames_per_second: frames of one connection that carry nothing of a call, as PING, SETTINGS, empty
            DATA; WINDOW_UPDATE and PING as far as they are more than what the client is sent calls for. Default 10,000.
        max_attempts: how many workers may die while they execute a request, until it is set aside. Default 2.
        max_mirrored_requests: copies of calls (`Split`) that have not been answered yet; further ones are dropped.
            Default 100.
        max_mirrored_bytes: bytes of them. Default 64 MiB.
        header_timeout: seconds until a connection's handshakes and a call's headers are whole. Default 10.
        body_idle_timeout: seconds that a message may come to a halt while it is being sent. Default 30.
        min_bytes_per_second: how fast a message has to come, and an answer to be taken, on the average of
            ``body_idle_timeout``; 0: however slowly. Default 1,024.
        idle_connection_timeout: seconds without a call until a connection is closed; 0, the default: never.
        keepalive_time: seconds without anything from a client of gRPC until it is asked for a sign of life, a PING.
            Default 300.
        keepalive_timeout: seconds that it has to answer that; then its connection is closed. Default 20.
        default_deadline: seconds for calls whose client gives no deadline; 0, the default: none.
        drain_timeout: seconds that calls in flight have to finish when the server stops, and those of workers that are
            replaced when a servable is reloaded. Default 30.

    Raises:
        ConfigError: a value of the wrong type or out of its range.
    """

    max_msg_mb_size: Annotated[int, Range(1, 512)] = 100
    max_instances_per_request: _Count = 100_000
    max_enqueued_requests: _Count = 10_000
    max_enqueued_bytes: Annotated[int, Range(0, 2**62)] = 0
    max_connections: _Count = 10_000
    max_connections_per_peer: _CountOrNone = 0
    max_concurrent_streams: _Count = 1_000
    max_metadata_bytes: _Count = 16 * 1024
    max_resets_per_second: _Count = 2_000
    max_control_frames_per_second: _Count = 10_000
    max_attempts: _Count = 2
    max_mirrored_requests: _CountOrNone = 100
    max_mirrored_bytes: Annotated[int, Range(0, 2**62)] = 64 << 20
    header_timeout: Annotated[float, Seconds()] = 10.0
    body_idle_timeout: Annotated[float, Seconds()] = 30.0
    min_bytes_per_second: _CountOrNone = 1_024
    idle_connection_timeout: Annotated[float, Seconds(zero=True)] = 0.0
    keepalive_time: Annotated[float, Seconds()] = 300.0
    keepalive_timeout: Annotated[float, Seconds()] = 20.0
    default_deadline: Annotated[float, Seconds(zero=True)] = 0.0
    drain_timeout: Annotated[float, Seconds(zero=True)] = 30.0

    def __post_init__(self) -> None:
        checks.check_fields(self)

    def as_native(self) -> dict[str, int]:
        """By the names of csrc/gateway/limits.h, with times in milliseconds: those that are not at their defaults."""
        values: dict[str, int] = {}
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if value == field.default:
                continue
            # A time above 0 must not become 0, which means "none".
            seconds = isinstance(field.default, float)
            values[field.name] = (max(1, round(value * 1000)) if value > 0 else 0) if seconds else value
        return values


@dataclasses.dataclass(frozen=True)
class Listener:
    """One address that a server answers on.

    Attributes:
        address: "127.0.0.1:5500", "localhost:5500", "[::1]:5500" or "unix:path"; port 0 takes a free one.
        ssl_config: certificates for TLS; None, the default: plaintext.
        mode: permissions of a Unix socket's file. Default 0o600.

    Raises:
        ConfigError: a value of the wrong type.
    """

    address: str
    ssl_config: SSLConfig | None = None
    mode: Annotated[int, Range(0, 0o777)] = 0o600

    def __post_init__(self) -> None:
        checks.check_text("address", self.address)
        checks.check_fields(self)


@dataclasses.dataclass(frozen=True)
class AuthConfig:
    """That clients have to show who they are, by tokens or certificates.

    Attributes:
        keys: the keys file, which ``mindserve keys`` manages: clients, and what each may. Only the server's user may
            write it, and others not read it. Relative paths count from the current directory. The key that tokens are
            signed with lies beside it, and is made when there is none.
        token_lifetime: seconds that tokens of ``/token`` hold, 1 to 2,592,000 (30 days). Default 3600.
        jwks: a file with public keys of an outside issuer (JWKS), whose tokens are accepted too. Default None.
        issuer: what these have for ``iss``; with ``jwks`` only, and then needed.
        audience: what these have to have for ``aud``; with ``jwks`` only. Default None: they must have none.
        allow_insecure: whether tokens may come over plain TCP beyond loopback, where others could read them: right
            where something in front of the server speaks TLS. Default False.

    Raises:
        ConfigError: a value of the wrong type or out of its range.
    """

    keys: str
    _: dataclasses.KW_ONLY
    token_lifetime: Annotated[float, Seconds()] = 3600.0
    jwks: str | None = None
    issuer: str | None = None
    audience: str | None = None
    allow_insecure: bool = False

    def __post_init__(self) -> None:
        checks.check_str("keys", self.keys)
        checked = checks.check_fields(self)
        if not 1 <= checked["token_lifetime"] <= MAX_TOKEN_LIFETIME:
            raise ConfigError(
                f"Parameter 'token_lifetime' should be 1 to {MAX_TOKEN_LIFETIME} seconds, "
                f"but actually {self.token_lifetime}"
            )
        for name in ("jwks", "issuer", "audience"):
            if (value := getattr(self, name)) is not None:
                checks.check_str(name, value)
        if (self.jwks is None) != (self.issuer is None):
            raise ConfigError("Parameters 'jwks' and 'issuer' belong together: expected both or none")
        if self.audience is not None and self.jwks is None:
            raise ConfigError("Parameter 'audience' is given without 'jwks'")
        checks.check_bool("allow_insecure", self.allow_insecure)
        # The files are fixed now: a later chdir must not change what is loaded.
        object.__setattr__(self, "keys", os.path.abspath(self.keys))
        object.__setattr__(self, "jwks", None if self.jwks is None else os.path.abspath(self.jwks))
        object.__setattr__(self, "token_lifetime", checked["token_lifetime"])

    def check_listener(self, listener: Listener) -> None:
        """Whether tokens may come by it.

        Raises:
            ConfigError: others could read them on the way.
        """
        if self.allow_insecure or listener.ssl_config is not None or listener.address.startswith("unix:"):
            return
        if not _is_loopback(listener.address.rpartition(":")[0]):
            raise ConfigError(
                f"Parameter 'auth': on {listener.address} tokens would come over plain TCP from other machines, and "
                "could be read on the way: give 'ssl_config', or AuthConfig(allow_insecure=True) where something in "
                "front of the server speaks TLS"
            )


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]").partition("%")[0]).is_loopback
    except ValueError:
        return False


@dataclasses.dataclass(frozen=True)
class ServableStartConfig:
    """Which servable to start, in which version, and on which devices.

    Attributes:
        servable_directory: holds the servable's directory; a relative path counts from the current directory.
        servable_name: name of the servable and of its directory, which holds ``servable_config.py``.
        device_ids: an int or a tuple or list of int ≥ 0: one worker is started for each. None, the default: device 0.
        version_number: the version directory to load, ≥ 1; 0, the default: the newest.
        device_type: "CPU", "GPU" or "Ascend", case ignored; None, the default: the best that is there.
        num_parallel_workers: further workers for Python stages only, 0 to 64. Not yet supported: 0, the default.
        dec_key: the key of encrypted models. Not yet supported: None, the default.
        dec_mode: "AES-GCM", the default, or "AES-CBC".
        start_timeout: seconds until a worker must be ready; else its start has failed. Default 600.
        heartbeat_timeout: seconds, above 1, after which a worker that gives no sign of life (its process is stopped, or
            hangs in native code) is killed and replaced. A stage that takes long is no such case. Default 10.
        max_enqueued_requests: requests for this servable, in all of its versions, that have not been answered yet; 0,
            the default: only the limit over all servables counts (`Limits`).
        max_enqueued_bytes: bytes of such requests; 0, the default: only the limit over all servables counts.
        max_batch_size: instances that a stage takes at a time, where the model or the stage sets no size. Default 32.
        max_queue_delay_us: microseconds that an instance waits for others to fill a batch. 0, the default: a batch is
            what is there when the device is free.
        hot_reload: whether a changed ``servable_config.py``, or other ``*.py`` file beside it, is loaded while the
            server runs, and for version number 0 a new version directory, each once it has not changed for a second.
            Default True.
        refuse_late: refuse a request with a deadline as soon as it comes if, as things stand, it can't be answered in
            time: DEADLINE_EXCEEDED, with the estimate. Default False: it waits, and is dropped when it is late.
        handler_threads: threads of each worker, 1 to 1024, for handlers of gRPC methods that are plain functions or
            generators; only a call that runs or is blocked takes one. Default 32.
        send_tracebacks: whether the INTERNAL that answers for a handler that raised has the end of its stack trace in
            its details. True, the default; with False the trace is only in the worker's log.

    Raises:
        ConfigError: a value of the wrong type or out of its range.
        UnsupportedError: ``num_parallel_workers`` or ``dec_key`` is given.
    """

    servable_directory: str
    servable_name: str
    device_ids: Any = None
    version_number: Annotated[int, Range(0)] = 0
    device_type: str | None = None
    num_parallel_workers: Annotated[int, Range(0, MAX_PARALLEL_WORKERS)] = 0
    dec_key: bytes | None = dataclasses.field(default=None, repr=False)
    dec_mode: str = "AES-GCM"
    start_timeout: Annotated[float, Seconds()] = dataclasses.field(default=DEFAULT_START_TIMEOUT, kw_only=True)
    # Above 1: a worker comes round about once a second at least.
    heartbeat_timeout: Annotated[float, Seconds(above=1)] = dataclasses.field(
        default=DEFAULT_HEARTBEAT_TIMEOUT, kw_only=True
    )
    max_enqueued_requests: _CountOrNone = dataclasses.field(default=0, kw_only=True)
    max_enqueued_bytes: Annotated[int, Range(0, 2**62)] = dataclasses.field(default=0, kw_only=True)
    max_batch_size: Annotated[int, Range(1, 2**20)] = dataclasses.field(default=DEFAULT_MAX_BATCH_SIZE, kw_only=True)
    max_queue_delay_us: Annotated[int, Range(0, 60_000_000)] = dataclasses.field(default=0, kw_only=True)
    hot_reload: bool = dataclasses.field(default=True, kw_only=True)
    refuse_late: bool = dataclasses.field(default=False, kw_only=True)
    handler_threads: Annotated[int, Range(1, MAX_HANDLER_THREADS)] = dataclasses.field(
        default=DEFAULT_HANDLER_THREADS, kw_only=True
    )
    send_tracebacks: bool = dataclasses.field(default=True, kw_only=True)

    def __post_init__(self) -> None:
        checks.check_text("servable_directory", self.servable_directory)
        checks.check_text("servable_name", self.servable_name)
        if self.servable_name in (".", "..") or "/" in self.servable_name or "\0" in self.servable_name:
            raise ConfigError(
                f"Parameter 'servable_name' should be the name of a directory, but actually '{self.servable_name}'"
            )
        device_ids = (0,) if self.device_ids is None else checks.check_int_or_list("device_ids", self.device_ids, 0)
        checked = checks.check_fields(self)
        if self.num_parallel_workers:
            raise later("Parameter 'num_parallel_workers' > 0")
        if self.dec_key is not None:
            if not isinstance(self.dec_key, bytes):
                raise ConfigError(f"Parameter 'dec_key' should be bytes, but actually {type(self.dec_key)}")
            raise later("Parameter 'dec_key' (encrypted models)")
        if checks.check_str("dec_mode", self.dec_mode) not in ("AES-GCM", "AES-CBC"):
            raise ConfigError(f"Parameter 'dec_mode' should be 'AES-GCM' or 'AES-CBC', but actually '{self.dec_mode}'")
        checks.check_bool("hot_reload", self.hot_reload)
        checks.check_bool("refuse_late", self.refuse_late)
        checks.check_bool("send_tracebacks", self.send_tracebacks)
        # The directory is fixed now: a later chdir must not change what a restarted worker loads.
        object.__setattr__(self, "servable_directory", os.path.abspath(self.servable_directory))
        object.__setattr__(self, "device_ids", device_ids or (0,))
        object.__setattr__(self, "device_type", parse_device_type(self.device_type))
        for name, value in checked.items():
            object.__setattr__(self, name, value)


def parse_device_type(device_type: Any) -> str | None:
    """One of `DEVICE_TYPES` for its name in any case; None for None and "None"."""
    if device_type is None:
        return None
    wanted = checks.check_str("device_type", device_type).lower()
    if wanted == "none":
        return None
    for name in DEVICE_TYPES:
        if name.lower() == wanted:
            return name
    raise ConfigError(
        f"Unsupported device type '{device_type}', only support 'Ascend', 'GPU', 'CPU' and None, case ignored"
    )


def check_servable_configs(servable_configs: Any) -> tuple[ServableStartConfig, ...]:
    """The argument of ``start_servables`` as a tuple, its parts in order and agreeing with each other."""
    if isinstance(servable_configs, ServableStartConfig):
        servable_configs = (servable_configs,)
    if not isinstance(servable_configs, tuple | list):
        raise ConfigError(
            "Parameter 'servable_configs' should be ServableStartConfig or tuple/list of ServableStartConfig, "
            f"but actually {type(servable_configs)}"
        )
    if not servable_configs:
        raise ConfigError("Parameter 'servable_configs' should not be empty")
    for number, config in enumerate(servable_configs):
        if not isinstance(config, ServableStartConfig):
            raise ConfigError(
                f"The item of parameter 'servable_configs' should be ServableStartConfig, but actually {type(config)}"
            )
        for parameter in SHARED_PARAMETERS:
            for other in servable_configs[:number]:
                if wrong := disagreement(other, config, parameter):
                    raise ConfigError(wrong)
    return tuple(servable_configs)


def disagreement(one: ServableStartConfig, other: ServableStartConfig, parameter: str) -> str:
    """What is wrong if both are of one servable, and differ in a parameter that is the servable's; else empty."""
    values = getattr(one, parameter), getattr(other, parameter)
    if one.servable_name != other.servable_name or values[0] == values[1]:
        return ""
    if parameter == "servable_directory":
        return (
            f"The servable directory of servable name {one.servable_name} is different in multiple configurations: "
            f"'{values[0]}' and '{values[1]}'"
        )
    return (
        f"Parameter '{parameter}' of servable name {one.servable_name} is different in multiple configurations: "
        f"{values[0]} and {values[1]}"
    )


def check_servable_directory(config: ServableStartConfig) -> None:
    """Whether the servable's directory and its ``servable_config.py`` are there.

    Raises:
        ConfigError: one of them is not.
    """
    directory = Path(config.servable_directory) / config.servable_name
    where = f"servable directory: '{config.servable_directory}', servable name: '{config.servable_name}'"
    for path in (Path(config.servable_directory), directory):
        if not path.is_dir():
            raise ConfigError(f"Check servable config failed, directory '{path}' not exist, {where}")
    if not (directory / "servable_config.py").is_file():
        raise ConfigError(f"Check servable config failed, file '{directory / 'servable_config.py'}' not exist, {where}")


def find_version(servable_directory: str, servable_name: str, version_number: int) -> int | None:
    """The version to load: ``version_number``, or the newest for 0; None if there is no such version directory."""
    versions = _versions(Path(servable_directory) / servable_name)
    if version_number == 0:
        return max(versions, default=None)
    return version_number if version_number in versions else None


def missing_version(servable_directory: str, servable_name: str, version_number: int) -> ConfigError:
    """The error for models that have been declared where `find_version` finds no directory."""
    where = f"servable directory: '{servable_directory}', servable name: '{servable_name}'"
    if version_number == 0:
        return ConfigError(
            f"There is no valid version directory of models (a number ≥ 1) while models are declared, {where}"
        )
    return ConfigError(
        f"There is no specified version directory of models, specified version number: {version_number}, {where}"
    )


def _versions(directory: Path) -> Sequence[int]:
    try:
        names = [entry.name for entry in os.scandir(directory) if entry.is_dir()]
    except OSError:
        return ()
    return [int(name) for name in names if name.isascii() and name.isdecimal() and name[0] != "0" and len(name) < 20]
