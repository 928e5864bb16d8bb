"""``mindserve traffic``: which variations of a name answer its calls, while a server runs."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Annotated, Any

import typer

traffic = typer.Typer(
    help="Split the calls of a name between servables or versions, while a server runs.", no_args_is_help=True
)

_Pid = Annotated[
    int | None, typer.Option("--pid", help="The server's process. Default: the only server of this user.", min=1)
]
_Json = Annotated[bool, typer.Option("--json", help="As one line of JSON.")]
_Name = Annotated[str, typer.Argument(help="What clients ask for.", metavar="NAME", show_default=False)]

# b=0.1, b=0.1:iris_b, b=0.1:iris_b@2
_VARIATION = re.compile(r"(?P<name>[^=]+)=(?P<weight>[^:]+)(?::(?P<servable>.+?)(?:@(?P<version>\d{1,18}))?)?")


@traffic.command()
def show(
    name: Annotated[str | None, typer.Argument(help="Which. Default: all.", metavar="NAME")] = None,
    pid: _Pid = None,
    as_json: _Json = False,
) -> None:
    """Show which names are split, and how."""
    _ask(pid, {"name": name}, as_json)


@traffic.command("set")
def set_(
    name: _Name,
    variations: Annotated[
        list[str] | None,
        typer.Argument(
            help="A variation's weight, and for a new one who answers: b=0.1, b=0.1:iris_b, b=0.1:iris_b@2 for version "
            "2 of it. Those that are not named stay as they are.",
            metavar="VARIATION=WEIGHT[:SERVABLE[@VERSION]]",
            show_default=False,
        ),
    ] = None,
    remove: Annotated[
        list[str] | None, typer.Option(help="A variation that is to go. May be repeated.", metavar="VARIATION")
    ] = None,
    sticky: Annotated[
        str | None,
        typer.Option(help="Calls with the same value of this metadata key go to the same variation.", metavar="KEY"),
    ] = None,
    no_sticky: Annotated[bool, typer.Option("--no-sticky", help="All calls take turns.")] = False,
    pid: _Pid = None,
    as_json: _Json = False,
) -> None:
    """Split the calls of a name, or change how they are split. Holds from the next call on."""
    if sticky is not None and no_sticky:
        raise typer.BadParameter("--sticky and --no-sticky exclude each other")
    change: dict[str, Any] = {
        "variations": [_variation(text) for text in variations or ()],
        "remove": remove or [],
    }
    if sticky is not None or no_sticky:
        change["sticky"] = sticky
    _ask(pid, {"name": name, "set": change}, as_json)


@traffic.command()
def clear(name: _Name, pid: _Pid = None, as_json: _Json = False) -> None:
    """Split the calls of a name no more."""
    _ask(pid, {"name": name, "clear": True}, as_json)


def _variation(text: str) -> dict[str, Any]:
    found = _VARIATION.fullmatch(text)
    if found is None:
        raise typer.BadParameter(f"'{text}' should read VARIATION=WEIGHT, or VARIATION=WEIGHT:SERVABLE[@VERSION]")
    try:
        weight = float(found["weight"])
    except ValueError:
        raise typer.BadParameter(f"'{text}' has the weight '{found['weight']}', expected a number") from None
    given: dict[str, Any] = {"name": found["name"], "weight": weight}
    if found["servable"] is not None:
        given |= {"servable": found["servable"], "version": int(found["version"] or 0)}
    return given


def _ask(pid: int | None, arguments: dict[str, Any], as_json: bool) -> None:
    from mindserve.admin import ask

    answer = ask(pid, "traffic", arguments, typer.echo)
    typer.echo(json.dumps(answer) if as_json else "\n".join(_lines(answer["traffic"])))


def _lines(splits: Sequence[dict[str, Any]]) -> list[str]:
    shown: list[str] = []
    for split in splits:
        whole = sum(each["weight"] for each in split["variations"])
        sticky = f", the same for the same '{split['sticky']}'" if split["sticky"] else ""
        shown.append(f"'{split['name']}'{sticky}:")
        shown += [
            f"  {each['name']}: {each['weight'] / whole:.4g} of the calls, servable '{each['servable']}' "
            + (f"version {each['version']}" if each["version"] else "in its newest version")
            for each in split["variations"]
        ]
    return shown or ["no calls are split"]
