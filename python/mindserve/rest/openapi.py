"""What the server answers, as an OpenAPI 3.1 document: ``GET /openapi.json``."""

from __future__ import annotations

import asyncio
import dataclasses
import hashlib
import json
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from google.protobuf import descriptor_pool
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from mindserve import __version__
from mindserve.control import ReadyRpc
from mindserve.rest import openapi_classifier, tensor_schemas
from mindserve.rest.context import Context, ServedMethod, ServedService, ServedVersion
from mindserve.rest.http import gzip, takes_gzip
from mindserve.rest.message_schemas import MessageSchemas
from mindserve.rest.metadata import CODES
from mindserve.rest.security_schemas import add_security
from mindserve.rest.seldon import PATH as CLASSIFIER_PATH
from mindserve.rest.seldon import ServedClassifiers, served_classifiers
from mindserve.rest.split_names import SplitName, describe_splits

if TYPE_CHECKING:
    from mindserve._native import ClientIdentity

Schema = dict[str, Any]

_JSON = "application/json"
_NDJSON = "application/x-ndjson"
# What a path may hold as it is.
_SAFE = "/:@!$&'()*+,;=-._~"
# Statuses of HTTP, and when each comes. Those that a connection answers by itself come before any route is known.
_TEXTS = {
    400: "What was sent is not as it should be; or FAILED_PRECONDITION, OUT_OF_RANGE.",
    401: "Nobody knows who calls.",
    403: "Who calls may not.",
    404: "There is no such thing.",
    405: "The path takes other methods; `allow` names them.",
    408: "Headers or the body did not come in time.",
    409: "It is there already, or others were faster.",
    413: "The request is too large.",
    415: "The body is packed in a way that the server does not know.",
    429: "Too much at a time, or over a limit; `retry-after` says when to try again, where waiting helps.",
    431: "The request line and headers are too large.",
    499: "The call was cancelled.",
    500: "What answers the request failed.",
    501: "Nothing answers this method.",
    503: "No worker is there, or the server stops; `retry-after` says when to try again.",
    504: "The deadline has passed.",
}
# Documents that are kept: one for each set of names that clients may call.
_MOST_MADE = 16
_OF_CONNECTIONS = (400, 408, 431)
_OF_SERVABLES = (400, 401, 403, 408, 413, 415, 429, 431, 499, 500, 503, 504)
_OF_CLASSIFIER = (*_OF_SERVABLES, 404, 405, 501)
_OF_RPCS = (*_OF_SERVABLES, 404, 405, 409, 501)
_DESCRIPTION = (
    "Methods of servables, RPCs, health, and what is served. Every answer has the request's id in `x-request-id`. What "
    "is wrong with a request for a servable's method is `error_msg` with status 200, as MindSpore Serving has it; each "
    "path names its other statuses. Content types of requests are not looked at."
)


