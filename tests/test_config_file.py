# ruff: noqa: E501
"""Config files: what they may say, and what is said about those that are wrong."""

from __future__ import annotations

import dataclasses
import json
import pathlib
import re
import textwrap
from typing import Any

import jsonschema
import pytest
from typer.testing import CliRunner

from conftest import PACKAGE
from mindserve.cli import app
from mindserve.config import Limits, Listener, ServableStartConfig
from mindserve.configfile import ConfigFile, ConfigFileError, Problem, json_schema, load
from mindserve.configfile import document as yaml_document
from mindserve.tls import SSLConfig

DOCS = PACKAGE.parent / "docs"
ONE = "servables: [{directory: models, name: add}]\n"


@pytest.fixture
def write(tmp_path: pathlib.Path) -> Any:
    """Writes a config file."""

    def write(text: str | bytes) -> str:
        path = tmp_path / "config.yaml"
        path.write_bytes(text if isinstance(text, bytes) else textwrap.dedent(text).encode())
        return str(path)

    return write


@pytest.fixture
def read(write: Any) -> Any:
    """What a file says."""

    def read(text: str) -> ConfigFile:
        return load(write(text))

    return read


@pytest.fixture
def problems(write: Any) -> Any:
    """What is wrong with a file: line, column and text of each problem."""

    def problems(text: str | bytes) -> list[tuple[int, int, str]]:
        with pytest.raises(ConfigFileError) as caught:
            load(write(text))
        return [(each.place.line, each.place.column, each.text) for each in caught.value.problems]

    return problems


def test_of_a_key_that_is_not_known_only_the_key_is_shown(write: Any) -> None:
    file = write("servables:\n  - directory: a\n    naem: what it is\nrest: {adress: what it is, port: 1}\n")
    with pytest.raises(ConfigFileError) as caught:
        load(file)
    text = str(caught.value)
    assert "'servables[0]'; did you mean 'name'?\n     3 |     naem:\n       |     ^" in text
    assert "the key 'adress' is not known in 'rest'; did you mean 'address'?" in text
    assert "what it is" not in text


def test_everything_can_be_said(read: Any, tmp_path: pathlib.Path) -> None:
    file = read(
        """
        servables:
          - directory: models
            name: add
            device_ids: [0, 1]
            version_number: 2
            device_type: cpu
            start_timeout: 1.5
            heartbeat_timeout: 20
            max_enqueued_requests: 7
            max_enqueued_bytes: 8
            max_batch_size: 9
            max_queue_delay_us: 10
            hot_reload: false
            refuse_late: true
          - {directory: /elsewhere, name: "123", device_ids: 3}
        grpc:
          listeners:
            - address: 0.0.0.0:5500
              ssl_config:
                {certificate: c.crt, private_key: /k.key, custom_ca: ca.crt, verify_client: true, crl: crl,
                 hot_reload: false}
            - {address: "unix:s.sock", mode: 0o660}
            - address: "[::1]:0"
          grpc_servicer_functions: [a.b_pb2_grpc.add_C, d:e]
          max_msg_mb_size: 12
        limits:
          max_connections: 13
          drain_timeout: 0
        """
    )
    here = str(tmp_path)
    first, second = file.settings.servables
    assert first == ServableStartConfig(
        f"{here}/models",
        "add",
        (0, 1),
        2,
        "CPU",
        start_timeout=1.5,
        heartbeat_timeout=20.0,
        max_enqueued_requests=7,
        max_enqueued_bytes=8,
        max_batch_size=9,
        max_queue_delay_us=10,
        hot_reload=False,
        refuse_late=True,
    )
    assert second == ServableStartConfig("/elsewhere", "123", 3)
    tls = SSLConfig(f"{here}/c.crt", "/k.key", f"{here}/ca.crt", True, crl=f"{here}/crl", hot_reload=False)
    assert file.settings.grpc.all_listeners() == (
        Listener("0.0.0.0:5500", tls),
        Listener(f"unix:{here}/s.sock", mode=0o660),
        Listener("[::1]:0"),
    )
    assert file.settings.grpc.grpc_servicer_functions == ("a.b_pb2_grpc.add_C", "d:e")
    assert file.settings.all_limits() == Limits(max_msg_mb_size=12, max_connections=13, drain_timeout=0)
    assert (file.place("servables", 0, "version_number").line, file.place("servables", 1, "nothing").line) == (6, 16)


