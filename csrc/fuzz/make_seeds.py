"""Write what the fuzzers begin with: messages as real clients and workers send them.

    python csrc/fuzz/make_seeds.py DIRECTORY

One folder a fuzzer, one file an input. They are what corpus/ was grown from; needed again only for a fuzzer that is
new, or whose input means something else than it did.
"""

from __future__ import annotations

import gzip
import json
import pathlib
import struct
import sys
import zlib
from collections.abc import Iterable, Iterator

import h2.config
import h2.connection

# -- Protobuf by hand, so that what is wrong can be written as well ----------------------------------------------------


def number(value: int) -> bytes:
    out = bytearray()
    while value >= 0x80:
        out.append(0x80 | value & 0x7F)
        value >>= 7
    return bytes([*out, value])


def varint(field: int, value: int) -> bytes:
    return number(field << 3) + number(value % (1 << 64))


def field(which: int, content: bytes | str) -> bytes:
    data = content.encode() if isinstance(content, str) else content
    return number(which << 3 | 2) + number(len(data)) + data


def tensor(dims: Iterable[int], dtype: int, data: bytes | None = None, texts: Iterable[bytes] = ()) -> bytes:
    packed = b"".join(number(dim % (1 << 64)) for dim in dims)
    out = field(1, field(1, packed)) + varint(2, dtype)
    if data is not None:
        out += field(3, data)
    return out + b"".join(field(4, text) for text in texts)


def instance(**items: bytes) -> bytes:
    return b"".join(field(1, field(1, name) + field(2, value)) for name, value in items.items())


def spec(name: str = "s", method: str = "add", version: int = 0) -> bytes:
    return field(1, name) + field(2, method) + (varint(3, version) if version else b"")


def request(*instances: bytes, route: bytes | None = None) -> bytes:
    return field(1, spec() if route is None else route) + b"".join(field(2, each) for each in instances)


FLOAT, STRING, BYTES = 11, 13, 14
FLOATS = struct.pack("<2f", 1, 2)
PAIR = instance(x1=tensor([2], FLOAT, FLOATS), x2=tensor([2], FLOAT, FLOATS))
MATRIX = instance(x1=tensor([2, 2], FLOAT, FLOATS * 2), x2=tensor([2, 2], FLOAT, FLOATS * 2))
TEXT = instance(s=tensor([1], STRING, texts=["hé".encode()]), x1=tensor([2], BYTES, texts=[b"", b"\xff\x00"]))


def requests() -> Iterator[bytes]:
    yield request(PAIR, PAIR)
    yield request(MATRIX)
    yield request(TEXT, PAIR, b"")
    yield request()
    yield request(PAIR, route=spec(version=300)) + field(1, field(2, "other")) + varint(100, 7)
    yield request(*(instance(x1=tensor([], dtype, bytes(8))) for dtype in range(16)))
    yield request(instance(x1=tensor([0, 3], FLOAT, b"")), instance(x1=tensor([-1], FLOAT, FLOATS)))
    yield request(instance(x1=tensor([1 << 62, 4], FLOAT, FLOATS)), instance(x1=tensor([1 << 40], STRING)))
    yield request(instance(x1=tensor([1030], FLOAT, bytes(4120))))


def replies() -> Iterator[bytes]:
    for each in requests():
        at = each.find(number(2 << 3 | 2), 2)
        yield field(1, spec()) + bytes(each[at:]).replace(number(2 << 3 | 2), number(3 << 3 | 2), 1)
    yield field(3, PAIR) + field(3, TEXT) + field(4, varint(1, 2) + field(2, "bad")) + field(4, b"")
    yield b"".join(field(3, instance(y=tensor([2], dtype, bytes([0, 0, 0xC0, 0x7F] * 4)))) for dtype in range(1, 15))
    yield field(4, varint(1, 99) + field(2, b"no \xff UTF-8"))


# -- JSON --------------------------------------------------------------------------------------------------------------


