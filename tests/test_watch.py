"""Changed files are noticed, once, when they have come to rest."""

from __future__ import annotations

import itertools
import logging
import os
import pathlib
import threading
from collections.abc import Hashable, Iterator

import pytest

from e2e_support import until
from mindserve.server import watch as watch_module
from mindserve.server.watch import FileWatch, snapshot_files


class Watched:
    """Something whose state a test sets; counts the looks at it and the changes that were reported."""

    def __init__(self) -> None:
        self.state: Hashable = "first"
        self.looks = 0
        self.reported: list[Hashable] = []
        self.raises: Exception | None = None

    def snapshot(self) -> Hashable:
        self.looks += 1
        if self.raises is not None:
            raise self.raises
        return self.state

    def on_change(self) -> None:
        self.reported.append(self.state)

    def wait_looks(self, count: int = 3) -> None:
        """Until it has been looked at so many times more: what had to be noticed has been."""
        target = self.looks + count
        until(lambda: self.looks >= target)


class Time:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def time() -> Time:
    return Time()


@pytest.fixture
def watch(time: Time) -> Iterator[FileWatch]:
    watch = FileWatch(interval=0.001, now=time)
    yield watch
    watch.close()


def watch_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "mindserve-watch"]


def test_a_change_counts_once_it_has_come_to_rest(watch: FileWatch, time: Time) -> None:
    file = Watched()
    watch.add(file.snapshot, file.on_change)
    for state in ("second", "third"):
        time.now += 0.9
        file.state = state
        file.wait_looks()
    time.now += 0.9
    file.wait_looks()
    assert file.reported == []
    time.now += 0.1
    file.wait_looks()
    assert file.reported == ["third"]
    time.now += 100
    file.wait_looks()
    assert file.reported == ["third"]


def test_what_is_back_as_it_was_is_no_change(watch: FileWatch, time: Time) -> None:
    file = Watched()
    watch.add(file.snapshot, file.on_change)
    for _ in range(2):
        file.state = "second"
        file.wait_looks()
        file.state = "first"
        file.wait_looks()
        time.now += 5
        file.wait_looks()
    file.state = "second"
    file.wait_looks()
    assert file.reported == []  # It has to come to rest anew.
    time.now += 1
    file.wait_looks()
    assert file.reported == ["second"]


def test_no_settling(watch: FileWatch) -> None:
    file = Watched()
    watch.add(file.snapshot, file.on_change, 0)
    file.state = "second"
    until(lambda: file.reported == ["second"])


def test_what_was_known_before(watch: FileWatch) -> None:
    file = Watched()
    watch.add(file.snapshot, file.on_change, 0, accepted="older")
    until(lambda: file.reported == ["first"])


def test_a_snapshot_that_fails_changes_nothing(watch: FileWatch, time: Time, caplog: pytest.LogCaptureFixture) -> None:
    file, other = Watched(), Watched()
    with caplog.at_level(logging.WARNING, "mindserve"):
        watch.add(file.snapshot, file.on_change, 0)
        watch.add(other.snapshot, other.on_change, 0)
        file.raises = OSError("no such disk")
        file.wait_looks(10)
        other.state = "second"
        until(lambda: other.reported == ["second"])
        assert file.reported == []
        assert caplog.text.count("no such disk") == 1
        file.raises = None
        file.state = "second"
        until(lambda: file.reported == ["second"])


def test_a_snapshot_that_fails_at_first(watch: FileWatch) -> None:
    file = Watched()
    file.raises = OSError("not yet")
    watch.add(file.snapshot, file.on_change, 0)
    file.wait_looks()
    assert file.reported == []
    file.raises = None
    until(lambda: file.reported == ["first"])


