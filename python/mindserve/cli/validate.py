"""``mindserve validate``."""

from __future__ import annotations

import dataclasses
import json
import os
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from mindserve.config import ServableStartConfig
    from mindserve.configfile import Draft, Problem


def validate(
    config: Annotated[
        str | None, typer.Argument(help="A config file.", metavar="CONFIG.YAML", show_default=False)
    ] = None,
    schema: Annotated[bool, typer.Option("--schema", help="Print the JSON schema of config files instead.")] = False,
    timeout: Annotated[
        float, typer.Option(help="Seconds that importing a servable_config.py may take.", metavar="SECONDS", min=0.001)
    ] = 60.0,
    imports: Annotated[
        bool,
        typer.Option(
            "--imports/--no-imports",
            help="Whether to import servable_config.py and grpc_servicer_functions, which runs their code. Without it, "
            "methods and model files are not known.",
        ),
    ] = True,
    as_json: Annotated[bool, typer.Option("--json", help="Print what was found as one line of JSON.")] = False,
) -> None:
    """Check a config file, without starting anything.

    Checks its keys and values, the directories and model files, the certificates, the keys file of section auth, and
    that each servable_config.py and each of grpc_servicer_functions can be imported, in processes of their own, and
    that what it declares of the Classifier fits its methods: --no-imports leaves that out. Status 1 if something is
    wrong.
    """
    from mindserve import configfile

    if schema:
        typer.echo(json.dumps(configfile.json_schema(), indent=2, ensure_ascii=False))
        return
    if config is None:
        raise typer.BadParameter("expected the name of a config file", param_hint="CONFIG.YAML")
    report = _examine(configfile.draft(config), timeout, imports=imports)
    problems: list[Problem] = report["problems"]
    if as_json:
        shown = {**report, "problems": [problem.as_dict() for problem in problems]}
        typer.echo(json.dumps({"valid": not problems, "file": config, **shown}))
    else:
        _show(config, report, problems)
    if problems:
        raise typer.Exit(1)


def _examine(draft: Draft, timeout: float, *, imports: bool) -> dict[str, Any]:
    from mindserve.cli.common import check_auth, follow_functions
    from mindserve.configfile import in_order
    from mindserve.configfile.check import check_certificates, check_directories

    wrong_certificates, warnings = check_certificates(draft)
    wrong_auth, more_warnings = check_auth(draft)
    missing = check_directories(draft)
    problems = [*draft.problems, *wrong_certificates, *wrong_auth, *missing]
    unusable = {problem.key.partition(".")[0] for problem in missing}
    servables: list[dict[str, Any]] = []
    for number, servable in draft.servables().items() if imports else ():
        if f"servables[{number}]" not in unusable:
            found = _examine_servable(draft, number, servable, timeout, problems)
            servables += [found] if found else []
    if imports:
        problems += follow_functions(draft, missing)[1]
    listeners = []
    if draft.settings is not None:
        listeners = [
            {"address": each.address, "tls": each.ssl_config is not None}
            for each in draft.settings.grpc.all_listeners()
        ]
        if draft.settings.rest is not None:
            rest = draft.settings.rest.listener()
            listeners.append({"address": f"http://{rest.address}", "tls": rest.ssl_config is not None})
    return {
        "problems": in_order(problems),
        "warnings": [*warnings, *more_warnings],
        "servables": servables,
        "listeners": listeners,
    }


def _examine_servable(
    draft: Draft, number: int, servable: ServableStartConfig, timeout: float, problems: list[Problem]
) -> dict[str, Any] | None:
    """What it declares; adds to ``problems``. None: it can't be told, or not what of it would be served."""
    from mindserve.config import find_version, missing_version
    from mindserve.configfile import Problem
    from mindserve.errors import ConfigError
    from mindserve.inspection import inspect_servable

    def wrong(key: str, text: str) -> None:
        problems.append(Problem(draft.place("servables", number, key), text, f"servables[{number}].{key}"))

    directory, name = servable.servable_directory, servable.servable_name
    try:
        declared = inspect_servable(directory, name, timeout)
    except ConfigError as error:
        wrong("name", str(error))
        return None
    if number not in draft.servables("version_number"):
        return None
    version = find_version(directory, name, servable.version_number)
    if declared.models and version is None:
        wrong("version_number", str(missing_version(directory, name, servable.version_number)))
    elif version is not None:
        for model in declared.models:
            path = os.path.join(directory, name, str(version), model)
            if not os.path.isfile(path):
                wrong("version_number", f"model file '{path}' not exist")
    if number not in draft.servables("device_ids"):
        return None
    return {
        "directory": directory,
        "name": name,
        "version": version or servable.version_number or 1,
        "device_ids": servable.device_ids,
        **dataclasses.asdict(declared),
    }


def _show(config: str, report: dict[str, Any], problems: list[Problem]) -> None:
    for problem in problems:
        typer.echo(str(problem), err=True)
    for warning in report["warnings"]:
        typer.echo(f"Warning: {warning}", err=True)
    for servable in report["servables"]:
        devices = ", ".join(str(device) for device in servable["device_ids"])
        typer.echo(f"servable '{servable['name']}' version {servable['version']} on device {devices}")
        for method in servable["methods"]:
            typer.echo(f"  {method['name']}({', '.join(method['inputs'])}) -> {', '.join(method['outputs'])}")
        if servable["classifier"]:
            taken = ", ".join(servable["classifier"]["messages"]) or "instances"
            typer.echo(f"  Classifier: {servable['classifier']['method']}, of {taken}")
        if servable["handlers"]:
            typer.echo(f"  gRPC handlers: {', '.join(servable['handlers'])}")
    for listener in report["listeners"]:
        typer.echo(f"listens on {listener['address']}{' (TLS)' if listener['tls'] else ''}")
    if problems:
        typer.echo(f"{config}: {len(problems)} problem{'s' if len(problems) > 1 else ''}", err=True)
    else:
        typer.echo(f"{config} is valid")