def test_defaults_are_those_of_the_classes(read: Any, tmp_path: pathlib.Path) -> None:
    for text in (ONE, ONE + "grpc:\nlimits:\n", ONE + "grpc: {port: null}\nlimits: {max_connections: ~}"):
        settings = read(text).settings
        assert settings.servables == (ServableStartConfig(str(tmp_path / "models"), "add"),)
        assert settings.grpc.all_listeners() == (Listener("127.0.0.1:9000"),)
        assert settings.all_limits() == Limits()


def test_the_ways_to_say_where(read: Any) -> None:
    def listeners(grpc: str) -> tuple[Listener, ...]:
        found: tuple[Listener, ...] = read(ONE + grpc).settings.grpc.all_listeners()
        return found

    assert listeners("grpc: {port: 0}") == (Listener("127.0.0.1:0"),)
    assert listeners("grpc_options: {port: 7}") == (Listener("127.0.0.1:7"),)
    assert listeners("grpc: {address: '0.0.0.0:1'}") == (Listener("0.0.0.0:1"),)
    tls = SSLConfig("/c", "/k")
    ssl_config = "ssl_config: {certificate: /c, private_key: /k}"
    assert listeners("grpc: {port: 1, " + ssl_config + "}") == (Listener("127.0.0.1:1", tls),)
    assert listeners("grpc: {listeners: [{address: 'unix:/x', " + ssl_config + "}]}") == (Listener("unix:/x", tls),)


def test_json_is_taken(read: Any) -> None:
    text = json.dumps({"servables": [{"directory": "m", "name": "add", "refuse_late": True}], "limits": {}}, indent=2)
    assert read(text).settings.servables[0].refuse_late


def test_aliases_and_merges(read: Any) -> None:
    file = read(
        """
        x-common: &common {directory: models, max_batch_size: 4}
        x-more: &more {max_batch_size: 5, max_queue_delay_us: 6}
        servables:
          - {<<: *common, name: one, max_batch_size: 8}
          - {<<: [*common, *more], name: two}
          - &three {directory: models, name: three}
          - *three
        """
    )
    one, two, three, again = file.settings.servables
    assert (one.max_batch_size, two.max_batch_size, two.max_queue_delay_us) == (8, 4, 6)
    assert three == again


