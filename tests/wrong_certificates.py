"""Clients that a server has to refuse, and those beside them that it has to let in, by their certificates."""

from __future__ import annotations

import pathlib
from collections.abc import Callable
from datetime import datetime, timedelta, timezone

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

import certificates
from certificates import DAY, Authority, key_pem

Pair = tuple[bytes, bytes]
YEAR = timedelta(days=365)
# Without forward secrecy, without authenticated encryption, or without either side's name.
UNSOUND_CIPHERS = ("AES128-SHA", "ECDHE+AES+SHA1", "AES256-GCM-SHA384", "aNULL", "DHE")


def issued(
    by: Authority,
    name: str = "client",
    begin: timedelta = -DAY,
    end: timedelta = DAY,
    use: x509.ObjectIdentifier | None = None,
) -> Pair:
    """A certificate and its key; with a `use` if it is to state one."""
    key = ec.generate_private_key(ec.SECP256R1())
    now = datetime.now(timezone.utc)
    builder = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]))
        .issuer_name(by.name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now + begin)
        .not_valid_after(now + end)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
    )
    if use is not None:
        builder = builder.add_extension(x509.ExtendedKeyUsage([use]), critical=False)
    return builder.sign(by.key, hashes.SHA256()).public_bytes(Encoding.PEM), key_pem(key)


def alone() -> Pair:
    """A certificate that is signed by itself, and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    return certificates.self_signed(key, "client"), key_pem(key)


class Authorities:
    """A root, authorities under it, and what they revoked.

    Attributes:
        root: it revoked `revoked` and `fallen`.
        between: an intermediate whose certificate the server does not have, and that publishes no list.
        listed: one whose certificate and list the server has.
        fallen: likewise, but revoked.
        revoked: a client of the root.
    """

    def __init__(self) -> None:
        self.root = Authority("Root", end=YEAR)
        self.between = Authority("Between", self.root)
        self.listed = Authority("Listed", self.root)
        self.fallen = Authority("Fallen", self.root)
        self.revoked = issued(self.root, "revoked")

    def write(self, folder: pathlib.Path) -> None:
        """Writes a server's files: server.crt and server.key, ca.crt, ca.crl."""
        self.root.write(folder / "server.crt", folder / "server.key")
        (folder / "ca.crt").write_bytes(self.root.pem + self.listed.pem + self.fallen.pem)
        of_root = self.root.crl(x509.load_pem_x509_certificate(self.revoked[0]), self.fallen.certificate)
        (folder / "ca.crl").write_bytes(of_root + self.listed.crl() + self.fallen.crl())


def write_pair(folder: pathlib.Path, pair: Pair, *chain: bytes) -> tuple[str, str]:
    """Files of a client's certificate, with its chain, and of its key."""
    certificate, key = folder / "client.crt", folder / "client.key"
    certificate.write_bytes(pair[0] + b"".join(chain))
    key.write_bytes(pair[1])
    return str(certificate), str(key)


# What a server says of those that it refuses.
WRONG: dict[str, tuple[Callable[[Authorities], Pair], str]] = {
    "expired": (lambda a: issued(a.root, begin=-2 * DAY, end=-DAY), "certificate has expired"),
    "not yet valid": (lambda a: issued(a.root, begin=DAY, end=2 * DAY), "certificate is not yet valid"),
    "of a wrong authority": (lambda a: issued(Authority("Other")), "unable to get local issuer certificate"),
    "of an impostor of the same name": (lambda a: issued(Authority("Root")), "certificate signature failure"),
    "self-signed": (lambda a: alone(), "self-signed certificate"),
    "lacking an intermediate": (lambda a: issued(a.between), "unable to get local issuer certificate"),
    "revoked": (lambda a: a.revoked, "certificate revoked"),
    "of a revoked authority": (lambda a: issued(a.fallen), "certificate revoked"),
    "for servers": (lambda a: issued(a.root, use=ExtendedKeyUsageOID.SERVER_AUTH), "unsuitable certificate purpose"),
    "for code": (lambda a: issued(a.root, use=ExtendedKeyUsageOID.CODE_SIGNING), "unsuitable certificate purpose"),
}
