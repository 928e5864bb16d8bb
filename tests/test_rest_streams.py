"""Methods that stream, by HTTP: a result on each line."""

from __future__ import annotations

import json
import pathlib
from collections.abc import Iterator
from typing import Any

import pytest
import requests

from e2e_support import PREAMBLE, until, write_servable
from rest_support import Rest, head, serving_rest

CONFIG = (
    PREAMBLE
    + """
import os
import threading
import time

go_on = threading.Event()
ended = []


def double(n):
    return n * 2


def counting(n, fail_at):
    try:
        for number in range(int(n.item())):
            if number == int(fail_at.item()):
                raise ValueError(f"no {number} to be had")
            yield np.int64(number), f"number {number}"
    finally:
        ended.append(number)


async def counting_async(n):
    for number in range(int(n.item())):
        yield np.full(1000, number, np.int32)


def waiting(n):
    try:
        yield 1
        if not go_on.wait(60):
            raise TimeoutError
        yield 2
        while n.item() > 2:
            yield 3
            time.sleep(0.01)
    finally:
        ended.append("waiting")


def killing(n):
    yield 1
    if not go_on.wait(60):
        raise TimeoutError
    os._exit(1)


@register.register_method(output_names=["number", "text"], streaming=True)
def count(n, fail_at):
    return register.add_stage(counting, register.add_stage(double, n, outputs_count=1), fail_at, outputs_count=2)


@register.register_method(output_names="y", streaming=True)
def many(n):
    return register.add_stage(counting_async, n, outputs_count=1)


@register.register_method(output_names="y", streaming=True)
def wait(n):
    return register.add_stage(waiting, n, outputs_count=1)


@register.register_method(output_names="y", streaming=True, idempotent=False)
def die(n):
    return register.add_stage(killing, n, outputs_count=1)


@method()
def release(n):
    go_on.set() if n.item() else go_on.clear()
    return n


@method()
def closed(n):
    return len(ended)


@method()
def plain(n):
    return n
"""
)


@pytest.fixture(scope="module")
def rest(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rest]:
    folder = tmp_path_factory.mktemp("streams")
    write_servable(folder / "servables", "streams", CONFIG)
    write_servable(folder / "servables", "streams2", CONFIG.replace("n * 2", "n * 3"))
    split = (
        "server.set_traffic('split', [server.Variation('a', 'streams'), server.Variation('b', 'streams2')])\n"
        "server.start_grpc_server('127.0.0.1:0')\n"
    )
    with serving_rest(folder, "streams", "streams2", before=split) as rest:
        yield rest


def lines_of(answer: requests.Response) -> list[Any]:
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == "application/x-ndjson"
    assert not answer.text or answer.text.endswith("\n")
    return [json.loads(line) for line in answer.text.splitlines()]


def one(**values: Any) -> dict[str, Any]:
    return {"instances": [values]}


@pytest.mark.parametrize("path", ["/model/streams:count", "/model/streams/version/1:count"])
def test_each_result_is_a_line(rest: Rest, path: str) -> None:
    answer = rest.post(path, one(n=2, fail_at=-1), headers={"x-request-id": "mine"})
    assert lines_of(answer) == [{"number": number, "text": f"number {number}"} for number in range(4)]
    assert answer.headers["x-request-id"] == "mine"
    assert "mindserve-variation" not in answer.headers


def test_many_and_none(rest: Rest) -> None:
    found = lines_of(rest.post("/model/streams:many", one(n=300)))
    assert [each["y"][0] for each in found] == list(range(300))
    assert all(len(each["y"]) == 1000 for each in found)
    assert lines_of(rest.post("/model/streams:many", one(n=0))) == []


def test_an_error_is_the_last_line(rest: Rest) -> None:
    *results, error = lines_of(rest.post("/model/streams:count", one(n=5, fail_at=2)))
    assert [each["number"] for each in results] == [0, 1]
    assert "no 2 to be had" in error["error_msg"]
    (error,) = lines_of(rest.post("/model/streams:count", one(n="x", fail_at=2)))
    assert list(error) == ["error_msg"]
    rest.ask("/model/streams:release", {"n": 0})
    with rest.post("/model/streams:die", one(n=1), stream=True) as answer:
        lines = answer.iter_lines()
        assert json.loads(next(lines)) == {"y": 1}
        # The worker may end before this is answered.
        rest.session.post(rest.url + "/model/streams:release", json=one(n=1), timeout=60)
        (last,) = [json.loads(line) for line in lines]
    assert list(last) == ["error_msg"]
    # Its successor.
    until(lambda: rest.post("/model/streams:plain", one(n=1)).json() == one(y=1))


