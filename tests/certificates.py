"""Certificates for tests of TLS."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from ipaddress import ip_address
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import NameOID

DAY = timedelta(days=1)


@dataclass(frozen=True)
class Files:
    """Paths, as text, of an authority's, a server's and a client's PEM files."""

    ca: str
    server: str
    server_key: str
    client: str
    client_key: str


def files_in(directory: Path) -> Files:
    names = ("ca.crt", "server.crt", "server.key", "client.crt", "client.key")
    return Files(*(str(directory / name) for name in names))


def make_reference_certificates(directory: Path) -> Files:
    """What the openssl commands in MindSpore Serving's documentation make: RSA, X.509 v1, the name only in CN."""
    files = files_in(directory)
    ca_key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    ca_name = _name(("C", "CN"), ("ST", "xx"), ("L", "xx"), ("OU", "gRPC"), ("CN", "Root"))
    now = datetime.now(timezone.utc)
    ca = (
        x509.CertificateBuilder()
        .subject_name(ca_name)
        .issuer_name(ca_name)
        .public_key(ca_key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - DAY)
        .not_valid_after(now + DAY)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(ca_key, hashes.SHA256())
    )
    Path(files.ca).write_bytes(ca.public_bytes(Encoding.PEM))
    for path, key_path, name in (
        (files.server, files.server_key, "localhost"),
        (files.client, files.client_key, "client"),
    ):
        key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        subject = _name(("C", "XX"), ("ST", "MyST"), ("L", "XX"), ("O", "HW"), ("OU", "gRPC"), ("CN", name))
        Path(path).write_bytes(_version_1(subject, key, ca_name, ca_key, now - DAY, now + DAY))
        write_key(key_path, key)
    return files


class Authority:
    """An authority with a key of its own, under a root or one itself, and what it issues.

    Times are counted from now.
    """

    def __init__(
        self, name: str, issuer: Authority | None = None, begin: timedelta = -DAY, end: timedelta = DAY
    ) -> None:
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.name = _name(("CN", name))
        by = issuer or self
        self.certificate = (
            by._begin(self.name, self.key, begin, end)
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .sign(by.key, hashes.SHA256())
        )
        self.pem = self.certificate.public_bytes(Encoding.PEM)

    def issue(
        self, name: str, begin: timedelta = -DAY, end: timedelta = DAY
    ) -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey]:
        """A certificate for a host or a client, for "localhost" and 127.0.0.1 too."""
        key = ec.generate_private_key(ec.SECP256R1())
        names: list[x509.GeneralName] = [x509.DNSName("localhost"), x509.IPAddress(ip_address("127.0.0.1"))]
        builder = self._begin(_name(("CN", name)), key, begin, end)
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
        return builder.sign(self.key, hashes.SHA256()), key

    def write(self, certificate: str | Path, key: str | Path, name: str = "localhost") -> x509.Certificate:
        """A new certificate and its key, as files that replace those there are, one after the other."""
        issued, its_key = self.issue(name)
        replace_file(certificate, issued.public_bytes(Encoding.PEM))
        replace_file(key, key_pem(its_key), 0o600)
        return issued

    def crl(
        self, *revoked: x509.Certificate, begin: timedelta = -DAY, end: timedelta = DAY, delta: bool = False
    ) -> bytes:
        """A revocation list in PEM form."""
        now = datetime.now(timezone.utc)
        builder = (
            x509.CertificateRevocationListBuilder()
            .issuer_name(self.name)
            .last_update(now + begin)
            .next_update(now + end)
        )
        for certificate in revoked:
            entry = x509.RevokedCertificateBuilder().serial_number(certificate.serial_number)
            builder = builder.add_revoked_certificate(entry.revocation_date(now - DAY).build())
        if delta:
            builder = builder.add_extension(x509.DeltaCRLIndicator(1), critical=True)
        return builder.sign(self.key, hashes.SHA256()).public_bytes(Encoding.PEM)

    def _begin(
        self, subject: x509.Name, key: ec.EllipticCurvePrivateKey, begin: timedelta, end: timedelta
    ) -> x509.CertificateBuilder:
        now = datetime.now(timezone.utc)
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self.name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now + begin)
            .not_valid_after(now + end)
        )


