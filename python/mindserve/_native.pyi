"""The native core. Everything here releases the GIL while it works or waits."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

class NativeError(RuntimeError):
    """A failure in the native core. ``args[0]`` is the text; ``code`` the gRPC status name, "INVALID_ARGUMENT"."""

    code: str

LINK_VERSION: Final[int]

def set_log_sink(sink: Callable[[int, str], None] | None) -> None:
    """Hand native log lines to ``sink(level, text)``, level 0 debug to 3 error; None: stderr."""

def set_log_level(level: int) -> None: ...

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
        """Of each listener but internal ones: {"fds": new descriptors of its sockets, "file": None or a Unix socket's (device, inode)}.

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
    ) -> int:
        """A stage function; ``batched``: it takes a tuple of instances (tuples of inputs) and gives one result each.

        ``timeout``: seconds after which a call hangs; 0: none does.
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
    def run_function(self, function: int) -> None:
        """The body of the thread that runs this stage function: returns after `stop`."""
    def serve(self, link_fd: int, timeout: float) -> None:
        """Shake hands over ``link_fd``, within ``timeout`` seconds, and serve until `stop` or the gateway's end."""
    def stop(self) -> None:
        """Make `serve` and every `run_function` return. Any thread, but no signal handler."""
