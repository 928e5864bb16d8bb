"""What becomes of a listener's certificates when their files change, and what is said before they expire."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest
from cryptography import x509

from certificates import DAY, Authority, replace_file
from e2e_support import until
from mindserve.config import Listener
from mindserve.errors import ConfigError, StartError
from mindserve.server.certificates import Certificates, Expiry
from mindserve.server.watch import FileWatch
from mindserve.tls import ServerTls, SSLConfig, Term

HOUR = timedelta(hours=1)


class Time:
    """A clock that a test turns: seconds for `FileWatch`, and the date."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self.date = datetime.now(timezone.utc)

    def pass_by(self, time: timedelta) -> None:
        self.date += time


class Served:
    """The certificates of one listener, 1, beside a plaintext one, and what the gateway was given."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.time = Time()
        self.root = Authority("Root", end=400 * DAY)
        self.given: list[ServerTls] = []
        self.refused: Exception | None = None
        self.watch = FileWatch(interval=0.001, now=lambda: self.time.seconds)
        self.certificate, self.key, self.ca, self.crl = (
            str(directory / name) for name in ("server.crt", "server.key", "ca.crt", "ca.crl")
        )
        self.write()
        replace_file(self.ca, self.root.pem)
        replace_file(self.crl, self.root.crl())

    def write(self) -> None:
        self.root.write(self.certificate, self.key)

    def install(self, listener: int, values: ServerTls) -> None:
        assert listener == 1
        if self.refused is not None:
            raise self.refused
        self.given.append(values)

    def load(self, *, hot_reload: bool = True) -> Certificates:
        config = SSLConfig(self.certificate, self.key, self.ca, verify_client=True, crl=self.crl, hot_reload=hot_reload)
        listeners = [Listener("127.0.0.1:0"), Listener("127.0.0.1:0", config)]
        return Certificates(listeners, self.install, lambda: self.time.date)

    def begin(self, *, hot_reload: bool = True) -> Certificates:
        loaded = self.load(hot_reload=hot_reload)
        loaded.begin(["127.0.0.1:1", "127.0.0.1:2"], self.watch)
        return loaded

    def settle(self) -> None:
        """The files are at rest, and have been looked at for long enough to be taken."""
        for _ in range(2):
            looks = Looks()
            handle = self.watch.add(looks, lambda: None)
            until(lambda looks=looks: looks.count >= 4)
            self.watch.remove(handle)
            self.time.seconds += 1.1
        looks = Looks()
        handle = self.watch.add(looks, lambda: None)
        until(lambda: looks.count >= 4)
        self.watch.remove(handle)


class Looks:
    def __init__(self) -> None:
        self.count = 0

    def __call__(self) -> int:
        self.count += 1
        return 0


@pytest.fixture
def served(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> Iterator[Served]:
    caplog.set_level(logging.INFO, "mindserve")
    served = Served(tmp_path)
    yield served
    served.watch.close()


def lines(caplog: pytest.LogCaptureFixture, level: int) -> list[str]:
    found = [record.getMessage() for record in caplog.records if record.levelno == level]
    caplog.clear()
    return found


def test_what_a_listener_begins_with(served: Served) -> None:
    certificates = served.load()
    assert certificates.native(0) is None
    native = certificates.native(1)
    assert native is not None
    assert native["certificate"] == Path(served.certificate).read_bytes()
    assert native["client_crl"] == Path(served.crl).read_bytes()
    assert served.given == []
    (stats,) = certificates.stats()
    assert (stats.file, stats.loaded, stats.reload_error) == (served.certificate, served.time.date, None)
    (certificate,), (ca,) = (
        x509.load_pem_x509_certificates(Path(path).read_bytes()) for path in (served.certificate, served.ca)
    )
    crl = x509.load_pem_x509_crl(Path(served.crl).read_bytes())
    assert stats.expires == certificate.not_valid_after_utc
    assert stats.ca_expires == ca.not_valid_after_utc
    assert stats.crl_next_update == crl.next_update_utc


def test_a_new_certificate_is_taken(served: Served, caplog: pytest.LogCaptureFixture) -> None:
    certificates = served.begin()
    (before,) = certificates.stats()
    served.time.pass_by(HOUR)
    caplog.clear()
    served.write()
    served.settle()
    (native,) = served.given
    assert native["certificate"] == Path(served.certificate).read_bytes()
    assert native["private_key"] == Path(served.key).read_bytes()
    (after,) = certificates.stats()
    assert after.loaded == before.loaded + HOUR
    (line,) = lines(caplog, logging.INFO)
    assert line.startswith("127.0.0.1:2: certificates reloaded, for new connections: the server's expires on ")
    assert f"{after.expires:%Y-%m-%d %H:%M:%S} UTC, the CRL on " in line
    # Nothing more happens.
    served.settle()
    assert len(served.given) == 1


@pytest.mark.parametrize("name", ["ca", "crl"])
def test_authorities_and_lists_are_taken(served: Served, name: str) -> None:
    certificates = served.begin()
    client, _ = served.root.issue("client")
    new = {"ca": Authority("Other").pem + served.root.pem, "crl": served.root.crl(client, end=3 * DAY)}[name]
    replace_file(getattr(served, name), new)
    served.settle()
    (native,) = served.given
    assert native[{"ca": "client_ca", "crl": "client_crl"}[name]] == new  # type: ignore[literal-required]
    (stats,) = certificates.stats()
    assert stats.crl_next_update == x509.load_pem_x509_crl(native["client_crl"]).next_update_utc


def test_half_of_a_pair_is_not_taken(served: Served, caplog: pytest.LogCaptureFixture) -> None:
    certificates = served.begin()
    lines(caplog, logging.ERROR)
    other, key = served.certificate + ".other", served.key + ".other"
    served.root.write(other, key)
    os.replace(other, served.certificate)
    served.settle()
    assert served.given == []
    (line,) = lines(caplog, logging.ERROR)
    assert line.startswith("127.0.0.1:2: new certificates don't work, those in use are kept: ")
    assert served.certificate in line
    assert served.key in line
    (stats,) = certificates.stats()
    assert stats.reload_error is not None
    assert f"{served.key} failed: it is not the key of the certificate" in stats.reload_error
    certificates.tick()
    assert lines(caplog, logging.ERROR) == []  # Once is enough.
    os.replace(key, served.key)
    served.settle()
    (native,) = served.given
    assert native["private_key"] == Path(served.key).read_bytes()
    (stats,) = certificates.stats()
    assert stats.reload_error is None


@pytest.mark.parametrize("name", ["certificate", "key", "ca", "crl"])
def test_a_bad_file_keeps_the_old(served: Served, caplog: pytest.LogCaptureFixture, name: str) -> None:
    certificates = served.begin()
    (before,) = certificates.stats()
    lines(caplog, logging.ERROR)
    path = getattr(served, name)
    old = Path(path).read_bytes()
    replace_file(path, b"SECRET", 0o600)
    served.settle()
    Path(path).unlink()
    served.settle()
    bad, gone = lines(caplog, logging.ERROR)
    assert path in bad
    assert "SECRET" not in bad
    assert f"{path} failed: No such file" in gone
    assert served.given == []
    (stats,) = certificates.stats()
    assert stats.reload_error is not None
    assert (stats.expires, stats.loaded) == (before.expires, before.loaded)
    replace_file(path, old, 0o600)
    served.settle()
    assert served.given == []
    assert certificates.stats() == [before]
    (line,) = lines(caplog, logging.INFO)
    assert "the files hold the certificates in use again" in line


def test_what_the_gateway_refuses_is_not_taken(served: Served, caplog: pytest.LogCaptureFixture) -> None:
    certificates = served.begin()
    lines(caplog, logging.ERROR)
    served.refused = ConfigError("certificate: ca md too weak")
    served.write()
    served.settle()
    (line,) = lines(caplog, logging.ERROR)
    assert line.endswith("those in use are kept: certificate: ca md too weak")
    (stats,) = certificates.stats()
    assert stats.reload_error == "certificate: ca md too weak"
    served.refused = None
    certificates.tick()
    assert len(served.given) == 1


def test_a_gateway_that_listens_no_more_is_no_fault(served: Served, caplog: pytest.LogCaptureFixture) -> None:
    certificates = served.begin()
    lines(caplog, logging.ERROR)
    served.refused = StartError("the server is not listening")
    served.write()
    served.settle()
    certificates.reload()
    assert lines(caplog, logging.ERROR) == []


def test_a_link_that_is_pointed_elsewhere(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """As Kubernetes mounts secrets: files that are links through a link to a directory, which is exchanged."""
    served = Served(tmp_path)
    for number in (1, 2):
        (tmp_path / f"..{number}").mkdir()
        served.root.write(tmp_path / f"..{number}" / "server.crt", tmp_path / f"..{number}" / "server.key")
    (tmp_path / "..data").symlink_to("..1")
    for path in (served.certificate, served.key):
        Path(path).unlink()
        Path(path).symlink_to(Path("..data") / Path(path).name)
    served.begin()
    (tmp_path / "..new").symlink_to("..2")
    (tmp_path / "..new").replace(tmp_path / "..data")
    served.settle()
    served.watch.close()
    (native,) = served.given
    assert native["certificate"] == (tmp_path / "..2" / "server.crt").read_bytes()
    assert native["private_key"] == (tmp_path / "..2" / "server.key").read_bytes()


def test_what_changes_while_the_listener_begins_is_noticed(served: Served) -> None:
    certificates = served.load()
    served.write()
    certificates.begin(["127.0.0.1:1", "127.0.0.1:2"], served.watch)
    served.settle()
    assert len(served.given) == 1


def test_relative_paths_are_those_of_the_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "elsewhere").mkdir()
    served = Served(Path())
    certificates = served.begin()
    monkeypatch.chdir(tmp_path / "elsewhere")
    served.root.write(tmp_path / "server.crt", tmp_path / "server.key")
    served.settle()
    certificates.reload()
    served.watch.close()
    assert len(served.given) == 1


def test_hot_reload_may_be_off(served: Served) -> None:
    certificates = served.begin(hot_reload=False)
    served.write()
    served.settle()
    assert served.given == []
    certificates.reload()
    (native,) = served.given
    assert native["certificate"] == Path(served.certificate).read_bytes()


def test_a_reload_that_is_asked_for_tells_what_is_wrong(served: Served) -> None:
    certificates = served.load()
    certificates.reload()
    assert served.given == []
    Path(served.crl).write_text("nothing")
    with pytest.raises(ConfigError, match="those in use are kept") as caught:
        certificates.reload()
    assert f"127.0.0.1:0: load crl from {served.crl} failed: " in str(caught.value)
    assert served.given == []


def test_a_crl_of_the_near_future_is_tried_again(served: Served, caplog: pytest.LogCaptureFixture) -> None:
    """Its authority's clock may be ahead."""
    certificates = served.begin()
    lines(caplog, logging.ERROR)
    replace_file(served.crl, served.root.crl(begin=HOUR, end=2 * DAY))
    served.settle()
    (line,) = lines(caplog, logging.ERROR)
    assert "is not valid before" in line
    served.time.pass_by(2 * HOUR)
    certificates.tick()
    assert [native["client_crl"] for native in served.given] == [Path(served.crl).read_bytes()]


