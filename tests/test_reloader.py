"""When a servable's directory asks for a reload, and of what."""

from __future__ import annotations

import os
import pathlib
import shutil
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest

from conftest import Servables
from e2e_support import until
from mindserve.config import ServableStartConfig
from mindserve.errors import ConfigError, StartError
from mindserve.server.reloader import Reloader
from mindserve.server.servables import Key, resolve
from mindserve.server.services import Services
from mindserve.server.watch import FileWatch
from mindserve.supervisor import StartJob, Supervisor, WorkerSpec, WorkerState


class FakeSupervisor:
    """Notes what it is asked to replace; ends the jobs when the test says so, or at once."""

    def __init__(self) -> None:
        self.asked: list[tuple[set[Key], list[Key]]] = []
        self.jobs: list[StartJob] = []
        self.error = ""
        self.at_once = True

    def replace(self, keys: set[Key], specs: Sequence[WorkerSpec], drain_timeout: float) -> StartJob:
        assert drain_timeout == 7.0
        job = StartJob(specs)
        self.asked.append((set(keys), [spec.key for spec in specs]))
        assert {spec.parameters.internal_address for spec in specs} <= {"unix:/internal"}
        self.jobs.append(job)
        if self.at_once:
            self.end(job)
        return job

    def end(self, job: StartJob) -> None:
        if self.error:
            job.fail(self.error)
        job.end()

    def states(self) -> list[WorkerState]:
        return []


class Time:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


class World:
    """A reloader between a fake supervisor and a real directory, in a time that the test turns."""

    def __init__(self, servables: Servables) -> None:
        self.servables = servables
        self.time = Time()
        self.supervisor = FakeSupervisor()
        self.watch = FileWatch(interval=0.001, now=self.time)
        self.reloader = Reloader(self.supervisor, self.watch, lambda: 7.0, lambda: "unix:/internal")  # type: ignore[arg-type]
        self.looks = 0
        # Told of each round of the watch.
        self.watch.add(self._look, lambda: None)

    def _look(self) -> int:
        self.looks += 1
        return 0

    def start(self, name: str, version: int = 0, *, directory: pathlib.Path | None = None, **options: Any) -> None:
        configs = [ServableStartConfig(str(directory or self.servables.directory), name, None, version, **options)]
        started = [resolve(each) for each in configs]
        self.reloader.add(started, self.reloader.look(configs))

    def rest(self, seconds: float) -> None:
        """What there is has been looked at before and after so many seconds."""
        self._rounds()
        self.time.now += seconds
        self._rounds()

    def _rounds(self) -> None:
        target = self.looks + 3
        until(lambda: self.looks >= target)

    def stat(self, name: str = "echo") -> Any:
        return next(each for each in self.reloader.stats() if each.servable == name)

    def settled(self) -> None:
        """No reload is under way."""
        until(lambda: not [thread for thread in threading.enumerate() if thread.name == "mindserve-reload"])


@pytest.fixture
def world(servables: Servables) -> Iterator[World]:
    world = World(servables)
    yield world
    world.watch.close()
    world.reloader.close()
    for job in world.supervisor.jobs:
        job.end()
    world.reloader.join()


@pytest.fixture
def echo(world: World) -> pathlib.Path:
    """The directory of a servable with versions 1 and 2, of which the newest was asked for."""
    directory = world.servables.add("echo", "", versions=(1, 2))
    world.start("echo")
    return directory


V1, V2, V3 = (("echo", version, 0) for version in (1, 2, 3))


def grow(path: pathlib.Path) -> None:
    with path.open("a") as file:
        file.write("x")


def test_nothing_changes(world: World, echo: pathlib.Path) -> None:
    (echo / "__pycache__").mkdir()
    grow(echo / "notes.txt")
    grow(echo / "1" / "add.onnx")
    grow(echo / "2" / "add.onnx")
    (echo / "x3").mkdir()
    (echo / "03").mkdir()
    shutil.rmtree(echo / "1")
    world.rest(10)
    world.rest(10)
    assert world.supervisor.asked == []
    assert world.stat().reloads == 0


@pytest.mark.parametrize("name", ["servable_config.py", "sibling.py", "other.py"])
def test_changed_sources(world: World, echo: pathlib.Path, name: str) -> None:
    for _ in range(3):
        grow(echo / name)
        world.rest(0.9)
    assert world.supervisor.asked == []
    world.rest(0.2)
    until(lambda: world.stat().reloads == 1)
    world.rest(10)
    assert world.supervisor.asked == [({V2}, [V2])]


def test_a_new_version_counts_when_it_is_whole(world: World, echo: pathlib.Path) -> None:
    new = echo / "3"
    for step in (
        lambda: new.mkdir(),
        lambda: grow(new / "a"),
        lambda: grow(new / "a"),
        lambda: (new / "deep").mkdir(),
        lambda: grow(new / "deep" / "b"),
        lambda: grow(new / "deep" / "b"),
        lambda: os.utime(new / "a", (1, 1)),
        lambda: (new / "a").unlink(),
    ):
        step()
        world.rest(0.9)
        world.rest(0)
    assert world.supervisor.asked == []
    world.rest(0.2)
    until(lambda: world.stat().reloads == 1)
    assert world.supervisor.asked == [({V2}, [V3])]
    assert world.stat().versions == (3,)
    grow(new / "a")
    world.rest(10)
    assert len(world.supervisor.asked) == 1


