"""Tokens: made for clients of this server, and checked, these and an outside issuer's."""

from __future__ import annotations

import dataclasses
import math
import secrets
from collections.abc import Mapping
from datetime import datetime, timezone
from typing import Any

from mindserve import native
from mindserve.auth.signing import IssuerKeys, SigningKeys, VerifyKey

# Of tokens made here.
ISSUER = "mindserve"
# Seconds that the clock of an outside issuer may differ.
LEEWAY = 10
_MAX_SHOWN = 80


class TokenError(Exception):
    """A token that is not accepted; the text is for who sent it."""

    def __init__(self, text: str) -> None:
        # What is repeated of the token may be half a surrogate pair, which is in no text that can be sent.
        super().__init__(text.encode("utf-8", "backslashreplace").decode())


@dataclasses.dataclass(frozen=True)
class Outside:
    """An outside issuer of tokens.

    Attributes:
        keys: its.
        issuer: what its tokens have for ``iss``.
        audience: what they have to have for ``aud``; None: they must have none.
    """

    keys: IssuerKeys
    issuer: str
    audience: str | None


@dataclasses.dataclass(frozen=True)
class Claims:
    """What a token that is right says.

    Attributes:
        subject: whose it is.
        issued: when, seconds since 1970; 0: it does not say.
        expires: it holds until then.
        own: it was made here.
    """

    subject: str
    issued: float
    expires: float
    own: bool


def make_token(keys: SigningKeys, subject: str, lifetime: float, now: float, not_before: int = 0) -> str:
    """A signed token.

    Args:
        keys: the first one signs.
        subject: whose it is.
        lifetime: seconds.
        now: seconds since 1970.
        not_before: as the client's ``tokens_not_before``, behind which it is made.
    """
    import jwt

    key = keys.keys[0]
    issued = max(int(now), not_before + 1)
    claims = {
        "iss": ISSUER,
        "sub": subject,
        "iat": issued,
        "exp": math.ceil(now + lifetime),
        "jti": secrets.token_hex(12),
    }
    return jwt.encode(claims, key.key, algorithm=key.algorithm, headers={"kid": key.kid})


def check_token(token: str, keys: SigningKeys, outside: Outside | None, now: float) -> Claims:
    """What a token says, if it is signed by a key that is known, and holds.

    Args:
        token: its text.
        keys: this server's.
        outside: another issuer whose tokens are accepted.
        now: seconds since 1970.

    Raises:
        TokenError: it is not accepted.
    """
    import jwt

    if flaw := native.load().token_flaw(token.encode("utf-8", "replace")):
        raise TokenError(flaw)
    try:
        header: Mapping[str, Any] = jwt.get_unverified_header(token)
        unverified: Any = jwt.decode(token, options={"verify_signature": False})
    except (jwt.PyJWTError, ValueError, RecursionError) as error:
        raise TokenError(f"the token is no JWT: {error}") from None
    algorithm = header.get("alg")
    if not isinstance(algorithm, str) or algorithm.lower() == "none":
        raise TokenError("the token is not signed: its 'alg' is 'none'")
    issuer = unverified.get("iss")
    kid = header.get("kid", "")
    key: VerifyKey | None
    if issuer == ISSUER:
        own, leeway, audience, required = True, 0, None, ["exp", "iat", "iss", "sub", "jti"]
        key = keys.find(str(kid))
    elif outside is not None and issuer == outside.issuer:
        own, leeway, audience, required = False, LEEWAY, outside.audience, ["exp", "iss", "sub"]
        key = outside.keys.find(str(kid))
    else:
        raise TokenError(f"the token is of another issuer, {_shown(issuer)}, whose tokens are not accepted here")
    if key is None:
        raise TokenError("the token is signed with a key that is not known ('kid')")
    if algorithm != key.algorithm:
        raise TokenError(f"the token is signed by {_shown(algorithm)}, but its key is for {key.algorithm}")
    try:
        claims: dict[str, Any] = jwt.decode(
            token,
            key.key,
            algorithms=[key.algorithm],
            issuer=str(issuer),
            audience=audience,
            leeway=leeway,
            # The times are checked below, by the clock that was given.
            options={"require": required, "verify_exp": False, "verify_iat": False, "verify_nbf": False},
        )
    except jwt.InvalidSignatureError:
        raise TokenError("the token's signature is wrong: it was not made by its issuer, or was changed") from None
    except jwt.InvalidAudienceError:
        expected = f"{_shown(audience)}" if audience is not None else "none"
        raise TokenError(f"the token is for another audience ('aud'), expected {expected}") from None
    except jwt.PyJWTError as error:
        raise TokenError(f"the token is not accepted: {error}") from None
    expires = _time(claims, "exp")
    if expires + leeway <= now:
        raise TokenError(f"the token has expired on {_date(expires)}: ask for a new one")
    issued = _time(claims, "iat")
    # An own one is ahead of time by a second where it replaces one that was revoked.
    for begin in (_time(claims, "nbf"), issued):
        if begin > now + max(leeway, 2):
            raise TokenError(f"the token does not hold before {_date(begin)}")
    subject = claims["sub"]
    if not isinstance(subject, str) or not subject:
        raise TokenError("the token says nothing of whose it is ('sub')")
    return Claims(subject, issued, expires + leeway, own)


def _time(claims: Mapping[str, Any], name: str) -> float:
    value = claims.get(name, 0)
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value) or abs(value) > 1e12:
        raise TokenError(f"the token's '{name}' is no time")
    return float(value)


def _date(seconds: float) -> str:
    try:
        return f"{datetime.fromtimestamp(seconds, timezone.utc):%Y-%m-%d %H:%M:%S} UTC"
    except (ValueError, OverflowError, OSError):
        return f"second {seconds:.0f} since 1970"


def _shown(value: Any) -> str:
    return "none" if value is None else f"'{str(value)[:_MAX_SHOWN]}'"
