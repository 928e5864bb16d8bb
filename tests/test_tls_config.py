"""What is said about a server's certificates before it starts."""

import base64
from datetime import timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec

import certificates
from certificates import DAY, Authority, Files
from mindserve.errors import MindserveError
from mindserve.tls import SSLConfig, load_server_tls

pytestmark = pytest.mark.filterwarnings("error")


def test_the_files_are_handed_over_as_they_are(files):
    loaded = load_server_tls(SSLConfig(files.server, files.server_key))
    assert x509.load_pem_x509_certificate(Path(files.server).read_bytes()).not_valid_after_utc == loaded.expires
    assert loaded.native == {
        "certificate": Path(files.server).read_bytes(),
        "private_key": Path(files.server_key).read_bytes(),
        "client_ca": b"",
        "client_crl": b"",
        "verify_client": False,
    }
    assert loaded.ca_expires is loaded.crl_next_update is None
    loaded = load_server_tls(SSLConfig(files.server, files.server_key, custom_ca=files.ca, verify_client=True))
    assert loaded.native["client_ca"] == Path(files.ca).read_bytes()
    assert loaded.native["verify_client"] is True
    assert x509.load_pem_x509_certificate(Path(files.ca).read_bytes()).not_valid_after_utc == loaded.ca_expires
    assert loaded.warnings == ()
    assert "PRIVATE" not in repr(loaded)


def test_custom_ca_is_ignored_unless_clients_are_verified(files):
    for custom_ca in (files.ca, "no such file"):
        loaded = load_server_tls(SSLConfig(files.server, files.server_key, custom_ca=custom_ca, verify_client=False))
        assert loaded.native["client_ca"] == b""


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"certificate": None}, "Parameter 'certificate' should be str, but actually <class 'NoneType'>"),
        ({"certificate": ""}, "Parameter 'certificate' should not be empty str"),
        ({"private_key": 5}, "Parameter 'private_key' should be str, but actually <class 'int'>"),
        ({"custom_ca": 5}, "Parameter 'custom_ca' should be str, but actually <class 'int'>"),
        ({"verify_client": 1}, "Parameter 'verify_client' should be bool, but actually <class 'int'>"),
        (
            {"verify_client": True},
            "Parameter 'custom_ca' should be str, but actually <class 'NoneType'>: 'verify_client'",
        ),
        ({"crl": 5}, "Parameter 'crl' should be str, but actually <class 'int'>"),
        ({"crl": "a.crl", "custom_ca": "c"}, "Parameter 'crl' is given, 'a.crl', without 'verify_client'"),
        ({"hot_reload": 1}, "Parameter 'hot_reload' should be bool, but actually <class 'int'>"),
    ],
)
def test_arguments_are_checked(arguments, text):
    with pytest.raises(RuntimeError) as caught:
        SSLConfig(**{"certificate": "c", "private_key": "k", **arguments})
    assert text in str(caught.value)


def config(files: Files, **fields: str) -> SSLConfig:
    good = {"certificate": files.server, "private_key": files.server_key, "custom_ca": files.ca}
    return SSLConfig(**{**good, **fields}, verify_client=True)


def refusal(ssl_config: SSLConfig) -> str:
    with pytest.raises(MindserveError) as caught:
        load_server_tls(ssl_config)
    return str(caught.value)


@pytest.mark.parametrize("field", ["certificate", "private_key", "custom_ca"])
def test_a_file_that_cannot_be_read(own_files, tmp_path, field):
    missing = str(tmp_path / "missing")
    assert f"load {field} from {missing} failed: No such file" in refusal(config(own_files, **{field: missing}))
    assert f"load {field} from {tmp_path} failed: Is a directory" in refusal(
        config(own_files, **{field: str(tmp_path)})
    )
    assert f"load {field} from 'a\\x00' failed: " in refusal(config(own_files, **{field: "a\0"}))


@pytest.mark.parametrize("field", ["certificate", "private_key", "custom_ca"])
@pytest.mark.parametrize("begin", ["", "SECRET", "-----BEGIN CERTIFICATE-----\nSECRET\n-----END CERTIFICATE-----\n"])
def test_a_file_that_is_not_pem(own_files, tmp_path, field, begin):
    path = tmp_path / "file"
    path.write_text(begin)
    text = refusal(config(own_files, **{field: str(path)}))
    assert f"load {field} from {path} failed: it has no " in text
    assert "SECRET" not in text


