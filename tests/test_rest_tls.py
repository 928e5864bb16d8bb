"""HTTPS: certificates, clients' certificates, what is refused, and certificates that change."""

from __future__ import annotations

import json
import pathlib
import shutil
import ssl
import subprocess
import warnings
from collections.abc import Iterator
from typing import Any

import pytest
import requests

import certificates
from certificates import Files
from conftest import ECHO_SERVABLE
from e2e_support import server_process, until, write_servable
from mindserve.certs import make_certificates
from rest_support import Rest, head, read_answer, serving_rest
from sanitizers import foreign_environment
from stubs import compile_protos

PROTO = "package who; message Note { string text = 1; } service Who { rpc Asks(Note) returns (Note); }"
CONFIG = (
    ECHO_SERVABLE
    + """
import json
from who_pb2 import Note


@register.grpc_method
def Asks(request, grpc_context):
    seen = {key: [value.decode() for value in values] for key, values in grpc_context.auth_context().items()}
    return Note(text=json.dumps(seen))
"""
)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Files:
    directory = tmp_path_factory.mktemp("certificates")
    make_certificates(directory)
    return certificates.files_in(directory)


def tls(files: Files, more: str = "") -> str:
    return f"ssl_config=server.SSLConfig({files.server!r}, {files.server_key!r}{more})"


def mutual(files: Files, more: str = "") -> str:
    return tls(files, f", custom_ca={files.ca!r}, verify_client=True{more}")


@pytest.fixture(scope="module")
def rest(tmp_path_factory: pytest.TempPathFactory, made: Files) -> Iterator[Rest]:
    """With mutual TLS."""
    folder = tmp_path_factory.mktemp("rest")
    write_servable(folder / "servables", "echo", CONFIG)
    compile_protos(folder / "servables" / "echo", who=PROTO)
    listen = (
        "server.start_grpc_server('127.0.0.1:0', grpc_servicer_functions=['who_pb2_grpc.add_WhoServicer_to_server'])\n"
    )
    with serving_rest(folder, "echo", listen=f"'localhost:0', {mutual(made)}", before=listen) as rest:
        rest.url = rest.url.replace("http:", "https:")
        rest.session.verify = made.ca
        rest.session.cert = (made.client, made.client_key)
        yield rest


def test_a_client_that_is_known(rest: Rest, made: Files) -> None:
    assert rest.ask("/model/echo:same", {"x": "secret"}) == [{"x": "secret"}]
    seen = json.loads(rest.post("/who.Who/Asks", {}).json()["text"])
    assert seen["transport_security_type"] == ["ssl"]
    assert seen["x509_pem_cert"] == [pathlib.Path(made.client).read_text()]
    assert seen.keys() >= {"x509_common_name"}


def test_clients_that_are_not(rest: Rest, made: Files, tmp_path: pathlib.Path) -> None:
    make_certificates(tmp_path)
    stranger = certificates.files_in(tmp_path)
    for cert in (None, (stranger.client, stranger.client_key)):
        with pytest.raises(requests.ConnectionError):
            requests.get(rest.url + "/healthz/live", verify=made.ca, cert=cert, timeout=60)
    # The other way round: the server is no one whom the client trusts.
    with pytest.raises(requests.exceptions.SSLError):
        requests.get(rest.url + "/healthz/live", verify=stranger.ca, cert=rest.session.cert, timeout=60)
    until(lambda: "was refused" in rest.process.errors())
    assert "[ERROR]" not in rest.process.errors()
    assert rest.get("/healthz/live").status_code == 200


def test_what_is_no_handshake(rest: Rest) -> None:
    with rest.connect() as connection:
        connection.sendall(head("/healthz/live", method="GET"))
        data = b""
        while part := connection.recv(4096):
            data += part
        assert not data.startswith(b"HTTP")
    assert rest.get("/healthz/live").status_code == 200


@pytest.mark.parametrize(("version", "works"), [("TLSv1_1", False), ("TLSv1_2", True), ("TLSv1_3", True)])
def test_versions_of_tls(rest: Rest, made: Files, version: str, works: bool) -> None:
    context = ssl.create_default_context(cafile=made.ca)
    context.load_cert_chain(made.client, made.client_key)
    context.set_ciphers("DEFAULT:@SECLEVEL=0")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of old versions
        context.minimum_version = context.maximum_version = ssl.TLSVersion[version]
    with rest.connect() as connection:
        try:
            with context.wrap_socket(connection, server_hostname="localhost") as secure:
                secure.sendall(head("/healthz/live", method="GET"))
                assert read_answer(secure).status == 200
                assert works
        except ssl.SSLError:
            assert not works


def test_curl(rest: Rest, made: Files) -> None:
    command = ["curl", "-sS", "--cacert", made.ca, "--cert", made.client, "--key", made.client_key]
    done = subprocess.run(
        [*command, "-d", '{"instances": [{"x": "by curl"}]}', f"{rest.url}/model/echo:same"],
        env=foreign_environment(),
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert json.loads(done.stdout) == {"instances": [{"x": "by curl"}]}


def test_certificates_that_change(tmp_path: pathlib.Path) -> None:
    folder = tmp_path / "certificates"
    make_certificates(folder)
    files = certificates.files_in(folder)
    with serving_rest(tmp_path, listen=f"'localhost:0', {tls(files)}") as rest:
        url = f"https://{rest.address}/healthz/live"
        assert requests.get(url, verify=files.ca, timeout=60).json() == {"status": "live"}
        make_certificates(tmp_path / "new")
        for path in (tmp_path / "new").iterdir():
            shutil.copy(path, folder / path.name)

        def works() -> bool:
            try:
                return requests.get(url, verify=files.ca, timeout=60).status_code == 200
            except requests.exceptions.SSLError:
                return False

        until(works)
        assert "certificates reloaded, for new connections" in rest.process.errors()


FAILING = """
from mindserve import server
try:
    server.start_restful_server("127.0.0.1:0", ssl_config=server.SSLConfig({files}))
except RuntimeError as error:
    print(type(error).__name__, str(error).splitlines()[0], flush=True)
"""


def test_files_that_do_not_work(tmp_path: pathlib.Path, made: Files) -> None:
    def error(*files: Any) -> str:
        script = FAILING.replace("{files}", ", ".join(map(repr, files)))
        with server_process(tmp_path / "run", script) as process:
            line = process.line()
            assert process.wait() == 0
            return line

    missing = str(tmp_path / "missing.key")
    assert (
        error(made.server, missing) == f"ConfigError load private_key from {missing} failed: No such file or directory"
    )
    assert error(made.server, made.client_key).startswith(
        f"ConfigError load private_key from {made.client_key} failed: "
    )
