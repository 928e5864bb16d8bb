"""``mindserve status``: rates between two looks, and how it is shown."""

from __future__ import annotations

import contextlib
import os
import pathlib
import pty
import re
import signal
import subprocess
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from rich.console import Console

from command_line import COMMAND, Shell
from conftest import ECHO_SERVABLE, Servables
from e2e_support import until
from mindserve.cli.rates import window
from mindserve.cli.status_view import lines, render
from mindserve.client import Client

EMPTY = {"count": 0, "sum": 0.0, "buckets": []}


def histogram(*buckets: tuple[float, int]) -> dict[str, Any]:
    return {
        "count": sum(count for _, count in buckets),
        "sum": sum(upper * count for upper, count in buckets),
        "buckets": [list(bucket) for bucket in buckets],
    }


def stage(batches: int, sizes: dict[str, Any], queue: dict[str, Any], run: dict[str, Any]) -> dict[str, Any]:
    values = {"batches": batches, "batch_sizes": sizes, "queue": queue, "run": run, "instances": 0}
    return {"kind": "model", "name": "m.onnx", "failed": 1, "expired": 2, **values}


def worker(pid: int | None, requests: int, *stages: dict[str, Any], **more: Any) -> dict[str, Any]:
    values = {"servable": "s", "version": 1, "device_id": 0, "ready": pid is not None, "draining": False, "restarts": 0}
    return {**values, "pid": pid, "in_flight": 3, "requests": requests, "stages": list(stages), **more}


def method(ended: dict[str, int], latency: dict[str, Any], with_errors: int = 0, **more: Any) -> dict[str, Any]:
    names = {"path": "/p/Predict", "servable": "s", "version": 1, "method": "m"}
    return {**names, "ended": ended, "with_errors": with_errors, "latency": latency, **more}


def status(time: float, methods: list[Any], workers: list[Any], **stats: Any) -> dict[str, Any]:
    values = {"requests": 0, "errors": 0, "enqueued_bytes": 0, "refused": {}, "servables": [], "certificates": []}
    return {
        "pid": 7,
        "state": "serving",
        "seconds": time,
        "time": 1000 + time,
        "addresses": ["a:1"],
        "connections": 1,
        "in_flight": 0,
        "stats": {**values, "methods": methods, "workers": workers, **stats},
    }


BEFORE = status(
    10,
    [method({"OK": 10, "CANCELLED": 1}, histogram((0.001, 11)), with_errors=2)],
    [worker(5, 100, stage(10, histogram((1, 10)), histogram((0.001, 10)), histogram((0.002, 10))))],
    requests=11,
    errors=1,
)
AFTER = status(
    12,
    [method({"OK": 20, "CANCELLED": 3}, histogram((0.001, 11), (0.004, 12)), with_errors=4)],
    [
        worker(
            5, 140, stage(14, histogram((1, 10), (4, 4)), histogram((0.001, 10), (0.5, 16)), histogram((0.002, 14)))
        ),
        worker(6, 8, stage(2, histogram((4, 2)), EMPTY, EMPTY)),
        worker(None, 0),
    ],
    requests=31,
    errors=5,
)


def test_rates_between_two_looks() -> None:
    seen = window(AFTER, BEFORE)
    assert seen.seconds == 2
    assert (seen.rate, seen.error_rate) == (10, 2)
    (calls,) = seen.calls
    assert (calls.name, calls.calls, calls.errors) == ("s.m version 1", 23, 7)
    assert (calls.rate, calls.error_rate) == (6, 2)
    # Only of what came since.
    assert (calls.latency.count, calls.latency.quantile(0.5)) == (12, 0.004)
    old, new, down = seen.workers
    assert (old.rate, old.state, new.rate, down.state) == (20, "ready", 4, "down")
    (stage,) = old.stages
    assert (stage.batches, stage.sizes.mean, stage.queue.quantile(0.5), stage.run.count) == (2, 4, 0.5, 4)
    assert (stage.failed, stage.expired) == (1, 2)


def test_rates_since_the_beginning() -> None:
    seen = window(BEFORE, None)
    assert seen.seconds == 10
    assert seen.rate == pytest.approx(1.1)
    assert seen.calls[0].latency.count == 11
    assert seen.workers[0].rate == 10
    # A look that shows no time since the last one, and counters that began anew.
    assert window(BEFORE, BEFORE).rate == 0
    assert window(BEFORE, AFTER | {"time": 0}).rate == 0


