"""example/tensor_add: server and client as processes, over TCP, a Unix socket, TLS and mutual TLS."""

import ast
import os
import pathlib
import re
import shlex
import shutil
import subprocess

import numpy as np
import pytest

from certificates import files_in
from example_process import EXAMPLE, ask, errors_of, load_script, serving
from mindserve.certs import make_certificates
from mindserve.client import Client, SSLConfig
from sanitizers import foreign_environment

ADD_COMMON = (
    "[{'y': array([[2., 2.], [2., 2.]], dtype=float32)},"
    " {'y': array([[4., 4.], [4., 4.]], dtype=float32)},"
    " {'y': array([[6., 6.], [6., 6.]], dtype=float32)}]"
)
ADD_CAST = "[{'y': array([[5.5, 5.5], [5.5, 5.5]], dtype=float32)}]"
# Certificates of X.509 version 1, as openssl makes them when nothing else is said; the name is only in CN.
OPENSSL = """
req -x509 -nodes -days 365 -newkey rsa:2048 -keyout ca.key -out ca.crt -subj /C=CN/ST=xx/L=xx/OU=gRPC/CN=Root
genrsa -out server.key 2048
req -new -key server.key -out server.csr -subj /C=XX/ST=MyST/L=XX/O=HW/OU=gRPC/CN=localhost
x509 -req -in server.csr -CA ca.crt -CAkey ca.key -CAcreateserial -out server.crt -days 365 -sha256
genrsa -out client.key 2048
req -new -key client.key -out client.csr -subj /C=XX/ST=MyST/L=XX/O=HW/OU=gRPC/CN=client
x509 -req -in client.csr -CA ca.crt -CAkey ca.key -CAcreateserial -out client.crt -days 365 -sha256
"""
ONES = {"x1": np.ones((2, 2), np.float32), "x2": np.ones((2, 2), np.float32)}


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    directory = tmp_path_factory.mktemp("certificates")
    for line in OPENSSL.strip().splitlines():
        subprocess.run(["openssl", *shlex.split(line)], cwd=directory, check=True, capture_output=True)
    return directory


def assert_right(printed: str) -> None:
    # numpy breaks its lines inside an array.
    assert " ".join(printed.split()).replace("], [", "], [") == f"{ADD_COMMON} {ADD_CAST}"


def test_the_model_file_is_what_its_script_writes() -> None:
    script = load_script(EXAMPLE / "tensor_add" / "export_model.py")
    assert script.tensor_add().SerializeToString(deterministic=True) == script.MODEL_FILE.read_bytes()


def test_over_tcp(tmp_path: pathlib.Path) -> None:
    with serving("tensor_add", tmp_path) as address:
        assert_right(ask("tensor_add", "--address", address))

        with Client(address, "add", "add_common2") as client:
            assert client.infer(ONES) == {"error": "Request Servable(add) method(add_common2), method is not available"}
        # The error of one instance leaves the others alone.
        wrong = {"x1": ONES["x1"], "x2": np.ones((2, 2), np.int32)}
        with Client(address, "add", "add_common") as client:
            first, second, third = client.infer([ONES, wrong, ONES])
        assert re.match(r"Given model input \d data type kMSI_Int32 not match", second["error"])
        for result in (first, third):
            np.testing.assert_array_equal(result["y"], np.full((2, 2), 2, np.float32))


def test_over_a_unix_socket(tmp_path: pathlib.Path) -> None:
    with serving("tensor_add", tmp_path, address=f"unix:{tmp_path}/add.sock") as address:
        assert_right(ask("tensor_add", "--address", address))


def test_over_tls(tmp_path: pathlib.Path, certificates: pathlib.Path) -> None:
    options = ("--certificate", certificates / "server.crt", "--private-key", certificates / "server.key")
    with serving("tensor_add", tmp_path, *options) as address:
        name = address.replace("127.0.0.1", "localhost")
        assert_right(ask("tensor_add", "--address", name, "--custom-ca", certificates / "ca.crt"))

        with Client(name, "add", "add_common") as plaintext:
            assert "Grpc Error, (14, 'unavailable')" in plaintext.infer(ONES)["error"]


