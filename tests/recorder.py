"""What goes over a connection between a gRPC client and its server, call by call, without TLS."""

from __future__ import annotations

import contextlib
import select
import socket
import socketserver
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import cast

from hpack import Decoder
from hyperframe.frame import ContinuationFrame, DataFrame, Frame, HeadersFrame

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"


@dataclass
class Side:
    """What one side sent of a call: header fields, those of trailers too, and the body."""

    fields: dict[str, str] = field(default_factory=dict)
    body: bytes = b""

    def messages(self) -> list[tuple[bool, bytes]]:
        """Each message as it was sent, and whether it says that it is compressed."""
        found, rest = [], self.body
        while rest:
            end = 5 + int.from_bytes(rest[1:5], "big")
            assert len(rest) >= end, "the last message is cut"
            found.append((bool(rest[0]), rest[5:end]))
            rest = rest[end:]
        return found


class Recorder(socketserver.ThreadingTCPServer):
    """Passes on what clients and a server say to each other, and keeps it."""

    def __init__(self, server: str) -> None:
        super().__init__(("127.0.0.1", 0), _Connection)
        host, port = server.rsplit(":", 1)
        self.server = (host, int(port))
        # Of each connection what its client and what the server said.
        self.connections: list[tuple[bytearray, bytearray]] = []

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.server_address[1]}"

    def calls(self) -> list[tuple[Side, Side]]:
        """The client's and the server's side of each call so far."""
        return [
            (sent, received.get(stream, Side()))
            for asked, answered in self.connections
            for received in [_sides(bytes(answered))]
            for stream, sent in _sides(bytes(asked).removeprefix(PREFACE)).items()
        ]


@contextlib.contextmanager
def recording(server: str) -> Iterator[Recorder]:
    """A recorder in front of a server, at an address of its own."""
    with Recorder(server) as recorder:
        thread = threading.Thread(target=recorder.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield recorder
        finally:
            recorder.shutdown()
            thread.join()


class _Connection(socketserver.BaseRequestHandler):
    def handle(self) -> None:
        recorder = cast(Recorder, self.server)
        kept = (bytearray(), bytearray())
        recorder.connections.append(kept)
        client: socket.socket = self.request
        with socket.create_connection(recorder.server, 60) as server, contextlib.suppress(ConnectionError):
            ways = {client: (server, kept[0]), server: (client, kept[1])}
            # Either one's end ends both: gRPC leaves nothing half open.
            while True:
                for source in select.select(list(ways), [], [], 60)[0]:
                    target, record = ways[source]
                    data = source.recv(1 << 16)
                    if not data:
                        return
                    record += data
                    target.sendall(data)


def _sides(data: bytes) -> dict[int, Side]:
    """What HTTP/2 frames say, by the stream. A frame that is cut counts as not sent."""
    decoder = Decoder()
    decoder.max_allowed_table_size = 1 << 20  # whatever the other side has allowed
    sides: dict[int, Side] = {}
    block = b""
    while len(data) >= 9:
        frame, length = Frame.parse_frame_header(memoryview(data[:9]))
        if len(data) < 9 + length:
            break
        frame.parse_body(memoryview(data[9 : 9 + length]))
        data = data[9 + length :]
        if isinstance(frame, DataFrame):
            sides[frame.stream_id].body += frame.data
        elif isinstance(frame, HeadersFrame | ContinuationFrame):
            block += frame.data
            if "END_HEADERS" in frame.flags:
                fields = decoder.decode(block)
                side = sides.setdefault(frame.stream_id, Side())
                side.fields.update((str(name), str(value)) for name, value in fields)
                block = b""
    return sides
