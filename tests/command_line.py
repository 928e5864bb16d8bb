"""``mindserve`` as processes, for tests: commands that end, and servers in the foreground."""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
import signal
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

from conftest import PACKAGE, children, wait_gone

COMMAND = (sys.executable, "-m", "mindserve")


class Shell:
    """Where commands are run: a current directory, and no servers but those that it started itself."""

    def __init__(self, directory: pathlib.Path) -> None:
        self.directory = directory
        # Where servers have their admin sockets; other servers of this user may run at the same time.
        runtime, temporary = directory / "runtime", directory / "temporary"
        for each in (runtime, temporary):
            each.mkdir(mode=0o700, parents=True)
        path = os.pathsep.join(filter(None, [str(PACKAGE), os.environ.get("PYTHONPATH", "")]))
        self.environment = {**os.environ, "PYTHONPATH": path, "COLUMNS": "200"}
        self.environment |= {"XDG_RUNTIME_DIR": str(runtime), "TMPDIR": str(temporary)}

    def run(self, *arguments: object, input: str | None = None) -> subprocess.CompletedProcess[str]:
        """Runs a command to its end; without ``input``, its standard input is empty."""
        return subprocess.run(
            [*COMMAND, *map(str, arguments)],
            cwd=self.directory,
            env=self.environment,
            input=input or "",
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

    def json(self, *arguments: object) -> Any:
        """What a command that does well prints, as JSON."""
        done = self.run(*arguments, "--json")
        assert done.returncode == 0, done.stdout + done.stderr
        return json.loads(done.stdout)

    @contextlib.contextmanager
    def serving(self, *arguments: object) -> Iterator[Foreground]:
        """A command that stays in the foreground, once it has begun to listen."""
        errors = self.directory / "stderr.txt"
        with errors.open("wb") as stream:
            process = subprocess.Popen(
                [*COMMAND, *map(str, arguments)],
                cwd=self.directory,
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=stream,
                text=True,
            )
        server = Foreground(process, errors)
        try:
            yield server
        finally:
            server.close()


class Foreground:
    """A server in the foreground."""

    def __init__(self, process: subprocess.Popen[str], errors: pathlib.Path) -> None:
        self.process = process
        self._errors = errors

    @property
    def pid(self) -> int:
        return self.process.pid

    def line(self) -> str:
        """The next line that it prints; fails with its errors if it ends instead."""
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, f"it has ended: {self.errors()}"
        return line.rstrip("\n")

    def address(self) -> str:
        """Where it listens, of the next line that it prints."""
        return self.line().removeprefix("Listening on ").removesuffix(" (TLS)")

    def errors(self) -> str:
        return self._errors.read_text(encoding="utf-8", errors="replace")

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Ends it by a signal. Returns its status, once its workers are gone too."""
        workers = children(self.pid)
        self.process.send_signal(number)
        status = self.process.wait(60)
        wait_gone(workers)
        return status

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        assert self.process.stdout is not None
        self.process.stdout.close()
