"""Asks the servable "add" for sums."""

import argparse

import numpy as np

from mindserve.client import Client, SSLConfig


def run_add_common(address, ssl_config):
    """Three instances in one request, by the model alone."""
    client = Client(address, "add", "add_common", ssl_config=ssl_config)
    instances = []

    # instance 1
    x1 = np.asarray([[1, 1], [1, 1]]).astype(np.float32)
    x2 = np.asarray([[1, 1], [1, 1]]).astype(np.float32)
    instances.append({"x1": x1, "x2": x2})

    # instance 2
    x1 = np.asarray([[2, 2], [2, 2]]).astype(np.float32)
    x2 = np.asarray([[2, 2], [2, 2]]).astype(np.float32)
    instances.append({"x1": x1, "x2": x2})

    # instance 3
    x1 = np.asarray([[3, 3], [3, 3]]).astype(np.float32)
    x2 = np.asarray([[3, 3], [3, 3]]).astype(np.float32)
    instances.append({"x1": x1, "x2": x2})

    result = client.infer(instances)
    print(result)


def run_add_cast(address, ssl_config):
    """One instance of two number types, which a Python stage makes float32."""
    client = Client(address, "add", "add_cast", ssl_config=ssl_config)
    result = client.infer({"x1": np.ones((2, 2), np.int32), "x2": np.full((2, 2), 4.5)})
    print(result)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--address", default="127.0.0.1:5500", help="host:port or unix:path (default: %(default)s)")
    parser.add_argument("--custom-ca", help="authority of the server's certificate; with it the client speaks TLS")
    parser.add_argument("--certificate", help="certificate of the client, for mutual TLS")
    parser.add_argument("--private-key", help="its key")
    args = parser.parse_args()

    ssl_config = None
    if args.custom_ca:
        ssl_config = SSLConfig(certificate=args.certificate, private_key=args.private_key, custom_ca=args.custom_ca)
    run_add_common(args.address, ssl_config)
    run_add_cast(args.address, ssl_config)


if __name__ == "__main__":
    main()
