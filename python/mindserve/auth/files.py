"""Files that decide who comes in, which nobody else may write, nor read what is secret; written whole or not at all."""

from __future__ import annotations

import contextlib
import fcntl
import os
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

from mindserve.errors import ConfigError
from mindserve.files import read_file

# Of a group it may be readable, as Kubernetes mounts secrets.
_FORBIDDEN = stat.S_IRWXO | stat.S_IWGRP | stat.S_IXGRP


def read_public(path: str, what: str, max_bytes: int) -> bytes:
    """The content of a file that all may read, but neither a group nor others write. Whoever owns it may.

    Args:
        path: of the file.
        what: it is, for texts.
        max_bytes: more are an error.

    Raises:
        ConfigError: it can't be read, is no regular file, others may write it, or it is too large.
    """
    data, state = _read(path, what, max_bytes)
    if state.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise ConfigError(
            f"{what} '{path}' has permissions {stat.S_IMODE(state.st_mode):04o}, so that others may write it: expected "
            f"0644 (chmod go-w '{path}')"
        )
    return data


def read_private(path: str, what: str, max_bytes: int) -> bytes:
    """The content of a file that only its owner may write, and at most a group read.

    Args:
        path: of the file.
        what: it is, for texts: "the keys file".
        max_bytes: more are an error.

    Raises:
        ConfigError: it can't be read, is no regular file, others may write or read it, or it is too large.
    """
    data, state = _read(path, what, max_bytes)
    if state.st_mode & _FORBIDDEN:
        raise ConfigError(
            f"{what} '{path}' has permissions {stat.S_IMODE(state.st_mode):04o}, so that others may read or "
            f"write it: expected 0600 (chmod 600 '{path}')"
        )
    if state.st_uid not in (0, os.geteuid()):
        raise ConfigError(
            f"{what} '{path}' belongs to user {state.st_uid}, who may write it: expected user {os.geteuid()} or root"
        )
    return data


def _read(path: str, what: str, max_bytes: int) -> tuple[bytes, os.stat_result]:
    try:
        return read_file(path, max_bytes)
    except OSError as error:
        raise ConfigError(f"{what} '{path}' can't be read: {error.strerror}") from None
    except ValueError as error:  # a NUL in the path
        raise ConfigError(f"{what} {path!r} can't be read: {error}") from None


def write_private(path: str, data: bytes, what: str, *, replace: bool = True) -> bool:
    """Puts a file of mode 0600 there, whole or not at all.

    Args:
        path: of the file. Of a link, the file that it leads to.
        data: its content.
        what: it is, for texts.
        replace: also if there is one.

    Returns:
        False: there is one, and ``replace`` is False.

    Raises:
        ConfigError: it can't be written.
    """
    target = Path(os.path.realpath(path))
    try:
        fd, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
        try:
            with open(fd, "wb") as file:  # mkstemp's permissions are 0600
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            if replace:
                os.replace(name, target)
            else:
                os.link(name, target)
        except FileExistsError:
            return False
        finally:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(name)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise ConfigError(f"{what} '{path}' can't be written: {reason}") from None
    return True


@contextlib.contextmanager
def locked(path: str, what: str) -> Iterator[None]:
    """Keeps others that do the same from changing the file meanwhile.

    Raises:
        ConfigError: its directory can't be written.
    """
    lock = os.path.realpath(path) + ".lock"
    try:
        fd = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise ConfigError(f"{what} '{path}' can't be changed, its lock '{lock}' can't be made: {reason}") from None
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)
