"""Message classes of the built-in services' .proto files.

They are built from descriptors instead of by protoc's generated code, whose version must match the protobuf runtime
that is installed; and in a pool of their own, so that a process may also import a stub that somebody generated from the
same file, or from MindSpore Serving's or Ray Serve's, under whatever name.
"""

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

from mindserve.proto.descriptor import FILE_DESCRIPTOR_SET

POOL = descriptor_pool.DescriptorPool()
for _file in descriptor_pb2.FileDescriptorSet.FromString(FILE_DESCRIPTOR_SET).file:
    POOL.AddSerializedFile(_file.SerializeToString())


def message_class(full_name: str):
    """The class of the message ``full_name``.

    Raises:
        KeyError: there is none of that name.
    """
    return message_factory.GetMessageClass(POOL.FindMessageTypeByName(full_name))
