"""Serves the fruit market until Ctrl-C: a driver in front of a market in front of two stands."""

import argparse
import pathlib

from mindserve import server

HERE = pathlib.Path(__file__).resolve().parent


def start():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--address", default="127.0.0.1:9000", help="host:port or unix:path (default: %(default)s)")
    args = parser.parse_args()

    names = ("driver", "fruit_market", "orange_stand", "apple_stand")
    server.start_servables([server.ServableStartConfig(str(HERE), name) for name in names])
    (address,) = server.start_grpc_server(address=args.address)
    print(f"fruit_market is served at {address}", flush=True)


if __name__ == "__main__":
    start()
