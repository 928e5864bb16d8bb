"""``mindserve certs`` and the command line around it."""

import ipaddress
import os
import re
import stat
import subprocess
import sys
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID
from typer.testing import CliRunner

import certificates
import mindserve
from mindserve.certs import make_certificates, revoke_certificates
from mindserve.cli import app
from mindserve.errors import MindserveError
from mindserve.tls import SSLConfig, load_server_tls

PRIVATE = {"ca.key", "server.key", "client.key"}
PUBLIC = {"ca.crt", "server.crt", "client.crt"}


def load(path: Path) -> x509.Certificate:
    return x509.load_pem_x509_certificate(path.read_bytes())


def extension(certificate: x509.Certificate, kind):
    return certificate.extensions.get_extension_for_class(kind).value


@pytest.mark.parametrize("key_type", ["ec", "rsa"])
def test_certificates_of_todays_form(tmp_path, key_type):
    files = make_certificates(tmp_path, ["serving.example", "192.0.2.7", "localhost"], days=30, key_type=key_type)
    ca, server, client = (
        load(path) for path in (files.ca_certificate, files.server_certificate, files.client_certificate)
    )
    now = datetime.now(timezone.utc)
    for certificate in (ca, server, client):
        assert certificate.version is x509.Version.v3
        assert certificate.not_valid_before_utc < now
        assert timedelta(days=29) < certificate.not_valid_after_utc - now <= timedelta(days=30)
        key = certificate.public_key()
        if key_type == "ec":
            assert isinstance(key, ec.EllipticCurvePublicKey)
            assert key.curve.name == "secp256r1"
        else:
            assert isinstance(key, rsa.RSAPublicKey)
            assert key.key_size == 2048

    names = extension(server, x509.SubjectAlternativeName)
    assert names.get_values_for_type(x509.DNSName) == ["localhost", "serving.example"]
    assert names.get_values_for_type(x509.IPAddress) == [
        ipaddress.ip_address(address) for address in ("127.0.0.1", "::1", "192.0.2.7")
    ]
    assert list(extension(server, x509.ExtendedKeyUsage)) == [ExtendedKeyUsageOID.SERVER_AUTH]
    assert list(extension(client, x509.ExtendedKeyUsage)) == [ExtendedKeyUsageOID.CLIENT_AUTH]
    assert extension(ca, x509.BasicConstraints).ca
    assert not extension(server, x509.BasicConstraints).ca
    for certificate in (server, client):
        certificate.verify_directly_issued_by(ca)
    load_server_tls(
        SSLConfig(str(files.server_certificate), str(files.server_key), str(files.ca_certificate), verify_client=True)
    )


def test_openssl_accepts_them_for_their_purpose_alone(tmp_path):
    make_certificates(tmp_path)
    files = certificates.files_in(tmp_path)
    assert certificates.openssl_verifies(
        files.ca, files.server, "-purpose", "sslserver", "-verify_hostname", "localhost"
    )
    assert certificates.openssl_verifies(files.ca, files.server, "-purpose", "sslserver", "-verify_ip", "::1")
    assert certificates.openssl_verifies(files.ca, files.client, "-purpose", "sslclient")
    assert not certificates.openssl_verifies(files.ca, files.server, "-purpose", "sslclient")
    assert not certificates.openssl_verifies(files.ca, files.client, "-purpose", "sslserver")
    assert not certificates.openssl_verifies(files.ca, files.server, "-verify_hostname", "elsewhere")


def test_files_and_their_modes(tmp_path):
    directory = tmp_path / "new" / "certs"
    mask = os.umask(0o077)
    try:
        make_certificates(directory)
    finally:
        os.umask(mask)
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in directory.iterdir()}
    assert modes == {**dict.fromkeys(PRIVATE, 0o600), **dict.fromkeys(PUBLIC, 0o644)}


@pytest.mark.parametrize("present", sorted(PRIVATE | PUBLIC))
def test_nothing_is_overwritten_unless_forced(tmp_path, present):
    (tmp_path / present).write_text("precious")
    with pytest.raises(MindserveError, match=f"{present} in .* would be overwritten"):
        make_certificates(tmp_path)
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {present: "precious"}
    make_certificates(tmp_path, force=True)
    assert {path.name for path in tmp_path.iterdir()} == PRIVATE | PUBLIC
    assert (tmp_path / present).read_text() != "precious"


def test_forcing_replaces_a_link_and_not_what_it_points_to(tmp_path):
    outside = tmp_path / "outside"
    outside.write_text("precious")
    directory = tmp_path / "certs"
    directory.mkdir()
    (directory / "server.key").symlink_to(outside)
    with pytest.raises(MindserveError, match=r"server\.key in .* would be overwritten"):
        make_certificates(directory)
    make_certificates(directory, force=True)
    assert outside.read_text() == "precious"
    assert stat.S_IMODE((directory / "server.key").lstat().st_mode) == 0o600


