"""``mindserve infer``: what it makes of what it is given, and what it prints."""

from __future__ import annotations

import base64
import io
import json
import pathlib
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from certificates import Files
from command_line import Shell
from conftest import ADD_SERVABLE, ECHO_SERVABLE, Servables
from e2e_support import same
from mindserve.cli.instances import InputError, read_instances
from mindserve.cli.results import as_plain, show


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("5", 5),
        ("0.5", 0.5),
        ("true", True),
        ("hello", "hello"),
        ("hello there", "hello there"),
        ('"5"', "5"),
        ("", ""),
        ("[[1, 2], [3, 4]]", np.array([[1, 2], [3, 4]], np.int64)),
        ("[1, 2.5]", np.array([1, 2.5], np.float64)),
        ("[1e3]", np.array([1000], np.float64)),
        ("[true, false]", np.array([True, False])),
        ('["a", "bc"]', np.array(["a", "bc"])),
        ('{"dtype": "float32", "data": [[1, 2]]}', np.array([[1, 2]], np.float32)),
        ('{"dtype": "float16", "data": [NaN]}', np.array([np.nan], np.float16)),
        ('{"dtype": "uint64", "data": [18446744073709551615]}', np.array([2**64 - 1], np.uint64)),
        ('{"dtype": "int8", "data": -128}', np.int8(-128)),
        ('{"dtype": "bool", "data": [true]}', np.array([True])),
        ('{"dtype": "float32", "data": []}', np.array([], np.float32)),
        ('{"dtype": "str", "data": "@a.npy"}', "@a.npy"),
        ('{"dtype": "str", "data": ["a"]}', np.array(["a"])),
        ('{"dtype": "bytes", "data": "AAH/"}', b"\x00\x01\xff"),
    ],
)
def test_values(text: str, expected: Any) -> None:
    (instance,) = read_instances([f"x={text}"], None)
    value = instance["x"]
    assert type(value) is type(expected)
    assert same(value, expected) if isinstance(expected, np.ndarray | np.generic) else value == expected
    # The same in JSON, where text has quotes.
    quoted = json.dumps(text) if isinstance(expected, str) and not text.startswith(('"', "{")) else text
    (instance,) = read_instances([f'{{"x": {quoted}}}'], None)
    assert repr(instance["x"]) == repr(value)


def test_bytes_in_a_list() -> None:
    (instance,) = read_instances(['x={"dtype": "bytes", "data": ["AAE=", "AQ=="]}'], None)
    assert instance["x"].tolist() == [b"\x00\x01", b"\x01"]


@pytest.mark.parametrize(
    ("argument", "text"),
    [
        ("x", "'x' should be NAME=VALUE, or a JSON object or list"),
        ("=5", "'=5' should be NAME=VALUE, or a JSON object or list"),
        ("x=[1, 2", "input 'x': no JSON: Expecting ',' delimiter, at character 6: [1, 2"),
        ("x=null", "input 'x' should be a number, text, true, false, or a list of them, but is null"),
        ("x=[]", "input 'x' is an empty list: give its type"),
        ("x=[1, true]", "input 'x' should be a list of numbers, of true and false, or of text, but has numbers, true"),
        ('x=[1, "a"]', "but has numbers, text"),
        ("x=[1, null]", "but has null, numbers"),
        ("x=[[1, 2], [3]]", "input 'x': the lists inside should have equal lengths"),
        ("x=[9223372036854775808]", "input 'x' has a number beyond int64: give its type"),
        ('x={"dtype": "float32"}', 'input \'x\' should have "dtype" and "data", and nothing else, but has dtype'),
        ('x={"dtype": "float99", "data": 1}', "the dtype should be one of bool, int8, "),
        ('x={"dtype": ["int8"], "data": 1}', "the dtype should be one of bool, int8, "),
        ('x={"dtype": "int8", "data": [128]}', "input 'x' should be int8, -128 to 127, but has 128"),
        ('x={"dtype": "int8", "data": [1.5]}', "input 'x' should be int8, -128 to 127, but has 1.5"),
        ('x={"dtype": "int8", "data": ["a"]}', 'input \'x\' should be int8, but has "a"'),
        ('x={"dtype": "bool", "data": [1]}', "input 'x' should be bool, but has 1"),
        ('x={"dtype": "bytes", "data": "?"}', 'input \'x\' should be base64, or a list of it, but is "?"'),
        ('x={"dtype": "bytes", "data": 5}', "input 'x' should be base64, or a list of it, but is 5"),
        ('x={"dtype": "bytes", "data": ["YQ==", 5]}', "input 'x' should be base64, or a list of it, but is 5"),
        ('x={"dtype": "bytes", "data": ["AQA="]}', "input 'x': bytes in a list should not end with a zero byte"),
        ('x={"dtype": "str", "data": [5]}', "input 'x' should be text, or a list of it, but is [5]"),
        ('{"x": 1, "x": 2}', "the command line: the key 'x' is given twice: expected once"),
        ('x={"dtype": "str", "dtype": "str"}', "input 'x': no JSON: the key 'dtype' is given twice: expected once"),
        ("[5]", "instance 0 of the command line should be an object with the inputs by name, but is 5"),
        ('[{}, "a"]', 'instance 1 of the command line should be an object with the inputs by name, but is "a"'),
        ('{"x": ', "the command line, line 1, column 7: no JSON: Expecting value"),
        ('{"x": [1], "y": null}', "instance 0 of the command line, input 'y' should be a number, text"),
        ("[" * 100_000, "there are too many levels"),
        ("[]", "There are no instances: expected a JSON object, or a list of them"),
        ("x=@none.npy", "input 'x': 'none.npy' can't be read: No such file or directory"),
        ("x=@none.jpg", "input 'x': 'none.jpg' can't be read: No such file or directory"),
    ],
)  # fmt: skip
def test_what_is_no_instance(argument: str, text: str) -> None:
    with pytest.raises(InputError) as caught:
        read_instances([argument], None)
    assert text in str(caught.value)


