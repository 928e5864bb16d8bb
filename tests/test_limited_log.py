"""Lines that clients can cause don't fill the disk, and what is left out is counted."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any

import pytest

from mindserve.limited_log import LimitedLines, LimitedLog


def test_the_log_takes_ten_lines_a_second(caplog: pytest.LogCaptureFixture) -> None:
    now = [1000.0]
    log = LimitedLog(logging.getLogger("limited"), lambda: now[0])
    with caplog.at_level("WARNING", logger="limited"):
        for number in range(25):
            log.warn(f"100% of {number}")
        now[0] += 1
        log.warn("the next")
        log.warn("and one more")
    said: list[Any] = [record.getMessage() for record in caplog.records]
    assert said[:10] == [f"100% of {number}" for number in range(10)]
    assert said[10:] == ["15 more warnings like it were left out", "the next", "and one more"]


@pytest.fixture
def now() -> list[float]:
    return [1000.0]


@pytest.fixture
def log(now: list[float], caplog: pytest.LogCaptureFixture) -> Iterator[logging.Logger]:
    """One of which each kind of line is limited."""
    log = logging.getLogger("limited_lines")
    limit = LimitedLines(log.name, lambda: now[0])
    caplog.handler.addFilter(limit)
    with caplog.at_level("INFO"):
        yield log
    caplog.handler.removeFilter(limit)


def test_ten_of_a_kind_a_second(log: logging.Logger, now: list[float], caplog: pytest.LogCaptureFixture) -> None:
    for number in range(25):
        log.error("%s raised 100%% of %d", "this", number)
    log.warning("another kind")
    now[0] += 1
    log.error("%s raised 100%% of %d", "that", 25)
    log.error("%s raised 100%% of %d", "that", 26)
    said = [record.getMessage() for record in caplog.records]
    assert said[:10] == [f"this raised 100% of {number}" for number in range(10)]
    assert said[10:] == [
        "another kind",
        "that raised 100% of 25\n15 more like it were left out before",
        "that raised 100% of 26",
    ]


def test_lines_of_others_are_written(log: logging.Logger, caplog: pytest.LogCaptureFixture) -> None:
    for number in range(25):
        logging.getLogger(f"{log.name}_of_others").info("line %d", number)
    assert len(caplog.records) == 25


def test_a_long_one_is_enough(log: logging.Logger, now: list[float], caplog: pytest.LogCaptureFixture) -> None:
    for _ in range(3):
        log.error("it raised:\n%s", 70_000 * "x")
    now[0] += 1
    log.error("it raised:\n%s", "y")
    said = [record.getMessage() for record in caplog.records]
    assert said == ["it raised:\n" + 70_000 * "x", "it raised:\ny\n2 more like it were left out before"]
