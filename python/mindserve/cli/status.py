"""``mindserve status``."""

from __future__ import annotations

import contextlib
import json
import sys
import time
from typing import Annotated, Any

import typer

from mindserve.cli.common import Pid, PidOption, choose_pid

# Seconds for which a server may not answer, or be two, while it is watched: a handover.
_PATIENCE = 5.0


def status(
    pid: Pid = None,
    pid_option: PidOption = None,
    once: Annotated[bool, typer.Option("--once", help="Show it once, also on a terminal.")] = False,
    interval: Annotated[
        float, typer.Option(help="Seconds between looks, on a terminal.", min=0.1, max=3600, metavar="SECONDS")
    ] = 1.0,
    as_json: Annotated[bool, typer.Option("--json", help="Once, everything, as one line of JSON.")] = False,
) -> None:
    """Show how it stands with a server of this host: workers, queues, calls.

    On a terminal it is refreshed until Ctrl-C, with the rates and times since the last look; elsewhere it is shown
    once, with those since the server began.
    """
    from mindserve.admin import ask

    pid = choose_pid(pid, pid_option)
    if sys.stdout.isatty() and not once and not as_json:
        _watch(pid, interval)
        return
    answer = ask(pid, "status", {}, typer.echo)
    if as_json:
        typer.echo(json.dumps(answer))
    elif sys.stdout.isatty():
        from rich.console import Console

        from mindserve.cli.status_view import render

        Console().print(render(answer, None))
    else:
        from mindserve.cli.status_view import lines

        typer.echo("\n".join(lines(answer)))


def _watch(pid: int | None, interval: float) -> None:
    from rich.console import Console
    from rich.live import Live

    from mindserve.admin import AdminError, ask
    from mindserve.cli.status_view import render

    def look() -> dict[str, Any]:
        return ask(pid, "status", {}, lambda text: None)

    now = look()
    seen = time.monotonic()
    # Ctrl-C is how it is meant to end.
    with contextlib.suppress(KeyboardInterrupt), Live(render(now, None), console=Console(), auto_refresh=False) as live:
        live.refresh()
        while True:
            time.sleep(interval)
            try:
                before, now = now, look()
            except AdminError:
                if time.monotonic() - seen > _PATIENCE:
                    raise
                continue
            seen = time.monotonic()
            # Another process: a successor, which counts anew.
            live.update(render(now, before if before["pid"] == now["pid"] else None), refresh=True)