def test_an_empty_version_directory_is_not_there_yet(world: World, echo: pathlib.Path) -> None:
    (echo / "3" / "deep").mkdir(parents=True)
    world.rest(10)
    assert world.supervisor.asked == []


def test_what_fails_is_tried_again_when_it_has_changed(world: World, echo: pathlib.Path) -> None:
    world.supervisor.error = "it can't be loaded"
    (echo / "3").mkdir()
    for times in (1, 2):
        grow(echo / "3" / "a")
        world.rest(1.1)
        until(lambda times=times: world.stat().reloads_failed == times)
        assert "it can't be loaded" in world.stat().reload_error
        world.rest(100)
        assert len(world.supervisor.asked) == times
    world.supervisor.error = ""
    grow(echo / "3" / "a")
    world.rest(1.1)
    until(lambda: world.stat().reloads == 1)
    assert world.supervisor.asked == [({V2}, [V3])] * 3
    assert world.stat().reload_error == ""


def test_a_failed_version_that_disappears(world: World, echo: pathlib.Path) -> None:
    world.supervisor.error = "it can't be loaded"
    (echo / "4").mkdir()
    grow(echo / "4" / "a")
    world.rest(1.1)
    until(lambda: world.stat().reloads_failed == 1)
    world.supervisor.error = ""
    shutil.rmtree(echo / "4")
    world.rest(10)
    assert len(world.supervisor.asked) == 1
    (echo / "3").mkdir()
    grow(echo / "3" / "a")
    world.rest(1.1)
    until(lambda: world.stat().reloads == 1)
    assert world.supervisor.asked[1:] == [({V2}, [V3])]


def test_one_that_comes_back_has_to_come_to_rest_anew(world: World, echo: pathlib.Path) -> None:
    world.supervisor.error = "it can't be loaded"
    (echo / "3").mkdir()
    grow(echo / "3" / "a")
    world.rest(1.1)
    until(lambda: world.stat().reloads_failed == 1)
    world.supervisor.error = ""
    shutil.rmtree(echo / "3")
    world.rest(10)
    (echo / "3").mkdir()
    grow(echo / "servable_config.py")
    for _ in range(3):
        grow(echo / "3" / "a")
        world.rest(0.9)
    until(lambda: world.stat().reloads == 1)
    assert world.supervisor.asked[1:] == [({V2}, [V2])]


def test_changed_sources_while_a_version_is_being_written(world: World, echo: pathlib.Path) -> None:
    (echo / "3").mkdir()
    grow(echo / "servable_config.py")
    for _ in range(4):
        grow(echo / "3" / "a")
        world.rest(0.5)
    until(lambda: world.stat().reloads == 1)
    assert world.supervisor.asked == [({V2}, [V2])]
    world.rest(1.1)
    until(lambda: world.stat().reloads == 2)
    assert world.supervisor.asked[1:] == [({V2}, [V3])]


def test_hot_reload_off(world: World) -> None:
    directory = world.servables.add("echo", "", versions=(1, 2))
    world.start("echo", hot_reload=False)
    grow(directory / "servable_config.py")
    (directory / "3").mkdir()
    grow(directory / "3" / "a")
    world.rest(10)
    assert world.supervisor.asked == []
    world.reloader.reload("echo")
    assert world.supervisor.asked == [({V2}, [V3])]


def test_versions_asked_for_by_number_keep_them(world: World) -> None:
    directory = world.servables.add("echo", "", versions=(1, 2))
    world.start("echo", 1)
    world.start("echo")
    (directory / "3").mkdir()
    grow(directory / "3" / "a")
    world.rest(1.1)
    until(lambda: world.stat().reloads == 1)
    assert world.supervisor.asked == [({V2}, [V3])]
    grow(directory / "servable_config.py")
    world.rest(1.1)
    until(lambda: world.stat().reloads == 2)
    assert world.supervisor.asked[1:] == [({V1, V3}, [V1, V3])]
    assert world.stat().versions == (1, 3)


def test_a_version_that_is_asked_for_by_number_too(world: World) -> None:
    """It stays when the newest goes on to another, and is taken as it is by one that comes to it."""
    directory = world.servables.add("echo", "", versions=(1, 2, 3))
    shutil.move(directory / "3", directory / "later")
    world.start("echo", 2)
    world.start("echo")
    shutil.move(directory / "later", directory / "3")
    world.start("echo", 3)
    world.rest(1.1)
    until(lambda: world.stat().reloads == 0 and world.stat().versions == (2, 3))
    world.settled()
    assert world.supervisor.asked == []
    world.reloader.reload(None)
    assert world.supervisor.asked == [({V2, V3}, [V2, V3])]


