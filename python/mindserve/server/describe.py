"""A program that describes gRPC services whose generated modules the server's own process should not import.

Modules of several servables may have files, or messages, of one name, which do not fit into one process. Run as
``python -m mindserve.server.describe``; reads a line of JSON, {"path": of modules, "module": name, "functions": names},
and writes one: {"results": of each function, [a description, …] or {"error": text, "missing": bool, "lacking": file}},
where ``missing`` tells that the module, or one that it imports, was not found, and ``lacking`` is the module's file if
it has nothing of the function's name.
"""

from __future__ import annotations

import difflib
import importlib
import importlib.util
import json
import os
import pkgutil
import sys
import traceback
from collections.abc import Iterable
from types import ModuleType
from typing import Any

from mindserve.server.servicer import NotServicerError, describe, describe_value, is_function

_MOST_SHOWN = 5


def main() -> int:
    """Returns the exit status."""
    # What a user's module prints must not get between the lines.
    answer = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    request = json.loads(sys.stdin.readline())
    sys.path[:] = request["path"]
    results = answer_all(request["module"], request["functions"])
    answer.write(json.dumps({"results": results}) + "\n")
    answer.close()
    return 0


def answer_all(name: str, functions: Iterable[str]) -> list[Any]:
    """The results for functions of one module."""
    try:
        module = importlib.import_module(name)
    except (Exception, SystemExit) as error:
        result = {"error": _describe_failure(name, error), "missing": isinstance(error, ImportError), "lacking": ""}
        return [result for _ in functions]
    return [_answer(module, function) for function in functions]


def _answer(module: ModuleType, name: str) -> Any:
    try:
        return [each.to_json() for each in describe(_find(module, name))]
    except NotServicerError as error:
        lacking = "" if hasattr(module, name) else getattr(module, "__file__", None) or ""
        return {"error": str(error), "missing": False, "lacking": lacking}


def _find(module: ModuleType, name: str) -> Any:
    found = getattr(module, name, None)
    if is_function(found):
        return found
    is_what = describe_value(found) if hasattr(module, name) else f"module '{module.__name__}' has no '{name}'"
    file = getattr(module, "__file__", None)
    where = f" (file '{file}')" if file else ""
    raise NotServicerError(f"{is_what}{where}{_hint(module, name)}")


def _hint(module: ModuleType, name: str) -> str:
    """What the user may have meant; what else the module has that looks right, if nothing is near."""
    names = vars(module)
    right = [each for each in names if each.startswith("add_") and each.endswith("_to_server")]
    near = did_you_mean(name, right or [each for each, value in names.items() if is_function(value)])
    return near or (f"; it has {', '.join(repr(each) for each in right[:_MOST_SHOWN])}" if right else "")


def did_you_mean(name: str, candidates: Iterable[str]) -> str:
    """A hint to what is near ``name``, to be put at the end of a sentence; empty if nothing is."""
    near = difflib.get_close_matches(name, candidates, n=1, cutoff=0.6)
    return f"; did you mean '{near[0]}'?" if near else ""


def _describe_failure(name: str, error: BaseException) -> str:
    text = f"{type(error).__name__}: {error}"
    if isinstance(error, ModuleNotFoundError) and error.name and f"{name}.".startswith(f"{error.name}."):
        return f"there is no module '{error.name}'{did_you_mean(error.name, _siblings(error.name))}"
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if not frame.filename.startswith("<frozen")]
    # The first is this file's.
    where = f" (file '{frames[-1].filename}', line {frames[-1].lineno})" if len(frames) > 2 else ""
    return f"its module '{name}' can't be imported: {text}{where}"


def _siblings(name: str) -> list[str]:
    """The full names of modules that lie where that one was looked for."""
    package, _, _ = name.rpartition(".")
    path = sys.modules[package].__path__ if package and hasattr(sys.modules.get(package), "__path__") else None
    prefix = f"{package}." if path is not None else ""
    return [f"{prefix}{found.name}" for found in pkgutil.iter_modules(path)]


if __name__ == "__main__":
    sys.exit(main())
