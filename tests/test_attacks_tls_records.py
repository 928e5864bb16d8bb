"""TLS's own records as an attack: changes of keys without end, and records that hold next to nothing."""

from __future__ import annotations

import contextlib
import ctypes
import ctypes.util
import socket
import ssl
import subprocess
import sys
import threading
from collections.abc import Iterator

import h2.connection
import pytest
from hyperframe.frame import DataFrame

from attacker import request_fields, unharmed
from certificates import files_in
from conftest import ECHO_SERVABLE
from e2e_support import Served, serving, until
from mindserve.certs import make_certificates
from rest_support import head

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, 4, 0, 0, 0, 0, 0])
TOO_MANY_CHANGES = "TLS: more than 100 changes of keys, alerts and the like came within a second"
TOO_MANY_RECORDS = "TLS: more than 10000 records of fewer than 16 bytes came within a second"
ASK = head("/model/echo:same", "content-length: 90000000")


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """Listens with TLS, without, and by HTTPS."""
    folder = tmp_path_factory.mktemp("records")
    make_certificates(folder)
    files = files_in(folder)
    tls = f"server.SSLConfig({files.server!r}, {files.server_key!r})"
    listen = f"[server.Listener('127.0.0.1:0'), server.Listener('127.0.0.1:0', {tls})]"
    after = f"print(server.start_restful_server('127.0.0.1:0', ssl_config={tls}), flush=True)\n"
    with serving(folder, "echo", ECHO_SERVABLE, listen=listen, after=after) as server:
        server.addresses.append(server.process.line())
        yield server


class Keys:
    """A connection whose client changes its keys by OpenSSL itself, for which Python has no name.

    Args:
        address: of the server.
        alpn: what it offers; empty: nothing.
    """

    def __init__(self, address: str, alpn: bytes) -> None:
        name = ctypes.util.find_library("ssl")
        if name is None:
            pytest.skip("no OpenSSL library here")
        self._library = library = ctypes.CDLL(name)
        for function in ("TLS_client_method", "SSL_CTX_new", "SSL_new"):
            getattr(library, function).restype = ctypes.c_void_p
        library.SSL_CTX_new.argtypes = library.SSL_new.argtypes = [ctypes.c_void_p]
        library.SSL_connect.argtypes = library.SSL_do_handshake.argtypes = [ctypes.c_void_p]
        library.SSL_set_fd.argtypes = library.SSL_key_update.argtypes = [ctypes.c_void_p, ctypes.c_int]
        library.SSL_write.argtypes = [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_int]
        library.SSL_set_alpn_protos.argtypes = [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_uint]
        library.SSL_free.argtypes = library.SSL_CTX_free.argtypes = [ctypes.c_void_p]
        host, port = address.rsplit(":", 1)
        self.socket = socket.create_connection((host, int(port)))
        self.socket.setblocking(True)
        self.name = f"{host}:{self.socket.getsockname()[1]}"
        self._context = library.SSL_CTX_new(library.TLS_client_method())
        self._tls = library.SSL_new(self._context)
        library.SSL_set_fd(self._tls, self.socket.fileno())
        if alpn:
            offered = bytes([len(alpn)]) + alpn
            library.SSL_set_alpn_protos(self._tls, offered, len(offered))
        assert library.SSL_connect(self._tls) == 1

    def write(self, data: bytes) -> None:
        assert self._library.SSL_write(self._tls, data, len(data)) == len(data)

    def change(self, asks: bool) -> bool:
        """Changes its keys, and asks the server to do so as well. False: the server has closed."""
        done = self._library.SSL_key_update(self._tls, int(asks)) == 1
        return done and bool(self._library.SSL_do_handshake(self._tls) == 1)

    def take(self) -> None:
        """What the server answers, as it comes, unread."""
        with contextlib.suppress(OSError):
            while self.socket.recv(1 << 20):
                pass

    def close(self) -> None:
        self._library.SSL_free(self._tls)
        self._library.SSL_CTX_free(self._context)
        self.socket.close()


