"""``mindserve validate`` of servables that answer the Classifier."""

from __future__ import annotations

import pathlib
import subprocess

import pytest

from command_line import Shell
from e2e_support import write_servable
from stubs import compile_protos

FLOWERS = """
package flowers;
message Flower { float f1 = 1; float f2 = 2; }
message Named { string f1 = 1; }
"""
METHODS = """
from flowers_pb2 import Flower, Named
from mindserve.server import register


@register.register_method(output_names="prediction")
def predict(x):
    return x


@register.register_method(output_names=["label", "score"])
def label(x, y):
    return x, y
"""


@pytest.fixture
def shell(tmp_path: pathlib.Path) -> Shell:
    return Shell(tmp_path)


def validate(shell: Shell, declarations: str) -> subprocess.CompletedProcess[str]:
    if not (shell.directory / "servables").exists():
        write_servable(shell.directory / "servables", "it", "")
    (shell.directory / "servables" / "it" / "servable_config.py").write_text(METHODS + declarations, encoding="utf-8")
    compile_protos(shell.directory / "servables" / "it", flowers=FLOWERS)
    (shell.directory / "serve.yaml").write_text("servables: [{directory: servables, name: it}]\n", encoding="utf-8")
    return shell.run("validate", "serve.yaml")


def test_validate_tells_how_the_classifier_is_answered(shell: Shell) -> None:
    done = validate(shell, "register.data_handler(Flower)\n")
    assert done.returncode == 0, done.stderr
    assert "  Classifier: predict, of flowers.Flower" in done.stdout.splitlines()
    (servable,) = shell.json("validate", "serve.yaml")["servables"]
    assert servable["classifier"] == {"method": "predict", "messages": ["flowers.Flower"]}
    done = validate(shell, "register.classifier('label', output='score')\n")
    assert "  Classifier: label, of instances" in done.stdout.splitlines()


@pytest.mark.parametrize(
    ("declarations", "text"),
    [
        (
            "register.classifier('none')",
            "'classifier' names method 'none', which is not registered; there is 'predict'",
        ),
        ("register.classifier('label')", "which output of method 'label' has a number for each class: it has 'label'"),
        ("register.classifier('predict', custom=Flower)", "output 'custom' is, which method 'predict' has not"),
        ("register.classifier(output='other')", "can be answered by no method"),
        ("register.data_handler(Named)", "message 'flowers.Named' for method 'predict', whose input 'x' is a vector"),
        (
            "register.classifier('label', output='score')\nregister.data_handler(Flower)",
            "message 'flowers.Flower' for method 'label': the message has no field for input 'x', it has f1, f2",
        ),
        ("register.data_handler(Flower, fields=['f9'])", "Message 'flowers.Flower' has no field 'f9', it has f1, f2"),
        ("register.data_handler(str)", "'message_class' should be a class of a protobuf message"),
    ],
)
def test_validate_finds_declarations_that_do_not_fit(shell: Shell, declarations: str, text: str) -> None:
    done = validate(shell, declarations + "\n")
    assert done.returncode == 1
    problem = done.stderr.splitlines()[0]
    assert problem.startswith("serve.yaml:1:")
    assert text in problem
    assert "servables/it/servable_config.py'" in problem


def test_validate_makes_no_handler(shell: Shell) -> None:
    """What a handler's class loads when an object of it is made is for workers."""
    done = validate(
        shell,
        """
@register.data_handler(Flower)
class Handler:
    def __init__(self):
        raise MemoryError("a large model")

    def getData(self, request): ...
""",
    )
    assert done.returncode == 0, done.stderr