def test_only_configs_with_hot_reload_are_reloaded_by_themselves(world: World) -> None:
    directory = world.servables.add("echo", "", versions=(1, 2))
    world.start("echo", 1, hot_reload=False)
    world.start("echo", 2)
    grow(directory / "servable_config.py")
    world.rest(1.1)
    until(lambda: world.stat().reloads == 1)
    assert world.supervisor.asked == [({V2}, [V2])]
    world.reloader.reload("echo")
    assert world.supervisor.asked[1:] == [({V1, V2}, [V1, V2])]


def test_reload_takes_the_newest_there_is(world: World, echo: pathlib.Path) -> None:
    (echo / "3").mkdir()
    world.reloader.reload("echo")
    shutil.rmtree(echo / "3")
    world.rest(10)
    world.reloader.reload("echo")
    assert world.supervisor.asked == [({V2}, [V3]), ({V3}, [V2])]
    # What it has seen is no change any more.
    grow(echo / "servable_config.py")
    world.reloader.reload(None)
    world.rest(10)
    world.settled()
    assert len(world.supervisor.asked) == 3


def test_what_changes_while_it_is_started_is_a_change(world: World) -> None:
    directory = world.servables.add("echo", "", versions=(1, 2))
    configs = [ServableStartConfig(str(world.servables.directory), "echo")]
    sources = world.reloader.look(configs)
    started = [resolve(each) for each in configs]
    grow(directory / "servable_config.py")
    world.reloader.add(started, sources)
    world.rest(1.1)
    until(lambda: world.stat().reloads == 1)


def test_what_is_asked_for_meanwhile_is_done_in_one_more(world: World, echo: pathlib.Path) -> None:
    world.supervisor.at_once = False
    ended: list[str] = []

    def reload() -> None:
        try:
            world.reloader.reload("echo")
            ended.append("done")
        except StartError as error:
            ended.append(str(error))

    threads = [threading.Thread(target=reload) for _ in range(4)]
    threads[0].start()
    until(lambda: len(world.supervisor.jobs) == 1)
    for thread in threads[1:]:
        thread.start()
    grow(echo / "servable_config.py")
    world.rest(1.1)
    until(lambda: len(world.reloader._servables[echo].waiting) == 4)
    assert len(world.supervisor.jobs) == 1
    world.supervisor.end(world.supervisor.jobs[0])
    threads[0].join()
    assert ended == ["done"]
    until(lambda: len(world.supervisor.jobs) == 2)
    world.supervisor.error = "it can't be loaded"
    world.supervisor.end(world.supervisor.jobs[1])
    for thread in threads[1:]:
        thread.join()
    world.settled()
    assert len(world.supervisor.jobs) == 2
    assert len(ended) == 4
    assert all("it can't be loaded" in error for error in ended[1:])


def test_one_that_fails_among_several(world: World, echo: pathlib.Path) -> None:
    other = world.servables.add("other", "", versions=(1,))
    world.start("other")
    shutil.rmtree(other)
    with pytest.raises(StartError, match=r"Reload of servable 'other' failed.*not exist"):
        world.reloader.reload(None)
    assert world.supervisor.asked == [({V2}, [V2])]
    with pytest.raises(ConfigError, match="'nothing'; started are: 'echo', 'other'"):
        world.reloader.reload("nothing")


def test_the_same_name_from_two_directories(world: World, echo: pathlib.Path, tmp_path: pathlib.Path) -> None:
    other = tmp_path / "others"
    shutil.copytree(echo, other / "echo")
    (other / "echo" / "2").rename(other / "echo" / "5")
    world.start("echo", directory=other)
    assert [(each.directory, each.versions) for each in world.reloader.stats()] == [
        (str(other / "echo"), (5,)),
        (str(echo), (2,)),
    ]
    grow(other / "echo" / "servable_config.py")
    world.rest(1.1)
    until(lambda: [each.reloads for each in world.reloader.stats()] == [1, 0])
    v5 = ("echo", 5, 0)
    assert world.supervisor.asked == [({v5}, [v5])]
    world.reloader.reload("echo")
    assert sorted(world.supervisor.asked[1:], key=str) == [({V2}, [V2]), ({v5}, [v5])]


def test_after_the_end(world: World, echo: pathlib.Path) -> None:
    world.reloader.close()
    with pytest.raises(StartError, match="being stopped"):
        world.reloader.reload("echo")
    grow(echo / "servable_config.py")
    world.rest(10)
    assert world.supervisor.asked == []


class NoGateway:
    """Of which nothing is asked but where to hear of lost workers."""

    def __init__(self) -> None:
        self._lost, _other_end = os.pipe()

    def lost_workers_fd(self) -> int:
        return self._lost

    def __getattr__(self, name: str) -> Callable[..., Any]:
        raise AssertionError(f"nothing is to be asked of it: {name}")


def test_a_job_that_comes_after_the_supervisors_end() -> None:
    supervisor = Supervisor(NoGateway(), Services())  # type: ignore[arg-type]
    supervisor.stop()
    supervisor.join()
    job = supervisor.replace([], [], 1.0)
    assert job.wait(60)
    assert "being stopped" in job.error