def line_of(served: Served, name: str) -> str:
    """The one line of the log about a connection."""
    (line,) = until(lambda: [each for each in served.process.errors().splitlines() if f"{name} closed" in each])
    return str(line)


KINDS = {"gRPC": (1, b"h2", PREFACE), "HTTPS": (2, b"", ASK + b"{")}


@pytest.mark.parametrize("asks", [False, True])
@pytest.mark.parametrize("begins", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_changes_of_keys_without_end(served: Served, kind: str, begins: bool, asks: bool) -> None:
    """Before a request, or within one; with answers or not."""
    place, alpn, start = KINDS[kind]
    with unharmed(served):
        keys = Keys(served.addresses[place], alpn)
        taker = threading.Thread(target=keys.take)
        taker.start()
        if begins:
            keys.write(start)
        for _ in range(100_000):
            if not keys.change(asks):
                break
        else:
            raise AssertionError("they are taken")
        taker.join(60)
        keys.close()
        assert line_of(served, keys.name).endswith(TOO_MANY_CHANGES)


def test_a_few_changes_are_ordinary(served: Served) -> None:
    """As many as a client makes that sends a hundred gigabytes."""
    for place, alpn, start in KINDS.values():
        keys = Keys(served.addresses[place], alpn)
        for _ in range(20):
            assert keys.change(asks=True)
        keys.write(start)
        keys.socket.settimeout(0.5)
        received = b""
        with contextlib.suppress(TimeoutError):
            while received := keys.socket.recv(1 << 20):
                pass
        assert received, "it is closed"
        keys.close()


RECORDS = 150_000
SENDER = f"""
import socket, ssl, sys
host, port, alpn, start = sys.argv[1], int(sys.argv[2]), sys.argv[3], bytes.fromhex(sys.argv[4])
context = ssl.create_default_context()
context.check_hostname = False
context.verify_mode = ssl.CERT_NONE
if alpn:
    context.set_alpn_protocols([alpn])
with context.wrap_socket(socket.create_connection((host, port))) as tls:
    print(tls.getsockname()[1], flush=True)
    tls.sendall(start)
    for _ in range({RECORDS}):
        tls.send(b"0")
"""


def test_records_of_a_byte_by_https(served: Served) -> None:
    """Made before, so that they all come within a second."""
    place, _, start = KINDS["HTTPS"]
    host, port = served.addresses[place].rsplit(":", 1)
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    coming, going = ssl.MemoryBIO(), ssl.MemoryBIO()
    tls = context.wrap_bio(coming, going)
    with unharmed(served), socket.create_connection((host, int(port))) as plain:
        while True:
            try:
                tls.do_handshake()
                break
            except ssl.SSLWantReadError:
                plain.sendall(going.read())
                coming.write(plain.recv(1 << 16))
        tls.write(start)
        for _ in range(40_000):
            tls.write(b"0")
        with contextlib.suppress(ConnectionError):
            plain.sendall(going.read())
        assert line_of(served, f"{host}:{plain.getsockname()[1]}").endswith(TOO_MANY_RECORDS)


def test_records_of_a_byte_hold_up_nobody(served: Served) -> None:
    """By gRPC: others of the thread have their turns between them, so that it costs what it costs the sender."""
    place, alpn, _ = KINDS["gRPC"]
    host, port = served.addresses[place].rsplit(":", 1)
    # A call whose message is announced to be of 90 MB, in a frame with all that comes of it.
    client = h2.connection.H2Connection()
    client.initiate_connection()
    client.send_headers(1, request_fields())
    begun = b"\0" + (90 << 20).to_bytes(4, "big")
    frame = (len(begun) + RECORDS).to_bytes(3, "big") + bytes([DataFrame.type, 0]) + (1).to_bytes(4, "big")
    start = client.data_to_send() + frame + begun
    arguments = [sys.executable, "-c", SENDER, host, port, alpn.decode(), start.hex()]
    with unharmed(served), contextlib.ExitStack() as stack:
        senders = [
            stack.enter_context(subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True)) for _ in range(2)
        ]
        for sender in senders:
            assert sender.wait(120) == 0
