"""Workers that die while they serve, and their successors."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from typing import Any

import pytest

from conftest import ECHO_SERVABLE, Servables, StartScript, pid_of, serve, wait_gone
from e2e_support import until
from mindserve.client import Client


def ask_until(client: Client, right: Callable[[Any], bool]) -> Any:
    """Asks until the answer is right; fails with the last one after a minute."""
    # Not as fast as it can: what it waits for needs the processors too.
    return until(lambda: client.infer({"x": 1}), right)


def test_a_killed_worker_is_replaced(servables: Servables, start_script: StartScript) -> None:
    servables.add("echo", ECHO_SERVABLE)
    server = start_script(serve(servables.directory, "echo"))
    with Client(server.line(), "echo", "worker_pid") as client:
        first = pid_of(client.infer({"x": 1}))
        for _ in range(2):
            os.kill(first, signal.SIGKILL)
            second = pid_of(ask_until(client, lambda answer, old=first: pid_of(answer) not in (0, old)))
            # The first may not have been waited for yet.
            assert set(server.workers()) - {first} == {second}
            first = second
    assert "was ended by SIGKILL" in server.errors()


def test_a_worker_is_replaced_at_once_however_often_it_is_killed(
    servables: Servables, start_script: StartScript
) -> None:
    servables.add("echo", ECHO_SERVABLE)
    server = start_script(serve(servables.directory, "echo"))
    with Client(server.line(), "echo", "worker_pid") as client:
        worker = pid_of(client.infer({"x": 1}))
        for _ in range(8):
            os.kill(worker, signal.SIGKILL)
            worker = pid_of(ask_until(client, lambda answer, old=worker: pid_of(answer) not in (0, old)))
    assert server.errors().count("was ended by SIGKILL") == 8
    assert "is started again in" not in server.errors()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_worker_that_is_told_to_end_is_not_replaced(
    servables: Servables, start_script: StartScript, number: signal.Signals
) -> None:
    servables.add("echo", ECHO_SERVABLE)
    server = start_script(serve(servables.directory, "echo"))
    with Client(server.line(), "echo", "worker_pid") as client:
        worker = pid_of(client.infer({"x": 1}))
        os.kill(worker, number)
        wait_gone([worker])
        answer = ask_until(client, lambda answer: pid_of(answer) == 0)
        assert "Grpc Error, (14, 'unavailable')" in answer["error"]
    server.send(signal.SIGINT)
    assert server.wait() == 0
    assert "was told to end and is not started again" in server.errors()
    assert server.errors().count("is ready") == 1


def test_one_worker_of_two_is_killed(servables: Servables, start_script: StartScript) -> None:
    servables.add("echo", ECHO_SERVABLE)
    server = start_script(serve(servables.directory, "echo", device_ids=(0, 1)))
    with Client(server.line(), "echo", "worker_pid") as client:
        workers = server.workers()
        os.kill(workers[0], signal.SIGTERM)
        wait_gone(workers[:1])
        ask_until(client, lambda answer: pid_of(answer) == workers[1])
