"""What several commands have in common."""

from __future__ import annotations

import os
import sys
from typing import Annotated

import typer

Pid = Annotated[int | None, typer.Argument(help="The server's process. Default: the only server of this user.", min=1)]


def extend_import_path(*directories: str) -> None:
    """Has modules searched for in ``directories`` too: last, so that nothing there stands for what is installed."""
    sys.path += [each for each in dict.fromkeys(map(os.path.abspath, directories)) if each not in sys.path]


def show_error(text: str) -> None:
    """Tells on stderr why a command has failed."""
    from rich.console import Console

    console = Console(stderr=True, highlight=False, soft_wrap=True)
    console.print("Error:", style="bold red", end=" ")
    console.print(text, markup=False)
