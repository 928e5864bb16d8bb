"""The keys that tokens are signed with: this server's own, and those of an outside issuer."""

from __future__ import annotations

import base64
import dataclasses
import json
import os
import secrets
from collections.abc import Mapping
from typing import Any

from mindserve.auth.files import read_private, read_public, write_private
from mindserve.errors import ConfigError

WHAT = "the signing key"
_WHAT_JWKS = "the JWKS file"
_MAX_BYTES = 1 << 20
# RFC 7518, 3.2: at least as many bytes as the hash has.
_KEY_BYTES = 32


@dataclasses.dataclass(frozen=True)
class VerifyKey:
    """What tokens are verified with.

    Attributes:
        kid: its name; empty: it has none.
        algorithm: the only one that it is for: "HS256", "EdDSA", "RS256".
        key: for PyJWT.
    """

    kid: str
    algorithm: str
    key: Any = dataclasses.field(repr=False)


@dataclasses.dataclass(frozen=True)
class SigningKeys:
    """This server's: the first one signs, all of them verify."""

    keys: tuple[VerifyKey, ...]

    def find(self, kid: str) -> VerifyKey | None:
        return next((key for key in self.keys if key.kid == kid), None)


@dataclasses.dataclass(frozen=True)
class IssuerKeys:
    """An outside issuer's."""

    keys: tuple[VerifyKey, ...]

    def find(self, kid: str) -> VerifyKey | None:
        """The key of this name; a token that names none fits if there is only one."""
        if not kid:
            return self.keys[0] if len(self.keys) == 1 else None
        return next((key for key in self.keys if key.kid == kid), None)


def signing_path(keys: str) -> str:
    """Where the signing key of a keys file lies: beside it."""
    return keys + ".signing.json"


def load_signing_keys(path: str) -> SigningKeys:
    """Reads the key, or makes one.

    Raises:
        ConfigError: it can't be read or made, others may read or write it, or it is none.
    """
    if not os.path.lexists(path):
        key = base64.urlsafe_b64encode(secrets.token_bytes(_KEY_BYTES)).rstrip(b"=").decode()
        made = {"keys": [{"kty": "oct", "alg": "HS256", "use": "sig", "kid": secrets.token_hex(8), "k": key}]}
        # Of several servers that start at once, one makes it.
        write_private(path, json.dumps(made, indent=2).encode() + b"\n", WHAT, replace=False)
    keys = _parse(read_private(path, WHAT, _MAX_BYTES), path, WHAT)
    found: list[VerifyKey] = []
    for each, given in keys:
        if each.algorithm not in ("HS256", "EdDSA"):
            raise ConfigError(f"{WHAT} in '{path}' is for {each.algorithm}, expected HS256 or EdDSA")
        if not each.kid:
            raise ConfigError(f"{WHAT} in '{path}' has no 'kid'")
        if each.algorithm == "HS256" and len(each.key) < _KEY_BYTES:
            raise ConfigError(f"{WHAT} in '{path}' has {len(each.key)} bytes, expected at least {_KEY_BYTES}")
        if each.algorithm == "EdDSA" and "d" not in given and not found:
            raise ConfigError(f"{WHAT} in '{path}' is a public key, expected a private one, which can sign")
        found.append(each)
    return SigningKeys(tuple(found))


def load_issuer_keys(path: str) -> IssuerKeys:
    """Reads an outside issuer's public keys, as its JWKS document has them.

    Raises:
        ConfigError: it can't be read, others may write it, or it has other keys than public ones for signatures.
    """
    data = read_public(path, _WHAT_JWKS, _MAX_BYTES)
    found: list[VerifyKey] = []
    for key, given in _parse(data, path, _WHAT_JWKS):
        if given.get("kty") == "oct":
            raise ConfigError(
                f"{_WHAT_JWKS} '{path}' has a symmetric key ('kty' is 'oct'): whoever reads it could make tokens; "
                "expected public keys"
            )
        found.append(key)
    return IssuerKeys(tuple(found))


def _parse(data: bytes, path: str, what: str) -> list[tuple[VerifyKey, Mapping[str, Any]]]:
    import jwt

    try:
        document = json.loads(data)
    except (ValueError, RecursionError):
        raise ConfigError(f"{what} '{path}' is no JSON") from None
    listed = document.get("keys") if isinstance(document, dict) else None
    if not isinstance(listed, list) or not listed or not all(isinstance(each, dict) for each in listed):
        raise ConfigError(f"{what} '{path}' is no JWKS: expected {{\"keys\": [...]}} with at least one key")
    found: list[tuple[VerifyKey, Mapping[str, Any]]] = []
    for number, each in enumerate(listed):
        if each.get("use", "sig") != "sig":
            continue
        try:
            key = jwt.PyJWK.from_dict(each)
        except (jwt.PyJWTError, ValueError, TypeError, KeyError, AttributeError):
            # PyJWT's own text may have the whole key in it.
            raise ConfigError(
                f"key {number} of {what} '{path}' is none that is known: expected a JWK with 'kty', and 'k', or 'crv' "
                "and its numbers, or 'n' and 'e', as base64url"
            ) from None
        kid = each.get("kid", "")
        if not isinstance(kid, str):
            raise ConfigError(f"'kid' of key {number} of {what} '{path}' should be text")
        if kid and any(other.kid == kid for other, _ in found):
            raise ConfigError(f"{what} '{path}' has two keys with the 'kid' '{kid[:80]}'")
        found.append((VerifyKey(kid, key.algorithm_name, key.key), each))
    if not found:
        raise ConfigError(f"{what} '{path}' has no key for signatures ('use' is 'sig')")
    return found
