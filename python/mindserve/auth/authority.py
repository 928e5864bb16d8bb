"""Who may call one server: its keys, the tokens that it gives, and what it makes of those that come."""

from __future__ import annotations

import dataclasses
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from mindserve import logs, native
from mindserve.auth.hashing import MAX_SECRET_LENGTH, matches
from mindserve.auth.keys import ANYBODY, ClientKey, Keys, load_keys
from mindserve.auth.signing import SigningKeys, load_issuer_keys, load_signing_keys, signing_path
from mindserve.auth.tokens import Outside, TokenError, check_token, make_token
from mindserve.config import AuthConfig
from mindserve.errors import ConfigError

if TYPE_CHECKING:
    from mindserve._native import ClientIdentity

# Seconds that it is remembered that a token is refused.
REFUSED_FOR = 10.0
# The longest that an accepted one is believed without another look; a change of the keys comes through at once.
_ACCEPTED_FOR = 3600.0

_log = logs.get_logger("auth")


class CredentialsError(Exception):
    """A consumer key and secret that get no token. Says not which of them is wrong."""


@dataclasses.dataclass(frozen=True)
class Verdict:
    """What is made of a token or a certificate.

    Attributes:
        identity: whose it is; None: it is refused.
        refusal: why.
        seconds: that this holds, if the keys don't change.
    """

    identity: ClientIdentity | None
    refusal: str
    seconds: float


@dataclasses.dataclass(frozen=True)
class IssuedToken:
    """A token, and for how many seconds it holds."""

    token: str = dataclasses.field(repr=False)
    lifetime: int


@dataclasses.dataclass(frozen=True)
class _State:
    """All that is in the files, at a time."""

    keys: Keys
    signing: SigningKeys
    outside: Outside | None
    identities: Mapping[str, ClientIdentity]


class Authority:
    """Thread-safe. Nothing it does waits for others, but files are read when it is made and by `reload`.

    Args:
        config: where the keys are, and what else is accepted.
        now: seconds since 1970. Default: the system's clock.

    Raises:
        ConfigError: a file that can't be read, that others may read or write, or that is not right.
    """

    def __init__(self, config: AuthConfig, now: Callable[[], float] = time.time) -> None:
        self._config = config
        self._now = now
        self._lock = threading.Lock()  # held by who changes the state; not while something is logged
        self._on_change: list[Callable[[], None]] = []
        self._error: str | None = None
        self._state = self._load(None)
        if config.jwks is None and not self._state.keys.clients:
            _log.warning("%s lists no clients: nobody may call until 'mindserve keys add' adds one", config.keys)

    @property
    def files(self) -> list[str]:
        """Whose changes call for `reload`."""
        files = [self._config.keys, signing_path(self._config.keys)]
        return files if self._config.jwks is None else [*files, self._config.jwks]

    def on_change(self, function: Callable[[], None]) -> None:
        """Has it called when the keys have changed, by the thread that reloads."""
        self._on_change.append(function)

    def reload(self) -> None:
        """Reads the files anew. If something in them is wrong, that is logged, and what was known goes on."""
        with self._lock:
            error, before = self._error, self._state
            try:
                self._state = self._load(before)
                self._error = None
            except ConfigError as failed:
                self._error = str(failed)
            wrong, clients = self._error, len(self._state.keys.clients)
        if wrong is not None:
            if wrong != error:
                _log.error("new keys are not taken in, those in use are kept: %s", wrong)
            return
        for function in self._on_change:
            function()
        _log.info("keys reloaded from %s: %d client%s", self._config.keys, clients, "" if clients == 1 else "s")

    def check(self, text: bytes) -> Verdict:
        """What a token is worth; or the names of a certificate, each behind a line break."""
        if text.startswith(b"\n"):
            return self.check_certificate([name.decode("utf-8", "replace") for name in text[1:].split(b"\n")])
        return self.check_token(text.decode("latin-1"))

    def check_token(self, token: str) -> Verdict:
        """What a token is worth."""
        state, now = self._state, self._now()
        try:
            claims = check_token(token, state.signing, state.outside, now)
            client = state.keys.clients.get(claims.subject)
            if client is None and not claims.own:
                client = state.keys.clients.get(ANYBODY)
            if client is None or (claims.own and client.key == ANYBODY):
                raise TokenError(f"the token is of client '{claims.subject[:128]}', which is not known here")
            if client.revoked:
                raise TokenError(f"client '{client.key}' has been revoked")
            if client.tokens_not_before and claims.issued <= client.tokens_not_before:
                raise TokenError(
                    f"the token has been revoked, with all that client '{client.key}' had: ask for a new one"
                )
        except TokenError as error:
            return Verdict(None, str(error), REFUSED_FOR)
        return Verdict(state.identities[client.key], "", min(claims.expires - now, _ACCEPTED_FOR))

    def check_certificate(self, names: Sequence[str]) -> Verdict:
        """Whose client certificate it is that has these names, and was verified."""
        state = self._state
        client = state.keys.by_certificate(names)
        if client is None:
            return Verdict(
                None, "the call carries no token, and no client is known by the names in its certificate", REFUSED_FOR
            )
        if client.revoked:
            return Verdict(None, f"client '{client.key}' has been revoked", REFUSED_FOR)
        return Verdict(state.identities[client.key], "", _ACCEPTED_FOR)

    def issue(self, key: str, secret: str) -> IssuedToken:
        """A token for a client. Takes some 20 ms of a core, whether the key is known or not.

        Raises:
            CredentialsError: the key or the secret is wrong, or was revoked.
        """
        state = self._state
        client = state.keys.clients.get(key)
        right = matches(secret[: MAX_SECRET_LENGTH + 1], () if client is None else client.secrets)
        if client is None or not right or client.revoked or len(secret) > MAX_SECRET_LENGTH:
            raise CredentialsError("the consumer key or its secret is wrong, or has been revoked")
        lifetime = self._config.token_lifetime
        token = make_token(state.signing, key, lifetime, self._now(), client.tokens_not_before)
        return IssuedToken(token, int(lifetime))

    def _load(self, before: _State | None) -> _State:
        config = self._config
        keys = load_keys(config.keys)
        signing = load_signing_keys(signing_path(config.keys))
        outside = None
        if config.jwks is not None:
            assert config.issuer is not None
            outside = Outside(load_issuer_keys(config.jwks), config.issuer, config.audience)
        return _State(keys, signing, outside, _identities(keys, before))


def _identities(keys: Keys, before: _State | None) -> dict[str, ClientIdentity]:
    """Of each client the one that it had, if it may what it might; else one that goes on with what that counted."""
    found: dict[str, ClientIdentity] = {}
    make = native.load().ClientIdentity
    for key, client in keys.clients.items():
        old = None if before is None else before.identities.get(key)
        if old is not None and before is not None and _terms(before.keys.clients[key]) == _terms(client):
            found[key] = old
            continue
        servables = None if client.servables is None else set(client.servables)
        found[key] = make(key, servables, client.rate, client.effective_burst, client.max_in_flight, before=old)
    return found


def _terms(client: ClientKey) -> tuple[object, ...]:
    return client.servables, client.rate, client.effective_burst, client.max_in_flight
