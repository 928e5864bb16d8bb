"""A real browser, headless: Chromium, told what to do over a pair of pipes by its DevTools protocol."""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
import select
import shutil
import subprocess
import time
from collections.abc import Iterator
from typing import Any

import pytest

from sanitizers import foreign_environment

_SECONDS = 60.0


class Browser:
    """A page of a browser that runs, and what its console has said."""

    def __init__(self, commands: int, events: int) -> None:
        self._commands = commands
        self._events = events
        self._data = b""
        self._number = 0
        self._session: str | None = None
        self.problems: list[str] = []
        target = self._ask("Target.createTarget", url="about:blank")["targetId"]
        self._session = self._ask("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self._ask(f"{domain}.enable")

    def open(self, url: str) -> None:
        assert "errorText" not in self._ask("Page.navigate", url=url)
        self.until("document.readyState === 'complete' && location.href !== 'about:blank'")

    def value(self, expression: str) -> Any:
        """The value of JavaScript in the page."""
        answer = self._ask("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def until(self, expression: str) -> None:
        """Waits until the expression counts as true."""
        deadline = time.monotonic() + _SECONDS
        while not self.value(f"Boolean({expression})"):
            assert time.monotonic() < deadline, f"not {expression}; {self.problems}"
            time.sleep(0.05)

    def _ask(self, method: str, **parameters: Any) -> Any:
        self._number += 1
        number = self._number
        message: dict[str, Any] = {"id": number, "method": method, "params": parameters}
        if self._session is not None:
            message["sessionId"] = self._session
        os.write(self._commands, json.dumps(message).encode() + b"\0")
        deadline = time.monotonic() + _SECONDS
        while True:
            answer = self._next(deadline)
            if answer.get("id") == number:
                assert "result" in answer, answer
                return answer["result"]
            self._note(answer)

    def _next(self, deadline: float) -> Any:
        while b"\0" not in self._data:
            ready, _, _ = select.select([self._events], [], [], max(0.0, deadline - time.monotonic()))
            assert ready, "the browser does not answer"
            part = os.read(self._events, 1 << 16)
            assert part, "the browser has ended"
            self._data += part
        message, _, self._data = self._data.partition(b"\0")
        return json.loads(message)

    def _note(self, event: Any) -> None:
        """Errors and warnings, of scripts, of the network, and of what the page's policy forbids."""
        given = event.get("params", {})
        match event.get("method"):
            case "Runtime.exceptionThrown":
                self.problems.append(str(given["exceptionDetails"]))
            case "Runtime.consoleAPICalled" if given["type"] in ("error", "warning", "assert"):
                self.problems.append(str(given["args"]))
            case "Log.entryAdded" if given["entry"]["level"] in ("error", "warning"):
                self.problems.append(f"{given['entry']['text']} {given['entry'].get('url', '')}")
            case "Network.loadingFailed" if not given.get("canceled"):
                self.problems.append(f"{given['errorText']} {given.get('blockedReason', '')}")


@contextlib.contextmanager
def browsing(folder: pathlib.Path) -> Iterator[Browser]:
    """A browser with a profile of its own in ``folder``. Skips the test where there is none, but not in CI."""
    program = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if program is None:
        assert not os.environ.get("CI"), "chromium is not installed: scripts/setup.sh does that where CI is set"
        pytest.skip("chromium is not installed")
    commands_in, commands = os.pipe()
    events, events_out = os.pipe()

    def wire() -> None:
        # The browser reads descriptor 3 and writes 4.
        high = [os.dup(commands_in), os.dup(events_out)]
        high = [os.dup2(fd, 100 + number) for number, fd in enumerate(high)]
        os.dup2(high[0], 3)
        os.dup2(high[1], 4)

    options = [
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-dev-shm-usage",
        "--disable-background-networking",
        "--disable-component-update",
        "--no-first-run",
        "--no-proxy-server",
        f"--user-data-dir={folder / 'profile'}",
        "--remote-debugging-pipe",
    ]
    with (folder / "browser.txt").open("wb") as errors:
        process = subprocess.Popen(
            [program, *options],
            cwd=folder,
            env=foreign_environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=errors,
            close_fds=False,
            preexec_fn=wire,
            start_new_session=True,
        )
    os.close(commands_in)
    os.close(events_out)
    try:
        yield Browser(commands, events)
    finally:
        os.close(commands)  # its end ends the browser
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, 9)
            process.wait()
        os.close(events)