def test_states() -> None:
    workers = [worker(1, 0, ready=False), worker(2, 0, draining=True), worker(3, 0), worker(None, 0)]
    assert [each.state for each in window(status(1, [], workers), None).workers] == [
        "not ready", "draining", "ready", "down",
    ]  # fmt: skip


def test_troubles_are_told() -> None:
    seen = status(
        1,
        [],
        [],
        refused={"max_connections": 5, "max_metadata_bytes": 0},
        servables=[{"servable": "s", "reload_error": "[bold]no[/bold]"}, {"servable": "t", "reload_error": ""}],
        certificates=[{"address": "a:1", "reload_error": "bad key"}, {"address": "b:1", "reload_error": None}],
    )
    told = [
        "refused by max_connections: 5",
        "servable 's' could not be reloaded: [bold]no[/bold]",
        "certificate of a:1 was not reloaded: bad key",
    ]
    assert lines(seen)[-3:] == told
    console = Console(width=100, record=True, file=open(os.devnull, "w"))  # noqa: SIM115
    console.print(render(seen, None))
    assert [line.rstrip() for line in console.export_text().splitlines()][-3:] == told
    console.file.close()


def test_lines() -> None:
    shown = lines(AFTER)
    assert shown[:4] == [
        "process 7: serving, for 12 s",
        "listens on a:1",
        "1 connections, 0 requests in flight, 0.0 MiB",
        "2.6 calls/s, 0.4 errors/s, over 12 s",
    ]
    assert shown[4:6] == [
        "servable 's' version 1 on device 0: process 5, ready, restarted 0 times",
        "  model m.onnx: 14 batches of 1.9, queue p50/p99 500/500 ms, run p50/p99 2/2 ms, 1 failed, 2 late",
    ]
    assert "servable 's' version 1 on device 0: down, restarted 0 times" in shown
    assert shown[-1] == "s.m version 1: 23 calls, 7 with errors, latency p50/p99 4/4 ms"


def test_variations_are_told_apart() -> None:
    ended, latency = {"OK": 2}, histogram((0.001, 2))
    a = {"split": "both", "variation": "a", "mirrored": False}
    b, copies = {**a, "variation": "b"}, {**a, "variation": "", "mirrored": True}
    methods = [
        method(ended, latency, **a),
        method(ended, latency, **b),
        method({"UNAVAILABLE": 2}, latency, version=0, method="", **b),
        method(ended, latency, **copies),
    ]
    before = [methods[0], {**methods[1], "ended": {"OK": 1}}]
    seen = window(status(2, methods, []), status(1, before, []))
    assert [(calls.name, calls.calls, calls.errors, calls.rate) for calls in seen.calls] == [
        ("both, variation a: s.m version 1", 2, 0, 0),
        ("both, variation b: s.m version 1", 2, 0, 1),
        ("both, variation b: s, not answered, version 0", 2, 2, 2),
        ("both, copies: s.m version 1", 2, 0, 2),
    ]


# -- The command -------------------------------------------------------------------------------------------------------


@pytest.fixture
def shell(tmp_path: pathlib.Path) -> Shell:
    return Shell(tmp_path / "shell")


@pytest.fixture
def served(shell: Shell, servables: Servables) -> Iterator[tuple[Shell, str]]:
    """A server of which three calls of a method have been answered, and one of none."""
    servables.add("echo", ECHO_SERVABLE)
    with shell.serving("start", "-s", servables.directory, "--grpc-port", 0) as server:
        address = server.address()
        with Client(address, "echo", "same") as client:
            for _ in range(3):
                assert client.infer({"x": 1}, timeout=60) == [{"x": 1}]
            # What is counted comes a moment after the answer.
            until(lambda: shell.json("status")["stats"]["workers"][0]["stages"][0]["instances"] == 3)
            yield shell, address


def test_everything_as_json(served: tuple[Shell, str]) -> None:
    shell, address = served
    status = shell.json("status")
    assert status["addresses"] == [address]
    assert status["state"] == "serving"
    (method,) = (each for each in status["stats"]["methods"] if each["method"] == "same")
    assert method["ended"] == {"OK": 3}
    (worker,) = status["stats"]["workers"]
    assert worker["requests"] == 3
    functions = {stage["name"]: stage for stage in worker["stages"]}
    assert functions["echo.echo"]["instances"] == functions["echo.echo"]["queue"]["count"] == 3
    assert shell.json("status")["time"] > status["time"]


