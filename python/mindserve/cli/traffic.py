"""``mindserve traffic``: which variations of a name answer its calls, while a server runs."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Annotated, Any

import typer

from mindserve.cli.common import Pid, PidOption, choose_pid

traffic = typer.Typer(
    help="Split the calls of a name between servables or versions, while a server runs.", no_args_is_help=True
)

_Json = Annotated[bool, typer.Option("--json", help="As one line of JSON.")]
_Name = Annotated[str, typer.Argument(help="What clients ask for.", metavar="NAME", show_default=False)]

# b=0.1, b=0.1:iris_b, b=0.1:iris_b@2
_VARIATION = re.compile(r"(?P<name>[^=]+)=(?P<weight>[^:]+)(?::(?P<servable>.+?)(?:@(?P<version>\d{1,18}))?)?")
# No variation, which has a weight.
_PID = re.compile(r"[1-9][0-9]*")
# shadow, shadow=0.1, shadow@2=0.1
_MIRROR = re.compile(r"(?P<servable>[^=]+?)(?:@(?P<version>\d{1,18}))?(?:=(?P<fraction>.+))?")


@traffic.command()
def show(
    name: Annotated[str | None, typer.Argument(help="Which. Default: all.", metavar="NAME", show_default=False)] = None,
    pid: Pid = None,
    pid_option: PidOption = None,
    as_json: _Json = False,
) -> None:
    """Show which names are split, and how. Of all names with --pid, since what stands alone is a name."""
    _ask(choose_pid(pid, pid_option), {"name": name}, as_json)


@traffic.command("set")
def set_(
    name: _Name,
    variations: Annotated[
        list[str] | None,
        typer.Argument(
            help="A variation's weight, and for a new one who answers: b=0.1, b=0.1:iris_b, b=0.1:iris_b@2 for version "
            "2 of it. Those that are not named stay as they are. A number without '=' is the server's process, PID.",
            metavar="VARIATION=WEIGHT[:SERVABLE[@VERSION]]|PID",
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
    mirror: Annotated[
        list[str] | None,
        typer.Option(
            help="Who gets copies of the calls, or of a fraction of them: shadow, shadow=0.1, shadow@2=0.1. Instead of "
            "those there were; may be repeated.",
            metavar="SERVABLE[@VERSION][=FRACTION]",
        ),
    ] = None,
    no_mirrors: Annotated[bool, typer.Option("--no-mirrors", help="Nobody gets copies.")] = False,
    pid_option: PidOption = None,
    as_json: _Json = False,
) -> None:
    """Split the calls of a name, or change how they are split. Holds from the next call on."""
    if sticky is not None and no_sticky:
        raise typer.BadParameter("--sticky and --no-sticky exclude each other")
    if mirror and no_mirrors:
        raise typer.BadParameter("--mirror and --no-mirrors exclude each other")
    change: dict[str, Any] = {
        "variations": [_variation(text) for text in variations or () if not _PID.fullmatch(text)],
        "remove": remove or [],
    }
    if sticky is not None or no_sticky:
        change["sticky"] = sticky
    if mirror or no_mirrors:
        change["mirrors"] = [_mirror(text) for text in mirror or ()]
    pid = pid_option
    for text in filter(_PID.fullmatch, variations or ()):
        pid = choose_pid(int(text), pid)
    _ask(pid, {"name": name, "set": change}, as_json)


@traffic.command()
def clear(name: _Name, pid: Pid = None, pid_option: PidOption = None, as_json: _Json = False) -> None:
    """Split the calls of a name no more."""
    _ask(choose_pid(pid, pid_option), {"name": name, "clear": True}, as_json)


def _mirror(text: str) -> dict[str, Any]:
    found = _MIRROR.fullmatch(text)
    if found is None:
        raise typer.BadParameter(f"'{text}' should read SERVABLE[@VERSION][=FRACTION]")
    fraction = _number(text, found["fraction"] or "1")
    return {"servable": found["servable"], "version": int(found["version"] or 0), "fraction": fraction}


def _number(text: str, number: str) -> float:
    try:
        return float(number)
    except ValueError:
        raise typer.BadParameter(f"'{text}' has '{number}', expected a number") from None


def _variation(text: str) -> dict[str, Any]:
    found = _VARIATION.fullmatch(text)
    if found is None:
        raise typer.BadParameter(f"'{text}' should read VARIATION=WEIGHT, or VARIATION=WEIGHT:SERVABLE[@VERSION]")
    given: dict[str, Any] = {"name": found["name"], "weight": _number(text, found["weight"])}
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
            f"  {each['name']}: {each['weight'] / whole:.4g} of the calls, {_servable(each)}"
            for each in split["variations"]
        ]
        shown += [f"  copies of {each['fraction']:.4g} of them: {_servable(each)}" for each in split["mirrors"]]
    return shown or ["no calls are split"]


def _servable(given: dict[str, Any]) -> str:
    version = f"version {given['version']}" if given["version"] else "in its newest version"
    return f"servable '{given['servable']}' {version}"