def test_scalars_mean_what_json_means(read: Any) -> None:
    def value(text: str) -> Any:
        node = yaml_document.parse(f"a: {text}", "f")
        assert isinstance(node, yaml_document.Table)
        scalar = node.entries["a"].node
        assert isinstance(scalar, yaml_document.Scalar)
        return scalar.value

    known: dict[str, Any] = {"yes": "yes", "on": "on", "12:30": "12:30", "1_000": "1_000", "2020-01-01": "2020-01-01"}
    known |= {"0x1F": 31, "0o17": 15, "-5": -5, "+5": 5, "0": 0, "1e3": 1000.0, ".5": 0.5, "-.inf": float("-inf")}
    known |= {"true": True, "FALSE": False, "null": None, "~": None, "": None, "'5'": "5", '"null"': "null"}
    known |= {"!!str 5": "5", "!!int 5": 5, "!!float 5": 5, "&x !!str 5": "5", "&x 5": 5, "=": "="}
    for text, expected in known.items():
        assert (text, value(text)) == (text, expected)
        assert type(value(text)) is type(expected)
    assert value(".nan") != value(".nan")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        # Keys.
        (
            "servables: [{directory: m, name: a, device_idss: 0}]",
            (1, 37, "the key 'device_idss' is not known in 'servables[0]'; did you mean 'device_ids'?"),
        ),
        ("servebles: []\n" + ONE, (1, 1, "the key 'servebles' is not known in the file; did you mean 'servables'?")),
        (ONE + "drain_timeout: 5", (2, 1, "the key 'drain_timeout' is not known in the file; expected under 'limits'")),
        (ONE + "grpc: {mode: 5}", (2, 8, "the key 'mode' is not known in 'grpc'; expected one of address, port, *")),
        (ONE + "grpc: {tls: 5}", (2, 8, "the key 'tls' is not known in 'grpc'; did you mean 'ssl_config'?")),
        (ONE + "applications: []", (2, 1, "the key 'applications' is not known in the file; did you mean 'servables'?*")),
        (
            "servables: [{servable_directory: m, name: a}]",
            (1, 14, "the key 'servable_directory' is not known in 'servables[0]'; did you mean 'directory'?"),
        ),
        (ONE + "grpc: {}\ngrpc_options: {}", (3, 1, "the key 'grpc_options' is another word for 'grpc', which is *")),
        (ONE + "limits: {}\nlimits: {}", (3, 1, "the key 'limits' is given twice, first in line 2: expected once")),
        ("grpc: {}", (1, 1, "the key 'servables' is missing in the file: expected a list, each item keys and values *")),
        ("servables: [{directory: m}]", (1, 13, "the key 'name' is missing in 'servables[0]': expected text")),
        (ONE + "? [a]\n: 5", (2, 3, "a key should be text")),
        # Kinds of values.
        ("[]", (1, 1, "the file holds no keys and values, but a list: expected at least 'servables:'")),
        ("5", (1, 1, "the file holds no keys and values, but a number: expected at least 'servables:'")),
        ("~", (1, 1, "the file holds no keys and values, but nothing: expected at least 'servables:'")),
        ("add", (1, 1, "the file holds no keys and values, but a text: expected at least 'servables:'")),
        ("'5'", (1, 1, "the file holds no keys and values, but a text: expected at least 'servables:'")),
        ("true", (1, 1, "the file holds no keys and values, but true or false: expected at least 'servables:'")),
        ("servables: add", (1, 12, "'servables' should be a list, each item keys and values *, but is the text 'add'")),
        ("servables:", (1, 11, "'servables' should be a list, each item keys and values *, but is nothing")),
        ("servables: [add]", (1, 13, "'servables[0]' should be keys and values (directory, name, *), but is the text *")),
        (
            "servables: [{directory: m, name: 5}]",
            (1, 34, "'servables[0].name' should be text, but is the number 5: put it in quotes to make it text"),
        ),
        (
            "servables: [{directory: m, name: a, hot_reload: yes}]",
            (1, 49, "'servables[0].hot_reload' should be true or false, but is the text 'yes': write true"),
        ),
        (ONE + "limits: {max_connections: 1.5}", (2, 27, "'limits.max_connections' should be a whole number, but is the *")),
        (ONE + "limits: {max_connections: true}", (2, 27, "'limits.max_connections' should be a whole number, but is true")),
        (ONE + "limits: {drain_timeout: 5s}", (2, 25, "'limits.drain_timeout' should be a number of seconds, but is *")),
        (ONE + "limits: 5", (2, 9, "'limits' should be keys and values (max_msg_mb_size, *, …), but is the number 5")),
        (
            "servables: [{directory: m, name: a, device_ids: all}]",
            (1, 49, "'servables[0].device_ids' should be a whole number, or a list, each item a whole number, but is *"),
        ),
        (
            "servables: [{directory: m, name: a, device_ids: [0, x]}]",
            (1, 53, "'servables[0].device_ids[1]' should be a whole number, but is the text 'x'"),
        ),
        (
            ONE + "grpc: {listeners: [{address: 'unix:s', mode: 660}]}",
            (2, 46, "'grpc.listeners[0].mode' should be permissions as octal digits, such as 0o660, but is the number 660"),
        ),
        *(
            (
                ONE + f"grpc: {{address: '{address}'}}",
                (2, 17, f"'grpc.address' should be 'host:port', *, with a port up to 65535, but is the text '{address}'"),
            )
            for address in ("localhost", "localhost:http", "a:70000", "unix:", "http://a:1", "::1:80", "unix-abstract:x")
        ),
        # Values that the classes refuse.
        (ONE + "limits:\n  max_msg_mb_size: 1000", (3, 20, "'limits.max_msg_mb_size' should be in range [1,512], but is *")),
        (
            "servables: [{directory: m, name: a/b}]",
            (1, 34, "'name' should be the name of a directory, but actually 'a/b'"),
        ),
        (
            "servables: [{directory: m, name: a, device_type: TPU}]",
            (1, 50, "'servables[0].device_type' should be one of Ascend, GPU, CPU, but is the text 'TPU'"),
        ),
        (
            "servables: [{directory: m, name: a, num_parallel_workers: 2}]",
            (1, 59, "'num_parallel_workers' > 0 is not supported by this version of MindServe, *"),
        ),
        ("servables: []", (1, 12, "'servables' should not be empty")),
        (
            "servables: [{directory: m, name: a}, {directory: n, name: a}]",
            (1, 39, "The servable directory of servable name a is different in multiple configurations: *"),
        ),
        (
            # At the servable, since what disagrees was not given there.
            "servables:\n- {name: a, directory: m, max_enqueued_requests: 5}\n- {name: a, directory: m}",
            (3, 3, "'max_enqueued_requests' of servable name a is different in multiple configurations: 5 and 0"),
        ),
        (ONE + "grpc: {port: 1, address: 'a:1'}", (2, 14, "'port' is given besides 'address': expected one of them")),
        (ONE + "grpc: {port: 70000}", (2, 14, "'grpc.port' should be in range [0,65535], but is the number 70000")),
        (
            ONE + "grpc: {listeners: [{address: 'a:1'}], ssl_config: {certificate: c, private_key: k}}",
            (2, 51, "'ssl_config' belongs to each of 'listeners', where there are several"),
        ),
        (
            ONE + "grpc: {grpc_servicer_functions: [add me]}",
            (2, 34, "'grpc.grpc_servicer_functions[0]' should be an import path, *, but is the text 'add me'"),
        ),
        (
            ONE + "grpc: {max_msg_mb_size: 5}\nlimits: {max_msg_mb_size: 6}",
            (3, 10, "'max_msg_mb_size' is 6 in 'limits', but 5 in 'grpc': expected it once"),
        ),
        (
            ONE + "grpc: {ssl_config: {certificate: c, private_key: k, verify_client: true}}",
            (2, 68, "'custom_ca' should be str, but actually *"),
        ),
        # What is no YAML, or not one that all readers understand alike.
        ("servables: [", (1, 13, "this is no YAML: *")),
        ("a: b: c", (1, 5, "this is no YAML: expected keys and values, at least 'servables:'")),
        ("rest: b: c", (1, 8, "this is no YAML: mapping values are not allowed here*")),
        ("servables:\n\t- a", (2, 1, "this is no YAML: *; lines are indented by spaces, not by tabs")),
        ("rest: *b", (1, 7, "this is no YAML: found undefined alias 'b'*")),
        ("rest: *" + "b" * 100, (1, 7, f"this is no YAML: found undefined alias '{'b' * 59}…'*")),
        ("rest: 1\n---\nb: 2", (2, 1, "this is no YAML: but found another document*")),
        ("a: \x00", (1, 4, "the character '\\x00' may not stand in YAML")),
        ("", (0, 0, "the file is empty: expected at least 'servables:'")),
        ("# nothing\n", (0, 0, "the file is empty: expected at least 'servables:'")),
        (b"a: 1\nb: \xff\n", (2, 4, "expected UTF-8, but found byte 0xff")),
        (ONE + "limits: {max_connections: 010}", (2, 27, "010 means 8 to some readers of YAML and 10 to others: write *")),
        (ONE + "limits: !env X", (2, 9, "the tag !env is not known here, or not for 'X'")),
        (ONE + "limits: !!set {max_connections}", (2, 9, "the tag !!set is not known here")),
        (ONE + "limits: {max_connections: !!int x}", (2, 27, "the tag !!int is not known here, or not for 'x'")),
        (ONE + "limits: {<<: 5}", (2, 14, "'<<' takes the keys of another mapping: expected an alias such as *")),
        (ONE + f"limits: {{max_connections: {'9' * 5000}}}", (2, 27, "a number of 5000 characters is too long")),
        # Bombs.
        ("a: &a [*a]", (1, 4, "expected at most 32 levels, one inside the other")),
        ("a: " + "[" * 40 + "]" * 40, (1, 35, "expected at most 32 levels, one inside the other")),
        ("a: " + "[" * 50_000, (0, 0, "expected at most 32 levels, one inside the other")),
        (
            "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n"
            + "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]\n" for n in range(1, 9)),
            (1, 1, "expected at most 10000 values, with what aliases (*name) repeat"),
        ),
        ("a: " + "x" * (1 << 20), (0, 0, "the file can't be read: File too large, at most 1048576 bytes are expected")),
    ],
)  # fmt: skip
def test_what_is_wrong(problems: Any, text: str | bytes, expected: tuple[int, int, str]) -> None:
    (found,) = problems(text)
    pattern = ".*".join(re.escape(part) for part in expected[2].split("*"))
    literal = found[2] == expected[2]
    assert literal or re.fullmatch(pattern, found[2], re.DOTALL), found
    if "10000 values" not in expected[2]:  # wherever it was when there were enough
        assert found[:2] == expected[:2]