def make_document(
    versions: Iterable[ServedVersion],
    services: Iterable[ServedService],
    names: Iterable[SplitName] = (),
    classifiers: ServedClassifiers | None = None,
    *,
    secured: bool = False,
) -> Schema:
    """The document for what is served; ``secured``: clients are asked for tokens."""
    versions = [each for each in versions if each.methods or each.services]  # others have not been ready yet
    services, names = list(services), list(names)
    paths: Schema = {}
    schemas: Schema = {**_common_schemas(), **tensor_schemas.COMMON}
    newest = {each.servable: each.version for each in sorted(versions, key=lambda each: each.version)}
    for each in versions:
        for method in each.methods:
            if newest[each.servable] == each.version:
                which = f"the newest version, {each.version}"
                paths[_predict_path(each.servable, None, method)] = _predict(each.servable, method, which)
            which, name = f"version {each.version}", f"{each.servable}.{each.version}"
            paths[_predict_path(each.servable, each.version, method)] = _predict(each.servable, method, which, name)
    for split in names:
        # Calls without a version are the variations', also where the name is a servable's.
        prefix = f"/model/{split.name}:"
        paths = {path: item for path, item in paths.items() if not path.startswith(quote(prefix, safe=_SAFE))}
        for method in split.methods:
            paths[_predict_path(split.name, None, method)] = _predict_split(split, method)
    for service in services:
        name = service.service.name
        answering = sorted(
            {each.servable for each in versions if name in each.services}
            | {each.name for each in names if name in each.services}
        )
        paths.update(_service(service, answering, schemas))
    if classifiers is not None and classifiers.by_name:
        paths[CLASSIFIER_PATH] = _classifier(classifiers, schemas)
    paths.update(_status_paths())
    tags = dict.fromkeys(each.servable for each in versions)
    tags.update(dict.fromkeys(each.name for each in names))
    tags.update(dict.fromkeys(each.service.name for each in services))
    if CLASSIFIER_PATH in paths:
        tags["io.seldon.api.rpc.Classifier"] = None
    document: Schema = {
        "openapi": "3.1.0",
        "info": {"title": "MindServe", "version": __version__, "description": _DESCRIPTION},
        "tags": [*({"name": name} for name in tags), {"name": "Server"}],
        "paths": paths,
        "components": {
            "schemas": schemas,
            "parameters": _parameters(),
            "responses": {
                **{f"Error{status}": _error_response(status) for status in sorted({*_OF_SERVABLES, *_OF_CLASSIFIER})},
                **{f"RpcError{status}": _rpc_error_response(status) for status in sorted(_OF_RPCS)},
            },
        },
    }
    if secured:
        add_security(document)
    return document


# -- servables' methods ------------------------------------------------------------------------------------------------


def _predict_path(servable: str, version: int | None, method: ServedMethod) -> str:
    middle = "" if version is None else f"/version/{version}"
    return quote(f"/model/{servable}{middle}:{method.name}", safe=_SAFE)


def _predict_split(split: SplitName, method: ServedMethod) -> Schema:
    names = ", ".join(f"'{each.name}'" for each in split.variations)
    made = _predict(split.name, method, f"one of the variations {names}")
    made["post"]["responses"]["200"]["headers"] = {
        "mindserve-variation": {"description": "Which of them has answered.", "schema": {"type": "string"}}
    }
    return made


def _predict(servable: str, method: ServedMethod, which: str, name: str = "") -> Schema:
    """The path of a method.

    Args:
        servable: whose it is.
        method: the method.
        which: of the servable, in words.
        name: of it in the operation's id. Default: the servable's.
    """
    input_types = method.input_types or (None,) * len(method.inputs)
    output_types = method.output_types or (None,) * len(method.outputs)
    instance: Schema = {
        "type": "object",
        "required": list(method.inputs),
        "properties": {
            each: tensor_schemas.input_schema(known) for each, known in zip(method.inputs, input_types, strict=True)
        },
    }
    result: Schema = {
        "type": "object",
        "required": list(method.outputs),
        "properties": {
            each: tensor_schemas.output_schema(known) for each, known in zip(method.outputs, output_types, strict=True)
        },
    }
    body: Schema = {"schema": _instances(instance, fewest=1)}
    if method.streaming:
        body["schema"]["properties"]["instances"]["maxItems"] = 1
    values = [tensor_schemas.example(known) for known in input_types]
    if None not in values:
        body["example"] = {"instances": [dict(zip(method.inputs, values, strict=True))]}
    result_or_error = {"anyOf": [result, _refer("Error")]}
    if method.streaming:
        answer = {
            "description": "A result on each line, as they come, for one instance; an error is the last line, or all.",
            "content": {_NDJSON: {"schema": result_or_error}, _JSON: {"schema": _refer("Error")}},
        }
    else:
        results = _instances(result_or_error, fewest=0)
        answer = {
            "description": "A result or an error for each instance, in their order; or an error for all.",
            "content": {_JSON: {"schema": {"anyOf": [results, _refer("Error")]}}},
        }
    return {
        "post": {
            "operationId": f"{name or servable}.{method.name}",
            "summary": f"{servable}: {method.name}, of {which}",
            "tags": [servable],
            "parameters": _refer_parameters("request_id", "timeout"),
            "requestBody": {"required": True, "content": {_JSON: body}},
            "responses": {
                "200": answer,
                **{str(status): {"$ref": f"#/components/responses/Error{status}"} for status in sorted(_OF_SERVABLES)},
            },
        }
    }


