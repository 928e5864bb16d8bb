"""The errors that MindServe raises.

All of them are ``RuntimeError``, so that a start script needs no import to catch them.
"""

from __future__ import annotations


class MindserveError(RuntimeError):
    """What MindServe raises by itself: the text says what was given, what was expected, and where."""


class ConfigError(MindserveError):
    """A parameter, a servable's directory or its ``servable_config.py`` is wrong: to be mended by who wrote it."""


class StartError(MindserveError):
    """A server or a servable that could not be started, though it was configured well."""


class UnsupportedError(MindserveError):
    """What this version does not have yet."""


class CallError(MindserveError):
    """A call from a handler or a stage function has failed: of another servable, or of a model by `Model.call`.

    Attributes:
        code: the gRPC status code's name; "" where a servable answered with an error of its own. Of a model:
            "INVALID_ARGUMENT", the inputs don't fit, or an operator makes nothing of them; "DEADLINE_EXCEEDED", the
            caller's deadline has passed, or passes before it could be done; "INTERNAL", the model failed otherwise;
            "RESOURCE_EXHAUSTED", no memory; "UNAVAILABLE", the worker is stopping; "FAILED_PRECONDITION", it does not
            serve yet, or the device has failed.
    """

    def __init__(self, text: str, code: str = "") -> None:
        super().__init__(text)
        self.code = code


def later(what: str) -> UnsupportedError:
    """The error for ``what``, an option or a function that is known and comes in a later version."""
    return UnsupportedError(f"{what} is not supported by this version of MindServe, it comes in a later version")
