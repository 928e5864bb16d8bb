"""Derives the shapes of a config file from the classes of what it configures."""

from __future__ import annotations

import dataclasses
import functools
import inspect
import re
import types
import typing
from collections.abc import Mapping, Sequence
from typing import Any

from mindserve.checks import MAX_SECONDS, Number, Range, Seconds
from mindserve.config import AuthConfig, Listener, ServableStartConfig
from mindserve.configfile import shapes
from mindserve.configfile.records import Field, Record
from mindserve.configfile.settings import GrpcSettings, RestSettings, ServerSettings
from mindserve.configfile.shapes import ListOf, OneOf, Plain, Shape
from mindserve.tls import SSLConfig

# What types don't say.
_SHAPES: dict[tuple[type, str], Shape] = {
    (ServableStartConfig, "servable_directory"): shapes.PATH,
    (ServableStartConfig, "device_ids"): OneOf((shapes.whole_number(0), ListOf(shapes.whole_number(0), unique=True))),
    (ServableStartConfig, "device_type"): shapes.DEVICE_TYPE,
    (Listener, "address"): shapes.ADDRESS,
    (Listener, "mode"): shapes.MODE,
    (GrpcSettings, "address"): shapes.ADDRESS,
    (GrpcSettings, "grpc_servicer_functions"): ListOf(shapes.IMPORT_PATH, unique=True),
    (RestSettings, "address"): shapes.ADDRESS,
    (AuthConfig, "keys"): shapes.PATH,
    (AuthConfig, "jwks"): shapes.PATH,
    (SSLConfig, "certificate"): shapes.PATH,
    (SSLConfig, "private_key"): shapes.PATH,
    (SSLConfig, "custom_ca"): shapes.PATH,
    (SSLConfig, "crl"): shapes.PATH,
}

# Keys that are not called as their parameters.
_KEYS: dict[tuple[type, str], str] = {
    (ServableStartConfig, "servable_directory"): "directory",
    (ServableStartConfig, "servable_name"): "name",
}

_ALIASES: dict[tuple[type, str], tuple[str, ...]] = {(ServerSettings, "grpc"): ("grpc_options",)}

# What their docstrings say of start scripts only.
_TEXTS: dict[tuple[type, str], str] = {
    (ServableStartConfig, "servable_directory"): "holds the servable's directory, `name`; a relative path counts from "
    "the config file's own directory.",
    (
        AuthConfig,
        "keys",
    ): "the keys file, which `mindserve keys` manages: clients, and what each may. Only the server's "
    "user may write it, and others not read it.",
}

# What people who come from elsewhere, or from a start script, look for: the key that they mean, or what to tell them.
_HINTS: dict[type, dict[str, str]] = {
    ServerSettings: {
        "applications": "did you mean 'servables'? A directory with a servable_config.py stands for an application",
        "http_options": "rest",
        "proxy_location": "there are no proxies",
    },
    ServableStartConfig: {
        "servable_directory": "directory",
        "servable_name": "name",
        "import_path": "expected 'directory' and 'name', of a directory with a servable_config.py",
        "num_replicas": "did you mean 'device_ids'? Each of them gets a worker",
    },
    GrpcSettings: {"ssl": "ssl_config", "tls": "ssl_config"},
    RestSettings: {"ssl": "ssl_config", "tls": "ssl_config"},
    Listener: {"ssl": "ssl_config", "tls": "ssl_config"},
}


@functools.cache
def root() -> Record:
    """The shape of the whole file."""
    return _record(ServerSettings)


@functools.cache
def homes() -> Mapping[str, Sequence[str]]:
    """By key, the sections at the root where it is known."""
    return root().homes()


def _record(kind: Any) -> Record:
    hints = typing.get_type_hints(kind, include_extras=True)
    texts = _attribute_texts(kind)
    fields = [_field(kind, field, hints[field.name], texts.get(field.name, "")) for field in dataclasses.fields(kind)]
    return Record(kind, fields, _plain(inspect.getdoc(kind) or "", r"\n\n"), _HINTS.get(kind, {}))


def _field(kind: Any, field: dataclasses.Field[Any], hint: Any, text: str) -> Field:
    place = (kind, field.name)
    required = field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
    return Field(
        key=_KEYS.get(place, field.name),
        parameter=field.name,
        shape=_SHAPES.get(place) or _shape(hint),
        required=required,
        default=None if required else field.default,
        text=_TEXTS.get(place, text),
        aliases=_ALIASES.get(place, ()),
    )


def _shape(hint: Any, marks: tuple[Any, ...] = ()) -> Shape:
    if typing.get_origin(hint) is typing.Annotated:
        hint, *rest = typing.get_args(hint)
        return _shape(hint, tuple(rest))
    if isinstance(hint, types.UnionType) or typing.get_origin(hint) is typing.Union:
        inner = tuple(_shape(member, marks) for member in typing.get_args(hint) if member is not type(None))
        return inner[0] if len(inner) == 1 else OneOf(inner)
    if typing.get_origin(hint) is tuple:
        item, _ = typing.get_args(hint)
        return ListOf(_shape(item))
    if dataclasses.is_dataclass(hint):
        return _record(hint)
    return _scalar(hint, next((mark for mark in marks if isinstance(mark, Range | Seconds | Number)), None))


def _scalar(hint: Any, mark: Range | Seconds | Number | None) -> Shape:
    if hint is int and isinstance(mark, Range | None):
        return shapes.whole_number() if mark is None else shapes.whole_number(mark.minimum, mark.maximum)
    if hint is float and isinstance(mark, Seconds):
        bound = "minimum" if mark.zero else "exclusiveMinimum"
        schema = {"type": "number", bound: mark.above, "maximum": MAX_SECONDS}
        return Plain("a number of seconds", (float, int), schema, mark)
    if hint is float and isinstance(mark, Number):
        return Plain(
            "a number",
            (float, int),
            {"type": "number", "minimum": mark.minimum, "maximum": mark.maximum},
            mark,
        )
    known: dict[Any, Shape] = {bool: shapes.BOOLEAN, str: shapes.TEXT, bytes: shapes.BYTES}
    if hint not in known:
        raise TypeError(f"{hint} has no shape in a config file")
    return known[hint]


def _attribute_texts(kind: Any) -> dict[str, str]:
    """What the class's docstring says of each attribute."""
    section = (inspect.getdoc(kind) or "").partition("Attributes:\n")[2]
    section = re.split(r"\n(?=\S)", section)[0]
    found = re.findall(r"^    (\w+): (.*(?:\n      .*)*)", section, re.MULTILINE)
    return {name: _plain(text) for name, text in found}


def _plain(text: str, end: str = r"\Z") -> str:
    return re.sub(r"\s+", " ", re.split(end, text)[0].replace("``", "`")).strip()