def test_files(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    array = np.arange(6, dtype=np.float16).reshape(2, 3)
    np.save(tmp_path / "a.npy", array)
    (tmp_path / "a.jpg").write_bytes(b"\xff\xd8")
    (tmp_path / "no.npy").write_bytes(b"no")
    np.save(tmp_path / "objects.npy", np.array([{}], dtype=object), allow_pickle=True)
    np.savez(tmp_path / "several", a=array)
    (tmp_path / "several.npz").rename(tmp_path / "several.npy")
    (instance,) = read_instances([f"x=@{tmp_path}/a.npy", f"y=@{tmp_path}/a.jpg"], None)
    assert same(instance["x"], array)
    assert instance["y"] == b"\xff\xd8"
    for name in ("no", "objects", "several"):
        with pytest.raises(InputError, match=f"{name}.npy' is no .npy file"):
            read_instances([f"x=@{tmp_path}/{name}.npy"], None)
    # In a file: several values, relative to it; other files' names are text there.
    file = tmp_path / "instances.json"
    file.write_text('{"x": "@a.npy"}\n{"x": "@a.jpg"}\n[{"x": 1}, {"x": 2}]\n', encoding="utf-8")
    monkeypatch.chdir("/")
    first, *others = read_instances([], str(file))
    assert same(first["x"], array)
    assert others == [{"x": "@a.jpg"}, {"x": 1}, {"x": 2}]
    assert len(read_instances(["x=5", '{"x": 6}'], str(file))) == 6
    file.write_text('{"x": 1}\n{"x": }\n', encoding="utf-8")
    with pytest.raises(InputError, match=r"instances.json', line 2, column 7: no JSON: Expecting value"):
        read_instances([], str(file))
    file.write_bytes(b"\xff")
    with pytest.raises(InputError, match=r"should be JSON, but is not UTF-8: invalid start byte at byte 0"):
        read_instances([], str(file))
    with pytest.raises(InputError, match=r"none' can't be read: No such file or directory"):
        read_instances([], str(tmp_path / "none"))


def test_nothing_is_given_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = io.StringIO()
    monkeypatch.setattr(terminal, "isatty", lambda: True)
    monkeypatch.setattr("sys.stdin", terminal)
    with pytest.raises(InputError, match=r"No instances are given: expected NAME=VALUE, JSON, or --file"):
        read_instances([], None)


def test_results_as_json_are_what_infer_takes() -> None:
    result = {
        "array": np.array([[1, 2]], np.float32),
        "number": np.int8(3),
        "text": "x",
        "bytes": b"\x00",
        "several": np.array([b"a", b"b"], dtype=object),
        "odd": np.array([np.nan, np.inf, -np.inf]),
    }
    plain = as_plain([result, {"error": "it failed"}])
    assert plain == [
        {
            "array": [[1.0, 2.0]],
            "number": 3,
            "text": "x",
            "bytes": {"dtype": "bytes", "data": base64.b64encode(b"\x00").decode()},
            "several": [{"dtype": "bytes", "data": "YQ=="}, {"dtype": "bytes", "data": "Yg=="}],
            "odd": ["NaN", "Infinity", "-Infinity"],
        },
        {"error": "it failed"},
    ]
    json.dumps(plain, allow_nan=False)


def test_results_for_people() -> None:
    lines: list[str] = []
    show({"y": np.array([[1, 2]], np.float32), "n": np.int8(3), "s": "x", "b": b"\x00", "e": np.zeros(0)}, lines.append)
    assert lines == ["y: float32 1x2", "  [[1. 2.]]", "n: int8 3", "s: x", "b: b'\\x00'", "e: float64 0", "  []"]


# -- The command -------------------------------------------------------------------------------------------------------

FRAGILE = """
from mindserve.server import register


def check(x):
    if x < 0:
        raise ValueError("below zero")
    return x


@register.register_method(output_names="x")
def positive(x):
    return register.add_stage(check, x, outputs_count=1)


def down_to_zero(x):
    for number in range(x.item(), -2, -1):
        yield check(number)


@register.register_method(output_names="n", streaming=True)
def count_down(x):
    return register.add_stage(down_to_zero, x, outputs_count=1)
"""


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Shell, str]]:
    """A shell, and the address of a server of three servables."""
    directory = tmp_path_factory.mktemp("infer")
    servables = Servables(directory / "servables")
    servables.add("add", ADD_SERVABLE, versions=(1,))
    servables.add("echo", ECHO_SERVABLE)
    servables.add("fragile", FRAGILE)
    shell = Shell(directory / "shell")
    with shell.serving("start", "--servable", servables.directory, "--grpc-port", 0) as server:
        yield shell, server.address()


