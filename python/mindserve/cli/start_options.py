"""The options of ``mindserve start`` as a config: read as a file would be, so that the same errors come of them."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from mindserve.configfile import ConfigFileError, Draft, Place, Problem
from mindserve.configfile.document import Entry, Listing, Node, Scalar, Table, parse
from mindserve.configfile.load import read
from mindserve.configfile.problems import closest, did_you_mean

_CONFIG = "servable_config.py"


@dataclasses.dataclass(frozen=True)
class StartOptions:
    """What was given; see ``mindserve start --help``.

    Attributes:
        servables: directories.
        grpc_port: None: not given.
        grpc_addresses: may be empty.
        grpc_servicer_functions: import paths.
        rest_port: None: not given.
        rest_address: None: not given.
        servable_options: by name, those that have options of their own; None: not given.
        more_servable_options: the others, "name=value".
        limits: "name=value".
        auth: the keys file; None: not given.
        tls: of `SSLConfig`; None: not given.
    """

    servables: Sequence[str]
    grpc_port: int | None
    grpc_addresses: Sequence[str]
    grpc_servicer_functions: Sequence[str]
    rest_port: int | None
    rest_address: str | None
    servable_options: Mapping[str, str | int | None]
    more_servable_options: Sequence[str]
    limits: Sequence[str]
    auth: str | None
    tls: Mapping[str, str | None]


def as_config(options: StartOptions) -> Draft:
    """The config that the options stand for.

    Raises:
        ConfigFileError: one of them can't be read.
    """
    servables = [
        _table("--servable", {"directory": _scalar("--servable", directory), "name": _scalar("--servable", name)})
        for path in options.servables
        for directory, name in _find(path)
    ]
    common = {**_of_servables(options), **_pairs("--servable-option", options.more_servable_options).entries}
    root = _table(
        "mindserve start",
        {
            "servables": Listing(
                Place("--servable"), tuple(Table(each.place, {**each.entries, **common}) for each in servables)
            ),
            "grpc": _grpc(options),
            "limits": _pairs("--limit", options.limits),
            **_rest(options),
            **_auth(options),
        },
    )
    return read(root, "mindserve start", os.getcwd())


def _of_servables(options: StartOptions) -> dict[str, Entry]:
    found: dict[str, Entry] = {}
    for name, value in options.servable_options.items():
        if value is None:
            continue
        place = Place(f"--{name.replace('_', '-')}")
        node: Node = _scalar(place.file, value)
        if name == "device_ids":
            node = _at(parse(f"[{value}]", place.file), place)
        found[name] = Entry(place, node)
    return found


def _tls(options: StartOptions) -> dict[str, Node]:
    tls = {name: value for name, value in options.tls.items() if value is not None}
    if not tls:
        return {}
    values = {name: _scalar("--tls-cert", value) for name, value in tls.items()}
    if "custom_ca" in values:
        values["verify_client"] = Scalar(Place("--tls-ca"), True, "true")
    return {"ssl_config": _table("--tls-cert", values)}


def _rest(options: StartOptions) -> dict[str, Node]:
    found: dict[str, Node] = {}
    if options.rest_port is not None:
        found["port"] = _scalar("--rest-port", options.rest_port)
    if options.rest_address is not None:
        found["address"] = _scalar("--rest-address", options.rest_address)
    if not found:
        return {}
    option = "--rest-port" if options.rest_port is not None else "--rest-address"
    return {"rest": _table(option, {**found, **_tls(options)})}


def _auth(options: StartOptions) -> dict[str, Node]:
    return {} if options.auth is None else {"auth": _table("--auth", {"keys": _scalar("--auth", options.auth)})}


def _grpc(options: StartOptions) -> Table:
    ssl_config = _tls(options)
    found: dict[str, Node] = {}
    if options.grpc_addresses:
        found["listeners"] = Listing(
            Place("--grpc-address"),
            tuple(
                _table("--grpc-address", {"address": _scalar("--grpc-address", address), **ssl_config})
                for address in options.grpc_addresses
            ),
        )
    else:
        found |= ssl_config
    if options.grpc_port is not None:
        found["port"] = _scalar("--grpc-port", options.grpc_port)
    if options.grpc_servicer_functions:
        place = "--grpc-servicer-functions"
        items = tuple(_scalar(place, path) for path in options.grpc_servicer_functions)
        found["grpc_servicer_functions"] = Listing(Place(place), items)
    return _table("--grpc-port" if options.grpc_port is not None else "--grpc-address", found)


def _find(path: str) -> list[tuple[str, str]]:
    """The directories and names of the servables that ``path`` stands for."""
    whole = Path(os.path.abspath(path))
    if (whole / _CONFIG).is_file():
        return [(str(whole.parent), whole.name)]
    inside = sorted(config.parent.name for config in whole.glob(f"*/{_CONFIG}"))
    if inside:
        return [(str(whole), name) for name in inside]
    what = f"a directory with a {_CONFIG}, or one with such directories in it"
    found = "such a directory is not there"
    if whole.is_dir():
        found = f"in this one there is no {_CONFIG}"
    elif whole.exists():
        found = "this is a file"
    beside = [config.parent.name for config in whole.parent.glob(f"*/{_CONFIG}")]
    hint = did_you_mean(closest(whole.name, beside))
    raise ConfigFileError([Problem(Place("--servable"), f"'{path}' should be {what}, but {found}{hint}")])


def _pairs(option: str, given: Sequence[str]) -> Table:
    entries: dict[str, Entry] = {}
    for pair in given:
        name, equals, value = pair.partition("=")
        place = Place(option)
        if not equals or not name:
            raise ConfigFileError([Problem(place, f"'{pair}' should be NAME=VALUE")])
        if name in entries:
            raise ConfigFileError([Problem(place, f"'{name}' is given twice: expected once")])
        node = parse(value, option) if value else Scalar(place, "", "")
        entries[name] = Entry(place, _at(node, place))
    return Table(Place(option), entries)


def _at(node: Node, place: Place) -> Node:
    """The same at one place: lines and columns inside an option's value say nothing."""
    if isinstance(node, Listing):
        return Listing(place, tuple(_at(item, place) for item in node.items))
    if isinstance(node, Table):
        return Table(place, {key: Entry(place, _at(entry.node, place)) for key, entry in node.entries.items()})
    return dataclasses.replace(node, place=place)


def _table(option: str, values: Mapping[str, Node]) -> Table:
    return Table(Place(option), {key: Entry(node.place, node) for key, node in values.items()})


def _scalar(option: str, value: str | int) -> Scalar:
    return Scalar(Place(option), value, str(value))
