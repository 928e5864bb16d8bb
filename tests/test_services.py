"""What is made of `grpc_servicer_functions`, and how it is compared with what workers answer."""

from __future__ import annotations

import dataclasses
import importlib
import pathlib
import sys
from collections.abc import Callable, Sequence
from typing import Any

import grpc
import pytest
from google.protobuf import descriptor_pb2

from mindserve.control import ReadyRpc, ReadyService
from mindserve.errors import ConfigError
from mindserve.server import services as services_module
from mindserve.server.servicer import Description, NotServicerError, ProtoFile, describe
from mindserve.server.services import Described, Services, check_functions
from stubs import compile_protos

COMMON = "package svctest.common; message Thing { string name = 1; }"
MAIN = """
package svctest;
import "google/protobuf/empty.proto";
import "svctest_common.proto";
message Ask { common.Thing thing = 1; }
message Answer { string text = 1; }
service Everything {
  rpc __call__(Ask) returns (Answer);
  rpc Server(Ask) returns (stream Answer);
  rpc Client(stream Ask) returns (Answer);
  rpc Both(stream Ask) returns (stream Answer);
  rpc Nothing(google.protobuf.Empty) returns (common.Thing);
}
service Other { rpc Ping(Ask) returns (Answer); }
"""
EVERYTHING = ReadyService(
    "svctest.Everything",
    (
        ReadyRpc("__call__", False, False, "svctest.Ask", "svctest.Answer"),
        ReadyRpc("Server", False, True, "svctest.Ask", "svctest.Answer"),
        ReadyRpc("Client", True, False, "svctest.Ask", "svctest.Answer"),
        ReadyRpc("Both", True, True, "svctest.Ask", "svctest.Answer"),
        ReadyRpc("Nothing", False, False, "google.protobuf.Empty", "svctest.common.Thing"),
    ),
)
OTHER = ReadyService("svctest.Other", (ReadyRpc("Ping", False, False, "svctest.Ask", "svctest.Answer"),))
ADD = "svctest_pb2_grpc.add_EverythingServicer_to_server"
ADD_OTHER = "svctest_pb2_grpc.add_OtherServicer_to_server"


@pytest.fixture(scope="module")
def generated(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    return compile_protos(tmp_path_factory.mktemp("generated"), svctest=MAIN, svctest_common=COMMON)


@dataclasses.dataclass(frozen=True)
class Stub:
    """The generated modules, imported here."""

    grpc: Any
    messages: Any


@pytest.fixture(scope="module")
def stub(generated: pathlib.Path) -> Stub:
    sys.path.insert(0, str(generated))
    try:
        stub = Stub(importlib.import_module("svctest_pb2_grpc"), importlib.import_module("svctest_pb2"))
    finally:
        sys.path.remove(str(generated))
    # A worker in this process must not take them for what its servable has imported.
    for name in ("svctest_pb2_grpc", "svctest_pb2", "svctest_common_pb2"):
        del sys.modules[name]
    return stub


def described(*functions: Any, directories: Sequence[pathlib.Path] = ()) -> Described:
    return Described().add(check_functions(functions), directories)


def error_of(call: Callable[[], Any]) -> str:
    with pytest.raises(ConfigError) as error:
        call()
    return str(error.value)


# -- functions ---------------------------------------------------------------------------------------------------------


def test_a_function_is_described(stub: Stub) -> None:
    (everything,) = describe(stub.grpc.add_EverythingServicer_to_server)
    assert everything.service == EVERYTHING
    (other,) = describe(stub.grpc.add_OtherServicer_to_server)
    assert other.service == OTHER
    names = [file.name for file in everything.files]
    assert sorted(names) == ["google/protobuf/empty.proto", "svctest.proto", "svctest_common.proto"]
    assert names[-1] == "svctest.proto"
    for file in everything.files:
        assert descriptor_pb2.FileDescriptorProto.FromString(file.descriptor).name == file.name


def test_a_description_survives_the_way_out_of_a_process(stub: Stub) -> None:
    (everything,) = describe(stub.grpc.add_EverythingServicer_to_server)
    assert Description.from_json(everything.to_json()) == everything
    for broken in ({}, {**everything.to_json(), "files": [["a", "!"]]}, {**everything.to_json(), "methods": [{}]}):
        with pytest.raises(ValueError, match="no description"):
            Description.from_json(broken)


def generic(service: str, **methods: Any) -> Callable[[Any, Any], None]:
    """As older versions of grpcio's compiler generate it: without the registered methods of newer ones."""

    def add(servicer: Any, server: Any) -> None:
        handlers = {
            name: grpc.unary_unary_rpc_method_handler(getattr(servicer, name), deserializer, lambda message: b"")
            for name, deserializer in methods.items()
        }
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, handlers),))

    return add


