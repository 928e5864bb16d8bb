"""File descriptors: as many as a server's connections may need, and what is said where they are too few."""

from __future__ import annotations

import contextlib
import errno
import os
import resource
from collections.abc import Iterator

from mindserve import logs
from mindserve.errors import StartError

_log = logs.get_logger("server")

# What a server has open besides: libraries, logs, a few for each worker and listener.
_OTHERS = 512


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
    """Says what to do where a start fails for want of file descriptors, in whatever part of it.

    Raises:
        StartError: there were not enough; its text has the limit.
    """
    try:
        yield
    except Exception as error:
        text = str(error)
        # The native module's errors have no number.
        if os.strerror(errno.EMFILE) not in text or "ulimit -n" in text:
            raise
        limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        raise StartError(f"{text}. RLIMIT_NOFILE is {limit}: raise it (ulimit -n, LimitNOFILE=)") from error