def bodies() -> Iterator[bytes]:
    for value in (
        1,
        -2147483648,
        0.5,
        1e-3,
        True,
        "x\n\u00e9",
        [[1, 2], [3, 4]],
        [[0.5, 1], [2, 3.25]],
        ["a", "b"],
        [True, False],
        {"b64": "AQACAA==", "type": "int16", "shape": [2, 1]},
        {"b64": "aGk="},
        {"b64": "AAAAAA==", "type": "float32"},
        [{"b64": "aGk="}, {"b64": ""}],
        None,
        [],
        [[[[[]]]]],
    ):
        yield json.dumps({"instances": [{"x": value}]}).encode()
    yield b'{"instances": [{"x": 1, "y": "a"}, {"x": 2, "y": "b"}], "other": [{"a": null}]}'
    yield b'{"instances": [{"x": 12345678901234567890123}, {"x": 1e999}]}'
    yield b'{"instances": {"x": [1, 2]}}'
    yield b"[" * 70


# -- Texts -------------------------------------------------------------------------------------------------------------


def with_size(text: bytes, size: str = "<H") -> bytes:
    return struct.pack(size, len(text)) + text


def fields_of(*pairs: tuple[str, bytes]) -> bytes:
    return b"".join(with_size(name.encode(), "<B") + with_size(value) for name, value in pairs)


def heads() -> Iterator[bytes]:
    common = ((":method", b"POST"), (":path", b"/t.Users/Unary"), ("content-type", b"application/grpc+proto"))
    yield fields_of(*common, ("te", b"trailers"), ("grpc-timeout", b"1S"), ("k", b"v"), ("k-bin", b"AAEC"))
    yield fields_of(*common, ("k-bin", b"AAEC, AwQ=,\tBQ"), ("k", b"50% \xc3\xa9"), ("k", b"again"))
    yield fields_of(*common, ("grpc-encoding", b"gzip"), ("grpc-accept-encoding", b"identity,gzip"), ("k-bin", b"!"))
    yield fields_of((":method", b"GET"), ("content-type", b"text/html"), ("grpc-timeout", b"x" * 100))
    yield fields_of(*common, *((f"k{i}", b"v" * 200) for i in range(20)))


def call_heads() -> Iterator[bytes]:
    pair = field(1, "k") + field(2, b"v\x00")
    yield field(1, "id") + field(2, "model") + field(3, "ipv4:1.2.3.4:5") + field(4, pair) + field(4, pair)
    yield field(1, "id") + field(5, field(1, "x509_common_name") + field(2, "c")) + varint(6, 3)
    yield field(1, "id") + varint(6, 2) + varint(7, 1 << 56 | 9) + varint(7, 3)
    yield field(1, "id") + varint(6, 2) + field(7, struct.pack("<2Q", 1 << 56 | 9, 3)) + field(7, number(1 << 60))
    yield field(1, "details") + field(2, pair) + field(2, pair)
    yield field(1, pair) + field(1, field(1, "k-bin") + field(2, bytes(range(20))))


def classifications() -> Iterator[bytes]:
    """How the reply is made, the fields that are inputs, and a request."""

    def packed(name: str, value: bytes, puid: bytes = b"p1") -> bytes:
        return field(1, field(1, puid)) + field(2, field(1, b"x/" + name.encode()) + field(2, value))

    def mapped(how: int, *inputs: tuple[int, bool, list[tuple[int, int]]]) -> bytes:
        out = bytes([how, len(inputs)])
        for dtype, repeated, fields in inputs:
            out += bytes([dtype - 1 | repeated << 4 | len(fields) << 5])
            out += b"".join(bytes(each) for each in fields)
        return out

    # The places of fuzz_classifier.cc's kTypes.
    double, single, int64, uint64, boolean, string, sint32 = 0, 1, 2, 3, 7, 8, 14
    vector = mapped(0, (FLOAT, False, [(i, single) for i in range(1, 5)]))
    four = b"".join(number(i << 3 | 5) + struct.pack("<f", i / 2) for i in range(1, 5))
    yield vector + packed("iris.Request", four)
    yield vector + packed("iris.Request", four[:5] * 3 + varint(100, 7), puid=b"")
    yield vector + packed("", four) + field(2, b"")
    numbers = struct.pack("<3d", 0, -1.5, float("nan"))
    classes = field(2, "a") + field(2, "b") + field(2, "hé")
    three = mapped(16 | 32, (12, True, [(1, double)]), (STRING, True, [(2, string)]), (12, True, [(3, double)]))
    yield three + packed("t.Three", field(1, numbers) + classes + field(3, numbers))
    custom = mapped(
        64 | 128,
        (9, True, [(1, uint64)]),
        (8, True, [(2, int64)]),
        (1, True, [(3, boolean)]),
        (BYTES, False, [(4, string)]),
    )
    yield custom + packed("t.Custom", field(1, number(300) * 2) + varint(2, -1) + varint(3, 1) + field(4, b"\x08\x01"))
    narrow = mapped(0, (3, False, [(1, int64)]), (2, False, [(2, sint32)]))
    yield narrow + packed("t.Narrow", varint(1, 255) + varint(2, 3))
    yield narrow + packed("t.Narrow", varint(1, 256))


