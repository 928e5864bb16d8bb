"""``mindserve traffic`` and the section ``traffic`` of a config file: how calls are split, said from outside."""

from __future__ import annotations

import collections
import json
import os
import pathlib
import re
import signal
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from command_line import Foreground, Shell
from conftest import wait_gone
from e2e_support import PREAMBLE, write_servable
from mindserve.client import Client

CONFIG = (
    PREAMBLE
    + """
@method("x")
def who(x):
    return np.array({number}, np.int64)
"""
)

TRAFFIC = """
servables:
  - {directory: servables, name: one}
  - {directory: servables, name: two}
grpc: {address: "127.0.0.1:0"}
traffic:
  - name: both
    sticky: user
    variations:
      - {name: a, servable: one, weight: 3}
      - {name: b, servable: two, version: 1}
    mirrors:
      - {servable: two, fraction: 0.5}
"""


@pytest.fixture
def shell(tmp_path: pathlib.Path) -> Shell:
    made = Shell(tmp_path)
    for number, name in enumerate(("one", "two"), 1):
        write_servable(tmp_path / "servables", name, CONFIG.replace("{number}", str(number)))
    return made


@pytest.fixture
def served(shell: Shell) -> Iterator[Foreground]:
    (shell.directory / "serve.yaml").write_text(TRAFFIC, encoding="utf-8")
    with shell.serving("run", "serve.yaml") as server:
        yield server


def test_the_process_is_given_in_either_way(served: Foreground, shell: Shell) -> None:
    """By all commands that look after a server."""
    pid = str(served.pid)
    for arguments in (
        ("status",),
        ("reload", "--servable", "one"),
        ("traffic", "show", "both"),
        ("traffic", "set", "both", "a=1"),
        ("traffic", "clear", "both"),
        ("handover",),
    ):
        # Who has only one server needs neither, so that a wrong one shows that it is looked at.
        for wrong in (("1",), ("--pid", "1")):
            done = shell.run(*arguments, *wrong)
            assert (done.returncode, "Process 1 runs no MindServe server" in done.stderr) == (1, True), done
    for arguments in (("status",), ("traffic", "set", "both", "a=1")):
        assert shell.run(*arguments, "1", "--pid", pid).returncode == 2
        assert shell.run(*arguments, "--pid", "0").returncode == 2
        assert shell.run(*arguments, "0").returncode == 2
    for way in ((pid,), ("--pid", pid)):
        assert shell.json("status", *way)["pid"] == served.pid
        assert shell.run("reload", "--servable", "one", *way).returncode == 0
        (split,) = shell.json("traffic", "set", "both", *way, "a=2")["traffic"]
        assert [each["weight"] for each in split["variations"]] == [2, 1]
        assert shell.json("traffic", "show", "both", *way)["traffic"] == [split]
    assert shell.json("traffic", "show", "--pid", pid)["traffic"] == [split]
    assert shell.run("traffic", "clear", "both", pid).returncode == 0
    done = shell.run("handover", "--pid", pid)
    assert done.returncode == 0, done
    successor = int(re.findall(r"^process (\d+) serves", done.stdout, re.MULTILINE)[0])
    os.kill(successor, signal.SIGTERM)
    wait_gone([successor])


def said(address: str, calls: int, servable: str = "both") -> dict[int, int]:
    """How many of the calls each servable has answered."""
    with Client(address, servable, "who") as client:
        answers = [client.infer({"x": 0}, timeout=60) for _ in range(calls)]
    return dict(collections.Counter(int(answer[0]["y"]) for answer in answers))


def test_a_config_file_says_it(shell: Shell, served: Foreground) -> None:
    assert said(served.address(), 8) == {1: 6, 2: 2}
    (shown,) = shell.json("traffic", "show")["traffic"]
    assert shown == {
        "name": "both",
        "variations": [
            {"name": "a", "servable": "one", "version": 0, "weight": 3.0},
            {"name": "b", "servable": "two", "version": 1, "weight": 1.0},
        ],
        "sticky": "user",
        "mirrors": [{"servable": "two", "version": 0, "fraction": 0.5}],
    }
    assert shell.run("traffic", "show").stdout.splitlines() == [
        "'both', the same for the same 'user':",
        "  a: 0.75 of the calls, servable 'one' in its newest version",
        "  b: 0.25 of the calls, servable 'two' version 1",
        "  copies of 0.5 of them: servable 'two' in its newest version",
    ]
    shown_calls = shell.run("status", "--once").stdout
    assert "both, variation a: one.who version 1: 6 calls, 0 with errors" in shown_calls
    assert "both, variation b: two.who version 1: 2 calls" in shown_calls
    assert "both, copies: two.who version 1: 4 calls" in shown_calls


