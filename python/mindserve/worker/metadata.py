"""Metadata that a handler sends: what gRPC allows."""

from __future__ import annotations

import re
from typing import Any

from mindserve.worker.status import Metadata

# What libraries for richer statuses put their messages into.
_STATUS_DETAILS = "grpc-status-details-bin"
_KEY = re.compile(r"[0-9a-z_.-]+")
_TEXT = re.compile(r"[\x20-\x7e]*")
# Beside whatever begins with "grpc-": what gRPC, HTTP/2 or the gateway says by itself.
RESERVED = frozenset((
    *("accept-encoding", "connection", "content-length", "content-type", "host", "keep-alive", "proxy-connection"),
    *("mindserve-variation", "request_id", "status", "te", "transfer-encoding", "upgrade"),
))  # fmt: skip


def check_metadata(what: str, metadata: Any) -> Metadata:
    """A handler's metadata, values as text, or as bytes for keys that end in "-bin".

    Args:
        what: names it in errors, "trailing metadata".
        metadata: pairs of key and value; None: none.

    Raises:
        TypeError: they are no pairs, or not of str and str or bytes.
        ValueError: a key or a value that gRPC doesn't allow.
    """
    if metadata is None:
        return ()
    if isinstance(metadata, dict):
        metadata = metadata.items()
    pairs: list[tuple[str, str | bytes]] = []
    for pair in metadata:
        try:
            key, value = pair
        except (TypeError, ValueError):
            raise TypeError(f"The {what} should be pairs of key and value, but one is {pair!r}") from None
        pairs.append((key, _check_pair(what, key, value)))
    return pairs


def _check_pair(what: str, key: object, value: object) -> str | bytes:
    if not isinstance(key, str) or not isinstance(value, str | bytes):
        raise TypeError(f"The {what} should be str keys with values that are str or bytes, but has {key!r}: {value!r}")
    if not _KEY.fullmatch(key):
        raise ValueError(
            f"The {what} has key {key!r}: a key consists of digits, small letters of ASCII, '_', '-' and '.'"
        )
    if key in RESERVED or (key.startswith("grpc-") and key != _STATUS_DETAILS):
        raise ValueError(f"The {what} has key '{key}', which is reserved")
    if key.endswith("-bin"):
        return value.encode() if isinstance(value, str) else value
    if isinstance(value, bytes):
        value = value.decode("latin-1")
    if not _TEXT.fullmatch(value):
        raise ValueError(
            f"The {what} has value {value!r} for key '{key}': text is printable ASCII; other bytes need a key that "
            "ends in '-bin'"
        )
    return value
