"""A page for browsers: what the server serves, and a form to try it. ``GET /docs``.

It is made of files of the package alone, and shows what ``/openapi.json`` and ``/servables`` say.
"""

from __future__ import annotations

from pathlib import Path

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

_FILES = Path(__file__).parent / "static"
# By path: the file, and its type.
PATHS = {
    "/docs": ("index.html", "text/html; charset=utf-8"),
    "/docs/page.css": ("page.css", "text/css; charset=utf-8"),
    "/docs/page.js": ("page.js", "text/javascript; charset=utf-8"),
}
# Nothing from elsewhere, nothing inline, in nobody's frame.
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'"
)
_HEADERS = {
    "cache-control": "no-cache",
    "content-security-policy": _POLICY,
    "cross-origin-opener-policy": "same-origin",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
}


def routes() -> list[Route]:
    """The routes of this module."""
    return [_route(path, *each) for path, each in PATHS.items()]


def _route(path: str, file: str, media_type: str) -> Route:
    body = (_FILES / file).read_bytes()

    async def answer(request: Request) -> Response:
        return Response(body, headers=_HEADERS, media_type=media_type)

    return Route(path, answer)
