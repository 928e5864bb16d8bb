"""Makes certificates to try TLS with: an authority of one's own, what it issues, and its revocation list."""

from __future__ import annotations

import ipaddress
import os
import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Literal, TypeVar

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, load_pem_private_key
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from mindserve import checks
from mindserve.errors import ConfigError
from mindserve.files import MAX_CRL_BYTES, MAX_PEM_BYTES, read_file

KeyType = Literal["ec", "rsa"]
_Key = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey
_T = TypeVar("_T")

LOCAL_NAMES = ("localhost", "127.0.0.1", "::1")
DEFAULT_DAYS = 365
MAX_DAYS = 3650
# For peers whose clocks are late.
_BACKDATED = timedelta(minutes=10)


@dataclass(frozen=True)
class CertificateFiles:
    """Where the files lie. Those that end in ``key`` are private, mode 0600."""

    directory: Path

    @property
    def ca_certificate(self) -> Path:
        return self.directory / "ca.crt"

    @property
    def ca_key(self) -> Path:
        return self.directory / "ca.key"

    @property
    def server_certificate(self) -> Path:
        return self.directory / "server.crt"

    @property
    def server_key(self) -> Path:
        return self.directory / "server.key"

    @property
    def client_certificate(self) -> Path:
        return self.directory / "client.crt"

    @property
    def client_key(self) -> Path:
        return self.directory / "client.key"

    @property
    def crl(self) -> Path:
        """There once something has been revoked."""
        return self.directory / "ca.crl"


def make_certificates(
    directory: str | os.PathLike[str],
    names: Sequence[str] = (),
    *,
    days: int = DEFAULT_DAYS,
    key_type: KeyType = "ec",
    force: bool = False,
) -> CertificateFiles:
    """Make an authority, a server's and a client's certificate.

    Args:
        directory: where to; made if it is not there.
        names: host names and IP addresses of the server, besides `LOCAL_NAMES`.
        days: how long they are valid.
        key_type: of all keys: "ec", ECDSA on P-256, or "rsa", RSA of 2048 bits.
        force: replace files that are there.

    Raises:
        ConfigError: a wrong argument, a file is there already, or one cannot be written.
    """
    checks.check_int("days", days, 1, MAX_DAYS)
    server_names = [_general_name(name) for name in dict.fromkeys((*LOCAL_NAMES, *names))]
    files = CertificateFiles(Path(directory))

    begin = datetime.now(timezone.utc) - _BACKDATED
    end = begin + _BACKDATED + timedelta(days=days)
    # A name of its own for each, so that a new one is not taken for an old one that somebody trusts.
    ca_name = _name(f"MindServe test CA {secrets.token_hex(4)}")
    ca_key, server_key, client_key = (_make_key(key_type) for _ in range(3))
    authority = (
        _begin(ca_name, ca_key, ca_name, begin, end)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(authority=True), critical=True)
        .sign(ca_key, hashes.SHA256())
    )

    def issue(name: str, key: _Key, alternatives: list[x509.GeneralName], purpose: x509.ObjectIdentifier) -> bytes:
        ca_public_key = ca_key.public_key()
        builder = (
            _begin(_name(name), key, ca_name, begin, end)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_usage(authority=False, encipher=key_type == "rsa"), critical=True)
            .add_extension(x509.ExtendedKeyUsage([purpose]), critical=False)
            .add_extension(x509.SubjectAlternativeName(alternatives), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(ca_public_key), critical=False)
        )
        return builder.sign(ca_key, hashes.SHA256()).public_bytes(Encoding.PEM)

    server = issue("localhost", server_key, server_names, ExtendedKeyUsageOID.SERVER_AUTH)
    client = issue("client", client_key, [x509.DNSName("client")], ExtendedKeyUsageOID.CLIENT_AUTH)
    _write_all(
        {
            files.ca_certificate: authority.public_bytes(Encoding.PEM),
            files.ca_key: _key_pem(ca_key),
            files.server_certificate: server,
            files.server_key: _key_pem(server_key),
            files.client_certificate: client,
            files.client_key: _key_pem(client_key),
        },
        force=force,
    )
    return files


