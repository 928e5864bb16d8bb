"""How long a body may take to come, and an answer to be taken, by a clock that the tests turn."""

from __future__ import annotations

import asyncio
import contextlib
import heapq
import itertools
import socket
from collections.abc import Callable
from typing import cast

import pytest

from e2e_support import until
from mindserve.config import Limits
from mindserve.rest.address import prepare_accepted
from mindserve.rest.progress import AnswerWatch, Outgoing, Progress, outgoing

LIMITS = Limits(body_idle_timeout=10, min_bytes_per_second=100)


def test_a_pause_is_as_long_as_body_idle_timeout() -> None:
    progress = Progress(LIMITS)
    progress.begin(1000)
    assert not progress.is_over(1009.9)
    assert progress.is_over(1010)
    assert progress.has_halted(1010)


def test_each_byte_is_worth_its_share_of_a_second() -> None:
    progress = Progress(LIMITS)
    progress.begin(1000)
    progress.took(50, 1005)
    assert progress.due == 1010.5
    assert progress.is_over(1010.5)
    assert not progress.has_halted(1010.5)  # it was slow only
    progress.took(0, 1010)
    assert progress.due == 1010.5


def test_no_more_is_saved_up_than_body_idle_timeout() -> None:
    progress = Progress(LIMITS)
    progress.begin(1000)
    progress.took(10**9, 1005)
    assert progress.due == 1015


def test_without_a_least_rate_anything_counts() -> None:
    progress = Progress(Limits(body_idle_timeout=10, min_bytes_per_second=0))
    progress.begin(1000)
    for now in range(1009, 1100, 9):
        assert not progress.is_over(now)
        progress.took(1, now)
    assert progress.is_over(now + 10)


def test_what_lies_elsewhere_does_not_count() -> None:
    progress = Progress(LIMITS)
    progress.begin(1000)
    progress.pause(60)
    assert progress.due == 1070
    assert not progress.has_halted(1069)


class Handle:
    def __init__(self) -> None:
        self.cancelled = False

    def cancel(self) -> None:
        self.cancelled = True


class Loop:
    """Of an event loop as much as a watch needs."""

    def __init__(self) -> None:
        self.now = 1000.0
        self._numbers = itertools.count()
        self._timers: list[tuple[float, int, Handle, Callable[[], None]]] = []

    def time(self) -> float:
        return self.now

    def call_at(self, when: float, then: Callable[[], None]) -> Handle:
        handle = Handle()
        heapq.heappush(self._timers, (when, next(self._numbers), handle, then))
        return handle

    @property
    def timers(self) -> int:
        return sum(not each[2].cancelled for each in self._timers)

    def pass_(self, seconds: float) -> None:
        end = self.now + seconds
        while self._timers and self._timers[0][0] <= end:
            when, _, handle, then = heapq.heappop(self._timers)
            self.now = max(self.now, when)
            if not handle.cancelled:
                then()
        self.now = end


class Watched:
    """A watch, and the connection that it looks at."""

    def __init__(self) -> None:
        self.loop = Loop()
        self.taken = self.pending = 0
        self.given_up = 0
        loop = cast(asyncio.AbstractEventLoop, self.loop)
        self.watch = AnswerWatch(loop, lambda: Outgoing(self.taken, self.pending), LIMITS, self._give_up)

    def _give_up(self) -> None:
        self.given_up += 1

    def take(self, size: int) -> None:
        self.taken += size
        self.pending -= size


@pytest.fixture
def watched() -> Watched:
    return Watched()


def test_what_was_taken_is_watched_no_more(watched: Watched) -> None:
    watched.watch.answered()
    watched.loop.pass_(11)
    assert watched.loop.timers == 0
    assert watched.given_up == 0


def test_a_client_that_takes_nothing_is_given_up(watched: Watched) -> None:
    watched.pending = 100_000
    watched.watch.full()
    watched.watch.answered()
    watched.loop.pass_(9.9)
    assert watched.given_up == 0
    watched.loop.pass_(0.2)
    assert watched.given_up == 1
    assert watched.loop.timers == 0


