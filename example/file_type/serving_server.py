"""Serves the servable "file_type" until Ctrl-C."""

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
    # One file at a time, as magika itself does it: computed together with others, a file's score is a little different,
    # which at a threshold is another label.
    servable_config = server.ServableStartConfig(
        servable_directory=servable_dir, servable_name="file_type", device_ids=0, max_batch_size=1
    )
    server.start_servables(servable_configs=servable_config)
    (address,) = server.start_grpc_server(address=args.address)
    print(f"file_type is served at {address}", flush=True)


if __name__ == "__main__":
    start()
