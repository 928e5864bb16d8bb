"""TLS against those who should not come in: what the server refuses of clients, and our client of servers."""

from __future__ import annotations

import asyncio
import contextlib
import pathlib
import shutil
import socket
import ssl
import subprocess
from collections.abc import Callable, Iterator
from typing import Any

import grpc
import pytest
from cryptography.x509.oid import ExtendedKeyUsageOID

from certificates import DAY, Authority
from conftest import ECHO_SERVABLE
from e2e_support import Served, serving, until
from mindserve.client import AsyncClient, Client, SSLConfig
from predict_server import serving as stand_in
from wrong_certificates import ANYTHING, UNSOUND_CIPHERS, WRONG, Authorities, Pair, alone, issued, write_pair

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, 4, 0, 0, 0, 0, 0])
RIGHT = [{"x": "text"}]


class Mutual:
    """A server that verifies its clients by authorities, and their revocation lists."""

    def __init__(self, folder: pathlib.Path) -> None:
        self.folder = folder
        self.authorities = Authorities()
        self.authorities.write(folder)
        self.root = self.authorities.root
        self.served: Served
        self.address = ""
        self.without_list = ""  # an intermediate publishes none here

    @contextlib.contextmanager
    def serving(self) -> Iterator[None]:
        names = ", ".join(repr(str(self.folder / name)) for name in ("server.crt", "server.key", "ca.crt"))
        crls = (f"crl={str(self.folder / 'ca.crl')!r}", "")
        tls = [f"server.SSLConfig({names}, verify_client=True, {crl})" for crl in crls]
        listen = ", ".join(f"server.Listener('localhost:0', {each})" for each in tls)
        with serving(self.folder / "server", "echo", ECHO_SERVABLE, listen=f"[{listen}]") as served:
            self.served = served
            self.address, self.without_list = served.addresses
            yield

    def client(self, pair: Pair, *chain: bytes) -> SSLConfig:
        return SSLConfig(*write_pair(self.folder, pair, *chain), str(self.folder / "ca.crt"))


@pytest.fixture(scope="module")
def mutual(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mutual]:
    server = Mutual(tmp_path_factory.mktemp("mutual"))
    with server.serving():
        yield server


def refused(mutual: Mutual, context: ssl.SSLContext, address: str | None = None) -> str:
    """The one line that the server's log has about a connection by that context, which must come to nothing.

    The log takes ten such lines a second, so that it may need another connection.
    """
    return until(lambda: attempt(mutual, context, address or mutual.address))


def attempt(mutual: Mutual, context: ssl.SSLContext, address: str) -> str:
    before = len(mutual.served.process.errors())  # others may have had the same port
    host, port = address.rsplit(":", 1)
    with socket.create_connection((host, int(port)), timeout=60) as plain:
        name = "{}:{} ".format(*plain.getsockname()[:2])
        with contextlib.suppress(OSError), context.wrap_socket(plain, server_hostname="localhost") as tls:
            tls.sendall(PREFACE)
            # With TLS 1.3 a client learns that it was refused when it reads.
            assert tls.recv(65536) == b""
    # The connection ends after the line.
    found = [line for line in mutual.served.process.errors()[before:].splitlines() if name in line]
    assert len(found) <= 1
    assert all("[WARNING]" in line for line in found)
    return found[0] if found else ""


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3], ids=lambda each: each.name)
@pytest.mark.parametrize("what", [*WRONG, "missing"])
def test_certificates_of_clients(mutual: Mutual, what: str, version: ssl.TLSVersion) -> None:
    context = ssl.create_default_context(cadata=mutual.root.pem.decode())
    context.minimum_version = context.maximum_version = version
    context.set_alpn_protocols(["h2"])
    reason = "the client sent no certificate, and one is required"
    if what != "missing":
        make, reason = WRONG[what]
        config = mutual.client(make(mutual.authorities))
        context.set_ciphers(ANYTHING)
        context.load_cert_chain(config.certificate, config.private_key)
    address = mutual.without_list if what == "lacking an intermediate" else mutual.address
    assert reason in refused(mutual, context, address)
    with Client(address, "echo", "same", ssl_config=mutual.client(issued(mutual.root))) as client:
        assert client.infer({"x": "text"}, timeout=60) == RIGHT


def test_certificates_that_are_right(mutual: Mutual) -> None:
    """Without a stated use, for clients, and by an intermediate that comes along."""
    between = mutual.authorities.between
    for pair, chain in (
        (issued(mutual.root), ()),
        (issued(mutual.root, use=ExtendedKeyUsageOID.CLIENT_AUTH), ()),
        (issued(mutual.authorities.listed), ()),
        (issued(between), (between.pem,)),
    ):
        address = mutual.without_list if chain else mutual.address
        with Client(address, "echo", "same", ssl_config=mutual.client(pair, *chain)) as client:
            assert client.infer({"x": "text"}, timeout=60) == RIGHT


# -- versions, ciphers, ALPN -------------------------------------------------------------------------------------------