def test_functions_of_older_compilers(stub: Stub) -> None:
    (found,) = describe(generic("svctest.Other", Ping=stub.messages.Ask.FromString))
    assert found.service == OTHER
    (found,) = describe(generic("svctest.Everything", __call__=stub.messages.Ask.FromString))
    assert found.service == ReadyService(EVERYTHING.name, EVERYTHING.methods[:1])


def raises(servicer: Any, server: Any) -> None:
    raise ValueError("my own text")


def starts_a_port(servicer: Any, server: Any) -> None:
    server.add_insecure_port("[::]:1")


def exits(servicer: Any, server: Any) -> None:
    sys.exit("nothing to do")


def adds_nonsense(servicer: Any, server: Any) -> None:
    server.add_generic_rpc_handlers((object(),))


@pytest.mark.parametrize(
    ("function", "found"),
    [
        (lambda: None, "calling it with a servicer and a server fails: TypeError: "),
        (lambda servicer, server: None, "calling it adds no service to the server"),
        (raises, "calling it with a servicer and a server fails: ValueError: my own text"),
        (exits, "calling it with a servicer and a server fails: SystemExit: nothing to do"),
        (starts_a_port, "AttributeError: 'NotingServer' object has no attribute 'add_insecure_port'"),
        (adds_nonsense, "it adds handlers that are not for one service: AttributeError: "),
        (generic("svctest.Other"), "service 'svctest.Other' that it adds has no methods"),
        (generic("svctest.Other", Ping=None), "method 'svctest.Other/Ping' that it adds makes its requests with None"),
        (generic("svctest.Other", Ping=bytes), "makes its requests with <class 'bytes'>, not with the FromString"),
    ],
)
def test_functions_that_are_not_one(function: Callable[..., Any], found: str) -> None:
    text = error_of(lambda: described(function))
    assert "of parameter 'grpc_servicer_functions' should be a generated add_…Servicer_to_server function" in text
    assert found in text


def test_functions_that_do_not_fit_their_proto_file(stub: Stub) -> None:
    ask, answer = stub.messages.Ask.FromString, stub.messages.Answer.FromString
    for function, found in (
        (generic("svctest.Nowhere", Ping=ask), "service 'svctest.Nowhere' that it adds is in no proto file"),
        (generic("svctest.Other", Pong=ask), "adds method 'Pong', which service 'svctest.Other' does not have in file"),
        (generic("svctest.Other", Ping=answer), "it adds method 'svctest.Other/Ping' otherwise than file"),
        (generic("svctest.Everything", Both=ask), "it adds method 'svctest.Everything/Both' otherwise than file"),
    ):
        with pytest.raises(NotServicerError, match=found):
            describe(function)


