"""Servables that change while they are served: nobody loses an answer, and what can't be loaded changes nothing."""

from __future__ import annotations

import asyncio
import json
import os
import pathlib
import signal
import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
import onnx
import pytest

from conftest import ADD_SERVABLE, ServerProcess, add_model, wait_gone
from e2e_support import PREAMBLE, Served, serving, until
from mindserve.client import AsyncClient, Client

# Does what it is told to line by line.
COMMANDS = """
import json, sys
for line in sys.stdin:
    name, *arguments = line.split()
    try:
        if name == "stats":
            print(json.dumps(server.stats().as_dict()), flush=True)
        else:
            server.reload(*arguments)
            print("reloaded", flush=True)
    except RuntimeError as error:
        print(f"{type(error).__name__}: {error}".replace(chr(10), " | "), flush=True)
"""

BLOCK = '''

@method()
def block(fifo):
    """Says who runs it, and then waits for what to answer."""
    with open(fifo + ".pids", "a") as stream:
        stream.write(f"{os.getpid()}\\n")
    with open(fifo) as stream:
        return stream.read()
'''


def source(label: str, more: str = "") -> str:
    """A servable whose method ``ask`` answers with this label, and with its process."""
    return (
        PREAMBLE
        + f"import os\n\n@method(outputs_count=2)\ndef ask(x):\n    return {label!r}, os.getpid()\n{BLOCK}\n{more}\n"
    )


def runners(fifo: pathlib.Path) -> list[int]:
    """The processes that have run ``block`` with it, the first one first."""
    path = fifo.with_name(fifo.name + ".pids")
    return [int(line) for line in path.read_text().splitlines()] if path.exists() else []


def replace_file(path: pathlib.Path, data: str | bytes) -> None:
    """As editors and deployments do it: nobody sees half of it."""
    new = path.with_name(path.name + ".new")
    new.write_bytes(data.encode() if isinstance(data, str) else data)
    new.replace(path)


def model_bytes(operator: str) -> bytes:
    model = add_model()
    model.graph.node[0].op_type = operator
    data = model.SerializeToString()
    assert isinstance(data, bytes)
    return data


class Reloading:
    """A server with a servable that changes."""

    def __init__(self, served: Served, folder: pathlib.Path) -> None:
        self.served = served
        self.process: ServerProcess = served.process
        self.servable = folder

    @property
    def config(self) -> pathlib.Path:
        return self.servable / "servable_config.py"

    def command(self, text: str) -> str:
        self.process.tell(text)
        return self.process.line()

    def stats(self) -> dict[str, Any]:
        stats: dict[str, Any] = json.loads(self.command("stats"))
        return stats

    def reloads(self) -> dict[str, Any]:
        (servable,) = self.stats()["servables"]
        return dict(servable)

    def ask(self) -> tuple[str, int]:
        (result,) = self.served.ask("ask", {"x": 1})
        return result["y0"], int(result["y1"])

    def wait_workers(self, count: int) -> list[int]:
        """Until the server has so many children; it has none that it does not know of."""
        workers = until(self.process.workers, lambda workers: len(workers) == count)
        assert sorted(workers) == sorted(worker["pid"] for worker in self.stats()["workers"])
        return workers