def test_a_call(served: tuple[Shell, str]) -> None:
    shell, address = served
    call = ("infer", address, "add", "add_cast", "x1=[[1, 2], [3, 4]]", "x2=[[1, 1], [1, 1]]")
    done = shell.run(*call)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "y: float32 2x2\n  [[2. 3.]\n   [4. 5.]]\n"
    assert shell.json(*call) == [{"y": [[2.0, 3.0], [4.0, 5.0]]}]


def test_standard_input(served: tuple[Shell, str]) -> None:
    shell, address = served
    text = '{"x": "one"}\n{"x": "two"}\n'
    for more in ((), ("--file", "-")):
        done = shell.run("infer", address, "echo", "same", *more, input=text)
        assert done.stdout == "instance 0\nx: one\ninstance 1\nx: two\n"
        assert done.returncode == 0
    empty = shell.run("infer", address, "echo", "same")
    assert empty.returncode == 1
    assert "Error: There are no instances" in empty.stderr


def test_bytes_go_there_and_back(served: tuple[Shell, str]) -> None:
    shell, address = served
    (shell.directory / "picture").write_bytes(b"\x00\xff")
    (result,) = shell.json("infer", address, "echo", "same", "x=@picture")
    assert result == {"x": {"dtype": "bytes", "data": "AP8="}}
    assert shell.json("infer", address, "echo", "same", json.dumps(result)) == [result]
    two = {"x": {"dtype": "bytes", "data": ["AAE=", "AP8="]}}
    (result,) = shell.json("infer", address, "echo", "same", json.dumps(two))
    assert result == {"x": [{"dtype": "bytes", "data": "AAE="}, {"dtype": "bytes", "data": "AP8="}]}


def test_failures(served: tuple[Shell, str]) -> None:
    shell, address = served
    # Of one instance.
    call = ("infer", address, "fragile", "positive", '[{"x": 1}, {"x": -1}]')
    done = shell.run(*call)
    assert done.returncode == 1
    assert done.stdout.startswith("instance 0\nx: int64 1\n  [1]\ninstance 1\nerror: ")
    assert "below zero" in done.stdout
    done = shell.run(*call, "--json")
    assert done.returncode == 1
    fine, failed = json.loads(done.stdout)
    assert fine == {"x": [1]}
    assert "below zero" in failed["error"]
    # Of the call.
    for servable, method, text in (("ecko", "same", "ecko"), ("echo", "sane", "sane")):
        done = shell.run("infer", address, servable, method, "x=1")
        assert done.returncode == 1
        assert done.stdout == ""
        assert done.stderr.startswith("Error: ")
        assert text in done.stderr
        done = shell.run("infer", address, servable, method, "x=1", "--json")
        assert done.returncode == 1
        assert text in json.loads(done.stdout)["error"]
    done = shell.run("infer", f"unix:{shell.directory}/none.sock", "echo", "same", "x=1", "--timeout", "30")
    assert done.returncode == 1
    assert "Error: Grpc Error, (14, 'unavailable')" in done.stderr
    # Of what is given.
    for arguments, text in (
        (("nowhere", "echo", "same", "x=1"), "The format of the address 'nowhere' is illegal"),
        ((address, "echo", "same", "x=[1,"), "input 'x': no JSON"),
        ((address, "echo", "same", "x=1", "--metadata", "Big=1"), "The name 'Big' in parameter 'metadata'"),
        ((address, "echo", "same", "x=1", "--tls-cert", "none.crt"), "'certificate' is given without 'private_key'"),
    ):
        done = shell.run("infer", *arguments)
        assert done.returncode == 1
        assert "Error: " in done.stderr
        assert text in done.stderr
        assert "Traceback" not in done.stderr
    done = shell.run("infer", address, "echo", "same", "x=1", "--metadata", "big")
    assert done.returncode == 2
    assert "'big' should be NAME=VALUE" in done.stderr


