"""What a master and a worker tell each other over the control socket: lines of JSON.

The master's first line holds the worker's parameters. The worker's lines are events: what it is doing, then that it is
ready, or why it failed. The end of the stream tells either that the other is gone.
"""

from __future__ import annotations

import dataclasses
import json
import signal
from typing import Any

from mindserve.errors import MindserveError
from mindserve.proto import PREDICT_STREAM

MAX_LINE_BYTES = 1 << 20
# What an error's text is cut to, so that its line fits.
MAX_TEXT = 64 * 1024
_STREAMING = f"{PREDICT_STREAM}/"
# Has a worker write the stack of every Python thread to its log, also while one holds the interpreter's lock.
STACKS_SIGNAL = signal.SIGUSR2
# The exit status of a worker of which a stage went beyond its timeout.
STAGE_TIMEOUT_STATUS = 71


class ControlError(MindserveError):
    """The other process sent what is no line of this protocol."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class WorkerParameters:
    """What a worker is to serve, and how.

    Attributes:
        servable_directory: absolute path.
        servable_name: name of the servable.
        version: the version directory; also for a servable without models, which may have none.
        version_asked: what the user asked for; 0: the newest.
        device_id: number of the device.
        device_type: "CPU", "GPU", "Ascend" or None, the best that is there.
        intra_op_threads: threads for one operator where a model's context says nothing.
        max_batch_size: instances at a time where the model or the stage sets no size.
        max_queue_delay_us: microseconds that an instance waits for a fuller batch.
        handshake_timeout: seconds that the gateway may let a worker that is ready wait, which it does until all workers
            that are to take the place of others are ready.
        refuse_late: refuse calls that can't be done before their deadlines.
        handler_threads: threads for handlers of gRPC methods that are plain functions.
        send_tracebacks: put the end of a handler's stack trace into the details of the INTERNAL that answers for it.
        internal_address: "unix:/…", where the master's gateway answers its own workers; empty: nowhere.
    """

    servable_directory: str
    servable_name: str
    version: int
    version_asked: int
    device_id: int
    device_type: str | None
    intra_op_threads: int
    max_batch_size: int
    max_queue_delay_us: int
    handshake_timeout: float
    refuse_late: bool
    handler_threads: int
    send_tracebacks: bool
    internal_address: str

    def encode(self) -> bytes:
        return _encode(dataclasses.asdict(self))

    @classmethod
    def decode(cls, line: bytes) -> WorkerParameters:
        values = _decode(line)
        try:
            return cls(**values)
        except TypeError as error:
            raise ControlError(f"Worker parameters are not as expected: {error}") from error


@dataclasses.dataclass(frozen=True)
class Phase:
    """The worker has begun with ``text``: "importing", "loading model add.onnx", "warming up"."""

    text: str


@dataclasses.dataclass(frozen=True)
class TensorType:
    """What a model says of one of its inputs or outputs.

    Attributes:
        type: numpy's name of the elements' type; "str" for strings.
        shape: of one instance; -1: of any size.
    """

    type: str
    shape: tuple[int, ...]


@dataclasses.dataclass(frozen=True)
class ReadyMethod:
    """A method that the worker serves, and whether to execute a request of it again does no harm.

    A ``name`` that begins with "/" is the path of a gRPC method, "/pkg.Service/Method"; another is one of Predict's
    and has the names of its ``inputs`` and ``outputs``. One whose results come one by one, PredictStream's, has these
    too, and that path and its name for ``name``. Of those that are a model's own, ``input_types`` and
    ``output_types`` say what they are; of others, functions', nobody knows: they are None there, or the tuple is empty.

    Of the Classifier's method, ``messages`` are the full names of those that its data may be, and ``files`` their proto
    files, each after those that it imports: serialized FileDescriptorProtos in base64.
    """

    name: str
    idempotent: bool = True
    inputs: tuple[str, ...] = ()
    outputs: tuple[str, ...] = ()
    input_types: tuple[TensorType | None, ...] = ()
    output_types: tuple[TensorType | None, ...] = ()
    messages: tuple[str, ...] = ()
    files: tuple[str, ...] = ()

    @property
    def streaming_name(self) -> str:
        """The name of a method of PredictStream; empty for others."""
        return self.name[len(_STREAMING) :] if self.name.startswith(_STREAMING) else ""


@dataclasses.dataclass(frozen=True)
class ReadyRpc:
    """A method of a gRPC service.

    Attributes:
        name: without the service's.
        client_streaming: the client sends a stream of messages.
        server_streaming: the server answers with one.
        input_type: full name of the client's messages, "pkg.PingRequest".
        output_type: of the server's.
    """

    name: str
    client_streaming: bool
    server_streaming: bool
    input_type: str
    output_type: str


@dataclasses.dataclass(frozen=True)
class ReadyService:
    """A gRPC service by its full name, "pkg.Service", and those of its methods that the worker answers."""

    name: str
    methods: tuple[ReadyRpc, ...]


@dataclasses.dataclass(frozen=True)
class Ready:
    """The worker waits for the link's handshake.

    Attributes:
        methods: in the order of their numbers on the link: first Predict's, then one for each gRPC method.
        services: what those gRPC methods are, for the master to compare with what it was told of the services.
    """

    methods: tuple[ReadyMethod, ...]
    services: tuple[ReadyService, ...] = ()


@dataclasses.dataclass(frozen=True)
class Failed:
    """The worker can't start. It exits after this."""

    error: str
    traceback: str


