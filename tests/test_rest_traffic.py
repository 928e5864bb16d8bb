"""Names that are split between servables, by HTTP: who answers is told, and what is served has the names."""

from __future__ import annotations

import collections
import json
import pathlib
from collections.abc import Iterator
from typing import Any

import pytest
from openapi_spec_validator import OpenAPIV31SpecValidator, validate

from e2e_support import PREAMBLE, write_servable
from mindserve.control import TensorType
from mindserve.rest.context import ServedMethod, ServedVersion
from mindserve.rest.split_names import describe_splits
from mindserve.traffic import Split, Variation
from rest_support import Rest, serving_rest
from stubs import compile_protos

PROTO = """
package who;
message Note { string text = 1; }
service Who {
  rpc Ask(Note) returns (Note);
  rpc Count(Note) returns (stream Note);
  rpc Fail(Note) returns (Note);
}
"""
CONFIG = (
    PREAMBLE
    + """
from who_pb2 import Note


@method("x")
def who(x):
    return np.array({number}, np.int64)


@register.grpc_method
def Ask(request):
    return Note(text="{number}")


@register.grpc_method
def Count(request):
    for _ in range(3):
        yield Note(text="{number}")


@register.grpc_method
def Fail(request):
    raise ValueError("no")
"""
)
ONLY_ONE = '\n\n@method("x")\ndef only(x):\n    return x\n'
TRAFFIC = """
from mindserve.server import Variation

server.start_grpc_server("127.0.0.1:0", grpc_servicer_functions=["who_pb2_grpc.add_WhoServicer_to_server"])
server.set_traffic("both", [Variation("a", "one"), Variation("b", "two")], sticky="user")
server.set_traffic("two", [Variation("old", "two", version=1, weight=3), Variation("new", "one", weight=0)])
"""
NUMBERS = {"a": 1, "b": 2}


@pytest.fixture(scope="module")
def rest(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rest]:
    folder = tmp_path_factory.mktemp("traffic")
    for number, name in enumerate(("one", "two"), 1):
        config = CONFIG.replace("{number}", str(number)) + (ONLY_ONE if name == "one" else "")
        write_servable(folder / "servables", name, config)
        compile_protos(folder / "servables" / name, who=PROTO)
    with serving_rest(folder, "one", "two", before=TRAFFIC) as rest:
        yield rest


def test_the_answer_names_the_variation(rest: Rest) -> None:
    said: collections.Counter[str] = collections.Counter()
    for _ in range(8):
        answer = rest.post("/model/both:who", {"instances": [{"x": 0}]})
        variation = answer.headers["mindserve-variation"]
        assert answer.json() == {"instances": [{"y": NUMBERS[variation]}]}
        said[variation] += 1
    assert said == {"a": 4, "b": 4}
    assert "mindserve-variation" not in rest.post("/model/one:who", {"instances": [{"x": 0}]}).headers


def test_answers_that_are_errors_name_it_too(rest: Rest) -> None:
    answers = [rest.post("/model/both:only", {"instances": [{"x": 5}]}) for _ in range(2)]
    by_variation = {answer.headers["mindserve-variation"]: answer.json() for answer in answers}
    assert by_variation["a"] == {"instances": [{"y": 5}]}
    assert "variation(b: Servable(two) method(only)), method is not available" in by_variation["b"]["error_msg"]
    version = rest.error("/model/both/version/1:who", {"instances": [{"x": 0}]})
    assert "only calls without a version are split" in version


def test_rpcs_are_split_too(rest: Rest) -> None:
    said = set()
    for _ in range(2):
        answer = rest.post("/who.Who/Ask", {}, headers={"application": "both"})
        said.add(answer.headers["mindserve-variation"])
        assert answer.json() == {"text": str(NUMBERS[answer.headers["mindserve-variation"]])}
        assert "grpc-trailer-mindserve-variation" not in answer.headers
    assert said == {"a", "b"}
    failed = rest.post("/who.Who/Fail", {}, headers={"application": "both"})
    assert failed.status_code == 500
    assert failed.headers["mindserve-variation"] in said


def test_a_streams_headers_name_the_variation(rest: Rest) -> None:
    said = set()
    for _ in range(2):
        answer = rest.post("/who.Who/Count", {}, headers={"application": "both"})
        said.add(answer.headers["mindserve-variation"])
        lines = [json.loads(line) for line in answer.text.splitlines()]
        assert lines == [{"text": str(NUMBERS[answer.headers["mindserve-variation"]])}] * 3
    assert said == {"a", "b"}


def test_the_same_header_goes_to_the_same_variation(rest: Rest) -> None:
    def ask(user: int) -> str:
        headers = {"grpc-metadata-user": str(user)}
        return rest.post("/model/both:who", {"instances": [{"x": 0}]}, headers=headers).headers["mindserve-variation"]

    homes = [ask(user) for user in range(20)]
    assert set(homes) == {"a", "b"}
    assert [ask(user) for user in range(20)] == homes


