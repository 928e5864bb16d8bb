"""What a config file names, held against what is there: directories, certificates."""

from __future__ import annotations

import os

from mindserve import config
from mindserve.configfile.load import Draft
from mindserve.configfile.problems import Problem
from mindserve.configfile.shapes import spell
from mindserve.errors import ConfigError
from mindserve.tls import load_server_tls


def check_directories(draft: Draft) -> list[Problem]:
    """What is missing of the servables' directories."""
    problems: list[Problem] = []
    for number, servable in draft.servables().items():
        try:
            config.check_servable_directory(servable)
        except ConfigError as error:
            wrong = "name" if os.path.isdir(servable.servable_directory) else "directory"
            problems.append(
                Problem(draft.place("servables", number, wrong), str(error), f"servables[{number}].{wrong}")
            )
    return problems


def check_certificates(draft: Draft) -> tuple[list[Problem], list[str]]:
    """What is wrong with the listeners' certificates, and what may go wrong with them."""
    problems: list[Problem] = []
    warnings: list[str] = []
    for path, ssl_config in draft.certificates().items():
        try:
            warnings += load_server_tls(ssl_config).warnings
        except ConfigError as error:
            problems.append(Problem(draft.place(*path), str(error), spell(path)))
    return problems, warnings
