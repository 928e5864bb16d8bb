"""Certificates, authorities and revocation lists that change under a server that runs."""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
import socket
import ssl
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from cryptography import x509

from certificates import Authority, replace_file
from conftest import ECHO_SERVABLE
from e2e_support import Served, serving, until
from mindserve.client import Client, SSLConfig

VERSIONS = [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3]
RIGHT = [{"x": "text"}]
LISTEN = """
import json, sys
for line in sys.stdin:
    if line == "reload\\n":
        try:
            server.reload()
            print("reloaded", flush=True)
        except RuntimeError as error:
            print(type(error).__name__, error, flush=True)
    else:
        print(json.dumps(server.stats().as_dict()), flush=True)
"""

# HTTP/2 by hand: the preface, empty SETTINGS, and a PING.
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, 4, 0, 0, 0, 0, 0])
PING = bytes([0, 0, 8, 6, 0, 0, 0, 0, 0])
PONG = bytes([0, 0, 8, 6, 1, 0, 0, 0, 0])


class Connection:
    """One TLS connection by Python's ssl that speaks as much HTTP/2 as it takes to see that it is alive."""

    def __init__(self, context: ssl.SSLContext, address: str, session: ssl.SSLSession | None = None) -> None:
        host, port = address.rsplit(":", 1)
        plain = socket.create_connection((host, int(port)), timeout=60)
        try:
            self.socket = context.wrap_socket(plain, server_hostname="localhost", session=session)
        except BaseException:
            plain.close()
            raise
        self._pings = 0

    def ping(self) -> None:
        """Fails if the server does not answer."""
        self._pings += 1
        number = self._pings.to_bytes(8, "big")
        self.socket.sendall((PREFACE if self._pings == 1 else b"") + PING + number)
        received = b""
        while PONG + number not in received:
            data = self.socket.recv(65536)
            assert data, "the server has closed the connection"
            received += data

    @property
    def serial(self) -> int:
        """Of the server's certificate."""
        certificate = self.socket.getpeercert(binary_form=True)
        assert certificate is not None
        return x509.load_der_x509_certificate(certificate).serial_number

    @property
    def session(self) -> ssl.SSLSession:
        """For another connection of the same context; with TLS 1.3 it is there after a ping."""
        assert self.socket.session is not None
        assert self.socket.session.has_ticket
        return self.socket.session


class Person:
    """A client with a certificate of an authority."""

    def __init__(self, directory: pathlib.Path, name: str, authority: Authority) -> None:
        self.files = (str(directory / f"{name}.crt"), str(directory / f"{name}.key"))
        self.certificate = authority.write(*self.files, name)


