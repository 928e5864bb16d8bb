"""Serves two versions of "digits" under its one name until Ctrl-C, and tells how each of them does."""

import argparse
import contextlib
import os
import sys
import time

import prepare_model

from mindserve import server
from mindserve.server import Variation


def report():
    """A line for each variation that has answered: what the server has counted of it so far."""
    rows = [row for row in server.stats().methods if row.split == "digits" and row.ended]
    for row in sorted(rows, key=lambda row: row.variation):
        yield (
            f"{row.variation} (version {row.version}): {row.ended.get('OK', 0)} calls, {row.with_errors} with errors, "
            f"p99 {row.latency.quantile(0.99) * 1e3:.2f} ms"
        )


def start():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--address", default="127.0.0.1:5500", help="gRPC: host:port or unix:path (%(default)s)")
    parser.add_argument("--rest-address", default="127.0.0.1:5501", help="HTTP with JSON: host:port (%(default)s)")
    parser.add_argument("--every", type=float, default=10, help="seconds between two looks at it (%(default)s)")
    args = parser.parse_args()

    prepare_model.prepare()
    servable_dir = os.path.dirname(os.path.realpath(sys.argv[0]))
    server.start_servables([server.ServableStartConfig(servable_dir, "digits", version_number=v) for v in (1, 2)])
    # Who asks for "digits", and for no version of it, gets one of these two; the same user always the same one.
    server.set_traffic(
        "digits",
        [Variation("linear", "digits", 1, weight=0.8), Variation("network", "digits", 2, weight=0.2)],
        sticky="user",
    )
    (address,) = server.start_grpc_server(address=args.address)
    rest_address = server.start_restful_server(args.rest_address)
    print(f"digits is served at {address} and http://{rest_address}", flush=True)

    told = []
    while True:
        time.sleep(args.every)
        lines = list(report())
        if lines != told:
            print(*lines, sep="\n", flush=True)
        told = lines


if __name__ == "__main__":
    # Ctrl-C ends the loop; the server finishes what it has begun.
    with contextlib.suppress(KeyboardInterrupt):
        start()
