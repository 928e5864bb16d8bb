"""The native core. Everything here releases the GIL while it works or waits."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextvars import ContextVar
from typing import Any, Final, Literal

class NativeError(RuntimeError):
    """A failure in the native core. ``args[0]`` is the text; ``code`` the gRPC status name, "INVALID_ARGUMENT"."""

    code: str

class Cancelled(Exception):
    """The call is over, cancelled by the client or finished: nobody waits for what its handler does."""

class ResultError(TypeError):
    """A handler gave something that is no message of its method's.

    ``__cause__`` is what ``SerializeToString`` raised, if it did.
    """

LINK_VERSION: Final[int]

def set_log_sink(sink: Callable[[int, str], None] | None) -> None:
    """Hand native log lines to ``sink(level, text)``, level 0 debug to 3 error; None: stderr."""

def set_log_level(level: int) -> None: ...
def predict_request_from_json(body: bytes, servable: str, method: str, version: int) -> bytes:
    """A serialized PredictRequest of ``{"instances": [{input: value, …}, …]}``; version 0: the newest.

    A millisecond for each half megabyte, about: what is larger belongs on another thread than an event loop's.

    Raises:
        NativeError: "INVALID_ARGUMENT" with a text of MindSpore Serving; "OUT_OF_RANGE" where it has none: a number
            that does not fit its type, too deep nesting, an input that stands twice; "RESOURCE_EXHAUSTED": no memory.
    """

def predict_reply_to_json(reply: bytes) -> bytes:
    """``{"instances": [...]}``, or ``{"error_msg": text}``, of a serialized PredictReply.

    Raises:
        NativeError: "INTERNAL": it is none.
    """

class Gateway:
    """The gRPC server. See csrc/gateway/gateway.h. Thread-safe.

    Args:
        io_threads: 0: one for each four cores, at least one.
        descriptors: a serialized FileDescriptorSet of the built-in services, for reflection.
    """

    def __init__(self, io_threads: int = 0, descriptors: bytes = b"") -> None: ...
    def declare_servable(self, name: str, max_enqueued_requests: int = 0, max_enqueued_bytes: int = 0) -> None:
        """Make the servable known, or give it other limits; 0: none of its own."""
    def remove_servable(self, name: str) -> None: ...
    def set_services(
        self, services: Sequence[tuple[str, Sequence[tuple[str, bool, bool]]]], descriptors: bytes
    ) -> None:
        """Serve the users' services instead of those that were set before.

        Args:
            services: full name of each, and of its methods the name, whether the client, and the server, streams.
            descriptors: a serialized FileDescriptorSet of them, for reflection.
        """
    def set_traffic(self, splits: Sequence[Mapping[str, Any]]) -> None:
        """Split the calls of these names, and of no others. See SplitSpec in csrc/gateway/gateway.h.

        Args:
            splits: each {"name": str, "variations": [{"name": str, "servable": str, "version": int, "weight": float}],
                "sticky": None | str, "mirrors": [{"servable": str, "version": int, "fraction": float}]}.
        """
    def listen(
        self, listeners: Sequence[Mapping[str, Any]], limits: Mapping[str, int], accept: bool = True
    ) -> list[str]:
        """Begin to answer; without ``accept``, connections wait until `accept` is called.

        Args:
            listeners: each {"address": str, "unix_mode": int, "tls": None | {"certificate": bytes,
                "private_key": bytes, "client_ca": bytes, "client_crl": bytes, "verify_client": bool}} with PEM texts;
                and "inherited": None or what `share_listeners` gave in another process, with descriptors of this one;
                "internal": True for one that is this server's workers', which has to stand behind all others.
            limits: by the names of csrc/gateway/limits.h; times in milliseconds. Absent ones take their defaults.

        Returns:
            The addresses bound, with the real ports.
        """
    def set_tls(self, listener: int, tls: Mapping[str, Any]) -> None:
        """Exchange what new connections to a listener, by its place in ``listen``'s, get; ``tls`` as there."""
    def accept(self) -> None: ...
    def share_listeners(self) -> list[dict[str, Any]]:
        """Of each listener but internal ones: descriptors of its sockets, and its file.

        Returns:
            {"fds": new descriptors, "file": None or a Unix socket's (device, inode)} each.

        The descriptors are the caller's.
        """
    def disown_listeners(self, which: Sequence[int]) -> None:
        """Leave the files of these listeners' Unix sockets where they are when listening stops."""
    def set_max_enqueued_requests(self, count: int) -> None: ...
    def attach_worker(
        self,
        fd: int,
        worker_id: int,
        servable: str,
        version: int,
        methods: Sequence[tuple[str, bool]],
        heartbeat_timeout: float,
        timeout: float,
    ) -> None:
        """Shake hands over the Unix socket ``fd`` (taken over) and route to the worker.

        Args:
            fd: the socket.
            worker_id: the master's number for it.
            servable: what it serves.
            version: of it.
            methods: name of each, and whether it is idempotent, in the order of their numbers on the link.
            heartbeat_timeout: seconds without a sign of life after which the worker is lost.
            timeout: seconds for the handshake.
        """
    def drain_worker(self, worker_id: int) -> None:
        """Send the worker nothing more; once it holds nothing its link is closed, upon which it ends."""
    def remove_version(self, servable: str, version: int) -> None: ...
    def detach_worker(self, worker_id: int, dead: bool = False) -> None:
        """Forget the worker; ``dead``: its process has ended."""
    def lost_workers_fd(self) -> int:
        """A descriptor that is readable while `take_lost_workers` would give any. The gateway's; not to be closed."""
    def take_lost_workers(self) -> list[tuple[int, str]]:
        """Workers that the gateway has given up though their processes may go on: number, and why. Each once."""
    def stop_listening(self, grace: float) -> None: ...
    def replies(self) -> int:
        """Calls that ended OK."""
    def stats(self) -> dict[str, Any]:
        """All that is counted; mindserve/server/statistics.py gives it its public form."""

