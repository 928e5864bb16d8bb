"""Reads files that others put there: never waits for a writer, and never takes more than a bound."""

from __future__ import annotations

import errno
import os
import stat

# Of a file in PEM form: certificates with those of their authorities, or a key.
MAX_PEM_BYTES = 1 << 20
# Of a file with revocation lists.
MAX_CRL_BYTES = 16 << 20

_KINDS = {
    stat.S_IFDIR: "directory",
    stat.S_IFIFO: "FIFO",
    stat.S_IFSOCK: "socket",
    stat.S_IFCHR: "character device",
    stat.S_IFBLK: "block device",
}


def read_file(path: str, max_bytes: int) -> tuple[bytes, os.stat_result]:
    """A regular file's content and its state; links are followed.

    Args:
        path: of the file.
        max_bytes: more are an error.

    Raises:
        OSError: it can't be read, is no regular file, or is too large. Its ``strerror`` says so, without the path.
        ValueError: there is a NUL in the path.
    """
    # Before it is opened too: to open a device may do something, and a socket can't be opened.
    _check_regular(os.stat(path).st_mode)
    # Should a FIFO have come meanwhile, this doesn't wait for who writes to it.
    fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY)
    try:
        state = os.fstat(fd)
        _check_regular(state.st_mode)
        _check_size(state.st_size, max_bytes)
        with open(fd, "rb", closefd=False) as file:
            data = file.read(state.st_size + 1)
            if len(data) > state.st_size:  # it has grown, or is one of the kernel's, which have no size
                data += file.read(max_bytes + 1 - len(data))
    finally:
        os.close(fd)
    _check_size(len(data), max_bytes)
    return data, state


def _check_regular(mode: int) -> None:
    if stat.S_ISREG(mode):
        return
    kind = _KINDS.get(stat.S_IFMT(mode), "special file")
    code = errno.EISDIR if stat.S_ISDIR(mode) else errno.EINVAL
    raise OSError(code, f"Is a {kind}, expected a regular file")


def _check_size(size: int, max_bytes: int) -> None:
    if size > max_bytes:
        raise OSError(errno.EFBIG, f"File too large, at most {max_bytes} bytes are expected")
