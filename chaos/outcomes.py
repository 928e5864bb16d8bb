"""How a client notes what came of a call."""

from __future__ import annotations

import asyncio
import contextlib
import re
import time
from collections.abc import Callable, Iterator

import grpc

from chaos.ledger import Ended, LedgerWriter

_GRPC_ERROR = re.compile(r"Grpc Error, \((\d+), '[^']*'\), (.*)", re.DOTALL)
_NAMES = {code.value[0]: code.name for code in grpc.StatusCode}


@contextlib.contextmanager
def cancel_later(
    ledger: LedgerWriter, number: int, seconds: float | None, cancel: Callable[[], object]
) -> Iterator[None]:
    """While this lasts: the call is given up after so many seconds, or never for None."""

    def give_up() -> None:
        ledger.cancelled(number)
        cancel()

    timer = None if seconds is None else asyncio.get_running_loop().call_later(seconds, give_up)
    try:
        yield
    finally:
        if timer is not None:
            timer.cancel()


def right(messages: int = 0) -> Ended:
    """As it must be."""
    return Ended(time.monotonic(), "right", messages=messages)


def wrong(complaint: str, messages: int = 0) -> Ended:
    """An answer that is none."""
    return Ended(time.monotonic(), "wrong", details=complaint, messages=messages)


def cancelled(messages: int = 0) -> Ended:
    """Given up."""
    return Ended(time.monotonic(), "status", "CANCELLED", messages=messages)


def failed(error: grpc.RpcError, messages: int = 0) -> Ended:
    """A status, as grpcio raises it."""
    return Ended(time.monotonic(), "status", error.code().name, error.details() or "", messages)


def told(error: str, messages: int = 0) -> Ended | None:
    """A status, as MindServe's clients tell it in an item's error; None for another error."""
    found = _GRPC_ERROR.match(error)
    return Ended(time.monotonic(), "status", _NAMES[int(found[1])], found[2], messages) if found else None
