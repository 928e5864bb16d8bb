"""Whether something that takes time goes on fast enough: what csrc/gateway/progress.h is to gRPC."""

from __future__ import annotations

import asyncio
import fcntl
import socket
import struct
import termios
from collections.abc import Callable
from typing import NamedTuple

from mindserve.config import Limits

# Of the kernel's struct tcp_info: where tcpi_bytes_acked is, and how much of the struct has it.
_BYTES_ACKED = 120
_INFO_SIZE = 128


class Progress:
    """Of one transfer.

    It has ``body_idle_timeout`` to begin with, and each byte is worth its share of a second at
    ``min_bytes_per_second``, so that neither a pause of ``body_idle_timeout`` nor a slower rate on its average is
    allowed. More than ``body_idle_timeout`` is never saved up.

    Args:
        limits: whose two these are.

    Attributes:
        due: when it is over, by the clock of its user, in seconds.
    """

    __slots__ = ("_last", "_least", "_patience", "due")

    def __init__(self, limits: Limits) -> None:
        self._patience = limits.body_idle_timeout
        self._least = limits.min_bytes_per_second
        self._last = 0.0
        self.due = 0.0

    def begin(self, now: float) -> None:
        self._last = now
        self.due = now + self._patience

    def took(self, size: int, now: float) -> None:
        """So many bytes went over."""
        if not size:
            return
        self._last = now
        most = now + self._patience
        self.due = min(most, self.due + size / self._least) if self._least else most

    def pause(self, seconds: float) -> None:
        """For so long nothing could go on, for reasons that lie elsewhere."""
        self._last += seconds
        self.due += seconds

    def is_over(self, now: float) -> bool:
        return self.due <= now

    def has_halted(self, now: float) -> bool:
        """Of what is over: whether it came to a halt, or was slow only."""
        return self._last + self._patience <= now


class Outgoing(NamedTuple):
    """Of what a connection's client is sent.

    Attributes:
        taken: bytes that it has acknowledged, in all.
        pending: bytes that it has not, with those that have not been sent yet.
    """

    taken: int
    pending: int


def outgoing(connection: socket.socket, held: int) -> Outgoing:
    """As the kernel has it, and ``held``, bytes that have not come there yet. None of a connection that is closed."""
    try:
        info = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _INFO_SIZE)
        (queued,) = struct.unpack("i", fcntl.ioctl(connection, termios.TIOCOUTQ, b"\0" * 4))
    except OSError:
        return Outgoing(0, 0)
    return Outgoing(struct.unpack_from("Q", info, _BYTES_ACKED)[0], queued + held)


class AnswerWatch:
    """Gives up a connection whose client does not take what it is sent. Only for the event loop.

    The clock runs while the transport holds as much as it may, so that whoever answers has to wait, and after an answer
    until the client has all of it. Between, the pace is the server's own.

    Args:
        loop: its.
        outgoing: of the connection, now.
        limits: of the server.
        give_up: called once it has come to that.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        outgoing: Callable[[], Outgoing],
        limits: Limits,
        give_up: Callable[[], None],
    ) -> None:
        self._loop = loop
        self._outgoing = outgoing
        self._give_up = give_up
        self._progress = Progress(limits)
        self._timer: asyncio.TimerHandle | None = None
        self._full = False
        self._taken = 0
        self._due = 0  # what was pending at the beginning is taken when so much is
        self._still: float | None = None  # since when the clock stands

    def full(self) -> None:
        """The transport holds as much as it may."""
        self._full = True
        self._run()

    def room(self) -> None:
        """It takes more again: the server's turn."""
        self._full = False
        if self._timer is not None and self._still is None:
            self._count()
            self._still = self._loop.time()

    def answered(self) -> None:
        """An answer was written to its end."""
        self._run()

    def stop(self) -> None:
        """The connection is gone."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _run(self) -> None:
        if self._timer is None:
            self._begin()
        elif self._still is not None:
            self._progress.pause(self._loop.time() - self._still)
            self._taken = self._outgoing().taken
        self._still = None

    def _begin(self) -> None:
        found = self._outgoing()
        self._taken, self._due = found.taken, found.taken + found.pending
        self._progress.begin(self._loop.time())
        self._timer = self._loop.call_at(self._progress.due, self._look)

    def _count(self) -> Outgoing:
        found = self._outgoing()
        self._progress.took(max(0, found.taken - self._taken), self._loop.time())
        self._taken = found.taken
        return found

    def _look(self) -> None:
        self._timer = None
        now = self._loop.time()
        if self._still is not None:
            if not self._outgoing().pending:
                return
            self._progress.pause(now - self._still)
            self._still = now
        else:
            found = self._count()
            if not found.pending:
                return
            if found.taken >= self._due and not self._full:  # what is pending now is of later answers
                self._begin()
                return
            if self._progress.is_over(now):
                self._give_up()
                return
        self._timer = self._loop.call_at(self._progress.due, self._look)
