"""A Predict server on grpcio, to test the client against: it answers whatever a test wants it to."""

from __future__ import annotations

import concurrent.futures
import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import grpc

from mindserve.proto import PACKAGE
from mindserve.proto.messages import PredictReply, PredictRequest

Handler = Callable[[PredictRequest, grpc.ServicerContext], "PredictReply | bytes"]


def echo(request: PredictRequest, context: grpc.ServicerContext) -> PredictReply:
    """Each instance is its own result."""
    return PredictReply(servable_spec=request.servable_spec, instances=request.instances)


@dataclass
class PredictServer:
    port: int = 0
    # What answers; tests replace it.
    handler: Handler = echo
    requests: list[PredictRequest] = field(default_factory=list)
    metadata: list[dict[str, str | bytes]] = field(default_factory=list)
    deadlines: list[float | None] = field(default_factory=list)

    @property
    def address(self) -> str:
        return f"localhost:{self.port}"

    def predict(self, request: PredictRequest, context: grpc.ServicerContext) -> PredictReply | bytes:
        self.requests.append(request)
        self.metadata.append(dict(context.invocation_metadata()))
        self.deadlines.append(context.time_remaining())
        return self.handler(request, context)


@contextlib.contextmanager
def serving(address: str = "localhost:0", credentials: grpc.ServerCredentials | None = None) -> Iterator[PredictServer]:
    """A server that runs inside the `with`."""
    servicer = PredictServer()
    method = grpc.unary_unary_rpc_method_handler(
        servicer.predict,
        PredictRequest.FromString,
        lambda reply: reply if isinstance(reply, bytes) else reply.SerializeToString(),
    )
    pool = concurrent.futures.ThreadPoolExecutor(4)
    options = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1), ("grpc.so_reuseport", 0)]
    server = grpc.server(pool, options=options)
    handlers = grpc.method_handlers_generic_handler(f"{PACKAGE}.MSService", {"Predict": method})
    server.add_generic_rpc_handlers((handlers,))
    if credentials is None:
        servicer.port = server.add_insecure_port(address)
    else:
        servicer.port = server.add_secure_port(address, credentials)
    server.start()
    try:
        yield servicer
    finally:
        server.stop(grace=None).wait()
        pool.shutdown()