@pytest.mark.filterwarnings("ignore")  # of what is damaged but not refused
def test_damaged_files_are_refused_or_taken_and_nothing_else(tmp_path):
    root = Authority("Root")
    certificate, key, ca, crl = (tmp_path / name for name in ("server.crt", "server.key", "ca.crt", "ca.crl"))
    revoked = root.write(certificate, key)
    ca.write_bytes(root.pem)
    crl.write_bytes(root.crl(revoked))
    ssl_config = SSLConfig(str(certificate), str(key), str(ca), verify_client=True, crl=str(crl))
    load_server_tls(ssl_config)
    for file in (certificate, key, ca, crl):
        good = file.read_bytes()
        begin, _, rest = good.partition(b"-----\n")
        body, _, end = rest.partition(b"-----END")
        der = base64.b64decode(body)
        refused = 0
        for place in range(len(der)):
            bad = der[:place] + bytes((der[place] ^ 1 << place % 8,)) + der[place + 1 :]
            file.write_bytes(begin + b"-----\n" + base64.encodebytes(bad) + b"-----END" + end)
            try:
                load_server_tls(ssl_config)
            except MindserveError:
                refused += 1
        assert refused > len(der) / 2 or file == ca
        file.write_bytes(good)


def test_certificate_and_key_exchanged(own_files):
    text = refusal(config(own_files, certificate=own_files.server_key))
    assert f"load certificate from {own_files.server_key} failed: it has no certificate" in text
    text = refusal(config(own_files, private_key=own_files.server))
    assert f"load private_key from {own_files.server} failed: it has no private key" in text


def test_a_damaged_key(own_files, tmp_path):
    path = tmp_path / "damaged.key"
    lines = Path(own_files.server_key).read_text().splitlines()
    path.write_text("\n".join([lines[0], lines[1][:20], lines[-1]]))
    assert f"load private_key from {path} failed: " in refusal(config(own_files, private_key=str(path)))


def test_an_encrypted_key(own_files, tmp_path):
    path = tmp_path / "encrypted.key"
    certificates.encrypt_key(own_files.server_key, path)
    text = refusal(config(own_files, private_key=str(path)))
    assert f"load private_key from {path} failed: the key is encrypted" in text


def test_a_key_of_another_certificate(own_files, reference_files):
    for key in (own_files.client_key, reference_files.server_key):
        text = refusal(config(own_files, private_key=key))
        assert f"load private_key from {key} failed: it is not the key of the certificate in {own_files.server}" in text
        assert "CN=localhost" in text


def test_the_servers_own_certificate_must_come_first(own_files, tmp_path):
    path = tmp_path / "chain.crt"
    path.write_bytes(Path(own_files.ca).read_bytes() + Path(own_files.server).read_bytes())
    assert "it is the key of certificate 2" in refusal(config(own_files, certificate=str(path)))
    path.write_bytes(Path(own_files.server).read_bytes() + Path(own_files.ca).read_bytes())
    assert load_server_tls(config(own_files, certificate=str(path))).native["certificate"] == path.read_bytes()


class Issued:
    """A self-signed certificate of a time of one's choice."""

    def __init__(self, directory: Path, begin: timedelta, end: timedelta) -> None:
        key = ec.generate_private_key(ec.SECP256R1())
        self.pem = certificates.self_signed(key, "host", begin, end)
        self.certificate, self.key = str(directory / "host.crt"), str(directory / "host.key")
        Path(self.certificate).write_bytes(self.pem)
        certificates.write_key(self.key, key)


@pytest.mark.parametrize(
    ("begin", "end", "reason"),
    [
        (-2 * DAY, -DAY, "the certificate CN=host expired on "),
        (DAY, 2 * DAY, "the certificate CN=host is not valid before "),
    ],
)
def test_a_certificate_out_of_its_time(own_files, tmp_path, begin, end, reason):
    issued = Issued(tmp_path, begin, end)
    text = refusal(config(own_files, certificate=issued.certificate, private_key=issued.key))
    assert f"load certificate from {issued.certificate} failed: {reason}" in text
    text = refusal(config(own_files, custom_ca=issued.certificate))
    assert f"load custom_ca from {issued.certificate} failed: {reason}" in text
    # One of several authorities, or what follows in a chain, may still do without it.
    both = tmp_path / "both.crt"
    both.write_bytes(Path(own_files.ca).read_bytes() + issued.pem)
    (warning,) = load_server_tls(config(own_files, custom_ca=str(both))).warnings
    assert f"In {both}, {reason}" in warning
    chain = tmp_path / "chain.crt"
    chain.write_bytes(Path(own_files.server).read_bytes() + issued.pem)
    (warning,) = load_server_tls(config(own_files, certificate=str(chain))).warnings
    assert f"In the chain of {chain}, {reason}" in warning


def test_a_key_that_everybody_may_read_is_warned_of(own_files, tmp_path):
    path = tmp_path / "server.key"
    path.write_bytes(Path(own_files.server_key).read_bytes())
    path.chmod(0o644)
    (warning,) = load_server_tls(config(own_files, private_key=str(path))).warnings
    assert str(path) in warning


