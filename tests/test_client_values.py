"""What the client makes of Python values, and of the bytes of replies."""

import enum

import numpy as np
import pytest
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.message import DecodeError, Message

from mindserve.client.decoding import decode_reply
from mindserve.client.dtypes import MS_BYTES, MS_STRING, NUMERIC
from mindserve.client.encoding import as_instances, encode_request, encode_spec
from mindserve.errors import MindserveError
from mindserve.proto.messages import ErrorMsg, Instance, PredictReply, PredictRequest, Tensor, TensorShape

SPEC = encode_spec("s", "m", 0)


def sent(value) -> Tensor:
    request = PredictRequest.FromString(encode_request(SPEC, [{"x": value}]))
    (instance,) = request.instances
    return instance.items["x"]


def returned(value):
    """What comes back from a method that returns its input."""
    request = PredictRequest.FromString(encode_request(SPEC, [{"x": value}]))
    (result,) = decode_reply(PredictReply(instances=request.instances).SerializeToString(), 1)
    return result["x"]


def reply_of(tensor: Tensor) -> bytes:
    reply = PredictReply()
    reply.instances.add().items["y"].CopyFrom(tensor)
    return reply.SerializeToString()


@pytest.mark.parametrize("kind", NUMERIC, ids=lambda kind: np.dtype(kind).name)
@pytest.mark.parametrize("shape", [(1,), (3,), (2, 3), (1, 1, 1), (0,), (2, 0, 3), (33, 65)])
def test_arrays_come_back_as_they_went(kind, shape):
    value = (np.arange(np.prod(shape)) % 3).astype(kind).reshape(shape)
    tensor = sent(value)
    assert tensor.dtype == NUMERIC[kind]
    assert tuple(tensor.shape.dims) == shape
    assert tensor.data == value.tobytes()
    assert tensor.WhichOneof("tensor_data") == "data"
    result = returned(value)
    assert result.dtype == value.dtype
    assert result.dtype.isnative
    np.testing.assert_array_equal(result, value, strict=True)


@pytest.mark.parametrize("kind", NUMERIC, ids=lambda kind: np.dtype(kind).name)
def test_numpy_numbers_come_back_as_numbers_of_the_same_type(kind):
    tensor = sent(kind(1))
    assert list(tensor.shape.dims) == []
    result = returned(kind(1))
    assert type(result) is kind
    assert result == 1


def test_an_array_without_dimensions_comes_back_as_a_number():
    assert type(returned(np.array(2.5, np.float32))) is np.float32


@pytest.mark.parametrize(
    ("value", "dtype", "expected"),
    [
        (True, 1, np.array([True])),
        (False, 1, np.array([False])),
        (5, 8, np.array([5], np.int64)),
        (-(2**63), 8, np.array([-(2**63)], np.int64)),
        (2**63 - 1, 8, np.array([2**63 - 1], np.int64)),
        (0.1, 12, np.array([0.1], np.float64)),
        (enum.IntEnum("Colour", ["RED"]).RED, 8, np.array([1], np.int64)),
    ],
)
def test_python_numbers_travel_as_arrays_of_one(value, dtype, expected):
    assert sent(value).dtype == dtype
    np.testing.assert_array_equal(returned(value), expected, strict=True)


@pytest.mark.parametrize(
    "text", ["", "a", "tabby, tabby cat", "čaj 茶 🍵", "with\0zeros\0", "x" * 300, np.str_("numpy")]
)
def test_text_comes_back(text):
    tensor = sent(text)
    assert (tensor.dtype, list(tensor.shape.dims)) == (MS_STRING, [1])
    assert returned(text) == text


@pytest.mark.parametrize("data", [b"", b"\0", bytes(range(256)) * 100, np.bytes_(b"numpy")])
def test_bytes_come_back(data):
    tensor = sent(data)
    assert (tensor.dtype, list(tensor.shape.dims)) == (MS_BYTES, [1])
    assert returned(data) == data


@pytest.mark.parametrize("shape", [(2,), (2, 3), (0,), (1, 1)])
def test_arrays_of_text_come_back_as_arrays_of_objects(shape):
    value = np.array([f"é{number}" for number in range(int(np.prod(shape)))], "U3").reshape(shape)
    result = returned(value)
    assert result.dtype == object
    assert result.shape == shape
    assert result.tolist() == value.tolist()
    encoded = np.char.encode(value, "utf-8") if value.size else value.astype("S")
    assert sent(encoded).dtype == MS_BYTES
    assert returned(encoded).tolist() == encoded.tolist()