@pytest.mark.parametrize(
    ("given", "found"),
    [
        ("a.b", "Parameter 'grpc_servicer_functions' should be tuple/list, each item a generated"),
        (raises, "Parameter 'grpc_servicer_functions' should be tuple/list, each item a generated"),
        ([None], "The item None of parameter"),
        ([1], "but actually it is a value of <class 'int'>"),
        ([ConfigError], "The item ConfigError of parameter 'grpc_servicer_functions' should be a generated add_"),
        ([ConfigError], "but actually it is class 'ConfigError'"),
        ([b"a.b"], "but actually it is a value of <class 'bytes'>"),
        (["function"], "The item 'function' of parameter"),
        (["function"], "that is no import path: expected 'module.function' or 'package.module:function'"),
        ([""], "that is no import path"),
        (["a..b"], "that is no import path"),
        ([".a.b"], "that is no import path"),
        (["a/b.c"], "that is no import path"),
        (["a:b:c"], "that is no import path"),
        (["a:b.c"], "that is no import path"),
        (["a.b", "a:b"], "The item 'a:b' of parameter 'grpc_servicer_functions' should not be repeated"),
        ([raises, raises], "The item test_services.raises of parameter 'grpc_servicer_functions' should not be rep"),
    ],
)
def test_what_is_no_list_of_functions(given: Any, found: str) -> None:
    assert found in error_of(lambda: check_functions(given))


# -- import paths ------------------------------------------------------------------------------------------------------


def test_an_import_path_is_described_elsewhere(generated: pathlib.Path) -> None:
    found = described(ADD, ADD_OTHER.replace(".add", ":add"), directories=[generated])
    assert {name: each.service for name, (_, each) in found.services.items()} == {
        EVERYTHING.name: EVERYTHING,
        OTHER.name: OTHER,
    }
    assert found.native_services()[1] == ("svctest.Other", [("Ping", False, False)])
    assert found.native_services()[0][1][3] == ("Both", True, True)


def test_the_descriptors_come_in_order(generated: pathlib.Path) -> None:
    found = described(ADD, ADD_OTHER, directories=[generated])
    files = descriptor_pb2.FileDescriptorSet.FromString(found.descriptors()).file
    seen: set[str] = set()
    for file in files:
        assert set(file.dependency) <= seen
        seen.add(file.name)
    assert [file.name for file in files][-1] == "svctest.proto"
    assert len(files) == 3