class ClientIdentity:
    """A client, and what it may. See csrc/gateway/auth.h.

    Args:
        name: of the client.
        servables: those that it may call; None: all.
        rate: calls a second; 0: no limit.
        burst: calls at once; only with a rate.
        max_in_flight: calls at a time; 0: no limit.
        before: the same client under other terms, whose counts go on.
    """

    def __init__(
        self,
        name: str,
        servables: set[str] | None = None,
        rate: float = 0.0,
        burst: float = 1.0,
        max_in_flight: int = 0,
        before: ClientIdentity | None = None,
    ) -> None: ...
    @property
    def name(self) -> str: ...
    def may_call(self, servable: str) -> bool: ...
    def denial(self, servable: str) -> str:
        """What it is told that may not call it; "": it may."""

    def denial_of_all(self, what: str) -> str:
        """What it is told that names nobody, and may call nobody who answers ``what``."""

def token_flaw(token: bytes) -> str:
    """Why this can't be a token, whoever may have made it; "": it may be one."""

def require_tokens(gateway: Gateway) -> None:
    """Ask clients who they are from now on, for good; before `Gateway.listen`."""

def take_tokens(gateway: Gateway, most: int) -> list[tuple[int, int, bytes]]:
    """Wait for tokens that are not known, and take at most so many; none: `close_tokens` was called.

    Returns:
        Questions for `answer_token`; the last part of each is a token, or the names in a client's certificate, each
        behind a line break.
    """

def answer_token(
    gateway: Gateway, question: tuple[int, int, bytes], identity: ClientIdentity | None, refusal: str, seconds: float
) -> None:
    """Say whose a token is; None: it is refused, with this text. It holds for so many seconds."""

def forget_tokens(gateway: Gateway) -> None:
    """Ask about all tokens anew: the keys have changed."""