def offer(mutual: Mutual) -> ssl.SSLContext:
    context = ssl.create_default_context(cadata=mutual.root.pem.decode())
    config = mutual.client(issued(mutual.root))
    context.load_cert_chain(config.certificate, config.private_key)
    context.set_alpn_protocols(["h2"])
    return context


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion:DeprecationWarning")
@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1], ids=lambda each: each.name)
def test_old_versions(mutual: Mutual, version: ssl.TLSVersion) -> None:
    context = offer(mutual)
    context.minimum_version = context.maximum_version = version
    context.set_ciphers("ALL:@SECLEVEL=0")
    assert "unsupported protocol" in refused(mutual, context)


@pytest.mark.parametrize("ciphers", UNSOUND_CIPHERS)
def test_ciphers_that_are_not_sound(mutual: Mutual, ciphers: str) -> None:
    context = offer(mutual)
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    try:
        context.set_ciphers(ciphers + ":@SECLEVEL=0")
    except ssl.SSLError:
        pytest.skip(f"this OpenSSL has no {ciphers} any more")
    assert "no shared cipher" in refused(mutual, context)


@pytest.mark.parametrize("names", [[], ["http/1.1"], ["h2c", "h3"]])
def test_h2_has_to_be_offered(mutual: Mutual, names: list[str]) -> None:
    context = offer(mutual)
    if names:
        context.set_alpn_protocols(names)
    else:
        context = ssl.create_default_context(cadata=mutual.root.pem.decode())
        config = mutual.client(issued(mutual.root))
        context.load_cert_chain(config.certificate, config.private_key)
    assert 'does not offer HTTP/2 (ALPN "h2")' in refused(mutual, context)


def test_no_renegotiation(mutual: Mutual) -> None:
    """Which Python's TLS doesn't offer."""
    if shutil.which("openssl") is None:
        pytest.skip("no openssl command here")
    config = mutual.client(issued(mutual.root))
    files = ("-cert", config.certificate, "-key", config.private_key, "-CAfile", config.custom_ca)

    def attempt() -> bool:
        done = subprocess.run(
            ["openssl", "s_client", "-connect", mutual.address, "-tls1_2", "-alpn", "h2", *map(str, files)],
            input=b"R\n",  # which asks for it
            capture_output=True,
            timeout=60,
            check=False,
        )
        assert b"RENEGOTIATING" in done.stderr
        assert done.returncode == 1
        # If it asks before the server's SETTINGS came, it does not expect these, and ends by itself.
        return b"no renegotiation" in done.stderr

    until(attempt)


# -- our client --------------------------------------------------------------------------------------------------------

REFUSED_BY_CLIENT: dict[str, tuple[Callable[[Authority], Pair], str]] = {
    "expired": (lambda root: issued(root, "localhost", -2 * DAY, -DAY), "certificate has expired"),
    "not yet valid": (lambda root: issued(root, "localhost", DAY, 2 * DAY), "certificate is not yet valid"),
    "self-signed": (lambda root: alone(), "self signed certificate"),
    "of a wrong authority": (lambda root: issued(Authority("Other"), "localhost"), "unable to get local issuer"),
    "of a wrong name": (lambda root: issued(root, "elsewhere.example"), "Hostname Verification Check failed"),
    "lacking an intermediate": (
        lambda root: issued(Authority("Between", root), "localhost"),
        "unable to get local issuer",
    ),
    "of an impostor of the same name": (lambda root: issued(Authority("Root"), "localhost"), "signature failure"),
    "for clients": (
        lambda root: issued(root, "localhost", use=ExtendedKeyUsageOID.CLIENT_AUTH),
        "unsupported certificate purpose",
    ),
}


async def infer_async(address: str, config: SSLConfig) -> Any:
    async with AsyncClient(address, "echo", "echo", ssl_config=config) as client:
        return await client.infer({"x": "text"}, timeout=60)


@pytest.mark.parametrize("what", REFUSED_BY_CLIENT)
def test_certificates_of_servers(tmp_path: pathlib.Path, what: str) -> None:
    """Each way to call says so."""
    root = Authority("Root")
    (tmp_path / "ca.crt").write_bytes(root.pem)
    make, reason = REFUSED_BY_CLIENT[what]
    certificate, key = make(root)
    with stand_in("localhost:0", grpc.ssl_server_credentials([(key, certificate)])) as server:
        config = SSLConfig(custom_ca=str(tmp_path / "ca.crt"))
        address = f"localhost:{server.port}"
        with Client(address, "echo", "echo", ssl_config=config) as client:
            answers = [client.infer({"x": "text"}, timeout=60), *client.infer_stream({"x": "text"}, timeout=60)]
        answers.append(asyncio.run(infer_async(address, config)))
    assert len(answers) == 3
    for answer in answers:
        assert isinstance(answer, dict)
        assert answer["error"].startswith("Grpc Error, (14, 'unavailable'), ")
        assert reason in answer["error"]
