"""Message classes of ``protos/ms_service.proto``, made when imported.

They are built from the file's descriptor instead of by protoc's generated code, whose version must match the protobuf
runtime that is installed; and in a pool of their own, so that a process may also import a stub that somebody generated
from the same file, or from MindSpore Serving's, under whatever name.
"""

from google.protobuf import descriptor_pool, message_factory

from mindserve.proto import PACKAGE
from mindserve.proto.descriptor import FILE_DESCRIPTOR

_pool = descriptor_pool.DescriptorPool()
_pool.AddSerializedFile(FILE_DESCRIPTOR)


def _message(name: str):
    return message_factory.GetMessageClass(_pool.FindMessageTypeByName(f"{PACKAGE}.{name}"))


ErrorMsg = _message("ErrorMsg")
Instance = _message("Instance")
PredictReply = _message("PredictReply")
PredictRequest = _message("PredictRequest")
ServableSpec = _message("ServableSpec")
Tensor = _message("Tensor")
TensorShape = _message("TensorShape")

DATA_TYPES = {value.name: value.number for value in _pool.FindEnumTypeByName(f"{PACKAGE}.DataType").values}