def replace_file(path: str | Path, data: bytes, mode: int = 0o644) -> None:
    """Write a file and put it in the place of the old one, at once."""
    path = Path(path)
    new = path.with_name(path.name + ".new")
    new.write_bytes(data)
    new.chmod(mode)
    new.replace(path)


def key_pem(key: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption())


def write_key(path: str | Path, key: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey) -> None:
    path = Path(path)
    path.write_bytes(key_pem(key))
    path.chmod(0o600)


def encrypt_key(path: str | Path, target: Path) -> None:
    """Copy a key, encrypted by a password."""
    key = load_pem_private_key(Path(path).read_bytes(), None)
    target.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"password")))


def self_signed(
    key: ec.EllipticCurvePrivateKey, name: str = "localhost", begin: timedelta = -DAY, end: timedelta = DAY
) -> bytes:
    """A certificate in PEM form, valid from `begin` to `end` after now."""
    now = datetime.now(timezone.utc)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(_name(("CN", name)))
        .issuer_name(_name(("CN", name)))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now + begin)
        .not_valid_after(now + end)
        .sign(key, hashes.SHA256())
    )
    return certificate.public_bytes(Encoding.PEM)


def openssl_verifies(ca: str, certificate: str, *options: str) -> bool:
    """Whether OpenSSL's own program says that `certificate` comes from `ca` and fits `options`."""
    command = ["openssl", "verify", "-x509_strict", "-CAfile", ca, *options, certificate]
    return subprocess.run(command, capture_output=True, check=False, timeout=60).returncode == 0


_OIDS = {
    "C": NameOID.COUNTRY_NAME,
    "ST": NameOID.STATE_OR_PROVINCE_NAME,
    "L": NameOID.LOCALITY_NAME,
    "O": NameOID.ORGANIZATION_NAME,
    "OU": NameOID.ORGANIZATIONAL_UNIT_NAME,
    "CN": NameOID.COMMON_NAME,
}


def _name(*parts: tuple[str, str]) -> x509.Name:
    return x509.Name([x509.NameAttribute(_OIDS[kind], value) for kind, value in parts])


def _version_1(
    subject: x509.Name,
    key: rsa.RSAPrivateKey,
    issuer: x509.Name,
    issuer_key: rsa.RSAPrivateKey,
    begin: datetime,
    end: datetime,
) -> bytes:
    """A certificate of version 1, which `cryptography` reads but does not write."""
    sha256_with_rsa = bytes.fromhex("300d06092a864886f70d01010b0500")
    serial = x509.random_serial_number()
    body = _der(
        0x30,
        _der(0x02, serial.to_bytes(serial.bit_length() // 8 + 1, "big")),
        sha256_with_rsa,
        issuer.public_bytes(),
        _der(0x30, *(_der(0x17, f"{time:%y%m%d%H%M%SZ}".encode()) for time in (begin, end))),
        subject.public_bytes(),
        key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo),
    )
    signature = issuer_key.sign(body, padding.PKCS1v15(), hashes.SHA256())
    der = _der(0x30, body, sha256_with_rsa, _der(0x03, b"\0" + signature))
    certificate = x509.load_der_x509_certificate(der)
    assert certificate.version is x509.Version.v1
    return certificate.public_bytes(Encoding.PEM)


def _der(tag: int, *contents: bytes) -> bytes:
    content = b"".join(contents)
    if len(content) < 0x80:
        return bytes((tag, len(content))) + content
    length = len(content).to_bytes((len(content).bit_length() + 7) // 8, "big")
    return bytes((tag, 0x80 | len(length))) + length + content