def _instances(item: Schema, *, fewest: int) -> Schema:
    return {
        "type": "object",
        "required": ["instances"],
        "properties": {"instances": {"type": "array", "minItems": fewest, "items": item}},
    }


# -- the Classifier ----------------------------------------------------------------------------------------------------


def _classifier(served: ServedClassifiers, schemas: Schema) -> Schema:
    schemas["ClassificationReply"] = openapi_classifier.reply_schema()
    request = openapi_classifier.request_schema(served, _refer, schemas)
    answer = {"description": "The answer.", "content": {_JSON: {"schema": _refer("ClassificationReply")}}}
    errors = {str(status): {"$ref": f"#/components/responses/Error{status}"} for status in sorted(_OF_CLASSIFIER)}
    return {
        "post": {
            "operationId": "js.predict",
            "summary": "io.seldon.api.rpc.Classifier: Predict",
            "tags": ["io.seldon.api.rpc.Classifier"],
            "parameters": [*_refer_parameters("request_id", "timeout"), _application(served.meant)],
            "requestBody": {"required": True, "content": {_JSON: {"schema": request}}},
            "responses": {"200": answer, **errors},
        }
    }


# -- users' services ---------------------------------------------------------------------------------------------------


def _service(served: ServedService, servables: Sequence[str], schemas: Schema) -> Schema:
    """The paths of a service; adds the schemas of its messages."""
    pool = descriptor_pool.DescriptorPool()
    for file in served.files:
        pool.AddSerializedFile(file)
    rpcs = served.service.methods

    def collect(prefix: str) -> tuple[Schema, list[tuple[Schema, Schema]]]:
        messages = MessageSchemas(_refer, prefix)
        types = [
            (
                messages.add(pool.FindMessageTypeByName(rpc.input_type)),
                messages.add(pool.FindMessageTypeByName(rpc.output_type)),
            )
            for rpc in rpcs
        ]
        return messages.found, types

    found, types = collect("")
    if any(schemas.get(name, schema) != schema for name, schema in found.items()):
        # Another service has other messages of these names.
        found, types = collect(f"{served.service.name}-")
    schemas.update(found)
    return {
        quote(f"/{served.service.name}/{rpc.name}", safe=_SAFE): _rpc(served.service.name, rpc, servables, *each)
        for rpc, each in zip(rpcs, types, strict=True)
    }


def _refer(name: str) -> Schema:
    return {"$ref": f"#/components/schemas/{name}"}


def _application(servables: Sequence[str]) -> Schema:
    return {
        "name": "application",
        "in": "header",
        "description": "The servable that is to answer.",
        "schema": {"type": "string", **({"enum": list(servables)} if servables else {})},
    }


def _rpc(service: str, rpc: ReadyRpc, servables: Sequence[str], request: Schema, reply: Schema) -> Schema:
    if rpc.server_streaming:
        line = {"anyOf": [reply, _refer("RpcError")]}
        answer = {
            "description": "A message on each line, as they come; an error after the first is the last line.",
            "content": {_NDJSON: {"schema": line}},
        }
    else:
        answer = {"description": "The answer.", "content": {_JSON: {"schema": reply}}}
    text = "messages, one on each line" if rpc.client_streaming else "message; an empty body is an empty message"
    return {
        "post": {
            "operationId": f"{service}.{rpc.name}",
            "summary": f"{service}: {rpc.name}",
            "tags": [service],
            "parameters": [
                *_refer_parameters("request_id", "timeout", "multiplexed_model_id"),
                _application(servables),
            ],
            "requestBody": {
                "required": False,
                "description": f"The {text}.",
                "content": {_NDJSON if rpc.client_streaming else _JSON: {"schema": request}},
            },
            "responses": {
                "200": answer,
                **{str(status): {"$ref": f"#/components/responses/RpcError{status}"} for status in sorted(_OF_RPCS)},
            },
        }
    }