def test_an_array_of_one_text_comes_back_as_text():
    assert returned(np.array(["a"])) == "a"
    assert returned(np.array("a")) == "a"
    assert returned(np.array([b"a"])) == b"a"


BASE = np.arange(24, dtype=np.int32).reshape(4, 6)


@pytest.mark.parametrize(
    "value",
    [
        np.asfortranarray(BASE),
        BASE.T,
        BASE[::2, 1::3],
        BASE[::-1, ::-1],
        np.broadcast_to(np.int32(7), (3, 3)),
        BASE.astype(">i4"),
        BASE.astype(">i4").T,
        np.arange(5, dtype=">u2"),
        np.arange(100_000, dtype=">f8")[::2],
        np.ones((300, 300), np.float32).T,
        np.lib.stride_tricks.as_strided(BASE, (3, 2), (4, 4)),
        np.frombuffer(b"\0" + BASE.tobytes(), np.int32, 24, 1),
    ],
    ids=str,
)
def test_any_layout_and_byte_order_travels_in_row_major_little_endian_form(value):
    little = value.dtype.newbyteorder("<")
    assert sent(value).data == value.astype(little).tobytes()
    result = returned(value)
    assert result.dtype == little
    np.testing.assert_array_equal(result, value)


def test_numbers_of_foreign_byte_order_travel_too():
    value = np.array([258], ">u2")[0]
    assert returned(value) == 258
    assert returned(np.array(258, ">u2")) == 258


def test_long_and_longlong_are_both_int64():
    for kind in ("l", "q"):
        assert sent(np.ones(2, kind)).dtype == NUMERIC[np.int64]


def test_subclasses_of_arrays_travel_as_arrays():
    class Named(np.ndarray):
        pass

    value = np.arange(4.0).view(Named)
    np.testing.assert_array_equal(returned(value), np.arange(4.0))


def test_a_caller_may_write_to_what_comes_back():
    result = returned(BASE)
    result += 1
    np.testing.assert_array_equal(result, BASE + 1)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ([1, 2], "Not support value type <class 'list'>"),
        ((1,), "Not support value type <class 'tuple'>"),
        (None, "Not support value type <class 'NoneType'>"),
        ({}, "Not support value type <class 'dict'>"),
        (1j, "Not support value type <class 'complex'>"),
        (np.array([None]), "Unknown data type object"),
        (np.array(["a", "b"], object), "Unknown data type object"),
        (np.array([1j]), "Unknown data type complex128"),
        (np.datetime64("2020-01-01"), "Unknown data type datetime64"),
        (np.zeros(2, [("a", "i4")]), "Unknown data type void"),
        (2**63, "The int 9223372036854775808 is outside the range of int64"),
        ("\ud800", "cannot be written as UTF-8"),
        (np.array(["\ud800"]), "cannot be written as UTF-8"),
    ],
)
def test_what_cannot_be_sent_is_named_with_its_place(value, text):
    with pytest.raises(RuntimeError, match="instance 1") as caught:
        encode_request(SPEC, [{"x": 1}, {"wrong": value}])
    assert text in str(caught.value)
    assert "'wrong'" in str(caught.value)


def test_names_must_be_text():
    with pytest.raises(MindserveError, match="should be str, but actually <class 'int'>"):
        encode_request(SPEC, [{1: 1}])
    with pytest.raises(MindserveError, match="UTF-8"):
        encode_request(SPEC, [{"\ud800": 1}])


@pytest.mark.parametrize("instances", ["text", 1, None, {1, 2}, np.ones(2)])
def test_instances_must_be_a_dict_or_a_sequence(instances):
    with pytest.raises(RuntimeError, match="should be dict or tuple/list of dict, but actually <class"):
        as_instances(instances)


def test_each_instance_must_be_a_dict():
    with pytest.raises(RuntimeError, match=r"should be dict, but actually <class 'list'> at index 1"):
        encode_request(SPEC, [{}, []])


@pytest.mark.parametrize("size", [0, 1, 126, 127, 128, 129, 16_383, 16_384, 70_000, 2_100_000])
def test_lengths_around_the_steps_of_their_encoding(size):
    data = b"x" * size
    request = PredictRequest.FromString(
        encode_request(SPEC, [{"a": data, "n" * min(size, 20_000): np.ones(size, "u1")}])
    )
    items = request.instances[0].items
    assert items["a"].bytes_val[0] == data
    assert items["n" * min(size, 20_000)].data == b"\1" * size


