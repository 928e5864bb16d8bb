"""Messages and stub of Seldon's Classifier (``protos/seldon.proto``), so that no user needs to generate them.

    channel = grpc.insecure_channel("localhost:5500")
    request = ClassificationRequest(meta=ClassificationRequestMeta(puid="12345"))
    request.data.Pack(IrisPredictRequest(f1=1.0, f2=0.2, f3=2.1, f4=1.2))
    print(ClassifierStub(channel).Predict(request, 10))

A stub's methods are the channel's multi-callables: of a ``grpc.aio`` channel they are awaited.
"""

from mindserve.proto.pool import message_class

_PACKAGE = "io.seldon.api.rpc"

ClassificationRequest = message_class(f"{_PACKAGE}.ClassificationRequest")
ClassificationRequestMeta = message_class(f"{_PACKAGE}.ClassificationRequestMeta")
ClassificationReply = message_class(f"{_PACKAGE}.ClassificationReply")
ClassificationReplyMeta = message_class(f"{_PACKAGE}.ClassificationReplyMeta")
ClassificationResult = message_class(f"{_PACKAGE}.ClassificationResult")


class ClassifierStub:
    """Asks the servable that answers the Classifier, or that metadata ``application`` names.

    Args:
        channel: a ``grpc`` or ``grpc.aio`` channel.
    """

    def __init__(self, channel):
        self.Predict = channel.unary_unary(
            f"/{_PACKAGE}.Classifier/Predict",
            request_serializer=ClassificationRequest.SerializeToString,
            response_deserializer=ClassificationReply.FromString,
        )