class Load:
    """Clients that ask all the time, and note every answer."""

    def __init__(self, address: str, servable: str, method: str, instance: dict[str, Any]) -> None:
        self._stop = threading.Event()
        self.answers: list[Any] = []
        self.errors: list[Any] = []
        self._threads = [
            threading.Thread(target=self._run, args=(address, servable, method, instance, count)) for count in (1, 6)
        ]

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        self.wait_more()
        return self

    def __exit__(self, *error: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()
        if error[0] is None:
            assert self.errors == []

    def wait_more(self, count: int = 20) -> None:
        """Until so many more requests have been answered."""
        target = len(self.answers) + count
        until(lambda: len(self.answers) >= target or self.errors)
        assert self.errors == []

    def _run(self, address: str, servable: str, method: str, instance: dict[str, Any], count: int) -> None:
        with Client(address, servable, method) as client:
            while not self._stop.is_set():
                answer = client.infer([instance] * count, timeout=60)
                if isinstance(answer, list) and len(answer) == count and all("error" not in each for each in answer):
                    self.answers += answer
                else:
                    self.errors.append(answer)
                self._stop.wait(0.002)  # The workers that start need the processors too.


@pytest.fixture
def echo(tmp_path: pathlib.Path) -> Iterator[Reloading]:
    """One worker without a model, that answers "old"."""
    with serving(tmp_path, "echo", source("old"), after=COMMANDS) as served:
        yield Reloading(served, tmp_path / "servables" / "echo")


@pytest.fixture
def manual(tmp_path: pathlib.Path) -> Iterator[Reloading]:
    """The same with hot reload off."""
    with serving(tmp_path, "echo", source("old"), start="hot_reload=False", after=COMMANDS) as served:
        yield Reloading(served, tmp_path / "servables" / "echo")


X = {"x1": np.full((2, 2), 6, np.float32), "x2": np.full((2, 2), 3, np.float32)}


@pytest.fixture
def add(tmp_path: pathlib.Path) -> Iterator[Reloading]:
    """One worker with a model that adds."""
    models = {"add.onnx": add_model()}
    with serving(tmp_path, "add", ADD_SERVABLE, models, after=COMMANDS) as served:
        yield Reloading(served, tmp_path / "servables" / "add")


def results(load: Load) -> list[float]:
    return [float(answer["y"][0, 0]) for answer in load.answers]


# -- what is noticed ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["slowly", "renamed"])
def test_a_new_version_directory(add: Reloading, how: str) -> None:
    data = model_bytes("Mul")
    (old,) = add.process.workers()
    with Load(add.served.address, "add", "add_common", X) as load:
        if how == "slowly":
            (add.servable / "2").mkdir()
            with (add.servable / "2" / "add.onnx").open("wb", buffering=0) as file:
                for begin in range(0, len(data), 20):
                    load.wait_more(10)
                    file.write(data[begin : begin + 20])
        else:
            (add.servable / "new").mkdir()
            (add.servable / "new" / "add.onnx").write_bytes(data)
            (add.servable / "new").rename(add.servable / "2")
        until(lambda: results(load)[-1] == 18)
        wait_gone([old])
        switched = len(load.answers)
        load.wait_more(100)
    assert set(results(load)) == {9, 18}
    assert set(results(load)[switched:]) == {18}
    (new,) = add.wait_workers(1)
    (worker,) = add.stats()["workers"]
    assert (worker["pid"], worker["version"], worker["restarts"], worker["draining"]) == (new, 2, 0, False)
    assert add.reloads()["versions"] == [2]
    assert add.reloads()["reloads"] == 1
    with Client(add.served.address, "add", "add_common", 1) as client:
        assert "servable is not available" in client.infer(X, timeout=60)["error"]
    # Its successor serves the same.
    os.kill(new, signal.SIGKILL)
    answer = until(lambda: add.served.client("add_common").infer(X), lambda answer: isinstance(answer, list))
    assert answer[0]["y"][0, 0] == 18
    assert add.wait_workers(1) != [new]


def test_a_model_that_cannot_be_loaded_until_it_is_repaired(add: Reloading) -> None:
    with Load(add.served.address, "add", "add_common", X) as load:
        (add.servable / "2").mkdir()
        (add.servable / "2" / "add.onnx").write_bytes(b"no model at all")
        until(lambda: "Reload of servable 'add' failed, the workers that ran before go on" in add.process.errors())
        load.wait_more()
        assert set(results(load)) == {9}
        assert "Load model failed" in add.process.errors()
        assert "version2.log, which ends so:" in add.process.errors()
        assert "Load model failed" in add.reloads()["reload_error"]
        replace_file(add.servable / "2" / "add.onnx", model_bytes("Sub"))
        until(lambda: results(load)[-1] == 3)
    assert set(results(load)) == {9, 3}
    # The new workers answer a moment before the reload is over.
    until(lambda: add.reloads()["reload_error"] == "")
    assert add.reloads()["reloads_failed"] >= 1
    add.wait_workers(1)


def test_a_version_directory_that_disappears(add: Reloading) -> None:
    (add.servable / "1" / "add.onnx").unlink()
    (add.servable / "1").rmdir()
    with Load(add.served.address, "add", "add_common", X) as load:
        assert "no specified version directory" in add.command("reload") or "no valid version" in add.command("reload")
        load.wait_more()
        assert set(results(load)) == {9}
        (add.servable / "2").mkdir()
        (add.servable / "2" / "add.onnx").write_bytes(model_bytes("Mul"))
        until(lambda: results(load)[-1] == 18)


def test_changed_sources_on_several_workers(tmp_path: pathlib.Path) -> None:
    config = source("old").replace("'old'", "sibling.label") + "\nimport sibling\n"
    (tmp_path / "servables" / "echo").mkdir(parents=True)
    sibling = tmp_path / "servables" / "echo" / "sibling.py"
    sibling.write_text("label = 'a'\n")
    with serving(tmp_path, "echo", config, start="(0, 1)", after=COMMANDS) as served:
        server = Reloading(served, sibling.parent)
        seen = set(server.process.workers())
        with Load(served.address, "echo", "ask", {"x": 1}) as load:
            for turn, label in enumerate("bcd", 1):
                old = server.process.workers()
                # In place, as a careless user does it, and with the same size.
                sibling.write_text(f"label = '{label}'\n")
                until(lambda turn=turn: server.reloads()["reloads"] == turn)
                wait_gone(old)
                switched = len(load.answers)
                load.wait_more(50)
                assert {answer["y0"] for answer in load.answers[switched:]} == {label}
                seen |= set(server.wait_workers(2))
        assert len(seen) == 8
        assert {answer["y0"] for answer in load.answers} == set("abcd")
        assert {int(answer["y1"]) for answer in load.answers} <= seen


@pytest.mark.parametrize(
    ("broken", "text"),
    [
        ("def ask(:\n", "SyntaxError"),
        ("raise ValueError('not today')\n", "ValueError: not today"),
        ("import os\n", "There is no method registered"),
        ("import os\nos._exit(9)\n", "exited with status 9"),
        (None, "servable_config.py' not exist"),
    ],
)
def test_a_config_that_cannot_be_loaded_until_it_is_repaired(echo: Reloading, broken: str | None, text: str) -> None:
    (worker,) = echo.process.workers()
    with Load(echo.served.address, "echo", "ask", {"x": 1}) as load:
        if broken is None:
            echo.config.unlink()
        else:
            replace_file(echo.config, broken)
        until(lambda: "Reload of servable 'echo' failed" in echo.process.errors())
        assert text in echo.process.errors()
        load.wait_more()
        assert {(answer["y0"], int(answer["y1"])) for answer in load.answers} == {("old", worker)}
        assert echo.wait_workers(1) == [worker]
        replace_file(echo.config, source("new"))
        until(lambda: load.answers[-1]["y0"] == "new")
        wait_gone([worker])
    assert {answer["y0"] for answer in load.answers} == {"old", "new"}
    echo.wait_workers(1)


def test_a_new_worker_that_does_not_become_ready(tmp_path: pathlib.Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    with serving(tmp_path, "echo", source("old"), start="start_timeout=8", after=COMMANDS) as served:
        server = Reloading(served, tmp_path / "servables" / "echo")
        (worker,) = server.process.workers()
        replace_file(server.config, source("new", f"open({str(fifo)!r})"))
        assert "not ready within the start_timeout of 8 s" in server.command("reload")
        assert server.ask() == ("old", worker)
        assert server.wait_workers(1) == [worker]


# -- reload() ----------------------------------------------------------------------------------------------------------


def test_reload_switches_before_it_returns(manual: Reloading) -> None:
    _, old = manual.ask()
    for number in range(3):
        replace_file(manual.config, source(f"new {number}"))
        assert manual.command("reload echo" if number else "reload") == "reloaded"
        label, pid = manual.ask()
        assert label == f"new {number}"
        assert pid != old
        wait_gone([old])
        old = pid
    manual.wait_workers(1)
    assert manual.reloads() == {
        "servable": "echo", "directory": str(manual.servable), "versions": [1],
        "reloads": 3, "reloads_failed": 0, "reload_error": "",
    }  # fmt: skip
    (log,) = (manual.process.cwd / "serving_logs").iterdir()
    # Nobody has overwritten another's lines.
    assert log.read_text().count("serving echo version 1 on device 0") == 4


def test_reload_says_what_is_wrong(manual: Reloading) -> None:
    before = manual.ask()
    assert manual.command("reload ecko") == (
        "ConfigError: Parameter 'servable_name' should be a servable that has been started, but actually 'ecko'; "
        "started are: 'echo'"
    )
    replace_file(manual.config, "raise ValueError('not today')\n")
    said = manual.command("reload")
    assert said.startswith(
        "StartError: Reload of servable 'echo' failed, the workers that ran before go on: "
        "Start of servable 'echo' version 1 on device 0 failed: ValueError: not today"
    )
    assert "which ends so:" in said
    # The end of the log is the new worker's own.
    assert "serving echo version 1 on device 0" in said.partition("which ends so:")[2]
    assert str(before[1]) not in said
    assert manual.ask() == before
    assert manual.reloads()["reloads"] == 0
    assert manual.reloads()["reloads_failed"] == 1


def test_methods_that_come_and_go(manual: Reloading) -> None:
    replace_file(manual.config, source("new").replace("def block", "def other"))
    assert manual.command("reload") == "reloaded"
    assert "method is not available" in manual.served.error("block", fifo="")
    assert manual.ask()[0] == "new"


def test_a_worker_killed_just_after_the_switch(manual: Reloading) -> None:
    replace_file(manual.config, source("new"))
    assert manual.command("reload") == "reloaded"
    new = manual.ask()[1]
    os.kill(new, signal.SIGKILL)
    answer = until(lambda: manual.served.client("ask").infer({"x": 1}), lambda answer: isinstance(answer, list))
    assert answer[0]["y0"] == "new"
    assert manual.wait_workers(1) == [int(answer[0]["y1"])]
    (worker,) = manual.stats()["workers"]
    assert worker["restarts"] == 1


def test_many_calls_in_flight_over_several_reloads(tmp_path: pathlib.Path) -> None:
    with serving(tmp_path, "echo", source("0"), start="(0, 1), hot_reload=False", after=COMMANDS) as served:
        server = Reloading(served, tmp_path / "servables" / "echo")
        stop = threading.Event()
        labels: list[str] = []
        errors: list[Any] = []

        async def ask(client: AsyncClient) -> None:
            while not stop.is_set():
                answer = await client.infer([{"x": 1}] * 3, timeout=60)
                if isinstance(answer, list) and all("y0" in each for each in answer):
                    labels.extend(each["y0"] for each in answer)
                else:
                    errors.append(answer)

        async def ask_all() -> None:
            async with AsyncClient(served.address, "echo", "ask") as client:
                await asyncio.gather(*(ask(client) for _ in range(50)))

        thread = threading.Thread(target=asyncio.run, args=(ask_all(),))
        thread.start()
        try:
            until(lambda: labels)
            for turn in range(1, 4):
                replace_file(server.config, source(str(turn)))
                assert server.command("reload") == "reloaded"
                until(lambda turn=turn: labels[-1:] == [str(turn)])
        finally:
            stop.set()
            thread.join()
        assert errors == []
        assert set(labels) == {"0", "1", "2", "3"}
        server.wait_workers(2)


# -- the way from the old to the new -----------------------------------------------------------------------------------


def test_what_the_old_worker_holds_is_finished(manual: Reloading, tmp_path: pathlib.Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    call = manual.served.client("block").infer_async({"fifo": str(fifo)}, timeout=120)
    (old,) = until(lambda: runners(fifo))
    replace_file(manual.config, source("new"))
    assert manual.command("reload") == "reloaded"
    assert manual.ask()[0] == "new"
    workers = manual.stats()["workers"]
    assert [(worker["draining"], worker["ready"]) for worker in workers] == [(True, False), (False, True)]
    assert workers[0]["pid"] == old
    assert workers[0]["in_flight"] == 1
    fifo.write_text("by the old")
    assert call.result() == [{"y": "by the old"}]
    wait_gone([old])
    manual.wait_workers(1)
    until(lambda: "has been replaced and has ended" in manual.process.errors())


def test_what_the_old_worker_does_not_finish_goes_to_the_new(tmp_path: pathlib.Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    listen = "'127.0.0.1:0', limits=server.Limits(drain_timeout=0.1)"
    with serving(tmp_path, "echo", source("old"), listen=listen, after=COMMANDS) as served:
        server = Reloading(served, tmp_path / "servables" / "echo")
        call = served.client("block").infer_async({"fifo": str(fifo)}, timeout=120)
        (old,) = until(lambda: runners(fifo))
        assert server.command("reload") == "reloaded"
        _, new = until(lambda: runners(fifo), lambda pids: len(pids) == 2)
        assert new != old
        wait_gone([old])  # which would read what is for the other
        fifo.write_text("by the new")
        assert call.result() == [{"y": "by the new"}]
        assert "has not ended within the drain_timeout" in server.process.errors()
        assert server.wait_workers(1) == [new]


def test_times_that_never_pass(tmp_path: pathlib.Path) -> None:
    """They are longer than the kernel waits at one time."""
    start = "start_timeout=1e9, heartbeat_timeout=1e9"
    listen = "'127.0.0.1:0', limits=server.Limits(drain_timeout=1e9)"
    with serving(tmp_path, "echo", source("old"), start=start, listen=listen, after=COMMANDS) as served:
        server = Reloading(served, tmp_path / "servables" / "echo")
        _, old = server.ask()
        replace_file(server.config, source("new"))
        assert server.command("reload") == "reloaded"
        assert server.ask()[0] == "new"
        wait_gone([old])


# The first worker that imports it goes on, the second waits for a word.
GATE = """
try:
    with open({gate!r}, "x") as stream:
        stream.write(str(os.getpid()))
except FileExistsError:
    open({fifo!r}).read()
"""


def test_none_takes_requests_before_all_can(tmp_path: pathlib.Path) -> None:
    fifo, gate = tmp_path / "fifo", tmp_path / "gate"
    os.mkfifo(fifo)
    start = "(0, 1), hot_reload=False"
    with serving(tmp_path, "echo", source("old"), start=start, after=COMMANDS) as served:
        server = Reloading(served, tmp_path / "servables" / "echo")
        old = server.process.workers()
        replace_file(server.config, source("new", GATE.format(gate=str(gate), fifo=str(fifo))))
        with Load(served.address, "echo", "ask", {"x": 1}) as load:
            server.process.tell("reload")
            with fifo.open("w"):  # The second has come to it.
                until(lambda: "is loaded and waits for the others" in server.process.errors())
                load.wait_more(50)
                assert {answer["y0"] for answer in load.answers} == {"old"}
                assert len(server.process.workers()) == 4
            assert server.process.line() == "reloaded"
            wait_gone(old)
            switched = len(load.answers)
            load.wait_more(50)
            assert {answer["y0"] for answer in load.answers[switched:]} == {"new"}
        assert len(server.wait_workers(2)) == 2


@pytest.mark.parametrize("which", ["the one that waits", "the one that loads"])
def test_a_new_worker_that_dies_before_the_switch(tmp_path: pathlib.Path, which: str) -> None:
    fifo, gate = tmp_path / "fifo", tmp_path / "gate"
    os.mkfifo(fifo)
    start = "(0, 1), hot_reload=False"
    with serving(tmp_path, "echo", source("old"), start=start, after=COMMANDS) as served:
        server = Reloading(served, tmp_path / "servables" / "echo")
        old = server.process.workers()
        replace_file(server.config, source("new", GATE.format(gate=str(gate), fifo=str(fifo))))
        with Load(served.address, "echo", "ask", {"x": 1}) as load:
            server.process.tell("reload")
            with fifo.open("w"):
                until(lambda: "is loaded and waits for the others" in server.process.errors())
                new = set(server.process.workers()) - set(old)
                waits = int(gate.read_text())
                (loads,) = new - {waits}
                os.kill(waits if which == "the one that waits" else loads, signal.SIGKILL)
                said = server.process.line()
            assert "was ended by SIGKILL" in said
            wait_gone([*new])
            load.wait_more()
            assert {answer["y0"] for answer in load.answers} == {"old"}
        assert sorted(server.wait_workers(2)) == sorted(old)


def test_an_old_worker_that_dies_meanwhile_is_started_again(tmp_path: pathlib.Path) -> None:
    fifo, gate = tmp_path / "fifo", tmp_path / "gate"
    os.mkfifo(fifo)
    gate.touch()
    with serving(tmp_path, "echo", source("old"), start="hot_reload=False", after=COMMANDS) as served:
        server = Reloading(served, tmp_path / "servables" / "echo")
        _, old = server.ask()
        replace_file(server.config, source("new", GATE.format(gate=str(gate), fifo=str(fifo))))
        server.process.tell("reload")
        with fifo.open("w"):
            gate.unlink()
            os.kill(old, signal.SIGKILL)
            again = until(lambda: served.client("ask").infer({"x": 1}), lambda answer: isinstance(answer, list))
            assert len(server.process.workers()) == 2
        assert server.process.line() == "reloaded"
        until(lambda: server.ask()[1] != int(again[0]["y1"]))
        wait_gone([int(again[0]["y1"])])
        server.wait_workers(1)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_server_that_ends_during_a_reload(tmp_path: pathlib.Path, number: signal.Signals) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    with serving(tmp_path, "echo", source("old"), after=COMMANDS) as served:
        server = Reloading(served, tmp_path / "servables" / "echo")
        replace_file(server.config, source("new", f"open({str(fifo)!r}).read()"))
        with fifo.open("w"):
            workers = server.process.workers()
            assert len(workers) == 2
            server.process.send(number)
            assert server.process.wait() == (0 if number == signal.SIGTERM else -signal.SIGKILL)
            wait_gone(workers)
        assert "Traceback" not in server.process.errors()
        assert "failed" not in server.process.errors()


# -- versions ----------------------------------------------------------------------------------------------------------


def test_each_config_keeps_its_version(tmp_path: pathlib.Path) -> None:
    servable = tmp_path / "servables" / "add"
    models = {"add.onnx": add_model()}
    start = "version_number=1"
    after = (
        "server.start_servables(server.ServableStartConfig(config.servable_directory, 'add'))\n"
        "print('started', flush=True)\n" + COMMANDS
    )
    (servable / "2").mkdir(parents=True)
    onnx.save(onnx.load_from_string(model_bytes("Sub")), servable / "2" / "add.onnx")
    with serving(tmp_path, "add", ADD_SERVABLE, models, start=start, after=after) as served:
        assert served.process.line() == "started"
        server = Reloading(served, servable)

        def answer(version: int) -> Any:
            with Client(served.address, "add", "add_common", version) as client:
                answer = client.infer(X, timeout=60)
                return answer[0]["y"][0, 0] if isinstance(answer, list) else answer["error"]

        assert [answer(version) for version in (0, 1, 2)] == [3, 9, 3]
        first = next(worker["pid"] for worker in server.stats()["workers"] if worker["version"] == 1)
        (servable / "new").mkdir()
        (servable / "new" / "add.onnx").write_bytes(model_bytes("Mul"))
        (servable / "new").rename(servable / "3")
        until(lambda: answer(0) == 18)
        assert answer(1) == 9
        until(lambda: "servable is not available" in str(answer(2)))
        # The other version's worker has not been touched.
        assert first in server.wait_workers(2)
        replace_file(server.config, ADD_SERVABLE + "\n# changed\n")
        wait_gone([first])
        until(lambda: server.reloads()["reloads"] == 2)
        assert [answer(version) for version in (0, 1, 3)] == [18, 9, 18]
        assert server.reloads()["versions"] == [1, 3]
        server.wait_workers(2)
