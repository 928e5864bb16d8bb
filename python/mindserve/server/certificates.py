"""The certificates of a server's listeners: loaded, exchanged when their files change, told of before they expire."""

from __future__ import annotations

import dataclasses
import functools
import logging
import os
import threading
import time
from collections.abc import Callable, Hashable, Iterable, Sequence
from datetime import datetime, timedelta, timezone
from typing import Any

from mindserve import logs, tls
from mindserve.config import Listener
from mindserve.errors import ConfigError, StartError
from mindserve.server.statistics import CertificateStats
from mindserve.server.watch import FileWatch, snapshot_files
from mindserve.tls import LoadedTls, ServerTls, SSLConfig, Term

_log = logs.get_logger("certificates")

# How often expiry is looked at, and what could not be loaded is tried again. Seconds.
TICK = 60.0
# How long before the end of its term a certificate or a CRL is warned of.
_AHEAD = (timedelta(days=30), timedelta(days=7), timedelta(days=1))

_CONSEQUENCES = {
    "certificate": "clients refuse it",
    "custom_ca": "clients with certificates from it are refused",
    "crl": "clients whose certificates come from its issuer are refused",
}

Clock = Callable[[], datetime]


def _utc_now() -> datetime:
    return datetime.now(timezone.utc)


class Expiry:
    """What is to be said of what expires: a warning 30, 7 and 1 days ahead, each once, and an error when it has.

    A warning that would come in the first half of a term is left out, so that what is renewed in time is silent; where
    that leaves none, there is one when a quarter of the term is left.
    """

    def __init__(self) -> None:
        self._passed: dict[Term, int] = {}

    def check(self, terms: Iterable[Term], now: datetime) -> list[tuple[int, str]]:
        """Levels and lines of what has come nearer to its end since the last call.

        Args:
            terms: all that there are; others are forgotten.
            now: the time.
        """
        lines: list[tuple[int, str]] = []
        passed: dict[Term, int] = {}
        for term in dict.fromkeys(terms):
            before = self._passed.get(term, 0)
            expired = now > term.end
            passed[term] = max(before, sum(now >= time for time in _warning_times(term)) + expired)
            if passed[term] == before:
                continue
            end = f"{term.end:%Y-%m-%d %H:%M:%S} UTC"
            if expired:
                text = f"{term.what} in {term.file} expired on {end}: {_CONSEQUENCES[term.parameter]}"
                lines.append((logging.ERROR, text))
            else:
                left = _duration(term.end - now)
                lines.append((logging.WARNING, f"{term.what} in {term.file} expires in {left}, on {end}: replace it"))
        self._passed = passed
        return lines


def _warning_times(term: Term) -> list[datetime]:
    length = term.end - term.begin
    return [term.end - ahead for ahead in _AHEAD if ahead <= length / 2] or [term.end - length / 4]