def test_a_stream(served: tuple[Shell, str]) -> None:
    shell, address = served
    call = ("infer", address, "fragile", "count_down", "--stream")
    done = shell.run(*call, "x=1")
    assert done.returncode == 1
    assert done.stdout == "item 0\nn: int64 1\nitem 1\nn: int64 0\n"
    assert done.stderr.startswith("Error: ")
    assert "below zero" in done.stderr
    done = shell.run(*call, "x=1", "--json")
    assert done.returncode == 1
    *items, failed = map(json.loads, done.stdout.splitlines())
    assert items == [{"n": 1}, {"n": 0}]
    assert "below zero" in failed["error"]
    # Of a method that doesn't stream.
    done = shell.run("infer", address, "echo", "same", "x=5", "--stream", "--json")
    assert (done.returncode, done.stdout) == (0, '{"x": [5]}\n')
    done = shell.run(*call, '[{"x": 1}, {"x": 2}]')
    assert done.returncode == 2
    assert "one instance should be given, but actually 2" in done.stderr


def test_options_of_a_call(served: tuple[Shell, str]) -> None:
    shell, address = served
    done = shell.run("infer", address, "echo", "same", "x=1", "--timeout", "0")
    assert "deadline exceeded" in done.stderr.lower()
    assert "version" in shell.run("infer", address, "echo", "same", "x=1", "--version", "7").stderr.lower()
    assert (
        shell.run("infer", address, "echo", "same", "x=1", "--metadata", "a=b", "--metadata", "c-bin=d").returncode == 0
    )


@pytest.mark.parametrize("content", [None, "", "planted secret", "plänted"])
def test_files_that_hold_no_token(tmp_path: pathlib.Path, content: str | None) -> None:
    shell = Shell(tmp_path)
    path = shell.directory / "token"
    if content is not None:
        path.write_text(content, encoding="utf-8")
    done = shell.run("infer", "127.0.0.1:1", "echo", "same", "x=1", "--token-file", str(path))
    assert done.returncode == 2
    said = " ".join(done.stderr.replace("│", " ").split())
    assert "--token-file" in said
    assert ("can't be read: No such file" if content is None else "should hold one token, a word of ASCII") in said
    assert "pl" not in said.replace(str(path), "")


def test_tls(shell_with_tls: tuple[Shell, str], own_files: Files) -> None:
    shell, address = shell_with_tls
    ca = ("--tls-ca", own_files.ca)
    own = ("--tls-cert", own_files.client, "--tls-key", own_files.client_key)
    assert shell.json("infer", address, "echo", "same", "x=1", *ca, *own) == [{"x": [1]}]
    assert shell.json("infer", address, "echo", "same", "x=1", *ca, *own, "--tls-server-name", "localhost")
    for wrong in ((), ca, ("--tls",), (*ca, *own, "--tls-server-name", "elsewhere")):
        done = shell.run("infer", address, "echo", "same", "x=1", *wrong, "--timeout", "30")
        assert done.returncode == 1
        assert "unavailable" in done.stderr


@pytest.fixture
def shell_with_tls(tmp_path: pathlib.Path, servables: Servables, own_files: Files) -> Iterator[tuple[Shell, str]]:
    servables.add("echo", ECHO_SERVABLE)
    shell = Shell(tmp_path / "shell")
    tls = ("--tls-cert", own_files.server, "--tls-key", own_files.server_key, "--tls-ca", own_files.ca)
    with shell.serving("start", "-s", servables.directory, "--grpc-port", 0, *tls) as server:
        yield shell, server.address()
