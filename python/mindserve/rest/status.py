"""``GET``: whether the server lives and is ready, and what it serves."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from mindserve.control import TensorType
from mindserve.rest.context import Context, ServedVersion

if TYPE_CHECKING:
    from mindserve._native import ClientIdentity


def routes(context: Context) -> list[Route]:
    """The routes of this module."""

    def _shown_to(request: Request) -> list[ServedVersion]:
        """What a client may know of: where clients have identities, the servables that it may call."""
        identity: ClientIdentity | None = request.scope.get("mindserve.identity")
        return [each for each in context.backend.versions() if identity is None or identity.may_call(each.servable)]

    async def live(request: Request) -> Response:
        return _json(200, {"status": "live"})

    async def ready(request: Request) -> Response:
        if context.backend.ready():
            return _json(200, {"status": "ready"})
        return _json(503, {"status": "not ready"}, {"retry-after": "1"})

    async def servables(request: Request) -> Response:
        return _json(200, {"servables": describe(_shown_to(request))})

    async def servable(request: Request) -> Response:
        name: str = request.path_params["name"]
        shown = _shown_to(request)
        versions = [each for each in shown if each.servable == name]
        if not versions:
            known = ", ".join(f"'{each['name']}'" for each in describe(shown)) or "none"
            return _json(404, {"error_msg": f"there is no servable '{name[:80]}'; there are: {known}"})
        return _json(200, describe(versions)[0])

    return [
        Route("/healthz/live", live),
        Route("/healthz/ready", ready),
        Route("/healthz", ready),
        Route("/servables", servables),
        Route("/servables/{name}", servable),
    ]


def describe(versions: Iterable[ServedVersion]) -> list[dict[str, Any]]:
    """Servables with their versions, as clients see them."""
    found: dict[str, dict[str, Any]] = {}
    for each in versions:
        servable = found.setdefault(each.servable, {"name": each.servable, "ready": False, "versions": []})
        servable["ready"] = servable["ready"] or each.ready
        servable["versions"].append(
            {
                "version": each.version,
                "ready": each.ready,
                "workers": each.workers,
                "methods": [
                    {
                        "name": method.name,
                        "path": f"/model/{each.servable}/version/{each.version}:{method.name}",
                        "inputs": list(method.inputs),
                        "outputs": list(method.outputs),
                        "input_types": _types(method.inputs, method.input_types),
                        "output_types": _types(method.outputs, method.output_types),
                    }
                    for method in each.methods
                ],
                "services": list(each.services),
            }
        )
    return list(found.values())


def _types(names: Sequence[str], types: Sequence[TensorType | None]) -> dict[str, Any]:
    """Of those that are known."""
    return {name: dataclasses.asdict(each) for name, each in zip(names, types, strict=False) if each is not None}


def _json(status: int, value: Any, headers: dict[str, str] | None = None) -> Response:
    body = json.dumps(value, ensure_ascii=False).encode()
    return Response(body, status, {"cache-control": "no-store", **(headers or {})}, media_type="application/json")
