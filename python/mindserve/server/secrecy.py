"""What a process that holds keys keeps from those who may look into processes."""

from __future__ import annotations

import ctypes
import os

_PR_SET_DUMPABLE = 4


def keep_memory_private() -> None:
    """No core file of this process is written any more, and no process of the same user reads its memory.

    RLIMIT_CORE would not do: where cores go to a program, as systemd's, it doesn't count. Workers, which hold no keys,
    are not concerned: what is set here ends with `exec`.

    Raises:
        OSError: the system refuses.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_DUMPABLE) failed: " + os.strerror(ctypes.get_errno()))
