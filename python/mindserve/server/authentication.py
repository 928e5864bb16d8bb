"""Tokens of a server that runs: verified for the gateway in threads of the master, and anew when the keys change."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from mindserve import logs, native
from mindserve.auth.authority import REFUSED_FOR, Authority
from mindserve.config import AuthConfig
from mindserve.server.watch import FileWatch, snapshot_files

if TYPE_CHECKING:
    from mindserve._native import Gateway

_THREADS = 2
# Tokens that a thread takes at a time.
_AT_A_TIME = 64

_log = logs.get_logger("auth")


class Authentication:
    """Used once: made, `begin`, `close`. Thread-safe.

    Args:
        config: what the server was given.

    Raises:
        ConfigError: files that can't be used.
    """

    def __init__(self, config: AuthConfig) -> None:
        self.config = config
        self.authority = Authority(config)
        # Before anybody is asked: what changes from now on is a change.
        self._state = self._snapshot()
        self._lock = threading.Lock()
        self._gateway: Gateway | None = None  # guarded by the lock: between `begin` and `close`
        self._threads: list[threading.Thread] = []

    def begin(self, gateway: Gateway, watch: FileWatch) -> None:
        """Has the gateway ask its clients who they are, from the next that it listens to on."""
        native.load().require_tokens(gateway)
        self._gateway = gateway
        self.authority.on_change(self._forget)
        self._threads = [
            threading.Thread(target=self._verify, args=(gateway,), name=f"mindserve-auth-{number}", daemon=True)
            for number in range(_THREADS)
        ]
        for thread in self._threads:
            thread.start()
        watch.add(self._snapshot, self.authority.reload, accepted=self._state)

    def close(self) -> None:
        """Verifies nothing any more, and lets go of the gateway."""
        with self._lock:
            gateway, self._gateway = self._gateway, None
        if gateway is not None:
            native.load().close_tokens(gateway)
        for thread in self._threads:
            thread.join()

    def _snapshot(self) -> tuple[object, ...]:
        return snapshot_files(self.authority.files)

    def _forget(self) -> None:
        with self._lock:
            if self._gateway is not None:
                native.load().forget_tokens(self._gateway)

    def _verify(self, gateway: Gateway) -> None:
        core = native.load()
        while questions := core.take_tokens(gateway, _AT_A_TIME):
            for question in questions:
                try:
                    verdict = self.authority.check(question[2])
                    core.answer_token(gateway, question, verdict.identity, verdict.refusal, verdict.seconds)
                except Exception:
                    # Whatever a token does, the next one is to be verified.
                    _log.exception("a fault in verifying a token")
                    text = "the token could not be verified: see the server's log"
                    core.answer_token(gateway, question, None, text, REFUSED_FOR)
