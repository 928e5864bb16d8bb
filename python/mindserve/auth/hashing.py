"""Clients' secrets: made, hashed, compared."""

from __future__ import annotations

import base64
import binascii
import dataclasses
import hashlib
import hmac
import os
import secrets
from collections.abc import Iterable

# About 20 ms and 16 MiB a time. A larger cost in a file is bounded: it is paid for each request for a token.
_N, _R, _P = 2**14, 8, 1
_MAX_N, _MAX_R, _MAX_P = 2**17, 32, 16
_MAX_BYTES = 256 << 20
_SALT_BYTES = 16
_DIGEST_BYTES = 32
_SECRET_BYTES = 32
# Longer ones would only cost time.
MAX_SECRET_LENGTH = 1024


@dataclasses.dataclass(frozen=True)
class SecretHash:
    """What is kept of a secret: ``scrypt$n$r$p$salt$digest``, the last two in base64.

    Attributes:
        n: scrypt's cost, a power of 2.
        r: its block size.
        p: its parallelism.
        salt: some bytes.
        digest: what comes out.
    """

    n: int
    r: int
    p: int
    salt: bytes
    digest: bytes = dataclasses.field(repr=False)

    @staticmethod
    def parse(text: str) -> SecretHash:
        """The hash that ``str`` has written.

        Raises:
            ValueError: it is none, with what is expected.
        """
        expected = "a hash as 'mindserve keys' writes it, scrypt$n$r$p$salt$digest"
        parts = text.split("$")
        if len(parts) != 6 or parts[0] != "scrypt":
            raise ValueError(expected)
        try:
            n, r, p = (
                int(part) if part.isascii() and part.isdecimal() and len(part) < 10 else 0 for part in parts[1:4]
            )
            salt, digest = (base64.b64decode(part, validate=True) for part in parts[4:])
        except binascii.Error:
            raise ValueError(expected) from None
        if not (2 <= n <= _MAX_N and 1 <= r <= _MAX_R and 1 <= p <= _MAX_P) or n & (n - 1) or 128 * n * r > _MAX_BYTES:
            raise ValueError(
                f"{expected}, n a power of 2 up to {_MAX_N}, r up to {_MAX_R}, p up to {_MAX_P}, "
                f"and 128·n·r up to {_MAX_BYTES >> 20} MiB"
            )
        if len(salt) < 8 or len(digest) != _DIGEST_BYTES:
            raise ValueError(f"{expected}, a salt of at least 8 bytes and a digest of {_DIGEST_BYTES}")
        return SecretHash(n, r, p, salt, digest)

    def __str__(self) -> str:
        salt, digest = (base64.b64encode(part).decode() for part in (self.salt, self.digest))
        return f"scrypt${self.n}${self.r}${self.p}${salt}${digest}"

    @property
    def terms(self) -> tuple[int, int, int, bytes]:
        """What a secret is hashed by."""
        return self.n, self.r, self.p, self.salt


def make_secret() -> str:
    """A new one, which nobody can guess."""
    return secrets.token_urlsafe(_SECRET_BYTES)


def hash_secret(secret: str, like: SecretHash | None = None) -> SecretHash:
    """What to keep of a secret.

    Args:
        secret: the secret.
        like: another one of the same client: by the same terms, so that to compare with both costs what one does.
    """
    n, r, p, salt = (_N, _R, _P, os.urandom(_SALT_BYTES)) if like is None else like.terms
    return SecretHash(n, r, p, salt, _digest(secret, n, r, p, salt))


def matches(secret: str, hashes: Iterable[SecretHash]) -> bool:
    """Whether it is one of these. Takes as long whether it is or not, and if there are none."""
    by_terms: dict[tuple[int, int, int, bytes], list[SecretHash]] = {}
    for each in hashes:
        by_terms.setdefault(each.terms, []).append(each)
    if not by_terms:
        by_terms[_NOBODY.terms] = []
    found = False
    for terms, same in by_terms.items():
        digest = _digest(secret, *terms)
        for each in same:
            found |= hmac.compare_digest(digest, each.digest)
    return found


def _digest(secret: str, n: int, r: int, p: int, salt: bytes) -> bytes:
    # Twice what scrypt itself needs: OpenSSL counts more than that.
    return hashlib.scrypt(
        secret.encode("utf-8", "surrogatepass"),
        salt=salt,
        n=n,
        r=r,
        p=p,
        maxmem=256 * n * r + (1 << 20),
        dklen=_DIGEST_BYTES,
    )


_NOBODY = SecretHash(_N, _R, _P, bytes(_SALT_BYTES), bytes(_DIGEST_BYTES))
