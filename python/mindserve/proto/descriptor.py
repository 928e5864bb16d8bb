"""Written by protos/generate.py from protos/ms_service.proto: do not edit."""

# ruff: noqa
# fmt: off
FILE_DESCRIPTOR = (
    b'\n\x10ms_service.proto\x12\x17mindspore.serving.pr'
    b'oto"\x84\x01\n\x0ePredictRequest\x12<\n\rservable_spec\x18'
    b'\x01 \x01(\x0b2%.mindspore.serving.proto.Servable'
    b'Spec\x124\n\tinstances\x18\x02 \x03(\x0b2!.mindspore.serv'
    b'ing.proto.Instance"\xb8\x01\n\x0cPredictReply\x12<\n\rs'
    b'ervable_spec\x18\x01 \x01(\x0b2%.mindspore.serving.p'
    b'roto.ServableSpec\x124\n\tinstances\x18\x03 \x03(\x0b2!.m'
    b'indspore.serving.proto.Instance\x124\n\terror'
    b'_msg\x18\x04 \x03(\x0b2!.mindspore.serving.proto.Err'
    b'orMsg"1\n\x08ErrorMsg\x12\x12\n\nerror_code\x18\x01 \x01(\x03\x12\x11\n'
    b'\terror_msg\x18\x02 \x01(\x0c"I\n\x0cServableSpec\x12\x0c\n\x04name'
    b'\x18\x01 \x01(\t\x12\x13\n\x0bmethod_name\x18\x02 \x01(\t\x12\x16\n\x0eversion_n'
    b'umber\x18\x03 \x01(\x04"\x96\x01\n\x08Instance\x12;\n\x05items\x18\x01 \x03(\x0b2'
    b',.mindspore.serving.proto.Instance.Items'
    b'Entry\x1aM\n\nItemsEntry\x12\x0b\n\x03key\x18\x01 \x01(\t\x12.\n\x05valu'
    b'e\x18\x02 \x01(\x0b2\x1f.mindspore.serving.proto.Tensor'
    b':\x028\x01"\x1b\n\x0bTensorShape\x12\x0c\n\x04dims\x18\x01 \x03(\x03"\xa1\x01\n\x06Te'
    b'nsor\x123\n\x05shape\x18\x01 \x01(\x0b2$.mindspore.serving.'
    b'proto.TensorShape\x120\n\x05dtype\x18\x02 \x01(\x0e2!.minds'
    b'pore.serving.proto.DataType\x12\x0e\n\x04data\x18\x03 \x01('
    b'\x0cH\x00\x12\x11\n\tbytes_val\x18\x04 \x03(\x0cB\r\n\x0btensor_data*\xe6\x01'
    b'\n\x08DataType\x12\x0e\n\nMS_UNKNOWN\x10\x00\x12\x0b\n\x07MS_BOOL\x10\x01\x12'
    b'\x0b\n\x07MS_INT8\x10\x02\x12\x0c\n\x08MS_UINT8\x10\x03\x12\x0c\n\x08MS_INT16\x10\x04'
    b'\x12\r\n\tMS_UINT16\x10\x05\x12\x0c\n\x08MS_INT32\x10\x06\x12\r\n\tMS_UINT'
    b'32\x10\x07\x12\x0c\n\x08MS_INT64\x10\x08\x12\r\n\tMS_UINT64\x10\t\x12\x0e\n\nMS_'
    b'FLOAT16\x10\n\x12\x0e\n\nMS_FLOAT32\x10\x0b\x12\x0e\n\nMS_FLOAT64\x10'
    b'\x0c\x12\r\n\tMS_STRING\x10\r\x12\x0c\n\x08MS_BYTES\x10\x0e2f\n\tMSServ'
    b"ice\x12Y\n\x07Predict\x12'.mindspore.serving.proto"
    b'.PredictRequest\x1a%.mindspore.serving.prot'
    b'o.PredictReplyb\x06proto3'
)
