"""What is said about a server's certificates before it starts."""

import logging
from datetime import timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec

import certificates
from certificates import DAY, Files
from mindserve.errors import MindserveError
from mindserve.tls import SSLConfig, load_server_tls

pytestmark = pytest.mark.filterwarnings("error")


def test_the_files_are_handed_over_as_they_are(files, caplog):
    tls = load_server_tls(SSLConfig(files.server, files.server_key))
    expires = tls["expires"]
    assert x509.load_pem_x509_certificate(Path(files.server).read_bytes()).not_valid_after_utc == expires
    assert tls == {
        "expires": expires,
        "certificate": Path(files.server).read_bytes(),
        "private_key": Path(files.server_key).read_bytes(),
        "client_ca": b"",
        "verify_client": False,
    }
    tls = load_server_tls(SSLConfig(files.server, files.server_key, custom_ca=files.ca, verify_client=True))
    assert tls["client_ca"] == Path(files.ca).read_bytes()
    assert tls["verify_client"] is True
    assert caplog.records == []


def test_custom_ca_is_ignored_unless_clients_are_verified(files):
    for custom_ca in (files.ca, "no such file"):
        tls = load_server_tls(SSLConfig(files.server, files.server_key, custom_ca=custom_ca, verify_client=False))
        assert tls["client_ca"] == b""


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"certificate": None}, "Parameter 'certificate' should be str, but actually <class 'NoneType'>"),
        ({"certificate": ""}, "Parameter 'certificate' should not be empty str"),
        ({"private_key": 5}, "Parameter 'private_key' should be str, but actually <class 'int'>"),
        ({"custom_ca": 5}, "Parameter 'custom_ca' should be str, but actually <class 'int'>"),
        ({"verify_client": 1}, "Parameter 'verify_client' should be bool, but actually <class 'int'>"),
        (
            {"verify_client": True},
            "Parameter 'custom_ca' should be str, but actually <class 'NoneType'>: 'verify_client'",
        ),
    ],
)
def test_arguments_are_checked(arguments, text):
    with pytest.raises(RuntimeError) as caught:
        SSLConfig(**{"certificate": "c", "private_key": "k", **arguments})
    assert text in str(caught.value)


def config(files: Files, **fields: str) -> SSLConfig:
    good = {"certificate": files.server, "private_key": files.server_key, "custom_ca": files.ca}
    return SSLConfig(**{**good, **fields}, verify_client=True)


def refusal(ssl_config: SSLConfig) -> str:
    with pytest.raises(MindserveError) as caught:
        load_server_tls(ssl_config)
    return str(caught.value)


@pytest.mark.parametrize("field", ["certificate", "private_key", "custom_ca"])
def test_a_file_that_cannot_be_read(own_files, tmp_path, field):
    missing = str(tmp_path / "missing")
    assert f"load {field} from {missing} failed: No such file" in refusal(config(own_files, **{field: missing}))
    assert f"load {field} from {tmp_path} failed: Is a directory" in refusal(
        config(own_files, **{field: str(tmp_path)})
    )
    assert f"load {field} from 'a\\x00' failed: " in refusal(config(own_files, **{field: "a\0"}))


@pytest.mark.parametrize("field", ["certificate", "private_key", "custom_ca"])
@pytest.mark.parametrize("begin", ["", "SECRET", "-----BEGIN CERTIFICATE-----\nSECRET\n-----END CERTIFICATE-----\n"])
def test_a_file_that_is_not_pem(own_files, tmp_path, field, begin):
    path = tmp_path / "file"
    path.write_text(begin)
    text = refusal(config(own_files, **{field: str(path)}))
    assert f"load {field} from {path} failed: it has no " in text
    assert "SECRET" not in text


def test_certificate_and_key_exchanged(own_files):
    text = refusal(config(own_files, certificate=own_files.server_key))
    assert f"load certificate from {own_files.server_key} failed: it has no certificate" in text
    text = refusal(config(own_files, private_key=own_files.server))
    assert f"load private_key from {own_files.server} failed: it has no private key" in text


def test_a_damaged_key(own_files, tmp_path):
    path = tmp_path / "damaged.key"
    lines = Path(own_files.server_key).read_text().splitlines()
    path.write_text("\n".join([lines[0], lines[1][:20], lines[-1]]))
    assert f"load private_key from {path} failed: " in refusal(config(own_files, private_key=str(path)))


def test_an_encrypted_key(own_files, tmp_path):
    path = tmp_path / "encrypted.key"
    certificates.encrypt_key(own_files.server_key, path)
    text = refusal(config(own_files, private_key=str(path)))
    assert f"load private_key from {path} failed: the key is encrypted" in text


def test_a_key_of_another_certificate(own_files, reference_files):
    for key in (own_files.client_key, reference_files.server_key):
        text = refusal(config(own_files, private_key=key))
        assert f"load private_key from {key} failed: it is not the key of the certificate in {own_files.server}" in text
        assert "CN=localhost" in text


def test_the_servers_own_certificate_must_come_first(own_files, tmp_path):
    path = tmp_path / "chain.crt"
    path.write_bytes(Path(own_files.ca).read_bytes() + Path(own_files.server).read_bytes())
    assert "it is the key of certificate 2" in refusal(config(own_files, certificate=str(path)))
    path.write_bytes(Path(own_files.server).read_bytes() + Path(own_files.ca).read_bytes())
    assert load_server_tls(config(own_files, certificate=str(path)))["certificate"] == path.read_bytes()


class Issued:
    """A self-signed certificate of a time of one's choice."""

    def __init__(self, directory: Path, begin: timedelta, end: timedelta) -> None:
        key = ec.generate_private_key(ec.SECP256R1())
        self.pem = certificates.self_signed(key, "host", begin, end)
        self.certificate, self.key = str(directory / "host.crt"), str(directory / "host.key")
        Path(self.certificate).write_bytes(self.pem)
        certificates.write_key(self.key, key)


@pytest.mark.parametrize(
    ("begin", "end", "reason"),
    [
        (-2 * DAY, -DAY, "the certificate CN=host expired on "),
        (DAY, 2 * DAY, "the certificate CN=host is not valid before "),
    ],
)
def test_a_certificate_out_of_its_time(own_files, tmp_path, begin, end, reason, caplog):
    issued = Issued(tmp_path, begin, end)
    text = refusal(config(own_files, certificate=issued.certificate, private_key=issued.key))
    assert f"load certificate from {issued.certificate} failed: {reason}" in text
    text = refusal(config(own_files, custom_ca=issued.certificate))
    assert f"load custom_ca from {issued.certificate} failed: {reason}" in text
    assert caplog.records == []
    # One of several authorities, or what follows in a chain, may still do without it.
    both = tmp_path / "both.crt"
    both.write_bytes(Path(own_files.ca).read_bytes() + issued.pem)
    load_server_tls(config(own_files, custom_ca=str(both)))
    chain = tmp_path / "chain.crt"
    chain.write_bytes(Path(own_files.server).read_bytes() + issued.pem)
    load_server_tls(config(own_files, certificate=str(chain)))
    assert [record.levelno for record in caplog.records] == [logging.WARNING] * 2
    assert all(reason in record.getMessage() for record in caplog.records)


def test_a_key_that_everybody_may_read_is_warned_of(own_files, tmp_path, caplog):
    path = tmp_path / "server.key"
    path.write_bytes(Path(own_files.server_key).read_bytes())
    path.chmod(0o644)
    load_server_tls(config(own_files, private_key=str(path)))
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert str(path) in record.getMessage()