@pytest.mark.parametrize("version", [0, 1, 127, 128, 2**64 - 1])
def test_the_spec(version):
    request = PredictRequest.FromString(encode_request(encode_spec("sé", "m" * 200, version), []))
    assert request.servable_spec.name == "sé"
    assert request.servable_spec.method_name == "m" * 200
    assert request.servable_spec.version_number == version


def test_many_instances_with_many_names():
    instances = [{f"x{name}": np.full((name,), index, np.float32) for name in range(index % 5)} for index in range(500)]
    request = PredictRequest.FromString(encode_request(SPEC, instances))
    results = decode_reply(PredictReply(instances=request.instances).SerializeToString(), 500)
    for instance, result in zip(instances, results, strict=True):
        assert instance.keys() == result.keys()
        for name, value in instance.items():
            np.testing.assert_array_equal(result[name], value, strict=True)


def error(code: int, text: bytes = b"") -> ErrorMsg:
    return ErrorMsg(error_code=code, error_msg=text)


def test_one_error_with_a_code_is_that_of_the_whole_request():
    text = "Request Servable(add) method(x), method is not available"
    reply = PredictReply(error_msg=[error(2, text.encode())])
    assert decode_reply(reply.SerializeToString(), 3) == {"error": text}
    assert decode_reply(reply.SerializeToString(), 1) == {"error": text}


def test_as_many_errors_as_instances_stand_in_their_places():
    good = Instance()
    good.items["y"].CopyFrom(Tensor(shape=TensorShape(dims=[1]), dtype=MS_STRING, bytes_val=[b"ok"]))
    reply = PredictReply(instances=[good, Instance(), good], error_msg=[error(0), error(2, b"no \xff"), error(0)])
    assert decode_reply(reply.SerializeToString(), 3) == [{"y": "ok"}, {"error": "no �"}, {"y": "ok"}]


def test_one_error_without_a_code_is_a_success():
    reply = PredictReply(instances=[Instance()], error_msg=[error(0)])
    assert decode_reply(reply.SerializeToString(), 1) == [{}]


def test_no_instances_have_no_results():
    assert decode_reply(b"", 0) == []


@pytest.mark.parametrize(
    "reply",
    [
        PredictReply(),
        PredictReply(instances=[Instance()]),
        PredictReply(instances=[Instance()] * 3),
        PredictReply(instances=[Instance()] * 2, error_msg=[error(0)] * 3),
        PredictReply(error_msg=[error(0)] * 2),
    ],
)
def test_a_reply_that_does_not_fit_the_request_is_an_error(reply):
    result = decode_reply(reply.SerializeToString(), 2)
    assert isinstance(result, dict)
    assert "the request 2 instances" in result["error"]


def test_bytes_that_are_no_reply_are_an_error():
    assert decode_reply(b"\xff\xff", 1) == {"error": "The reply of 2 bytes is not a PredictReply message"}


@pytest.mark.parametrize(
    "tensor",
    [
        Tensor(shape=TensorShape(dims=[2]), dtype=11, data=b"\0" * 7),
        Tensor(shape=TensorShape(dims=[2]), dtype=11, data=b"\0" * 9),
        Tensor(shape=TensorShape(dims=[2]), dtype=11),
        Tensor(shape=TensorShape(dims=[-1, -2]), dtype=11, data=b"\0" * 8),
        Tensor(shape=TensorShape(dims=[2**62, 2**62]), dtype=3, data=b""),
        Tensor(shape=TensorShape(dims=[0, 2**62, 2**62]), dtype=3, data=b""),
        Tensor(shape=TensorShape(dims=[1] * 100), dtype=3, data=b"\0"),
        Tensor(dtype=11, data=b""),
        Tensor(dtype=0, data=b""),
        Tensor(dtype=77, data=b""),
        Tensor(shape=TensorShape(dims=[1]), dtype=MS_STRING),
        Tensor(shape=TensorShape(dims=[2]), dtype=MS_BYTES, bytes_val=[b"a"]),
        Tensor(shape=TensorShape(dims=[0, 2**62, 2**62]), dtype=MS_BYTES),
        Tensor(shape=TensorShape(dims=[1] * 100), dtype=MS_BYTES, bytes_val=[b"a"]),
        Tensor(shape=TensorShape(dims=[1]), dtype=MS_STRING, bytes_val=[b"\xff"]),
    ],
    ids=str,
)
def test_a_tensor_that_contradicts_itself_is_an_error_in_its_place(tensor):
    (result,) = decode_reply(reply_of(tensor), 1)
    assert result.keys() == {"error"}
    assert "The output 'y' of the reply is malformed" in result["error"]


