"""What is done for handler threads besides running them."""

from __future__ import annotations

import logging
import queue
import re
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from answering_support import eventually
from mindserve.worker import handler_watch
from mindserve.worker.handler_watch import HandlerWatch


class StandInRuntime:
    """Needs what it is told to need."""

    def __init__(self) -> None:
        self.needs: queue.Queue[tuple[int, bool] | None] = queue.Queue()
        self.stuck: list[bool] = []
        self.failed: list[int] = []
        self.waiting = 0
        self.held: list[tuple[int, str, float]] = []

    def await_needs(self, stuck: bool) -> tuple[int, bool] | None:
        self.stuck.append(stuck)
        return self.needs.get(timeout=60)

    def threads_failed(self, count: int) -> None:
        self.failed.append(count)

    def held_handlers(self) -> tuple[int, list[tuple[int, str, float]]]:
        return self.waiting, self.held


class Watched:
    def __init__(self) -> None:
        self.runtime = StandInRuntime()
        self.names: list[str] = []
        self.go_on = threading.Event()
        self.deaths: list[BaseException] = []
        runtime: Any = self.runtime
        self.watch = HandlerWatch(runtime, "servable 's'", self.run, self.deaths.append)
        self.watch.thread.start()

    def run(self) -> None:
        self.names.append(threading.current_thread().name)
        assert self.go_on.wait(60)

    def need(self, threads: int, stuck: bool) -> None:
        """Returns once it has been seen to."""
        asked = len(self.runtime.stuck)
        self.runtime.needs.put((threads, stuck))
        eventually(lambda: len(self.runtime.stuck) > asked)


@pytest.fixture
def watched() -> Iterator[Watched]:
    made = Watched()
    eventually(lambda: made.runtime.stuck)
    yield made
    made.runtime.needs.put(None)
    made.go_on.set()
    made.watch.thread.join(60)
    assert made.deaths == []


def test_threads_are_started_as_they_are_needed(watched: Watched) -> None:
    watched.need(2, False)
    watched.need(1, False)
    eventually(lambda: len(watched.names) == 3)
    assert sorted(watched.names) == ["handler-extra-0", "handler-extra-1", "handler-extra-2"]
    assert len(watched.watch.extra_threads()) == 3
    watched.go_on.set()
    eventually(lambda: not watched.watch.extra_threads())


def test_a_thread_that_can_not_be_started(
    watched: Watched, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def start(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", start)
        watched.need(3, False)
    assert watched.runtime.failed == [3]
    assert "servable 's' needs 3 more threads" in caplog.text
    assert "can't start new thread" in caplog.text
    watched.need(1, False)
    eventually(lambda: watched.names == ["handler-extra-0"])


def within_handler(held: threading.Event, release: threading.Event) -> None:
    held.set()
    assert release.wait(60)


@pytest.fixture
def stuck(watched: Watched) -> Iterator[Callable[[], None]]:
    """Three threads, two of them doing the same; and a function that lets them end."""
    release = threading.Event()
    for path, seconds in (("/p.S/A", 5.0), ("/p.S/A", 9.0), ("/p.S/B", 7.0)):
        held = threading.Event()
        thread = threading.Thread(target=within_handler, args=(held, release))
        thread.start()
        assert held.wait(60)
        watched.runtime.held.append((thread.ident or 0, path, seconds))
    yield release.set
    release.set()


def test_it_is_said_once_that_all_are_stuck_and_once_that_they_go_on(
    watched: Watched, stuck: Callable[[], None], caplog: pytest.LogCaptureFixture
) -> None:
    watched.runtime.waiting = 12
    # Threads that are seen on their way into the wait may differ by a frame.
    ends = re.compile(r"in within_handler")
    with caplog.at_level(logging.WARNING):
        watched.need(0, True)
        text = caplog.text
        assert "none of the handler threads of servable 's' has taken a call for some seconds, and 12 wait" in text
        assert len(ends.findall(text)) in (2, 3)
        assert "in the handler of /p.S/A, for " in text
        assert "1 in the handler of /p.S/B, for 7.0 to 7.0 s" in text
        watched.need(1, True)
        assert len(caplog.records) == 1
        watched.need(0, False)
        assert re.search(r"the handler threads of servable 's' go on, after \d+\.\d s more", caplog.text)
        assert len(caplog.records) == 2
    assert watched.runtime.stuck == [False, True, True, False]


def test_those_that_are_stuck_again_and_again_are_not_said_again(
    watched: Watched, stuck: Callable[[], None], caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            watched.need(0, True)
            watched.need(0, False)
        assert len(caplog.records) == 2
        monkeypatch.setattr(handler_watch, "QUIET", 0.0)
        watched.need(0, True)
        assert len(caplog.records) == 3


def test_a_thread_that_is_gone_has_no_stack(
    watched: Watched, stuck: Callable[[], None], caplog: pytest.LogCaptureFixture
) -> None:
    watched.runtime.held = [(1, "/p.S/A", 5.0)]
    watched.need(0, True)
    assert "1 in the handler of /p.S/A, for 5.0 to 5.0 s:\n  (none)" in caplog.text
