"""Serves the servable "iris" until Ctrl-C, by gRPC and by HTTP with JSON."""

import argparse
import pathlib
import sys

import prepare_model

from mindserve import server

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

from generate_stubs import generate  # noqa: E402


def start():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--address", default="127.0.0.1:5500", help="gRPC: host:port or unix:path (%(default)s)")
    parser.add_argument("--rest-address", default="127.0.0.1:5501", help="HTTP with JSON: host:port (%(default)s)")
    parser.add_argument("--keys", help="ask clients for tokens: the file that `mindserve keys add` has made")
    args = parser.parse_args()

    prepare_model.prepare()
    generate(HERE / "iris.proto", [HERE, HERE / "iris"])
    auth = server.AuthConfig(args.keys) if args.keys else None
    server.start_servables(server.ServableStartConfig(servable_directory=str(HERE), servable_name="iris"))
    (address,) = server.start_grpc_server(address=args.address, auth=auth)
    rest_address = server.start_restful_server(args.rest_address, auth=auth)
    print(f"iris is served at {address} and http://{rest_address}", flush=True)


if __name__ == "__main__":
    start()