def close_tokens(gateway: Gateway) -> None:
    """Take no more tokens; who waits in `take_tokens` gets none."""

# What a call of `DirectCalls` is told, with the call's number first. In this order: maybe one "initial", any number of
# "message", one "end" with a gRPC status code, its text, and the trailing metadata. Values of keys in "-bin" are bytes.
DirectEvent = (
    tuple[int, Literal["initial"], list[tuple[str, str | bytes]]]
    | tuple[int, Literal["message"], bytes]
    | tuple[int, Literal["end"], int, str, list[tuple[str, str | bytes]]]
)

class DirectCalls:
    """Calls from inside the process into what a gateway serves, as if they came by gRPC. Thread-safe.

    It is answered as to gRPC clients: with the same limits but those of connections, deadlines, request ids and counts.
    It does not keep the gateway: when that one stops listening or goes, calls end UNAVAILABLE, as do those made later
    or before it listens. When this object goes, its calls are cancelled.

    Args:
        gateway: whom the calls are for.

    Raises:
        NativeError: RESOURCE_EXHAUSTED: no descriptor is left.
    """

    def __init__(self, gateway: Gateway) -> None: ...
    def fileno(self) -> int:
        """A descriptor that is readable while `take` would give any event. This object's; not to be closed."""
    def start(
        self,
        path: str,
        metadata: Sequence[tuple[str, str | bytes]],
        messages: Sequence[bytes],
        timeout: float | None = None,
        peer: str = "",
        auth: Mapping[str, Sequence[bytes]] = ...,
        client: int = 0,
    ) -> int:
        """Begin a call. Never waits; whatever is wrong with the call is told by its end.

        Args:
            path: of the RPC, "/package.Service/Method".
            metadata: keys in lower case, without those that HTTP and gRPC have for themselves; values of keys in "-bin"
                are bytes, others printable ASCII. One that is not ends the call INVALID_ARGUMENT.
            messages: all that the client sends. Not copied here: they are held until they are passed on, or the call's
                end is taken.
            timeout: seconds from now; None: the server's default_deadline.
            peer: whom it is made for, as gRPC writes addresses: "ipv4:1.2.3.4:5".
            auth: what authenticated that one, as grpcio's auth_context has it.
            client: a number for the connection that it is made for: workers treat different ones equally, and what
                kills workers makes a client suspect. Of the last few thousand something is remembered.

        Returns:
            The call's number, which is not used again.

        Raises:
            ValueError: ``timeout`` is not a number, or negative; ``client`` is negative.
        """
    def take(self) -> list[DirectEvent]:
        """What has happened since: events of all calls, of each in its order.

        Of a call's messages it gives at most 16, or as many as make a MiB, before `consumed`. The others are held
        natively, which holds back the worker that sends them. An answer of one message needs no `consumed`.
        """
    def consumed(self, call: int, count: int) -> None:
        """So many of the messages that `take` gave of the call have been passed on. No-op once its end was given."""
    def cancel(self, call: int) -> None:
        """Give a call up. It ends CANCELLED, unless it has ended; what was not taken of it is dropped."""

