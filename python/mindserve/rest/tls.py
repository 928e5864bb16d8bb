"""TLS of a REST server, by the same files as the gRPC server's: contexts, and who a client is."""

from __future__ import annotations

import os
import ssl
import time
from collections.abc import Mapping, Sequence
from datetime import datetime, timezone
from typing import Any

from mindserve.errors import ConfigError
from mindserve.tls import ClientCheck, ServerTls

# Those of TLS 1.3 are all sound. Forward secrecy and authenticated encryption, as the gRPC server's.
_CIPHERS = "ECDHE+AESGCM:ECDHE+CHACHA20"
# As the gRPC server's. The kinds of records are numbered as in RFC 8446, 5.1.
_MOST_CONTROL_MESSAGES = 100
_ALERT, _HANDSHAKE = 21, 22
# A record costs about as much whatever it holds. Of those that hold next to nothing so many a second, besides a few for
# each that holds more: clients send the frame of a chunk by itself.
_MOST_SMALL_RECORDS = 10_000
_SMALL = 16
_EARNED = 4
_ALTERNATIVE_NAMES = ("DNS", "email", "URI", "IP Address")


def make_context(tls: ServerTls) -> ssl.SSLContext:
    """A context for new connections.

    Raises:
        ConfigError: OpenSSL does not take what is in the files.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_COMPRESSION
    context.set_ciphers(_CIPHERS)
    context.set_alpn_protocols(["http/1.1"])
    try:
        with _Memory(tls["certificate"]) as certificate, _Memory(tls["private_key"]) as key:
            context.load_cert_chain(certificate, key, password=_no_password)
        if tls["verify_client"]:
            context.verify_mode = ssl.CERT_REQUIRED
            with _Memory(tls["client_ca"]) as authorities:
                context.load_verify_locations(authorities)
        if tls["client_crl"]:
            with _Memory(tls["client_crl"]) as lists:
                context.load_verify_locations(lists)
            context.verify_flags |= ssl.VERIFY_CRL_CHECK_LEAF
    except (ssl.SSLError, ValueError) as error:
        raise ConfigError(f"The RESTful server's certificates don't work: {error}") from error
    if tls["verify_client"]:
        # A resumed session verifies nothing again. Without tickets there are those of TLS 1.2 that this context holds.
        context.num_tickets = 0
        context.options |= ssl.OP_NO_TICKET
        context.sslobject_class = type("_Checked", (_CheckedTls,), {"check": ClientCheck(tls)})
    else:
        context.sslobject_class = _CountedTls
    # As `context._msg_callback = …`, without the names that Python's own makes of the numbers each time.
    ssl._ssl._SSLContext._msg_callback.__set__(context, _note_message)  # type: ignore[attr-defined]
    return context


class TlsFloodError(ConnectionAbortedError):
    """A client sends records that carry next to nothing, without end."""


class _Rate:
    """So many a second at most."""

    def __init__(self, most: int, text: str) -> None:
        self._most = most
        self._text = text
        self._second = 0.0
        self._count = 0

    def take(self) -> str | None:
        """None, or what is wrong with one more."""
        now = time.monotonic()
        if now - self._second >= 1:
            self._second = now
            self._count = 0
        self._count += 1
        return None if self._count <= self._most else f"TLS: more than {self._most} {self._text} came within a second"


class _CountedTls(ssl.SSLObject):
    """Ends the connection of one that has it work for nothing: OpenSSL itself sets no bound to that."""

    _excess: str | None = None
    _earned = 0

    _made: tuple[_Rate, _Rate] | None = None

    def _rates(self) -> tuple[_Rate, _Rate]:
        """Of messages besides data, and of small records."""
        if self._made is None:  # Python makes it without a call of __init__
            self._made = (
                _Rate(_MOST_CONTROL_MESSAGES, "changes of keys, alerts and the like"),
                _Rate(_MOST_SMALL_RECORDS, f"records of fewer than {_SMALL} bytes"),
            )
        return self._made

    def note_message(self) -> None:
        """One came that is no data."""
        self._excess = self._rates()[0].take() or self._excess

    def read(self, *arguments: Any, **named: Any) -> Any:
        """As documented.

        Raises:
            TlsFloodError: that was too much.
        """
        try:
            got: int | bytes = super().read(*arguments, **named)
            if (got if isinstance(got, int) else len(got)) >= _SMALL:
                self._earned = _EARNED
            elif self._earned:
                self._earned -= 1
            else:
                self._excess = self._rates()[1].take() or self._excess
            return got
        finally:
            if self._excess is not None:
                raise TlsFloodError(self._excess)


def _note_message(tls: object, direction: str, version: int, kind: int, message: int, data: bytes) -> None:
    """What OpenSSL reads and writes but data, and the heads of all records."""
    del version, message, data
    # A change of keys is told of when it comes; what is no message now, as of TLS 1.2's renegotiation, by its answer.
    if (kind == _ALERT or (kind == _HANDSHAKE and direction == "read")) and isinstance(tls, _CountedTls):
        tls.note_message()


class _CheckedTls(_CountedTls):
    """Holds clients against what OpenSSL, by way of Python, does not look at.

    Attributes:
        check: what that is.
    """

    check: ClientCheck

    def do_handshake(self) -> None:
        super().do_handshake()
        now = datetime.now(timezone.utc)
        try:
            if self.session_reused:
                problem = self.check.of_session(self.getpeercert(binary_form=True) or b"", now)
            else:
                problem = self.check.of_chain(_verified_chain(self), now)
        except ValueError:
            problem = "a certificate can't be read"
        if problem:
            raise ssl.SSLCertVerificationError(f"certificate verify failed: {problem}")


def _verified_chain(tls: ssl.SSLObject) -> list[bytes]:
    """From the peer's certificate to the root's."""
    try:
        return tls.get_verified_chain()  # type: ignore[attr-defined, no-any-return]  # since Python 3.13
    except AttributeError:
        der = ssl._ssl.ENCODING_DER  # type: ignore[attr-defined]
        return [each.public_bytes(der) for each in tls._sslobj.get_verified_chain()]  # type: ignore[attr-defined]


def auth_properties(tls: Any) -> Mapping[str, Sequence[bytes]]:
    """What authenticated a peer, as grpcio's ``auth_context`` has it; empty over plain TCP."""
    if tls is None:
        return {}
    properties: dict[str, list[bytes]] = {"transport_security_type": [b"ssl"]}
    certificate = tls.getpeercert()
    if not certificate:
        return properties
    names = [value for part in certificate.get("subject", ()) for key, value in part if key == "commonName"]
    if names and names[-1].isprintable():
        properties["x509_common_name"] = [names[-1].encode()]
    alternative = [value for kind, value in certificate.get("subjectAltName", ()) if kind in _ALTERNATIVE_NAMES]
    if alternative:
        properties["x509_subject_alternative_name"] = [value.encode() for value in alternative]
    properties["x509_pem_cert"] = [ssl.DER_cert_to_PEM_cert(tls.getpeercert(binary_form=True)).encode()]
    return properties


def _no_password() -> str:
    raise ValueError("the private key is encrypted")  # rather than ask on the terminal


class _Memory:
    """Bytes as a file, for what takes only paths: what was checked is what is used, whatever becomes of the file."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    def __enter__(self) -> str:
        self._fd = os.memfd_create("mindserve-tls", os.MFD_CLOEXEC)
        with open(self._fd, "wb", closefd=False) as file:
            file.write(self._data)
        return f"/proc/self/fd/{self._fd}"

    def __exit__(self, *exception: object) -> None:
        os.close(self._fd)