def test_plaintext_needs_no_watch(served: Served) -> None:
    certificates = Certificates([Listener("127.0.0.1:0")], served.install)
    certificates.begin(["127.0.0.1:1"], served.watch)
    assert not any(thread.name == "mindserve-watch" for thread in threading.enumerate())
    assert certificates.stats() == []


# -- expiry ------------------------------------------------------------------------------------------------------------

NOW = datetime(2030, 1, 1, tzinfo=timezone.utc)
END = "2030-01-01 00:00:00 UTC"


def term(length: timedelta, parameter: str = "certificate", what: str = "the certificate CN=x") -> Term:
    return Term(parameter, "/x.crt", what, NOW - length, NOW)


def said(length: timedelta, *left: timedelta) -> list[tuple[int, str]]:
    """What is said of a term of this length when so much time is left."""
    expiry = Expiry()
    return [line for time in left for line in expiry.check([term(length)], NOW - time)]


def test_a_year_is_warned_of_three_times_and_then_it_has_expired() -> None:
    left = (200 * DAY, 31 * DAY, 30 * DAY, 29 * DAY, 8 * DAY, 7 * DAY, 2 * DAY, DAY, HOUR, -HOUR, -DAY)
    text = "the certificate CN=x in /x.crt expires in"
    assert said(365 * DAY, *left) == [
        (logging.WARNING, f"{text} 30 days, on {END}: replace it"),
        (logging.WARNING, f"{text} 7 days, on {END}: replace it"),
        (logging.WARNING, f"{text} 1 day, on {END}: replace it"),
        (logging.ERROR, f"the certificate CN=x in /x.crt expired on {END}: clients refuse it"),
    ]


