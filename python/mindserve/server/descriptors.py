"""File descriptors, as many as a server's connections may need; and what is said where they, or addresses, lack."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import resource
from collections.abc import Iterator

from mindserve import logs
from mindserve.errors import StartError

_log = logs.get_logger("server")

# What a server has open besides: libraries, logs, a few for each worker and listener.
_OTHERS = 512
_REASONS = "|".join(re.escape(os.strerror(number)) for number in (errno.EFBIG, errno.ENOMEM, errno.ENOSPC))
_NO_SHARED_MEMORY = re.compile(rf"shared memory[^:\n]*: \w+: ({_REASONS})")
_SIZES = (
    ("RLIMIT_AS", resource.RLIMIT_AS, "ulimit -v, LimitAS="),
    ("RLIMIT_FSIZE", resource.RLIMIT_FSIZE, "ulimit -f, LimitFSIZE="),
)
_NO_LIMIT = "Neither RLIMIT_AS nor RLIMIT_FSIZE bounds them here: see the system's vm.overcommit_memory"


def make_room(max_connections: int) -> None:
    """Raises the soft limit of file descriptors to what so many connections need, as far as the hard one goes.

    Workers that are started afterwards inherit it. Where the hard limit is too low the log says so: connections beyond
    it wait to be accepted, instead of being closed by ``max_connections``.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = max_connections + _OTHERS
    if soft != resource.RLIM_INFINITY and soft < needed:
        most = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
    if hard != resource.RLIM_INFINITY and hard < needed:
        _log.warning(
            "max_connections %d may need %d file descriptors, but RLIMIT_NOFILE allows %d: raise it (ulimit -n, "
            "LimitNOFILE=), or lower max_connections. Connections beyond it wait",
            max_connections,
            needed,
            hard,
        )


@contextlib.contextmanager
def advise_of_lack() -> Iterator[None]:
    """Says what to do where a start fails for want of file descriptors or shared memory, in whatever part of it.

    Raises:
        StartError: there were not enough; its text has the limit.
    """
    try:
        yield
    except Exception as error:
        text = str(error)
        # The native module's errors have no number.
        if "RLIMIT_" in text or not (advice := _advice(text)):
            raise
        raise StartError(f"{text}\n{advice}" if "\n" in text else f"{text}. {advice}") from error


def _advice(text: str) -> str:
    """What to do about an error of this text; empty for others."""
    if os.strerror(errno.EMFILE) in text:
        limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        return f"RLIMIT_NOFILE is {limit}: raise it (ulimit -n, LimitNOFILE=)"
    if not _NO_SHARED_MEMORY.search(text):
        return ""
    limits = [
        f"{name} is {limit} bytes: raise it ({how})"
        for name, number, how in _SIZES
        if (limit := resource.getrlimit(number)[0]) != resource.RLIM_INFINITY
    ]
    return (
        "What is reserved there are addresses, for each of the server's I/O threads as many as the machine has bytes "
        f"of memory, at least 4 GiB; requests use what they need of them. {'; '.join(limits) or _NO_LIMIT}"
    )
