"""The requests of the measurements, and what a right answer to each is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import numpy as np
from load import Load, Running, write_body

from mindserve.client.decoding import decode_reply
from mindserve.client.encoding import encode_request, encode_spec
from mindserve.proto import PREDICT

# Those of `mindserve.client.Client`: messages of any size, and no proxy on the way.
CHANNEL_OPTIONS = [
    ("grpc.max_receive_message_length", -1),
    ("grpc.max_send_message_length", -1),
    ("grpc.enable_http_proxy", 0),
]


@dataclass(frozen=True)
class Call:
    """Instances for a method, and the one output that each must have."""

    servable: str
    method: str
    instances: Sequence[dict[str, Any]]
    expected: Sequence[np.ndarray]

    def request(self) -> bytes:
        """The PredictRequest."""
        return encode_request(encode_spec(self.servable, self.method, 0), self.instances)

    def write(self, path: Path) -> Path:
        """The request as one gRPC message, behind its prefix, for h2load."""
        return write_body(path, self.request())

    def load(self, name: str, server: Running, body: Path) -> Load:
        """This call as a load for a server that answers it rightly.

        Args:
            name: the server's in the table.
            server: the server.
            body: what `write` has written.
        """
        return Load(name, server, body, len(self.answer(server)))

    def answer(self, server: Running) -> bytes:
        """The server's PredictReply. Everything that is measured has been seen to be right first.

        Raises:
            RuntimeError: it is not what it must be.
        """
        with channel_to(server) as channel:
            shown = [("oauth_token", server.token)] if server.token else []
            call = channel.unary_unary(PREDICT)
            reply: bytes = call(self.request(), timeout=120, wait_for_ready=True, metadata=shown)
        results = decode_reply(reply, len(self.instances))
        for result, expected in zip(results, self.expected, strict=True):
            if "error" in result or not np.allclose(next(iter(result.values())), expected, atol=1e-6):
                raise RuntimeError(f"{server.address}: {self.servable}.{self.method}: {result}, expected {expected}")
        return reply


def channel_to(server: Running) -> grpc.Channel:
    """A channel with the options of MindServe's client."""
    if server.ca is None:
        return grpc.insecure_channel(server.address, CHANNEL_OPTIONS)
    return grpc.secure_channel(server.address, grpc.ssl_channel_credentials(server.ca.read_bytes()), CHANNEL_OPTIONS)


def add(servable: str = "bench", method: str = "add_common", count: int = 1) -> Call:
    """``count`` instances of two 2×2 float32."""
    ones = np.ones((2, 2), np.float32)
    return Call(servable, method, [{"x1": ones, "x2": ones}] * count, [ones + ones] * count)