def test_one_that_takes_too_little_is_given_up(watched: Watched) -> None:
    watched.pending = 100_000
    watched.watch.full()
    seconds = 0
    while not watched.given_up:
        watched.take(50)
        watched.loop.pass_(1)
        seconds += 1
        assert seconds < 100
    assert watched.given_up == 1
    # It had ten seconds, and each of fifty bytes is worth half a one.
    assert seconds == 20


def test_one_that_takes_enough_is_not(watched: Watched) -> None:
    watched.pending = 100_000
    watched.watch.full()
    while watched.pending > 0:
        watched.take(110)
        watched.loop.pass_(1)
    watched.watch.room()
    watched.pending = 0
    watched.loop.pass_(100)
    assert watched.given_up == 0
    assert watched.loop.timers == 0


def test_the_servers_own_pace_does_not_count(watched: Watched) -> None:
    """An answer of which a part comes now and then, while a little of it is always under way."""
    watched.pending = 100_000
    watched.watch.full()
    for _ in range(5):
        watched.loop.pass_(5)
        watched.take(90_000)
        watched.watch.room()
        watched.loop.pass_(300)
        watched.pending = 100_000
        watched.watch.full()
    assert watched.given_up == 0


def test_a_little_that_is_taken_between_does_not_put_it_off(watched: Watched) -> None:
    """Each time as much as makes room, and then nothing for long: on the average it is too little."""
    watched.pending = 900
    watched.watch.full()
    for _ in range(20):
        if watched.given_up:
            break
        watched.loop.pass_(9)
        watched.take(800)
        watched.watch.room()
        watched.pending += 800
        watched.watch.full()
    assert watched.given_up == 1


def test_the_end_of_an_answer_has_to_be_taken_too(watched: Watched) -> None:
    watched.pending = 5_000
    watched.watch.answered()
    watched.loop.pass_(10.1)
    assert watched.given_up == 1


def test_a_client_that_asks_again_and_again_and_takes_it_all_is_not_given_up(watched: Watched) -> None:
    """The last packet is always under way, and there is less to take in all than ``min_bytes_per_second``."""
    for _ in range(1000):
        watched.take(watched.pending)
        watched.pending = 5
        watched.watch.answered()
        watched.loop.pass_(0.1)
    assert watched.given_up == 0


def test_a_connection_that_is_gone_is_not_watched(watched: Watched) -> None:
    watched.pending = 100_000
    watched.watch.full()
    watched.watch.stop()
    watched.watch.stop()
    watched.loop.pass_(100)
    assert watched.given_up == 0


# -- of connections ----------------------------------------------------------------------------------------------------


def test_the_kernel_knows_what_was_taken() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener, socket.create_connection(listener.getsockname()) as client:
        accepted, _ = listener.accept()
        accepted.setblocking(False)
        before = outgoing(accepted, 0)
        assert before.pending == 0
        sent = 0
        with contextlib.suppress(BlockingIOError):
            while True:
                sent += accepted.send(bytes(1 << 20))
        now = outgoing(accepted, 7)
        # Some lies with the client, unread; the rest is here.
        assert 0 < now.pending - 7 < sent
        until(lambda: sum(outgoing(accepted, 0)), lambda seen: seen == before.taken + sent)
        client.settimeout(60)
        while sent:
            sent -= len(client.recv(1 << 20))
        until(lambda: outgoing(accepted, 0).pending == 0)
        assert outgoing(accepted, 0).taken > now.taken
        accepted.close()
        assert outgoing(accepted, 0) == (0, 0)


def test_a_client_that_is_gone_without_a_word_is_noticed() -> None:
    """By the same options as gRPC's connections (csrc/net/transport_test.cc)."""
    with socket.create_server(("127.0.0.1", 0)) as listener, socket.create_connection(listener.getsockname()):
        accepted, _ = listener.accept()
        with accepted:
            prepare_accepted(accepted)
            tcp = socket.IPPROTO_TCP
            assert accepted.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) != 0
            assert accepted.getsockopt(tcp, socket.TCP_NODELAY) != 0
            assert accepted.getsockopt(tcp, socket.TCP_KEEPIDLE) == 60
            assert accepted.getsockopt(tcp, socket.TCP_KEEPINTVL) == 15
            assert accepted.getsockopt(tcp, socket.TCP_KEEPCNT) == 4
            assert accepted.getsockopt(tcp, socket.TCP_USER_TIMEOUT) == 120_000
