"""The files that an `AuthConfig` names, looked into without a server."""

from __future__ import annotations

import os

from mindserve.auth.keys import load_keys
from mindserve.auth.signing import load_issuer_keys, load_signing_keys, signing_path
from mindserve.config import AuthConfig
from mindserve.errors import ConfigError


def check_files(config: AuthConfig) -> tuple[list[tuple[str, str]], list[str]]:
    """What is wrong with the files, each with the option that names the file, and what is doubtful.

    Nothing is made: where there is no key to sign with yet, the server will make it.
    """
    problems: list[tuple[str, str]] = []
    warnings: list[str] = []
    try:
        if not load_keys(config.keys).clients and config.jwks is None:
            warnings.append(f"{config.keys} lists no clients: nobody may call until 'mindserve keys add' adds one")
    except ConfigError as error:
        problems.append(("keys", str(error)))
    signing = signing_path(config.keys)
    try:
        if os.path.lexists(signing):
            load_signing_keys(signing)
    except ConfigError as error:
        problems.append(("keys", str(error)))
    try:
        if config.jwks is not None:
            load_issuer_keys(config.jwks)
    except ConfigError as error:
        problems.append(("jwks", str(error)))
    return problems, warnings
