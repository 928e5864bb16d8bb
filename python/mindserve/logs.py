"""Where log lines go: the master's to stderr, each worker's to a file of its own.

Lines carry ``[DEBUG]``, ``[INFO]``, ``[WARNING]``, ``[ERROR]`` or ``[CRITICAL]``. The environment gives the level:
``GLOG_v``, 0 debug to 4 critical, which ``MS_SUBMODULE_LOG_v={SERVING:n}`` overrides; without them 1, info.

A line that is written while a request is handled carries its id after the logger's name::

    [INFO] 2024-05-01 12:00:00.000 my_module [5f0c…]: text
"""

from __future__ import annotations

import errno
import logging
import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

from mindserve.limited_log import LimitedLines

LOG_DIRECTORY = "serving_logs"
_NO_LOG_DIRECTORY = "its log can't be written: logs go to a directory of this name, and there is something else"
_ROOT = "mindserve"
_INFO = 1
# By GLOG's numbers, which are the native core's too.
_LEVELS = (logging.DEBUG, logging.INFO, logging.WARNING, logging.ERROR, logging.CRITICAL)
_FORMAT = "[%(levelname)s] %(asctime)s.%(msecs)03d %(name)s%(of_request)s: %(message)s"
_TIME_FORMAT = "%Y-%m-%d %H:%M:%S"


def get_logger(name: str) -> logging.Logger:
    """The logger ``mindserve.<name>``."""
    return logging.getLogger(f"{_ROOT}.{name}")


def level_from_environment(environment: Mapping[str, str] = os.environ) -> int:
    """The level that the environment asks for, in GLOG's numbers. What is no number from 0 to 4 is passed over."""
    submodules = environment.get("MS_SUBMODULE_LOG_v", "").strip().lstrip("{").rstrip("}")
    for entry in submodules.split(","):
        name, _, level = entry.partition(":")
        if name.strip().upper() == "SERVING" and (number := _parse_level(level)) is not None:
            return number
    number = _parse_level(environment.get("GLOG_v", ""))
    return _INFO if number is None else number


def configure_worker(get_request_id: Callable[[], str]) -> int:
    """Sends log lines to stderr, which is the worker's log file.

    Args:
        get_request_id: the id that a line is to carry which is written now, in this thread; empty: none. It must not
            raise.

    Returns:
        The level, for the native core.
    """
    level = level_from_environment()
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Formatter(get_request_id))
    # Of which calls cause most.
    handler.addFilter(LimitedLines(f"{_ROOT}.worker"))
    # The root logger, so that what a servable's own modules log is found in the same file.
    logging.basicConfig(level=_LEVELS[level], handlers=[handler], force=True)
    logging.getLogger(_ROOT).setLevel(_LEVELS[level])
    return level


def configure_master() -> int:
    """Sends the master's log lines to stderr, unless the program has set up logging. Returns the level."""
    level = level_from_environment()
    logger = logging.getLogger(_ROOT)
    if not logger.hasHandlers():
        handler = _Stderr()
        handler.setFormatter(_Formatter(lambda: ""))
        logger.addHandler(handler)
        logger.propagate = False
    if logger.level == logging.NOTSET:
        logger.setLevel(_LEVELS[level])
    return level


def native_sink(level: int, text: str) -> None:
    """Takes the native core's log lines; see ``_native.set_log_sink``."""
    logging.getLogger(f"{_ROOT}.native").log(_LEVELS[max(0, min(level, len(_LEVELS) - 1))], "%s", text)


def worker_log_path(directory: Path, servable_name: str, device_id: int, version: int) -> Path:
    """The log file of a worker of a server that was started in ``directory``."""
    return directory / LOG_DIRECTORY / f"log_{servable_name}_device{device_id}_version{version}.log"


def open_worker_log(path: Path, *, append: bool) -> int:
    """Opens a worker's log file for it to write to, only for its owner to read. Returns a descriptor.

    Raises:
        OSError: it can't be written there; the text says so.
    """
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | (0 if append else os.O_TRUNC)
    try:
        path.parent.mkdir(mode=0o700, exist_ok=True)
        # A FIFO that nobody reads is an error, instead of a wait without end.
        log = os.open(path, flags | os.O_NONBLOCK, 0o600)
    except FileExistsError as error:
        raise NotADirectoryError(errno.ENOTDIR, _NO_LOG_DIRECTORY, error.filename) from error
    except OSError as error:
        reason = "a FIFO that nobody reads" if error.errno == errno.ENXIO else error.strerror
        raise OSError(error.errno, f"its log can't be written: {reason}", error.filename) from error
    os.set_blocking(log, True)
    return log


def tail(path: Path, lines: int = 20, limit: int = 16 * 1024, *, begin: int = 0) -> str:
    """The last ``lines`` lines of a file, at most ``limit`` bytes, of what follows ``begin``; empty if unreadable."""
    try:
        with open(path, "rb") as file:
            file.seek(0, os.SEEK_END)
            size = file.tell()
            file.seek(max(begin, size - limit))
            text = file.read(limit).decode("utf-8", "replace")
    except OSError:
        return ""
    return "\n".join(text.splitlines()[-lines:])


class _Formatter(logging.Formatter):
    def __init__(self, get_request_id: Callable[[], str]) -> None:
        super().__init__(_FORMAT, _TIME_FORMAT)
        self._get_request_id = get_request_id

    def format(self, record: logging.LogRecord) -> str:
        request = self._get_request_id()
        record.of_request = f" [{request}]" if request else ""
        return super().format(record)


class _Stderr(logging.Handler):
    """Writes to what ``sys.stderr`` is at the time, so that a progress display or a test can take its place."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            sys.stderr.write(self.format(record) + "\n")
            sys.stderr.flush()
        except Exception:
            self.handleError(record)


def _parse_level(text: str) -> int | None:
    text = text.strip()
    return int(text) if text in ("0", "1", "2", "3", "4") else None
