"""The page that shows what is served, opened in a browser."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from browser import Browser, browsing
from openapi_support import serving_sorts
from rest_support import Rest

# Opens what an operation is hidden behind, and sends its form with this body, or as it stands.
SEND = """
(async ([operation, body, parameters]) => {
  const details = document.getElementById(operation);
  details.open = true;
  const toggled = () => new Promise((done) => details.addEventListener("toggle", done, {once: true}));
  while (!details.querySelector("form")) await toggled();
  const form = details.querySelector("form");
  if (body !== null) form.querySelector("textarea").value = body;
  for (const [name, value] of Object.entries(parameters)) form.elements[name].value = value;
  form.requestSubmit();
})(%s)
"""


@pytest.fixture(scope="module")
def rest(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rest]:
    with serving_sorts(tmp_path_factory.mktemp("rest")) as rest:
        yield rest


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with browsing(tmp_path_factory.mktemp("browser")) as browser:
        yield browser


@pytest.fixture
def page(rest: Rest, browser: Browser) -> Browser:
    browser.problems.clear()
    browser.open(f"{rest.url}/docs")
    browser.until("document.querySelector('#operations details') || !document.getElementById('problem').hidden")
    return browser


def send(page: Browser, operation: str, body: str | None = None, **parameters: str) -> tuple[str, str]:
    """The status and the answer that a form shows."""
    page.value(SEND % json.dumps([f"call-{operation}", body, parameters]))
    form = f"document.getElementById({json.dumps('call-' + operation)}).querySelector('form')"
    page.until(f"{form}.querySelector('button').textContent === 'Send'")
    shown: list[str] = page.value(f"[{form}.querySelector('p').textContent, {form}.querySelector('pre').textContent]")
    return shown[0], shown[1]


def test_the_page_shows_what_is_served(page: Browser) -> None:
    methods = "same(x) → y; size(text, data) → y; scores(a_double, an_int32) → probabilities; thrice(x) → y"
    rows: list[list[str]] = page.value(
        "[...document.querySelectorAll('#servables tbody tr')]"
        ".map((row) => [...row.cells].map((cell) => cell.textContent))"
    )
    assert rows == [
        ["add", "1", "1", "add_common(x1, x2) → y; add_cast(x1, x2) → y"],
        ["sorts", "1", "1", f"{methods}; io.seldon.api.rpc.Classifier; sorts.v1.SortService"],
    ]
    operations: list[str] = page.value("[...document.querySelectorAll('#operations details')].map((each) => each.id)")
    expected = {"add.add_common", "add.1.add_common", "sorts.same", "sorts.v1.SortService.Echo", "live"}
    assert {f"call-{each}" for each in expected} <= set(operations)
    assert page.value("document.getElementById('problem').hidden")
    assert page.problems == []


def test_calls_from_the_page(page: Browser) -> None:
    status, answer = send(page, "add.add_common")
    assert status.startswith("200 OK, ")
    assert json.loads(answer) == {"instances": [{"y": [[1.0, 1.0], [1.0, 1.0]]}]}
    types = page.value("document.getElementById('call-add.add_common').querySelector('tbody').textContent")
    assert types == "x1float32 [2, 2]x2float32 [2, 2]"

    _, answer = send(page, "sorts.same", '{"instances": [{"x": 2.0}, {"x": "<b>bold</b>"}, {"x": "{[,"}]}')
    assert "2.0" in answer  # as it came, not as JavaScript writes the number
    assert json.loads(answer) == {"instances": [{"y": 2.0}, {"y": "<b>bold</b>"}, {"y": "{[,"}]}

    status, answer = send(page, "sorts.v1.SortService.Down", '{"aString": "a"}')
    assert [json.loads(line) for line in answer.splitlines()] == [
        {"aString": "a"},
        {"aString": "a", "anInt64": "1"},
        {"aString": "a", "anInt64": "2"},
    ]
    _, answer = send(page, "servable", name="add")
    assert json.loads(answer)["name"] == "add"
    assert page.problems == []


def test_every_form_begins_with_what_the_server_takes(rest: Rest, page: Browser) -> None:
    document: Any = rest.get("/openapi.json").json()
    for path, item in document["paths"].items():
        for operation in item.values():
            # What a path's parameter is, and what shape a function takes, the document doesn't know.
            if "{" not in path and "add_cast" not in path:
                status, answer = send(page, operation["operationId"])
                assert status.startswith("200 "), (path, status, answer)
                assert '"error' not in answer or path == "/openapi.json", (path, answer)


def test_errors_are_shown(page: Browser) -> None:
    status, answer = send(page, "sorts.v1.SortService.Echo", "{")
    assert status.startswith("400 ")
    assert "the body is no sorts.v1.Sorts in JSON" in answer


def test_the_page_comes_from_here_alone(rest: Rest) -> None:
    for path, kind in (("/docs", "html"), ("/docs/page.js", "javascript"), ("/docs/page.css", "css")):
        answer = rest.get(path)
        assert answer.status_code == 200
        assert kind in answer.headers["content-type"]
        assert "://" not in answer.text
        policy = answer.headers["content-security-policy"].split("; ")
        assert {"default-src 'none'", "script-src 'self'", "frame-ancestors 'none'", "base-uri 'none'"} <= set(policy)
        assert "unsafe" not in answer.headers["content-security-policy"]
        assert answer.headers["x-content-type-options"] == "nosniff"


def test_scripts_of_others_do_not_run(page: Browser) -> None:
    """The policy holds in the browser, too."""
    page.value("document.body.append(Object.assign(document.createElement('script'), {textContent: 'window.ran = 1'}))")
    assert page.value("window.ran === undefined")
    assert any("Content Security Policy" in problem for problem in page.problems)
