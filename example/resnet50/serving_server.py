"""Serves the servable "resnet50" until Ctrl-C."""

import argparse
import os
import sys

import prepare_model

from mindserve import server


def start():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--address", default="127.0.0.1:5500", help="host:port or unix:path (default: %(default)s)")
    args = parser.parse_args()

    prepare_model.prepare()
    servable_dir = os.path.dirname(os.path.realpath(sys.argv[0]))
    servable_config = server.ServableStartConfig(
        servable_directory=servable_dir, servable_name="resnet50", device_ids=0
    )
    server.start_servables(servable_configs=servable_config)
    (address,) = server.start_grpc_server(address=args.address)
    print(f"resnet50 is served at {address}", flush=True)


if __name__ == "__main__":
    start()
