"""What several commands have in common."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from mindserve.configfile import Draft, Problem
    from mindserve.server.services import Followed

# Of the commands that look after a server: which one it is may be said by either.
Pid = Annotated[
    int | None,
    typer.Argument(
        help="The server's process. Default: the only server of this user.", min=1, metavar="PID", show_default=False
    ),
]
PidOption = Annotated[int | None, typer.Option("--pid", help="The same as PID.", min=1, show_default=False)]


def choose_pid(argument: int | None, option: int | None) -> int | None:
    """The process that is meant; None: the only server of this user.

    Args:
        argument: PID.
        option: ``--pid``.
    """
    if argument is not None and option is not None and argument != option:
        raise typer.BadParameter(f"the server's process is given as {argument} and by --pid as {option}: give one")
    return option if argument is None else argument


def extend_import_path(*directories: str) -> None:
    """Has modules searched for in ``directories`` too: last, so that nothing there stands for what is installed."""
    sys.path += [each for each in dict.fromkeys(map(os.path.abspath, directories)) if each not in sys.path]


def show_error(text: str) -> None:
    """Tells on stderr why a command has failed."""
    from rich.console import Console

    console = Console(stderr=True, highlight=False, soft_wrap=True)
    console.print("Error:", style="bold red", end=" ")
    console.print(text, markup=False)


def check_auth(draft: Draft) -> tuple[list[Problem], list[str]]:
    """What is wrong with the files that tokens need, and what is doubtful."""
    from mindserve.configfile import Problem

    made = draft.made.get(("auth",))
    if made is None or made.doubtful:
        return [], []
    from mindserve.auth.check import check_files

    wrong, warnings = check_files(made.value)
    return [Problem(draft.place("auth", option), text, f"auth.{option}") for option, text in wrong], warnings


def follow_functions(draft: Draft, missing: Sequence[Problem]) -> tuple[list[Followed], list[Problem]]:
    """The functions for services of one's own, and what is wrong with them: each is imported, in a process of its own.

    Args:
        draft: where they are given.
        missing: the servables' directories that are not there. What isn't found may lie in one: that isn't told.
    """
    from mindserve.configfile import Problem
    from mindserve.server.services import Followed, NotFoundError, follow

    functions = draft.servicer_functions()
    if not functions:
        return [], []
    extend_import_path(os.path.dirname(os.path.abspath(draft.name)), ".")
    servables = draft.servables()
    given = sum(path[0] == "servables" and len(path) == 2 for path in draft.places)
    directories = [Path(each.servable_directory) / each.servable_name for each in servables.values()]
    results = dict(zip(functions, follow([*functions.values()], directories), strict=True))
    wrong = {
        number: result
        for number, result in results.items()
        if isinstance(result, Exception)
        and not (isinstance(result, NotFoundError) and (missing or len(servables) < given))
    }
    key = "grpc.grpc_servicer_functions"
    return (
        [result for result in results.values() if isinstance(result, Followed)],
        [
            Problem(draft.place(*key.split("."), number), str(error), f"{key}[{number}]")
            for number, error in wrong.items()
        ],
    )
