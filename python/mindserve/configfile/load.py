"""Reads a config file."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import re
from collections.abc import Mapping, Sequence

from mindserve.config import ServableStartConfig
from mindserve.configfile import derive
from mindserve.configfile.agreement import disagreements
from mindserve.configfile.document import MAX_BYTES, Node, parse_leniently
from mindserve.configfile.problems import ConfigFileError, Place, Problem
from mindserve.configfile.settings import ServerSettings
from mindserve.configfile.shapes import Made, Path, Reader, Wrong, given_at
from mindserve.files import read_file
from mindserve.tls import SSLConfig


@dataclasses.dataclass(frozen=True)
class Draft:
    """What could be read of a file, and what is wrong with it.

    Attributes:
        name: the file, as it was named.
        problems: what is wrong so far; those of who looks further may be added.
        places: of what was given, by its way from the root, as ("servables", 0, "name"): of keys, and of list items.
        made: the objects that it stands for, by their ways from the root.
        settings: what it says; None if it does not say it right.
    """

    name: str
    problems: Sequence[Problem]
    places: Mapping[Path, Place] = dataclasses.field(default_factory=dict)
    made: Mapping[Path, Made] = dataclasses.field(default_factory=dict)
    settings: ServerSettings | None = None

    def place(self, *path: str | int) -> Place:
        """Where something was given, or else what it would be part of."""
        return self.places.get(given_at(path, self.places), Place(self.name))

    def servables(self, *parameters: str) -> Mapping[int, ServableStartConfig]:
        """By their numbers the servables whose names, directories and other ``parameters`` are right."""
        needed = {"servable_directory", "servable_name", *parameters}
        return {
            number: made.value
            for path, made in self.made.items()
            if isinstance(made.value, ServableStartConfig)
            and isinstance(number := path[-1], int)
            and not needed & {*made.doubtful}
        }

    def certificates(self) -> Mapping[Path, SSLConfig]:
        """By their ways from the root."""
        return {
            path: made.value
            for path, made in self.made.items()
            if isinstance(made.value, SSLConfig) and not made.doubtful
        }

    def servicer_functions(self) -> Mapping[int, str]:
        """By their numbers the import paths of ``grpc_servicer_functions`` that are such, each once."""
        place = ("grpc", "grpc_servicer_functions")
        found: dict[int, str] = {}
        for path, made in self.made.items():
            if path[:2] == place and isinstance(number := path[-1], int) and made.value not in found.values():
                found[number] = made.value
        return found

    def finish(self, found: Sequence[Problem] = ()) -> ConfigFile:
        """What the file says.

        Args:
            found: what else is wrong with it.

        Raises:
            ConfigFileError: something is wrong with it.
        """
        problems = [*self.problems, *found]
        if problems or self.settings is None:
            raise ConfigFileError(problems)
        return ConfigFile(self.name, self.settings, self.places)


@dataclasses.dataclass(frozen=True)
class ConfigFile:
    """What a file says.

    Attributes:
        name: the file, as it was named.
        settings: what it says.
        places: as those of `Draft`.
    """

    name: str
    settings: ServerSettings
    places: Mapping[Path, Place]

    def place(self, *path: str | int) -> Place:
        """Where something was given, or else what it would be part of."""
        return Draft(self.name, (), self.places).place(*path)


def load(path: str) -> ConfigFile:
    """Reads a file. Relative paths in it start from its own directory.

    Raises:
        ConfigFileError: it can't be read, or something in it is wrong; the text has every problem with its line.
    """
    return draft(path).finish()


def draft(path: str) -> Draft:
    """Reads a file as far as it is right; what is wrong with it is noted. Relative paths start as those of `load`."""
    try:
        data, _ = read_file(path, MAX_BYTES)
        node, problems = parse_leniently(data, path, derive.root().keys())
    except OSError as error:
        return Draft(path, [Problem(Place(path), f"the file can't be read: {error.strerror}")])
    except ConfigFileError as error:
        return Draft(path, error.problems)
    return read(node, path, os.path.dirname(os.path.abspath(path)), problems)


def read(node: Node, name: str, directory: str, problems: Sequence[Problem] = ()) -> Draft:
    """What a document says.

    Args:
        node: the document.
        name: of the file.
        directory: what relative paths start from.
        problems: those that have been found.
    """
    root = derive.root()
    reader = Reader(directory, derive.homes())
    settings: ServerSettings | None = None
    with contextlib.suppress(Wrong):
        settings = root.read(node, reader)
    for path, text in disagreements(reader.made):
        reader.problem_at(path, re.sub("^Parameter ", "", text))

    def shown(place: Place) -> Place:
        return place.without_source() if place.line in reader.hidden else place

    found = [dataclasses.replace(each, place=shown(each.place)) for each in (*problems, *reader.problems)]
    places = {path: shown(place) for path, place in reader.places.items()}
    return Draft(name, found, places, reader.made, settings)
