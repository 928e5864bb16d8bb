"""What a call came to, with what the server has said of it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from mindserve.client.decoding import Result, Results

# Of names and values, as grpc and grpc.aio have them, each in classes of its own.
Pairs = Iterable[Any]


def named(metadata: Pairs | None) -> dict[str, str | bytes]:
    """Metadata as gRPC has it, by the names; None: there is none."""
    return {key: value for key, value in metadata or ()}  # noqa: C416  a mapping's own keys would come without values


class ResultList(list[Result]):
    """The results of a call: for each instance one, in their order.

    Attributes:
        metadata: what the server has sent along, by its names: ``request_id``, by which its logs know the request, and,
            of a name that is split, ``mindserve-variation``, who has answered. Values are text, and bytes where the
            name ends in ``-bin``; of several with one name it is the last.
    """

    def __init__(self, results: Iterable[Result] = (), metadata: Pairs | None = None) -> None:
        super().__init__(results)
        self.metadata = named(metadata)


class Failure(dict[str, Any]):
    """``{"error": text}``: the whole call failed.

    Attributes:
        metadata: as of `ResultList`; empty where no server has answered.
    """

    def __init__(self, error: Result, metadata: Pairs | None = None) -> None:
        super().__init__(error)
        self.metadata = named(metadata)


def with_metadata(results: Results, metadata: Pairs | None) -> ResultList | Failure:
    """The results of a call, as a reply has them, with its metadata; None: it has none."""
    return ResultList(results, metadata) if isinstance(results, list) else Failure(results, metadata)
