"""Tokens: what is made, what is accepted, and the clear answer to everything else."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import os
import pathlib
import time
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from mindserve import config, configfile
from mindserve.auth.attempts import PER_KEY, PER_PEER, Attempts
from mindserve.auth.authority import Authority, CredentialsError
from mindserve.auth.hashing import hash_secret
from mindserve.auth.keys import ANYBODY, ClientKey, Keys, load_keys, save_keys
from mindserve.auth.signing import load_issuer_keys, load_signing_keys, signing_path
from mindserve.auth.tokens import LEEWAY
from mindserve.errors import ConfigError

SECRET = "a secret of app's"
ISSUER = "https://login.example.org"


class Clock:
    def __init__(self) -> None:
        self.now = float(int(time.time()))

    def __call__(self) -> float:
        return self.now


class Desk:
    """An authority, its files and its clock."""

    def __init__(self, folder: pathlib.Path, *clients: ClientKey, **options: Any) -> None:
        self.path = str(folder / "keys.yaml")
        self.save(*(clients or (ClientKey(key="app", secrets=(hash_secret(SECRET),)),)))
        self.clock = Clock()
        self.authority = Authority(config.AuthConfig(self.path, **options), self.clock)

    def save(self, *clients: ClientKey) -> None:
        save_keys(Keys({client.key: client for client in clients}), self.path)

    def token(self) -> str:
        return self.authority.issue("app", SECRET).token

    def refusal(self, token: str) -> str:
        verdict = self.authority.check_token(token)
        assert verdict.identity is None
        return verdict.refusal

    def forge(
        self, key: Any = None, algorithm: str = "HS256", headers: dict[str, Any] | None = None, **claims: Any
    ) -> str:
        """A token by the server's own key, or another one, with these claims instead of what it would have."""
        own = load_signing_keys(signing_path(self.path)).keys[0]
        now = self.clock.now
        whole = {"iss": "mindserve", "sub": "app", "iat": now, "exp": now + 60, "jti": "1", **claims}
        whole = {name: value for name, value in whole.items() if value is not None}
        return jwt.encode(
            whole, own.key if key is None else key, algorithm, headers={"kid": own.kid, **(headers or {})}
        )


@pytest.fixture
def desk(tmp_path: pathlib.Path) -> Desk:
    return Desk(tmp_path)


def unsigned(**claims: Any) -> str:
    parts = [json.dumps({"alg": "none", "typ": "JWT"}), json.dumps(claims)]
    return ".".join(base64.urlsafe_b64encode(part.encode()).rstrip(b"=").decode() for part in parts) + "."


# -- own tokens --------------------------------------------------------------------------------------------------------


def test_a_token_names_its_client_and_ends(desk: Desk) -> None:
    issued = desk.authority.issue("app", SECRET)
    assert issued.lifetime == 3600
    claims = jwt.decode(issued.token, options={"verify_signature": False})
    assert (claims["iss"], claims["sub"]) == ("mindserve", "app")
    assert claims["exp"] - claims["iat"] == 3600
    verdict = desk.authority.check(issued.token.encode())
    assert verdict.identity is not None
    assert verdict.identity.name == "app"
    assert 3599 <= verdict.seconds <= 3600
    assert desk.token() != issued.token  # each has a number of its own
    desk.clock.now += 3600
    assert "the token has expired on" in desk.refusal(issued.token)


@pytest.mark.parametrize(("key", "secret"), [("app", "wrong"), ("other", SECRET), ("app", ""), ("", ""), ("*", SECRET)])
def test_wrong_credentials_get_one_answer(desk: Desk, key: str, secret: str) -> None:
    with pytest.raises(CredentialsError, match="the consumer key or its secret is wrong, or has been revoked"):
        desk.authority.issue(key, secret)


def test_a_changed_token_is_refused(desk: Desk) -> None:
    head, body, signature = desk.token().split(".")
    claims = json.loads(base64.urlsafe_b64decode(body + "=="))
    changed = base64.urlsafe_b64encode(json.dumps({**claims, "sub": "other"}).encode()).rstrip(b"=").decode()
    assert "signature is wrong" in desk.refusal(f"{head}.{changed}.{signature}")
    assert "signature is wrong" in desk.refusal(desk.forge(key=b"k" * 32))


