"""Asks the servable "iris" as a client of Seldon's does: gets a token by HTTP, and calls the Classifier by gRPC."""

import argparse

import grpc
import iris_pb2
import requests
from google.protobuf import any_pb2

from mindserve.proto import seldon as seldon_pb2


class IrisRpcClient:
    def __init__(self, host, http_transport, http_port, rpc_port):
        self.host = host
        self.http_transport = http_transport
        self.http_port = http_port
        self.rpc_port = rpc_port

    def get_token(self, key, secret):
        params = {"consumer_key": key, "consumer_secret": secret}
        url = f"{self.http_transport}://{self.host}:{self.http_port}/token"
        answer = requests.get(url, params=params, timeout=10)
        if answer.status_code == requests.codes.ok:
            return answer.json()["access_token"]
        raise SystemExit(f"failed call to get token: {answer.text}")

    def call_rpc(self, token):
        with grpc.insecure_channel(f"{self.host}:{self.rpc_port}") as channel:
            stub = seldon_pb2.ClassifierStub(channel)
            data = iris_pb2.IrisPredictRequest(f1=1.0, f2=0.2, f3=2.1, f4=1.2)
            data_any = any_pb2.Any()
            data_any.Pack(data)
            meta = seldon_pb2.ClassificationRequestMeta(puid="12345")
            request = seldon_pb2.ClassificationRequest(meta=meta, data=data_any)
            metadata = [("oauth_token", token)] if token else []
            return stub.Predict(request, 999, metadata=metadata)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--host", help="rpc server host", default="localhost")
    parser.add_argument("--http-transport", help="http or https", default="http")
    parser.add_argument("--http-port", help="http server port", type=int, default=5501)
    parser.add_argument("--rpc-port", help="rpc server port", type=int, default=5500)
    parser.add_argument("--key", help="oauth consumer key; without one no token is asked for")
    parser.add_argument("--secret", help="oauth consumer secret")
    args = parser.parse_args()
    client = IrisRpcClient(args.host, args.http_transport, args.http_port, args.rpc_port)
    token = client.get_token(args.key, args.secret) if args.key else ""
    print(client.call_rpc(token))


if __name__ == "__main__":
    main()
