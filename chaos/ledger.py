"""What a client process has sent and what came of it, kept so that it is still there when the process is killed."""

from __future__ import annotations

import json
import os
import time
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from typing_extensions import Self

# How a request ended, as its client saw it: the right values; others; a gRPC status other than OK.
Kind = Literal["right", "wrong", "status"]


@dataclass(frozen=True)
class Sent:
    """A request, noted before it goes out.

    Attributes:
        number: its own; no other request of the run has it.
        at: seconds, by the clock that all processes of this machine share.
        transport: by which it goes.
        servable: that it asks.
        method: of it.
        pattern: the load that it belongs to.
        instances: how many it has; of a user's call or a stream, how many messages are to come back.
        timeout: seconds that it was given; None: none.
    """

    number: int
    at: float
    transport: str
    servable: str
    method: str
    pattern: str
    instances: int
    timeout: float | None


@dataclass(frozen=True)
class Ended:
    """What came of a request.

    Attributes:
        at: when, as in `Sent`.
        kind: how.
        code: the gRPC status' name, such as "UNAVAILABLE"; "OK" for an answer.
        details: the status' text, or what is wrong with an answer.
        messages: of a user's call or a stream: how many right ones came first, in their order.
    """

    at: float
    kind: Kind
    code: str = "OK"
    details: str = ""
    messages: int = 0


@dataclass
class Entry:
    """Everything that is known of one request.

    Attributes:
        sent: the request.
        cancelled_at: when its client gave it up, before it did; None: it did not.
        ended: its ends: one, unless something is wrong or its client was killed.
    """

    sent: Sent
    cancelled_at: float | None = None
    ended: list[Ended] = field(default_factory=list)


@dataclass(frozen=True)
class Ledger:
    """A client process' requests by their numbers.

    Attributes:
        name: of the process.
        killed: we have killed it, so that the last of its requests may lack an end.
        entries: its requests.
    """

    name: str
    killed: bool
    entries: dict[int, Entry]


class LedgerWriter:
    """Writes a ledger. Each line is with the kernel when its method returns, and survives the process from then on."""

    def __init__(self, path: Path) -> None:
        self._descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)

    def sent(self, sent: Sent) -> None:
        self._write("sent", sent.number, list(vars(sent).values())[1:])

    def cancelled(self, number: int) -> None:
        """To be called before the call is cancelled."""
        self._write("cancelled", number, [time.monotonic()])

    def ended(self, number: int, ended: Ended) -> None:
        self._write("ended", number, list(vars(ended).values()))

    def _write(self, what: str, number: int, values: list[object]) -> None:
        line = json.dumps([what, number, *values]).encode() + b"\n"
        # One call for a line: a process that is killed leaves whole lines.
        if os.write(self._descriptor, line) != len(line):
            raise OSError("a line of the ledger was written in part")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self._descriptor)


def read_ledger(path: Path, *, killed: bool) -> Ledger:
    """What a `LedgerWriter` has written.

    Raises:
        ValueError: a line that it can't have written, or one about a request that was never sent.
    """
    entries: dict[int, Entry] = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        what, number, *values = json.loads(line)
        if what == "sent":
            if number in entries:
                raise ValueError(f"{path}: request {number} was sent twice")
            entries[number] = Entry(Sent(number, *values))
            continue
        entry = entries.get(number)
        if entry is None:
            raise ValueError(f"{path}: request {number} was {what}, and never sent")
        if what == "cancelled":
            entry.cancelled_at = values[0]
        elif what == "ended":
            entry.ended.append(Ended(*values))
        else:
            raise ValueError(f"{path}: no line of a ledger: {line[:200]}")
    return Ledger(path.stem, killed, entries)