class Runtime:
    """A worker: models, functions and methods, then `serve`. See csrc/worker/runtime.h.

    Args:
        servable: its name, for the log.
        refuse_late: refuse calls that can't be done before their deadlines.
        hung_signal: what is raised when a stage goes beyond its timeout, before the process ends; 0: nothing.
        hung_status: the exit status with which it ends then; 0: it doesn't.
    """

    def __init__(
        self, servable: str = "", *, refuse_late: bool = False, hung_signal: int = 0, hung_status: int = 0
    ) -> None: ...
    def open_onnxruntime(self, library: str) -> list[str]:
        """Load ONNX Runtime from the shared library's path; returns the device types its build knows, best first."""
    def load_model(
        self,
        path: str,
        *,
        name: str,
        device_type: str,
        device_id: int = 0,
        intra_op_threads: int = 0,
        inter_op_threads: int = 0,
        parallel: bool = False,
        affinity: Sequence[int] = (),
        fp16: bool = False,
        optimization: str = "all",
        provider_options: Mapping[str, str] = ...,
        with_batch_dim: bool = True,
        without_batch_dim_inputs: Sequence[int] = (),
        max_batch_size: int = 32,
        max_queue_delay_us: int = 0,
        timeout: float = 0.0,
    ) -> int:
        """Load an ONNX file; ``device_type`` is "CPU", "GPU" or "Ascend". Returns the model's number.

        ``timeout``: seconds after which a run hangs; 0: none does.
        """
    def model_inputs(self, model: int) -> list[tuple[str, str, list[int]]]:
        """Name, numpy type name ("str" for strings) and shape (-1: dynamic) of each input."""
    def model_outputs(self, model: int) -> list[tuple[str, str, list[int]]]: ...
    def warm_up(self, model: int) -> str:
        """Run once on zeros; returns "", or why it is not warmed up. Raises what no data can mend."""
    def add_function(
        self,
        name: str,
        function: Callable[..., Any],
        *,
        batched: bool,
        max_batch_size: int = 32,
        max_queue_delay_us: int = 0,
        timeout: float = 0.0,
        invalid_input: type[Exception] | None = None,
        refusal: type[Exception] | None = None,
    ) -> int:
        """A stage function; ``batched``: it takes a tuple of instances (tuples of inputs) and gives one result each.

        ``timeout``: seconds after which a call hangs; 0: none does. What it raises for an instance that is
        wrong in itself: ``invalid_input``, to which the function's name is added; ``refusal``, with all of the text.
        """
    def add_method(
        self,
        name: str,
        inputs: Sequence[str],
        outputs: Sequence[str],
        stages: Sequence[tuple[str, int, Sequence[tuple[int, int]], int, str]],
        results: Sequence[tuple[int, int]],
        *,
        idempotent: bool = True,
    ) -> int:
        """A method's graph.

        Args:
            name: its name.
            inputs: names of its inputs.
            outputs: names of its outputs.
            stages: each ("function" | "model", number, inputs, outputs count, tag); an input is (stage, index), with
                stage -1 for the method's own inputs.
            results: where the outputs come from, in the same form.
            idempotent: its functions may be called again for an instance.
        """
    def add_local_method(
        self,
        name: str,
        inputs: Sequence[str],
        outputs: Sequence[str],
        stages: Sequence[tuple[str, int, Sequence[tuple[int, int]], int, str]],
        results: Sequence[tuple[int, int]],
        *,
        idempotent: bool = True,
        prefix: str = "",
    ) -> LocalMethod:
        """A method that only this process calls; arguments as of `add_method`, after whose last call it comes.

        ``prefix`` begins the texts of all errors.
        """
    def add_stream_method(
        self,
        name: str,
        inputs: Sequence[str],
        outputs: Sequence[str],
        stages: Sequence[tuple[str, int, Sequence[tuple[int, int]], int, str]],
        arguments: Sequence[tuple[int, int]],
        *,
        function: str,
        items: int,
        order: Sequence[int],
        tag: str = "",
        idempotent: bool = True,
    ) -> StreamMethod:
        """A method whose last stage is a generator, which the caller runs. After the last call of `add_method`.

        Args:
            name: its name.
            inputs: names of its inputs.
            outputs: names of its outputs.
            stages: the others, as for `add_method`.
            arguments: what the generator takes, in the form of a stage's inputs.
            function: its name, for messages.
            items: how many outputs an item of it has.
            order: which of these each of the method's outputs is.
            tag: put before the errors of the generator.
            idempotent: functions may be called again for an instance.
        """
    def set_classifier(
        self,
        method: int,
        *,
        model_name: str,
        outputs: tuple[int, int | None, int | None, int | None],
        classes: Sequence[str],
        custom_type: str,
        fields: Mapping[
            str,
            tuple[Sequence[tuple[str, Sequence[int], bool]], Sequence[tuple[str, int, int, int, int]]],
        ],
        handlers: Mapping[
            str,
            tuple[
                Sequence[tuple[str, int, Sequence[tuple[int, int]], int, str]], Sequence[tuple[int, int]], bool, bool
            ],
        ],
    ) -> None:
        """Which method answers the Classifier, and how. After the last call of `add_method`.

        Args:
            method: its number.
            model_name: what replies call the model.
            outputs: which output is predictions, classes, confidences and ``custom``; None: none.
            classes: their names, if no output has them; none: their numbers.
            custom_type: full name of the message that ``custom`` is; empty: an Any.
            fields: of messages by their types' names, which fields are inputs: of each input type, shape and whether it
                is repeated, and of each field name, number, type (as in FieldDescriptorProto), input and element.
            handlers: of the others, stages and results of the method whose input is the message's bytes, and False; or
                True, if its inputs are the request's bytes and its puid; and whether the message has single numbers
                alone.
        """
    def run_function(self, function: int, current: ContextVar[Any]) -> None:
        """The body of the thread that runs this stage function: returns after `stop`.

        Args:
            function: its number.
            current: has a `StageRequest` as its value while the function runs.
        """
    def begin_call(self, request: object) -> None:
        """A call of another servable begins. A handler thread that says so waits until `end_call`; see handlers.h.

        Args:
            request: for which it is made, a `ServiceCall` or something else, which says nothing: of calls that other
                threads make, the thread of this one's handler waits.
        """
    def end_call(self, request: object) -> None:
        """On the same thread as `begin_call`, with the same request."""
    def add_handler(
        self,
        path: str,
        *,
        idempotent: bool = False,
        client_streaming: bool = False,
        server_streaming: bool = False,
        on_loop: bool = False,
        unary: tuple[Callable[[bytes], Any], Callable[[Any], Any], type] | None = None,
    ) -> int:
        """A handler of a user's service, after all methods: its number on the link is theirs and then its own.

        Args:
            path: "/pkg.Service/Method".
            idempotent: calls may be handled again after the worker's death.
            client_streaming: the client sends any number of messages.
            server_streaming: the handler does.
            on_loop: its calls come from `take_loop_events`, not to `run_handlers`.
            unary: (parse, function, response class) of a plain function of a method where nobody streams: calls are
                answered natively, ``function(parse(message)).SerializeToString()``, without dispatch.

        Returns:
            The handler's number, from 0: `ServiceCall.method`.
        """
    def run_handlers(
        self,
        dispatch: Callable[[ServiceCall], object],
        on_error: Callable[[ServiceCall, BaseException, str], object],
        current: ContextVar[Any],
        *,
        extra: bool = False,
    ) -> None:
        """The body of a handler thread: returns after `stop`.

        Args:
            dispatch: called with each call of a handler without ``unary``; and again with one that returned after
                `ServiceCall.write` gave False, once the call is writable again, or over. Must not raise: then the call
                ends with INTERNAL, as does one that Python drops unfinished.
            on_error: of ``unary`` handlers: the call, the exception, and where it was raised: "parse", "handler", or
                "result". Is to finish the call.
            current: has the call as its value while `dispatch`, `on_error` or ``unary`` functions run.
            extra: of a thread that `await_needs` has asked for: returns also when it has had no call for 10 s.
        """
    def await_needs(self, stuck: bool) -> tuple[int, bool] | None:
        """How many extra threads are to be started, and whether the handlers are stuck; None after `stop`.

        Waits until it is more than none, or other than ``stuck``. Stuck: calls wait, and for 5 s no ordinary thread has
        taken one. For one thread, without which extra threads are never needed.
        """
    def threads_failed(self, count: int) -> None:
        """So many of the extra threads can't be started; they are asked for again, after a second at the earliest."""
    def held_handlers(self) -> tuple[int, list[tuple[int, str, float]]]:
        """How many calls wait in line; and of each call on a handler thread: thread, path, and for how many seconds."""
    def loop_fd(self) -> int:
        """A descriptor that is readable while `take_loop_events` would give any. The runtime's; not to be closed."""
    def take_loop_events(self) -> list[tuple[ServiceCall, int]]:
        """What happened to the calls of handlers that are ``on_loop``, each call once, as the sum of these bits.

        1: it is new. 2: there is a message, or the client's half-close, after `ServiceCall.read` gave False. 4: it is
        writable again after `ServiceCall.write` gave False. 8: it was cancelled; also of others, for which
        `ServiceCall.watch_cancel` was called. One that is cancelled before it is told is never told. A new call that is
        dropped unfinished ends with INTERNAL.
        """
    def set_model(self, model_id: str, loaded: bool) -> None:
        """Tell the gateway that this worker holds a multiplexed model, or does no more. Any thread."""
    def serve(self, link_fd: int, timeout: float) -> None:
        """Shake hands over ``link_fd``, within ``timeout`` seconds, and serve until `stop` or the gateway's end."""
    def stop(self) -> None:
        """Make `serve`, every `run_function` and every `run_handlers` return. Any thread, but no signal handler."""

