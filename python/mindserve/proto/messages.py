"""Message classes of ``protos/ms_service.proto``, made when imported."""

from mindserve.proto import PACKAGE
from mindserve.proto.pool import POOL, message_class

ErrorMsg = message_class(f"{PACKAGE}.ErrorMsg")
Instance = message_class(f"{PACKAGE}.Instance")
PredictReply = message_class(f"{PACKAGE}.PredictReply")
PredictRequest = message_class(f"{PACKAGE}.PredictRequest")
ServableSpec = message_class(f"{PACKAGE}.ServableSpec")
Tensor = message_class(f"{PACKAGE}.Tensor")
TensorShape = message_class(f"{PACKAGE}.TensorShape")

DATA_TYPES = {value.name: value.number for value in POOL.FindEnumTypeByName(f"{PACKAGE}.DataType").values}
