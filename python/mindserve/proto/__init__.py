"""The built-in services, of ``protos/``.

`messages` has those of Predict, `ray_serve` those of Ray Serve's services, `seldon` those of Seldon's.
Importing this needs neither protobuf nor grpc.
"""

PACKAGE = "mindspore.serving.proto"
PREDICT = f"/{PACKAGE}.MSService/Predict"
CLASSIFY = "/io.seldon.api.rpc.Classifier/Predict"
PREDICT_STREAM = "/mindserve.StreamService/PredictStream"
