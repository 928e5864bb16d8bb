"""Whether the parts of a config file agree with each other."""

from __future__ import annotations

from collections.abc import Iterator

from mindserve.config import SHARED_PARAMETERS, Limits, disagreement
from mindserve.configfile.settings import GrpcSettings, RestSettings
from mindserve.configfile.shapes import Made, Path
from mindserve.errors import ConfigError
from mindserve.traffic import Mirror, Split, Variation


def disagreements(made: dict[Path, Made]) -> Iterator[tuple[Path, str]]:
    """Where parts disagree, and how. What is doubtful agrees with everything.

    Args:
        made: the objects that a file stands for, by their ways from its root.
    """
    yield from _of_servables({path: each for path, each in made.items() if path[:1] == ("servables",)})
    yield from _of_traffic(made)
    yield from _of_sizes(made.get(("grpc",)), made.get(("limits",)))
    for section in ("grpc", "rest"):
        yield from _of_auth(made.get(("auth",)), made.get((section,)))


def _of_servables(made: dict[Path, Made]) -> Iterator[tuple[Path, str]]:
    for parameter in SHARED_PARAMETERS:
        usable = [(path, each) for path, each in made.items() if not {"servable_name", parameter} & {*each.doubtful}]
        for number, (path, each) in enumerate(usable):
            # With the first of its name: a third that agrees with neither is told once.
            first = next(other for _, other in usable if other.value.servable_name == each.value.servable_name)
            if number and (wrong := disagreement(first.value, each.value, parameter)):
                yield (*path, parameter.replace("servable_directory", "directory")), wrong


def _of_traffic(made: dict[Path, Made]) -> Iterator[tuple[Path, str]]:
    servables = [each for path, each in made.items() if path[:1] == ("servables",)]
    if any("servable_name" in each.doubtful for each in servables):
        return
    names = {each.value.servable_name for each in servables}
    splits: set[str] = set()
    for path, each in made.items():
        if isinstance(each.value, Split) and "name" not in each.doubtful:
            if each.value.name in splits:
                yield (*path, "name"), f"'name' is '{each.value.name}' again: expected a name once"
            splits.add(each.value.name)
        elif isinstance(each.value, Variation | Mirror) and _is_unknown(each, names):
            known = ", ".join(f"'{name}'" for name in sorted(names))
            text = f"'servable' is '{each.value.servable}', expected one of 'servables': {known}"
            yield (*path, "servable"), text


def _is_unknown(made: Made, servables: set[str]) -> bool:
    return "servable" not in made.doubtful and made.value.servable not in servables


def _of_sizes(grpc: Made | None, limits: Made | None) -> Iterator[tuple[Path, str]]:
    name = "max_msg_mb_size"
    if grpc is None or limits is None or name in {*grpc.doubtful, *limits.doubtful}:
        return
    given, limit = grpc.value.max_msg_mb_size, limits.value.max_msg_mb_size
    if given is not None and limit not in (given, Limits().max_msg_mb_size):
        yield ("limits", name), f"'{name}' is {limit} in 'limits', but {given} in 'grpc': expected it once"


def _of_auth(auth: Made | None, section: Made | None) -> Iterator[tuple[Path, str]]:
    if auth is None or section is None or auth.doubtful or section.doubtful:
        return
    answers: GrpcSettings | RestSettings = section.value
    listeners = answers.all_listeners() if isinstance(answers, GrpcSettings) else [answers.listener()]
    for listener in listeners:
        try:
            auth.value.check_listener(listener)
        except ConfigError as error:
            yield ("auth",), str(error)
            return