def _duration(time: timedelta) -> str:
    """In words, "6 days" or "5 hours", rounded down, but never 0."""
    for unit, name in ((timedelta(days=1), "day"), (timedelta(hours=1), "hour")):
        if time >= unit:
            return f"{time // unit} {name}{'s' if time // unit > 1 else ''}"
    minutes = max(1, time // timedelta(minutes=1))
    return f"{minutes} minute{'s' if minutes > 1 else ''}"


class _Entry:
    """The certificates of one listener."""

    def __init__(self, number: int, listener: Listener, ssl_config: SSLConfig, now: datetime) -> None:
        self.number = number  # of the listener
        self.address = listener.address
        # The files are fixed now: a later chdir must not change what is loaded.
        self.ssl_config = dataclasses.replace(ssl_config, **_absolute(ssl_config))
        # Before they are read: what changes from now on is a change.
        self.state = self.snapshot()
        self.loaded = tls.load_server_tls(self.ssl_config, now)
        self.error: str | None = None
        self._file = ssl_config.certificate
        self._since = now

    def snapshot(self) -> Hashable:
        try:
            return snapshot_files(self.ssl_config.files())
        except ValueError:  # a path with a NUL; loading says so
            return ()

    def take(self, loaded: LoadedTls, now: datetime) -> None:
        if loaded.native != self.loaded.native:
            self._since = now
        self.loaded = loaded
        self.error = None

    def stats(self) -> CertificateStats:
        return CertificateStats(
            address=self.address,
            file=self._file,
            expires=self.loaded.expires,
            ca_expires=self.loaded.ca_expires,
            crl_next_update=self.loaded.crl_next_update,
            loaded=self._since,
            reload_error=self.error,
        )


def _absolute(ssl_config: SSLConfig) -> dict[str, Any]:
    paths = {name: getattr(ssl_config, name) for name in ("certificate", "private_key", "custom_ca", "crl")}
    return {name: os.path.join(os.getcwd(), path) for name, path in paths.items() if path is not None}


class Certificates:
    """Those of a server's listeners. Thread-safe.

    Loads them at once, for `native`; looks after them from `begin` on.

    Args:
        listeners: in the gateway's order; those without TLS have none.
        install: gives the listener of this number other certificates for new connections. Raises ConfigError if they
            don't work, StartError if it listens no more.
        now: the time. Default: the system's.

    Raises:
        ConfigError: certificates that don't work.
    """

    def __init__(
        self, listeners: Sequence[Listener], install: Callable[[int, ServerTls], None], now: Clock = _utc_now
    ) -> None:
        self._install = install
        self._now = now
        self._entries = [
            _Entry(number, listener, listener.ssl_config, now())
            for number, listener in enumerate(listeners)
            if listener.ssl_config is not None
        ]
        self._expiry = Expiry()
        self._lock = threading.Lock()  # held while files are loaded and exchanged; not while something is logged

    def native(self, number: int) -> ServerTls | None:
        """What a listener begins with; None: plaintext."""
        return next((entry.loaded.native for entry in self._entries if entry.number == number), None)

    def begin(self, addresses: Sequence[str], watch: FileWatch) -> None:
        """Watches the files, and what expires.

        Args:
            addresses: of the listeners, with their real ports.
            watch: looks at the files, as long as it is open.
        """
        for entry in self._entries:
            entry.address = addresses[entry.number]
            _warn(entry.loaded)
        self._say_what_expires()
        if not self._entries:
            return
        for entry in self._entries:
            if entry.ssl_config.hot_reload:
                watch.add(entry.snapshot, functools.partial(self._reload, entry), accepted=entry.state)
        watch.add(lambda: time.monotonic() // TICK, self.tick, settle=0)

    def tick(self) -> None:
        """What is due from time to time: expiry, and another try of what could not be loaded."""
        for entry in self._entries:
            if entry.error is not None and entry.ssl_config.hot_reload:
                self._reload(entry)
        self._say_what_expires()

    def reload(self) -> None:
        """Loads all files anew, whether they have changed or not.

        Raises:
            ConfigError: some don't work; their listeners keep what they had.
        """
        for entry in self._entries:
            self._reload(entry)
        if errors := [f"{entry.address}: {entry.error}" for entry in self._entries if entry.error is not None]:
            raise ConfigError(f"certificates were not reloaded, those in use are kept: {'; '.join(errors)}")

    def stats(self) -> list[CertificateStats]:
        """Of each listener with TLS."""
        return [entry.stats() for entry in self._entries]

    def _reload(self, entry: _Entry) -> None:
        with self._lock:
            error = entry.error
            try:
                loaded = tls.load_server_tls(entry.ssl_config, self._now())
                changed = loaded.native != entry.loaded.native
                if changed:
                    self._install(entry.number, loaded.native)
            except ConfigError as failed:
                entry.error = str(failed)
            except StartError:
                return
            else:
                entry.take(loaded, self._now())
        if entry.error is not None:
            # Not at each try.
            if entry.error != error:
                _log.error("%s: new certificates don't work, those in use are kept: %s", entry.address, entry.error)
            return
        if changed:
            _log.info("%s: certificates reloaded, for new connections: %s", entry.address, _terms(loaded))
            _warn(loaded)
        elif error is not None:
            _log.info("%s: the files hold the certificates in use again: %s", entry.address, _terms(loaded))
        self._say_what_expires()

    def _say_what_expires(self) -> None:
        with self._lock:
            lines = self._expiry.check((term for entry in self._entries for term in entry.loaded.terms), self._now())
        for level, text in lines:
            _log.log(level, "%s", text)


def _terms(loaded: LoadedTls) -> str:
    text = f"the server's expires on {loaded.expires:%Y-%m-%d %H:%M:%S} UTC"
    if loaded.crl_next_update is not None:
        text += f", the CRL on {loaded.crl_next_update:%Y-%m-%d %H:%M:%S} UTC"
    return text


def _warn(loaded: LoadedTls) -> None:
    for warning in loaded.warnings:
        _log.warning("%s", warning)
