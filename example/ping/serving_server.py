"""Serves the servable "ping" until Ctrl-C."""

import argparse
import pathlib
import sys

from mindserve import server

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

from generate_stubs import generate  # noqa: E402


def start():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--address", default="127.0.0.1:9000", help="host:port or unix:path (default: %(default)s)")
    args = parser.parse_args()

    generate(HERE / "test_service.proto", [HERE, HERE / "ping"])
    server.start_servables(server.ServableStartConfig(str(HERE), "ping"))
    (address,) = server.start_grpc_server(
        address=args.address, grpc_servicer_functions=["test_service_pb2_grpc.add_TestServiceServicer_to_server"]
    )
    print(f"ping is served at {address}", flush=True)


if __name__ == "__main__":
    start()
