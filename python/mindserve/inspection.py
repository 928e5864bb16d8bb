"""What a servable declares, found out in a process of its own, as a worker would: importing it runs its code.

The process is ``python -m mindserve.inspection --result-fd N DIRECTORY NAME``, and writes one JSON object.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from typing import Any

from mindserve.control import ReadyMethod
from mindserve.errors import ConfigError, MindserveError
from mindserve.loader import load_servable
from mindserve.register.values import Registration, function_name

# How much of what the servable has written an error shows.
_MAX_OUTPUT = 4096


@dataclasses.dataclass(frozen=True)
class DeclaredMethod:
    """A method's name, and those of its inputs and outputs."""

    name: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class DeclaredClassifier:
    """How a servable answers the Classifier: by which method, and the full names of the messages that it takes."""

    method: str
    messages: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Declared:
    """What a ``servable_config.py`` declares.

    Attributes:
        models: the models' files.
        methods: in their order.
        handlers: the names of the functions and classes that answer gRPC methods of your own services; of which, the
            worker finds out.
        classifier: None: it does not answer the Classifier.
    """

    models: tuple[str, ...]
    methods: tuple[DeclaredMethod, ...]
    handlers: tuple[str, ...]
    classifier: DeclaredClassifier | None


def inspect_servable(servable_directory: str, servable_name: str, timeout: float) -> Declared:
    """Imports a servable's ``servable_config.py`` in another process.

    Args:
        servable_directory: holds the servable's directory.
        servable_name: of the servable.
        timeout: seconds that the import may take.

    Raises:
        ConfigError: it can't be imported, declares no method, takes too long or ends its process; what it declares of
            the Classifier doesn't fit its methods, as far as that can be told without its models. The text says where
            in the file, and ends with what it has written.
    """
    path = os.path.join(servable_directory, servable_name, "servable_config.py")
    with tempfile.TemporaryFile() as result:
        command = [sys.executable, "-m", "mindserve.inspection", "--result-fd", str(result.fileno())]
        try:
            done = subprocess.run(
                [*command, servable_directory, servable_name],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                pass_fds=(result.fileno(),),
                timeout=timeout,
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            text = f"Importing '{path}' has not ended within {timeout:g} s"
            raise ConfigError(text + _output(error.stdout or b"")) from None
        result.seek(0)
        written = result.read()
    if not written:
        how = f"status {done.returncode}" if done.returncode >= 0 else f"signal {-done.returncode}"
        raise ConfigError(f"Importing '{path}' ended its process, with {how}{_output(done.stdout)}")
    values: dict[str, Any] = json.loads(written)
    if "error" in values:
        raise ConfigError(values["error"] + _output(done.stdout))
    methods = (
        DeclaredMethod(each["name"], tuple(each["inputs"]), tuple(each["outputs"])) for each in values["methods"]
    )
    answers = values["classifier"]
    classifier = answers and DeclaredClassifier(answers["method"], tuple(answers["messages"]))
    return Declared(tuple(values["models"]), tuple(methods), tuple(values["handlers"]), classifier)


def _handlers(registration: Registration) -> Iterator[str]:
    yield from (function_name(each.function) for each in registration.grpc_functions)
    yield from (each.type.__name__ for each in registration.grpc_services)
    if registration.driver is not None:
        yield function_name(registration.driver.target)


def _classifier(registration: Registration) -> DeclaredClassifier | None:
    if not registration.answers_classifier:
        return None
    # Only now: it imports protobuf.
    from mindserve.worker.classifier import plan_classifier

    plan = plan_classifier(
        registration, lambda method: ReadyMethod(method.name, method.idempotent, method.inputs, method.outputs)
    )
    return DeclaredClassifier(plan.answers, tuple(sorted((*plan.fields, *plan.handlers))))


def _output(data: bytes) -> str:
    text = data[-_MAX_OUTPUT:].decode("utf-8", "replace").strip()
    return f"\nIts output:\n{text}" if text else ""


def _main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m mindserve.inspection")
    parser.add_argument("--result-fd", type=int, required=True)
    parser.add_argument("directory")
    parser.add_argument("name")
    options = parser.parse_args(arguments)
    os.set_inheritable(options.result_fd, False)
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"  # as in a worker
    path = os.path.join(options.directory, options.name, "servable_config.py")
    where = ""
    try:
        registration = load_servable(options.directory, options.name)
        where = f"; declared in file '{path}'"
        declared = Declared(
            tuple(model.file for model in registration.models),
            tuple(DeclaredMethod(each.name, each.inputs, each.outputs) for each in registration.methods.values()),
            tuple(_handlers(registration)),
            _classifier(registration),
        )
        values = dataclasses.asdict(declared)
    except MindserveError as error:
        values = {"error": f"{error}{where}"}
    with open(options.result_fd, "w", encoding="utf-8") as result:
        json.dump(values, result)
    return 0


if __name__ == "__main__":
    # At once: threads that the servable has begun are not waited for.
    status = _main(sys.argv[1:])
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)
