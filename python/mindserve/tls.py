"""The server's certificates: which files, and what can be said about them before OpenSSL gets them.

OpenSSL judges chains when a peer connects. What makes every connection fail is found here, when the files are loaded,
and said in words: a file that is missing, a key of another certificate, a certificate out of its time, a revocation
list (CRL) of a stranger.
"""

from __future__ import annotations

import re
import stat
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import TYPE_CHECKING, TypedDict

from mindserve import checks
from mindserve.errors import ConfigError
from mindserve.files import MAX_CRL_BYTES, MAX_PEM_BYTES, read_file

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.types import (
        CertificatePublicKeyTypes,
        PrivateKeyTypes,
        PublicKeyTypes,
    )
    from cryptography.x509 import Certificate, CertificateRevocationList, Name


@dataclass(frozen=True)
class SSLConfig:
    """Files, in PEM form, for a server that is reached by TLS.

    Attributes:
        certificate: the server's certificate; those of authorities between it and the root follow it in the file.
        private_key: the key of `certificate`, not encrypted.
        custom_ca: certificates of the authorities that clients' certificates must come from. Ignored unless
            `verify_client`.
        verify_client: whether clients must show a certificate. Default False.
        crl: revocation lists, one or several, each signed by an authority in `custom_ca`. Clients whose certificates
            they name are refused, and so is every client whose issuer has no list here that is in its time; those
            between the issuer and the root are held against the lists that there are. Default None: nothing is revoked.
            Only with `verify_client`.
        hot_reload: whether files that change are loaded anew while the server runs, for new connections, once none of
            them has changed for a second. Default True.

    Raises:
        ConfigError: a value of the wrong type, PEM text in place of a path, `verify_client` without `custom_ca`, or
            `crl` without `verify_client`.
    """

    certificate: str
    private_key: str
    custom_ca: str | None = None
    verify_client: bool = False
    crl: str | None = field(default=None, kw_only=True)
    hot_reload: bool = field(default=True, kw_only=True)

    def __post_init__(self) -> None:
        checks.check_pem_path("certificate", self.certificate)
        checks.check_pem_path("private_key", self.private_key)
        checks.check_bool("verify_client", self.verify_client)
        if self.verify_client and self.custom_ca is None:
            raise ConfigError(
                f"Parameter 'custom_ca' should be str, but actually {type(None)}: 'verify_client' needs the"
                " certificates of the authorities that clients' certificates come from"
            )
        if self.custom_ca is not None:
            checks.check_pem_path("custom_ca", self.custom_ca)
        if self.crl is not None:
            checks.check_pem_path("crl", self.crl)
            if not self.verify_client:
                raise ConfigError(
                    f"Parameter 'crl' is given, '{self.crl}', without 'verify_client': it is clients' certificates that"
                    " it revokes; give verify_client=True and 'custom_ca' too"
                )
        checks.check_bool("hot_reload", self.hot_reload)

    def files(self) -> tuple[str, ...]:
        """Those that `load_server_tls` reads."""
        of_clients = (self.custom_ca, self.crl) if self.verify_client else ()
        return tuple(path for path in (self.certificate, self.private_key, *of_clients) if path is not None)


class ServerTls(TypedDict):
    """What the native server takes: PEM texts.

    Holds the private key, so it is not to be logged.
    """

    certificate: bytes
    private_key: bytes
    client_ca: bytes
    client_crl: bytes
    verify_client: bool


@dataclass(frozen=True)
class Term:
    """From when to when something in a file holds.

    Attributes:
        parameter: of `SSLConfig`, that names the file.
        file: its path.
        what: "the certificate CN=localhost", "the CRL of CN=Root".
        begin: of the term.
        end: of the term.
    """

    parameter: str
    file: str
    what: str
    begin: datetime
    end: datetime


