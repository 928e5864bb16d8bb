"""Reads a config file."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping

from mindserve.configfile import derive
from mindserve.configfile.document import MAX_BYTES, Node, parse
from mindserve.configfile.problems import ConfigFileError, Place, Problem
from mindserve.configfile.settings import ServerSettings
from mindserve.configfile.shapes import Path, Reader, Wrong


@dataclasses.dataclass(frozen=True)
class ConfigFile:
    """What a file says.

    Attributes:
        name: the file, as it was named.
        settings: what it says.
        places: of what was given, by its way from the root, as ("servables", 0, "name"): of keys, and of list items.
    """

    name: str
    settings: ServerSettings
    places: Mapping[Path, Place]

    def place(self, *path: str | int) -> Place:
        """Where something was given, or else what it would be part of."""
        while path and path not in self.places:
            path = path[:-1]
        return self.places.get(path, Place(self.name))


def load(path: str) -> ConfigFile:
    """Reads a file. Relative paths in it start from its own directory.

    Raises:
        ConfigFileError: it can't be read, or something in it is wrong; the text has every problem with its line.
    """
    try:
        with open(path, "rb") as stream:
            data = stream.read(MAX_BYTES + 1)
    except OSError as error:
        raise ConfigFileError([Problem(Place(path), f"the file can't be read: {error.strerror}")]) from error
    return read(parse(data, path), path, os.path.dirname(os.path.abspath(path)))


def read(node: Node, name: str, directory: str) -> ConfigFile:
    """What a document says; ``directory`` is what its relative paths start from.

    Raises:
        ConfigFileError: something in it is wrong.
    """
    root = derive.root()
    reader = Reader(directory, root.homes())
    try:
        settings = root.read(node, reader)
    except Wrong:
        raise ConfigFileError(reader.problems) from None
    return ConfigFile(name, settings, reader.places)
