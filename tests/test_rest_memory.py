"""How many bytes of bodies and answers a REST server holds."""

from __future__ import annotations

import pytest

from mindserve.rest.context import Memory
from mindserve.rest.http import HttpError


def refused(error: pytest.ExceptionInfo[HttpError]) -> str:
    assert (error.value.status, error.value.name) == (429, "RESOURCE_EXHAUSTED")
    assert error.value.headers == [(b"retry-after", b"1")]
    return error.value.text


def test_bodies() -> None:
    memory = Memory(100)
    memory.take(60)
    memory.take(40)
    with pytest.raises(HttpError) as error:
        memory.take(1)
    assert refused(error) == (
        "bodies that are being received, and answers that are not taken yet, come to more than max_enqueued_bytes 100 "
        "allows: try again later"
    )
    memory.give(60)
    memory.take(60)
    assert memory.refused == 1


def test_answers_leave_a_quarter_to_bodies() -> None:
    memory = Memory(100)
    memory.take_answer(75)
    with pytest.raises(HttpError) as error:
        memory.take_answer(1)
    assert refused(error).startswith(
        "there is no room for the answer, of 1 bytes: bodies that are being received, and "
    )
    memory.take(25)
    with pytest.raises(HttpError):
        memory.take(1)
    memory.give_answer(75)
    memory.take(75)
    assert memory.refused == 2


def test_an_answer_that_is_alone_may_have_any_size() -> None:
    memory = Memory(100)
    memory.take_answer(1000)
    with pytest.raises(HttpError):
        memory.take_answer(1)
    memory.take(25)
    with pytest.raises(HttpError):
        memory.take(1)
    memory.give_answer(1000)
    with pytest.raises(HttpError):
        memory.take_answer(76)
    memory.take_answer(75)
    memory.give(25)
    memory.give_answer(75)
    memory.take_answer(101)