@dataclass(frozen=True)
class LoadedTls:
    """What was in the files.

    Attributes:
        native: for the native server.
        expires: the server's certificate.
        ca_expires: the first of the authorities' certificates that are in their time; None without `verify_client`.
        crl_next_update: when the first of the revocation lists has to be replaced; None: none, or no such time.
        terms: of all of these, but for certificates that had expired already and are not needed.
        warnings: what may go wrong, each in a line.
    """

    native: ServerTls = field(repr=False)
    expires: datetime
    ca_expires: datetime | None
    crl_next_update: datetime | None
    terms: tuple[Term, ...]
    warnings: tuple[str, ...]


def load_server_tls(ssl_config: SSLConfig, now: datetime | None = None) -> LoadedTls:
    """Read the files that `ssl_config` names, and check what can be checked without a peer.

    A revocation list that has expired is taken: OpenSSL refuses all clients whose certificates it is about, until there
    is a new one.

    Args:
        ssl_config: names the files.
        now: the time to hold them against. Default None: the present.

    Raises:
        ConfigError: a file is missing or not what it should be, the key is not the certificate's, a certificate is out
            of its time, or a revocation list comes from none of the authorities.
    """
    now = now or datetime.now(timezone.utc)
    warnings: list[str] = []
    certificate, _ = _read("certificate", ssl_config.certificate)
    chain = _parse_certificates("certificate", ssl_config.certificate, certificate)
    private_key, mode = _read("private_key", ssl_config.private_key)
    key = _parse_private_key(ssl_config.private_key, private_key)
    _check_key_of(ssl_config, key, chain)
    if mode & stat.S_IROTH:
        warnings.append(f"Every user of this machine may read the private key {ssl_config.private_key}: chmod 600 it")
    own, *others = (_term_of(one, "certificate", ssl_config.certificate) for one in chain)
    if problem := _out_of_time(own, now):
        raise ConfigError(f"load certificate from {ssl_config.certificate} failed: {problem}")
    problems: list[str] = []
    terms = [own, *_in_time(others, now, problems)]
    warnings += (f"In the chain of {ssl_config.certificate}, {problem}" for problem in problems)
    clients = _Clients(b"", b"", None, None, ())
    if ssl_config.verify_client:
        clients = _load_clients(ssl_config, now, warnings)
    return LoadedTls(
        native=ServerTls(
            certificate=certificate,
            private_key=private_key,
            client_ca=clients.authorities,
            client_crl=clients.crl,
            verify_client=ssl_config.verify_client,
        ),
        expires=own.end,
        ca_expires=clients.expires,
        crl_next_update=clients.next_update,
        terms=(*terms, *clients.terms),
        warnings=tuple(warnings),
    )


@dataclass(frozen=True)
class _Clients:
    """What clients are verified by."""

    authorities: bytes
    crl: bytes
    expires: datetime | None
    next_update: datetime | None
    terms: tuple[Term, ...]


def _load_clients(ssl_config: SSLConfig, now: datetime, warnings: list[str]) -> _Clients:
    path = ssl_config.custom_ca
    assert path is not None  # held by SSLConfig
    pem, _ = _read("custom_ca", path)
    authorities = _parse_certificates("custom_ca", path, pem)
    problems: list[str] = []
    terms = _in_time([_term_of(authority, "custom_ca", path) for authority in authorities], now, problems)
    if not terms:
        raise ConfigError(f"load custom_ca from {path} failed: {'; '.join(problems)}")
    warnings += (f"In {path}, {problem}" for problem in problems)
    expires = min(term.end for term in terms)
    if ssl_config.crl is None:
        return _Clients(pem, b"", expires, None, tuple(terms))
    crl, crl_terms = _load_crl(ssl_config.crl, authorities, path, now, warnings)
    next_update = min((term.end for term in crl_terms), default=None)
    return _Clients(pem, crl, expires, next_update, (*terms, *crl_terms))


