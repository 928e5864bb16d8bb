"""The ASGI application: which route answers a request, and what becomes of errors."""

from __future__ import annotations

import asyncio
from collections.abc import MutableMapping, Sequence
from typing import TYPE_CHECKING, Any

from starlette.routing import Match, Route

from mindserve import logs
from mindserve.rest import openapi, page, status, token
from mindserve.rest.context import Context
from mindserve.rest.guard import Guard
from mindserve.rest.http import ClientGone, Exchange, HttpError, Receive, Scope, Send
from mindserve.rest.predict import PREFIX, known_error, predict
from mindserve.rest.seldon import PATH, ClassifierTypes, classify
from mindserve.rest.services import Rpc, ServiceRoutes, call_rpc

if TYPE_CHECKING:
    from mindserve.rest.connection import Connection

_log = logs.get_logger("rest")


class App:
    """All that a REST server answers. The ways of requests that are many, Predict's and RPCs', pass no router."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._services = ServiceRoutes(context.backend.services)
        self._classifier_types = ClassifierTypes(context.backend)
        self._routes: Sequence[Route] = [
            *status.routes(context),
            *openapi.routes(context),
            *page.routes(),
            *token.routes(context),
        ]
        self._guard = None if context.authority is None else Guard(context.authority)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers one request. Never raises: what goes wrong is answered, or nobody waits for it."""
        connection: Connection = scope["mindserve.connection"]
        connection.running = asyncio.current_task()
        exchange = Exchange(self._context, scope, receive, send)
        try:
            error = await self._attempt(exchange, scope, receive, send)
            if error is not None:
                exchange.release()
                await exchange.fail(error)
        except ClientGone:
            scope["mindserve.cycle"].disconnected = True
        except asyncio.CancelledError:
            if not connection.gone:
                raise
            scope["mindserve.cycle"].disconnected = True
        finally:
            connection.running = None
            exchange.release()

    async def _attempt(self, exchange: Exchange, scope: Scope, receive: Receive, send: Send) -> HttpError | None:
        """Answers, or gives the error that is the answer: without what led to it, which has the request's bodies."""
        try:
            await self._answer(exchange, scope, receive, send)
        except HttpError as error:
            error.__context__ = None
            return error.with_traceback(None)
        except ClientGone:
            raise
        except Exception:
            _log.exception("a fault in the RESTful server, request_id %s", exchange.request_id)
            if not exchange.started:
                return HttpError(500, f"internal error, see the log: {exchange.request_id}", "INTERNAL")
        return None

    async def _answer(self, exchange: Exchange, scope: Scope, receive: Receive, send: Send) -> None:
        path = exchange.path
        if self._guard is not None:
            await self._guard.check(exchange)
            scope["mindserve.identity"] = exchange.identity
        if path.startswith(PREFIX) and path[len(PREFIX) : len(PREFIX) + 1] in ("", "/"):
            await predict(exchange)
        elif path == PATH:
            await classify(exchange, self._classifier_types)
        elif (rpc := self._find_rpc(exchange, path)) is not None:
            await call_rpc(exchange, rpc)
        else:
            await self._route(exchange, scope, receive, send)

    def _find_rpc(self, exchange: Exchange, path: str) -> Rpc | None:
        try:
            return self._services.find(path)
        except HttpError:
            exchange.rpc_errors = True
            raise

    async def _route(self, exchange: Exchange, scope: Scope, receive: Receive, send: Send) -> None:
        allowed: set[str] = set()
        for route in self._routes:
            match, more = route.matches(scope)
            if match is Match.FULL:
                scope.update(more)
                await route.handle(scope, receive, _with_request_id(send, exchange))
                return
            if match is Match.PARTIAL:
                allowed |= route.methods or set()
        if allowed:
            text = f"{exchange.path[:80]} takes {', '.join(sorted(allowed))}, but actually {exchange.method}"
            raise HttpError(405, text, "UNIMPLEMENTED", [(b"allow", ", ".join(sorted(allowed)).encode())])
        if exchange.method == "POST":
            raise known_error(
                "please check url, the keyword:[model] must contain; expected /model/{servable}[/version/{version}]:"
                "{method}, or /{package.Service}/{Method}"
            )
        known = ", ".join(dict.fromkeys(route.path for route in self._routes))
        raise HttpError(404, f"there is nothing at '{exchange.path[:80]}'; GET answers {known}", "NOT_FOUND")


def _with_request_id(send: Send, exchange: Exchange) -> Send:
    async def sending(message: MutableMapping[str, Any]) -> None:
        if message["type"] == "http.response.start":
            exchange.start()
            message["headers"] = [*message["headers"], (b"x-request-id", exchange.request_id.encode("ascii"))]
        await send(message)

    return sending