def test_all_problems_come_at_once_with_their_lines(problems: Any, write: Any) -> None:
    text = "limits: {max_connectoins: 5}\nservables:\n  - directory: m\n    name: 5\n    x: y\n"
    assert [line for line, _, _ in problems(text)] == [1, 4, 5]
    path = write(text)
    with pytest.raises(ConfigFileError) as caught:
        load(path)
    assert f"{path}:4:11: 'servables[0].name' should be text" in str(caught.value)
    assert "\n     4 |     name: 5\n       |           ^\n" in str(caught.value)
    assert caught.value.problems[0].as_dict() == {
        "file": path,
        "line": 1,
        "column": 10,
        "key": "limits",
        "text": "the key 'max_connectoins' is not known in 'limits'; did you mean 'max_connections'?",
    }


def test_one_problem_hides_no_other(problems: Any) -> None:
    found = problems(
        """\
        servables:
          - directory: models
            name: a/b
            device_ids: [0, x, -1, 0]
            max_batch_size: 0
            num_parallel_workers: 2
            dec_mode: ROT13
            start_timeout: .inf
          - {directory: models, nam: b, hot_reload: yes, version_number: 010}
          - directory: models
            name: c
            name: d
            max_enqueued_requests: 5
            unknown: 1
          - {directory: elsewhere, name: c, max_enqueued_requests: 6, max_enqueued_bytes: -1}
          - directory: models
        grpc:
          port: 70000
          address: nowhere
          listeners: [{address: "a:1", mode: 660}, {address: "a:99999"}]
          ssl_config: {certificate: "", verify_client: true, crl: 5}
          grpc_servicer_functions: [a.b, a b, a.b]
          max_msg_mb_size: 5
        limits:
          max_msg_mb_size: 6
          max_connections: 0
          drain_timeot: 5
        servables: []
        """
    )
    expected = [
        (3, 11, "'name' should be the name of a directory"),
        (4, 21, "'servables[0].device_ids[1]' should be a whole number"),
        (4, 24, "'servables[0].device_ids[2]' should be >= 0, but is the number -1"),
        (4, 28, "'servables[0].device_ids[3]' is the number 0 again: expected it once"),
        (5, 21, "'servables[0].max_batch_size' should be in range [1,1048576], but is the number 0"),
        (6, 27, "'num_parallel_workers' > 0 is not supported"),
        (7, 15, "'dec_mode' should be 'AES-GCM' or 'AES-CBC', but actually 'ROT13'"),
        (8, 20, "'servables[0].start_timeout' should be at most 1000000000 seconds, but is the number .inf"),
        (9, 25, "the key 'nam' is not known in 'servables[1]'; did you mean 'name'?"),
        (9, 45, "'servables[1].hot_reload' should be true or false, but is the text 'yes': write true"),
        (9, 66, "010 means 8 to some readers of YAML and 10 to others"),
        (12, 5, "the key 'name' is given twice, first in line 11: expected once"),
        (14, 5, "the key 'unknown' is not known in 'servables[2]'; expected one of"),
        (15, 6, "The servable directory of servable name c is different in multiple configurations"),
        (15, 37, "'max_enqueued_requests' of servable name c is different in multiple configurations: 5 and 6"),
        (15, 83, "'servables[3].max_enqueued_bytes' should be in range"),
        (16, 5, "the key 'name' is missing in 'servables[4]': expected text"),
        (18, 9, "'grpc.port' should be in range [0,65535], but is the number 70000"),
        (18, 9, "'port' is given besides 'listeners': expected one of them"),
        (19, 12, "'grpc.address' should be 'host:port', '[IPv6]:port' or 'unix:path', with a port up to 65535, but is"),
        (19, 12, "'address' is given besides 'listeners': expected one of them"),
        (20, 38, "'grpc.listeners[0].mode' should be permissions as octal digits"),
        (
            20,
            54,
            "'grpc.listeners[1].address' should be 'host:port', '[IPv6]:port' or 'unix:path', with a port up to 65535, but is",
        ),
        (21, 15, "the key 'private_key' is missing in 'grpc.ssl_config': expected text"),
        (21, 15, "'ssl_config' belongs to each of 'listeners'"),
        (21, 29, "'certificate' should not be empty str"),
        (21, 48, "'custom_ca' should be str, but actually <class 'NoneType'>: 'verify_client' needs"),
        (21, 59, "'grpc.ssl_config.crl' should be text, but is the number 5"),
        (22, 34, "'grpc.grpc_servicer_functions[1]' should be an import path, such as"),
        (22, 39, "'grpc.grpc_servicer_functions[2]' is the text 'a.b' again: expected it once"),
        (25, 3, "'max_msg_mb_size' is 6 in 'limits', but 5 in 'grpc': expected it once"),
        (26, 20, "'limits.max_connections' should be in range [1,2147483647], but is the number 0"),
        (27, 3, "the key 'drain_timeot' is not known in 'limits'; did you mean 'drain_timeout'?"),
        (28, 1, "the key 'servables' is given twice, first in line 1: expected once"),
    ]
    assert len(found) == len(expected)
    for (*place, text), (line, column, beginning) in zip(found, expected, strict=True):
        assert (place, text[: len(beginning)]) == ([line, column], beginning)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        # What another problem may be the cause of.
        ("servables: [{directory: m, nam: 5}]", ["the key 'nam'"]),
        ("servables: [{<<: 5}]", ["'<<' takes"]),
        ("servables: [{? [a] : 5}]", ["a key should be text"]),
        (ONE + "grpc: {ssl_config: {certificate: c, private_key: k, verify_client: no, crl: l}}", ["'grpc.ssl_config.ver"]),
        (ONE + "grpc: {ssl_config: {certificate: c, private_key: k, verify_client: true, custom_caa: a}}", ["the key 'cu"]),
        (ONE + "grpc: {ssl_config: {certificate: c, private_key: k, verify_client: true, custom_ca: 5}}", ["'grpc.ssl_config.cus"]),
        (ONE + "grpc: {ssl_config: {certificate: c, private_key: k, verify_client: true, crl: l}}", ["'custom_ca' should be"]),
        (ONE + "grpc: {adress: 'a:1', port: 5}", ["the key 'adress'"]),
        (ONE + "grpc: {max_msg_mb_size: 0}\nlimits: {max_msg_mb_size: 6}", ["'grpc.max_msg_mb_size' should be"]),
        (
            "servables: [{directory: m, name: a, max_enqueued_bytes: x}, {directory: m, name: a, max_enqueued_bytes: 6}]",
            ["'servables[0].max_enqueued_bytes' should be"],
        ),
        # What aliases repeat.
        ("servables: [&a {directory: m, name: a, x: 5}, *a]", ["the key 'x' is not known in 'servables[0]'"]),
        ("servables: [&a {directory: m, name: a, version_number: 010}, *a]", ["010 means"]),
    ],
)  # fmt: skip
def test_what_follows_from_another_problem_is_not_told(problems: Any, text: str, expected: list[str]) -> None:
    found = [text for _, _, text in problems(text)]
    assert len(found) == len(expected), found
    assert all(one.startswith(other) for one, other in zip(found, expected, strict=True)), found


