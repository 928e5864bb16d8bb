"""The keys file: which clients there are, by which secrets and certificates they are known, and what they may."""

from __future__ import annotations

import dataclasses
import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from mindserve.auth.files import read_private, write_private
from mindserve.auth.hashing import SecretHash
from mindserve.configfile.document import MAX_BYTES, Listing, Node, Scalar, Table, parse
from mindserve.configfile.problems import ConfigFileError
from mindserve.errors import ConfigError

WHAT = "the keys file"
# Of an outside issuer's subjects, all that have no entry of their own.
ANYBODY = "*"
MAX_SECRETS = 2
_KEY = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@:/|-]{0,127}")
_KEY_FORM = "1 to 128 letters, digits and . _ @ : / | -, beginning with a letter or digit"
_REPEATED = re.compile(r"'.*'|![^\s]+", re.DOTALL)
_MAX_RATE = 1e9
_MAX_COUNT = 2**31 - 1


@dataclasses.dataclass(frozen=True, kw_only=True)
class ClientKey:
    """A client.

    Attributes:
        key: its consumer key, by which it asks for tokens; the subject of its tokens.
        secrets: hashes of its secrets, the newest first: two while they are being exchanged. Default: none, so that
            it gets no tokens here.
        servables: those that it may call. None, the default: all.
        rate: calls a second. 0, the default: no limit.
        burst: calls at once, 1 or more; only with a rate. Default 0: as many as ``rate``, at least one.
        max_in_flight: calls at a time. 0, the default: no limit.
        revoked: it is refused. Default False.
        tokens_not_before: seconds since 1970; tokens made until then are refused. Default 0: none are.
        certificates: names in client certificates, subject alternative names or common names, that stand for it.

    Raises:
        ConfigError: a value of the wrong type or out of its range.
    """

    key: str
    secrets: tuple[SecretHash, ...] = ()
    servables: tuple[str, ...] | None = None
    rate: float = 0.0
    burst: float = 0.0
    max_in_flight: int = 0
    revoked: bool = False
    tokens_not_before: int = 0
    certificates: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.key != ANYBODY and not _KEY.fullmatch(self.key):
            raise ConfigError(f"'key' should be {_KEY_FORM}, but is '{self.key[:140]}'")
        if self.key == ANYBODY and (self.secrets or self.certificates):
            raise ConfigError(
                "client '*' stands for subjects of an outside issuer: expected no secrets or certificates"
            )
        if len(self.secrets) > MAX_SECRETS:
            raise ConfigError(f"'secrets' of client '{self.key}' should be at most {MAX_SECRETS}")
        for name, most in (("rate", _MAX_RATE), ("burst", _MAX_RATE), ("max_in_flight", _MAX_COUNT)):
            value = getattr(self, name)
            if not (0 <= value <= most):
                raise ConfigError(f"'{name}' of client '{self.key}' should be 0 to {most:.0f}, but is {value}")
        if self.burst and self.burst < 1:
            raise ConfigError(f"'burst' of client '{self.key}' should be 1 or more, but is {self.burst:g}")
        if self.burst and not self.rate:
            raise ConfigError(f"'burst' of client '{self.key}' is given without 'rate'")

    @property
    def effective_burst(self) -> float:
        """``burst``, or what stands for it."""
        return self.burst or max(1.0, self.rate)

    def as_document(self) -> dict[str, Any]:
        """As it stands in the file: what is at its default is left out."""
        document: dict[str, Any] = {"key": self.key}
        for field in dataclasses.fields(self)[1:]:
            value = getattr(self, field.name)
            if value == field.default:
                continue
            if isinstance(value, tuple):
                value = [str(item) for item in value]
            elif isinstance(value, float) and value.is_integer():
                value = int(value)
            document[field.name] = value
        return document


@dataclasses.dataclass(frozen=True)
class Keys:
    """The clients of a keys file, by their keys."""

    clients: Mapping[str, ClientKey]

    def __post_init__(self) -> None:
        seen: dict[str, str] = {}
        for client in self.clients.values():
            for name in client.certificates:
                if name in seen:
                    raise ConfigError(
                        f"the certificate name '{name}' stands for '{seen[name]}' and '{client.key}': expected one of "
                        "them"
                    )
                seen[name] = client.key

    def by_certificate(self, names: Sequence[str]) -> ClientKey | None:
        """The client that one of these names stands for."""
        wanted = set(names)
        return next((client for client in self.clients.values() if wanted.intersection(client.certificates)), None)

    def with_client(self, client: ClientKey) -> Keys:
        """The same with this one, in place of the one of its key if there is one."""
        return Keys({**self.clients, client.key: client})


