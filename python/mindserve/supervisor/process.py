"""One worker process, as its master sees it."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time

from mindserve import control, logs
from mindserve.supervisor.job import WorkerSpec

# Seconds after which the log tells that a worker still starts.
_FIRST_REMINDER = 10.0

_log = logs.get_logger("supervisor")


def module_command(module: str) -> list[str]:
    """A command line that runs a module as a program.

    What it imports does not depend on the directory where the server was started: -m by itself looks there first.
    """
    if sys.version_info >= (3, 11):
        return [sys.executable, "-P", "-m", module]
    run = "import runpy, sys; del sys.path[0]; runpy.run_module(sys.argv.pop(1), run_name='__main__', alter_sys=True)"
    return [sys.executable, "-c", run, module]


class WorkerProcess:
    """A running worker: its process and its two sockets.

    Owned by the supervisor's thread, which must also make it: the kernel ends a worker with the thread that started it.

    Attributes:
        spec: what it runs.
        number: its number on the gateway.
        control: non-blocking socket on which its events come.
        pidfd: readable once it has ended; None where the kernel has no such thing, so that `poll` must be asked.
        log_begin: where in its log file its own part begins.
        stacks_begin: where in its log file the stacks of its threads begin, if it was asked for them because it was not
            ready in time; None: it was not.
        methods: that it serves, once it has said that it is ready; None until then.
        phase: what it said last that it does; empty before that, and once it is ready.
        error: what it said of its failure; empty.
        begun: when it was started, by ``time.monotonic``.
        deadline: when it must be ready, likewise; None once it is.
        remind_at: when the log tells next that it still starts, likewise.
        ready_at: when it said that it is ready, by ``time.monotonic``; None until then, or if it has no link.
        attached: the gateway sends it requests.
        replies_before: what the gateway had answered by then.
        silent: nothing comes on ``control`` any more.
    """

    def __init__(self, spec: WorkerSpec, number: int, *, append_log: bool) -> None:
        self.spec = spec
        self.number = number
        self.methods: tuple[control.ReadyMethod, ...] | None = None
        self.phase = ""
        self.error = ""
        self.ready_at: float | None = None
        self.attached = False
        self.replies_before = 0
        self.silent = False
        self.begun = time.monotonic()
        self.deadline: float | None = self.begun + spec.start_timeout
        self.remind_at = self.begun + _FIRST_REMINDER
        self.stacks_begin: int | None = None
        self._lines = control.LineBuffer()
        with contextlib.ExitStack() as undo:
            self.control, its_control = _socket_pair(undo)
            self._link, its_link = _socket_pair(undo)
            log = logs.open_worker_log(spec.log_path, append=append_log)
            undo.callback(os.close, log)
            self.log_begin = os.fstat(log).st_size
            self._process = subprocess.Popen(
                [
                    *module_command("mindserve.worker"), "--parent", str(os.getpid()),
                    "--control-fd", str(its_control.fileno()), "--link-fd", str(its_link.fileno()),
                ],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                pass_fds=(its_control.fileno(), its_link.fileno()),
                # Ctrl-C at the terminal is the master's to hear: it lets requests finish first.
                start_new_session=True,
            )  # fmt: skip
            its_control.close()
            its_link.close()
            os.close(log)
            undo.pop_all()
        self.pidfd = _open_pidfd(self._process.pid)
        self.control.setblocking(False)
        # A socket takes this much at once, whatever the other side does.
        with contextlib.suppress(OSError):
            self.control.send(spec.parameters.encode())

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def starting(self) -> bool:
        """It has said neither that it is ready nor that it has failed, and still has time to."""
        return self.deadline is not None and self.methods is None and not self.error

    def poll(self) -> int | None:
        """The exit status, the signal negated if one ended it; None while it runs."""
        return self._process.poll()

    def read_events(self) -> list[control.Event]:
        """What it has said since the last call. At the end of the stream sets `silent`.

        Raises:
            ControlError: it spoke no sense.
        """
        events: list[control.Event] = []
        while not self.silent:
            try:
                data = self.control.recv(65536)
            except BlockingIOError:
                break
            except OSError:
                data = b""
            self.silent = not data
            events += [control.decode_event(line) for line in self._lines.feed(data)]
        return events

    def take_link(self) -> int | None:
        """The master's end of the link, which the caller owns from now on; None if it was taken before."""
        fd = self._link.detach()
        return fd if fd >= 0 else None

    def signal(self, number: signal.Signals) -> None:
        # Popen sends nothing to a process that has been waited for, whose number may be another's by now.
        with contextlib.suppress(ProcessLookupError):
            self._process.send_signal(number)

    def ask_for_stacks(self) -> None:
        """Has it log the stacks of its threads. One that can't yet ends."""
        with contextlib.suppress(OSError):
            self.stacks_begin = self.spec.log_path.stat().st_size
            self.signal(control.STACKS_SIGNAL)

    def remind(self, now: float) -> None:
        """Logs that it still starts; next time when twice as much time has passed."""
        passed = now - self.begun
        self.remind_at = self.begun + 2 * passed
        _log.warning(
            "%s, process %d, is still starting after %.0f s: %s; it has %g s, its start_timeout; its log: %s",
            self.spec, self.pid, passed, self.phase or "it has not said yet what it does", self.spec.start_timeout,
            self.spec.log_path,
        )  # fmt: skip

    def close(self) -> None:
        """Gives back the descriptors; the process must have ended."""
        self.control.close()
        self._link.close()
        if self.pidfd is not None:
            os.close(self.pidfd)
            self.pidfd = None


def _socket_pair(undo: contextlib.ExitStack) -> tuple[socket.socket, socket.socket]:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    undo.callback(ours.close)
    undo.callback(theirs.close)
    return ours, theirs


def _open_pidfd(pid: int) -> int | None:
    try:
        return os.pidfd_open(pid)
    except OSError:
        return None  # An old kernel, or a sandbox that forbids it.