class ServiceCall:
    """A call of a user's service, as its handler sees it. Made by the runtime. Thread-safe.

    One that Python drops unfinished ends with INTERNAL, "the handler gave no answer".

    Attributes:
        method: the handler's number, from `Runtime.add_handler`.
        client: the connection's number.
        deadline: on `time.monotonic`; None: there is none.
        request_id: as the gateway took it from the client, or made it.
        model_id: of the multiplexed model that the client asks for; "": of none.
        peer: as grpcio writes it, "ipv4:127.0.0.1:50321".
        depth: of how many calls within calls of servables it is the innermost; 0: a client's own.
        parent: what the gateway calls it, and those that wait for it, for calls that are made for it.
        cancelled: nobody waits for the answer any more.
        state: the handler's own; None at first.
    """

    @property
    def method(self) -> int: ...
    @property
    def client(self) -> int: ...
    @property
    def deadline(self) -> float | None: ...
    @property
    def request_id(self) -> str: ...
    @property
    def model_id(self) -> str: ...
    @property
    def peer(self) -> str: ...
    @property
    def depth(self) -> int: ...
    @property
    def plain(self) -> bool: ...
    @property
    def parent(self) -> str: ...
    @property
    def cancelled(self) -> bool: ...
    state: Any
    def metadata(self) -> list[tuple[str, str | bytes]]:
        """The client's metadata; values of keys that end in "-bin" are bytes."""
    def auth(self) -> dict[str, list[bytes]]:
        """grpcio's authentication properties of the connection; empty for plaintext."""
    def watch_cancel(self) -> None:
        """Have `Runtime.take_loop_events` tell of the cancellation of a call that is not the event loop's, too."""
    def read(self, wait: bool) -> bytes | Literal[False] | None:
        """The client's next message; None: it sends no more. Without ``wait``, False: there is none yet.

        Raises:
            Cancelled: the call is over.
        """
    def write(self, message: bytes, wait: bool, compressed: bool = False) -> bool:
        """A message of the answer; ``compressed``: it is, by gzip.

        About 256 KiB or 256 messages may be on their way. Whoever writes more waits until half of that has left, or,
        without ``wait``, gets False: the message was taken, but the next should come only once the call is writable.

        Raises:
            Cancelled: the call is over.
        """
    def write_last(self, message: bytes, /) -> None:
        """The same as `write` and `finish` with status OK, in one step; nothing for a call that is over."""
    def send_initial(self, metadata: Sequence[tuple[str, str | bytes]], compressed: bool = False) -> None:
        """Initial metadata, at once; ``compressed``: messages may be, by gzip.

        Raises:
            ValueError: it was sent, or a message was; or a text is not ASCII.
        """
    def finish(self, code: int = 0, details: str = "", trailing: Sequence[tuple[str, str | bytes]] = ()) -> None:
        """End the call with a gRPC status, once; later ends, and those of a call that is over, do nothing.

        Raises:
            ValueError: there is no such status; or a text of the metadata is not ASCII.
        """

