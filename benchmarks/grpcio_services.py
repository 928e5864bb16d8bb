"""The benchmark's service on grpcio: ``python grpcio_services.py DIRECTORY ADDRESS``; its handlers lie in DIRECTORY."""

from __future__ import annotations

import sys
from concurrent import futures

import grpc


def main() -> None:
    """Serve until killed."""
    directory, address = sys.argv[1:]
    sys.path.insert(0, directory)
    import bench_pb2_grpc
    import handlers

    class Servicer(bench_pb2_grpc.BenchServicer):
        def Greet(self, request, context):
            return handlers.Greet(request)

        def Count(self, request, context):
            return handlers.Count(request)

    # The same number of threads as a worker of MindServe has.
    server = grpc.server(futures.ThreadPoolExecutor(max_workers=32))
    bench_pb2_grpc.add_BenchServicer_to_server(Servicer(), server)
    host = address.rpartition(":")[0]
    port = server.add_insecure_port(address)
    server.start()
    print(f"listening on {host}:{port}", flush=True)
    server.wait_for_termination()


if __name__ == "__main__":
    main()