@pytest.mark.parametrize("address", ["0.0.0.0:1", "[::1]:0", "[fe80::1%eth0]:65535", "a-b.c_d:5500", "unix:///tmp/s"])
def test_every_kind_of_address(read: Any, address: str) -> None:
    assert read(ONE + f"grpc: {{address: '{address}'}}").settings.grpc.all_listeners() == (Listener(address),)


def test_the_longest_path_of_a_unix_socket(write: Any, read: Any, problems: Any, tmp_path: pathlib.Path) -> None:
    """What is longer the server would refuse only when it listens."""
    for begin in ("/", "///"):
        address = f"unix:{begin}{'é' * 53}"
        assert read(ONE + f"grpc: {{address: '{address}'}}").settings.grpc.all_listeners() == (Listener(address),)
        ((line, column, text),) = problems(ONE + f"grpc: {{address: '{address}s'}}")
        assert (line, column) == (2, 17)
        assert text.startswith(
            "'grpc.address' should be 'unix:path' with a path of at most 107 bytes (it has 108), but is"
        )
    left = 107 - len(f"{tmp_path}/")
    assert read(ONE + f"grpc: {{address: 'unix:{'s' * left}'}}")
    ((_, _, text),) = problems(ONE + f"grpc: {{address: 'unix:{'s' * (left + 1)}'}}")
    assert "at most 107 bytes (with the file's directory it has 108), but is" in text
    path = write(ONE + f"grpc: {{address: 'unix:{'s' * 200}'}}")
    result = CliRunner().invoke(app, ["validate", "--no-imports", path])
    assert result.exit_code == 1
    assert "at most 107 bytes" in result.output