def _load_crl(
    path: str, authorities: Sequence[Certificate], custom_ca: str, now: datetime, warnings: list[str]
) -> tuple[bytes, list[Term]]:
    """The PEM text, and the term of the newest list of each authority, if it has an end."""
    from cryptography.x509.oid import ExtensionOID

    pem, _ = _read("crl", path)
    newest: dict[Name, CertificateRevocationList] = {}
    for crl in _parse_crls(path, pem):
        what = f"the CRL of {_name(crl.issuer)}"
        if not any(authority.subject == crl.issuer and _has_signed(authority, crl) for authority in authorities):
            raise ConfigError(
                f"load crl from {path} failed: {what} is signed by none of the authorities in {custom_ca} (custom_ca)"
            )
        if any(extension.oid == ExtensionOID.DELTA_CRL_INDICATOR for extension in crl.extensions):
            raise ConfigError(f"load crl from {path} failed: {what} is a delta CRL, and whole ones are needed")
        if now < crl.last_update_utc:
            raise ConfigError(f"load crl from {path} failed: {what} is not valid before {_at(crl.last_update_utc)}")
        known = newest.get(crl.issuer)
        if known is None or known.last_update_utc <= crl.last_update_utc:
            newest[crl.issuer] = crl
    issuers_of_authorities = {authority.issuer for authority in authorities if authority.issuer != authority.subject}
    for subject in dict.fromkeys(authority.subject for authority in authorities):
        # One that only signs other authorities needs none.
        if subject not in newest and subject not in issuers_of_authorities:
            warnings.append(f"{path} has no CRL of {_name(subject)}: clients with certificates from it are refused")
    terms = [
        Term("crl", path, f"the CRL of {_name(issuer)}", crl.last_update_utc, crl.next_update_utc)
        for issuer, crl in newest.items()
        if crl.next_update_utc is not None
    ]
    return pem, terms


class ClientCheck:
    """What clients are held against besides what Python's ``ssl`` has OpenSSL look at. Thread-safe.

    OpenSSL holds either the client's certificate alone against revocation lists, or wants a list of every authority up
    to the root, of which those that only sign other authorities seldom publish one. And it resumes a session for as
    long as the session lasts, which may be longer than what it was verified by.

    Args:
        tls: what clients are verified by.
    """

    def __init__(self, tls: ServerTls) -> None:
        from cryptography import x509

        now = datetime.now(timezone.utc)
        self._crls = _parse_crls("crl", tls["client_crl"]) if tls["client_crl"] else []
        ends = [each.not_valid_after_utc for each in x509.load_pem_x509_certificates(tls["client_ca"])]
        # By an authority that has expired already there can't be a session.
        ends = [end for end in ends if end >= now] + [
            each.next_update_utc for each in self._crls if each.next_update_utc
        ]
        self._resume_until = min(ends, default=now)

    def of_chain(self, chain: Sequence[bytes], now: datetime) -> str:
        """Whether the newest list of an authority forbids the one below it.

        Args:
            chain: in DER form, from the client's certificate, which OpenSSL has looked up, to the root's.
            now: the time.

        Returns:
            Why the client may not come in; empty: it may.

        Raises:
            ValueError: a certificate is damaged.
        """
        from cryptography import x509

        if not self._crls:
            return ""
        certificates = [x509.load_der_x509_certificate(each) for each in chain]
        for certificate, issuer in zip(certificates[1:], [*certificates[2:], *certificates[-1:]], strict=True):
            lists = [each for each in self._crls if each.issuer == issuer.subject and _has_signed(issuer, each)]
            if not lists:
                continue
            newest = max(lists, key=lambda each: each.last_update_utc)
            if newest.next_update_utc is not None and newest.next_update_utc < now:
                return f"CRL has expired: that of {_name(issuer.subject)}"
            if newest.get_revoked_certificate_by_serial_number(certificate.serial_number) is not None:
                return f"certificate revoked: that of the authority {_name(certificate.subject)}"
        return ""

    def of_session(self, certificate: bytes, now: datetime) -> str:
        """Whether a session may still be resumed.

        Args:
            certificate: the client's, in DER form.
            now: the time.

        Returns:
            Why not; empty: it may.

        Raises:
            ValueError: the certificate is damaged.
        """
        from cryptography import x509

        if now > min(x509.load_der_x509_certificate(certificate).not_valid_after_utc, self._resume_until):
            return "a session can't be resumed after the end of what it was verified by"
        return ""


