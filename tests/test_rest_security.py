"""What the OpenAPI document says of tokens, where clients are asked for them, and that it is so."""

from __future__ import annotations

import json
import pathlib
import re
from collections.abc import Iterator
from typing import Any

import jsonschema
import pytest
from openapi_spec_validator import OpenAPIV31SpecValidator, validate

from browser import browsing
from mindserve.auth.hashing import hash_secret
from mindserve.auth.keys import ClientKey, Keys, save_keys
from openapi_support import schemathesis, serving_sorts
from rest_support import Rest

SECRET = "a secret of theirs"
FORM = {"grant_type": "client_credentials", "client_id": "app", "client_secret": SECRET}
OPEN = {"/healthz", "/healthz/live", "/healthz/ready", "/token", "/docs"}


@pytest.fixture(scope="module")
def rest(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rest]:
    folder = tmp_path_factory.mktemp("rest")
    keys = str(folder / "keys.yaml")
    save_keys(Keys({"app": ClientKey(key="app", secrets=(hash_secret(SECRET),))}), keys)
    with serving_sorts(folder, keys=keys) as rest:
        yield rest


def token(rest: Rest) -> str:
    answer = rest.session.post(rest.url + "/token", data=FORM, timeout=60)
    assert answer.status_code == 200, answer.text
    return str(answer.json()["access_token"])


@pytest.fixture(scope="module")
def document(rest: Rest) -> Any:
    answer = rest.get("/openapi.json", headers={"oauth_token": token(rest)})
    assert answer.status_code == 200, answer.text
    return answer.json()


def test_it_is_valid(document: Any) -> None:
    validate(document, cls=OpenAPIV31SpecValidator)


def test_the_schemes(document: Any) -> None:
    schemes = document["components"]["securitySchemes"]
    assert schemes["bearer"] == {"type": "http", "scheme": "bearer", "bearerFormat": "JWT"}
    oauth = schemes["oauth_token"]
    assert (oauth["type"], oauth["in"], oauth["name"]) == ("apiKey", "header", "oauth_token")
    assert schemes["client_credentials"]["flows"] == {"clientCredentials": {"tokenUrl": "/token", "scopes": {}}}


def test_operations_that_need_a_token_say_so_and_the_others_not(rest: Rest, document: Any) -> None:
    schemes = document["components"]["securitySchemes"]
    for path, item in document["paths"].items():
        for method, operation in item.items():
            if method == "parameters":
                continue
            answer = rest.session.request(method, rest.url + path.replace("{name}", "add"), timeout=60)
            if path in OPEN:
                assert not operation.get("security"), path
                assert answer.status_code != 401 or path == "/token", path
            else:
                assert operation["security"] == [{name: []} for name in schemes], path
                assert "401" in operation["responses"], path
                assert answer.status_code == 401, path


PAGE = ("/docs", "/docs/page.js", "/docs/page.css")


def test_the_page_is_open_and_what_it_shows_is_not(rest: Rest) -> None:
    for path in PAGE:
        answer = rest.get(path)
        assert answer.status_code == 200, path
        # They are the package's own files, whatever is served.
        assert not re.search(r"sorts|add_common", answer.text), path
    for path in ("/openapi.json", "/servables", "/docs/", "/docs/other", "/docs/page.js/../../openapi.json"):
        assert rest.get(path).status_code == 401, path


def test_the_page_asks_for_a_token(rest: Rest, tmp_path: pathlib.Path) -> None:
    with browsing(tmp_path) as browser:
        browser.open(f"{rest.url}/docs")
        browser.until("!document.getElementById('problem').hidden")
        assert "put a token into the field above" in browser.value("document.getElementById('problem').textContent")
        assert browser.value("document.activeElement.id") == "token"
        assert browser.value("document.querySelectorAll('#operations details, #servables tbody tr').length") == 0

        give = (
            "const field = document.getElementById('token'); field.value = %s; field.dispatchEvent(new Event('change'))"
        )
        browser.value(f"(() => {{ {give % json.dumps(token(rest))} }})()")
        browser.until("document.getElementById('call-sorts.same')")
        assert browser.value("document.getElementById('problem').hidden")
        assert "sorts" in browser.value("document.getElementById('servables').textContent")

        browser.value(f"(() => {{ {give % json.dumps('no token')} }})()")
        browser.until("!document.getElementById('problem').hidden")
        assert "does not take this token" in browser.value("document.getElementById('problem').textContent")
        assert browser.value("document.querySelectorAll('#operations details, #servables tbody tr').length") == 0


def test_each_way_of_showing_it_is_taken(rest: Rest) -> None:
    shown = token(rest)
    # What stands behind a value is no part of it, by HTTP.
    trailing = {"authorization": f"Bearer {shown} \t"}
    for headers in (
        {"authorization": f"Bearer {shown}"},
        {"oauth_token": shown},
        trailing,
        {"oauth_token": f"{shown} "},
    ):
        answer = rest.post("/model/sorts:same", {"instances": [{"x": 1}]}, headers=headers)
        assert answer.json() == {"instances": [{"y": 1}]}
        assert rest.get("/servables", headers=headers).status_code == 200


@pytest.mark.parametrize(
    ("form", "status"),
    [(FORM, 200), ({**FORM, "client_secret": "another"}, 401), ({**FORM, "grant_type": "password"}, 400)],
)
def test_answers_of_the_desk_are_as_it_says(rest: Rest, document: Any, form: dict[str, str], status: int) -> None:
    operation = document["paths"]["/token"]["post"]
    (content,) = operation["requestBody"]["content"].values()
    whole = {**content["schema"], "components": document["components"]}
    assert jsonschema.Draft202012Validator(whole).is_valid(form) == (form["grant_type"] == "client_credentials")
    answer = rest.session.post(rest.url + "/token", data=form, timeout=60)
    assert answer.status_code == status
    said = operation["responses"][str(status)]["content"]["application/json"]["schema"]
    jsonschema.validate(answer.json(), {**said, "components": document["components"]})
    query = {"consumer_key": form["client_id"], "consumer_secret": form["client_secret"]}
    answer = rest.get("/token", params=query)
    assert answer.status_code == (200 if status == 400 else status)


@pytest.mark.timeout(960)
def test_schemathesis_finds_nothing(rest: Rest, document: Any, tmp_path: pathlib.Path) -> None:
    """Neither what it finds without tokens, nor an operation that does without the token that it says it needs."""
    shown = f"Authorization: Bearer {token(rest)}"
    operations = schemathesis(rest, tmp_path, "--header", shown, checks=",ignored_auth")
    paths = document["paths"]
    expected = sum(
        method in ("get", "post") for path, item in paths.items() if path != "/openapi.json" for method in item
    )
    assert operations == expected
    assert "[ERROR]" not in rest.process.errors()


def test_without_tokens_it_says_nothing_of_them(tmp_path: pathlib.Path) -> None:
    with serving_sorts(tmp_path) as rest:
        document = rest.get("/openapi.json").json()
    assert "securitySchemes" not in document["components"]
    assert "/token" not in document["paths"]
    assert not any("security" in operation for item in document["paths"].values() for operation in item.values())
