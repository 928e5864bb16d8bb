"""Calls the methods of user_defined_protos.proto, all of them or those that are named."""

import argparse
import pathlib

import grpc
from image_server import serving_images
from user_defined_protos_pb2 import ImageData, UserDefinedMessage, UserDefinedMessage2
from user_defined_protos_pb2_grpc import ImageClassificationServiceStub, UserDefinedServiceStub

from mindserve.proto.ray_serve import HealthzRequest, ListApplicationsRequest, RayServeAPIServiceStub


def call(channel, args):
    """One message each way. Which servable answers must be said if several could: "app1" and "context" here."""
    stub = UserDefinedServiceStub(channel)
    request = UserDefinedMessage(name="foo", num=30, origin="bar")

    metadata = (("application", args.application),) if args.application else ()
    response, call = stub.__call__.with_call(request=request, metadata=metadata)
    print(f"status code: {call.code()}")
    print(f"greeting: {response.greeting}")
    print(f"num: {response.num}")


def health(channel, args):
    """The services of the server itself."""
    stub = RayServeAPIServiceStub(channel)

    response = stub.ListApplications(ListApplicationsRequest())
    print(f"Applications: {list(response.application_names)}")

    response = stub.Healthz(HealthzRequest())
    print(f"Health: {response.message}")


def metadata(channel, args):
    """A model by its id, of those that app1 loads on demand; a request id that comes back."""
    stub = UserDefinedServiceStub(channel)
    request = UserDefinedMessage2()
    metadata = (("application", "app1"), ("request_id", "123"), ("multiplexed_model_id", "999"))

    response, call = stub.Multiplexing.with_call(request=request, metadata=metadata)
    print(f"greeting: {response.greeting}")
    for key, value in call.trailing_metadata():
        print(f"trailing metadata key: {key}, value {value}")


def streaming(channel, args):
    """Many messages back."""
    stub = UserDefinedServiceStub(channel)
    request = UserDefinedMessage(name="foo", num=30, origin="bar")

    responses = stub.Streaming(request=request, metadata=(("application", "app1"),))
    for response in responses:
        print(f"greeting: {response.greeting}, num: {response.num}")


def client_streaming(channel, args):
    """Many messages there."""
    stub = UserDefinedServiceStub(channel)
    requests = (UserDefinedMessage(name=name, num=num) for num, name in enumerate(("foo", "bar", "baz")))

    response = stub.ClientStreaming(requests, metadata=(("application", "app1"),))
    print(f"greeting: {response.greeting}, num: {response.num}")


def bidirectional_streaming(channel, args):
    """Many messages there, and one back for each."""
    stub = UserDefinedServiceStub(channel)
    requests = (UserDefinedMessage(name=name, num=num) for num, name in enumerate(("foo", "bar", "baz")))

    for response in stub.BidirectionalStreaming(requests, metadata=(("application", "app1"),)):
        print(f"greeting: {response.greeting}, num: {response.num}")


def composition(channel, args):
    """Classes of pictures, which three servables find out together."""
    stub = ImageClassificationServiceStub(channel)

    with serving_images() as url:
        for picture in args.picture or ["waves.jpg", "sunset.jpg"]:
            address = picture if "://" in picture else f"{url}/{picture}"
            request = ImageData(url=address, filename=pathlib.PurePosixPath(picture).name)
            response, call = stub.Predict.with_call(request=request, metadata=(("application", "app2"),))
            print(f"status code: {call.code()}")
            print(f"classes: {list(response.classes)}")
            print(f"probabilities: {list(response.probabilities)}")


def errors(channel, args):
    """What is not OK is an exception."""
    stub = UserDefinedServiceStub(channel)
    request = UserDefinedMessage(name="foo", num=30, origin="bar")

    try:
        response = stub.__call__(request=request)
        print(f"greeting: {response.greeting}")
    except grpc.RpcError as rpc_error:
        print(f"status code: {rpc_error.code()}")
        print(f"details: {rpc_error.details()}")


def context(channel, args):
    """What a handler says about its answer: the first call for a name fails, and the next one doesn't."""
    stub = UserDefinedServiceStub(channel)
    request = UserDefinedMessage(name=args.name, num=30, origin="bar")
    metadata = (("application", "context"),)

    for _ in range(2):
        try:
            response, call = stub.__call__.with_call(request=request, metadata=metadata)
            print(f"greeting: {response.greeting}, num: {response.num}")
        except grpc.RpcError as rpc_error:
            call = rpc_error
        print(f"status code: {call.code()}")
        print(f"details: {call.details()}")
        for key, value in call.trailing_metadata():
            print(f"trailing metadata key: {key}, value {value}")


PARTS = (
    *(call, health, metadata, streaming, client_streaming, bidirectional_streaming),
    *(composition, errors, context),
)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--address", default="127.0.0.1:9000", help="host:port or unix:path (default: %(default)s)")
    parser.add_argument("--application", default="app1", help='what "call" asks; "" leaves it out (default: app1)')
    parser.add_argument("--name", default="foo", help='what "context" asks for (default: foo)')
    parser.add_argument(
        "--picture", action="append", help='what "composition" classifies: http://… or a name in images/'
    )
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"of {', '.join(part.__name__ for part in PARTS)}")
    args = parser.parse_args()

    parts = {part.__name__: part for part in PARTS}
    if unknown := set(args.parts) - set(parts):
        parser.error(f"no such part: {', '.join(sorted(unknown))}")
    with grpc.insecure_channel(args.address) as channel:
        for name in args.parts or parts:
            print(f"-- {name}")
            parts[name](channel, args)


if __name__ == "__main__":
    main()