def test_a_fault_in_taking_in_is_logged_and_not_repeated(watch: FileWatch, caplog: pytest.LogCaptureFixture) -> None:
    file = Watched()
    calls = itertools.count()

    def on_change() -> None:
        next(calls)
        raise ValueError("it can't be used")

    with caplog.at_level(logging.ERROR, "mindserve"):
        watch.add(file.snapshot, on_change, 0)
        file.state = "second"
        file.wait_looks(10)
        assert next(calls) == 1
        assert "it can't be used" in caplog.text
    other = Watched()
    watch.add(other.snapshot, other.on_change, 0)
    other.state = "second"
    until(lambda: other.reported == ["second"])


def test_a_thread_only_while_something_is_watched() -> None:
    before = watch_threads()
    watch = FileWatch(interval=0.001)
    assert watch_threads() == before
    first, second = Watched(), Watched()
    handles = [watch.add(each.snapshot, each.on_change, 0) for each in (first, second)]
    (thread,) = set(watch_threads()) - set(before)
    assert thread.daemon
    watch.remove(handles[0])
    watch.remove(handles[0])
    second.wait_looks()
    looks = first.looks
    second.wait_looks()
    assert first.looks == looks
    watch.remove(handles[1])
    until(lambda: not thread.is_alive())
    # And it can begin anew.
    watch.add(first.snapshot, first.on_change, 0)
    first.state = "second"
    until(lambda: first.reported == ["second"])
    watch.close()
    assert watch_threads() == before
    watch.close()
    watch.add(first.snapshot, first.on_change, 0)
    assert watch_threads() == before


def test_closed_or_removed_from_within(watch: FileWatch) -> None:
    file, other = Watched(), Watched()
    handle = watch.add(file.snapshot, lambda: (file.on_change(), watch.remove(handle)), 0)  # type: ignore[func-returns-value]
    watch.add(other.snapshot, lambda: (other.on_change(), watch.close()), 0)  # type: ignore[func-returns-value]
    (thread,) = watch_threads()
    file.state = "second"
    until(lambda: file.reported == ["second"])
    other.wait_looks()
    file.state = "third"
    other.wait_looks()
    assert file.reported == ["second"]
    other.state = "second"
    thread.join(60)
    assert other.reported == ["second"]
    assert not thread.is_alive()


def test_states_of_files(tmp_path: pathlib.Path) -> None:
    file, link = tmp_path / "file", tmp_path / "link"
    other = tmp_path / "other"
    other.write_text("other")
    link.symlink_to(file)
    states = [snapshot_files([file, link])]

    def changed() -> bool:
        states.append(snapshot_files([file, link]))
        old, new = states[-2:]
        return [a != b for a, b in zip(old, new, strict=True)] == [True, True]

    assert snapshot_files([file, link]) == states[0]
    file.write_text("one")
    assert changed()
    file.write_text("longer")
    assert changed()
    os.utime(file, ns=(1, 1))
    assert changed()
    file.chmod(0o600)
    assert changed()
    (tmp_path / "new").write_text("longer")
    os.utime(tmp_path / "new", ns=(1, 1))
    (tmp_path / "new").chmod(0o600)
    (tmp_path / "new").replace(file)
    assert changed()
    # A link that is pointed elsewhere, as Kubernetes does it.
    (tmp_path / "new_link").symlink_to(other)
    (tmp_path / "new_link").replace(link)
    old, new = states[-1], snapshot_files([file, link])
    assert [a != b for a, b in zip(old, new, strict=True)] == [False, True]
    file.unlink()
    assert snapshot_files([file]) != (states[-1][0],)


def test_the_end_waits_for_a_look_that_hangs_only_so_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch_module, "_CLOSE_TIMEOUT", 0.01)
    hangs, goes_on = threading.Event(), threading.Event()

    def snapshot() -> Hashable:
        hangs.set()
        assert goes_on.wait(60)
        return "other"

    changes: list[str] = []
    watch = FileWatch(interval=0.001)
    watch.add(snapshot, lambda: changes.append("changed"), 0, accepted="first")
    assert hangs.wait(60)
    (thread,) = watch_threads()
    watch.close()
    assert thread.is_alive()
    goes_on.set()
    thread.join(60)
    assert not thread.is_alive()
    assert changes == []
