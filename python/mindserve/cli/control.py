"""``mindserve reload`` and ``mindserve handover``: what a server is told while it runs."""

from __future__ import annotations

from typing import Annotated

import typer

from mindserve.cli.common import Pid, PidOption, choose_pid


def reload(
    pid: Pid = None,
    pid_option: PidOption = None,
    servable: Annotated[str | None, typer.Option(help="Which. Default: all, and the certificates.")] = None,
) -> None:
    """Load servables anew while they are served: new workers take over, the old ones finish what they hold."""
    from mindserve.admin import ask

    answer = ask(choose_pid(pid, pid_option), "reload", {"servable": servable}, typer.echo)
    for each in answer["servables"]:
        versions = ", ".join(str(version) for version in each["versions"])
        typer.echo(f"servable '{each['servable']}' version {versions} serves")


def handover(
    pid: Pid = None,
    pid_option: PidOption = None,
    timeout: Annotated[
        float | None,
        typer.Option(
            help="Seconds until the new server must be ready. Default: 60 more than the longest start_timeout."
        ),
    ] = None,
) -> None:
    """Replace a server by a new one, started in the same way, without losing a call."""
    from mindserve.admin import ask

    answer = ask(choose_pid(pid, pid_option), "handover", {"timeout": timeout}, typer.echo)
    typer.echo(f"process {answer['pid']} serves; process {answer['predecessor']} finishes what it has, and ends")