def revoke_certificates(
    directory: str | os.PathLike[str], certificates: Sequence[str | os.PathLike[str]] = (), *, days: int = DEFAULT_DAYS
) -> Path:
    """Add certificates to the revocation list of the authority that `make_certificates` made, or begin one.

    Args:
        directory: of the authority.
        certificates: files in PEM form, of certificates that come from it. None: the list is only made anew.
        days: how long the list is valid; after that a server refuses every client until there is a new one.

    Returns:
        The list's path, ``ca.crl`` in the directory.

    Raises:
        ConfigError: a wrong argument, a file that is missing or not what it should be, a certificate of another
            authority, or the list cannot be written.
    """
    checks.check_int("days", days, 1, MAX_DAYS)
    files = CertificateFiles(Path(directory))
    authority = _load(files.ca_certificate, x509.load_pem_x509_certificate, "certificate")
    key = _load(files.ca_key, lambda pem: load_pem_private_key(pem, None), "private key")
    if not isinstance(key, _Key) or key.public_key() != authority.public_key():
        raise ConfigError(f"{files.ca_key} is not the key of {files.ca_certificate}")
    now = datetime.now(timezone.utc)
    builder = (
        x509.CertificateRevocationListBuilder()
        .issuer_name(authority.subject)
        .last_update(now - _BACKDATED)
        .next_update(now + timedelta(days=days))
    )
    number, revoked = 0, {}
    if files.crl.exists():
        old = _load(files.crl, x509.load_pem_x509_crl, "CRL", MAX_CRL_BYTES)
        if not old.is_signature_valid(key.public_key()):
            raise ConfigError(f"{files.crl} is the list of another authority than {files.ca_certificate}: remove it")
        number = next((each.value.crl_number for each in old.extensions if isinstance(each.value, x509.CRLNumber)), 0)
        revoked = {entry.serial_number: entry for entry in old}
    for path in certificates:
        certificate = _load(Path(path), x509.load_pem_x509_certificate, "certificate")
        try:
            certificate.verify_directly_issued_by(authority)
        except (ValueError, TypeError, InvalidSignature):
            raise ConfigError(f"The certificate {path} does not come from {files.ca_certificate}") from None
        serial = certificate.serial_number
        entry = x509.RevokedCertificateBuilder().serial_number(serial).revocation_date(now).build()
        revoked.setdefault(serial, entry)
    for entry in revoked.values():
        builder = builder.add_revoked_certificate(entry)
    builder = builder.add_extension(x509.CRLNumber(number + 1), critical=False).add_extension(
        x509.AuthorityKeyIdentifier.from_issuer_public_key(key.public_key()), critical=False
    )
    _write_all({files.crl: builder.sign(key, hashes.SHA256()).public_bytes(Encoding.PEM)}, force=True)
    return files.crl


def _load(path: Path, parse: Callable[[bytes], _T], what: str, max_bytes: int = MAX_PEM_BYTES) -> _T:
    try:
        return parse(read_file(str(path), max_bytes)[0])
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}") from error
    except (ValueError, TypeError):
        # Without the error's own text: it may quote the file.
        raise ConfigError(f"{path} holds no {what} in PEM form that can be read") from None


def _general_name(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        pass
    try:
        ascii_name = name.encode("idna").decode()
    except UnicodeError:
        ascii_name = ""
    # A wildcard may stand for the first label.
    labels = ascii_name.removeprefix("*.").split(".")
    if len(ascii_name) > 253 or not all(label.replace("-", "").replace("_", "").isalnum() for label in labels):
        raise ConfigError(f"The name '{name}' is neither a host name nor an IP address")
    return x509.DNSName(ascii_name)


def _name(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def _make_key(key_type: KeyType) -> _Key:
    if key_type == "rsa":
        return rsa.generate_private_key(public_exponent=65537, key_size=2048)
    return ec.generate_private_key(ec.SECP256R1())


def _begin(subject: x509.Name, key: _Key, issuer: x509.Name, begin: datetime, end: datetime) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(begin)
        .not_valid_after(end)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )


def _usage(*, authority: bool, encipher: bool = False) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not authority,
        content_commitment=False,
        key_encipherment=encipher,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=authority,
        crl_sign=authority,
        encipher_only=False,
        decipher_only=False,
    )


def _key_pem(key: _Key) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def _write_all(contents: dict[Path, bytes], *, force: bool) -> None:
    """Write all files or none."""
    directory = next(iter(contents)).parent
    written: dict[Path, Path] = {}
    try:
        directory.mkdir(parents=True, exist_ok=True)
        present = [path.name for path in contents if path.is_symlink() or path.exists()]
        if present and not force:
            raise ConfigError(
                f"{', '.join(present)} in {directory} would be overwritten: choose another directory, or replace "
                "them with --force (in Python: force=True)"
            )
        # All are on the disk before the first takes its place, so that no half of them replaces the old ones.
        for path, data in contents.items():
            temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
            written[path] = temporary
            _write_new(temporary, data, 0o600 if path.suffix == ".key" else 0o644)
        for path, temporary in written.items():
            temporary.replace(path)
    except OSError as error:
        raise ConfigError(f"The certificates cannot be written to {directory}: {error.strerror}") from error
    finally:
        for temporary in written.values():
            temporary.unlink(missing_ok=True)


def _write_new(path: Path, data: bytes, mode: int) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with open(descriptor, "wb") as file:
        file.write(data)
        os.fchmod(file.fileno(), mode)