def builtin() -> Iterator[bytes]:
    yield b""
    yield field(1, "s")
    yield field(7, "")
    yield field(1, "host") + field(3, "top.proto")
    yield field(4, "b.M.f")
    yield field(4, "t.S.Do")
    yield field(5, field(1, "b.M") + varint(2, 123))
    yield field(6, "b.M")


def descriptors() -> Iterator[bytes]:
    message = field(4, field(1, "M") + field(2, field(1, "f") + varint(3, 1)) + field(5, varint(1, 1) + varint(2, 9)))
    nested = field(4, field(1, "O") + field(3, field(1, "I") + field(8, field(1, "o"))))
    enum = field(5, field(1, "E") + field(2, field(1, "ZERO")))
    service = field(6, field(1, "S") + field(2, field(1, "Do")))
    extension = field(7, field(1, "x") + field(2, ".t.M") + varint(3, 123))
    package = field(2, "t")
    base = field(1, "base.proto") + package + message + enum + nested
    top = field(1, "top.proto") + package + field(3, "base.proto") + service + extension
    other = field(1, "base.proto") + package + service
    yield field(1, base) + field(1, top)
    yield field(1, base) + field(1, other) + field(1, top)
    yield field(1, top) + field(1, base)
    yield field(1, field(1, "self.proto") + field(3, "self.proto"))


# -- gRPC --------------------------------------------------------------------------------------------------------------


def framed(message: bytes, compressed: bool = False) -> bytes:
    return struct.pack(">BI", compressed, len(message)) + message


def framings() -> Iterator[bytes]:
    predict = next(requests())
    for piece in (1, 4, 255):
        for encoding, packed in (
            (0, None),
            (1, None),
            (2, gzip.compress(predict, mtime=0)),
            (3, zlib.compress(predict)),
        ):
            body = framed(predict) + (framed(packed, compressed=True) if packed else framed(b""))
            yield bytes([encoding, piece]) + body + framed(b"end")
    yield bytes([2, 255]) + framed(gzip.compress(bytes(1 << 19), mtime=0), compressed=True)
    yield bytes([3, 255]) + framed(zlib.compress(bytes(1 << 18)), compressed=True)
    yield bytes([0, 255]) + struct.pack(">BI", 0, 0x7FFFFFFF) + b"not so much"
    yield bytes([0, 255]) + framed(bytes(70000))


def headers(path: str, *more: tuple[str, str]) -> list[tuple[str, str]]:
    common = [(":method", "POST"), (":scheme", "http"), (":path", path), (":authority", "s"), ("te", "trailers")]
    return [*common, ("content-type", "application/grpc"), *more]


PREDICT = "/mindspore.serving.proto.MSService/Predict"
HEALTH = "/grpc.health.v1.Health/Check"


