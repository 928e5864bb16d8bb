"""Messages and stubs of Ray Serve's services (``protos/ray_serve.proto``), so that no user needs to generate them.

    channel = grpc.insecure_channel("localhost:9000")
    stub = RayServeAPIServiceStub(channel)
    print(stub.ListApplications(ListApplicationsRequest()).application_names)

A stub's methods are the channel's multi-callables: of a ``grpc.aio`` channel they are awaited.
"""

from mindserve.proto.pool import message_class

_PACKAGE = "ray.serve"

PredictRequest = message_class(f"{_PACKAGE}.PredictRequest")
PredictResponse = message_class(f"{_PACKAGE}.PredictResponse")
ListApplicationsRequest = message_class(f"{_PACKAGE}.ListApplicationsRequest")
ListApplicationsResponse = message_class(f"{_PACKAGE}.ListApplicationsResponse")
HealthzRequest = message_class(f"{_PACKAGE}.HealthzRequest")
HealthzResponse = message_class(f"{_PACKAGE}.HealthzResponse")


def _unary(channel, path, request, response):
    return channel.unary_unary(
        path, request_serializer=request.SerializeToString, response_deserializer=response.FromString
    )


class PredictAPIsServiceStub:
    """Asks the servable that has declared a driver.

    Args:
        channel: a ``grpc`` or ``grpc.aio`` channel.
    """

    def __init__(self, channel):
        service = f"/{_PACKAGE}.PredictAPIsService"
        self.Predict = _unary(channel, f"{service}/Predict", PredictRequest, PredictResponse)


class RayServeAPIServiceStub:
    """Asks which servables there are, and whether the server is well.

    Args:
        channel: a ``grpc`` or ``grpc.aio`` channel.
    """

    def __init__(self, channel):
        service = f"/{_PACKAGE}.RayServeAPIService"
        self.ListApplications = _unary(
            channel, f"{service}/ListApplications", ListApplicationsRequest, ListApplicationsResponse
        )
        self.Healthz = _unary(channel, f"{service}/Healthz", HealthzRequest, HealthzResponse)
