"""The request that is being handled, for whatever runs in its name."""

from __future__ import annotations

import contextvars
from typing import Protocol


class Request(Protocol):
    """What is known of a request wherever its handler's code runs."""

    @property
    def request_id(self) -> str: ...
    @property
    def model_id(self) -> str: ...
    @property
    def deadline(self) -> float | None:
        """On `time.monotonic`; None: there is none."""

    @property
    def client(self) -> int:
        """The number of the connection that it came by."""

    @property
    def depth(self) -> int:
        """Of how many calls within calls of servables it is the innermost; 0: a client's."""

    @property
    def parent(self) -> str:
        """What the gateway calls it; "" where several requests are handled together."""

    @property
    def cancelled(self) -> bool:
        """Nobody waits for it any more."""


# Set before the code of a handler or a stage function runs, on its thread or in its task; threads that it starts itself
# have none.
current: contextvars.ContextVar[Request | None] = contextvars.ContextVar("mindserve_request", default=None)


def get_request_id() -> str:
    """The id of the request that is being handled: the client's ``request_id`` metadata, or one that was made.

    Works in a handler, in a stage function without ``batch_size``, in what they call, and in the tasks that they make.

    Returns:
        The id; "" where no request is handled, or it has none.
    """
    request = current.get()
    return request.request_id if request is not None else ""


def get_multiplexed_model_id() -> str:
    """The ``multiplexed_model_id`` metadata of the request that is being handled.

    Works in a handler, in what it calls, and in the tasks that it makes.

    Returns:
        The id; "" if the client gave none, and where no request is handled.
    """
    request = current.get()
    return request.model_id if request is not None else ""