class StageRequest:
    """The request that a stage function works for. Made by the runtime; it stays that of its request.

    Of a function that is called for instances of several requests together only ``client``, the first one's, and
    ``depth``, the greatest, are known.

    Attributes:
        request_id: the client's, or ""; none is made.
        model_id: "".
        deadline: on `time.monotonic`; None: there is none.
        client, depth, parent, cancelled: as of `ServiceCall`.
    """

    @property
    def request_id(self) -> str: ...
    @property
    def model_id(self) -> str: ...
    @property
    def deadline(self) -> float | None: ...
    @property
    def client(self) -> int: ...
    @property
    def depth(self) -> int: ...
    @property
    def parent(self) -> str: ...
    @property
    def cancelled(self) -> bool: ...

def run_generator(call: ServiceCall, iterator: Iterator[Any], response_class: type) -> bool:
    """Write what ``iterator`` gives, until it gives no more (True), or the call holds back (False: park the call).

    Raises:
        Cancelled: the call is over.
        ResultError: it gave something that is no ``response_class``.
        Exception: what the iterator raises.
    """

class LocalMethod:
    """A method that any thread calls. See csrc/bindings/local_methods.h.

    ``arguments`` are one instance's inputs; or one list or tuple of instances, each a list or tuple of its inputs.
    ``deadline`` is on `time.monotonic`, by default there is none; ``client``: whose turn it is in the queues, 0: the
    worker's own. Both count where no stage function calls, whose own count else.
    """

    def call(self, arguments: tuple[Any, ...], deadline: float = ..., client: int = 0) -> Any:
        """Wait for the result.

        Returns:
            One instance's output, a tuple if the method has several; or a list with a tuple of outputs for each.

        Raises:
            NativeError: what was wrong, in one instance the first that failed.
        """
    def start(
        self, arguments: tuple[Any, ...], done: DoneCalls, tag: int, deadline: float = ..., client: int = 0
    ) -> PendingCall:
        """The same without waiting: ``done`` gives ``tag`` once the result is there."""

