"""What several commands have in common."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from mindserve.configfile import Draft, Problem

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


def examine_services(draft: Draft) -> list[Problem]:
    """What is wrong with the functions for services of one's own: each is imported, in a process of its own."""
    from mindserve.configfile import Problem
    from mindserve.errors import ConfigError
    from mindserve.server.services import Described, check_functions

    functions = draft.servicer_functions()
    if not functions:
        return []
    extend_import_path(os.path.dirname(os.path.abspath(draft.name)), ".")
    directories = [Path(each.servable_directory) / each.servable_name for each in draft.servables().values()]
    problems: list[Problem] = []
    described = Described()
    for number, path in enumerate(functions):
        try:
            described = described.add(check_functions([path]), directories)
        except ConfigError as error:
            place = draft.place("grpc", "grpc_servicer_functions", number)
            problems.append(Problem(place, str(error), f"grpc.grpc_servicer_functions[{number}]"))
    return problems
