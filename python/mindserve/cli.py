"""The command line: ``mindserve`` and ``python -m mindserve``. What a command needs is imported when it runs."""

from __future__ import annotations

import sys
from enum import Enum
from typing import Annotated

import typer

from mindserve import __version__
from mindserve.errors import MindserveError

app = typer.Typer(
    name="mindserve",
    help="Serve machine-learning models.",
    no_args_is_help=True,
    # A traceback's variables may hold secrets.
    pretty_exceptions_show_locals=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


_Pid = Annotated[int | None, typer.Argument(help="The server's process. Default: the only server of this user.", min=1)]


class _KeyType(str, Enum):
    EC = "ec"
    RSA = "rsa"


def main() -> None:
    """Run the command that the process's arguments name."""
    try:
        app()
    except MindserveError as error:
        from rich.console import Console

        console = Console(stderr=True, highlight=False, soft_wrap=True)
        console.print("Error:", style="bold red", end=" ")
        console.print(str(error), markup=False)
        sys.exit(1)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"mindserve {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    pass


@app.command()
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


@app.command()
def status(
    pid: _Pid = None,
    as_json: Annotated[bool, typer.Option("--json", help="As one line of JSON.")] = False,
) -> None:
    """Show how it stands with a server of this host."""
    import json

    from mindserve.admin import ask

    answer = ask(pid, "status", {}, typer.echo)
    if as_json:
        typer.echo(json.dumps(answer))
        return
    typer.echo(f"process {answer['pid']}: {answer['state']}, for {answer['seconds']:.0f} s")
    typer.echo(f"listens on {', '.join(answer['addresses']) or 'nothing'}")
    typer.echo(f"{answer['connections']} connections, {answer['in_flight']} requests in flight")
    for worker in answer["workers"]:
        state = f"process {worker['pid']}, {'ready' if worker['ready'] else 'not ready'}" if worker["pid"] else "down"
        where = f"servable '{worker['servable']}' version {worker['version']} on device {worker['device_id']}"
        typer.echo(f"{where}: {state}, restarted {worker['restarts']} times")


@app.command()
def reload(
    pid: _Pid = None,
    servable: Annotated[str | None, typer.Option(help="Which. Default: all, and the certificates.")] = None,
) -> None:
    """Load servables anew while they are served: new workers take over, the old ones finish what they hold."""
    from mindserve.admin import ask

    answer = ask(pid, "reload", {"servable": servable}, typer.echo)
    for each in answer["servables"]:
        versions = ", ".join(str(version) for version in each["versions"])
        typer.echo(f"servable '{each['servable']}' version {versions} serves")


@app.command()
def handover(
    pid: _Pid = None,
    timeout: Annotated[
        float | None,
        typer.Option(
            help="Seconds until the new server must be ready. Default: 60 more than the longest start_timeout."
        ),
    ] = None,
) -> None:
    """Replace a server by a new one, started in the same way, without losing a call."""
    from mindserve.admin import ask

    answer = ask(pid, "handover", {"timeout": timeout}, typer.echo)
    typer.echo(f"process {answer['pid']} serves; process {answer['predecessor']} finishes what it has, and ends")
