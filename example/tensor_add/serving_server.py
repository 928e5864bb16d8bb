"""Serves the servable "add" until Ctrl-C."""

import argparse
import os
import sys

from mindserve import server


def start():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--address", default="127.0.0.1:5500", help="host:port or unix:path (default: %(default)s)")
    parser.add_argument("--rest-address", help="host:port, to answer HTTP with JSON, too")
    parser.add_argument("--certificate", help="certificate of the server; with it the server speaks TLS")
    parser.add_argument("--private-key", help="its key")
    parser.add_argument("--custom-ca", help="ask clients for a certificate of this authority (mutual TLS)")
    args = parser.parse_args()

    servable_dir = os.path.dirname(os.path.realpath(sys.argv[0]))
    servable_config = server.ServableStartConfig(
        servable_directory=servable_dir, servable_name="add", device_ids=(0, 1)
    )
    server.start_servables(servable_configs=servable_config)

    ssl_config = None
    if args.certificate:
        ssl_config = server.SSLConfig(
            certificate=args.certificate,
            private_key=args.private_key,
            custom_ca=args.custom_ca,
            verify_client=args.custom_ca is not None,
        )
    (address,) = server.start_grpc_server(address=args.address, ssl_config=ssl_config)
    served = f"add is served at {address}"
    if args.rest_address:
        scheme = "http" if ssl_config is None else "https"
        served += f" and {scheme}://{server.start_restful_server(args.rest_address, ssl_config=ssl_config)}"
    print(served, flush=True)


if __name__ == "__main__":
    start()