def test_elsewhere_than_on_a_terminal_it_is_shown_once(served: tuple[Shell, str]) -> None:
    shell, address = served
    done = shell.run("status")
    assert done.returncode == 0
    assert f"listens on {address}\n" in done.stdout
    assert re.search(r"^  function echo\.echo: 3 batches of 1\.0, queue p50/p99 .*s, run .*s, 0 failed, 0 late$",
                     done.stdout, re.MULTILINE)  # fmt: skip
    assert re.search(r"^echo\.same version 1: 3 calls, 0 with errors, latency p50/p99 .*s$", done.stdout, re.MULTILINE)
    assert "\x1b" not in done.stdout


class Terminal:
    """A command on a terminal of its own."""

    def __init__(self, shell: Shell, *arguments: str) -> None:
        ours, theirs = pty.openpty()
        environment = {**shell.environment, "TERM": "xterm", "LINES": "60"}
        self.process = subprocess.Popen(
            [*COMMAND, *arguments], cwd=shell.directory, env=environment, stdin=theirs, stdout=theirs, stderr=theirs,
            start_new_session=True,
        )  # fmt: skip
        os.close(theirs)
        self._ours = ours
        self._data = b""
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        while True:
            try:
                data = os.read(self._ours, 65536)
            except OSError:  # how a terminal tells that nobody has it open any more
                return
            if not data:
                return
            self._data += data

    def text(self) -> str:
        """What it has written so far, without colours."""
        return re.sub(r"\x1b\[[0-9;]*m", "", self._data.decode("utf-8", "replace"))

    def end(self) -> str:
        """Waits for its end; everything that it has written."""
        self.process.wait(60)
        self._reader.join(60)
        return self.text()

    def __enter__(self) -> Terminal:
        return self

    def __exit__(self, *error: object) -> None:
        self.process.kill()
        self.process.wait()
        self._reader.join(60)
        os.close(self._ours)


def test_on_a_terminal_it_is_refreshed_in_place(served: tuple[Shell, str]) -> None:
    shell, address = served
    with Terminal(shell, "status", "--interval", "0.1") as terminal:
        until(lambda: len(re.findall("process [0-9]+: serving", terminal.text())) >= 3)
        with Client(address, "echo", "same") as client:
            for _ in range(5):
                client.infer({"x": 1}, timeout=60)
        until(lambda: re.search(r"echo\.same version 1 +8 ", terminal.text()))
        # A rate of the last look.
        assert re.search(r"echo\.same version 1 +\d+ +(?!0\.0)\d+\.\d ", terminal.text())
        # Over what was there: up as many lines as it has.
        assert "\x1b[1A" in terminal.text()
        assert terminal.process.poll() is None
        terminal.process.send_signal(signal.SIGINT)
        text = terminal.end()
        assert terminal.process.returncode == 0
        assert "Traceback" not in text


def test_once_on_a_terminal(served: tuple[Shell, str]) -> None:
    shell, _ = served
    with Terminal(shell, "status", "--once") as terminal:
        text = terminal.end()
        assert terminal.process.returncode == 0
    assert len(re.findall("process [0-9]+: serving", text)) == 1
    assert re.search(r"echo v1 device 0 +ready ", text)
    assert re.search(r"function echo\.echo +\d+ ", text)
    assert re.search(r"echo\.same version 1 +3 ", text)


def test_it_stays_through_a_handover_and_ends_with_the_server(shell: Shell, servables: Servables) -> None:
    servables.add("echo", ECHO_SERVABLE)
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(shell.serving("start", "-s", servables.directory, "--grpc-port", 0))
        server.address()
        terminal = stack.enter_context(Terminal(shell, "status", "--interval", "0.1"))
        until(lambda: f"process {server.pid}: serving" in terminal.text())
        done = shell.run("handover")
        assert done.returncode == 0, done.stderr
        assert server.process.wait(60) == 0
        successor = shell.json("status")["pid"]
        try:
            assert successor != server.pid
            until(lambda: f"process {successor}: serving" in terminal.text())
            assert terminal.process.poll() is None
        finally:
            os.kill(successor, signal.SIGTERM)
        text = terminal.end()
        assert terminal.process.returncode == 1
        assert "Error: No MindServe server of this user runs" in text


def test_no_server(shell: Shell) -> None:
    done = shell.run("status")
    assert done.returncode == 1
    assert "No MindServe server of this user runs" in done.stderr
    assert done.stdout == ""
