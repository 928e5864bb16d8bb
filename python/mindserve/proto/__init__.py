"""The built-in services, of ``protos/``: `messages` has those of Predict, `ray_serve` those of Ray Serve's services.

Importing this needs neither protobuf nor grpc.
"""

PACKAGE = "mindspore.serving.proto"
PREDICT = f"/{PACKAGE}.MSService/Predict"
PREDICT_STREAM = "/mindserve.StreamService/PredictStream"