# -- the server itself -------------------------------------------------------------------------------------------------


def _status_paths() -> Schema:
    error = {"content": {_JSON: {"schema": _refer("Error")}}}

    def get(name: str, summary: str, schema: Schema, *, content: str = _JSON, **more: Schema) -> Schema:
        answer = {"description": summary, "content": {content: {"schema": schema}}}
        responses: Schema = {"200": answer, **{status.removeprefix("s"): response for status, response in more.items()}}
        for status in _OF_CONNECTIONS:
            responses[str(status)] = {"$ref": f"#/components/responses/Error{status}"}
        return {"operationId": name, "summary": summary, "tags": ["Server"], "responses": responses}

    not_ready = {"description": "Not yet, or not any more.", "content": {_JSON: {"schema": _refer("Status")}}}
    ready = "Whether requests are taken: a servable is ready and the server does not stop."
    name = {"name": "name", "in": "path", "required": True, "schema": {"type": "string", "minLength": 1}}
    none = {"description": "There is no such servable.", **error}
    document = "This document; `etag` changes with what is served."
    same = {"description": "It is the one that `if-none-match` names."}
    return {
        "/healthz/live": {"get": get("live", "Whether the process answers.", _refer("Status"))},
        "/healthz/ready": {"get": get("ready", ready, _refer("Status"), s503=not_ready)},
        "/healthz": {"get": get("health", ready, _refer("Status"), s503=not_ready)},
        "/servables": {"get": get("servables", "What is served.", _refer("Servables"))},
        "/servables/{name}": {
            "get": {**get("servable", "One servable.", _refer("Servable"), s404=none), "parameters": [name]}
        },
        "/openapi.json": {"get": get("openapi", document, {"type": "object"}, s304=same)},
        "/docs": {"get": get("docs", "A page that shows it.", {"type": "string"}, content="text/html")},
    }


def _common_schemas() -> Schema:
    string, array_of_strings = {"type": "string"}, {"type": "array", "items": {"type": "string"}}
    types = {
        "type": "object",
        "description": "By name, of those that are known; -1: of any size.",
        "additionalProperties": _object(type=string, shape={"type": "array", "items": {"type": "integer"}}),
    }
    method = _object(
        name=string,
        path=string,
        inputs=array_of_strings,
        outputs=array_of_strings,
        input_types=types,
        output_types=types,
        streaming={"type": "boolean"},
    )
    version = _object(
        version={"type": "integer"},
        ready={"type": "boolean"},
        workers={"type": "integer"},
        methods={"type": "array", "items": method},
        services=array_of_strings,
    )
    servable = _object(name=string, ready={"type": "boolean"}, versions={"type": "array", "items": version})
    # Of a name that is split.
    variation = _object(name=string, servable=string, version={"type": "integer"}, weight={"type": "number"})
    servable["properties"] |= {
        "variations": {"type": "array", "items": variation},
        "methods": {"type": "array", "items": method},
        "services": array_of_strings,
    }
    names = list(dict.fromkeys(name for name, status in CODES if status != 200))
    return {
        "Error": _object(error_msg=string),
        "RpcError": _object(
            error=_object(code={"type": "integer"}, status={"type": "string", "enum": names}, message=string)
        ),
        "Status": _object(status={"type": "string", "enum": ["live", "ready", "not ready"]}),
        "Servable": servable,
        "Servables": _object(servables={"type": "array", "items": _refer("Servable")}),
    }


def _object(**properties: Schema) -> Schema:
    return {"type": "object", "required": list(properties), "properties": properties}


def _parameters() -> Schema:
    def header(name: str, description: str, schema: Schema) -> Schema:
        return {"name": name, "in": "header", "description": description, "schema": schema}

    return {
        "request_id": header(
            "x-request-id", "The request's id in logs, and in the answer.", {"type": "string", "maxLength": 128}
        ),
        "timeout": header(
            "x-request-timeout", "Seconds that the client waits; then 504.", {"type": "number", "exclusiveMinimum": 0}
        ),
        "multiplexed_model_id": header(
            "multiplexed_model_id", "The model that is to be used, of those loaded on demand.", {"type": "string"}
        ),
    }