def test_a_secret_is_not_shown(problems: Any) -> None:
    ((_, _, text),) = problems("servables: [{directory: m, name: a, dec_key: 'not base64: hush'}]")
    assert text == "'servables[0].dec_key' should be bytes in base64"
    ((_, _, text),) = problems("servables: [{directory: m, name: a, dec_key: 123456}]")
    assert text == "'servables[0].dec_key' should be bytes in base64"
    ((_, _, text),) = problems("servables: [{directory: m, name: a, dec_key: aHVzaA==}]")
    assert "hush" not in text
    assert "aHVz" not in text


@pytest.mark.parametrize("line", ["dec_key: '????hush'", "dec_kye: '????hush'"])
def test_the_source_line_of_a_secret_is_not_shown(write: Any, line: str) -> None:
    with pytest.raises(ConfigFileError, match="dec_key") as caught:
        load(write(f"servables:\n  - directory: m\n    name: a\n    {line}\n"))
    assert "hush" not in str(caught.value)


def test_a_file_that_is_not_there(tmp_path: pathlib.Path) -> None:
    with pytest.raises(ConfigFileError, match=r"none\.yaml: the file can't be read: No such file or directory"):
        load(str(tmp_path / "none.yaml"))
    with pytest.raises(ConfigFileError, match="the file can't be read: Is a directory"):
        load(str(tmp_path))


