"""Importing a servable's servable_config.py."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator

import pytest

from conftest import ADD_SERVABLE, Servables
from mindserve.errors import ConfigError
from mindserve.loader import load_servable
from mindserve.register.values import current_registration


@pytest.fixture(autouse=True)
def clean_imports() -> Iterator[None]:
    """A load changes the process, which is a worker's own; these tests share one."""
    path, modules = list(sys.path), set(sys.modules)
    yield
    sys.path[:] = path
    for name in set(sys.modules) - modules:
        if name in ("servable_config", "sibling"):
            del sys.modules[name]


def test_load_gives_what_is_declared(servables: Servables) -> None:
    servables.add("add", ADD_SERVABLE)
    registration = load_servable(str(servables.directory), "add")
    assert registration.servable_name == "add"
    assert list(registration.methods) == ["add_common", "add_cast"]
    assert [model.file for model in registration.models] == ["add.onnx"]
    assert current_registration() is None


@pytest.mark.parametrize(
    "config",
    [
        "@register.grpc_method\ndef Ping(request): ...\n",
        "@register.grpc_service('a.B')\nclass Answers:\n    def Ping(self, request): ...\n",
        "@register.driver\ndef drive(inputs): ...\n",
    ],
)
def test_handlers_are_enough(servables: Servables, config: str) -> None:
    servables.add("add", "from mindserve.server import register\n" + config)
    registration = load_servable(str(servables.directory), "add")
    assert registration.has_grpc_handlers
    assert registration.methods == {}


def test_modules_beside_it_are_importable(servables: Servables) -> None:
    directory = servables.add(
        "add",
        "from mindserve.server import register\n"
        "import sibling\n"
        "register.register_method('x')(sibling.method)\n"
        "assert __name__ == 'servable_config' and __file__.endswith('servable_config.py')\n",
    )
    (directory / "sibling.py").write_text("def method(x):\n    return x\n")
    assert list(load_servable(str(servables.directory), "add").methods) == ["method"]
    assert sys.modules["servable_config"].sibling.__file__ == str(directory / "sibling.py")


@pytest.mark.parametrize(
    ("config", "text"),
    [
        ("x = 1", "There is no method registered for servable 'add', and no handler of a gRPC method, file"),
        ("import nowhere_to_be_found", "ModuleNotFoundError: No module named 'nowhere_to_be_found'"),
        ("x = 1\n\ny = z", r"NameError: name 'z' is not defined; while importing file '.*', line 3"),
        ("def f(:", "SyntaxError: "),
        ("raise RuntimeError('my own text')", "^RuntimeError: my own text; while importing file"),
        ("import sys; sys.exit(3)", "SystemExit: 3"),
        (
            "from mindserve.server import register\nregister.declare_model('a.mindir', 'MindIR')",
            "Model format 'MindIR' .* comes in a later version; while importing file '.*', line 2",
        ),
    ],
)
def test_failures_say_where(servables: Servables, config: str, text: str) -> None:
    servables.add("add", config)
    with pytest.raises(ConfigError, match=text) as error:
        load_servable(str(servables.directory), "add")
    assert f"servable directory: '{servables.directory}', servable name: 'add'" in str(error.value)
    assert current_registration() is None


def test_changed_files_are_seen_however_alike_they_look(servables: Servables, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "dont_write_bytecode", False)
    directory = servables.add("add", "")
    config = (
        "from mindserve.server import register\n"
        "import sibling\n"
        "@register.register_method(output_names=['x'])\n"
        "def {}(x): return x\n"
    )
    loaded = []
    for name in ("one", "two"):
        for file, text in (("servable_config.py", config.format(name)), ("sibling.py", f"name = {name!r}\n")):
            (directory / file).write_text(text, encoding="utf-8")
            os.utime(directory / file, (1_700_000_000, 1_700_000_000))
        registration = load_servable(str(servables.directory), "add")
        loaded.append((list(registration.methods), sys.modules.pop("sibling").name))
        sys.path_importer_cache.pop(str(directory))  # As in a new process.
    assert loaded == [(["one"], "one"), (["two"], "two")]
    assert not (directory / "__pycache__").exists()
