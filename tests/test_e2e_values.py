"""What stage functions get and may give, through a real server."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import numpy as np
import pytest

from e2e_support import PREAMBLE, TYPES, Served, request, same, serving, tensor
from mindserve.proto import messages

CONFIG = (
    PREAMBLE
    + '''
import enum


class Color(enum.IntEnum):
    RED = 7


class AsArray:
    def __init__(self, array):
        self.array = array

    def __array__(self, dtype=None, copy=None):
        return self.array


class AsNumpy:
    def __init__(self, array):
        self.asnumpy = lambda: array


class AsDlpack:
    def __init__(self, array):
        self.array = array

    def __dlpack__(self, **options):
        return self.array.__dlpack__(**options)

    def __dlpack_device__(self):
        return self.array.__dlpack_device__()


class Derived(np.ndarray):
    def astype(self, *arguments, **options):
        return None

    dtype = property(lambda self: None)


def of_objects(*items):
    array = np.empty(len(items), object)
    array[:] = items
    return array


@method()
def echo(x):
    return x


@method()
def text_of(x):
    """What it was given: type, and of an array all that matters."""
    if not isinstance(x, np.ndarray):
        return f"{type(x).__name__} {x!r}"
    return f"{x.dtype} {x.shape} {x.tolist()} writeable={x.flags.writeable} aligned={x.flags.aligned}"


@method()
def overwrite(x):
    x[...] = 0
    return x


@method()
def force_overwrite(x):
    x.flags.writeable = True
    x[...] = 0
    return x


@method()
def produce(code):
    return eval(code)


@method(outputs_count=2)
def produce_two(code):
    return eval(code)


buffer = np.zeros(65536)
pair = (buffer, np.zeros(65536))
listed = [buffer, pair[1]]


@method()
def reuse(x):
    buffer[...] = x
    return buffer


@method()
def reuse_view(x):
    buffer[...] = x
    return buffer[:]


@method()
def reuse_through_array(x):
    buffer[...] = x
    return AsArray(buffer)


@method()
def reuse_through_dlpack(x):
    buffer[...] = x
    return AsDlpack(buffer)


@method(outputs_count=2)
def reuse_tuple(x):
    pair[0][...] = x
    pair[1][...] = x + 1
    return pair


@method(outputs_count=2)
def reuse_list(x):
    listed[0][...] = x
    listed[1][...] = x + 1
    return listed


hidden = (np.zeros(65536),)  # the array's only reference


@method()
def reuse_only_reference(x):
    hidden[0][...] = x
    return hidden


@method("x", batch_size=0)
def reuse_in_batch(instances):
    for (x,) in instances:
        buffer[...] = x
        yield buffer


@method("x", batch_size=0)
def reuse_only_reference_in_batch(instances):
    for (x,) in instances:
        hidden[0][...] = x
        yield hidden


kept = []


@method()
def keep(x):
    kept.append(x)
    return len(kept)


@method()
def kept_values(x):
    """The first element of each kept array, or -1 if it is not the same all over."""
    return np.array([array[0] if (array == array[0]).all() else -1 for array in kept])


@method()
def forget(x):
    count = len(kept)
    kept.clear()
    return count
'''
    + "".join(
        # Input names of all lengths shift where a tensor's bytes lie in the message.
        f"method({name!r})(type(echo)(echo.__code__, globals(), 'echo_{len(name)}'))\n"
        for name in ("x" * length for length in range(1, 18))
    )
)


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with serving(tmp_path_factory.mktemp("values"), "values", CONFIG) as server:
        yield server


# -- in and out --------------------------------------------------------------------------------------------------------

SHAPES = ((), (1,), (3,), (2, 3), (0,), (3, 0, 2), (1, 1, 1, 1, 1, 1, 1, 1, 2), (1000, 30))


@pytest.mark.parametrize("dtype", TYPES)
def test_every_type_in_every_shape(served: Served, dtype: str) -> None:
    random = np.random.default_rng(1)
    for shape in SHAPES:
        bits = random.integers(0, 256, (*shape, np.dtype(dtype).itemsize), np.uint8)
        array = (bits % 2).view(np.bool_)[..., 0] if dtype == "bool" else bits.view(dtype)[..., 0]
        for name in ("echo", "echo_2", "echo_17"):
            key = "x" * int(name.partition("_")[2] or 1)
            sent = array[()] if shape == () else array
            (result,) = served.ask(name, {key: sent})
            assert same(result["y"], array), (name, shape, result)


@pytest.mark.parametrize("dtype", TYPES)
def test_wherever_the_bytes_lie(served: Served, dtype: str) -> None:
    array = np.arange(5).astype(dtype)
    for length in range(1, 18):
        (result,) = served.ask(f"echo_{length}", {"x" * length: array})
        assert same(result["y"], array), length
    for length, dim in itertools.product((1, 2, 3, 4), (1, 2, 3)):
        # So does the instance's place in the request.
        instances = [{"x" * length: np.arange(size * dim).astype(dtype).reshape(size, dim)} for size in range(7)]
        for given, result in zip(instances, served.ask(f"echo_{length}", *instances), strict=True):
            assert same(result["y"], given["x" * length])


def test_functions_see_what_was_sent(served: Served) -> None:
    for dtype in TYPES:
        array = np.array([[0, 1], [1, 0]]).astype(dtype)
        expected = f"{dtype} (2, 2) {array.tolist()} writeable=False aligned=True"
        assert served.value("text_of", x=array) == expected
        assert served.value("text_of", x=array[1, 0]) == f"{dtype} () {array[1, 0].item()} writeable=False aligned=True"
    assert served.value("text_of", x="grüße\0") == "str 'grüße\\x00'"
    assert served.value("text_of", x=b"\0\xff") == "bytes b'\\x00\\xff'"
    assert served.value("text_of", x=3) == "int64 (1,) [3] writeable=False aligned=True"
    assert served.value("text_of", x=True) == "bool (1,) [True] writeable=False aligned=True"
    assert served.value("text_of", x=1.5) == "float64 (1,) [1.5] writeable=False aligned=True"
    assert served.value("text_of", x=np.array(["a", "bc"])).startswith("object (2,) ['a', 'bc']")
    assert served.value("text_of", x=np.array([[b"a"], [b"bc"]])).startswith("object (2, 1) [[b'a'], [b'bc']]")
    assert served.value("text_of", x=np.zeros((2, 0), "U1")).startswith("object (2, 0) [[], []]")
    # Of the shapes that have one element, () and (1,) are a str; a matrix is an array.
    assert served.value("text_of", x=np.array([["a"]])).startswith("object (1, 1) [['a']]")


def test_text_passes_through(served: Served) -> None:
    for text in ("", "x", "grüße", "\0a\0", "𝄞" * 1000, b"", b"\0", bytes(range(256)), b"x" * 5_000_000):
        assert same(served.value("echo", x=text), text)
    for texts in (["a", "ü", ""], [["ab"], ["c"]], [b"a", b"\xff\0b", b""]):
        expected = np.array(texts, object)
        assert same(served.value("echo", x=np.array(texts)), expected)


def test_inputs_can_not_be_changed(served: Served) -> None:
    for array in (np.ones(3), np.ones(100_000)):
        for name in ("overwrite", "force_overwrite"):
            error = served.error(name, x=array)
            assert f"Call Function 'values.{name}' Failed: ValueError" in error
    assert served.value("echo", x=3.5) == 3.5


# -- results -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("np.arange(6).reshape(2, 3).T", np.arange(6).reshape(2, 3).T),
        ("np.arange(60).reshape(3, 4, 5)[::-1, ::2, 1::3]", np.arange(60).reshape(3, 4, 5)[::-1, ::2, 1::3]),
        ("np.arange(20000.).reshape(100, 200).T", np.arange(20000.0).reshape(100, 200).T),
        ("np.asfortranarray(np.arange(6.).reshape(2, 3))", np.arange(6.0).reshape(2, 3)),
        ("np.arange(3, dtype='>i4')", np.arange(3, dtype=np.int32)),
        ("np.arange(20000, dtype='>f8')[::3]", np.arange(20000.0)[::3]),
        ("np.frombuffer(b'x' + bytes(range(16)), '<i4', 4, 1)", np.frombuffer(bytes(range(16)), np.int32)),
        ("np.broadcast_to(np.float32(2), (3, 4))", np.full((3, 4), 2, np.float32)),
        ("np.array(7)", np.int64(7)),
        ("np.array([[]])", np.zeros((1, 0))),
        ("np.zeros((0, 3), np.int8)", np.zeros((0, 3), np.int8)),
        ("np.zeros((1,) * 32)", np.zeros((1,) * 32)),
        ("np.array([np.nan, -np.nan, np.inf, -0.0])", np.array([np.nan, -np.nan, np.inf, -0.0])),
        ("np.array([1.5, np.nan], np.float16)", np.array([1.5, np.nan], np.float16)),
        ("np.array([True, False])", np.array([True, False])),
        ("np.longlong(5)", np.int64(5)),
        ("np.array([1, 2], np.ulonglong)", np.array([1, 2], np.uint64)),
        ("np.arange(6).reshape(2, 3).view(np.matrix)", np.arange(6).reshape(2, 3)),
        ("np.ma.masked_array([1, 2], [True, False])", np.array([1, 2])),
        ("np.arange(4).view(Derived)", np.arange(4)),
        ("np.arange(40000.).view(Derived)[::2]", np.arange(40000.0)[::2]),
        ("np.float16(1.5)", np.float16(1.5)),
        ("np.float64(1.5)", np.float64(1.5)),
        ("np.bool_(True)", np.bool_(True)),
        ("np.uint8(200)", np.uint8(200)),
        ("True", np.bool_(True)),
        ("2**63 - 1", np.int64(2**63 - 1)),
        ("-2**63", np.int64(-(2**63))),
        ("Color.RED", np.int64(7)),
        ("float('nan')", np.float64("nan")),
        ("type('F', (float,), {})(1.5)", np.float64(1.5)),
        ("'grüße'", "grüße"),
        ("''", ""),
        ("np.str_('x')", "x"),
        ("type('S', (str,), {})('x')", "x"),
        ("b'\\0\\xff'", b"\0\xff"),
        ("np.bytes_(b'x')", b"x"),
        ("bytearray(b'x')", b"x"),
        ("memoryview(b'abcd')[::2]", b"ac"),
        ("('x',)", "x"),
        ("np.array(['x'])", "x"),
        ("np.array(['a', 'bc'])", np.array(["a", "bc"], object)),
        ("np.array(['a', 'bc'], '>U2')[::-1]", np.array(["bc", "a"], object)),
        ("np.array([['a', 'b'], ['c', 'd']]).T", np.array([["a", "c"], ["b", "d"]], object)),
        ("np.array([b'a', b'bc'])", np.array([b"a", b"bc"], object)),
        ("of_objects('a', 'b\\0')", np.array(["a", "b\0"], object)),
        ("of_objects(b'a', b'b\\0')", np.array([b"a", b"b\0"], object)),
        ("np.zeros((0, 2), 'U3')", np.zeros((0, 2), object)),
        ("AsArray(np.arange(3.))", np.arange(3.0)),
        ("AsArray(np.arange(6).reshape(2, 3).T)", np.arange(6).reshape(2, 3).T),
        ("AsNumpy(np.arange(3, dtype=np.int16))", np.arange(3, dtype=np.int16)),
        ("AsDlpack(np.arange(3, dtype=np.uint8))", np.arange(3, dtype=np.uint8)),
        ("AsDlpack(np.arange(60000.).reshape(200, 300)[:, ::2])", np.arange(60000.0).reshape(200, 300)[:, ::2]),
    ],
)
def test_results_of_every_kind(served: Served, code: str, expected: object) -> None:
    result = served.value("produce", code=code)
    assert same(result, expected), result


@pytest.mark.parametrize(
    ("code", "text"),
    [
        ("None", "a value of type 'NoneType' was given; expected a numpy array"),
        ("[1, 2]", "a value of type 'list' was given"),
        ("{'y': 1}", "a value of type 'dict' was given"),
        ("{1}", "a value of type 'set' was given"),
        ("object()", "a value of type 'object' was given"),
        ("(n for n in range(3))", "a value of type 'generator' was given"),
        ("1j", "a value of type 'complex' was given"),
        ("np.complex64(1)", "an array of type 'complex64' is not of a type that can be sent"),
        ("np.longdouble(1)", "is not of a type that can be sent"),
        ("np.zeros(2, 'M8[s]')", "an array of type 'datetime64[s]' is not of a type that can be sent"),
        ("np.zeros(2, [('a', 'i4')])", "is not of a type that can be sent"),
        ("of_objects(1, 2)", "an array of objects may hold str or bytes of one kind, given 'int'"),
        ("of_objects('a', b'b')", "an array of objects may hold str or bytes of one kind, given 'bytes'"),
        ("of_objects(b'a', None)", "an array of objects may hold str or bytes of one kind, given 'NoneType'"),
        ("of_objects([])", "given 'list'"),
        ("2**63", "an int of 64 bits was given, which does not fit int64"),
        ("10**5000", "which does not fit int64"),
        ("np.broadcast_to(np.zeros(1), (2**20, 2**30))", "Call Function 'values.produce' Failed: "),
        ("'\\udc80'", "UnicodeEncodeError"),
        ("AsArray(3)", "Call Function 'values.produce' Failed: "),
        ("AsNumpy(object())", "given 'object'"),
        ("()", "the stage has 1 outputs, the function gave 0"),
        ("(1, 2)", "the stage has 1 outputs, the function gave 2"),
        ("np.ndarray", "Call Function 'values.produce' Failed: "),
        ("type('A', (), {'__array__': lambda *a, **k: throw(ValueError('mine'))})()", "ValueError: mine"),
        ("type('A', (), {'__getattr__': lambda s, n: throw(ValueError('mine'))})()", "values.produce' Failed: "),
    ],
)
def test_results_that_can_not_be_sent(served: Served, code: str, text: str) -> None:
    error = served.error("produce", code=code)
    assert "Call Function 'values.produce' Failed: " in error
    assert text in error
    assert served.value("produce", code="1") == 1


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("(1, 'x')", (np.int64(1), "x")),
        ("[np.arange(2), b'x']", (np.arange(2), b"x")),
        ("(code, code)", ("(code, code)",) * 2),
        ("(buffer,) * 2", (np.zeros(65536),) * 2),
    ],
)
def test_two_outputs(served: Served, code: str, expected: tuple[object, object]) -> None:
    (result,) = served.ask("produce_two", {"code": code})
    assert same(result["y0"], expected[0]), result
    assert same(result["y1"], expected[1]), result


@pytest.mark.parametrize(
    ("code", "text"),
    [
        ("1", "the stage has 2 outputs, the function gave one"),
        ("np.zeros(2)", "the stage has 2 outputs, the function gave one"),
        ("(1,)", "the stage has 2 outputs, the function gave 1"),
        ("(1, 2, 3)", "the stage has 2 outputs, the function gave 3"),
        ("(1, None)", "output 1: a value of type 'NoneType' was given"),
        ("([], 1)", "output 0: a value of type 'list' was given"),
    ],
)
def test_outputs_that_are_not_two(served: Served, code: str, text: str) -> None:
    assert f"Call Function 'values.produce_two' Failed: {text}" in served.error("produce_two", code=code)


# -- arrays that live on -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    [
        "reuse",
        "reuse_view",
        "reuse_through_array",
        "reuse_through_dlpack",
        "reuse_tuple",
        "reuse_list",
        "reuse_only_reference",
        "reuse_in_batch",
        "reuse_only_reference_in_batch",
    ],
)
def test_one_buffer_for_all_results(served: Served, name: str) -> None:
    results = served.ask(name, *({"x": float(number)} for number in range(40)))
    for number, result in enumerate(results):
        for index, value in enumerate(result.values()):
            assert (value == number + index).all(), number


def test_kept_inputs_keep_their_values(served: Served) -> None:
    # Small ones, and more in all than the server leaves where they came in. Bytes, which are never copied only because
    # of their alignment.
    sizes = [10] * 50 + [1 << 20] * 90
    try:
        for number, size in enumerate(sizes):
            served.value("keep", x=np.full(size, number, np.uint8))
        for number in range(200):
            array = np.full((1 << 20) if number % 10 == 0 else 10, 255 - number, np.uint8)
            assert same(served.value("echo", x=array), array)
        assert served.value("kept_values", x=0).tolist() == list(range(len(sizes)))
    finally:
        assert served.value("forget", x=0) == len(sizes)
    assert same(served.value("echo", x=array), array)


def test_inputs_kept_from_one_large_request(served: Served) -> None:
    try:
        results = served.ask("keep", *({"x": np.full(300_000, number, np.uint8)} for number in range(100)))
        assert [result["y"] for result in results] == list(range(1, 101))
        served.ask("echo", *({"x": np.full(300_000, 255, np.uint8)} for _ in range(100)))
        assert served.value("kept_values", x=0).tolist() == list(range(100))
    finally:
        served.value("forget", x=0)


# -- raw messages ------------------------------------------------------------------------------------------------------


def test_what_is_wrong_with_a_tensor_is_its_instances_error(served: Served) -> None:
    good = tensor(np.arange(3.0))
    wrong = {}
    wrong["short"] = tensor(np.arange(3.0))
    wrong["short"].data = good.data[:-1]
    wrong["shape"] = tensor(np.arange(3.0))
    wrong["shape"].shape.dims[:] = [4]
    wrong["negative"] = tensor(np.arange(3.0))
    wrong["negative"].shape.dims[:] = [-3]
    wrong["overflow"] = tensor(np.arange(3.0))
    wrong["overflow"].shape.dims[:] = [2**62, 2**62]
    wrong["type"] = tensor(np.arange(3.0))
    wrong["type"].dtype = 77
    wrong["unknown"] = tensor(np.arange(3.0))
    wrong["unknown"].dtype = 0
    wrong["count"] = tensor("x")
    wrong["count"].shape.dims[:] = [2]
    instances = [{"x": good}]
    for each in wrong.values():
        instances += [{"x": each}, {"x": good}]
    instances += [{}, {"x": good}]
    reply = served.predict(request("values", "echo", *instances))
    codes = [error.error_code for error in reply.error_msg]
    assert codes == [0] + [2, 0] * (len(wrong) + 1)
    for instance, error in zip(reply.instances, reply.error_msg, strict=True):
        if error.error_code == 0:
            assert instance.items["y"].data == good.data
        else:
            assert error.error_msg
            assert not instance.items
    assert b"Cannot find input x in instance input" in reply.error_msg[-2].error_msg


def test_text_that_is_not_utf_8(served: Served) -> None:
    bad = tensor("x")
    bad.bytes_val[0] = b"\xff\xfe"
    reply = served.predict(request("values", "echo", {"x": tensor("a")}, {"x": bad}, {"x": tensor("b")}))
    assert [error.error_code for error in reply.error_msg] == [0, 2, 0]
    text = reply.error_msg[1].error_msg
    assert text.startswith(
        b"Given function 'values.echo' input 0 kMSI_String (1,) has no form in Python: UnicodeDecode"
    )
    assert reply.instances[2].items["y"].bytes_val[0] == b"b"


@pytest.mark.parametrize("dtype", ["MS_FLOAT32", "MS_STRING"])
def test_shapes_beyond_numpy(served: Served, dtype: str) -> None:
    huge = messages.Tensor(shape={"dims": (0, 2**63 - 1)}, dtype=messages.DATA_TYPES[dtype])
    (error,) = served.predict(request("values", "echo", {"x": huge})).error_msg
    assert error.error_code == 2
    assert error.error_msg.startswith(b"Given function 'values.echo' input 0 kMSI_")
    assert b" has no form in Python: ValueError: " in error.error_msg


def test_what_a_method_does_not_ask_for_is_ignored(served: Served) -> None:
    broken = tensor("x")
    broken.shape.dims[:] = [99]
    reply = served.predict(request("values", "echo", {"x": tensor("a"), "other": broken}))
    assert not reply.error_msg
    assert reply.instances[0].items["y"].bytes_val[0] == b"a"