def test_what_is_wrong_with_a_token_is_said(desk: Desk) -> None:
    now = desk.clock.now
    assert "its 'alg' is 'none'" in desk.refusal(unsigned(iss="mindserve", sub="app", exp=now + 60))
    assert "of another issuer, 'https://evil'" in desk.refusal(desk.forge(iss="https://evil"))
    assert "of another issuer, none" in desk.refusal(desk.forge(iss=None))
    assert "signed with a key that is not known" in desk.refusal(desk.forge(headers={"kid": "other"}))
    assert "signed by 'HS512', but its key is for HS256" in desk.refusal(desk.forge(key=b"k" * 64, algorithm="HS512"))
    assert "has expired" in desk.refusal(desk.forge(exp=now - 1))
    assert "does not hold before" in desk.refusal(desk.forge(nbf=now + 60))
    assert "does not hold before" in desk.refusal(desk.forge(iat=now + 60))
    for name in ("exp", "iat", "sub", "jti"):
        assert f'"{name}"' in desk.refusal(desk.forge(**{name: None}))
    assert "'exp' is no time" in desk.refusal(desk.forge(exp=1e300))
    assert "of client 'other', which is not known here" in desk.refusal(desk.forge(sub="other"))
    assert "expected at most 8192" in desk.refusal("a" * 8193)
    for text in ("", "a", "a.b", "a.b.c", "..", "é.é.é", "{}.{}.{}"):
        assert "the token is no JWT" in desk.refusal(text)


@pytest.mark.parametrize("place", range(0, 200, 7))
def test_any_flipped_bit_is_refused(desk: Desk, place: int) -> None:
    token = bytearray(desk.forge().encode())
    token[place % len(token)] ^= 1
    desk.refusal(token.decode("latin-1"))


def test_rotated_signing_keys_both_verify(desk: Desk) -> None:
    old = desk.token()
    path = pathlib.Path(signing_path(desk.path))
    private = ed25519.Ed25519PrivateKey.generate()
    jwk = json.loads(jwt.algorithms.OKPAlgorithm.to_jwk(private))
    document = json.loads(path.read_text())
    document["keys"].insert(0, {**jwk, "alg": "EdDSA", "kid": "new"})
    path.write_text(json.dumps(document))
    desk.authority.reload()
    new = desk.token()
    assert jwt.get_unverified_header(new)["alg"] == "EdDSA"
    for token in (old, new):
        assert desk.authority.check_token(token).identity is not None


# -- revocation --------------------------------------------------------------------------------------------------------


def test_a_revoked_client_is_refused_at_once(desk: Desk) -> None:
    token = desk.token()
    changes: list[int] = []
    desk.authority.on_change(lambda: changes.append(1))
    client = load_keys(desk.path).clients["app"]
    desk.save(ClientKey(key="app", secrets=client.secrets, revoked=True))
    desk.authority.reload()
    assert changes == [1]
    assert desk.refusal(token) == "client 'app' has been revoked"
    with pytest.raises(CredentialsError):
        desk.token()


def test_revoked_tokens_are_refused_and_new_ones_are_not(desk: Desk) -> None:
    token = desk.token()
    client = load_keys(desk.path).clients["app"]
    desk.save(ClientKey(key="app", secrets=client.secrets, tokens_not_before=int(desk.clock.now)))
    desk.authority.reload()
    assert "the token has been revoked" in desk.refusal(token)
    assert desk.authority.check_token(desk.token()).identity is not None


def test_a_torn_file_changes_nothing_and_is_logged_once(desk: Desk, caplog: pytest.LogCaptureFixture) -> None:
    token = desk.token()
    pathlib.Path(desk.path).write_text("clients: [{key: a", encoding="utf-8")
    for _ in range(2):
        desk.authority.reload()
    assert desk.authority.check_token(token).identity is not None
    (line,) = [record for record in caplog.records if record.levelname == "ERROR"]
    assert "new keys are not taken in, those in use are kept" in line.getMessage()