def long_form(size: int) -> bytes:
    return bytes([size & 0x7F | 0x80, size >> 7])


def test_forms_that_other_writers_of_protobuf_may_choose():
    key, unknown = (
        b"\x0a\x01y",
        b"\xfa\x7f\x02hi" + b"\x98\x06\x96\x01" + b"\xa1\x06" + bytes(8) + b"\xad\x06" + bytes(4),
    )
    # Dimensions each in a field of its own, lengths and tags with needless bytes, the fields of a tensor in any order.
    shape = b"\x08\x02" + unknown + b"\x88\x00\x01"
    tensor = b"\x1a\x82\x00\x05\x06" + unknown + b"\x10\x83\x00" + b"\x0a" + bytes([len(shape)]) + shape
    item = b"\x12" + bytes([len(tensor)]) + tensor + key
    instance = unknown + b"\x0a" + long_form(len(item)) + item
    data = b"\x1a" + long_form(len(instance)) + instance + unknown
    parsed = PredictReply.FromString(data)
    assert parsed.instances[0].items["y"].data == b"\5\6"
    (result,) = decode_reply(data, 1)
    np.testing.assert_array_equal(result["y"], np.array([[5], [6]], np.uint8), strict=True)


@pytest.mark.parametrize(
    "data",
    [
        b"\x1a",
        b"\x1a\x05",
        b"\x1a\x80",
        b"\x1b",
        b"\x1c",
        b"\x21\0",
        b"\x25\0",
        b"\x18" + b"\xff" * 11,
        b"\x1a" + b"\xff" * 9 + b"\x01",
        # Within the reply, but over the end of the message that they are in.
        b"\x1a\x02\x0a\x05" + bytes(20),
        b"\x1a\x04\x0a\x02\x12\x05" + bytes(20),
    ],
    ids=bytes.hex,
)
def test_broken_bytes_are_an_error(data):
    with pytest.raises(DecodeError):
        PredictReply.FromString(data)
    assert decode_reply(data, 1) == {"error": f"The reply of {len(data)} bytes is not a PredictReply message"}


@pytest.mark.parametrize(
    "item",
    [
        b"",
        b"\x0a\x01y",
        b"\x12\x02\x10\x0b",
        b"\x0a\x01y\x12\x02\x10\x0b\x12\x02\x10\x0b",
        b"\x0a\x01y\x12\x02\x10\x0b\x18\x00",
        b"\x0a\x01y\x12\x02\x10\x0b\x00\x00",
        b"\x0a\x01y\x12\x02\x10\x0b\x88\x80\x80\x80\x10\x00",
    ],
    ids=["empty", "no tensor", "no name", "two tensors", "field 3", "field 0", "a tag of 33 bits"],
)
def test_an_item_is_one_name_and_one_tensor(item):
    data = b"\x1a" + bytes([len(item) + 2]) + b"\x0a" + bytes([len(item)]) + item
    assert decode_reply(data, 1) == {"error": f"The reply of {len(data)} bytes is not a PredictReply message"}


def test_a_shape_in_two_parts_is_one():
    tensor = b"\x0a\x03\x0a\x01\x02" + b"\x10\x03" + b"\x1a\x06abcdef" + b"\x0a\x03\x0a\x01\x03"
    assert list(Tensor.FromString(tensor).shape.dims) == [2, 3]
    item = b"\x0a\x01y\x12" + bytes([len(tensor)]) + tensor
    (result,) = decode_reply(b"\x1a" + bytes([len(item) + 2]) + b"\x0a" + bytes([len(item)]) + item, 1)
    np.testing.assert_array_equal(result["y"], np.frombuffer(b"abcdef", np.uint8).reshape(2, 3), strict=True)


def test_values_of_one_name_may_change_their_type_and_shape_from_call_to_call():
    values = [
        np.arange(4, dtype=np.float32).reshape(2, 2),
        np.arange(4, dtype=np.int32).reshape(2, 2),
        np.arange(4, dtype=np.int32),
        np.arange(4, dtype=np.int32).reshape(4, 1),
        np.arange(2, dtype=np.float64),
        np.arange(16, dtype=np.uint8).reshape(1, 16),
        np.array([1, 2, 3, 4], ">i4"),
        np.int32(1),
        np.array(["a", "b"]),
        np.zeros((0, 4), np.int32),
    ]
    for value in values * 2:
        result = returned(value)
        assert result.dtype == (object if value.dtype.kind == "U" else value.dtype.newbyteorder("="))
        assert result.shape == value.shape
        assert result.tolist() == value.tolist()


