"""The worker process from its first line to its end."""

from __future__ import annotations

import argparse
import atexit
import contextlib
import ctypes
import faulthandler
import io
import logging
import os
import signal
import socket
import sys
import threading
import time
import traceback
import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING, TextIO

from mindserve import control, logs
from mindserve.errors import MindserveError
from mindserve.register.request import current, get_request_id
from mindserve.register.servables import set_server

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

    from mindserve._native import Runtime
    from mindserve.worker.serving import Answering

_PR_SET_PDEATHSIG = 1
_PARAMETERS_TIMEOUT = 60.0
_END_TIMEOUT = 2.0
_WATCH_MASTER = "watch-master"

_PACKAGE = os.path.join(os.path.dirname(logs.__file__), "")

_log = logs.get_logger("worker")


def main(arguments: Sequence[str]) -> int:
    """Serves until it is told to end or the master is gone. Returns the exit status: 0 only for the latter."""
    parser = argparse.ArgumentParser(prog="python -m mindserve.worker", description="A worker; started by a master.")
    parser.add_argument("--parent", type=int, required=True, help="process id of the master")
    parser.add_argument("--control-fd", type=int, required=True, help="socket for parameters and progress")
    parser.add_argument("--link-fd", type=int, required=True, help="socket for the link's handshake")
    options = parser.parse_args(arguments)

    die_with_parent(options.parent)
    # SIGINT and SIGTERM end the process at once, whatever it is doing: its master hears of it by the exit status.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, (signal.SIGINT, signal.SIGTERM))
    for fd in (options.control_fd, options.link_fd):
        os.set_inheritable(fd, False)
    # Before anything can load ONNX Runtime, also a stage function on its own account.
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"
    _prepare_streams()

    channel = socket.socket(fileno=options.control_fd)
    try:
        parameters = _read_parameters(channel)
        _serve(channel, parameters, options.link_fd)
    except Exception as error:
        ours = type(error).__module__.partition(".")[0] == "mindserve"  # the native module's too
        text = str(error) if ours and str(error) else f"{type(error).__name__}: {error}"
        _log.error("%s%s", text, explain(error))
        _log.debug("%s", traceback.format_exc())
        _send(channel, control.Failed(text, traceback.format_exc()))
        _end_before_threads(1)
        return 1
    _end_before_threads(0)
    return 0


def explain(error: BaseException) -> str:
    """Where ``error`` comes from, as lines to follow its text; empty if it is this package that found the fault.

    What this package raises for an error of the servable's code is explained by that one's way through that code.
    """
    if not isinstance(error, MindserveError):
        return "\n" + "".join(traceback.format_exception(error)).rstrip()
    if error.__cause__ is None:
        return ""
    trace = traceback.TracebackException.from_exception(error.__cause__)
    trace.stack = traceback.StackSummary.from_list([frame for frame in trace.stack if not _is_ours(frame.filename)])
    if not trace.stack:
        return ""
    return "\n" + "".join(trace.format()).rstrip()


def _is_ours(file: str) -> bool:
    return file.startswith((_PACKAGE, "<frozen importlib"))


def die_with_parent(parent: int) -> None:
    """Asks the kernel to kill this process when the thread that started it ends, which is when its master ends."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG) failed")
    # It may have ended before that.
    if os.getppid() != parent:
        os._exit(0)


class _LossyFile(io.FileIO):
    """Takes what can't be written as well: a disk that is full for logs costs lines, not who writes them."""

    def write(self, data: ReadableBuffer, /) -> int:
        try:
            return super().write(data)
        except OSError:
            return memoryview(data).nbytes


def _log_stream(stream: TextIO) -> TextIO:
    """Text for the descriptor of ``stream``, by lines."""
    if not isinstance(stream, io.TextIOWrapper):
        return stream  # None: the descriptor is closed
    file = _LossyFile(stream.fileno(), "w", closefd=False)
    return io.TextIOWrapper(
        io.BufferedWriter(file), encoding=stream.encoding, errors="backslashreplace", line_buffering=True
    )


def _prepare_streams() -> None:
    sys.stdout = _log_stream(sys.stdout)
    sys.stderr = _log_stream(sys.stderr)
    # For a stage that goes beyond its timeout, and a start that does.
    faulthandler.register(control.STACKS_SIGNAL, file=sys.stderr or 2, all_threads=True, chain=False)
    logs.configure_worker(get_request_id)
    logging.captureWarnings(True)
    warnings.filterwarnings("default", category=DeprecationWarning, module="servable_config")


