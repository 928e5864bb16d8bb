"""Clients that a server has to refuse, and those beside them that it has to let in, by their certificates."""

from __future__ import annotations

import pathlib
from collections.abc import Callable
from datetime import datetime, timedelta, timezone

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

import certificates
from certificates import DAY, Authority, key_pem

Pair = tuple[bytes, bytes]
YEAR = timedelta(days=365)
# Of a client that shows whatever certificate it has.
ANYTHING = "DEFAULT:@SECLEVEL=0"
# Without forward secrecy, without authenticated encryption, or without either side's name.
UNSOUND_CIPHERS = ("AES128-SHA", "ECDHE+AES+SHA1", "AES256-GCM-SHA384", "aNULL", "DHE")


def issued(
    by: Authority,
    name: str = "client",
    begin: timedelta = -DAY,
    end: timedelta = DAY,
    use: x509.ObjectIdentifier | None = None,
    key: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | None = None,
    extension: x509.ExtensionType | None = None,
) -> Pair:
    """A certificate and its key.

    Args:
        by: who issues it.
        name: of whom.
        begin: since when, counted from now.
        end: until when.
        use: what it states to be for; None: nothing.
        key: its key; None: a new one.
        extension: one more, which is critical.
    """
    key = key or ec.generate_private_key(ec.SECP256R1())
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
    if extension is not None:
        builder = builder.add_extension(extension, critical=True)
    return builder.sign(by.key, hashes.SHA256()).public_bytes(Encoding.PEM), key_pem(key)


def key_usage(**uses: bool) -> x509.KeyUsage:
    """What a key may be used for, but for which it may not."""
    kinds = ("digital_signature", "content_commitment", "key_encipherment", "data_encipherment", "key_agreement",
             "key_cert_sign", "crl_sign", "encipher_only", "decipher_only")  # fmt: skip
    return x509.KeyUsage(**{**dict.fromkeys(kinds, False), **uses})


class Leaf(Authority):
    """No authority, but an ordinary client of one, that signs as if it were."""

    def __init__(self, by: Authority) -> None:
        super().__init__("Leaf", by)
        self.pem, _ = issued(by, "Leaf", key=self.key)
        self.certificate = x509.load_pem_x509_certificate(self.pem)


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
        old: an intermediate that has expired.
        leaf: a client of the root that signs others.
    """

    def __init__(self) -> None:
        self.root = Authority("Root", end=YEAR)
        self.between = Authority("Between", self.root)
        self.listed = Authority("Listed", self.root)
        self.fallen = Authority("Fallen", self.root)
        self.revoked = issued(self.root, "revoked")
        self.old = Authority("Old", self.root, begin=-2 * DAY, end=-DAY)
        self.leaf = Leaf(self.root)

    def write(self, folder: pathlib.Path) -> None:
        """Writes a server's files: server.crt and server.key, ca.crt, ca.crl."""
        self.root.write(folder / "server.crt", folder / "server.key")
        (folder / "ca.crt").write_bytes(
            b"".join(by.pem for by in (self.root, self.listed, self.fallen, self.old, self.leaf))
        )
        of_root = self.root.crl(x509.load_pem_x509_certificate(self.revoked[0]), self.fallen.certificate)
        lists = [by.crl() for by in (self.listed, self.fallen, self.old, self.leaf)]
        (folder / "ca.crl").write_bytes(of_root + b"".join(lists))


def write_pair(folder: pathlib.Path, pair: Pair, *chain: bytes) -> tuple[str, str]:
    """Files of a client's certificate, with its chain, and of its key."""
    certificate, key = folder / "client.crt", folder / "client.key"
    certificate.write_bytes(pair[0] + b"".join(chain))
    key.write_bytes(pair[1])
    return str(certificate), str(key)


def chained(by: Authority) -> Pair:
    """A certificate with that of its issuer, and its key."""
    certificate, key = issued(by)
    return certificate + by.pem, key


# An extension of nobody's.
UNKNOWN = x509.UnrecognizedExtension(x509.ObjectIdentifier("1.3.6.1.4.1.99999.1"), b"\5\0")

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
    "of an authority that has expired": (lambda a: chained(a.old), "certificate has expired"),
    "of one that is no authority": (lambda a: chained(a.leaf), "invalid CA certificate"),
    "whose key is not for signatures": (
        lambda a: issued(a.root, extension=key_usage(key_encipherment=True)),
        "unsuitable certificate purpose",
    ),
    "with a critical extension that nobody knows": (
        lambda a: issued(a.root, extension=UNKNOWN),
        "unhandled critical extension",
    ),
    "with a key that is too short": (
        lambda a: issued(a.root, key=rsa.generate_private_key(public_exponent=65537, key_size=1024)),
        "EE certificate key too weak",
    ),
    "for anything": (
        lambda a: issued(a.root, use=ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE),
        "unsuitable certificate purpose",
    ),
    "for code": (lambda a: issued(a.root, use=ExtendedKeyUsageOID.CODE_SIGNING), "unsuitable certificate purpose"),
}
