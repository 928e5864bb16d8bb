"""Calls that nobody waits for any more, or that can't be answered in time, cost nothing."""

from __future__ import annotations

import os
import pathlib
import subprocess
import sys
from collections.abc import Iterator

import grpc
import pytest

from e2e_support import PREAMBLE, PREDICT, Served, request, serving, status_of, tensor, until
from test_e2e_stats import LISTEN, only, stats_of

CONFIG = (
    PREAMBLE
    + '''
import threading

seen = []


@method()
def work(x):
    """Takes note of a number; blocks at a FIFO; takes as long as "for 0.1" says."""
    if not isinstance(x, str):
        seen.append(x.item())
    elif x.startswith("for "):
        threading.Event().wait(float(x.removeprefix("for ")))
    else:
        with open(x, "w") as stream:
            stream.write("begun")
        with open(x) as stream:
            stream.read()
    return "done"


@method("x")
def saw(x):
    return np.array(seen)
'''
)
QUEUED = 50

CLIENT = f"""
import sys
import grpc
channel = grpc.insecure_channel(sys.argv[1])
call = channel.unary_unary({PREDICT!r})
requests = sys.stdin.buffer.read()
size = len(requests) // {QUEUED}
calls = [call.future(requests[i * size:(i + 1) * size]) for i in range({QUEUED})]
for each in calls:
    each.exception()
"""


@pytest.fixture
def served(tmp_path: pathlib.Path) -> Iterator[Served]:
    with serving(tmp_path / "server", "late", CONFIG, after=LISTEN) as running:
        yield running


def ask(x: int | str) -> bytes:
    data = request("late", "work", {"x": tensor(x)}).SerializeToString()
    assert isinstance(data, bytes)
    return data


def in_flight(served: Served) -> int:
    (worker,) = stats_of(served.process)["workers"]
    count: int = worker["in_flight"]
    return count


class Blocked:
    """Keeps the stage busy until told."""

    def __init__(self, served: Served, folder: pathlib.Path) -> None:
        self._fifo = folder / "fifo"
        os.mkfifo(self._fifo)
        self._call = served.client("work").infer_async({"x": str(self._fifo)}, timeout=120)
        assert self._fifo.read_text() == "begun"

    def end(self) -> None:
        self._fifo.write_text("go on")
        assert self._call.result() == [{"y": "done"}]


def nothing_was_seen(served: Served, blocked: Blocked) -> None:
    until(lambda: in_flight(served), lambda count: count == 1)
    blocked.end()
    assert served.value("work", x=1000) == "done"
    assert served.value("saw", x=0).tolist() == [1000]


def test_nothing_of_a_dead_client_runs(served: Served, tmp_path: pathlib.Path) -> None:
    blocked = Blocked(served, tmp_path)
    with subprocess.Popen([sys.executable, "-c", CLIENT, served.address], stdin=subprocess.PIPE) as client:
        assert client.stdin is not None
        client.stdin.write(b"".join(ask(number) for number in range(100, 100 + QUEUED)))
        client.stdin.close()
        until(lambda: in_flight(served), lambda count: count == QUEUED + 1)
        client.kill()
    nothing_was_seen(served, blocked)


def test_nothing_that_was_cancelled_runs(served: Served, tmp_path: pathlib.Path) -> None:
    blocked = Blocked(served, tmp_path)
    with grpc.insecure_channel(served.address) as channel:
        call = channel.unary_unary(PREDICT)
        calls = [call.future(ask(number)) for number in range(QUEUED)]
        until(lambda: in_flight(served), lambda count: count == QUEUED + 1)
        for each in calls:
            each.cancel()
        nothing_was_seen(served, blocked)


def test_nothing_that_is_late_runs(served: Served, tmp_path: pathlib.Path) -> None:
    blocked = Blocked(served, tmp_path)
    with grpc.insecure_channel(served.address) as channel:
        call = channel.unary_unary(PREDICT)
        calls = [call.future(ask(number), timeout=0.5) for number in range(QUEUED)]
        for each in calls:
            error = each.exception()
            assert isinstance(error, grpc.RpcError)
            assert error.code() is grpc.StatusCode.DEADLINE_EXCEEDED  # type: ignore[attr-defined]
        nothing_was_seen(served, blocked)


def test_what_can_not_be_done_in_time_is_refused_at_once(tmp_path: pathlib.Path) -> None:
    with serving(tmp_path / "server", "late", CONFIG, start="refuse_late=True", after=LISTEN) as served:
        for _ in range(2):
            assert served.value("work", x="for 1") == "done"
        blocked = Blocked(served, tmp_path)
        with grpc.insecure_channel(served.address) as channel:
            call = channel.unary_unary(PREDICT)
            waiting = [call.future(ask(number)) for number in range(20)]
            until(lambda: in_flight(served), lambda count: count == 21)
            code, text = status_of(lambda: call(ask(99), timeout=5))
            assert code is grpc.StatusCode.DEADLINE_EXCEEDED
            assert text.startswith("refused by refuse_late: the deadline comes in ")
            assert "most of it for function 'late.work'" in text
            assert in_flight(served) == 21
            patient = call.future(ask(7), timeout=120)
            until(lambda: in_flight(served), lambda count: count == 22)
            blocked.end()
            for each in (*waiting, patient):
                each.result()
        (worker,) = stats_of(served.process)["workers"]
        assert only(worker["stages"], kind="function", name="late.work")["expired"] == 1
        assert 99 not in served.value("saw", x=0).tolist()


def test_an_idle_stage_refuses_nothing(tmp_path: pathlib.Path) -> None:
    """Whatever it has measured: how else would it learn that it has become faster?"""
    with serving(tmp_path / "server", "late", CONFIG, start="refuse_late=True") as served:
        assert served.value("work", x="for 3") == "done"
        result = served.client("work").infer({"x": 1}, timeout=2)
        assert result == [{"y": "done"}]
