"""What most people would write: ``add_common`` on grpcio, protobuf and numpy: ``python grpcio_server.py ADDRESS``."""

from __future__ import annotations

import sys
from concurrent import futures

import grpc
import numpy as np

from mindserve.proto import messages


def predict(request: messages.PredictRequest, _context: grpc.ServicerContext) -> messages.PredictReply:
    """Add, instance by instance."""
    reply = messages.PredictReply(servable_spec=request.servable_spec)
    for instance in request.instances:
        x1, x2 = (
            np.frombuffer(instance.items[name].data, np.float32).reshape(instance.items[name].shape.dims)
            for name in ("x1", "x2")
        )
        y = x1 + x2
        out = reply.instances.add().items["y"]
        out.shape.dims.extend(y.shape)
        out.dtype = messages.DATA_TYPES["MS_FLOAT32"]
        out.data = y.tobytes()
    return reply


def main() -> None:
    """Serve until killed."""
    handler = grpc.unary_unary_rpc_method_handler(
        predict,
        request_deserializer=messages.PredictRequest.FromString,
        response_serializer=messages.PredictReply.SerializeToString,
    )
    server = grpc.server(futures.ThreadPoolExecutor(max_workers=8))
    service = grpc.method_handlers_generic_handler("mindspore.serving.proto.MSService", {"Predict": handler})
    server.add_generic_rpc_handlers((service,))
    host = sys.argv[1].rpartition(":")[0]
    port = server.add_insecure_port(sys.argv[1])
    server.start()
    print(f"listening on {host}:{port}", flush=True)
    server.wait_for_termination()


if __name__ == "__main__":
    main()
