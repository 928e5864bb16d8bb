"""The client over TLS, with certificates of the old and of today's form."""

from pathlib import Path

import grpc
import pytest

import certificates
from certificates import Files
from mindserve.client import AsyncClient, Client, SSLConfig
from mindserve.errors import MindserveError
from predict_server import PredictServer, serving

ECHO = [{"x": "text"}]


def credentials(files: Files, *, verify_client: bool) -> grpc.ServerCredentials:
    key, certificate, ca = (Path(path).read_bytes() for path in (files.server_key, files.server, files.ca))
    if verify_client:
        return grpc.ssl_server_credentials([(key, certificate)], ca, require_client_auth=True)
    return grpc.ssl_server_credentials([(key, certificate)])


def infer(address: str, ssl_config: SSLConfig | None):
    with Client(address, "echo", "echo", ssl_config=ssl_config) as client:
        return client.infer({"x": "text"}, timeout=60)


async def infer_async(server: PredictServer, ssl_config: SSLConfig):
    async with AsyncClient(server.address, "echo", "echo", ssl_config=ssl_config) as client:
        return await client.infer({"x": "text"}, timeout=60)


def unavailable(result) -> str:
    assert isinstance(result, dict)
    assert result["error"].startswith("Grpc Error, (14, 'unavailable'), ")
    return result["error"]


def test_only_the_server_shows_a_certificate(files):
    import asyncio

    with serving(credentials=credentials(files, verify_client=False)) as server:
        ssl_config = SSLConfig(custom_ca=files.ca)
        assert infer(server.address, ssl_config) == ECHO
        assert asyncio.run(infer_async(server, ssl_config)) == ECHO


def test_both_show_a_certificate(files):
    with serving(credentials=credentials(files, verify_client=True)) as server:
        ssl_config = SSLConfig(certificate=files.client, private_key=files.client_key, custom_ca=files.ca)
        assert infer(server.address, ssl_config) == ECHO
        unavailable(infer(server.address, SSLConfig(custom_ca=files.ca)))


def test_a_unix_socket_counts_as_localhost(files, tmp_path):
    address = f"unix:{tmp_path}/tls.sock"
    with serving(address, credentials(files, verify_client=True)):
        ssl_config = SSLConfig(certificate=files.client, private_key=files.client_key, custom_ca=files.ca)
        assert infer(address, ssl_config) == ECHO


def test_an_ip_address_must_be_in_the_certificate(own_files, reference_files):
    with serving(credentials=credentials(own_files, verify_client=False)) as server:
        assert infer(f"127.0.0.1:{server.port}", SSLConfig(custom_ca=own_files.ca)) == ECHO
    with serving("127.0.0.1:0", credentials(reference_files, verify_client=False)) as server:
        address = f"127.0.0.1:{server.port}"
        unavailable(infer(address, SSLConfig(custom_ca=reference_files.ca)))
        assert infer(address, SSLConfig(custom_ca=reference_files.ca, server_name="localhost")) == ECHO


def test_a_server_of_another_authority_is_refused(own_files, reference_files):
    with serving(credentials=credentials(own_files, verify_client=False)) as server:
        error = unavailable(infer(server.address, SSLConfig(custom_ca=reference_files.ca)))
        assert "CERTIFICATE_VERIFY_FAILED" in error
        # Without a CA of its own, the client trusts the well-known ones.
        assert "CERTIFICATE_VERIFY_FAILED" in unavailable(infer(server.address, SSLConfig()))


def test_tls_on_one_side_only_is_an_error(own_files):
    with serving() as server:
        assert "WRONG_VERSION_NUMBER" in unavailable(infer(server.address, SSLConfig(custom_ca=own_files.ca)))
    with serving(credentials=credentials(own_files, verify_client=False)) as server:
        unavailable(infer(server.address, None))


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"certificate": 1}, "Parameter 'certificate' should be str, but actually <class 'int'>"),
        ({"private_key": b"x"}, "Parameter 'private_key' should be str, but actually <class 'bytes'>"),
        ({"custom_ca": ""}, "Parameter 'custom_ca' should not be empty str"),
        ({"server_name": 1}, "Parameter 'server_name' should be str, but actually <class 'int'>"),
        ({"certificate": "c"}, "Parameter 'certificate' is given without 'private_key'"),
        ({"private_key": "k"}, "Parameter 'private_key' is given without 'certificate'"),
    ],
)
def test_arguments_are_checked(arguments, text):
    with pytest.raises(RuntimeError) as caught:
        SSLConfig(**arguments)
    assert text in str(caught.value)


@pytest.mark.parametrize("field", ["certificate", "private_key", "custom_ca"])
@pytest.mark.parametrize("client_class", [Client, AsyncClient])
def test_files_are_checked_when_a_client_is_made(own_files, tmp_path, field, client_class):
    good = {"certificate": own_files.client, "private_key": own_files.client_key, "custom_ca": own_files.ca}
    garbage = tmp_path / "garbage"
    garbage.write_bytes(b"-----BEGIN SECRET\xff")
    for path, reason in (
        (str(tmp_path / "nothing"), "No such file"),
        (str(garbage), "PEM"),
        (str(tmp_path), "directory"),
    ):
        with pytest.raises(MindserveError, match=f"load {field} from {path} failed: .*{reason}") as caught:
            client_class("localhost:1", "a", "b", ssl_config=SSLConfig(**{**good, field: path}))
        assert "SECRET" not in str(caught.value)


def test_a_key_of_another_certificate_is_refused(own_files):
    ssl_config = SSLConfig(certificate=own_files.client, private_key=own_files.server_key)
    with pytest.raises(
        MindserveError, match=r"load private_key from .* failed: it is not the key of the certificate in"
    ):
        Client("localhost:1", "a", "b", ssl_config=ssl_config)


def test_an_encrypted_key_is_refused_without_asking_for_its_password(own_files, tmp_path):
    path = tmp_path / "encrypted.key"
    certificates.encrypt_key(own_files.client_key, path)
    ssl_config = SSLConfig(certificate=own_files.client, private_key=str(path))
    with pytest.raises(MindserveError, match=r"load private_key from .* failed: the key is encrypted"):
        Client("localhost:1", "a", "b", ssl_config=ssl_config)
