"""Loads a servable's ``servable_config.py``."""

from __future__ import annotations

import importlib.machinery
import importlib.util
import os
import sys
import traceback
from pathlib import Path
from types import CodeType

from mindserve.errors import ConfigError, MindserveError
from mindserve.register.values import Registration

_MODULE = "servable_config"
# How much of an error's text is passed on.
_MAX_TEXT = 4096


def load_servable(servable_directory: str, servable_name: str) -> Registration:
    """Imports a servable's ``servable_config.py``, which may import modules that lie beside it.

    The files are always compiled anew: Python's cache takes a file that was changed twice within a second, and has the
    same size, for the one that it knows.

    Leaves the servable's directory first in ``sys.path`` and the module in ``sys.modules``: its functions may import
    more when they run. So one process loads one servable.

    Returns:
        What it has declared.

    Raises:
        ConfigError: it can't be imported, or it declares neither a method nor a handler of gRPC methods. The text says
            where in the file.
    """
    directory = Path(servable_directory) / servable_name
    path = directory / f"{_MODULE}.py"
    where = f"servable directory: '{servable_directory}', servable name: '{servable_name}'"
    sys.path.insert(0, str(directory))
    sys.path_importer_cache[str(directory)] = importlib.machinery.FileFinder(
        str(directory),
        (importlib.machinery.ExtensionFileLoader, importlib.machinery.EXTENSION_SUFFIXES),
        (_SourceLoader, importlib.machinery.SOURCE_SUFFIXES),
        (importlib.machinery.SourcelessFileLoader, importlib.machinery.BYTECODE_SUFFIXES),
    )
    spec = importlib.util.spec_from_file_location(_MODULE, path, loader=_SourceLoader(_MODULE, str(path)))
    if spec is None or spec.loader is None:
        raise ConfigError(f"Check servable config failed, file '{path}' can't be imported, {where}")
    module = importlib.util.module_from_spec(spec)
    sys.modules[_MODULE] = module
    registration = Registration(servable_name)
    process = os.getpid()
    try:
        with registration.collecting():
            spec.loader.exec_module(module)
    except KeyboardInterrupt:
        raise  # As if SIGINT had ended the process: nobody's fault.
    except BaseException as error:
        sys.modules.pop(_MODULE, None)
        raise ConfigError(f"{_describe(error, path)}, {where}") from error
    finally:
        if os.getpid() != process:
            # A child that the file has made, at its end: it is no second worker, nor has a say in how the first did.
            os._exit(0)
    if not registration.methods and not registration.has_grpc_handlers:
        raise ConfigError(
            f"There is no method registered for servable '{servable_name}', and no handler of a gRPC method, file "
            f"'{path}', {where}"
        )
    return registration


class _SourceLoader(importlib.machinery.SourceFileLoader):
    """Neither reads nor writes compiled files."""

    def get_code(self, fullname: str) -> CodeType:
        return self.source_to_code(self.get_data(self.path), self.path)


def _describe(error: BaseException, path: Path) -> str:
    """The error first: that is what people look for, and then the last line of the file that led to it."""
    said = _text(error)
    text = said if said and isinstance(error, MindserveError) else f"{type(error).__name__}: {said}".removesuffix(": ")
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(path)]
    line = f", line {lines[-1]}" if lines else ""
    return f"{text}; while importing file '{path}'{line}"


def _text(error: BaseException) -> str:
    """What an error of the servable's code says, which is code of its own; the beginning, if it has no end."""
    try:
        text = str(error)
    except Exception as another:
        return f"its text raises {type(another).__name__}"
    return text if len(text) <= _MAX_TEXT else f"{text[:_MAX_TEXT]}... ({len(text)} characters)"