def test_tabs_before_the_mark_stay_tabs() -> None:
    from mindserve.configfile import Place

    problem = Problem(Place("f", 1, 4, "a:\tb"), "wrong")
    assert str(problem) == "f:1:4: wrong\n     1 | a:\tb\n       |   \t^"


# -- The schema --------------------------------------------------------------------------------------------------------


def test_the_published_schema_is_that_of_the_code() -> None:
    published = json.loads((DOCS / "config.schema.json").read_text(encoding="utf-8"))
    assert published == json_schema(), "make it anew: mindserve validate --schema > docs/config.schema.json"


def test_every_option_is_in_the_schema_with_its_text_and_default() -> None:
    definitions = json_schema()["$defs"]
    renamed = {"servable_directory": "directory", "servable_name": "name"}
    for kind in (ServableStartConfig, Limits, Listener, SSLConfig):
        properties = definitions[kind.__name__]["properties"]
        for field in dataclasses.fields(kind):
            schema = properties.pop(renamed.get(field.name, field.name))
            assert schema["description"].endswith("."), field.name
            if isinstance(field.default, int | float | str):
                assert schema["default"] == field.default
        assert not properties


@pytest.fixture(scope="module")
def validator() -> jsonschema.Draft202012Validator:
    jsonschema.Draft202012Validator.check_schema(json_schema())
    return jsonschema.Draft202012Validator(json_schema())


