"""The server's certificates: which files, and what can be said about them before OpenSSL gets them.

OpenSSL judges chains when a peer connects. What makes every connection fail is found here, at the start, and said in
words: a file that is missing, a key of another certificate, a certificate out of its time.
"""

from __future__ import annotations

import logging
import os
import stat
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import TYPE_CHECKING, TypedDict

from mindserve import checks
from mindserve.errors import ConfigError

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.types import (
        CertificatePublicKeyTypes,
        PrivateKeyTypes,
        PublicKeyTypes,
    )
    from cryptography.x509 import Certificate

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class SSLConfig:
    """Files, in PEM form, for a server that is reached by TLS.

    Attributes:
        certificate: the server's certificate; those of authorities between it and the root follow it in the file.
        private_key: the key of `certificate`, not encrypted.
        custom_ca: certificates of the authorities that clients' certificates must come from. Ignored unless
            `verify_client`.
        verify_client: whether clients must show a certificate. Default False.

    Raises:
        ConfigError: a value of the wrong type, or `verify_client` without `custom_ca`.
    """

    certificate: str
    private_key: str
    custom_ca: str | None = None
    verify_client: bool = False

    def __post_init__(self) -> None:
        checks.check_str("certificate", self.certificate)
        checks.check_str("private_key", self.private_key)
        checks.check_bool("verify_client", self.verify_client)
        if self.verify_client and self.custom_ca is None:
            raise ConfigError(
                f"Parameter 'custom_ca' should be str, but actually {type(None)}: 'verify_client' needs the"
                " certificates of the authorities that clients' certificates come from"
            )
        if self.custom_ca is not None:
            checks.check_str("custom_ca", self.custom_ca)


class ServerTls(TypedDict):
    """What the native server takes, PEM texts, and when the certificate expires.

    Holds the private key, so it is not to be logged.
    """

    certificate: bytes
    private_key: bytes
    client_ca: bytes
    verify_client: bool
    expires: datetime


def load_server_tls(ssl_config: SSLConfig) -> ServerTls:
    """Read the files that `ssl_config` names, and check what can be checked without a peer.

    Raises:
        ConfigError: a file is missing or not what it should be, the key is not the certificate's, or a certificate is
            out of its time.
    """
    certificate, _ = _read("certificate", ssl_config.certificate)
    chain = _parse_certificates("certificate", ssl_config.certificate, certificate)
    private_key, mode = _read("private_key", ssl_config.private_key)
    key = _parse_private_key(ssl_config.private_key, private_key)
    _check_key_of(ssl_config, key, chain)
    if mode & stat.S_IROTH:
        _log.warning("Every user of this machine may read the private key %s: chmod 600 it", ssl_config.private_key)
    now = datetime.now(timezone.utc)
    problem = _out_of_time(chain[0], now)
    if problem:
        raise ConfigError(f"load certificate from {ssl_config.certificate} failed: {problem}")
    for other in chain[1:]:
        problem = _out_of_time(other, now)
        if problem:
            _log.warning("In the chain of %s, %s", ssl_config.certificate, problem)
    client_ca = b""
    if ssl_config.verify_client:
        assert ssl_config.custom_ca is not None  # held by SSLConfig
        client_ca = _load_client_ca(ssl_config.custom_ca, now)
    return ServerTls(
        certificate=certificate,
        private_key=private_key,
        client_ca=client_ca,
        verify_client=ssl_config.verify_client,
        expires=chain[0].not_valid_after_utc,
    )


def _load_client_ca(path: str, now: datetime) -> bytes:
    pem, _ = _read("custom_ca", path)
    authorities = _parse_certificates("custom_ca", path, pem)
    problems = [problem for authority in authorities if (problem := _out_of_time(authority, now))]
    if len(problems) == len(authorities):
        raise ConfigError(f"load custom_ca from {path} failed: {'; '.join(problems)}")
    for problem in problems:
        _log.warning("In %s, %s", path, problem)
    return pem


def _read(parameter: str, path: str) -> tuple[bytes, int]:
    """A file's bytes and its mode."""
    try:
        with open(path, "rb") as file:
            return file.read(), os.fstat(file.fileno()).st_mode
    except OSError as error:
        raise ConfigError(f"load {parameter} from {path} failed: {error.strerror}") from error
    except ValueError as error:
        raise ConfigError(f"load {parameter} from {path!r} failed: {error}") from error


def _parse_certificates(parameter: str, path: str, pem: bytes) -> list[Certificate]:
    from cryptography import x509

    try:
        certificates = x509.load_pem_x509_certificates(pem)
    except ValueError as error:
        raise ConfigError(f"load {parameter} from {path} failed: it has no certificate in PEM form") from error
    return certificates


def _parse_private_key(path: str, pem: bytes) -> PrivateKeyTypes:
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    try:
        return load_pem_private_key(pem, password=None)
    except TypeError:
        raise ConfigError(
            f"load private_key from {path} failed: the key is encrypted, give it unencrypted in a file that only the"
            " server's user may read"
        ) from None
    # The errors' own texts are left out: they may quote the file.
    except ValueError:
        raise ConfigError(f"load private_key from {path} failed: it has no private key in PEM form") from None
    except UnsupportedAlgorithm:
        raise ConfigError(f"load private_key from {path} failed: a key of an unknown kind") from None


def _check_key_of(ssl_config: SSLConfig, key: PrivateKeyTypes, chain: list[Certificate]) -> None:
    public = _spki(key.public_key())
    owners = [index for index, certificate in enumerate(chain) if _spki_of(certificate) == public]
    if owners and owners[0] == 0:
        return
    if owners:
        reason = (
            f"it is the key of certificate {owners[0] + 1} in {ssl_config.certificate}: the server's must be the first"
        )
    else:
        reason = f"it is not the key of the certificate in {ssl_config.certificate} ({_subject(chain[0])})"
    raise ConfigError(f"load private_key from {ssl_config.private_key} failed: {reason}")


def _spki_of(certificate: Certificate) -> bytes | None:
    """A certificate's public key; None: of a kind that is unknown here."""
    from cryptography.exceptions import UnsupportedAlgorithm

    try:
        return _spki(certificate.public_key())
    except (UnsupportedAlgorithm, ValueError):
        return None


def _spki(key: PublicKeyTypes | CertificatePublicKeyTypes) -> bytes:
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    return key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def _out_of_time(certificate: Certificate, now: datetime) -> str:
    """Why a certificate is not valid now; empty: it is."""
    begin, end = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    if now < begin:
        return f"the certificate {_subject(certificate)} is not valid before {begin:%Y-%m-%d %H:%M:%S} UTC"
    if now > end:
        return f"the certificate {_subject(certificate)} expired on {end:%Y-%m-%d %H:%M:%S} UTC"
    return ""


def _subject(certificate: Certificate) -> str:
    return certificate.subject.rfc4514_string() or "without a name"
