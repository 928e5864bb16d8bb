"""HTTPS against those who should not come in: what the server refuses of clients."""

from __future__ import annotations

import contextlib
import pathlib
import shutil
import socket
import ssl
import subprocess
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone

import pytest
from cryptography.x509.oid import ExtendedKeyUsageOID

from conftest import ECHO_SERVABLE
from e2e_support import until, write_servable
from rest_support import Rest, head, read_answer, serving_rest
from wrong_certificates import ANYTHING, UNSOUND_CIPHERS, WRONG, Authorities, Pair, issued, write_pair

VERSIONS = [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3]
ASK = head("/healthz/live", method="GET")


class Mutual:
    """A server that verifies its clients by authorities, and their revocation lists."""

    def __init__(self, folder: pathlib.Path) -> None:
        self.folder = folder
        self.authorities = Authorities()
        self.authorities.write(folder)
        self.rest: Rest

    @contextlib.contextmanager
    def serving(self) -> Iterator[None]:
        files = ", ".join(repr(str(self.folder / name)) for name in ("server.crt", "server.key", "ca.crt"))
        tls = f"server.SSLConfig({files}, verify_client=True, crl={str(self.folder / 'ca.crl')!r})"
        write_servable(self.folder / "servables", "echo", ECHO_SERVABLE)
        with serving_rest(self.folder, "echo", listen=f"'localhost:0', ssl_config={tls}") as self.rest:
            yield

    def context(self, pair: Pair | None, *chain: bytes) -> ssl.SSLContext:
        """A client's."""
        context = ssl.create_default_context(cadata=self.authorities.root.pem.decode())
        if pair is not None:
            context.set_ciphers(ANYTHING)
            context.load_cert_chain(*write_pair(self.folder, pair, *chain))
        return context

    def known(self) -> ssl.SSLContext:
        return self.context(issued(self.authorities.root))

    @contextlib.contextmanager
    def connected(self, context: ssl.SSLContext, session: ssl.SSLSession | None = None) -> Iterator[ssl.SSLSocket]:
        plain = self.rest.connect()
        with plain, context.wrap_socket(plain, server_hostname="localhost", session=session) as tls:
            yield tls

    def status(self, context: ssl.SSLContext) -> int:
        """Of an answer that a client gets."""
        with self.connected(context) as tls:
            tls.sendall(ASK)
            return read_answer(tls).status

    def refused(self, context: ssl.SSLContext) -> str:
        """The one line that the log has about a connection by that context, which must come to nothing.

        The log takes ten such lines a second, so that it may need another connection.
        """
        return until(lambda: self._attempt(context))

    def _attempt(self, context: ssl.SSLContext) -> str:
        before = len(self.rest.process.errors())  # others may have had the same port
        with self.rest.connect() as plain:
            name = "ipv4:{}:{} ".format(*plain.getsockname()[:2])
            with contextlib.suppress(OSError), context.wrap_socket(plain, server_hostname="localhost") as tls:
                tls.sendall(ASK)
                # With TLS 1.3 a client learns that it was refused when it reads.
                assert tls.recv(65536) == b""
        errors = self.rest.process.errors()[before:]
        found = [line for line in errors.splitlines() if name in line]
        assert len(found) <= 1
        assert all("[WARNING]" in line for line in found)
        assert "[ERROR]" not in errors
        return found[0] if found else ""


@pytest.fixture(scope="module")
def mutual(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mutual]:
    server = Mutual(tmp_path_factory.mktemp("mutual"))
    with server.serving():
        yield server


@pytest.mark.parametrize("version", VERSIONS, ids=lambda each: each.name)
@pytest.mark.parametrize("what", [*WRONG, "missing"])
def test_certificates_of_clients(mutual: Mutual, what: str, version: ssl.TLSVersion) -> None:
    pair, reason = None, "peer did not return a certificate"
    if what != "missing":
        make, reason = WRONG[what]
        pair = make(mutual.authorities)
    context = mutual.context(pair)
    context.minimum_version = context.maximum_version = version
    assert reason in mutual.refused(context)
    assert mutual.status(mutual.known()) == 200


@pytest.mark.parametrize("version", VERSIONS, ids=lambda each: each.name)
def test_an_intermediate_without_a_list_lets_nobody_in(mutual: Mutual, version: ssl.TLSVersion) -> None:
    """Even if its certificate comes along: it can't be known whom it has revoked."""
    between = mutual.authorities.between
    context = mutual.context(issued(between), between.pem)
    context.minimum_version = context.maximum_version = version
    assert "unable to get certificate CRL" in mutual.refused(context)


@pytest.mark.parametrize("version", VERSIONS, ids=lambda each: each.name)
def test_certificates_that_are_right(mutual: Mutual, version: ssl.TLSVersion) -> None:
    """Without a stated use, for clients, and by an intermediate."""
    authorities = mutual.authorities
    for pair in (
        issued(authorities.root),
        issued(authorities.root, use=ExtendedKeyUsageOID.CLIENT_AUTH),
        issued(authorities.listed),
    ):
        context = mutual.context(pair)
        context.minimum_version = context.maximum_version = version
        assert mutual.status(context) == 200


