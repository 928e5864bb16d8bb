"""Settings of the server."""

from __future__ import annotations

from mindserve import checks
from mindserve.server import start


def set_max_enqueued_requests(max_enqueued_requests: int) -> None:
    """Sets how many requests may wait for their answers, over all servables; more are refused at once.

    Holds at once for a server that runs, and for those started later, unless they are given `Limits` of their own.

    Args:
        max_enqueued_requests: ≥ 1. Without this call: 10,000.

    Raises:
        ConfigError: no int, or less than 1.
    """
    checks.check_int("max_enqueued_requests", max_enqueued_requests, 1, 2**31 - 1)
    start.set_max_enqueued_requests(max_enqueued_requests)