def _refer_parameters(*names: str) -> list[Schema]:
    return [{"$ref": f"#/components/parameters/{name}"} for name in names]


def _error_response(status: int) -> Schema:
    return {"description": _TEXTS[status], "content": {_JSON: {"schema": _refer("Error")}}}


def _rpc_error_response(status: int) -> Schema:
    schema = _refer("RpcError")
    if status in (*_OF_CONNECTIONS, 401):  # who calls is asked before it is known whom
        schema = {"anyOf": [schema, _refer("Error")]}
    return {"description": _TEXTS[status], "content": {_JSON: {"schema": schema}}}


# -- the route ---------------------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class _Made:
    """A document, and what it was made of."""

    key: tuple[object, ...]
    body: bytes
    packed: bytes
    etag: str


class Documents:
    """The document of a server: made anew when what is served has changed. Only for the event loop.

    Where clients have identities, each is shown what it may call.
    """

    def __init__(self, context: Context) -> None:
        self._context = context
        self._made: dict[frozenset[str] | None, _Made] = {}  # by the names that are shown; None: all
        self._making = asyncio.Lock()

    async def get(self, identity: ClientIdentity | None = None) -> _Made:
        async with self._making:
            backend = self._context.backend
            versions, services = backend.versions(), backend.services()
            splits = backend.splits().values()
            names = describe_splits(splits, versions)
            classifiers = served_classifiers(versions, splits)
            known = {*(each.servable for each in versions), *(each.name for each in names)}
            may = frozenset(known if identity is None else filter(identity.may_call, known))
            shown = None if may == known else may
            if shown is not None:
                versions = [each for each in versions if each.servable in shown]
                names = [each for each in names if each.name in shown]
                by_name = {name: each for name, each in classifiers.by_name.items() if name in shown}
                classifiers = ServedClassifiers(by_name, tuple(name for name in classifiers.meant if name in shown))
                answered = {name for each in versions for name in each.services}
                answered |= {name for each in names for name in each.services}
                services = tuple(each for each in services if each.service.name in answered)
            # Whether they are ready, how many workers they have and how often they answer is no matter of the document.
            key = (
                tuple((each.servable, each.version, each.methods, each.services) for each in versions),
                services,
                tuple(
                    (each.name, tuple(part.name for part in each.variations), each.methods, each.services)
                    for each in names
                ),
                classifiers,
            )
            made = self._made.get(shown)
            if made is None or made.key != key:
                secured = self._context.authority is not None
                body, packed, etag = await self._context.run(
                    True, _write, lambda: make_document(versions, services, names, classifiers, secured=secured)
                )
                if shown not in self._made and len(self._made) >= _MOST_MADE:
                    self._made.clear()
                made = self._made[shown] = _Made(key, body, packed, etag)
            return made


def _write(make: Callable[[], Schema]) -> tuple[bytes, bytes, str]:
    body = json.dumps(make(), ensure_ascii=False).encode()
    return body, gzip(body), f'"{hashlib.sha256(body).hexdigest()[:32]}"'


def routes(context: Context) -> list[Route]:
    """The routes of this module."""
    documents = Documents(context)

    async def openapi(request: Request) -> Response:
        identity: ClientIdentity | None = request.scope.get("mindserve.identity")
        made = await documents.get(identity)
        kept = "no-cache" if identity is None else "private, no-cache"
        headers = {"etag": made.etag, "cache-control": kept, "vary": "accept-encoding"}
        if made.etag in request.headers.get("if-none-match", ""):
            return Response(status_code=304, headers=headers)
        body = made.body
        if takes_gzip(request.headers.get("accept-encoding", "").encode("latin-1")):
            body, headers["content-encoding"] = made.packed, "gzip"
        return Response(body, headers=headers, media_type=_JSON)

    return [Route("/openapi.json", openapi)]