@pytest.mark.parametrize("version", VERSIONS, ids=lambda each: each.name)
def test_sessions_end_with_what_they_were_verified_by(mutual: Mutual, version: ssl.TLSVersion) -> None:
    """Nobody looks at the certificate again where one is resumed: once it has expired it lets nobody in."""
    end = datetime.now(timezone.utc) + timedelta(seconds=3)
    context = mutual.context(issued(mutual.authorities.root, end=timedelta(seconds=3)))
    context.minimum_version = context.maximum_version = version
    with mutual.connected(context) as tls:
        tls.sendall(ASK)
        assert read_answer(tls).status == 200
        session = tls.session

    def refused() -> bool:
        try:
            with mutual.connected(context, session) as tls:
                tls.sendall(ASK)
                return tls.recv(65536) == b""
        except OSError:
            return True

    until(refused)
    assert datetime.now(timezone.utc) >= end - timedelta(seconds=1)  # a certificate's time has no fractions
    assert mutual.status(mutual.known()) == 200


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion:DeprecationWarning")
@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1], ids=lambda each: each.name)
def test_old_versions(mutual: Mutual, version: ssl.TLSVersion) -> None:
    context = mutual.known()
    context.minimum_version = context.maximum_version = version
    context.set_ciphers("ALL:@SECLEVEL=0")
    assert "unsupported protocol" in mutual.refused(context)


@pytest.mark.parametrize("ciphers", UNSOUND_CIPHERS)
def test_ciphers_that_are_not_sound(mutual: Mutual, ciphers: str) -> None:
    context = mutual.known()
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    try:
        context.set_ciphers(ciphers + ":@SECLEVEL=0")
    except ssl.SSLError:
        pytest.skip(f"this OpenSSL has no {ciphers} any more")
    assert "no shared cipher" in mutual.refused(context)


@pytest.mark.parametrize(
    ("offered", "chosen"),
    [([], None), (["http/1.1"], "http/1.1"), (["h2", "http/1.1"], "http/1.1"), (["h2"], None)],
)
def test_only_http_1_1_is_chosen(mutual: Mutual, offered: list[str], chosen: str | None) -> None:
    context = mutual.known()
    if offered:
        context.set_alpn_protocols(offered)
    with mutual.connected(context) as tls:
        assert tls.selected_alpn_protocol() == chosen
        assert tls.compression() is None
        tls.sendall(ASK)
        assert read_answer(tls).status == 200


def test_http_2_by_one_who_does_not_ask(mutual: Mutual) -> None:
    with mutual.connected(mutual.known()) as tls:
        tls.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, 4, 0, 0, 0, 0, 0]))
        assert read_answer(tls).status == 400
        with contextlib.suppress(ssl.SSLEOFError, ConnectionResetError):
            assert tls.recv(1) == b""
    assert mutual.status(mutual.known()) == 200


def test_no_renegotiation(mutual: Mutual) -> None:
    """Which Python's TLS doesn't offer."""
    if shutil.which("openssl") is None:
        pytest.skip("no openssl command here")
    certificate, key = write_pair(mutual.folder, issued(mutual.authorities.root))
    files = ("-cert", certificate, "-key", key, "-CAfile", str(mutual.folder / "ca.crt"))
    done = subprocess.run(
        ["openssl", "s_client", "-connect", mutual.rest.address, "-tls1_2", *files],
        input=b"R\n",  # which asks for it
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert b"RENEGOTIATING" in done.stderr
    assert b"no renegotiation" in done.stderr
    assert done.returncode == 1


def test_what_is_no_handshake_is_one_line(mutual: Mutual) -> None:
    def attempt() -> bool:
        before = len(mutual.rest.process.errors())
        with mutual.rest.connect() as plain:
            name = "ipv4:{}:{} ".format(*plain.getsockname()[:2])
            plain.sendall(ASK)
            with contextlib.suppress(ConnectionResetError):
                while plain.recv(65536):
                    pass
        found = [line for line in mutual.rest.process.errors()[before:].splitlines() if name in line]
        assert all("[WARNING]" in line and "was refused" in line for line in found)
        assert len(found) <= 1
        return bool(found)

    until(attempt)


def test_the_log_takes_ten_of_these_a_second(mutual: Mutual) -> None:
    def lines() -> list[str]:
        return [line for line in mutual.rest.process.errors().splitlines() if "was refused" in line]

    host, _, port = mutual.rest.address.rpartition(":")
    before, attempts = len(lines()), 0

    def counted() -> bool:
        nonlocal attempts
        for _ in range(50):
            attempts += 1
            with socket.create_connection((host, int(port)), timeout=60) as plain:
                plain.sendall(b"\r\n" * 8)
                with contextlib.suppress(ConnectionResetError):
                    plain.recv(65536)
        return "more warnings like it were left out" in mutual.rest.process.errors()

    until(counted)
    assert len(lines()) - before < attempts