def plain(text: str) -> Any:
    """What a reader of YAML makes of a text."""

    def convert(node: yaml_document.Node) -> Any:
        if isinstance(node, yaml_document.Scalar):
            return node.value
        if isinstance(node, yaml_document.Listing):
            return [convert(item) for item in node.items]
        return {key: convert(entry.node) for key, entry in node.entries.items()}

    return convert(yaml_document.parse(text, "f"))


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ("[]", []),
        ("grpc: {}", []),
        (ONE + "x: 5", []),
        ("servables: [{directory: m}]", ["servables", 0]),
        ("servables: [{directory: m, name: a, hot_reload: yes}]", ["servables", 0, "hot_reload"]),
        ("servables: [{directory: m, name: a, version_number: -1}]", ["servables", 0, "version_number"]),
        ("servables: [{directory: m, name: a, heartbeat_timeout: 1}]", ["servables", 0, "heartbeat_timeout"]),
        ("servables: [{directory: m, name: a, device_ids: [x]}]", ["servables", 0, "device_ids"]),
        (ONE + "limits: {max_msg_mb_size: 513}", ["limits"]),
        (ONE + "limits: {drain_timeout: -1}", ["limits"]),
        (ONE + "grpc: {listeners: [{address: 'a:1', mode: 0o1000}]}", ["grpc"]),
        (ONE + "grpc: {ssl_config: {certificate: c}}", ["grpc"]),
    ],
)
def test_the_schema_refuses_what_the_reader_refuses(
    problems: Any, validator: jsonschema.Draft202012Validator, text: str, path: list[str | int]
) -> None:
    assert problems(text)
    assert [list(error.absolute_path) for error in validator.iter_errors(plain(text))] == [path]


def test_the_schema_accepts_what_the_reader_accepts(read: Any, validator: jsonschema.Draft202012Validator) -> None:
    page = (DOCS / "command_line.md").read_text(encoding="utf-8")
    examples = re.findall(r"```yaml\n(.*?)```", page, re.DOTALL)
    assert len(examples) == 2
    for text in (*examples, ONE + "grpc:\nlimits: {drain_timeout: 0}\nx-y: 5", ONE + "grpc: {port: ~}"):
        assert read(text)
        assert [error.message for error in validator.iter_errors(plain(text))] == []