def test_what_is_loaded_late_is_warned_of_once() -> None:
    assert [text for _, text in said(365 * DAY, 3 * DAY, 2 * DAY)] == [
        f"the certificate CN=x in /x.crt expires in 3 days, on {END}: replace it"
    ]
    assert [level for level, _ in said(365 * DAY, -DAY, -2 * DAY)] == [logging.ERROR]


def test_short_terms_are_not_warned_of_as_soon_as_they_begin() -> None:
    assert said(10 * DAY, 9 * DAY, 7 * DAY, 2 * DAY) == []
    assert len(said(10 * DAY, DAY)) == 1
    assert said(DAY, 20 * HOUR, 7 * HOUR) == []
    assert said(DAY, 6 * HOUR, 5 * HOUR) == [
        (logging.WARNING, f"the certificate CN=x in /x.crt expires in 6 hours, on {END}: replace it")
    ]
    assert "expires in 15 minutes" in said(HOUR, HOUR / 4)[0][1]
    assert "expires in 1 minute," in said(HOUR, timedelta(seconds=1))[0][1]


def test_each_thing_has_its_own_warnings_and_consequence() -> None:
    expiry = Expiry()
    old = term(365 * DAY, "custom_ca", "the certificate CN=Root")
    other = term(365 * DAY, "crl", "the CRL of CN=Root")
    assert len(expiry.check([old, old, other], NOW - HOUR)) == 2
    (of_ca, of_crl) = (text for _, text in expiry.check([old, other], NOW + HOUR))
    assert of_ca.endswith("clients with certificates from it are refused")
    assert of_crl.endswith("clients whose certificates come from its issuer are refused")
    # One that has been replaced is forgotten.
    assert expiry.check([old], NOW + HOUR) == []
    assert len(expiry.check([old, other], NOW + HOUR)) == 1


def test_expiry_is_logged_at_the_start_and_as_time_passes(served: Served, caplog: pytest.LogCaptureFixture) -> None:
    certificates = served.begin()
    # Of two days each, with one day left.
    first = lines(caplog, logging.WARNING)
    assert [line.partition(" in ")[0] for line in first] == ["the certificate CN=localhost", "the CRL of CN=Root"]
    certificates.tick()
    assert lines(caplog, logging.WARNING) == []
    served.time.pass_by(DAY + HOUR)
    certificates.tick()
    assert [line.partition(" in ")[0] for line in lines(caplog, logging.ERROR)] == [
        "the certificate CN=localhost",
        "the CRL of CN=Root",
    ]
    certificates.tick()
    assert lines(caplog, logging.ERROR) == []


def test_the_watch_looks_at_what_expires(
    served: Served, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mindserve.server.certificates.TICK", 0.001)
    served.begin()
    served.time.pass_by(2 * DAY)
    until(lambda: any(record.levelno == logging.ERROR for record in caplog.records))
