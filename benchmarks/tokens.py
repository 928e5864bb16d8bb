"""A token, and the keys file of a server that takes it."""

from __future__ import annotations

from pathlib import Path

from mindserve.auth.authority import Authority
from mindserve.auth.hashing import hash_secret, make_secret
from mindserve.auth.keys import ClientKey, Keys, save_keys
from mindserve.config import AuthConfig


def make_token(directory: Path) -> tuple[str, str]:
    """The token of a client with a rate and a number of calls at a time that nobody reaches.

    Returns:
        The token, and the path of the keys file.
    """
    path = str(directory / "keys.yaml")
    secret = make_secret()
    client = ClientKey(
        key="bench", secrets=(hash_secret(secret),), servables=("bench",), rate=1e8, max_in_flight=1_000_000
    )
    save_keys(Keys({client.key: client}), path)
    return Authority(AuthConfig(path)).issue(client.key, secret).token, path
