"""Between HTTP's headers and gRPC's metadata, and between their statuses."""

from __future__ import annotations

import base64
import binascii
import math
import re
from collections.abc import Iterable, Sequence

from mindserve.rest.calls import Call, Ended, Metadata
from mindserve.rest.http import Exchange, Headers, HttpError

# Headers that go on under their own names.
_PASSED = ("application", "authorization", "multiplexed_model_id", "oauth_token", "traceparent", "tracestate")
# Other metadata of the client's, and what answers carry.
_PREFIX = "grpc-metadata-"
_TRAILER_PREFIX = "grpc-trailer-"
# The gateway's own, of a call whose name is split: a header as it is, wherever it comes from.
_VARIATION = "mindserve-variation"
_KEY = re.compile(r"[0-9a-z_.-]+")
_VALUE = re.compile(rb"[ -~]*")
# As Python's and JavaScript's programs write numbers; float() takes more.
_SECONDS = re.compile(rb"([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]+)?")
_GRPC_TIMEOUT = re.compile(rb"([0-9]{1,8})([HMSmun])")
_UNITS = {b"H": 3600.0, b"M": 60.0, b"S": 1.0, b"m": 1e-3, b"u": 1e-6, b"n": 1e-9}
# Seconds: a longer time is none.
_LONGEST = 1e9
_PUSHBACK = "grpc-retry-pushback-ms"

# By gRPC's codes: their names, and the statuses of HTTP that say the same.
CODES: tuple[tuple[str, int], ...] = (
    ("OK", 200),
    ("CANCELLED", 499),
    ("UNKNOWN", 500),
    ("INVALID_ARGUMENT", 400),
    ("DEADLINE_EXCEEDED", 504),
    ("NOT_FOUND", 404),
    ("ALREADY_EXISTS", 409),
    ("PERMISSION_DENIED", 403),
    ("RESOURCE_EXHAUSTED", 429),
    ("FAILED_PRECONDITION", 400),
    ("ABORTED", 409),
    ("OUT_OF_RANGE", 400),
    ("UNIMPLEMENTED", 501),
    ("INTERNAL", 500),
    ("UNAVAILABLE", 503),
    ("DATA_LOSS", 500),
    ("UNAUTHENTICATED", 401),
)
_UNKNOWN = 2
_UNAVAILABLE = 14
_UNAUTHENTICATED = 16


def make_call(exchange: Exchange, path: str, messages: Sequence[bytes]) -> Call:
    """The call that a request stands for.

    Raises:
        HttpError: a header is not as it should be.
    """
    return Call(path, metadata_of(exchange), messages, timeout_of(exchange), exchange.caller)


def metadata_of(exchange: Exchange) -> Metadata:
    """What of a request's headers is metadata.

    Raises:
        HttpError: a key or value that metadata can't have.
    """
    metadata: list[tuple[str, str | bytes]] = [("request_id", exchange.request_id)]
    for raw, value in exchange.headers.items():
        name = raw.decode("latin-1")
        if name.startswith(_PREFIX):
            metadata.append(_entry(name, name[len(_PREFIX) :], value))
        elif name in _PASSED:
            metadata.append(_entry(name, name, value))
    return metadata


def _entry(header: str, key: str, value: bytes) -> tuple[str, str | bytes]:
    if not _KEY.fullmatch(key) or key.startswith("grpc-") or key == "request_id":
        raise HttpError(400, f"header '{header}': '{key}' is no key that metadata may have", "INVALID_ARGUMENT")
    if key.endswith("-bin"):
        try:
            return key, base64.b64decode(value + b"=" * (-len(value) % 4), validate=True)
        except binascii.Error:
            text = f"header '{header}': expected base64, since its key ends in '-bin'"
            raise HttpError(400, text, "INVALID_ARGUMENT") from None
    if not _VALUE.fullmatch(value):
        text = f"header '{header}': expected printable ASCII; for other bytes use a key that ends in '-bin', and base64"
        raise HttpError(400, text, "INVALID_ARGUMENT")
    return key, value.decode("ascii")


def timeout_of(exchange: Exchange) -> float | None:
    """Seconds that the client waits: the less of its two headers; None: it does not say.

    Raises:
        HttpError: a header is no time.
    """
    times: list[float] = []
    if (text := exchange.headers.get(b"x-request-timeout")) is not None:
        if not _SECONDS.fullmatch(text):
            raise _no_time("x-request-timeout", text, "seconds, a decimal number from 0 such as '1.5'")
        times.append(float(text))  # one too large for a float is infinity, and longer than any
    if (text := exchange.headers.get(b"grpc-timeout")) is not None:
        found = _GRPC_TIMEOUT.fullmatch(text)
        if found is None:
            expected = "a number of 1 to 8 digits and its unit, one of H, M, S, m, u and n, such as '1500m'"
            raise _no_time("grpc-timeout", text, expected)
        times.append(int(found[1]) * _UNITS[found[2]])
    least = min(times, default=_LONGEST)
    return least if least < _LONGEST else None


def _no_time(header: str, text: bytes, expected: str) -> HttpError:
    shown = text[:40].decode("latin-1") + ("…" if len(text) > 40 else "")
    return HttpError(400, f"header '{header}' should be {expected}, but is '{shown}'", "INVALID_ARGUMENT")


def error_of(ended: Ended) -> HttpError:
    """The error for a call that did not end well."""
    code = ended.code if 0 < ended.code < len(CODES) else _UNKNOWN
    name, status = CODES[code]
    headers: list[tuple[bytes, bytes]] = list(headers_of(ended))
    pushback = ended.trailer(_PUSHBACK)
    if pushback.isdecimal() or code == _UNAVAILABLE:
        seconds = math.ceil(int(pushback) / 1000) if pushback.isdecimal() else 1
        headers.append((b"retry-after", b"%d" % max(1, seconds)))
    if code == _UNAUTHENTICATED:
        headers.append((b"www-authenticate", b"Bearer"))
    return HttpError(status, ended.details or name, name, headers)


def headers_of(ended: Ended) -> Headers:
    """Metadata of an answer as headers."""
    return [*_headers(_PREFIX, ended.initial), *_headers(_TRAILER_PREFIX, ended.trailing)]


def initial_headers(metadata: Metadata) -> Headers:
    """Initial metadata of a stream as headers."""
    return list(_headers(_PREFIX, metadata))


def _headers(prefix: str, metadata: Metadata) -> Iterable[tuple[bytes, bytes]]:
    for key, value in metadata:
        if key == "request_id" or (key.startswith("grpc-") and not key.endswith("-bin")):
            continue
        text = base64.b64encode(value) if isinstance(value, bytes) else value.encode("ascii", "replace")
        yield (key if key == _VARIATION else prefix + key).encode("ascii", "replace"), text
