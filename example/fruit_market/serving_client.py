"""Asks the fruit market what 10 oranges and 3 apples cost, or what is given as FRUIT=AMOUNT."""

import argparse
import struct

import grpc

from mindserve.proto.ray_serve import PredictAPIsServiceStub, PredictRequest


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--address", default="127.0.0.1:9000", help="host:port or unix:path (default: %(default)s)")
    parser.add_argument("fruit", nargs="*", metavar="FRUIT=AMOUNT", default=["ORANGE=10", "APPLE=3"])
    args = parser.parse_args()

    with grpc.insecure_channel(args.address) as channel:
        stub = PredictAPIsServiceStub(channel)
        basket = {fruit: amount.encode() for fruit, _, amount in (order.partition("=") for order in args.fruit)}
        response = stub.Predict(PredictRequest(input=basket))
    (price,) = struct.unpack("f", response.prediction)
    print(price)


if __name__ == "__main__":
    main()