def test_what_is_wrong_with_a_request(rest: Rest) -> None:
    path = "/model/streams:count"
    (error,) = lines_of(rest.post(path, {"instances": [{"n": 1, "fail_at": 1}] * 2}))
    assert "instances count is 2, expected one" in error["error_msg"]
    assert "fail_at" in lines_of(rest.post(path, one(n=1)))[0]["error_msg"]
    # These as for any method.
    assert "json" in rest.error(path, b"{").lower()
    assert "not available" in rest.error("/model/streams/version/7:count", one(n=1, fail_at=1))
    assert "not available" in rest.error("/model/streams:nothing", one(n=1))


def test_results_come_as_they_are_made_and_a_deadline_ends_them(rest: Rest) -> None:
    rest.ask("/model/streams:release", {"n": 0})
    with rest.post("/model/streams:wait", one(n=2), stream=True) as answer:
        lines = answer.iter_lines()
        assert json.loads(next(lines)) == {"y": 1}, "though the next one is not there"
        rest.session.post(rest.url + "/model/streams:release", json=one(n=1), timeout=60)
        assert [json.loads(line) for line in lines] == [{"y": 2}]
    rest.ask("/model/streams:release", {"n": 0})
    first, last = lines_of(rest.post("/model/streams:wait", one(n=2), headers={"x-request-timeout": "3"}))
    assert first == {"y": 1}
    assert "deadline" in last["error_msg"].lower()
    rest.ask("/model/streams:release", {"n": 1})


def test_a_client_that_goes_ends_the_generator(rest: Rest) -> None:
    rest.ask("/model/streams:release", {"n": 1})
    (before,) = rest.ask("/model/streams:closed", {"n": 1})
    body = json.dumps(one(n=3)).encode()
    with rest.connect() as connection:
        connection.sendall(head("/model/streams:wait", f"Content-Length: {len(body)}") + body)
        assert connection.recv(1000)
    until(lambda: rest.ask("/model/streams:closed", {"n": 1})[0]["y"] > before["y"])


def test_a_name_that_is_split(rest: Rest) -> None:
    found = {}
    for _ in range(2):
        answer = rest.post("/model/split:count", one(n=2, fail_at=-1))
        found[answer.headers["mindserve-variation"]] = len(lines_of(answer))
    assert found == {"a": 4, "b": 6}
    # Methods that don't stream are not asked otherwise than before.
    assert rest.post("/model/split:plain", one(n=1)).json() == one(y=1)


def test_it_is_shown(rest: Rest) -> None:
    (servable,) = [each for each in rest.get("/servables").json()["servables"] if each["name"] == "streams"]
    (version,) = servable["versions"]
    shown = {each["name"]: each for each in version["methods"]}
    assert {name: each["streaming"] for name, each in shown.items()} == {
        **dict.fromkeys(["release", "closed", "plain"], False),
        **dict.fromkeys(["count", "many", "wait", "die"], True),
    }
    assert (shown["count"]["inputs"], shown["count"]["outputs"]) == (["n", "fail_at"], ["number", "text"])
    assert version["services"] == []
    paths = rest.get("/openapi.json").json()["paths"]
    for path in ("/model/streams:count", "/model/streams/version/1:count", "/model/split:count"):
        operation = paths[path]["post"]
        content = operation["responses"]["200"]["content"]
        result, error = content["application/x-ndjson"]["schema"]["anyOf"]
        assert list(result["properties"]) == ["number", "text"]
        assert error == content["application/json"]["schema"] == {"$ref": "#/components/schemas/Error"}
        schema = operation["requestBody"]["content"]["application/json"]["schema"]
        assert schema["properties"]["instances"]["maxItems"] == 1
    assert list(paths["/model/split:plain"]["post"]["responses"]["200"]["content"]) == ["application/json"]


def test_a_method_that_is_loaded_anew_as_another_kind(tmp_path: pathlib.Path) -> None:
    plain = PREAMBLE + "\n@method()\ndef numbers(n):\n    return n\n"
    streams = (
        PREAMBLE
        + """
def counting(n):
    yield from range(3)


@register.register_method(output_names="y", streaming=True)
def numbers(n):
    return register.add_stage(counting, n, outputs_count=1)
"""
    )
    write_servable(tmp_path / "servables", "s", plain)
    after = "for _ in sys.stdin:\n    server.reload('s')\n    print('reloaded', flush=True)\n"
    with serving_rest(tmp_path, "s", after=after) as rest:

        def reload(text: str) -> None:
            (tmp_path / "servables" / "s" / "servable_config.py").write_text(text, encoding="utf-8")
            rest.process.tell("")
            assert rest.process.line() == "reloaded"

        assert rest.post("/model/s:numbers", one(n=1)).json() == one(y=1)
        reload(streams)
        assert lines_of(rest.post("/model/s:numbers", one(n=1))) == [{"y": 0}, {"y": 1}, {"y": 2}]
        reload(plain)
        assert rest.post("/model/s:numbers", one(n=1)).json() == one(y=1)
