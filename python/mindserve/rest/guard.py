"""Who sends a request: asked before its body is read."""

from __future__ import annotations

import collections
import threading
import time
from collections.abc import Callable
from urllib.parse import parse_qs

from mindserve import native
from mindserve.auth.authority import Authority, Verdict
from mindserve.rest import page
from mindserve.rest.http import Exchange, HttpError

# Verdicts that are remembered, of good tokens and of bad ones each.
_MOST = 1_000
# Requests whose tokens are being verified at one time.
_MOST_WAITING = 1_000
# Of the page the files alone, which are the same everywhere: what it shows of this server needs a token.
_OPEN = ("/healthz", "/token", *page.PATHS)
_INVALID = 'Bearer error="invalid_token"'
# Fields of a query, among which the token may be.
_MOST_FIELDS = 100


class Guard:
    """For the event loop; `forget` from any thread.

    Args:
        authority: verifies tokens.
        now: the time in seconds. Default ``time.monotonic``.
    """

    def __init__(self, authority: Authority, now: Callable[[], float] = time.monotonic) -> None:
        self._authority = authority
        self._now = now
        self._token_flaw = native.load().token_flaw
        self._lock = threading.Lock()
        self._waiting = 0  # requests, until their tokens are verified
        self._generation = 0  # guarded by the lock, as what follows; the last used at the end
        self._good: collections.OrderedDict[bytes, tuple[Verdict, float]] = collections.OrderedDict()
        self._bad: collections.OrderedDict[bytes, tuple[Verdict, float]] = collections.OrderedDict()
        authority.on_change(self.forget)

    def forget(self) -> None:
        """The keys are others now."""
        with self._lock:
            self._generation += 1
            self._good.clear()
            self._bad.clear()

    async def check(self, exchange: Exchange) -> None:
        """Lets a request in, with its client's identity, or not. The gateway counts it against the client's limits.

        Raises:
            HttpError: 401; 429 while too many tokens wait to be verified.
        """
        if is_open(exchange.path):
            return
        text = self._credentials(exchange)
        verdict = await self._look(exchange, text)
        if verdict.identity is None:
            raise _refused(verdict.refusal, _INVALID)
        exchange.identity = verdict.identity

    def _credentials(self, exchange: Exchange) -> bytes:
        """The token, or the names of a certificate. A token of the query is put where the gateway looks for it."""
        headers = exchange.headers
        if token := headers.get(b"oauth_token", b""):
            return self._checked(token)
        authorization = headers.get(b"authorization", b"")
        if authorization:
            scheme, _, token = authorization.partition(b" ")
            if scheme.lower() != b"bearer":
                shown = f"the scheme '{scheme.decode('latin-1')}'" if token and len(scheme) <= 16 else "no scheme"
                raise _refused(f"header 'authorization' has {shown}, expected 'Bearer' and a token")
            return self._checked(token.strip())
        if exchange.query:
            try:
                given = parse_qs(exchange.query.decode("latin-1"), max_num_fields=_MOST_FIELDS).get("oauth_token", [])
            except ValueError:
                text = f"the query has more than {_MOST_FIELDS} fields, among which no token is looked for"
                raise HttpError(400, text, "INVALID_ARGUMENT") from None
            if given:
                token = given[0].encode("latin-1", "replace")
                headers[b"oauth_token"] = token
                return self._checked(token)
        names = [
            value
            for kind in ("x509_common_name", "x509_subject_alternative_name")
            for value in exchange.caller.auth.get(kind, ())
            if value and b"\n" not in value
        ]
        if not names:
            raise _refused(
                "the request carries no token: expected header 'authorization' with 'Bearer' and a token, or "
                "'oauth_token'; POST /token gives one"
            )
        return b"".join(b"\n" + name for name in names)

    def _checked(self, token: bytes) -> bytes:
        # So it is no certificate's names either.
        if flaw := self._token_flaw(token):
            raise _refused(flaw, _INVALID)
        return token

    async def _look(self, exchange: Exchange, text: bytes) -> Verdict:
        now = self._now()
        with self._lock:
            generation = self._generation
            for kept in (self._good, self._bad):
                if (found := kept.get(text)) is not None and now < found[1]:
                    kept.move_to_end(text)
                    return found[0]
        if self._waiting >= _MOST_WAITING:
            reason = f"{_MOST_WAITING} requests with tokens that are not known yet wait for these to be verified"
            raise HttpError(429, f"{reason}: try again later", "RESOURCE_EXHAUSTED", [(b"retry-after", b"1")])
        self._waiting += 1
        try:
            # A signature takes long enough to hold up others.
            verdict = await exchange.context.run(True, self._authority.check, text)
        finally:
            self._waiting -= 1
        with self._lock:
            if generation == self._generation:
                kept = self._bad if verdict.identity is None else self._good
                kept[text] = verdict, now + verdict.seconds
                kept.move_to_end(text)
                if len(kept) > _MOST:
                    kept.popitem(last=False)
        return verdict


def is_open(path: str) -> bool:
    """Whether nobody is asked there."""
    return path in _OPEN or path.startswith("/healthz/")


def _refused(text: str, challenge: str = "Bearer") -> HttpError:
    return HttpError(401, text, "UNAUTHENTICATED", [(b"www-authenticate", challenge.encode("ascii"))])
