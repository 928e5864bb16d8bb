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
from mindserve.rest.context import Context, ServedMethod, ServedVersion
from mindserve.rest.split_names import SplitName, describe_splits

if TYPE_CHECKING:
    from mindserve._native import ClientIdentity


def routes(context: Context) -> list[Route]:
    """The routes of this module."""

    def _shown_to(request: Request) -> list[dict[str, Any]]:
        """What a client may know of: where clients have identities, the names that it may call."""
        identity: ClientIdentity | None = request.scope.get("mindserve.identity")
        versions = context.backend.versions()
        shown = describe(versions, describe_splits(context.backend.splits().values(), versions))
        return [each for each in shown if identity is None or identity.may_call(each["name"])]

    async def live(request: Request) -> Response:
        return _json(200, {"status": "live"})

    async def ready(request: Request) -> Response:
        if context.backend.ready():
            return _json(200, {"status": "ready"})
        return _json(503, {"status": "not ready"}, {"retry-after": "1"})

    async def servables(request: Request) -> Response:
        return _json(200, {"servables": _shown_to(request)})

    async def servable(request: Request) -> Response:
        name: str = request.path_params["name"]
        shown = _shown_to(request)
        found = next((each for each in shown if each["name"] == name), None)
        if found is None:
            known = ", ".join(f"'{each['name']}'" for each in shown) or "none"
            return _json(404, {"error_msg": f"there is no servable '{name[:80]}'; there are: {known}"})
        return _json(200, found)

    return [
        Route("/healthz/live", live),
        Route("/healthz/ready", ready),
        Route("/healthz", ready),
        Route("/servables", servables),
        Route("/servables/{name}", servable),
    ]


def describe(versions: Iterable[ServedVersion], names: Iterable[SplitName] = ()) -> list[dict[str, Any]]:
    """Servables with their versions, and names that are split with their variations, as clients see them."""
    found: dict[str, dict[str, Any]] = {}
    for each in versions:
        servable = found.setdefault(each.servable, {"name": each.servable, "ready": False, "versions": []})
        servable["ready"] = servable["ready"] or each.ready
        servable["versions"].append(
            {
                "version": each.version,
                "ready": each.ready,
                "workers": each.workers,
                "methods": _methods(f"/model/{each.servable}/version/{each.version}", each.methods),
                "services": list(each.services),
            }
        )
    for name in names:
        split = found.setdefault(name.name, {"name": name.name, "ready": False, "versions": []})
        # Of calls that name no version.
        split["ready"] = name.ready
        split["variations"] = [dataclasses.asdict(each) for each in name.variations]
        split["methods"] = _methods(f"/model/{name.name}", name.methods)
        split["services"] = list(name.services)
    return [found[name] for name in sorted(found)]


def _methods(path: str, methods: Iterable[ServedMethod]) -> list[dict[str, Any]]:
    return [
        {
            "name": method.name,
            "path": f"{path}:{method.name}",
            "inputs": list(method.inputs),
            "outputs": list(method.outputs),
            "input_types": _types(method.inputs, method.input_types),
            "output_types": _types(method.outputs, method.output_types),
            "streaming": method.streaming,
        }
        for method in methods
    ]


def _types(names: Sequence[str], types: Sequence[TensorType | None]) -> dict[str, Any]:
    """Of those that are known."""
    return {name: dataclasses.asdict(each) for name, each in zip(names, types, strict=False) if each is not None}


def _json(status: int, value: Any, headers: dict[str, str] | None = None) -> Response:
    body = json.dumps(value, ensure_ascii=False).encode()
    return Response(body, status, {"cache-control": "no-store", **(headers or {})}, media_type="application/json")
