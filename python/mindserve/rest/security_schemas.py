"""What the OpenAPI document says of tokens, where clients are asked for them."""

from __future__ import annotations

from typing import Any

from mindserve.rest.guard import is_open

Schema = dict[str, Any]

TOKEN_PATH = "/token"
# Any one of them.
_SECURITY: list[dict[str, list[str]]] = [{"bearer": []}, {"oauth_token": []}, {"client_credentials": []}]
# RFC 6749's, 5.2, and when each comes.
_ERRORS = {
    400: "The form or the query is not as it should be.",
    401: "There is no such consumer key, or its secret is another one.",
    413: "The form is too large.",
    429: "Too many attempts have failed; `retry-after` says when to try again.",
    503: "Too many others wait; `retry-after` says when to try again.",
}


def add_security(document: Schema) -> None:
    """Adds the schemes, by which operations each is needed, and the paths that give tokens."""
    for path, item in document["paths"].items():
        for method in ("get", "post"):
            if method in item and not is_open(path):
                item[method]["security"] = _SECURITY
                item[method]["responses"].setdefault("401", {"$ref": "#/components/responses/Error401"})
    document["paths"][TOKEN_PATH] = {"post": _by_form(), "get": _by_query()}
    document["components"]["securitySchemes"] = {
        "bearer": {"type": "http", "scheme": "bearer", "bearerFormat": "JWT"},
        "oauth_token": {"type": "apiKey", "in": "header", "name": "oauth_token", "description": "The same token."},
        "client_credentials": {
            "type": "oauth2",
            "description": "Gives the token.",
            "flows": {"clientCredentials": {"tokenUrl": TOKEN_PATH, "scopes": {}}},
        },
    }


def _by_form() -> Schema:
    text = {"type": "string", "minLength": 1}
    fields = {"grant_type": {"const": "client_credentials"}, "client_id": text, "client_secret": text}
    form = {
        "type": "object",
        "required": ["grant_type"],
        "properties": fields,
        "description": "The consumer key and its secret, unless header `authorization` has them by HTTP Basic.",
    }
    return {
        "operationId": "token",
        "summary": "A token, by OAuth 2's client credentials (RFC 6749, 4.4).",
        "tags": ["Server"],
        "security": [],
        "requestBody": {"required": True, "content": {"application/x-www-form-urlencoded": {"schema": form}}},
        "responses": _responses(400, 401, 413, 429, 503),
    }


def _by_query() -> Schema:
    parameters = [
        {"name": name, "in": "query", "required": True, "schema": {"type": "string", "minLength": 1}}
        for name in ("consumer_key", "consumer_secret")
    ]
    return {
        "operationId": "token_by_query",
        "summary": "A token, as Seldon gives it.",
        "tags": ["Server"],
        "security": [],
        "parameters": parameters,
        "responses": _responses(400, 401, 429, 503),
    }


def _responses(*statuses: int) -> Schema:
    text = {"type": "string"}
    token = _object(access_token=text, token_type={"const": "Bearer"}, expires_in={"type": "integer", "minimum": 1})
    error = _object(error=text, error_description=text)
    # What a connection answers by itself.
    shared = {"anyOf": [error, {"$ref": "#/components/schemas/Error"}]}
    return {
        "200": {"description": "The token, and for how many seconds it holds.", "content": _json(token)},
        **{str(each): {"description": _ERRORS[each], "content": _json(shared)} for each in statuses},
        **{str(each): {"$ref": f"#/components/responses/Error{each}"} for each in (408, 431)},
    }


def _json(schema: Schema) -> Schema:
    return {"application/json": {"schema": schema}}


def _object(**properties: Schema) -> Schema:
    return {"type": "object", "required": list(properties), "properties": properties}
