"""What a config file names, held against what is there: directories, versions, certificates."""

from __future__ import annotations

import os

from mindserve import config
from mindserve.configfile.load import ConfigFile
from mindserve.configfile.problems import Problem
from mindserve.errors import ConfigError
from mindserve.tls import SSLConfig, load_server_tls


def check_directories(file: ConfigFile) -> list[Problem]:
    """What is missing of the servables' directories."""
    problems: list[Problem] = []
    for number, servable in enumerate(file.settings.servables):
        try:
            config.check_servable_directory(servable)
        except ConfigError as error:
            wrong = "name" if os.path.isdir(servable.servable_directory) else "directory"
            path = ("servables", number, wrong)
            problems.append(Problem(file.place(*path), str(error), f"servables[{number}].{wrong}"))
    return problems


def check_certificates(file: ConfigFile) -> tuple[list[Problem], list[str]]:
    """What is wrong with the listeners' certificates, and what may go wrong with them."""
    problems: list[Problem] = []
    warnings: list[str] = []

    def check(ssl_config: SSLConfig | None, key: str, *path: str | int) -> None:
        if ssl_config is None:
            return
        try:
            warnings.extend(load_server_tls(ssl_config).warnings)
        except ConfigError as error:
            problems.append(Problem(file.place(*path), str(error), key))

    for number, listener in enumerate(file.settings.grpc.all_listeners()):
        if file.settings.grpc.listeners:
            key = f"grpc.listeners[{number}].ssl_config"
            check(listener.ssl_config, key, "grpc", "listeners", number, "ssl_config")
        else:
            check(listener.ssl_config, "grpc.ssl_config", "grpc", "ssl_config")
    if file.settings.rest is not None:
        check(file.settings.rest.ssl_config, "rest.ssl_config", "rest", "ssl_config")
    return problems, warnings