class Mutual:
    """A server that verifies its clients, its files, and who comes to it."""

    def __init__(self, directory: pathlib.Path) -> None:
        self.directory = directory
        self.root = Authority("Root")
        self.server_certificate = self.root.write(directory / "server.crt", directory / "server.key")
        (directory / "ca.crt").write_bytes(self.root.pem)
        self.revoke()
        self.alice, self.bob = (Person(directory, name, self.root) for name in ("alice", "bob"))
        self.served: Served
        self.address = ""

    @contextlib.contextmanager
    def serving(self, *, hot_reload: bool = True) -> Iterator[None]:
        names = (str(self.directory / name) for name in ("server.crt", "server.key", "ca.crt", "ca.crl"))
        config = "server.SSLConfig({!r}, {!r}, {!r}, verify_client=True, crl={!r}, hot_reload={!r})"
        config = config.format(*names, hot_reload)
        listen = f"[server.Listener('127.0.0.1:0'), server.Listener('127.0.0.1:0', {config})]"
        with serving(self.directory / "server", "echo", ECHO_SERVABLE, listen=listen, after=LISTEN) as served:
            self.served, self.address = served, served.addresses[1]
            yield

    def revoke(self, *people: Person) -> None:
        replace_file(self.directory / "ca.crl", self.root.crl(*(person.certificate for person in people)))

    def context(self, person: Person | None, version: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.load_verify_locations(cadata=self.root.pem.decode())
        if person is not None:
            context.load_cert_chain(*person.files)
        context.set_alpn_protocols(["h2"])
        context.minimum_version = context.maximum_version = version
        return context

    def client(self, person: Person, ca: Authority | None = None) -> Client:
        path = self.directory / f"client-{(ca or self.root).certificate.serial_number}.crt"
        path.write_bytes((ca or self.root).pem)
        config = SSLConfig(*person.files, custom_ca=str(path), server_name="localhost")
        return Client(self.address, "echo", "same", ssl_config=config)

    def stats(self) -> dict[str, Any]:
        self.served.process.tell("stats")
        (certificate,) = json.loads(self.served.process.line())["certificates"]
        assert isinstance(certificate, dict)
        return certificate

    def wait_loaded(self, before: dict[str, Any]) -> None:
        """Until other certificates than before are in use."""
        until(self.stats, lambda stats: stats["loaded"] != before["loaded"])


@pytest.fixture
def mutual(tmp_path: pathlib.Path) -> Iterator[Mutual]:
    mutual = Mutual(tmp_path)
    with mutual.serving():
        yield mutual


def refused(context: ssl.SSLContext, address: str, session: ssl.SSLSession | None = None) -> bool:
    """Whether the server turns this client away in the handshake; with TLS 1.3 that is seen only after it."""
    connection = None
    try:
        connection = Connection(context, address, session)
        connection.ping()
    except (ssl.SSLError, ConnectionError) as error:
        # An alert, unless what this side had sent already made a reset of it.
        assert isinstance(error, ConnectionError) or "certificate" in str(error).lower(), error
        return True
    finally:
        if connection is not None:
            connection.socket.close()
    return False


class Calls:
    """Calls without a pause, in a thread of its own."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self.done = 0
        self.failed: list[Any] = []

    def _run(self) -> None:
        while not self._stop.is_set():
            answer = self._client.infer({"x": "text"}, timeout=60)
            if answer != RIGHT:
                self.failed.append(answer)
            self.done += 1

    def __enter__(self) -> Calls:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        self._client.close()

    def wait(self, more: int = 20) -> None:
        target = self.done + more
        until(lambda: self.done >= target)


def test_everything_is_replaced_and_no_call_fails(mutual: Mutual) -> None:
    other = Authority("Other")
    carol = Person(mutual.directory, "carol", other)
    kept = Connection(mutual.context(mutual.alice), mutual.address)
    kept.ping()
    assert kept.serial == mutual.server_certificate.serial_number
    with Calls(mutual.client(mutual.alice)) as calls:
        calls.wait()
        # The certificate and its key, one after the other.
        before = mutual.stats()
        renewed = mutual.root.write(mutual.directory / "server.crt", mutual.directory / "server.key")
        mutual.wait_loaded(before)
        new = Connection(mutual.context(mutual.alice), mutual.address)
        assert new.serial == renewed.serial_number
        # All of it: another authority for both sides.
        before = mutual.stats()
        other.write(mutual.directory / "server.crt", mutual.directory / "server.key")
        replace_file(mutual.directory / "ca.crt", other.pem)
        replace_file(mutual.directory / "ca.crl", other.crl())
        mutual.wait_loaded(before)
        with mutual.client(carol, other) as client:
            assert client.infer({"x": "text"}, timeout=60) == RIGHT
        with mutual.client(mutual.alice, other) as client:
            assert "Grpc Error, (14, 'unavailable')" in str(client.infer({"x": "text"}, timeout=60))
        calls.wait()
    assert calls.failed == []
    for connection in (kept, new):
        connection.ping()
        connection.socket.close()
    log = mutual.served.process.errors()
    assert log.count("certificates reloaded, for new connections: the server's expires on ") == 2
    assert "[ERROR]" not in log


def test_a_bad_file_keeps_the_old(mutual: Mutual) -> None:
    key = mutual.directory / "server.key"
    good = key.read_bytes()
    replace_file(key, b"-----BEGIN PRIVATE KEY-----\nSECRET\n-----END PRIVATE KEY-----\n", 0o600)
    error = until(lambda: mutual.stats()["reload_error"])
    assert f"load private_key from {key} failed: " in error
    log = mutual.served.process.errors()
    assert "[ERROR]" in log
    assert f"new certificates don't work, those in use are kept: load private_key from {key} failed: " in log
    assert "SECRET" not in log
    with mutual.client(mutual.alice) as client:
        assert client.infer({"x": "text"}, timeout=60) == RIGHT
    replace_file(key, good, 0o600)
    until(mutual.stats, lambda stats: stats["reload_error"] is None)


@pytest.mark.timeout(120)
def test_a_fifo_in_the_place_of_a_key_holds_up_nothing(mutual: Mutual) -> None:
    key = mutual.directory / "server.key"
    fifo = mutual.directory / "fifo"
    os.mkfifo(fifo, 0o600)
    fifo.replace(key)
    said = f"load private_key from {key} failed: Is a FIFO, expected a regular file"
    assert said in until(lambda: mutual.stats()["reload_error"])
    mutual.served.process.tell("reload")
    assert said in mutual.served.process.line()
    with mutual.client(mutual.alice) as client:
        assert client.infer({"x": "text"}, timeout=60) == RIGHT
    before = mutual.stats()
    renewed = mutual.root.write(mutual.directory / "server.crt", key)
    mutual.wait_loaded(before)
    assert mutual.stats()["reload_error"] is None
    connection = Connection(mutual.context(mutual.alice), mutual.address)
    assert connection.serial == renewed.serial_number
    connection.socket.close()
    errors = [line for line in mutual.served.process.errors().splitlines() if "[ERROR]" in line]
    assert len(errors) == 1, errors
    assert said in errors[0]


def test_a_certificate_without_its_key_is_not_taken(mutual: Mutual) -> None:
    path = mutual.directory / "server.crt"
    issued = mutual.root.write(path, mutual.directory / "next.key")
    error = until(lambda: mutual.stats()["reload_error"])
    assert f"it is not the key of the certificate in {path}" in error
    connection = Connection(mutual.context(mutual.alice), mutual.address)
    assert connection.serial == mutual.server_certificate.serial_number
    connection.socket.close()
    before = mutual.stats()
    (mutual.directory / "next.key").replace(mutual.directory / "server.key")
    mutual.wait_loaded(before)
    connection = Connection(mutual.context(mutual.alice), mutual.address)
    assert connection.serial == issued.serial_number
    connection.socket.close()


@pytest.mark.parametrize("version", VERSIONS, ids=lambda version: version.name)
def test_who_is_revoked_keeps_the_connection_and_comes_in_no_more(mutual: Mutual, version: ssl.TLSVersion) -> None:
    contexts = {person: mutual.context(person, version) for person in (mutual.alice, mutual.bob)}
    kept = {person: Connection(context, mutual.address) for person, context in contexts.items()}
    sessions = {}
    for person, connection in kept.items():
        connection.ping()
        sessions[person] = connection.session
        # Until something changes sessions are resumed.
        again = Connection(contexts[person], mutual.address, sessions[person])
        again.ping()
        assert again.socket.session_reused
        again.socket.close()
    before = mutual.stats()
    mutual.revoke(mutual.alice)
    mutual.wait_loaded(before)

    for connection in kept.values():
        connection.ping()
    assert refused(contexts[mutual.alice], mutual.address, sessions[mutual.alice])
    assert refused(contexts[mutual.alice], mutual.address)
    bob = Connection(contexts[mutual.bob], mutual.address, sessions[mutual.bob])
    bob.ping()
    assert not bob.socket.session_reused
    # This list may be replaced as well.
    before = mutual.stats()
    mutual.revoke(mutual.bob)
    mutual.wait_loaded(before)
    assert not refused(contexts[mutual.alice], mutual.address)
    assert refused(contexts[mutual.bob], mutual.address, bob.session)
    for connection in (*kept.values(), bob):
        connection.ping()
        connection.socket.close()
    assert "the client's certificate is refused: certificate revoked" in mutual.served.process.errors()


def test_a_revoked_client_calls_until_its_connection_ends(mutual: Mutual) -> None:
    with Calls(mutual.client(mutual.alice)) as calls:
        calls.wait()
        before = mutual.stats()
        mutual.revoke(mutual.alice)
        mutual.wait_loaded(before)
        with mutual.client(mutual.alice) as client:
            assert "Grpc Error, (14, 'unavailable')" in str(client.infer({"x": "text"}, timeout=60))
        with mutual.client(mutual.bob) as client:
            assert client.infer({"x": "text"}, timeout=60) == RIGHT
        calls.wait()
    assert calls.failed == []


def test_a_reload_that_is_asked_for(tmp_path: pathlib.Path) -> None:
    mutual = Mutual(tmp_path)
    with mutual.serving(hot_reload=False):
        process = mutual.served.process
        mutual.revoke(mutual.alice)
        process.tell("reload")
        assert process.line() == "reloaded"
        assert refused(mutual.context(mutual.alice), mutual.address)
        assert not refused(mutual.context(mutual.bob), mutual.address)
        (tmp_path / "ca.crl").unlink()
        process.tell("reload")
        assert process.line().startswith("ConfigError certificates were not reloaded, those in use are kept: ")
        assert not refused(mutual.context(mutual.bob), mutual.address)


def test_what_statistics_say(mutual: Mutual) -> None:
    stats = mutual.stats()
    assert stats["address"] == mutual.address
    crl = x509.load_pem_x509_crl((mutual.directory / "ca.crl").read_bytes())
    assert crl.next_update_utc is not None
    assert stats["crl_next_update"] == crl.next_update_utc.isoformat()
    assert stats["expires"] == mutual.server_certificate.not_valid_after_utc.isoformat()
    assert stats["ca_expires"] == mutual.root.certificate.not_valid_after_utc.isoformat()
    assert stats["loaded"].endswith("+00:00")
    assert stats["reload_error"] is None
    assert "the CRL of CN=Root in" in mutual.served.process.errors()  # expires in a day
