"""Serves servables: ``python server.py DIRECTORY ADDRESS NAME...``.

Prints "listening on" and its addresses; then, for each line that it reads, what `mindserve.server.stats` says, as JSON.
"""

from __future__ import annotations

import argparse
import json
import sys

from mindserve import server


def main() -> None:
    """Start, and answer until there is nothing more to read; the server lives on until SIGTERM."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("directory")
    parser.add_argument("address")
    parser.add_argument("names", nargs="+")
    parser.add_argument("--workers", type=int, default=1, help="for each servable")
    parser.add_argument("--service", help="a servicer function to be served, by its import path")
    parser.add_argument("--unix", metavar="ADDRESS", help="a further address, a Unix socket")
    parser.add_argument("--tls", nargs=2, metavar=("CERTIFICATE", "KEY"), help="a further address, a port with TLS")
    parser.add_argument("--keys", metavar="FILE", help="ask for tokens of the clients in this keys file")
    parser.add_argument(
        "--split",
        nargs="+",
        metavar=("NAME", "WEIGHT"),
        help="a name that the first servable answers by variations of these weights, called 0, 1 and so on",
    )
    parser.add_argument("--rest", action="store_true", help="a further address, for HTTP with JSON; the last one")
    options = parser.parse_args()
    devices = tuple(range(options.workers))
    listeners = [server.Listener(options.address)]
    if options.unix:
        listeners.append(server.Listener(options.unix))
    if options.tls:
        listeners.append(server.Listener("127.0.0.1:0", server.SSLConfig(*options.tls)))
    server.start_servables([server.ServableStartConfig(options.directory, name, devices) for name in options.names])
    # Only where it is asked for: scripts/compare.sh runs this file with older commits, too.
    services = {"grpc_servicer_functions": [options.service]} if options.service else {}
    auth = {"auth": server.AuthConfig(options.keys)} if options.keys else {}
    bound = server.start_grpc_server(listeners, **services, **auth)
    if options.split:
        name, *weights = options.split
        server.set_traffic(
            name,
            [server.Variation(str(n), options.names[0], weight=float(weight)) for n, weight in enumerate(weights)],
        )
    if options.rest:
        bound.append(server.start_restful_server("127.0.0.1:0", **auth))
    print("listening on", *bound, flush=True)
    for _ in sys.stdin:
        print(json.dumps(server.stats().as_dict()), flush=True)


if __name__ == "__main__":
    main()
