"""Pings the servable "ping", also in ways that it doesn't answer; an asyncio client."""

import argparse
import asyncio

import grpc
import test_service_pb2
import test_service_pb2_grpc


async def ping(address):
    async with grpc.aio.insecure_channel(address) as channel:
        stub = test_service_pb2_grpc.TestServiceStub(channel)

        reply = await stub.Ping(test_service_pb2.PingRequest())
        print(f"Ping: {type(reply).__name__}")

        for name, call in (
            ("Ping without a reply", stub.Ping(test_service_pb2.PingRequest(no_reply=True), timeout=0.5)),
            ("PingTimeout", stub.PingTimeout(test_service_pb2.PingTimeoutRequest(), timeout=0.5)),
        ):
            try:
                await call
            except grpc.aio.AioRpcError as error:
                print(f"{name}: {error.code().name}")


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--address", default="127.0.0.1:9000", help="host:port or unix:path (default: %(default)s)")
    args = parser.parse_args()
    asyncio.run(ping(args.address))


if __name__ == "__main__":
    main()