def test_it_is_changed_while_it_runs(shell: Shell, served: Foreground) -> None:
    address = served.address()

    def change(*arguments: str) -> Any:
        (split,) = shell.json("traffic", "set", *arguments)["traffic"]
        return split

    split = change("both", "a=1", "--no-sticky", "--no-mirrors")
    assert (split["sticky"], split["mirrors"]) == (None, [])
    assert [each["weight"] for each in split["variations"]] == [1, 1]
    assert said(address, 8) == {1: 4, 2: 4}
    split = change("both", "c=2:two@1", "--remove", "b", "--sticky", "session", "--mirror", "one@1=0.25")
    assert [(each["name"], each["servable"], each["version"]) for each in split["variations"]] == [
        ("a", "one", 0),
        ("c", "two", 1),
    ]
    assert split["mirrors"] == [{"servable": "one", "version": 1, "fraction": 0.25}]
    assert split["sticky"] == "session"
    # A servable's own name, too; what it stands for is always a servable.
    change("one", "new=1:two", "old=0:one")
    assert said(address, 4, "one") == {2: 4}
    assert said(address, 6) == {1: 2, 2: 4}
    assert [each["name"] for each in shell.json("traffic", "show")["traffic"]] == ["both", "one"]
    assert [each["name"] for each in shell.json("traffic", "clear", "both")["traffic"]] == ["one"]
    assert "no calls are split" in shell.run("traffic", "show", "both").stdout
    shell.json("traffic", "clear", "one", "--pid", str(served.pid))
    assert said(address, 4, "one") == {1: 4}


def test_what_is_wrong_is_told(shell: Shell, served: Foreground) -> None:
    served.line()

    def error(*arguments: str, status: int = 1) -> str:
        done = shell.run("traffic", *arguments)
        assert done.returncode == status, done.stdout
        return " ".join(done.stderr.replace("│", " ").split())

    assert "'weight' should be a number in range [0,1e+09], but actually -1" in error("set", "both", "a=-1")
    assert "but actually nan" in error("set", "both", "a=nan")
    assert "sum to 0" in error("set", "both", "a=0", "b=0")
    assert "'variations' should not be empty" in error("set", "new")
    assert "There is no variation 'c' of 'both', of which there is 'a', 'b'" in error("set", "both", "c=1")
    assert "There is no variation 'c' of 'both' to remove" in error("set", "both", "--remove", "c")
    assert "The servable 'three' of variation 'c' was not started" in error("set", "both", "c=1:three")
    assert "The servable 'three' of a mirror was not started" in error("set", "both", "--mirror", "three")
    assert "'fraction' should be a number in range [0,1], but actually 1.5" in error(
        "set", "both", "--mirror", "one=1.5"
    )
    assert "No traffic of 'three' is split: only that of 'both'" in error("clear", "three")
    assert "should read VARIATION=WEIGHT" in error("set", "both", "a", status=2)
    assert "expected a number" in error("set", "both", "a=x", status=2)
    assert "exclude each other" in error("set", "both", "--sticky", "k", "--no-sticky", status=2)
    assert "exclude each other" in error("set", "both", "--mirror", "one", "--no-mirrors", status=2)
    assert shell.json("traffic", "show")["traffic"][0]["variations"][0]["weight"] == 3, "nothing has changed"


@pytest.fixture
def problem(shell: Shell) -> Callable[[str, str], str]:
    def find(old: str, new: str) -> str:
        assert old in TRAFFIC
        (shell.directory / "wrong.yaml").write_text(TRAFFIC.replace(old, new), encoding="utf-8")
        done = shell.run("validate", "wrong.yaml", "--json", "--no-imports")
        assert done.returncode == 1
        (found,) = json.loads(done.stdout)["problems"]
        return f"{found['line']}: {found['text']}"

    return find


def test_what_is_wrong_in_a_file_is_told_with_its_line(problem: Callable[[str, str], str]) -> None:
    assert problem("weight: 3", "weight: -3") == (
        "10: 'traffic[0].variations[0].weight' should be a number in range [0,1e+09], but is the number -3"
    )
    assert problem("weight: 3", "weight: .nan").endswith("in range [0,1e+09], but is the number .nan")
    assert problem("weight: 3", "weight: much").startswith("10: 'traffic[0].variations[0].weight' should be a number")
    assert "'variations' should not be repeated" in problem("name: b", "name: a")
    assert "The weights in 'variations' sum to 0" in problem(
        "weight: 3}\n      - {name: b, servable: two, version: 1}", "weight: 0}"
    )
    assert "'servable' is 'three', expected one of 'servables': 'one', 'two'" in problem(
        "b, servable: two", "b, servable: three"
    )
    assert problem("fraction: 0.5", "fraction: 2").startswith("13: 'traffic[0].mirrors[0].fraction' should be a number")
