"""The native core, imported when it is needed first."""

from __future__ import annotations

from types import ModuleType

from mindserve.errors import StartError


def load() -> ModuleType:
    """The module ``mindserve._native``.

    Raises:
        StartError: it was never built, or not for this Python.
    """
    try:
        from mindserve import _native
    except ImportError as error:
        raise StartError(
            f"The native module mindserve._native can't be imported ({error}). "
            "Build it with `pip install .` in MindServe's source directory, or with `make` for development."
        ) from error
    return _native
