"""Clients that ask one after the other, over several connections, while a test does something to the server."""

from __future__ import annotations

import contextlib
import dataclasses
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import grpc
import numpy as np

from certificates import Files
from e2e_support import PREAMBLE, request, tensor, until
from mindserve.proto import PREDICT, messages

# Its method takes a moment, for as many instances at a time as there are, and tells which server has answered.
CONFIG = (
    PREAMBLE
    + """
import os
import time

master = os.getppid()


@method("x", batch_size=0)
def work(instances):
    time.sleep(0.05)
    return [np.array([x.item(), master], np.int64) for (x,) in instances]
"""
)
SERVABLE = "traffic"


@dataclasses.dataclass(frozen=True)
class Failure:
    """A call that was not answered right. Times by ``time.monotonic``."""

    lane: str
    begun: float
    code: grpc.StatusCode | None
    text: str


class Traffic:
    """What the clients have seen."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._seen: set[tuple[str, int]] = set()
        self.lanes: set[str] = set()
        self.failures: list[Failure] = []
        self.answers = 0
        self.stopped = threading.Event()

    def wait_for(self, master: int) -> None:
        """Waits until that process has answered each client."""
        until(lambda: self.failures or {(lane, master) for lane in self.lanes} <= self._seen)

    def wait_for_failures(self) -> None:
        """Waits until each client has had one."""
        until(lambda: {failure.lane for failure in list(self.failures)} == self.lanes)

    def answered(self, lane: str, master: int) -> None:
        with self._lock:
            self.answers += 1
            self._seen.add((lane, master))

    def failed(self, failure: Failure) -> None:
        with self._lock:
            self.failures.append(failure)


@contextlib.contextmanager
def traffic(addresses: Sequence[str], mutual: Sequence[str] = (), files: Files | None = None) -> Iterator[Traffic]:
    """Asks each address over two connections that stay, and over new ones all the time.

    Args:
        addresses: plain ones.
        mutual: those that want a client's certificate.
        files: it and its authority's.
    """
    seen = Traffic()
    credentials = None
    if files is not None:
        ca, key, certificate = (Path(path).read_bytes() for path in (files.ca, files.client_key, files.client))
        credentials = grpc.ssl_channel_credentials(ca, key, certificate)
    threads = []
    for address in (*addresses, *mutual):
        chosen = credentials if address in mutual else None
        for kind, per_connection in (("one", 0), ("two", 0), ("new", 3)):
            lane = f"{address} {kind}"
            seen.lanes.add(lane)
            arguments = (seen, lane, address, chosen, per_connection)
            threads.append(threading.Thread(target=_ask, args=arguments, name=lane))
    for thread in threads:
        thread.start()
    try:
        yield seen
    finally:
        seen.stopped.set()
        for thread in threads:
            thread.join()


def _ask(
    seen: Traffic, lane: str, address: str, credentials: grpc.ChannelCredentials | None, per_connection: int
) -> None:
    number = 0
    options = [("grpc.use_local_subchannel_pool", 1), ("grpc.initial_reconnect_backoff_ms", 100)]
    while not seen.stopped.is_set():
        if credentials is None:
            channel = grpc.insecure_channel(address, options)
        else:
            channel = grpc.secure_channel(address, credentials, options)
        with channel:
            call = channel.unary_unary(PREDICT)
            asked = 0
            while not seen.stopped.is_set() and (asked < per_connection or not per_connection):
                number += 1
                asked += 1
                _ask_once(seen, lane, call, number)


def _ask_once(seen: Traffic, lane: str, call: grpc.UnaryUnaryMultiCallable, number: int) -> None:
    begun = time.monotonic()
    body = request(SERVABLE, "work", {"x": tensor(np.int64(number))}).SerializeToString()
    try:
        reply = messages.PredictReply.FromString(call(body, timeout=60))
    except grpc.RpcError as error:
        seen.failed(Failure(lane, begun, error.code(), error.details() or ""))  # type: ignore[attr-defined]
        seen.stopped.wait(0.02)
        return
    if not reply.instances or reply.error_msg:
        return seen.failed(Failure(lane, begun, None, str(reply)))
    x, master = np.frombuffer(reply.instances[0].items["y"].data, np.int64)
    if x != number:
        return seen.failed(Failure(lane, begun, None, f"{x} for {number}"))
    seen.answered(lane, int(master))
