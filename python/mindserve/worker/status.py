"""gRPC statuses: what a handler may give as one, and which one answers for what it raised."""

from __future__ import annotations

import os
import traceback
from collections.abc import Sequence
from typing import Any

Metadata = Sequence[tuple[str, str | bytes]]

CODES = (
    "OK",
    "CANCELLED",
    "UNKNOWN",
    "INVALID_ARGUMENT",
    "DEADLINE_EXCEEDED",
    "NOT_FOUND",
    "ALREADY_EXISTS",
    "PERMISSION_DENIED",
    "RESOURCE_EXHAUSTED",
    "FAILED_PRECONDITION",
    "ABORTED",
    "OUT_OF_RANGE",
    "UNIMPLEMENTED",
    "INTERNAL",
    "UNAVAILABLE",
    "DATA_LOSS",
    "UNAUTHENTICATED",
)
OK, CANCELLED, UNKNOWN, INVALID_ARGUMENT = range(4)
UNIMPLEMENTED = CODES.index("UNIMPLEMENTED")
INTERNAL = CODES.index("INTERNAL")

# What an INTERNAL's details have of a stack trace: its end, which is where it says what happened.
MAX_TRACE_BYTES = 4096
# Of one in the log: a user's exception may hold as much text as it likes.
MAX_LOGGED_BYTES = 64 * 1024

_PACKAGE = os.path.join(os.path.dirname(os.path.dirname(__file__)), "")


class StatusError(Exception):
    """Ends a call with a status. Passes through the handler's code, as any exception may.

    Attributes:
        code: number of the status.
        details: its text.
    """

    def __init__(self, code: int, details: str) -> None:
        super().__init__(f"{CODES[code]}: {details}")
        self.code = code
        self.details = details


class Abort(StatusError):
    """What a context's ``abort`` raises: the handler's own wish."""


def code_number(code: Any) -> int:
    """The number of a status given as a member of ``grpc.StatusCode`` or as an int.

    Raises:
        TypeError: it is neither.
        ValueError: there is no such status.
    """
    # A grpc.StatusCode has a pair of its number and its name in small letters; grpc itself may not be imported.
    number = getattr(code, "value", code)
    if isinstance(number, tuple) and number:
        number = number[0]
    if isinstance(number, bool) or not isinstance(number, int):
        raise TypeError(f"A status code should be a member of grpc.StatusCode or an int, but actually {code!r}")
    if not 0 <= number < len(CODES):
        raise ValueError(f"A status code should be in range [0,{len(CODES) - 1}], but actually {number}")
    return number


def text_of(value: Any, what: str) -> str:
    """``value``, text or UTF-8, as a str; ``what`` names it in errors."""
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    if not isinstance(value, str):
        raise TypeError(f"{what} should be str, but actually {type(value)}")
    return value


def trace_of(error: BaseException) -> str:
    """The stack trace of what a handler raised, without the frames of this package that led there."""
    trace = traceback.TracebackException.from_exception(error)
    frames = list(trace.stack)
    while frames and frames[0].filename.startswith(_PACKAGE):
        del frames[0]
    if frames:
        trace.stack = traceback.StackSummary.from_list(frames)
    return "".join(trace.format()).rstrip()


def end_of(text: str, limit: int = MAX_TRACE_BYTES) -> str:
    """The last ``limit`` bytes of a text as UTF-8, not beginning within a character."""
    encoded = text.encode("utf-8", "replace")
    return text if len(encoded) <= limit else encoded[-limit:].decode("utf-8", "ignore")


def describe_refusal(error: BaseException) -> str:
    """Details of the INVALID_ARGUMENT that answers for an `InvalidInput`: its text's beginning, or else its name."""
    try:
        text = str(error)
    except Exception:  # the handler's own class may do anything
        text = ""
    return text.encode("utf-8", "replace")[:MAX_TRACE_BYTES].decode("utf-8", "ignore") or type(error).__name__


def describe_error(error: BaseException, trace: str, *, send_traceback: bool) -> str:
    """Details of the INTERNAL that answers for what a handler raised."""
    if not send_traceback:
        return f"the handler raised {type(error).__name__}"
    return end_of(trace)
