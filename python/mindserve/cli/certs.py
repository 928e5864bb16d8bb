"""``mindserve certs``."""

from __future__ import annotations

from enum import Enum
from typing import Annotated

import typer


class _KeyType(str, Enum):
    EC = "ec"
    RSA = "rsa"


def certs(
    directory: Annotated[str, typer.Argument(help="Where to put the files.")] = "certs",
    name: Annotated[
        list[str] | None,
        typer.Option(
            "--name",
            "-n",
            help="A host name or IP address of the server, besides localhost, 127.0.0.1 and ::1. May be repeated.",
        ),
    ] = None,
    days: Annotated[int, typer.Option(help="How long the certificates, or the revocation list, are valid.")] = 365,
    key_type: Annotated[_KeyType, typer.Option(help="ECDSA on P-256, or RSA of 2048 bits.")] = _KeyType.EC,
    force: Annotated[bool, typer.Option("--force", help="Replace files that are there.")] = False,
    revoke: Annotated[
        list[str] | None,
        typer.Option(
            help="Make nothing, but add this certificate of the CA in DIRECTORY to its revocation list, ca.crl."
            " May be repeated.",
        ),
    ] = None,
) -> None:
    """Make a test CA, and a server's and a client's certificate from it, to try TLS with."""
    from rich.console import Console

    from mindserve.certs import make_certificates, revoke_certificates

    if revoke:
        path = revoke_certificates(directory, revoke, days=days)
        typer.echo(f"{path}  what is revoked: crl of the server's SSLConfig")
        return
    files = make_certificates(directory, name or (), days=days, key_type=key_type.value, force=force)
    console = Console(highlight=False, soft_wrap=True)
    for path, what in (
        (files.ca_certificate, "the test CA's certificate, for both sides"),
        (files.ca_key, "its key, only to make further certificates: give it to nobody"),
        (files.server_certificate, "the server's certificate"),
        (files.server_key, "its key, for the server alone"),
        (files.client_certificate, "the client's certificate, where the server verifies clients"),
        (files.client_key, "its key, for the client alone"),
    ):
        console.print(str(path), style="bold", markup=False, end="")
        console.print(f"  {what}", markup=False)
    ca, crt, key = (str(path) for path in (files.ca_certificate, files.server_certificate, files.server_key))
    client_crt, client_key = str(files.client_certificate), str(files.client_key)
    console.print(
        f"""
Only the server shows a certificate:

    from mindserve import server
    server.start_grpc_server("0.0.0.0:5500", ssl_config=server.SSLConfig({crt!r}, {key!r}))

    from mindserve.client import Client, SSLConfig
    Client("localhost:5500", …, ssl_config=SSLConfig(custom_ca={ca!r}))

Both do:

    server.SSLConfig({crt!r}, {key!r}, custom_ca={ca!r}, verify_client=True)
    SSLConfig(certificate={client_crt!r}, private_key={client_key!r}, custom_ca={ca!r})

They are for tests: in earnest, take certificates from an authority that your clients trust.""",
        markup=False,
    )
