"""Two messages of four floats, as a generated module would have them."""

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

_file = descriptor_pb2.FileDescriptorProto(name="four.proto", package="mindserve.bench", syntax="proto3")
for _name in ("Four", "Handled"):
    _message = _file.message_type.add(name=_name)
    for _number in range(1, 5):
        _message.field.add(name=f"f{_number}", number=_number, type="TYPE_FLOAT", label="LABEL_OPTIONAL")
_pool = descriptor_pool.DescriptorPool()
_pool.AddSerializedFile(_file.SerializeToString())

Four = message_factory.GetMessageClass(_pool.FindMessageTypeByName("mindserve.bench.Four"))
Handled = message_factory.GetMessageClass(_pool.FindMessageTypeByName("mindserve.bench.Handled"))