@pytest.mark.parametrize("size", [b"\x04", b"\x84\x00"], ids=["one byte", "two bytes"])
def test_the_length_of_a_shape_may_have_needless_bytes(size):
    # Long enough that the bytes after the shape could be taken for more of it.
    data = bytes(range(200))
    tensor = b"\x0a" + size + b"\x0a\x02\xc8\x01" + b"\x10\x03" + b"\x1a\xc8\x01" + data
    item = b"\x0a\x01y\x12" + long_form(len(tensor)) + tensor
    instance = b"\x0a" + long_form(len(item)) + item
    (result,) = decode_reply(b"\x1a" + long_form(len(instance)) + instance, 1)
    np.testing.assert_array_equal(result["y"], np.arange(200, dtype=np.uint8), strict=True)


def reply_without_spec() -> type[Message]:
    """PredictReply without the field that the client skips, whatever is in it."""
    file = descriptor_pb2.FileDescriptorProto()
    PredictReply.DESCRIPTOR.file.CopyToProto(file)
    (message,) = (message for message in file.message_type if message.name == "PredictReply")
    (field,) = (field for field in message.field if field.name == "servable_spec")
    message.field.remove(field)
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName(PredictReply.DESCRIPTOR.full_name))


ReplyWithoutSpec = reply_without_spec()


def read_by_protobuf(data: bytes) -> dict[str, object] | None:
    """The one instance of a reply, as protobuf reads it, or None where it does not."""
    try:
        reply = ReplyWithoutSpec.FromString(data)
    except DecodeError:
        return None
    if len(reply.instances) != 1 or len(reply.error_msg) > 1 or any(error.error_code for error in reply.error_msg):
        return None
    kinds = {number: np.dtype(kind) for kind, number in NUMERIC.items()}
    values: dict[str, object] = {}
    for name, tensor in reply.instances[0].items.items():
        try:
            if tensor.dtype in kinds:
                values[name] = np.frombuffer(tensor.data, kinds[tensor.dtype]).reshape(tuple(tensor.shape.dims))
            elif tensor.dtype in (MS_STRING, MS_BYTES):
                texts = [text.decode() if tensor.dtype == MS_STRING else text for text in tensor.bytes_val]
                values[name] = np.array(texts, object).reshape(tuple(tensor.shape.dims))
            else:
                return None
        except ValueError:
            return None
    return values


@pytest.mark.parametrize(
    "instance",
    [
        {"x": np.arange(1, 5, dtype=np.float32).reshape(2, 2)},
        {"x": np.arange(4, dtype=np.uint8), "t": "text"},
        {"x": np.float32(1.5), "e": np.zeros((0, 3), np.int64)},
        {"b": np.array([b"ab", b"c"]), "n": 5},
    ],
    ids=lambda instance: ",".join(instance),
)
def test_a_cut_or_altered_reply_is_read_as_protobuf_reads_it_or_is_an_error(instance):
    request = PredictRequest.FromString(encode_request(SPEC, [instance]))
    data = PredictReply(instances=request.instances, error_msg=[error(0, b"fine")]).SerializeToString()
    replies = [data[:end] for end in range(len(data))]
    replies += [data[:at] + bytes([byte]) + data[at + 1 :] for at in range(len(data)) for byte in range(256)]
    answers = 0
    for altered in replies:
        result = decode_reply(altered, 1)
        if isinstance(result, dict) or "error" in result[0]:
            continue
        answers += 1
        expected = read_by_protobuf(altered)
        assert expected is not None, altered
        assert result[0].keys() == expected.keys(), altered
        for name, value in result[0].items():
            # Bit for bit: an altered number may be none.
            if isinstance(value, np.ndarray | np.generic) and value.dtype != object:
                assert (value.dtype, value.shape) == (expected[name].dtype, expected[name].shape), altered
                assert value.tobytes() == expected[name].tobytes(), altered
            else:
                assert np.array(value, object).ravel().tolist() == expected[name].ravel().tolist(), altered
    # Where only the data is altered, the reply is as good as before.
    assert answers >= 256