Event = Phase | Ready | Failed


def encode_event(event: Event) -> bytes:
    if isinstance(event, Phase):
        return _encode({"event": "phase", "text": event.text[:MAX_TEXT]})
    if isinstance(event, Ready):
        return _encode({"event": "ready", **dataclasses.asdict(event)})
    return _encode({"event": "failed", "error": event.error[:MAX_TEXT], "traceback": event.traceback[-MAX_TEXT:]})


def decode_event(line: bytes) -> Event:
    """The event in a line from a worker.

    Raises:
        ControlError: it is none.
    """
    values = _decode(line)
    match values:
        case {"event": "phase", "text": str(text)}:
            return Phase(text)
        case {"event": "ready", "methods": list(methods), "services": list(services)}:
            return Ready(tuple(map(_decode_method, methods)), tuple(map(_decode_service, services)))
        case {"event": "failed", "error": str(error), "traceback": str(trace)}:
            return Failed(error, trace)
    raise ControlError(f"No event of a worker: {line[:200]!r}")


def _decode_method(values: Any) -> ReadyMethod:
    match values:
        case {
            "name": str(name),
            "idempotent": bool(idempotent),
            "inputs": list(inputs),
            "outputs": list(outputs),
            "input_types": list(input_types),
            "output_types": list(output_types),
            "messages": list(messages),
            "files": list(files),
        }:
            return ReadyMethod(
                name,
                idempotent,
                tuple(map(str, inputs)),
                tuple(map(str, outputs)),
                tuple(map(_decode_type, input_types)),
                tuple(map(_decode_type, output_types)),
                tuple(map(str, messages)),
                tuple(map(str, files)),
            )
    raise ControlError(f"No method of a worker: {str(values)[:200]!r}")


def _decode_type(values: Any) -> TensorType | None:
    match values:
        case None:
            return None
        case {"type": str(name), "shape": list(shape)}:
            return TensorType(name, tuple(map(int, shape)))
    raise ControlError(f"No type of a tensor of a worker: {str(values)[:200]!r}")


def _decode_service(values: Any) -> ReadyService:
    match values:
        case {"name": str(name), "methods": list(methods)}:
            return ReadyService(name, tuple(map(_decode_rpc, methods)))
    raise ControlError(f"No service of a worker: {str(values)[:200]!r}")


def _decode_rpc(values: Any) -> ReadyRpc:
    match values:
        case {
            "name": str(name),
            "client_streaming": bool(client_streaming),
            "server_streaming": bool(server_streaming),
            "input_type": str(input_type),
            "output_type": str(output_type),
        }:
            return ReadyRpc(name, client_streaming, server_streaming, input_type, output_type)
    raise ControlError(f"No method of a service of a worker: {str(values)[:200]!r}")


class LineBuffer:
    """Puts lines together from what a socket gives. Holds at most one line's bound."""

    def __init__(self) -> None:
        self._data = b""

    def feed(self, data: bytes) -> list[bytes]:
        """The lines that ``data`` has completed, without their ends.

        Raises:
            ControlError: a line is too long.
        """
        *lines, self._data = (self._data + data).split(b"\n")
        if len(self._data) > MAX_LINE_BYTES or any(len(line) > MAX_LINE_BYTES for line in lines):
            raise ControlError(f"A line of more than {MAX_LINE_BYTES} bytes")
        return lines


def _encode(values: dict[str, Any]) -> bytes:
    return json.dumps(values).encode() + b"\n"


def _decode(line: bytes) -> dict[str, Any]:
    try:
        values = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise ControlError(f"A line that is no JSON: {line[:200]!r}") from error
    if not isinstance(values, dict):
        raise ControlError(f"A line that is no JSON object: {line[:200]!r}")
    return values