def test_a_directory_that_cannot_be_written_to(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(MindserveError, match="The certificates cannot be written to"):
        make_certificates(tmp_path / "file")


@pytest.mark.parametrize("name", ["", "two words", "a..b", "http://host", "host:5500", "x" * 300, "-", "10.0.0.0/8"])
def test_names_must_be_hosts_or_addresses(tmp_path, name):
    with pytest.raises(MindserveError, match="is neither a host name nor an IP address"):
        make_certificates(tmp_path, [name])
    assert list(tmp_path.iterdir()) == []


def test_international_and_wildcard_names(tmp_path):
    files = make_certificates(tmp_path, ["münchen.example", "*.serving.example"])
    names = extension(load(files.server_certificate), x509.SubjectAlternativeName)
    assert names.get_values_for_type(x509.DNSName)[1:] == ["xn--mnchen-3ya.example", "*.serving.example"]


@pytest.mark.parametrize("days", [0, -1, 3651])
def test_days_have_a_range(tmp_path, days):
    with pytest.raises(MindserveError, match=rf"Parameter 'days' should be in range \[1,3650\], but actually {days}"):
        make_certificates(tmp_path, days=days)


def revoked(directory):
    crl = x509.load_pem_x509_crl((directory / "ca.crl").read_bytes())
    assert crl.is_signature_valid(load(directory / "ca.crt").public_key())
    return crl


def test_a_revocation_list_grows(tmp_path):
    files = make_certificates(tmp_path)
    client, server = load(files.client_certificate), load(files.server_certificate)
    assert revoke_certificates(tmp_path) == files.crl
    assert list(revoked(tmp_path)) == []
    revoke_certificates(tmp_path, [files.client_certificate, str(files.client_certificate)], days=2)
    first = revoked(tmp_path)
    assert [entry.serial_number for entry in first] == [client.serial_number]
    assert first.next_update_utc - first.last_update_utc == timedelta(days=2, minutes=10)
    revoke_certificates(tmp_path, [files.server_certificate])
    second = revoked(tmp_path)
    assert {entry.serial_number for entry in second} == {client.serial_number, server.serial_number}
    numbers = [crl.extensions.get_extension_for_class(x509.CRLNumber).value.crl_number for crl in (first, second)]
    assert numbers == [2, 3]
    assert certificates.openssl_verifies(str(files.ca_certificate), str(files.client_certificate))
    crl_check = ("-crl_check", "-CRLfile", str(files.crl))
    assert not certificates.openssl_verifies(str(files.ca_certificate), str(files.client_certificate), *crl_check)
    load_server_tls(
        SSLConfig(
            str(files.server_certificate),
            str(files.server_key),
            str(files.ca_certificate),
            verify_client=True,
            crl=str(files.crl),
        )
    )


def test_what_cannot_be_revoked(tmp_path):
    ours, other = make_certificates(tmp_path / "ours"), make_certificates(tmp_path / "other")
    for path, text in (
        (other.client_certificate, f"The certificate {other.client_certificate} does not come from"),
        (tmp_path / "missing", "missing cannot be read: No such file"),
        (ours.client_key, "client.key holds no certificate in PEM form"),
    ):
        with pytest.raises(MindserveError, match=re.escape(text)):
            revoke_certificates(ours.directory, [path])
    ours.ca_key.write_bytes(other.ca_key.read_bytes())
    with pytest.raises(MindserveError, match=r"ca\.key is not the key of .*ca\.crt"):
        revoke_certificates(ours.directory, [ours.client_certificate])
    assert not ours.crl.exists()
    revoke_certificates(other.directory, [other.client_certificate])
    make_certificates(other.directory, force=True)
    with pytest.raises(MindserveError, match=r"ca\.crl is the list of another authority than .*ca\.crt: remove it"):
        revoke_certificates(other.directory, [other.client_certificate])


def test_the_documented_way_to_make_a_list(tmp_path):
    files = make_certificates(tmp_path)
    for name in ("alice.crt", "bob.crt"):
        (tmp_path / name).write_bytes(files.client_certificate.read_bytes())
    page = (Path(__file__).parent.parent / "docs" / "certificates.md").read_text(encoding="utf-8")
    (code,) = [code for code in re.findall(r"```python\n(.*?)```", page, re.DOTALL) if "RevocationList" in code]
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True, timeout=60)
    assert {entry.serial_number for entry in revoked(tmp_path)} == {load(files.client_certificate).serial_number}


def mindserve_program(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(Path(mindserve.__file__).parent.parent), "NO_COLOR": "1"}
    command = [sys.executable, "-m", "mindserve", *arguments]
    return subprocess.run(command, env=environment, cwd=cwd, capture_output=True, text=True, check=False, timeout=120)


def test_the_program(tmp_path):
    done = mindserve_program(
        "certs", "[made]", "-n", "serving.example", "--days", "3", "--key-type", "rsa", cwd=tmp_path
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert {path.name for path in (tmp_path / "[made]").iterdir()} == PRIVATE | PUBLIC
    for name in PRIVATE | PUBLIC:
        assert f"[made]/{name}" in done.stdout
    assert "server.SSLConfig('[made]/server.crt', '[made]/server.key')" in done.stdout
    assert "PRIVATE" not in done.stdout

    done = mindserve_program("certs", "[made]", "--revoke", "[made]/client.crt", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("[made]/ca.crl ")
    assert len(list(revoked(tmp_path / "[made]"))) == 1

    done = mindserve_program("certs", "[made]", cwd=tmp_path)
    assert done.returncode == 1
    assert done.stderr.startswith("Error: ca.crt, ")
    assert "would be overwritten" in done.stderr
    assert "--force" in done.stderr
    assert "Traceback" not in done.stderr


def test_version_and_help():
    runner = CliRunner()
    assert runner.invoke(app, ["--version"]).output == f"mindserve {mindserve.__version__}\n"
    for arguments in (["--help"], ["-h"], []):
        assert "certs" in runner.invoke(app, arguments).output
    assert "--force" in runner.invoke(app, ["certs", "--help"], terminal_width=100, color=False).output


def test_the_command_line_imports_what_it_needs_when_it_needs_it(tmp_path):
    program = (
        "import sys, mindserve.cli\n"
        "print(*{'grpc', 'numpy', 'cryptography', 'google.protobuf', 'mindserve._native'} & set(sys.modules))"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(mindserve.__file__).parent.parent)}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""
