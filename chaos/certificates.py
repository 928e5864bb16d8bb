"""Certificates that change while they are in use."""

from __future__ import annotations

import os
import secrets
import socket
import ssl
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

_DAY = timedelta(days=1)
_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\4\0\0\0\0\0"


@dataclass(frozen=True)
class CertificateFiles:
    """Where the files lie."""

    directory: Path

    @property
    def server(self) -> Path:
        return self.directory / "server.crt"

    @property
    def server_key(self) -> Path:
        return self.directory / "server.key"

    @property
    def server_authority(self) -> Path:
        """What clients trust."""
        return self.directory / "server_ca.crt"

    @property
    def client_authorities(self) -> Path:
        """What the server trusts."""
        return self.directory / "client_ca.crt"

    @property
    def revoked(self) -> Path:
        """The lists of what the clients' authorities have revoked."""
        return self.directory / "client.crl"

    def client(self, name: str) -> Path:
        """A client's certificate and key: one file, so that nobody reads those of two."""
        return self.directory / f"{name}.pem"


class Authority:
    """Signs certificates, and revokes them."""

    def __init__(self) -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = _name(f"chaos {secrets.token_hex(4)}")
        self._revoked: list[int] = []
        certificate = self._builder(self._name, self._key).add_extension(
            x509.BasicConstraints(ca=True, path_length=0), critical=True
        )
        self.certificate = certificate.sign(self._key, hashes.SHA256())

    def issue(self, name: str) -> tuple[x509.Certificate, bytes]:
        """A certificate for ``name`` on this machine, and its key as PEM."""
        key = ec.generate_private_key(ec.SECP256R1())
        names = x509.SubjectAlternativeName([x509.DNSName("localhost"), x509.DNSName(name)])
        certificate = (
            self._builder(_name(name), key)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(names, critical=False)
            .sign(self._key, hashes.SHA256())
        )
        return certificate, key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())

    def revoke(self, serial_number: int) -> None:
        """From the next `revocations` on."""
        self._revoked.append(serial_number)

    def revocations(self) -> bytes:
        """The list of what it has revoked, as PEM."""
        now = datetime.now(timezone.utc)
        builder = x509.CertificateRevocationListBuilder().issuer_name(self._name)
        builder = builder.last_update(now - _DAY).next_update(now + 30 * _DAY)
        for serial_number in self._revoked:
            entry = x509.RevokedCertificateBuilder().serial_number(serial_number).revocation_date(now - _DAY)
            builder = builder.add_revoked_certificate(entry.build())
        return builder.sign(self._key, hashes.SHA256()).public_bytes(Encoding.PEM)

    def _builder(self, name: x509.Name, key: ec.EllipticCurvePrivateKey) -> x509.CertificateBuilder:
        now = datetime.now(timezone.utc)
        return (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(self._name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - _DAY)
            .not_valid_after(now + 30 * _DAY)
        )


class Certificates:
    """The files of a server and its clients, and what happens to them.

    Args:
        directory: for the files; must exist.
    """

    def __init__(self, directory: Path) -> None:
        self.files = CertificateFiles(directory)
        self._server = Authority()
        self._clients = [Authority()]
        _replace(self.files.server_authority, pem(self._server.certificate))
        self._write_client_authorities()
        self.renew_server()
        self.issue_client("client")

    def renew_server(self) -> int:
        """A new key and certificate of the same authority. Returns the serial number."""
        certificate, key = self._server.issue("server")
        _replace(self.files.server_key, key)
        _replace(self.files.server, pem(certificate))
        return certificate.serial_number

    def add_client_authority(self) -> None:
        """One more authority, from which the next client certificates come; those before it stay trusted."""
        self._clients.append(Authority())
        self._write_client_authorities()

    def issue_client(self, name: str) -> x509.Certificate:
        """A new client's certificate, of the newest authority, and its key."""
        certificate, key = self._clients[-1].issue(name)
        _replace(self.files.client(name), pem(certificate) + key)
        return certificate

    def revoke_client(self, certificate: x509.Certificate) -> None:
        """Revokes what the newest authority has issued."""
        self._clients[-1].revoke(certificate.serial_number)
        self._write_revocations()

    def _write_client_authorities(self) -> None:
        _replace(self.files.client_authorities, b"".join(pem(authority.certificate) for authority in self._clients))
        self._write_revocations()

    def _write_revocations(self) -> None:
        _replace(self.files.revoked, b"".join(authority.revocations() for authority in self._clients))


def pem(certificate: x509.Certificate) -> bytes:
    """A certificate in the form of the files."""
    return certificate.public_bytes(Encoding.PEM)


def server_serial(address: str, files: CertificateFiles, client: str) -> int | None:
    """Connects as a client, and asks for an answer.

    Args:
        address: host and port.
        files: the certificates.
        client: name of the client's certificate.

    Returns:
        The serial number of the server's certificate; None if the server refuses this client.
    """
    context = ssl.create_default_context(cafile=str(files.server_authority))
    context.load_cert_chain(files.client(client))
    context.set_alpn_protocols(["h2"])
    host, _, port = address.rpartition(":")
    with socket.create_connection((host, int(port)), timeout=20) as plain:
        try:
            with context.wrap_socket(plain, server_hostname="localhost") as connection:
                shown = connection.getpeercert(binary_form=True)
                # With TLS 1.3 only what comes after the handshake says if the server has taken the client.
                connection.sendall(_PREFACE)
                if not connection.recv(1):
                    return None
        except (ssl.SSLError, ConnectionError):
            return None
    assert shown is not None
    return x509.load_der_x509_certificate(shown).serial_number


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def _replace(path: Path, data: bytes) -> None:
    temporary = path.with_name(f".{path.name}.new")
    temporary.write_bytes(data)
    temporary.chmod(0o600)
    os.replace(temporary, path)