def test_packages_and_the_start_scripts_path(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = compile_protos(tmp_path / "lib", alone="package alone; message M {} service S { rpc Do(M) returns (M); }")
    (package / "protos").mkdir()
    (package / "protos" / "__init__.py").write_text("print('hello from the module')\n")
    (package / "alone_pb2_grpc.py").rename(package / "protos" / "alone_pb2_grpc.py")
    monkeypatch.syspath_prepend(str(package))
    for path in ("protos.alone_pb2_grpc:add_SServicer_to_server", "protos.alone_pb2_grpc.add_SServicer_to_server"):
        assert list(described(path).services) == ["alone.S"]
    assert "alone_pb2" not in sys.modules


def test_the_start_scripts_path_comes_first(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("one", "two"):
        compile_protos(tmp_path / name, both=f"package {name}; message M {{}} service S {{ rpc Do(M) returns (M); }}")
    path = "both_pb2_grpc.add_SServicer_to_server"
    assert list(described(path, directories=[tmp_path / "two", tmp_path / "one"]).services) == ["two.S"]
    monkeypatch.syspath_prepend(str(tmp_path / "one"))
    assert list(described(path, directories=[tmp_path / "two"]).services) == ["one.S"]


def test_another_implementation_of_protobuf(generated: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = described(ADD, directories=[generated])
    monkeypatch.setenv("PROTOCOL_BUFFERS_PYTHON_IMPLEMENTATION", "python")
    assert described(ADD, directories=[generated]) == expected


MODULES = {
    "values": "add_number_to_server = 1\nclass Stub: pass\ndef helper(servicer, server): pass\n",
    "broken": "import os\nraise ValueError('my own text')\n",
    "typo": "def add(:\n",
    "needs": "import nothing_of_this_name\n",
    "leaves": "import os\nos._exit(3)\n",
    "ends": "raise SystemExit('bye')\n",
}


@pytest.fixture
def modules(tmp_path: pathlib.Path) -> pathlib.Path:
    for name, text in MODULES.items():
        (tmp_path / f"svc_{name}.py").write_text(text, encoding="utf-8")
    return tmp_path


@pytest.mark.parametrize(
    ("path", "found"),
    [
        ("svc_valves.f", "actually there is no module 'svc_valves'; did you mean 'svc_values'?"),
        ("svc_values.more.f", "there is no module 'svc_values.more'"),
        (
            "svc_values.add_Number_to_server",
            "module 'svc_values' has no 'add_Number_to_server' (file '{}/svc_values.py'",
        ),
        ("svc_values.add_Number_to_server", "'); did you mean 'add_number_to_server'?"),
        ("svc_values.add_number_to_server", "actually it is a value of <class 'int'> (file '"),
        ("svc_values.Stub", "actually it is class 'Stub' (file '"),
        ("svc_values.helper", "actually calling it adds no service to the server"),
        ("svc_broken.f", "its module 'svc_broken' can't be imported: ValueError: my own text"),
        ("svc_broken.f", "(file '{}/svc_broken.py', line 2)"),
        ("svc_typo.f", "its module 'svc_typo' can't be imported: SyntaxError: "),
        ("svc_needs.f", "ModuleNotFoundError: No module named 'nothing_of_this_name' (file '{}/svc_needs.py', line 1)"),
        ("svc_leaves.f", "importing its module 'svc_leaves' ends the process: status 3"),
        ("svc_ends.f", "its module 'svc_ends' can't be imported: SystemExit: bye"),
    ],
)
def test_import_paths_that_lead_nowhere(modules: pathlib.Path, path: str, found: str) -> None:
    text = error_of(lambda: described(path, directories=[modules]))
    assert text.startswith(f"The item '{path}' of parameter 'grpc_servicer_functions' should be a generated add_")
    assert found.format(modules) in text


def test_where_was_looked_is_told(modules: pathlib.Path) -> None:
    text = error_of(lambda: described("svc_unknown_pb2_grpc.f", directories=[modules]))
    assert text.endswith(
        "there is no module 'svc_unknown_pb2_grpc'; looked for in the start script's sys.path and in the servables' "
        f"directories: '{modules}'"
    )


def test_near_names_of_generated_functions(generated: pathlib.Path) -> None:
    text = error_of(lambda: described("svctest_pb2_grpc.EverythingServicer", directories=[generated]))
    assert "it is class 'EverythingServicer' (file '" in text
    assert text.endswith("; did you mean 'add_EverythingServicer_to_server'?")


def test_a_module_that_hangs(modules: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(services_module, "_IMPORT_TIMEOUT", 1.0)
    (modules / "svc_hangs.py").write_text("import threading\nthreading.Event().wait()\n", encoding="utf-8")
    text = error_of(lambda: described("svc_hangs.f", directories=[modules]))
    assert "importing its module 'svc_hangs' takes more than 1 s" in text


def test_a_service_has_one_function(stub: Stub, generated: pathlib.Path) -> None:
    text = error_of(lambda: described(ADD, stub.grpc.add_EverythingServicer_to_server, directories=[generated]))
    assert f"The items '{ADD}' and svctest_pb2_grpc.add_EverythingServicer_to_server of parameter" in text
    assert "are for the same service 'svctest.Everything': give one of them" in text


def test_services_that_the_server_has_by_itself(tmp_path: pathlib.Path) -> None:
    ray = "package ray.serve; message M {} service PredictAPIsService { rpc Predict(M) returns (M); }"
    path = "ray_pb2_grpc.add_PredictAPIsServiceServicer_to_server"
    text = error_of(lambda: described(path, directories=[compile_protos(tmp_path, ray=ray)]))
    assert "is for service 'ray.serve.PredictAPIsService', which the server has by itself: leave it out" in text


def test_what_is_not_found_waits_for_servables(stub: Stub, generated: pathlib.Path, modules: pathlib.Path) -> None:
    first = described(stub.grpc.add_OtherServicer_to_server, ADD, "svc_unknown.f")
    assert list(first.services) == ["svctest.Other"]
    assert [str(item) for item in first.deferred] == [f"'{ADD}'", "'svc_unknown.f'"]
    assert "there is no module 'svc_unknown'" in error_of(lambda: first.resume([generated]))
    (modules / "svc_unknown.py").write_text("from svctest_pb2_grpc import *\nf = add_EverythingServicer_to_server\n")
    assert "are for the same service" in error_of(lambda: first.resume([generated, modules]))
    whole = described(stub.grpc.add_OtherServicer_to_server, ADD).resume([generated])
    assert (list(whole.services), whole.deferred) == (["svctest.Other", "svctest.Everything"], ())


def test_what_is_found_and_wrong_waits_for_nothing(modules: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(modules))
    assert "my own text" in error_of(lambda: described("svc_broken.f"))
    assert "has no 'f'" in error_of(lambda: described("svc_values.f"))
    assert described("svc_needs.f").deferred  # what it imports may lie in a servable's directory


def test_files_of_one_name_that_differ(tmp_path: pathlib.Path) -> None:
    for name in ("one", "two"):
        folder = compile_protos(
            tmp_path / name, same=f"package {name}; message M {{}} service S {{ rpc Do(M) returns (M); }}"
        )
        (folder / "same_pb2_grpc.py").rename(folder / f"{name}_grpc.py")
        # Each has its own ``same_pb2``, which they find as programs of their own would.
        (folder / f"{name}_find.py").write_text(
            f"import sys\nsys.path.insert(0, {str(folder)!r})\nfrom {name}_grpc import add_SServicer_to_server\n"
        )
    paths = [f"{name}_find.add_SServicer_to_server" for name in ("one", "two")]
    found = described(*paths, directories=[tmp_path / "one", tmp_path / "two"])
    assert list(found.services) == ["one.S", "two.S"]
    files = descriptor_pb2.FileDescriptorSet.FromString(found.descriptors()).file
    assert [(file.name, file.package) for file in files] == [("same.proto", "one"), ("same.proto", "two")]


def test_modules_of_one_name(tmp_path: pathlib.Path) -> None:
    for name in ("one", "two"):
        message = f"package {name}; message M {{}}"
        service = f'import "parts.proto"; package {name}; service S{name} {{ rpc Do(M) returns (M); }}'
        compile_protos(tmp_path / name, parts=message, same=service, **{f"of_{name}": service.replace("S", "Further")})
    paths = [f"same_pb2_grpc.add_S{name}Servicer_to_server" for name in ("one", "two")]
    # What its module imports lies beside it, though another servable has a module of that name, too.
    paths.append("of_two_pb2_grpc.add_FurthertwoServicer_to_server")
    directories = [tmp_path / "one", tmp_path / "two"]
    found = described(*paths, directories=directories)
    assert list(found.services) == ["one.Sone", "two.Stwo", "two.Furthertwo"]
    assert [each.service.methods[0].input_type for _, each in found.services.values()] == ["one.M", "two.M", "two.M"]
    error = error_of(lambda: described("same_pb2_grpc.add_SthreeServicer_to_server", directories=directories))
    assert f"has no 'add_SthreeServicer_to_server' (file '{tmp_path / 'one' / 'same_pb2_grpc.py'}')" in error


def test_long_descriptors_are_framed() -> None:
    item = check_functions(["a.b"])[0]
    for length in (0, 1, 127, 128, 16383, 16384, 3_000_000):
        name = "x" * length
        file = descriptor_pb2.FileDescriptorProto(name=name).SerializeToString()
        one = Described({"p.S": (item, Description(ReadyService("p.S", ()), (ProtoFile(name, file),)))})
        assert [each.name for each in descriptor_pb2.FileDescriptorSet.FromString(one.descriptors()).file] == [name]


# -- what workers answer -----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def judge(generated: pathlib.Path) -> Services:
    services = Services()
    services.set(described(ADD, ADD_OTHER, directories=[generated]))
    return services


def some(service: ReadyService, *names: str) -> ReadyService:
    return ReadyService(service.name, tuple(rpc for rpc in service.methods if rpc.name in names))


def test_what_fits_is_not_wrong(judge: Services) -> None:
    unknown = ReadyService("p.Unknown", (ReadyRpc("M", False, False, "a", "b"),))
    for answered in ([], [EVERYTHING, OTHER], [some(EVERYTHING, "Both")], [unknown]):
        assert judge.wrong("add", answered) == ""


@pytest.mark.parametrize(
    ("rpc", "text"),
    [
        (
            ReadyRpc("Pong", False, False, "svctest.Ask", "svctest.Answer"),
            f"servable 'add' answers method 'Pong', which service 'svctest.Other' of '{ADD_OTHER}' does not have; it "
            "has 'Ping'",
        ),
        (
            ReadyRpc("Ping", False, True, "svctest.Ask", "svctest.Answer"),
            "servable 'add' answers method 'svctest.Other/Ping' as (svctest.Ask) returns (stream svctest.Answer), but "
            f"'{ADD_OTHER}' has it as (svctest.Ask) returns (svctest.Answer): generate their modules from one proto "
            "file",
        ),
        (
            ReadyRpc("Ping", True, False, "svctest.Answer", "svctest.Answer"),
            "servable 'add' answers method 'svctest.Other/Ping' as (stream svctest.Answer) returns (svctest.Answer), "
            f"but '{ADD_OTHER}' has it as (svctest.Ask) returns (svctest.Answer): generate their modules from one "
            "proto file",
        ),
    ],
)
def test_what_does_not_fit(judge: Services, rpc: ReadyRpc, text: str) -> None:
    assert judge.wrong("add", [EVERYTHING, ReadyService("svctest.Other", (rpc,))]) == text


def test_every_service_has_to_be_answered(judge: Services) -> None:
    assert judge.unanswered({"a": [some(EVERYTHING, "Both")], "b": [OTHER]}) == ""
    assert judge.unanswered({"a": [some(EVERYTHING, "Both"), some(EVERYTHING, "Client")], "b": []}) == (
        f"Service 'svctest.Other' of '{ADD_OTHER}' is answered by no servable: a servable_config.py has to register a "
        "handler for one of its methods, 'Ping'\n"
        "Started are: servable 'a' answers 'svctest.Everything'; servable 'b' answers no service"
    )


def test_what_was_answered_once_is_missed_only_by_those_who_end_it(generated: pathlib.Path) -> None:
    services = Services()
    services.set(described(ADD, ADD_OTHER, directories=[generated]))
    services.note_answered()
    assert services.unanswered({"b": []}) == ""
    assert services.unanswered({"b": []}, [ReadyService("p.Unknown", ())]) == ""
    assert services.unanswered({"b": []}, [OTHER]).startswith("Service 'svctest.Other' of ")
    assert "svctest.Everything" not in services.unanswered({"b": []}, [OTHER])
    assert services.unanswered({"b": [OTHER]}, [OTHER]) == ""
    services.set(services.described)
    assert services.unanswered({"b": []}) != ""


def test_what_is_answered_in_vain_is_told(judge: Services) -> None:
    ray = ReadyService("ray.serve.PredictAPIsService", ())
    # Two versions of the servable may answer different methods of a service.
    unknown = [ReadyService("p.Unknown", ()), ReadyService("p.Unknown", EVERYTHING.methods[:1])]
    (text,) = judge.unlisted({"a": [EVERYTHING, *unknown, ray], "b": []})
    assert text.startswith("servable 'a' answers service 'p.Unknown', which clients can't call: ")