@pytest.mark.timeout(60)
def test_a_fifo_changes_nothing_until_the_file_is_back(desk: Desk, caplog: pytest.LogCaptureFixture) -> None:
    token, path = desk.token(), pathlib.Path(desk.path)
    path.unlink()
    os.mkfifo(path, 0o600)
    for _ in range(2):
        desk.authority.reload()
    assert desk.authority.check_token(token).identity is not None
    (line,) = [record for record in caplog.records if record.levelname == "ERROR"]
    assert f"'{path}' can't be read: Is a FIFO, expected a regular file" in line.getMessage()
    path.unlink()
    desk.save(ClientKey(key="other"))
    desk.authority.reload()
    assert desk.authority.check_token(token).identity is None


def test_limits_that_change_go_on_with_what_was_counted(desk: Desk) -> None:
    verdict = desk.authority.check_token(desk.token())
    client = load_keys(desk.path).clients["app"]
    desk.save(client, ClientKey(key="other"))
    desk.authority.reload()
    assert desk.authority.check_token(desk.token()).identity is verdict.identity
    desk.save(ClientKey(key="app", secrets=client.secrets, servables=("iris",)))
    desk.authority.reload()
    changed = desk.authority.check_token(desk.token()).identity
    assert changed is not None
    assert changed is not verdict.identity
    assert changed.may_call("iris")
    assert not changed.may_call("add")


# -- certificates ------------------------------------------------------------------------------------------------------


def test_a_certificate_stands_for_its_client(tmp_path: pathlib.Path) -> None:
    desk = Desk(
        tmp_path,
        ClientKey(key="app", certificates=("c.example.org",)),
        ClientKey(key="b", revoked=True, certificates=("b",)),
    )
    verdict = desk.authority.check(b"\nCN of it\nc.example.org")
    assert verdict.identity is not None
    assert verdict.identity.name == "app"
    assert "no client is known by the names" in desk.authority.check(b"\nother.example.org").refusal
    assert desk.authority.check(b"\nb").refusal == "client 'b' has been revoked"


# -- an outside issuer -------------------------------------------------------------------------------------------------


def jwks(path: pathlib.Path, *keys: dict[str, Any]) -> str:
    path.write_text(json.dumps({"keys": list(keys)}), encoding="utf-8")
    path.chmod(0o644)  # whatever the umask
    return str(path)


def public_jwk(private: Any, kid: str) -> dict[str, Any]:
    algorithms: dict[type, tuple[Any, str]] = {
        rsa.RSAPrivateKey: (jwt.algorithms.RSAAlgorithm, "RS256"),
        ec.EllipticCurvePrivateKey: (jwt.algorithms.ECAlgorithm, "ES256"),
        ed25519.Ed25519PrivateKey: (jwt.algorithms.OKPAlgorithm, "EdDSA"),
    }
    algorithm, name = next(value for kind, value in algorithms.items() if isinstance(private, kind))
    return {**json.loads(algorithm.to_jwk(private.public_key())), "kid": kid, "alg": name, "use": "sig"}


@pytest.fixture(scope="module")
def rsa_key() -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(65537, 2048)


@pytest.fixture
def outside(tmp_path: pathlib.Path, rsa_key: rsa.RSAPrivateKey) -> Desk:
    path = jwks(
        tmp_path / "jwks.json", public_jwk(rsa_key, "one"), public_jwk(ec.generate_private_key(ec.SECP256R1()), "two")
    )
    clients = ClientKey(key="alice"), ClientKey(key=ANYBODY, servables=("iris",))
    return Desk(tmp_path, *clients, jwks=path, issuer=ISSUER, audience="mindserve")


def test_an_outside_token_is_accepted(outside: Desk, rsa_key: rsa.RSAPrivateKey) -> None:
    def token(**claims: Any) -> str:
        whole = {"iss": ISSUER, "aud": "mindserve", "jti": None, **claims}
        return outside.forge(rsa_key, "RS256", {"kid": "one"}, **whole)

    alice = outside.authority.check_token(token(sub="alice"))
    assert alice.identity is not None
    assert alice.identity.name == "alice"
    other = outside.authority.check_token(token(sub="bob"))
    assert other.identity is not None
    assert (other.identity.may_call("iris"), other.identity.may_call("add")) == (True, False)
    late = token(sub="alice", exp=outside.clock.now - LEEWAY + 1)
    assert outside.authority.check_token(late).identity is not None
    assert "has expired" in outside.refusal(token(sub="alice", exp=outside.clock.now - LEEWAY - 1))
    assert "for another audience ('aud'), expected 'mindserve'" in outside.refusal(token(aud="other"))
    assert "is missing" in outside.refusal(token(aud=None)) or "another audience" in outside.refusal(token(aud=None))


