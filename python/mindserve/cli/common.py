"""What several commands have in common."""

from __future__ import annotations

from typing import Annotated

import typer

Pid = Annotated[int | None, typer.Argument(help="The server's process. Default: the only server of this user.", min=1)]


def show_error(text: str) -> None:
    """Tells on stderr why a command has failed."""
    from rich.console import Console

    console = Console(stderr=True, highlight=False, soft_wrap=True)
    console.print("Error:", style="bold red", end=" ")
    console.print(text, markup=False)
