"""Serves interop.proto by grpcio: what MindServe is compared with. Prints its address; serves until it is ended.

reference_server.py <directory of the generated modules> [<key file> <certificate file>]
"""

import asyncio
import pathlib
import sys

sys.path.insert(0, sys.argv[1])

import grpc
import interop_pb2_grpc
from service import Interop

MESSAGE_BYTES = 100 << 20


class Reference(Interop):
    def trailing(self, sent):
        """With the request's id, which MindServe's gateway adds by itself."""
        return [*super().trailing(sent), *((key, value) for key, value in sent if key == "request_id")]


async def main():
    server = grpc.aio.server(
        options=[("grpc.max_receive_message_length", MESSAGE_BYTES), ("grpc.max_send_message_length", MESSAGE_BYTES)]
    )
    interop_pb2_grpc.add_InteropServicer_to_server(Reference(), server)
    if sys.argv[2:]:
        key, certificate = (pathlib.Path(path).read_bytes() for path in sys.argv[2:])
        port = server.add_secure_port("localhost:0", grpc.ssl_server_credentials([(key, certificate)]))
    else:
        port = server.add_insecure_port("localhost:0")
    await server.start()
    print(f"localhost:{port}", flush=True)
    await server.wait_for_termination()


if __name__ == "__main__":
    asyncio.run(main())
