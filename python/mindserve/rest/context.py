"""What the routes of a REST server work with."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import ParamSpec, TypeVar

from mindserve.auth.authority import Authority
from mindserve.control import ReadyService, TensorType
from mindserve.rest.calls import Calls
from mindserve.rest.http import HttpError
from mindserve.rest.pool import Pool
from mindserve.traffic import Split

P = ParamSpec("P")
T = TypeVar("T")


@dataclasses.dataclass(frozen=True)
class ServedService:
    """A users' gRPC service, and its proto files: serialized FileDescriptorProtos, each after those that it imports."""

    service: ReadyService
    files: tuple[bytes, ...]


@dataclasses.dataclass(frozen=True)
class ServedMethod:
    """A method of a servable, and the names of its inputs and outputs, with the types of those that are known.

    ``streaming``: it gives its results one by one.
    """

    name: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    input_types: tuple[TensorType | None, ...] = ()
    output_types: tuple[TensorType | None, ...] = ()
    streaming: bool = False


@dataclasses.dataclass(frozen=True)
class ServedClassifier:
    """What a version takes as the Classifier's data.

    Attributes:
        messages: full names of their types, besides ``mindspore.serving.proto.Instance``, which each takes.
        files: theirs, and those of what answers may carry: serialized FileDescriptorProtos, each after those that it
            imports.
    """

    messages: tuple[str, ...]
    files: tuple[bytes, ...]


@dataclasses.dataclass(frozen=True)
class ServedVersion:
    """A version of a servable.

    Attributes:
        servable: its name.
        version: its number.
        ready: whether a worker takes requests.
        workers: how many do.
        methods: those of Predict.
        services: the gRPC services that it answers.
        classifier: how it answers the Classifier; None: it does not.
    """

    servable: str
    version: int
    ready: bool
    workers: int
    methods: tuple[ServedMethod, ...]
    services: tuple[str, ...]
    classifier: ServedClassifier | None = None


@dataclasses.dataclass(frozen=True)
class Backend:
    """What a REST server asks the rest of the server. All may be called from any thread, and don't wait.

    Attributes:
        ready: whether the server takes requests: it has begun, does not stop, and has a servable that is ready.
        services: of the users; the same object as long as nothing changes.
        versions: of all servables, by name and version.
        authority: who may call; None: everybody.
        splits: names whose calls are split between servables or versions.
        streams: whether a method gives its results one by one, by the servable's name, the method's, and the version, 0
            for the newest; of a name that is split, whether any does that may be asked.
    """

    ready: Callable[[], bool]
    services: Callable[[], Sequence[ServedService]]
    versions: Callable[[], Sequence[ServedVersion]]
    authority: Authority | None = None
    splits: Callable[[], Mapping[str, Split]] = dict
    streams: Callable[[str, str, int], bool] = lambda servable, method, version: False


class Memory:
    """Counts the bytes of bodies and answers that are held at a time, over all connections. Only for the event loop.

    Answers, which clients may take as slowly as they may, leave a quarter to bodies.

    Args:
        limit: how many there may be.

    Attributes:
        refused: how often there would have been too many. Any thread may look.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._most_answers = limit - limit // 4
        self._bodies = 0
        self._answers = 0
        self.refused = 0

    def take(self, size: int) -> None:
        """Counts more of a body.

        Raises:
            HttpError: there would be too many.
        """
        # An answer that is alone may be larger.
        if self._bodies + min(self._answers, self._most_answers) + size > self._limit:
            raise self._full("")
        self._bodies += size

    def give(self, size: int) -> None:
        self._bodies -= size

    def take_answer(self, size: int) -> None:
        """Counts an answer. One for which nothing else has to be held may have any size.

        Raises:
            HttpError: there would be too many.
        """
        held = self._bodies + self._answers
        if held and (held + size > self._limit or self._answers + size > self._most_answers):
            raise self._full(f"there is no room for the answer, of {size} bytes: ")
        self._answers += size

    def give_answer(self, size: int) -> None:
        self._answers -= size

    def _full(self, what: str) -> HttpError:
        self.refused += 1
        text = (
            f"{what}bodies that are being received, and answers that are not taken yet, come to more than "
            f"max_enqueued_bytes {self._limit} allows: try again later"
        )
        return HttpError(429, text, "RESOURCE_EXHAUSTED", [(b"retry-after", b"1")])


@dataclasses.dataclass(frozen=True)
class Context:
    """What the routes work with.

    Attributes:
        calls: into the gateway.
        backend: the rest of the server.
        max_body: bytes of a body.
        max_messages: lines of a body that is a client's stream.
        memory: counts those of all bodies and answers.
        pool: threads for what takes long.
        authority: who may call; None: everybody.
    """

    calls: Calls
    backend: Backend
    max_body: int
    max_messages: int
    memory: Memory
    pool: Pool
    authority: Authority | None = None

    async def run(self, long: bool, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Calls the function, in another thread if that takes ``long``."""
        if not long:
            return function(*args, **kwargs)
        return await self.pool.call(lambda: function(*args, **kwargs))