def test_a_public_key_signs_nothing(outside: Desk, rsa_key: rsa.RSAPrivateKey) -> None:
    """The classic: HMAC, with the public key's bytes for a secret."""
    pem = rsa_key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    head = base64.urlsafe_b64encode(json.dumps({"alg": "HS256", "kid": "one"}).encode()).rstrip(b"=")
    claims = {"iss": ISSUER, "aud": "mindserve", "sub": "alice", "exp": outside.clock.now + 60}
    body = base64.urlsafe_b64encode(json.dumps(claims).encode()).rstrip(b"=")
    signature = base64.urlsafe_b64encode(hmac.new(pem, head + b"." + body, hashlib.sha256).digest()).rstrip(b"=")
    token = b".".join((head, body, signature)).decode()
    assert "signed by 'HS256', but its key is for RS256" in outside.refusal(token)


def test_own_and_outside_keys_are_not_mixed(outside: Desk, rsa_key: rsa.RSAPrivateKey) -> None:
    """An outside issuer can't make tokens of this server's, nor the other way round."""
    assert "key that is not known" in outside.refusal(outside.forge(rsa_key, "RS256", {"kid": "one"}, sub="alice"))
    assert "key that is not known" in outside.refusal(outside.forge(iss=ISSUER, aud="mindserve", sub="alice"))


@pytest.mark.parametrize(
    ("content", "wrong"),
    [
        ("{", "is no JSON"),
        ("[]", "is no JWKS"),
        ('{"keys": []}', "is no JWKS"),
        ('{"keys": [{"kty": "what"}]}', "key 0 of the JWKS file"),
        ('{"keys": [{"kty": "RSA"}]}', "key 0 of the JWKS file"),
        ('{"keys": [{"kty": "oct", "k": "c2VjcmV0", "alg": "HS256"}]}', "has a symmetric key"),
        ('{"keys": [{"kty": "RSA", "use": "enc"}]}', "has no key for signatures"),
    ],
)
def test_a_wrong_jwks_file_is_told(tmp_path: pathlib.Path, content: str, wrong: str) -> None:
    path = tmp_path / "jwks.json"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(ConfigError) as raised:
        load_issuer_keys(str(path))
    assert wrong in str(raised.value)


@pytest.mark.parametrize("mode", [0o602, 0o664, 0o666])
def test_a_jwks_file_that_others_may_write_is_refused(tmp_path: pathlib.Path, mode: int) -> None:
    """Whoever writes it makes tokens of any client's; to read it is nothing."""
    path = tmp_path / "jwks.json"
    path.write_text('{"keys": []}', encoding="utf-8")
    path.chmod(mode)
    with pytest.raises(ConfigError, match=f"has permissions {mode:04o}, so that others may write it"):
        load_issuer_keys(str(path))


# -- the signing key ---------------------------------------------------------------------------------------------------


def test_the_signing_key_is_made_once_and_private(desk: Desk) -> None:
    path = pathlib.Path(signing_path(desk.path))
    assert path.stat().st_mode & 0o777 == 0o600
    before = path.read_bytes()
    Authority(config.AuthConfig(desk.path))
    assert path.read_bytes() == before
    path.chmod(0o644)
    with pytest.raises(ConfigError, match=r"the signing key .* has permissions 0644"):
        Authority(config.AuthConfig(desk.path))


@pytest.mark.parametrize(
    ("jwk", "wrong"),
    [
        ({"kty": "oct", "alg": "HS256", "kid": "a", "k": "c2hvcnQ"}, "has 5 bytes, expected at least 32"),
        ({"kty": "oct", "alg": "HS256", "k": "A" * 43}, "has no 'kid'"),
        ({"kty": "oct", "alg": "HS512", "kid": "a", "k": "A" * 86}, "is for HS512, expected HS256 or EdDSA"),
    ],
)
def test_a_wrong_signing_key_is_told(tmp_path: pathlib.Path, jwk: dict[str, str], wrong: str) -> None:
    path = pathlib.Path(jwks(tmp_path / "signing.json", jwk))
    path.chmod(0o600)
    with pytest.raises(ConfigError) as raised:
        load_signing_keys(str(path))
    assert wrong in str(raised.value)