def test_names_are_shown(rest: Rest) -> None:
    shown = {each["name"]: each for each in rest.get("/servables").json()["servables"]}
    assert list(shown) == ["both", "one", "two"]
    both = shown["both"]
    assert (both["ready"], both["versions"], both["services"]) == (True, [], ["who.Who"])
    assert both["variations"] == [
        {"name": "a", "servable": "one", "version": 0, "weight": 1.0},
        {"name": "b", "servable": "two", "version": 0, "weight": 1.0},
    ]
    who = both["methods"][0]
    assert (who["name"], who["path"], who["inputs"], who["outputs"]) == ("who", "/model/both:who", ["x"], ["y"])
    assert rest.ask(who["path"], {"x": 0})
    assert "variations" not in shown["one"]
    # A servable's own name has both.
    assert [each["name"] for each in shown["two"]["variations"]] == ["old", "new"]
    assert [each["version"] for each in shown["two"]["versions"]] == [1]
    assert [each["name"] for each in shown["two"]["methods"]] == ["who"], "of who gets calls"
    assert rest.get("/servables/both").json() == both
    assert "there are: 'both', 'one', 'two'" in rest.get("/servables/three").json()["error_msg"]


def test_the_document_has_the_names(rest: Rest) -> None:
    document = rest.get("/openapi.json").json()
    validate(document, cls=OpenAPIV31SpecValidator)
    paths = {path for path in document["paths"] if path.startswith("/model/")}
    assert paths == {
        *("/model/both:who", "/model/both:only"),
        *("/model/one:who", "/model/one:only", "/model/one/version/1:who", "/model/one/version/1:only"),
        *("/model/two:who", "/model/two/version/1:who"),
    }
    split = document["paths"]["/model/both:who"]["post"]
    assert split["summary"] == "both: who, of one of the variations 'a', 'b'"
    assert "mindserve-variation" in split["responses"]["200"]["headers"]
    assert document["paths"]["/model/two:who"]["post"]["summary"] == "two: who, of one of the variations 'old', 'new'"
    ids = [operation["operationId"] for item in document["paths"].values() for operation in item.values()]
    assert len(ids) == len(set(ids))
    (application,) = [
        each for each in document["paths"]["/who.Who/Ask"]["post"]["parameters"] if each.get("name") == "application"
    ]
    assert application["schema"]["enum"] == ["both", "one", "two"]


def test_the_document_changes_with_the_names(tmp_path: pathlib.Path) -> None:
    write_servable(tmp_path / "servables", "one", CONFIG.replace("from who_pb2 import Note", "").split("@register")[0])
    listen = "from mindserve.server import Variation\n"
    listen += "for line in sys.stdin:\n    eval(line)\n    print('done', flush=True)\n"

    def tell(rest: Rest, expression: str) -> Any:
        rest.process.tell(expression)
        assert rest.process.line() == "done"
        return rest.get("/openapi.json")

    with serving_rest(tmp_path, "one", after=listen) as rest:
        before = rest.get("/openapi.json")
        assert "/model/name:who" not in before.json()["paths"]
        split = tell(rest, "server.set_traffic('name', [Variation('a', 'one')])")
        assert "/model/name:who" in split.json()["paths"]
        # How often who answers is no matter of it.
        again = tell(rest, "server.set_traffic('name', [Variation('a', 'one', weight=7)])")
        assert again.headers["etag"] == split.headers["etag"] != before.headers["etag"]
        after = tell(rest, "server.clear_traffic('name')")
        assert after.headers["etag"] == before.headers["etag"]


# -- what is known of a name -------------------------------------------------------------------------------------------

FLOATS, INTS = TensorType("float32", (2,)), TensorType("int32", (2,))


def version(servable: str, number: int, *types: TensorType | None, ready: bool = True, **options: Any) -> ServedVersion:
    method = ServedMethod("m", ("x1", "x2")[: len(types)], ("y",), types, (None,))
    return ServedVersion(
        servable, number, ready, int(ready), options.get("methods", (method,)), options.get("services", ())
    )


def test_types_are_told_where_variations_agree() -> None:
    split = Split("name", (Variation("a", "one"), Variation("b", "two"), Variation("c", "three", weight=0)))
    served = [version("one", 1, FLOATS, FLOATS), version("two", 1, FLOATS, INTS), version("three", 1, INTS, INTS)]
    (name,) = describe_splits([split], served)
    (method,) = name.methods
    assert method.input_types == (FLOATS, None)
    assert method.inputs == ("x1", "x2")


def test_the_newest_version_that_is_known_answers_for_a_variation_without_one() -> None:
    split = Split("name", (Variation("a", "one"), Variation("b", "one", version=1)))
    starting = version("one", 3, ready=False, methods=())
    served = [version("one", 1, INTS, services=("s.A",)), version("one", 2, FLOATS, services=("s.B",)), starting]
    (name,) = describe_splits([split], served)
    assert name.ready
    assert name.services == ("s.B", "s.A")
    assert name.methods[0].input_types == (None,)


def test_a_name_is_ready_with_a_variation_that_gets_calls() -> None:
    split = Split("name", (Variation("a", "one"), Variation("b", "two", weight=0)))
    (name,) = describe_splits([split], [version("one", 1, ready=False), version("two", 1)])
    assert not name.ready
    (name,) = describe_splits([split], [version("one", 1), version("two", 1, ready=False)])
    assert name.ready
    (name,) = describe_splits([split], [])
    assert (name.ready, name.methods, name.services) == (False, (), ())