def test_over_mutual_tls(tmp_path: pathlib.Path, certificates: pathlib.Path) -> None:
    options = ("--certificate", certificates / "server.crt", "--private-key", certificates / "server.key")
    authority = ("--custom-ca", certificates / "ca.crt")
    with serving("tensor_add", tmp_path, *options, *authority) as address:
        name = address.replace("127.0.0.1", "localhost")
        own = ("--certificate", certificates / "client.crt", "--private-key", certificates / "client.key")
        assert_right(ask("tensor_add", "--address", name, *authority, *own))

        nobody = SSLConfig(custom_ca=str(certificates / "ca.crt"))
        with Client(name, "add", "add_common", ssl_config=nobody) as client:
            assert "Grpc Error, (14, 'unavailable')" in client.infer(ONES)["error"]


def test_by_http_with_requests(tmp_path: pathlib.Path) -> None:
    with serving("tensor_add", tmp_path, "--rest-address", "127.0.0.1:0") as addresses:
        printed = ask("tensor_add", "--url", addresses.split(" and ")[1], script="rest_client.py")
    assert [ast.literal_eval(line) for line in printed.splitlines()] == [
        [{"y": [[2.5, 3.5], [4.5, 5.5]]}, {"y": [[2.0, 2.0], [2.0, 2.0]]}],
        [{"y": [[2.5, 3.5], [4.5, 5.5]]}, {"error_msg": "Cannot find input x2 in instance input"}],
        [{"y": [[2.0, 2.0], [2.0, 2.0]]}],
    ]


def curl(*options: object) -> list[str]:
    """The lines that the client with curl prints."""
    script = EXAMPLE / "tensor_add" / "rest_client.sh"
    done = subprocess.run(
        ["sh", script, *map(str, options)],
        env=foreign_environment(),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


ANSWERS_TO_CURL = [
    '{"status": "ready"}',
    '{"instances":[{"y":[[2.5,3.5],[4.5,5.5]]}]}',
    '{"instances":[{"y":[[5.5,5.5],[5.5,5.5]]}]}',
    '{"error_msg":"Request Servable(add) method(add_all), method is not available"}',
]


@pytest.mark.skipif(not shutil.which("curl") and not os.environ.get("CI"), reason="curl is not installed")
def test_by_http_with_curl(tmp_path: pathlib.Path) -> None:
    with serving("tensor_add", tmp_path, "--rest-address", "127.0.0.1:0") as addresses:
        assert curl(addresses.split(" and ")[1], "--noproxy", "*") == ANSWERS_TO_CURL


def test_by_https(tmp_path: pathlib.Path) -> None:
    make_certificates(tmp_path / "files")
    files = files_in(tmp_path / "files")
    options = ("--certificate", files.server, "--private-key", files.server_key)
    with serving("tensor_add", tmp_path, "--rest-address", "127.0.0.1:0", *options) as addresses:
        url = addresses.split(" and ")[1]
        assert url.startswith("https://")
        printed = ask("tensor_add", "--url", url, "--custom-ca", files.ca, script="rest_client.py")
        assert len(printed.splitlines()) == 3


def test_a_key_of_another_certificate_is_an_error_at_start(tmp_path: pathlib.Path, certificates: pathlib.Path) -> None:
    options = ("--certificate", certificates / "server.crt", "--private-key", certificates / "client.key")
    with (
        pytest.raises(AssertionError, match="ended before it was ready"),
        serving("tensor_add", tmp_path, *options, address=f"unix:{tmp_path}/add.sock"),
    ):
        pass
    assert f"load private_key from {certificates / 'client.key'} failed" in errors_of(tmp_path)
