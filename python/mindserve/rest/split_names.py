"""Names that are split between servables or versions, as what clients may call."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence

from mindserve.control import TensorType
from mindserve.rest.context import ServedMethod, ServedVersion
from mindserve.traffic import Split, Variation

Types = tuple[TensorType | None, ...]


@dataclasses.dataclass(frozen=True)
class SplitName:
    """A name that is split.

    Attributes:
        name: what clients call.
        ready: whether a variation that gets calls is.
        variations: who answers, as it was given.
        methods: those of the first variation that gets calls and is known; with the types that the others agree in.
        services: the gRPC services that variations answer which get calls.
    """

    name: str
    ready: bool
    variations: tuple[Variation, ...]
    methods: tuple[ServedMethod, ...]
    services: tuple[str, ...]


def describe_splits(splits: Iterable[Split], versions: Sequence[ServedVersion]) -> list[SplitName]:
    """What is known of the names that are split, by what is served."""
    found = []
    for split in splits:
        answering = [_versions_of(each, versions) for each in split.variations if each.weight > 0]
        known = answering_versions(split, versions)
        found.append(
            SplitName(
                name=split.name,
                ready=any(version.ready for each in answering for version in each),
                variations=split.variations,
                methods=_common_methods(known),
                services=tuple(dict.fromkeys(service for version in known for service in version.services)),
            )
        )
    return found


def meant_names(answering: Iterable[str], splits: Iterable[Split]) -> set[str]:
    """The names of which a client may mean one that names none, as the gateway has it.

    A name that is split stands for its variations' servables; its mirrors' are not for clients.

    Args:
        answering: servables that answer what is called.
        splits: all that there are.
    """
    servables = set(answering)
    split = [each for each in splits if any(part.servable in servables for part in each.variations)]
    behind = {part.servable for each in split for part in each.variations}
    behind |= {part.servable for each in split for part in each.mirrors}
    return (servables - behind) | {each.name for each in split}


def answering_versions(split: Split, versions: Sequence[ServedVersion]) -> list[ServedVersion]:
    """Those that calls of a name that is split may go to, the newest of each variation."""
    found = [_versions_of(each, versions) for each in split.variations if each.weight > 0]
    return [each[-1] for each in found if each and (each[-1].methods or each[-1].services)]


def _versions_of(variation: Variation, versions: Iterable[ServedVersion]) -> list[ServedVersion]:
    """Those that may answer, the newest that is known at the end."""
    found = [
        each for each in versions if each.servable == variation.servable and variation.version in (0, each.version)
    ]
    return sorted(found, key=lambda each: (bool(each.methods or each.services), each.version))


def _common_methods(versions: Sequence[ServedVersion]) -> tuple[ServedMethod, ...]:
    if not versions:
        return ()
    first, *others = versions
    methods = []
    for method in first.methods:
        same = [each for version in others for each in version.methods if each.name == method.name]
        methods.append(
            dataclasses.replace(
                method,
                input_types=_agreed(
                    method.inputs, method.input_types, [(each.inputs, each.input_types) for each in same]
                ),
                output_types=_agreed(
                    method.outputs, method.output_types, [(each.outputs, each.output_types) for each in same]
                ),
                streaming=method.streaming or any(each.streaming for each in same),
            )
        )
    return tuple(methods)


def _agreed(names: Sequence[str], types: Types, others: Iterable[tuple[Sequence[str], Types]]) -> Types:
    """The types of those names for which all say the same."""
    by_name = dict(zip(names, types, strict=False))
    for other_names, other_types in others:
        said = dict(zip(other_names, other_types, strict=False))
        by_name = {name: known if said.get(name) == known else None for name, known in by_name.items()}
    return tuple(by_name.get(name) for name in names)
