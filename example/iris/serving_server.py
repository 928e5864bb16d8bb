"""Serves the servable "iris" until Ctrl-C, by gRPC and by HTTP with JSON."""

import argparse
import os
import sys

import prepare_model

from mindserve import server


def start():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--address", default="127.0.0.1:5500", help="gRPC: host:port or unix:path (%(default)s)")
    parser.add_argument("--rest-address", default="127.0.0.1:5501", help="HTTP with JSON: host:port (%(default)s)")
    args = parser.parse_args()

    prepare_model.prepare()
    servable_dir = os.path.dirname(os.path.realpath(sys.argv[0]))
    server.start_servables(server.ServableStartConfig(servable_directory=servable_dir, servable_name="iris"))
    (address,) = server.start_grpc_server(address=args.address)
    rest_address = server.start_restful_server(args.rest_address)
    print(f"iris is served at {address} and http://{rest_address}", flush=True)


if __name__ == "__main__":
    start()