def _read(parameter: str, path: str) -> tuple[bytes, int]:
    """A file's bytes and its mode."""
    try:
        data, state = read_file(path, MAX_CRL_BYTES if parameter == "crl" else MAX_PEM_BYTES)
    except OSError as error:
        raise ConfigError(f"load {parameter} from {path} failed: {error.strerror}") from error
    except ValueError as error:
        raise ConfigError(f"load {parameter} from {path!r} failed: {error}") from error
    return data, state.st_mode


def _parse_certificates(parameter: str, path: str, pem: bytes) -> list[Certificate]:
    from cryptography import x509

    try:
        certificates = x509.load_pem_x509_certificates(pem)
    except x509.InvalidVersion as error:
        raise ConfigError(f"load {parameter} from {path} failed: a certificate in it is damaged: {error}") from error
    except ValueError as error:
        raise ConfigError(f"load {parameter} from {path} failed: it has no certificate in PEM form") from error
    for number, certificate in enumerate(certificates, 1):
        try:
            _ = certificate.subject, certificate.issuer  # it parses them only now
        except ValueError as error:
            raise ConfigError(f"load {parameter} from {path} failed: certificate {number} in it is damaged") from error
    return certificates


_CRL_BEGIN = b"-----BEGIN X509 CRL-----"
_CRL = re.compile(_CRL_BEGIN + b".+?-----END X509 CRL-----", re.DOTALL)


def _parse_crls(path: str, pem: bytes) -> list[CertificateRevocationList]:
    from cryptography import x509

    crls: list[CertificateRevocationList] = []
    found = _CRL.findall(pem)
    try:
        for text in found:
            crl = x509.load_pem_x509_crl(text)
            _ = crl.issuer, crl.extensions  # it parses them only now
            crls.append(crl)
    except (ValueError, x509.InvalidVersion, x509.DuplicateExtension) as error:
        raise ConfigError(f"load crl from {path} failed: CRL {len(crls) + 1} in it is damaged") from error
    if len(found) != pem.count(_CRL_BEGIN):
        raise ConfigError(f"load crl from {path} failed: CRL {len(crls) + 1} in it has no end")
    if not crls:
        raise ConfigError(f"load crl from {path} failed: it has no CRL in PEM form (-----BEGIN X509 CRL-----)")
    return crls


def _has_signed(authority: Certificate, crl: CertificateRevocationList) -> bool:
    from cryptography.exceptions import UnsupportedAlgorithm

    try:
        return crl.is_signature_valid(authority.public_key())  # type: ignore[arg-type]
    except (TypeError, ValueError, UnsupportedAlgorithm):
        return False


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
        reason = f"it is not the key of the certificate in {ssl_config.certificate} ({_name(chain[0].subject)})"
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


def _term_of(certificate: Certificate, parameter: str, path: str) -> Term:
    what = f"the certificate {_name(certificate.subject)}"
    return Term(parameter, path, what, certificate.not_valid_before_utc, certificate.not_valid_after_utc)


def _in_time(terms: Iterable[Term], now: datetime, problems: list[str]) -> list[Term]:
    """Those that are valid now; adds what is wrong with the others to ``problems``."""
    valid = []
    for term in terms:
        if problem := _out_of_time(term, now):
            problems.append(problem)
        else:
            valid.append(term)
    return valid


def _out_of_time(term: Term, now: datetime) -> str:
    """Why it is not valid now; empty: it is."""
    if now < term.begin:
        return f"{term.what} is not valid before {_at(term.begin)}"
    if now > term.end:
        return f"{term.what} expired on {_at(term.end)}"
    return ""


def _at(time: datetime) -> str:
    return f"{time:%Y-%m-%d %H:%M:%S} UTC"


def _name(name: Name) -> str:
    return name.rfc4514_string() or "without a name"