# -- options -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "wrong"),
    [
        ({"keys": ""}, "'keys' should not be empty"),
        ({"keys": 1}, "'keys' should be str"),
        ({"token_lifetime": 0.5}, "'token_lifetime' should be 1 to"),
        ({"token_lifetime": 31 * 86400}, "'token_lifetime' should be 1 to"),
        ({"jwks": "a"}, "'jwks' and 'issuer' belong together"),
        ({"issuer": "a"}, "'jwks' and 'issuer' belong together"),
        ({"audience": "a"}, "'audience' is given without 'jwks'"),
        ({"allow_insecure": 1}, "'allow_insecure' should be"),
    ],
)
def test_wrong_options_are_told(options: dict[str, Any], wrong: str) -> None:
    with pytest.raises(ConfigError) as raised:
        config.AuthConfig(**{"keys": "keys.yaml", **options})
    assert wrong in str(raised.value)


@pytest.mark.parametrize(
    ("address", "safe"),
    [
        ("127.0.0.1:1", True),
        ("127.9.9.9:1", True),
        ("localhost:1", True),
        ("[::1]:1", True),
        ("unix:/tmp/a", True),
        ("0.0.0.0:1", False),
        ("[::]:1", False),
        ("10.0.0.1:1", False),
        ("example.org:1", False),
    ],
)
def test_plain_tcp_beyond_loopback_is_refused(address: str, safe: bool) -> None:
    listener = config.Listener(address)
    config.AuthConfig("keys.yaml", allow_insecure=True).check_listener(listener)
    if safe:
        config.AuthConfig("keys.yaml").check_listener(listener)
        return
    with pytest.raises(ConfigError, match="could be read on the way"):
        config.AuthConfig("keys.yaml").check_listener(listener)


# -- attempts ----------------------------------------------------------------------------------------------------------


def test_failed_attempts_are_bounded_by_key_and_peer() -> None:
    clock = Clock()
    attempts = Attempts(clock)
    for _ in range(PER_KEY):
        assert attempts.wait("a", "peer") == 0
        attempts.failed("a", "peer")
    assert attempts.wait("a", "peer") == 60 // PER_KEY
    assert attempts.wait("b", "peer") == attempts.wait("a", "other") == 0
    clock.now += 60 / PER_KEY
    assert attempts.wait("a", "peer") == 0
    for number in range(PER_PEER):
        attempts.failed(f"key {number}", "flood")
    assert attempts.wait("new", "flood") > 0


# -- config files ------------------------------------------------------------------------------------------------------


def config_file(folder: pathlib.Path, text: str) -> str:
    (folder / "config.yaml").write_text(f"servables: [{{directory: ., name: echo}}]\n{text}", encoding="utf-8")
    return str(folder / "config.yaml")


def test_a_config_file_has_the_options(tmp_path: pathlib.Path) -> None:
    text = "auth: {keys: private/keys.yaml, token_lifetime: 60, jwks: jwks.json, issuer: a, audience: b}"
    settings = configfile.load(config_file(tmp_path, text)).settings
    assert settings.auth == config.AuthConfig(
        str(tmp_path / "private" / "keys.yaml"),
        token_lifetime=60,
        jwks=str(tmp_path / "jwks.json"),
        issuer="a",
        audience="b",
    )


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ("auth: {}", "'keys'"),
        ("auth: {keys: a, jwks: b}", "'jwks' and 'issuer' belong together"),
        ("auth: {keys: a, lifetime: 3}", "the key 'lifetime' is not known"),
        ("auth: {keys: a}\ngrpc: {address: '0.0.0.0:1'}", "could be read on the way"),
        ("auth: {keys: a}\nrest: {address: '0.0.0.0:1'}", "could be read on the way"),
    ],
)
def test_a_config_file_that_is_wrong(tmp_path: pathlib.Path, text: str, wrong: str) -> None:
    with pytest.raises(ConfigError) as raised:
        configfile.load(config_file(tmp_path, text))
    assert wrong in str(raised.value)
    configfile.load(config_file(tmp_path, "auth: {keys: a, allow_insecure: true}\ngrpc: {address: '0.0.0.0:1'}"))
