"""The command line: ``mindserve`` and ``python -m mindserve``. What a command needs is imported when it runs.

A command ends with status 0; with 1 when it has failed, and told why on stderr; with 2 when it was called wrongly.
"""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from mindserve import __version__
from mindserve.cli.certs import certs
from mindserve.cli.common import show_error
from mindserve.cli.control import handover, reload
from mindserve.cli.infer import infer
from mindserve.cli.keys import keys
from mindserve.cli.serve import run, start
from mindserve.cli.status import status
from mindserve.cli.traffic import traffic
from mindserve.cli.validate import validate
from mindserve.errors import MindserveError

app = typer.Typer(
    name="mindserve",
    help="Serve machine-learning models.",
    epilog="Exit status: 0; 1 when a command has failed, and says why on stderr; 2 when it was called wrongly.",
    no_args_is_help=True,
    # A traceback's variables may hold secrets.
    pretty_exceptions_show_locals=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def main() -> None:
    """Run the command that the process's arguments name."""
    try:
        app()
    except MindserveError as error:
        show_error(str(error))
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


for _panel, _commands in (
    ("Serve", (run, start, validate)),
    ("Look after a server that runs", (status, reload, handover)),
    ("Use", (infer, certs)),
):
    for _command in _commands:
        app.command(rich_help_panel=_panel)(_command)
app.add_typer(keys, rich_help_panel="Use")
app.add_typer(traffic, name="traffic", rich_help_panel="Look after a server that runs")