class StreamMethod:
    """What comes before a generator, and the messages that its items become. See csrc/bindings/stream_methods.h.

    Deadline and client as of `LocalMethod`; ``call``: the `ServiceCall` that it is for, of which stage functions know.
    """

    @property
    def has_stages(self) -> bool:
        """There are stages before the generator; else `call` doesn't wait."""
    def call(self, request: bytes, deadline: float = ..., client: int = 0, call: Any = None) -> tuple[Any, ...]:
        """The generator's arguments for a PredictRequest of one instance.

        Raises:
            NativeError: what is wrong with the instance, or a stage that failed.
        """
    def start(
        self, request: bytes, done: DoneCalls, tag: int, deadline: float = ..., client: int = 0, call: Any = None
    ) -> PendingCall:
        """The same without waiting, where there are stages."""
    def encode(self, item: Any) -> bytes:
        """A PredictReply with what the generator gave.

        Raises:
            NativeError: that is no item.
        """
    def failed(self, error: BaseException, *, invalid_input: bool) -> bytes:
        """A PredictReply that says what the generator, or one of these, has raised; whether it is an `InvalidInput`."""

class PendingCall:
    def result(self) -> Any:
        """What `LocalMethod.call` returns or raises; only once it is done."""
    def cancel(self) -> None:
        """Take back what has not begun, of a call that is not done."""

class DoneCalls:
    """The calls that are done, for an event loop."""

    def __init__(self) -> None: ...
    def fd(self) -> int:
        """A descriptor that is readable while `take` would give any. This object's; not to be closed."""
    def take(self) -> list[int]:
        """Their tags."""