def load_keys(path: str) -> Keys:
    """Reads the file.

    Raises:
        ConfigError: it can't be read, others may read or write it, or something in it is wrong.
    """
    return parse_keys(read_private(path, WHAT, MAX_BYTES), path)


def parse_keys(data: bytes, path: str) -> Keys:
    """What a keys file says.

    Raises:
        ConfigError: something in it is wrong.
    """
    try:
        root = parse(data, path)
    except ConfigFileError as error:
        # Without the lines themselves, and what is repeated of them: secrets may be anywhere in a file that is wrong.
        problems = "; ".join(f"line {each.place.line}: {_REPEATED.sub('…', each.text)}" for each in error.problems)
        raise ConfigError(f"{WHAT} '{path}' is not right: {problems}") from None
    if not isinstance(root, Table) or set(root.entries) != {"clients"}:
        raise _wrong(root, path, "the file should have one key, 'clients', with a list of them")
    listing = root.entries["clients"].node
    if isinstance(listing, Scalar) and listing.value is None:
        return Keys({})
    if not isinstance(listing, Listing):
        raise _wrong(listing, path, "'clients' should be a list")
    clients: dict[str, ClientKey] = {}
    for item in listing.items:
        client = _read_client(item, path)
        if client.key in clients:
            raise _wrong(item, path, f"client '{client.key}' is given twice, expected once")
        clients[client.key] = client
    try:
        return Keys(clients)
    except ConfigError as error:
        raise _wrong(listing, path, str(error)) from None


def save_keys(keys: Keys, path: str) -> None:
    """Writes the file, as JSON where its name ends so, else as YAML; comments that were in it are lost.

    Raises:
        ConfigError: it can't be written.
    """
    document = {"clients": [client.as_document() for client in keys.clients.values()]}
    if path.endswith(".json"):
        text = json.dumps(document, indent=2, ensure_ascii=False) + "\n"
    else:
        import yaml

        text = yaml.safe_dump(document, sort_keys=False, allow_unicode=True)
    write_private(path, text.encode(), WHAT)


def _wrong(node: Node, path: str, text: str) -> ConfigError:
    return ConfigError(f"{WHAT} '{path}' is not right: line {node.place.line}: {text}")


def _read_client(node: Node, path: str) -> ClientKey:
    if not isinstance(node, Table):
        raise _wrong(node, path, "a client should be keys and values, at least 'key'")
    values: dict[str, Any] = {}
    for name, entry in node.entries.items():
        if name not in _READERS:
            # Not which: what stands there may be a secret without its name.
            raise _wrong(entry.node, path, f"a name that is not known of a client; there are {', '.join(_READERS)}")
        try:
            values[name] = _READERS[name](entry.node)
        except ValueError as error:
            raise _wrong(entry.node, path, f"'{name}' should be {error}") from None
    if "key" not in values:
        raise _wrong(node, path, "a client should have a 'key'")
    try:
        return ClientKey(**values)
    except ConfigError as error:
        raise _wrong(node, path, str(error)) from None


def _text(node: Node) -> str:
    if not isinstance(node, Scalar) or not isinstance(node.value, str) or not node.value:
        raise ValueError("text: put numbers in quotes")
    return node.value


def _key(node: Node) -> str:
    """As `ClientKey` wants it, which would repeat it."""
    text = _text(node)
    if text != ANYBODY and not _KEY.fullmatch(text):
        raise ValueError(_KEY_FORM)
    return text


def _texts(node: Node) -> tuple[str, ...]:
    if not isinstance(node, Listing):
        raise ValueError("a list of texts")
    return tuple(_text(item) for item in node.items)


def _hashes(node: Node) -> tuple[SecretHash, ...]:
    return tuple(SecretHash.parse(text) for text in _texts(node))


def _number(node: Node) -> float:
    value = node.value if isinstance(node, Scalar) else None
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ValueError("a number")
    return float(value)


def _whole(node: Node) -> int:
    value = node.value if isinstance(node, Scalar) else None
    if isinstance(value, bool) or not isinstance(value, int):
        raise ValueError("a whole number")
    return value


def _boolean(node: Node) -> bool:
    if not isinstance(node, Scalar) or not isinstance(node.value, bool):
        raise ValueError("true or false")
    return node.value


_READERS: dict[str, Callable[[Node], Any]] = {
    "key": _key,
    "secrets": _hashes,
    "servables": _texts,
    "rate": _number,
    "burst": _number,
    "max_in_flight": _whole,
    "revoked": _boolean,
    "tokens_not_before": _whole,
    "certificates": _texts,
}