# -- revocation lists --------------------------------------------------------------------------------------------------


class Mutual:
    """The files of a server that verifies its clients, by a root and an authority below it."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.root = Authority("Root")
        self.below = Authority("Below", self.root)
        self.root.write(directory / "server.crt", directory / "server.key")
        self.trust(self.root)

    def trust(self, *authorities: Authority) -> None:
        (self.directory / "ca.crt").write_bytes(b"".join(authority.pem for authority in authorities))

    def config(self, crl: bytes) -> SSLConfig:
        (self.directory / "ca.crl").write_bytes(crl)
        names = ("server.crt", "server.key", "ca.crt", "ca.crl")
        certificate, key, custom_ca, path = (str(self.directory / name) for name in names)
        return SSLConfig(certificate, key, custom_ca, verify_client=True, crl=path)

    def refusal(self, crl: bytes) -> str:
        text = refusal(self.config(crl))
        begin = f"load crl from {self.directory / 'ca.crl'} failed: "
        assert text.startswith(begin)
        return text.removeprefix(begin)


@pytest.fixture
def mutual(tmp_path):
    return Mutual(tmp_path)


def test_crls_of_several_authorities(mutual):
    mutual.trust(mutual.root, mutual.below)
    client, _ = mutual.below.issue("client")
    crl = mutual.root.crl(end=3 * DAY) + b"a comment\n" + mutual.below.crl(client, end=2 * DAY)
    loaded = load_server_tls(mutual.config(crl))
    assert loaded.native["client_crl"] == crl
    assert [term.what for term in loaded.terms if term.parameter == "crl"] == [
        "the CRL of CN=Root",
        "the CRL of CN=Below",
    ]
    assert loaded.crl_next_update == x509.load_pem_x509_crl(crl.partition(b"comment")[2]).next_update_utc
    assert loaded.warnings == ()


def test_a_crl_that_cannot_be_used(mutual):
    assert mutual.refusal(b"") == "it has no CRL in PEM form (-----BEGIN X509 CRL-----)"
    assert mutual.refusal(mutual.root.pem).startswith("it has no CRL in PEM form")
    good = mutual.root.crl()
    assert mutual.refusal(good + good[:200]) == "CRL 2 in it has no end"
    damaged = good.replace(good.splitlines()[2], b"A" * 64)
    assert mutual.refusal(good + damaged) == "CRL 2 in it is damaged"
    assert mutual.refusal(good[:200] + good) == "CRL 1 in it is damaged"
    (mutual.directory / "ca.crl").unlink()
    config = mutual.config(good)
    (mutual.directory / "ca.crl").unlink()
    assert "ca.crl failed: No such file" in refusal(config)


def test_a_crl_has_to_come_from_an_authority(mutual):
    stranger = "is signed by none of the authorities in"
    assert mutual.refusal(mutual.below.crl()).startswith(f"the CRL of CN=Below {stranger} {mutual.directory}/ca.crt")
    # By the right name, with another key.
    assert f"the CRL of CN=Root {stranger}" in mutual.refusal(mutual.root.crl() + Authority("Root").crl())
    mutual.trust(mutual.root, mutual.below)
    load_server_tls(mutual.config(mutual.root.crl() + mutual.below.crl()))


def test_delta_crls_and_those_of_the_future(mutual):
    assert mutual.refusal(mutual.root.crl(delta=True)) == "the CRL of CN=Root is a delta CRL, and whole ones are needed"
    early = mutual.refusal(mutual.root.crl(begin=DAY, end=2 * DAY))
    assert early.startswith("the CRL of CN=Root is not valid before ")


def test_an_expired_crl_is_taken_and_refuses_its_clients(mutual):
    """OpenSSL does; csrc/net/tls_verify_test.cc."""
    loaded = load_server_tls(mutual.config(mutual.root.crl(begin=-2 * DAY, end=-DAY)))
    assert loaded.native["client_crl"] != b""
    # Of several of one authority the newest counts.
    newest = mutual.root.crl(begin=-DAY)
    loaded = load_server_tls(mutual.config(newest + mutual.root.crl(begin=-3 * DAY, end=-2 * DAY)))
    assert loaded.crl_next_update == x509.load_pem_x509_crl(newest).next_update_utc


def test_an_authority_without_a_crl_is_warned_of(mutual):
    other = Authority("Other")
    mutual.trust(mutual.root, mutual.below, other)
    (warning,) = load_server_tls(mutual.config(mutual.below.crl())).warnings
    assert "has no CRL of CN=Other: clients with certificates from it are refused" in warning