def _read_parameters(channel: socket.socket) -> control.WorkerParameters:
    channel.settimeout(_PARAMETERS_TIMEOUT)
    buffer = control.LineBuffer()
    while True:
        data = channel.recv(65536)
        if not data:
            os._exit(0)
        lines = buffer.feed(data)
        if lines:
            channel.settimeout(None)
            return control.WorkerParameters.decode(lines[0])


def _serve(channel: socket.socket, parameters: control.WorkerParameters, link_fd: int) -> None:
    from mindserve import native
    from mindserve.worker.build import build_runtime

    core = native.load()
    core.set_log_level(logs.level_from_environment())
    core.set_log_sink(logs.native_sink)
    runtime = core.Runtime(
        parameters.servable_name,
        refuse_late=parameters.refuse_late,
        hung_signal=control.STACKS_SIGNAL,
        hung_status=control.STAGE_TIMEOUT_STATUS,
    )
    _log.info(
        "serving %s version %d on device %d, process %d",
        parameters.servable_name, parameters.version, parameters.device_id, os.getpid(),
    )  # fmt: skip
    built = build_runtime(runtime, parameters, lambda text: _send(channel, control.Phase(text)))
    threads = [
        threading.Thread(target=_run_function, args=(runtime, number), name=f"stage-{name}", daemon=True)
        for number, name in built.functions
    ]
    answering = None
    if built.handlers:
        from mindserve.worker.serving import Answering

        answering = Answering(runtime, built.handlers, parameters, native=core, on_death=_end_for_lost_thread)
        threads += answering.threads
    set_server(parameters.internal_address, runtime.begin_call, runtime.end_call)
    for thread in threads:
        thread.start()
    if answering is not None:
        answering.start_loop()
    threading.Thread(target=_watch_master, args=(channel,), name=_WATCH_MASTER, daemon=True).start()
    _send(channel, control.Ready(built.methods, built.services))
    try:
        runtime.serve(link_fd, parameters.handshake_timeout)
    except core.NativeError as error:
        # UNAVAILABLE: the gateway is gone, or needs this worker no more; and with it goes the reason to be.
        if error.code != "UNAVAILABLE":
            raise
        _log.info("the master has closed the link, which ends this worker")
    finally:
        runtime.stop()
        _end_threads(threads, answering)


def _end_threads(threads: Sequence[threading.Thread], answering: Answering | None) -> None:
    """Waits a moment for users' code; what goes on must not meet an interpreter that is being torn down."""
    end = time.monotonic() + _END_TIMEOUT
    ended = answering is None or answering.stop_loop(_END_TIMEOUT)
    for thread in threads:
        thread.join(max(0.0, end - time.monotonic()))
    extra = [] if answering is None else answering.extra_threads()
    for thread in extra:
        thread.join(max(0.0, end - time.monotonic()))
    if not ended or any(thread.is_alive() for thread in (*threads, *extra)):
        _log.warning("a stage function or a handler is still running, the process ends without it")
        logging.shutdown()
        os._exit(1)


def _end_before_threads(status: int) -> None:
    """Ends the process here if threads that the servable has started still run.

    One that comes back from the native core, as from `Model.call`, while the interpreter is being torn down would crash
    the process. Those that are no daemons have a moment to end by themselves.
    """
    ours = (threading.main_thread().name, _WATCH_MASTER)
    end = time.monotonic() + _END_TIMEOUT
    others = [thread for thread in threading.enumerate() if thread.name not in ours]
    for thread in others:
        if not thread.daemon:
            thread.join(max(0.0, end - time.monotonic()))
    if not any(thread.is_alive() for thread in others):
        return
    atexit._run_exitfuncs()
    logging.shutdown()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    os._exit(status)


def _run_function(runtime: Runtime, number: int) -> None:
    try:
        runtime.run_function(number, current)
    except BaseException as error:
        # Without this thread the stage's instances would wait for ever.
        _end_for_lost_thread("a stage function's thread", error)


def _end_for_lost_thread(name: str, error: BaseException) -> None:
    """Ends the process: a fresh worker is better than one that lacks a thread."""
    _log.critical("%s has ended:\n%s", name, "".join(traceback.format_exception(error)))
    logging.shutdown()
    os._exit(70)


def _watch_master(channel: socket.socket) -> None:
    """Ends the process when the control socket ends, should the parent-death signal not have come."""
    try:
        while channel.recv(4096):
            pass
    except OSError:
        pass
    os._exit(0)


def _send(channel: socket.socket, event: control.Event) -> None:
    try:
        channel.sendall(control.encode_event(event))
    except OSError as error:
        _log.warning("the master does not listen: %s", error)
