"""How far a start is, and what is shown of it."""

from __future__ import annotations

import pathlib
import pty

import pytest
from rich.text import Text

from conftest import ECHO_SERVABLE, Servables, StartScript
from mindserve.control import WorkerParameters
from mindserve.supervisor import StartJob, WorkerSpec
from mindserve.supervisor.progress import render, wait_with_progress


def spec(device: int) -> WorkerSpec:
    parameters = WorkerParameters(
        servable_directory="/d",
        servable_name="add",
        version=1,
        version_asked=0,
        device_id=device,
        device_type=None,
        intra_op_threads=1,
        max_batch_size=32,
        max_queue_delay_us=0,
        handshake_timeout=660.0,
        refuse_late=False,
        handler_threads=32,
        send_tracebacks=True,
        internal_address="",
    )
    return WorkerSpec(parameters, pathlib.Path("log"), start_timeout=1.0, heartbeat_timeout=10.0)


def test_a_job_ends_when_all_are_ready() -> None:
    job = StartJob([spec(0), spec(1)])
    assert not job.set_ready(spec(1))
    job.set_phase(spec(0), "loading model add.onnx")
    assert [line.phase for line in job.progress()] == ["loading model add.onnx", "ready"]
    assert job.set_ready(spec(0))
    assert not job.wait(0)
    job.end()
    assert job.wait()
    assert job.error == ""


def test_a_jobs_first_error_is_its_error() -> None:
    job = StartJob([spec(0), spec(1)])
    job.set_failed(spec(0), "first")
    job.set_failed(spec(1), "second")
    assert job.error == "first"


def styles(job: StartJob) -> list[tuple[str, str]]:
    """The cells that say how far each worker is, with their styles."""
    cells = render(job.progress(), 0).columns[1].cells
    return [(cell.plain, str(cell.style)) for cell in cells if isinstance(cell, Text)]


def test_only_what_failed_is_shown_as_failed() -> None:
    job = StartJob([spec(0), spec(1), spec(2)])
    job.set_ready(spec(0))
    assert styles(job) == [("ready", "green"), ("starting", "cyan"), ("starting", "cyan")]
    job.set_failed(spec(1), "error")
    job.set_ended(spec(0))
    job.set_ended(spec(2))
    assert styles(job) == [("ended", "yellow"), ("failed", "red"), ("ended", "yellow")]
    assert job.error == "error"


def test_what_looks_like_markup_is_shown_as_it_is() -> None:
    job = StartJob([spec(0)])
    job.set_phase(spec(0), "loading model [red]a[/b].onnx")
    assert styles(job) == [("loading model [red]a[/b].onnx", "cyan")]


def test_a_sibling_of_a_worker_that_fails(servables: Servables, start_script: StartScript) -> None:
    servables.add("echo", ECHO_SERVABLE)
    servables.add("broken", "raise ValueError('my own text')\n")
    # The start as the server's own thread sees it, whose display this is.
    script = f"""
    from mindserve import server
    from mindserve.server import core
    def look(job):
        job.wait()
        print(*(line.phase for line in job.progress()), flush=True)
    core.wait_with_progress = look
    configs = [server.ServableStartConfig({str(servables.directory)!r}, name) for name in ("echo", "broken")]
    try:
        server.start_servables(configs)
    except RuntimeError as error:
        print("my own text" in str(error), flush=True)
    """
    server = start_script(script)
    assert server.line() == "ended failed"
    assert server.line() == "True"
    assert server.wait() == 0, server.errors()


def test_progress_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    ours, theirs = pty.openpty()
    with open(ours, "rb", buffering=0) as screen, open(theirs, "w") as terminal:
        monkeypatch.setattr("sys.stderr", terminal)
        job = StartJob([spec(0), spec(1)])
        job.set_ready(spec(0))
        job.set_failed(spec(1), "error")
        job.end()
        wait_with_progress(job)
        shown = b""
        while b"failed" not in shown:
            shown += screen.read(65536)
    assert b"servable 'add' version 1 on device 0" in shown
    assert b"ready" in shown


def test_no_progress_elsewhere(capsys: pytest.CaptureFixture[str]) -> None:
    job = StartJob([spec(0)])
    job.end()
    wait_with_progress(job)
    assert capsys.readouterr().err == ""
