"""Messages and stub of Seldon's Classifier (``protos/seldon.proto``), so that no user needs to generate them.

    channel = grpc.insecure_channel("localhost:5500")
    data = any_pb2.Any()
    data.Pack(IrisPredictRequest(f1=1.0, f2=0.2, f3=2.1, f4=1.2))
    request = ClassificationRequest(meta=ClassificationRequestMeta(puid="12345"), data=data)
    print(ClassifierStub(channel).Predict(request, 10))

A stub's methods are the channel's multi-callables: of a ``grpc.aio`` channel they are awaited.

``data`` and ``custom`` are the ``Any`` of ``google.protobuf.any_pb2``. For that the classes are of protobuf's own pool,
where a stub that somebody generated from the same file may be, too: so descriptors call them ``mindserve.seldon.…``.
On the wire nothing has a name.
"""

from google.protobuf import any_pb2, descriptor_pb2, descriptor_pool, message_factory

from mindserve.proto.pool import POOL

_PACKAGE = "io.seldon.api.rpc"
_OWN_PACKAGE = "mindserve.seldon"


def _add_file():
    """Adds ``protos/seldon.proto`` to the pool, under the other name and without its service."""
    file = descriptor_pb2.FileDescriptorProto()
    POOL.FindFileByName("seldon.proto").CopyToProto(file)
    file.name = "mindserve/seldon.proto"
    file.package = _OWN_PACKAGE
    file.dependency[:] = [any_pb2.DESCRIPTOR.name]
    file.ClearField("service")
    file.ClearField("options")
    for message in file.message_type:
        for field in message.field:
            if field.type_name.startswith(f".{_PACKAGE}."):
                field.type_name = f".{_OWN_PACKAGE}.{field.type_name.rpartition('.')[2]}"
    descriptor_pool.Default().AddSerializedFile(file.SerializeToString())


def _message_class(name):
    descriptor = descriptor_pool.Default().FindMessageTypeByName(f"{_OWN_PACKAGE}.{name}")
    return message_factory.GetMessageClass(descriptor)


_add_file()
ClassificationRequest = _message_class("ClassificationRequest")
ClassificationRequestMeta = _message_class("ClassificationRequestMeta")
ClassificationReply = _message_class("ClassificationReply")
ClassificationReplyMeta = _message_class("ClassificationReplyMeta")
ClassificationResult = _message_class("ClassificationResult")


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
