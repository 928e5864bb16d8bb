"""``mindserve keys``: the keys file of a server that asks clients who they are."""

from __future__ import annotations

import dataclasses
import json
import os
import sys
import time
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mindserve.errors import ConfigError
from mindserve.files import read_file

if TYPE_CHECKING:
    from mindserve.auth.keys import ClientKey, Keys

_File = Annotated[str, typer.Option("--file", "-f", envvar="MINDSERVE_KEYS", help="The keys file: keys of AuthConfig.")]
_Key = Annotated[str, typer.Argument(help="The client's consumer key.")]
_Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
_DEFAULT_FILE = "keys.yaml"

keys = typer.Typer(
    name="keys",
    help="Manage the clients that may call, and their keys.",
    epilog="A server that runs takes changes in within seconds.",
    no_args_is_help=True,
)


@keys.command()
def add(
    key: Annotated[str, typer.Argument(help="The client's consumer key, or '*': subjects of an outside issuer.")],
    file: _File = _DEFAULT_FILE,
    servable: Annotated[
        list[str] | None, typer.Option("--servable", "-s", help="That it may call; may be repeated. Default: all.")
    ] = None,
    rate: Annotated[float, typer.Option(help="Calls a second. Default: no limit.")] = 0.0,
    burst: Annotated[float, typer.Option(help="Calls at once. Default: as many as --rate.")] = 0.0,
    max_in_flight: Annotated[int, typer.Option(help="Calls at a time. Default: no limit.")] = 0,
    certificate: Annotated[
        list[str] | None,
        typer.Option(help="A name in its client certificate, which stands for a token; may be repeated."),
    ] = None,
    secret: Annotated[
        bool, typer.Option(help="Make a secret. Without: it has tokens of an outside issuer, or a certificate.")
    ] = True,
    secret_file: Annotated[
        str | None, typer.Option(help="Take the secret that it has from this file, '-': standard input.")
    ] = None,
    as_json: _Json = False,
) -> None:
    """Add a client, and print its secret, which can't be shown again."""
    from mindserve.auth.files import locked
    from mindserve.auth.hashing import hash_secret
    from mindserve.auth.keys import ANYBODY, WHAT, ClientKey, save_keys

    with locked(file, WHAT):
        known = _load(file, missing_ok=True)
        if key in known.clients:
            raise ConfigError(
                f"There is a client '{key}' in '{file}' already: see 'mindserve keys rotate' and 'revoke'"
            )
        given: str | None = None
        if secret_file is not None:
            given = _read_secret(secret_file)
        elif secret and key != ANYBODY:
            given = _new_secret()
        client = ClientKey(
            key=key,
            secrets=() if given is None else (hash_secret(given),),
            servables=tuple(servable) if servable else None,
            rate=rate,
            burst=burst,
            max_in_flight=max_in_flight,
            certificates=tuple(certificate or ()),
        )
        save_keys(known.with_client(client), file)
    _print_secret(client, None if secret_file is not None else given, file, as_json)


@keys.command("list")
def list_keys(file: _File = _DEFAULT_FILE, as_json: _Json = False) -> None:
    """List the clients; no secrets are shown."""
    clients = [_describe(client) for client in _load(file).clients.values()]
    if as_json:
        typer.echo(json.dumps({"clients": clients}, indent=2, ensure_ascii=False))
        return
    from rich.console import Console
    from rich.table import Column, Table

    # A key is copied from here: in a narrow terminal it is folded, not cut.
    table = Table(Column("key", overflow="fold"), "servables", "limits", "secrets", "certificates", "state")
    for each in clients:
        limits = [f"{name} {each[name]:g}" for name in ("rate", "burst", "max_in_flight") if each[name]]
        servables = "all" if each["servables"] is None else ", ".join(each["servables"]) or "none"
        state = "revoked" if each["revoked"] else ""
        cells = (
            each["key"],
            servables,
            ", ".join(limits),
            str(each["secrets"]),
            ", ".join(each["certificates"]),
            state,
        )
        table.add_row(*cells)
    Console(highlight=False, markup=False).print(table)


