"""Runs an example's server and client scripts the way a user does: as processes, with an address of their own."""

import contextlib
import importlib.util
import pathlib
import signal
import subprocess
import sys
import types
from collections.abc import Iterator

EXAMPLE = pathlib.Path(__file__).resolve().parent.parent / "example"


@contextlib.contextmanager
def serving(example: str, directory: pathlib.Path, *options: object, address: str = "127.0.0.1:0") -> Iterator[str]:
    """The example's server, ready; gives the address it took. Its logs go to `directory`."""
    with running(example, directory, *options, address=address) as (_, at):
        yield at


@contextlib.contextmanager
def running(
    example: str, directory: pathlib.Path, *options: object, address: str = "127.0.0.1:0"
) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """The same with the process itself, whose standard output has what it prints from then on."""
    script = EXAMPLE / example / "serving_server.py"
    with (directory / "server_errors.txt").open("wb") as errors:
        process = subprocess.Popen(
            [sys.executable, script, "--address", address, *map(str, options)],
            cwd=directory,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
        )
    try:
        said = next((line for line in process.stdout if " is served at " in line), None)
        assert said is not None, f"the server of {example} ended before it was ready:\n{errors_of(directory)}"
        yield process, said.split(" is served at ")[1].strip()
        assert process.poll() is None, f"the server of {example} has ended:\n{errors_of(directory)}"
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 0, errors_of(directory)
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def errors_of(directory: pathlib.Path) -> str:
    return (directory / "server_errors.txt").read_text(errors="replace")


def logs_of(directory: pathlib.Path) -> str:
    """What the server and its workers have logged so far."""
    logs = sorted((directory / "serving_logs").glob("*.log"))
    return "\n".join([errors_of(directory), *(log.read_text(errors="replace") for log in logs)])


def ask(example: str, *options: object, script: str = "serving_client.py") -> str:
    """What the example's client prints."""
    done = subprocess.run(
        [sys.executable, EXAMPLE / example / script, *map(str, options)],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def load_script(path: pathlib.Path) -> types.ModuleType:
    """A script of an example as a module under a name of its own, since several share theirs."""
    spec = importlib.util.spec_from_file_location(f"example_{path.parent.name}_{path.stem}", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