def connections() -> Iterator[bytes]:
    def client() -> h2.connection.H2Connection:
        made = h2.connection.H2Connection(h2.config.H2Configuration(client_side=True, header_encoding="utf-8"))
        made.initiate_connection()
        return made

    def call(of: h2.connection.H2Connection, path: str, *messages: bytes, ends: bool = True) -> int:
        stream = of.get_next_available_stream_id()
        of.send_headers(stream, headers(path))
        for message in messages:
            of.send_data(stream, framed(message))
        if ends:
            of.end_stream(stream)
        return stream

    one = client()
    call(one, PREDICT, next(requests()))
    call(one, HEALTH, b"")
    yield b"\xf0" + one.data_to_send()
    many = client()
    call(many, "/t.Users/Both", b"one", b"two")
    call(many, "/t.Users/Down", b"one")
    stream = call(many, "/t.Users/Up", b"one", ends=False)
    many.ping(b"12345678")
    many.increment_flow_control_window(1000)
    many.increment_flow_control_window(1000, stream)
    many.update_settings({4: 10, 1: 0})
    many.reset_stream(stream, 8)
    yield b"\x40" + many.data_to_send()
    gone = client()
    call(gone, "/nothing/Here", b"x")
    gone.close_connection()
    yield b"\xf4" + gone.data_to_send()
    preface = len(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
    bare = client()
    call(bare, "/t.Users/Unary", b"one")
    # SETTINGS beyond those that the fuzzer sends itself.
    yield b"\xf1" + bare.data_to_send()[preface:]
    padded = client()
    stream = padded.get_next_available_stream_id()
    padded.send_headers(stream, [*headers("/t.Users/Unary"), *((f"k{i}", "v" * 100) for i in range(300))])
    padded.send_data(stream, framed(b"x"), end_stream=True, pad_length=20)
    yield b"\xf0" + padded.data_to_send()
    yield b"\xf0GET / HTTP/1.1\r\nHost: s\r\n\r\n"
    yield b"\xf0\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"


START, START_RAW, MESSAGE, PIECE, HALF_CLOSE, RESET, WINDOW, TIME, ROOM, PING, SERVING, DRAIN = range(12)
ENDS, COMPRESSED = 0x40, 0x80
# By their places in the harness's list.
PATHS = {
    name: place
    for place, name in enumerate(
        [
            "predict",
            "stream",
            "unary",
            "down",
            "up",
            "both",
            "fails",
            "check",
            "watch",
            "list",
            "healthz",
            "v1",
            "alpha",
            "driver",
            "classifier",
        ]
    )
}


def start(path: str, known: int = 0, *more: tuple[str, bytes]) -> bytes:
    return bytes([START, PATHS[path], known, len(more)]) + fields_of(*more)


def message(stream: int, text: bytes, flags: int = ENDS) -> bytes:
    return bytes([MESSAGE, stream | flags]) + with_size(text)


def calls() -> Iterator[bytes]:
    how = bytes([0x0E])  # stepwise, with the usual window
    for each in requests():
        yield how + start("predict") + message(0, each)
    predict = next(requests())
    yield how + start("predict", 2 | 8) + message(0, gzip.compress(predict, mtime=0), ENDS | COMPRESSED)
    yield how + start("predict", 4) + message(0, zlib.compress(predict), ENDS | COMPRESSED)
    yield how + start("stream") + message(0, request(PAIR, route=spec(method="tell")))
    for name in ("unary", "down", "up", "both", "fails", "driver"):
        yield how + start(name, 0x91, ("k", b"v")) + message(0, b"text", 0) + message(0, b"more", 0) + bytes([4, 0])
    for each in builtin():
        for name in ("check", "watch", "list", "healthz", "v1", "alpha"):
            yield how + start(name) + message(0, each, 0) + bytes([SERVING, 0, SERVING, 1, HALF_CLOSE, 0])
    split = spec(name="split")
    yield how + start("predict", 0, ("k", b"v")) + message(0, request(PAIR, PAIR, route=split))
    yield how + b"".join(start("predict") + message(i, request(PAIR, route=split)) for i in range(4))
    yield how + b"".join(start("unary", 0, ("application", b"split")) + message(i, b"text") for i in range(4))
    small = bytes([0x02])  # no window at all
    both = start("both", 8) + message(0, b"x" * 100, 0) * 3
    yield small + both + bytes([WINDOW, 0, 10, 0, WINDOW, 0, 255, 255]) + bytes([HALF_CLOSE, 0])
    yield how + both + bytes([RESET, 0]) + start("unary") + message(1, b"x") + bytes([PING, 0])
    yield how + start("up", 1) + message(0, b"x", 0) + bytes([TIME, 0]) + struct.pack("<H", 2000)
    yield how + bytes([ROOM, 0, 50, 0]) + start("down") + message(0, b"x" * 300) + bytes([ROOM, 0, 255, 255])
    yield how + start("both") + bytes([DRAIN, 0]) + message(0, b"x")
    inner = (("mindserve-depth", b"3"), ("mindserve-parent", b"1a 2b"))
    yield bytes([0x0F]) + start("predict", 0, *inner) + message(0, predict)
    classified = field(2, field(1, "x/t.Type") + field(2, field(2, "a")))
    yield how + start("classifier") + message(0, field(1, field(1, "p1")) + classified)
    yield how + start("classifier", 0, ("application", b"split"), ("k", b"v")) + message(0, classified)
    yield how + start("classifier") + message(0, field(1, field(1, "p1")))
    raw = bytes([START_RAW]) + with_size(b"GET", "<B") + with_size(b"/", "<B") + bytes([0, 0, 1])
    yield how + raw
    yield (
        how
        + bytes([START, PATHS["unary"], 0, 0, PIECE, 0])
        + with_size(framed(b"abc")[:6])
        + bytes([PIECE, ENDS, 2, 0])
        + b"bc"
    )


# -- Links -------------------------------------------------------------------------------------------------------------


def frame(kind: int, flags: int = 0, call: int = 0, payload: bytes | None = None, code: int | None = None) -> bytes:
    how = (0 if code is None else 2) | (0 if payload is None else 8)
    out = bytes([how, kind, flags, call])
    if code is not None:
        out += struct.pack("<I", code)
    if payload is not None:
        out += with_size(payload, "<B")
    return out


REPLY, END, RELEASE, RELEASE_MESSAGE, INITIAL, MODEL = range(16, 22)
LAST, ERRORS, RELEASED, GZIP, TRAILING = 2, 4, 8, 32, 64


def worker_frames() -> Iterator[bytes]:
    pair = field(1, "k") + field(2, "v")
    put = b"\x07"  # and a round
    for call in range(6):
        yield put + frame(REPLY, LAST | RELEASED, call, field(3, PAIR) * 2)
        yield put + frame(REPLY, 0, call, b"one") + put + frame(END, RELEASED, call, b"text", 9)
        yield (
            put
            + frame(INITIAL, GZIP, call, field(1, pair))
            + put
            + frame(REPLY, GZIP, call, gzip.compress(b"x", mtime=0))
        )
        yield put + frame(END, RELEASED | TRAILING, call, field(1, "details") + field(2, pair), 0)
        yield put + frame(RELEASE_MESSAGE, 0, call) + b"\x21" + put + frame(RELEASE, 0, call)
        yield put + frame(REPLY, LAST | ERRORS, call, field(4, varint(1, 1))) + put + frame(RELEASE, 0, call)
    yield put + frame(MODEL, 1, 0, b"m") + put + frame(MODEL, 0, 0, b"m")
    yield bytes([0x20, 0x10]) + put + frame(END, RELEASED, 0, None, 1)
    yield b"\xf8" + struct.pack("<2I", 5000, 0)
    yield put + bytes([4, REPLY, 0, 0]) + struct.pack("<2Q", 1 << 60, 1 << 62)


def links() -> Iterator[bytes]:
    for each in worker_frames():
        yield b"\x00" + each.replace(b"\x07", b"\x01")
    for kind in (1, 2, 3, 4):
        yield b"\x01\x01" + frame(kind, 3, 0, b"payload") + b"\xfe\x10\x01" + frame(3, 32, 1)
    # Handshakes: how much longer than it should be, what is changed, which descriptors.
    yield b"\x02" + bytes([0, 0, 3, 0, 1, 2]) + bytes([0, 0, 1, 3])
    yield b"\x02" + bytes([0, 0, 3, 2, 1, 2]) + bytes([0, 0, 1, 0])
    yield b"\x02" + bytes([0, 12]) + bytes(8) + bytes([2, 0, 0, 0]) + bytes([3, 0, 1, 2]) + bytes([10, 0, 2, 4, 4])
    yield b"\x02" + bytes([0, 5]) + bytes(4) + bytes([1]) + bytes([3, 0, 1, 2])


# -- Config files ------------------------------------------------------------------------------------------------------


def config_files() -> Iterator[bytes]:
    yield b"servables: [{directory: models, name: add}]\n"
    yield b"""\
servables:
  - &one {directory: models, name: add, version_number: 1, device_ids: [0, 1], num_parallel_workers: 2}
  - {<<: *one, name: resnet, options: {intra_op_threads: 0x2}}
grpc:
  address: [127.0.0.1:5500, unix:/tmp/s.sock]
  ssl: {certificate: c.pem, private_key: k.pem, custom_ca: ca.pem, verify_client: true}
  limits: {max_msg_mb_size: 512, max_connections: 1_000, header_timeout: 1.5}
restful: {address: "[::1]:1500", max_msg_mb_size: 1e2}
"""
    yield b"servables: [{directory: a, directory: b}]\n---\n"
    yield b"{a: &a [x, x], b: &b [*a, *a], c: [*b, *b], servables: !!int '010'}"
    for name in range(20):  # a key of the file's, with what belongs there, or not
        yield bytes([2, 5, name, 5, 0, 5, 0, 9, 0, 1, 1, 5, 1])
        yield bytes([2, 9, name, 9, 1, 5, 2, 0, 200, name, 13, 0, 1, 5, 1, 7, 2, 11])
    yield b"\xff\xfe[[[[[[[[[[[[[[[["
    yield "servables:\u2028- {nom\u00e9: .inf, device_ids: 0o7, name: 'it''s', x: !!str 1}\t".encode()


# A field of each kind, as fuzz_rest_body.py has them, and as protobuf's JSON mapping writes them.
FIELDS = {
    "oneDouble": "NaN",
    "manyFloat": [1.5, "-Infinity"],
    "oneInt64": "-9223372036854775808",
    "manyUint64": ["18446744073709551615", 1, "1e3"],
    "oneBool": True,
    "one_string": "h\u00e9\U0001f600",
    "manyBytes": ["aGk=", "-_", ""],
    "oneEnum": "GREEN",
    "manyEnum": ["RED", 1],
    "ownAny": {"@type": "type.googleapis.com/t.All", "oneBytes": "aGk="},
    "ownDuration": "-1.000000001s",
    "ownFieldmask": "oneInt64,inner.oneBool",
    "ownStruct": {"a": [1, None, {"b": "c"}]},
    "ownValue": [None, 1.5, "x"],
    "ownListvalue": [True, {}],
    "ownTimestamp": "1972-01-01T10:00:20.021-05:00",
    "ownInt64value": "1",
    "ownBytesvalue": "aGk=",
    "inner": {"inner": {"left": "aGk="}},
    "inners": [{}, {"right": 1}],
    "map912": {"a": "aGk="},
    "map811": {"true": {"oneBool": False}},
    "map312": {"-1": "aGk="},
}


def rest_bodies() -> Iterator[bytes]:
    for name, value in FIELDS.items():
        yield b"\0" + json.dumps({name: value}).encode()
    yield b"\0" + json.dumps(FIELDS).encode()
    wrapped = {"@type": "type.googleapis.com/google.protobuf.BytesValue", "value": "aGk="}
    yield b"\0" + json.dumps({"ownAny": wrapped}).encode()
    yield b"\0" + b'{"inner":' * 5 + b"{}" + b"}" * 5
    yield b"\0" + b'\xef\xbb\xbf{"oneString": "\\ud83d"}'
    yield b"\0" + b'{"oneInt32": 1, "one_int32": 2}'
    for data in ({"oneInt32": 1}, {"@type": "x/t.Large"}, {"@type": "mindspore.serving.proto.Instance", "x": [1.5, 2]}):
        yield b"\1" + json.dumps({"data": {"@type": "t.All", **data}, "meta": {"puid": "p1"}}).encode()
    yield b"\1" + b'{"data": {}, "meta": null}'
    for name in range(0, 120, 2):  # a field by its name with a number, a word, a message, an array
        for value in (bytes([3, 1]), bytes([5, 16]), bytes([8, 0, 3, 1]), bytes([10, 5, 17])):
            yield b"\2" + bytes([8, name]) + value
    yield b"\3" + bytes([16, 118, 5, 8, 8, 3, 1])


SEEDS = {
    "route": requests,
    "predict": requests,
    "predict_reply": replies,
    "json_request": bodies,
    "base64": lambda: iter([b"", b"aGk=", b"aGkh", b"aA==", b"+/+/", b"aGk", b"a", b"!!!!"]),
    "timeout": lambda: iter([b"1H", b"12M", b"123S", b"99999999H", b"5m", b"100u", b"0n", b"", b"1", b"-1S"]),
    "metadata": heads,
    "call_head": call_heads,
    "classifier": classifications,
    "builtin": builtin,
    "descriptors": descriptors,
    "grpc_framing": framings,
    "http2": connections,
    "grpc": calls,
    "worker_frames": worker_frames,
    "link": links,
    "rest_body": rest_bodies,
    "config_file": config_files,
    "model_inputs": lambda: (bytes([model]) + each for model in range(8) for each in requests()),
}


def main() -> None:
    for name, seeds in SEEDS.items():
        folder = pathlib.Path(sys.argv[1]) / name
        folder.mkdir(parents=True, exist_ok=True)
        for i, seed in enumerate(seeds()):
            (folder / f"seed-{i:03}").write_bytes(seed)


if __name__ == "__main__":
    main()