@keys.command()
def revoke(
    key: _Key,
    file: _File = _DEFAULT_FILE,
    tokens: Annotated[bool, typer.Option("--tokens", help="Only the tokens that it has: it may get new ones.")] = False,
    undo: Annotated[bool, typer.Option("--undo", help="Let it in again.")] = False,
    as_json: _Json = False,
) -> None:
    """Refuse a client from now on, with all its tokens; or only the tokens."""
    from mindserve.auth.files import locked
    from mindserve.auth.keys import WHAT, save_keys

    if tokens and undo:
        raise typer.BadParameter("tokens that were revoked stay so: expected --tokens or --undo", param_hint="--undo")
    with locked(file, WHAT):
        known = _load(file)
        client = _find(known, key, file)
        if tokens:
            client = dataclasses.replace(client, tokens_not_before=int(time.time()))
        else:
            client = dataclasses.replace(client, revoked=not undo)
        save_keys(known.with_client(client), file)
    if as_json:
        typer.echo(json.dumps(_describe(client), ensure_ascii=False))
    else:
        what = "its tokens are refused" if tokens else "it may call again" if undo else "it is refused"
        typer.echo(f"client '{key}': {what}")


@keys.command()
def rotate(
    key: _Key,
    file: _File = _DEFAULT_FILE,
    drop_old: Annotated[
        bool, typer.Option("--drop-old", help="Only the newest secret is good from now on, and no new one is made.")
    ] = False,
    as_json: _Json = False,
) -> None:
    """Give a client a new secret; the one before stays good until --drop-old, or another rotation."""
    from mindserve.auth.files import locked
    from mindserve.auth.hashing import hash_secret
    from mindserve.auth.keys import MAX_SECRETS, WHAT, save_keys

    made: str | None = None
    with locked(file, WHAT):
        known = _load(file)
        client = _find(known, key, file)
        if drop_old:
            client = dataclasses.replace(client, secrets=client.secrets[:1])
        else:
            made = _new_secret()
            newest = hash_secret(made, client.secrets[0] if client.secrets else None)
            client = dataclasses.replace(client, secrets=(newest, *client.secrets)[:MAX_SECRETS])
        save_keys(known.with_client(client), file)
    _print_secret(client, made, file, as_json)


def _load(file: str, *, missing_ok: bool = False) -> Keys:
    from mindserve.auth.keys import Keys, load_keys

    if missing_ok and not os.path.lexists(file):
        return Keys({})
    return load_keys(file)


def _find(known: Keys, key: str, file: str) -> ClientKey:
    client = known.clients.get(key)
    if client is None:
        names = ", ".join(f"'{name}'" for name in known.clients) or "none"
        raise ConfigError(f"There is no client '{key}' in '{file}'; there are: {names}")
    return client


def _new_secret() -> str:
    from mindserve.auth.hashing import make_secret

    return make_secret()


def _read_secret(path: str) -> str:
    from mindserve.auth.hashing import MAX_SECRET_LENGTH

    try:
        if path == "-":
            text = sys.stdin.read(MAX_SECRET_LENGTH + 2)
        else:
            text = read_file(path, MAX_SECRET_LENGTH * 4 + 2)[0].decode()  # four bytes of UTF-8, and the line's end
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise ConfigError(f"The secret's file '{path}' can't be read: {reason}") from None
    secret = text.rstrip("\r\n")
    if not 8 <= len(secret) <= MAX_SECRET_LENGTH:
        raise ConfigError(f"The secret should have 8 to {MAX_SECRET_LENGTH} characters, but has {len(secret)}")
    return secret


def _describe(client: ClientKey) -> dict[str, Any]:
    return {
        "key": client.key,
        "servables": None if client.servables is None else list(client.servables),
        "rate": client.rate,
        "burst": client.effective_burst if client.rate else 0.0,
        "max_in_flight": client.max_in_flight,
        "secrets": len(client.secrets),
        "certificates": list(client.certificates),
        "tokens_not_before": client.tokens_not_before,
        "revoked": client.revoked,
    }


def _print_secret(client: ClientKey, secret: str | None, file: str, as_json: bool) -> None:
    if as_json:
        shown = _describe(client)
        if secret is not None:
            shown["consumer_secret"] = secret
        typer.echo(json.dumps(shown, ensure_ascii=False))
    elif secret is None:
        typer.echo(f"client '{client.key}' is in {file}")
    else:
        typer.echo(f"consumer key     {client.key}")
        typer.echo(f"consumer secret  {secret}")
        typer.echo(f"It is not shown again: {file} has only its hash.", err=True)
