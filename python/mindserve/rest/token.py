"""``/token``: tokens for clients' keys and secrets, by OAuth2's client credentials (RFC 6749) and as Seldon has it."""

from __future__ import annotations

import asyncio
import base64
import binascii
import json
from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qs, unquote_plus

from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

from mindserve import logs
from mindserve.auth.attempts import Attempts
from mindserve.auth.authority import Authority, CredentialsError
from mindserve.rest.context import Context

_FORM = "application/x-www-form-urlencoded"
_MAX_BODY = 16 * 1024
_MAX_FIELDS = 20
# Requests that wait while another one's secret is compared, which takes a thread for a while.
_MOST_WAITING = 64

_log = logs.get_logger("auth")


class _Refused(Exception):
    """A request that gets no token, with what RFC 6749, 5.2, has for it."""

    def __init__(self, status: int, error: str, text: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(text)
        self.status = status
        self.error = error
        self.text = text
        self.headers = headers or {}


def routes(context: Context) -> list[Route]:
    """The routes of this module: none where nobody is asked for a token."""
    if context.authority is None:
        return []
    desk = _Desk(context, context.authority)
    return [Route("/token", desk.post, methods=["POST"]), Route("/token", desk.get, methods=["GET"])]


class _Desk:
    """Where tokens are given out. For the event loop."""

    def __init__(self, context: Context, authority: Authority) -> None:
        self._context = context
        self._authority = authority
        self._attempts = Attempts()
        self._turn = asyncio.Lock()
        self._waiting = 0

    async def post(self, request: Request) -> Response:
        return await self._answer(request, self._of_form)

    async def get(self, request: Request) -> Response:
        return await self._answer(request, self._of_query)

    async def _answer(self, request: Request, read: Any) -> Response:
        try:
            key, secret = await read(request)
            return await self._give(request, key, secret)
        except _Refused as refused:
            body = {"error": refused.error, "error_description": refused.text}
            return _json(refused.status, body, refused.headers)

    async def _of_query(self, request: Request) -> tuple[str, str]:
        fields = _parse(request.scope["query_string"])
        return _one(fields, "consumer_key"), _one(fields, "consumer_secret")

    async def _of_form(self, request: Request) -> tuple[str, str]:
        kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind != _FORM:
            raise _Refused(400, "invalid_request", f"the body should be {_FORM}, but is '{kind[:80]}'")
        fields = _parse(await _body(request))
        grant = _one(fields, "grant_type")
        if grant != "client_credentials":
            text = f"'grant_type' should be 'client_credentials', but is '{grant[:80]}'"
            raise _Refused(400, "unsupported_grant_type", text)
        authorization = request.headers.get("authorization", "")
        if authorization:
            if "client_secret" in fields:
                text = "the secret is given twice, by header 'authorization' and by 'client_secret': expected once"
                raise _Refused(400, "invalid_request", text)
            return _basic(authorization)
        return _one(fields, "client_id"), _one(fields, "client_secret")

    async def _give(self, request: Request, key: str, secret: str) -> Response:
        peer = request.client.host if request.client is not None else ""
        if self._waiting >= _MOST_WAITING:
            text = "too many requests for tokens are under way: try again later"
            raise _Refused(503, "temporarily_unavailable", text, {"retry-after": "1"})
        self._waiting += 1
        try:
            async with self._turn:
                if seconds := self._attempts.wait(key[:256], peer):
                    text = f"too many attempts have failed: try again in {seconds} s"
                    raise _Refused(429, "temporarily_unavailable", text, {"retry-after": str(seconds)})
                try:
                    issued = await self._context.pool.call(lambda: self._authority.issue(key, secret))
                except CredentialsError as error:
                    self._attempts.failed(key[:256], peer)
                    _log.warning("a request for a token was refused: consumer key %r, from %s", key[:128], peer)
                    headers = {"www-authenticate": 'Basic realm="mindserve"'}
                    raise _Refused(401, "invalid_client", str(error), headers) from None
        finally:
            self._waiting -= 1
        answer = {"access_token": issued.token, "token_type": "Bearer", "expires_in": issued.lifetime}
        return _json(200, answer, {})


async def _body(request: Request) -> bytes:
    coding = request.headers.get("content-encoding", "identity").strip().lower()
    if coding != "identity":
        raise _Refused(415, "invalid_request", f"content-encoding '{coding[:80]}' is not supported here: send none")
    too_large = _Refused(413, "invalid_request", f"the body is larger than {_MAX_BODY} bytes")
    if int(request.headers.get("content-length", "0")) > _MAX_BODY:
        raise too_large
    data = b""
    try:
        async for part in request.stream():
            data += part
            if len(data) > _MAX_BODY:
                raise too_large
    except ClientDisconnect:
        raise _Refused(400, "invalid_request", "the body is not whole") from None
    return data


def _parse(text: bytes) -> dict[str, list[str]]:
    try:
        return parse_qs(
            text.decode("ascii"),
            keep_blank_values=True,
            strict_parsing=bool(text),
            errors="strict",
            max_num_fields=_MAX_FIELDS,
        )
    except ValueError:  # UnicodeError is one
        text_of_error = f"the fields are not in the form of {_FORM}, or are more than {_MAX_FIELDS}"
        raise _Refused(400, "invalid_request", text_of_error) from None


def _one(fields: Mapping[str, list[str]], name: str) -> str:
    values = fields.get(name, [])
    if len(values) != 1 or not values[0]:
        found = "none" if not values or values == [""] else str(len(values))
        raise _Refused(400, "invalid_request", f"expected '{name}' once, but there is {found}")
    return values[0]


def _basic(authorization: str) -> tuple[str, str]:
    scheme, _, encoded = authorization.partition(" ")
    try:
        if scheme.lower() != "basic":
            raise ValueError
        key, colon, secret = base64.b64decode(encoded.strip(), validate=True).decode("utf-8").partition(":")
        if not colon:
            raise ValueError
    except (binascii.Error, ValueError):
        text = "header 'authorization' should be 'Basic' and base64 of the consumer key, a colon and the secret"
        raise _Refused(401, "invalid_client", text, {"www-authenticate": 'Basic realm="mindserve"'}) from None
    return unquote_plus(key), unquote_plus(secret)  # RFC 6749, 2.3.1


def _json(status: int, value: Any, headers: Mapping[str, str]) -> Response:
    body = json.dumps(value).encode()
    kept_nowhere = {"cache-control": "no-store", "pragma": "no-cache"}
    return Response(body, status, {**kept_nowhere, **headers}, media_type="application/json")
