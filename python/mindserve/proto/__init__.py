"""The service of ``protos/ms_service.proto``; its messages are in `mindserve.proto.messages`."""

PACKAGE = "mindspore.serving.proto"
PREDICT = f"/{PACKAGE}.MSService/Predict"
