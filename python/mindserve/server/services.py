"""The users' gRPC services of a server: what they are, and whether the servables answer them."""

from __future__ import annotations

import concurrent.futures
import dataclasses
import json
import subprocess
import sys
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from mindserve import logs
from mindserve.control import ReadyRpc, ReadyService
from mindserve.errors import ConfigError
from mindserve.server.servicer import (
    EXPECTED,
    Description,
    NotServicerError,
    describe,
    describe_value,
    is_function,
)
from mindserve.supervisor import module_command

# Services that the server has by itself: no function is needed for them, and none is taken.
BUILT_IN = frozenset(
    {
        "grpc.health.v1.Health",
        "grpc.reflection.v1.ServerReflection",
        "grpc.reflection.v1alpha.ServerReflection",
        "io.seldon.api.rpc.Classifier",
        "mindserve.StreamService",
        "mindspore.serving.proto.MSService",
        "ray.serve.PredictAPIsService",
        "ray.serve.RayServeAPIService",
    }
)
# Seconds for a generated module to be imported: more than that hangs.
_IMPORT_TIMEOUT = 120.0
# Modules that are imported at a time, each in a process of its own.
_PROCESSES = 4

_log = logs.get_logger("server")


@dataclasses.dataclass(frozen=True)
class ImportPath:
    """Where a function is to be imported from. ``given`` as the user wrote it."""

    given: str
    module: str
    function: str

    def __str__(self) -> str:
        return f"'{self.given}'"


@dataclasses.dataclass(frozen=True)
class Given:
    """A function object. Its name is for texts."""

    function: Callable[..., Any]

    def __str__(self) -> str:
        module = getattr(self.function, "__module__", None)
        name = getattr(self.function, "__qualname__", None) or repr(self.function)
        return f"{module}.{name}" if module else str(name)


@dataclasses.dataclass(frozen=True)
class Followed:
    """An import path, and what it has been found to lead to."""

    path: ImportPath
    descriptions: tuple[Description, ...]

    def __str__(self) -> str:
        return str(self.path)


Item = ImportPath | Given | Followed


class NotFoundError(ConfigError):
    """The module of an import path, or one that it imports, lies in none of the places where it was looked for."""


def follow(paths: Sequence[str], directories: Sequence[Path]) -> list[Followed | ConfigError]:
    """Where import paths lead, or what is wrong with them: each is imported, by a process that ends afterwards.

    Args:
        paths: as items of ``grpc_servicer_functions``.
        directories: of the servables: modules may lie there too.

    Returns:
        For each path what `check_functions` and `Described.add` take, without importing it again.
    """
    items = [_parse(path) for path in paths]
    found = _describe_paths(items, directories)
    results: list[Followed | ConfigError] = []
    described = Described()
    for item in items:
        try:
            followed = Followed(item, found[item].descriptions_of(item, directories))
            described = described.add([followed], directories)
            results.append(followed)
        except ConfigError as error:
            results.append(error)
    return results


def check_functions(functions: Any) -> tuple[Item, ...]:
    """The argument ``grpc_servicer_functions``, each item once.

    Raises:
        ConfigError: it is no list, or an item is neither a function nor an import path.
    """
    if functions is None:
        return ()
    if not isinstance(functions, list | tuple):
        raise ConfigError(
            f"Parameter 'grpc_servicer_functions' should be tuple/list, each item {EXPECTED}, but actually "
            f"{type(functions)}"
        )
    items: list[Item] = []
    for each in functions:
        item = each if isinstance(each, Followed) else _parse(each) if isinstance(each, str) else Given(each)
        if isinstance(item, Given) and not is_function(each):
            raise _wrong(_shown(each), describe_value(each))
        if any(_same(item, other) for other in items):
            raise ConfigError(f"The item {item} of parameter 'grpc_servicer_functions' should not be repeated")
        items.append(item)
    return tuple(items)


@dataclasses.dataclass(frozen=True)
class Described:
    """What has been made of the functions that a server was given.

    Attributes:
        services: by their full names: where each is from, and what it is.
        deferred: import paths that lead nowhere as long as no servable's directory is known.
    """

    services: Mapping[str, tuple[Item, Description]] = dataclasses.field(default_factory=dict)
    deferred: tuple[ImportPath, ...] = ()

    def add(self, items: Iterable[Item], directories: Sequence[Path]) -> Described:
        """With what ``items`` add. ``directories``: of the servables; none: what isn't found may come with one.

        Raises:
            ConfigError: an item leads to no function, to one that is no ``add_XServicer_to_server``, or to a service
                that there is already.
        """
        items = tuple(items)
        services, deferred = dict(self.services), list(self.deferred)
        found = _describe_paths([item for item in items if isinstance(item, ImportPath)], directories)
        for item in items:
            if isinstance(item, Given):
                result = _describe_given(item)
            elif isinstance(item, Followed):
                result = item.descriptions
            elif (outcome := found[item]).missing and not directories:
                _log.info("%s: %s; it is looked for again when servables are started", item, outcome.error)
                deferred.append(item)
                continue
            else:
                result = outcome.descriptions_of(item, directories)
            for each in result:
                _add(services, item, each)
        return Described(services, tuple(deferred))

    def resume(self, directories: Sequence[Path]) -> Described:
        """With what `deferred` leads to now.

        Raises:
            ConfigError: as of `add`.
        """
        return Described(self.services).add(self.deferred, directories)

    def native_services(self) -> list[tuple[str, list[tuple[str, bool, bool]]]]:
        """As the native gateway takes them."""
        return [
            (name, [(rpc.name, rpc.client_streaming, rpc.server_streaming) for rpc in each.service.methods])
            for name, (_, each) in self.services.items()
        ]

    def descriptors(self) -> bytes:
        """The services' proto files, each after those that it imports: a serialized FileDescriptorSet.

        A file may be there more than once, and two of one name may differ: those that a file imports are the nearest
        before it. The gateway sorts that out.
        """
        closures = dict.fromkeys(each.files for _, each in self.services.values())
        return b"".join(_field_1(file.descriptor) for files in closures for file in files)


class Services:
    """The services of one server, and the judgement over what its workers answer. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._described = Described()
        self._answered = False  # all of them, once

    @property
    def described(self) -> Described:
        with self._lock:
            return self._described

    def set(self, described: Described) -> None:
        with self._lock:
            self._described = described
            self._answered = False

    def note_answered(self) -> None:
        """Notes that servables which answer all of them have started.

        One that is gone later, as its worker was told to end, is not missing from what has nothing to do with it.
        """
        with self._lock:
            self._answered = True

    def wrong(self, servable: str, answered: Sequence[ReadyService]) -> str:
        """What a servable answers otherwise than its service has it; empty: nothing."""
        services = self.described.services
        for service in answered:
            if service.name not in services:
                continue
            item, description = services[service.name]
            known = {rpc.name: rpc for rpc in description.service.methods}
            for rpc in service.methods:
                if rpc.name not in known:
                    return (
                        f"servable '{servable}' answers method '{rpc.name}', which service '{service.name}' of {item} "
                        f"does not have; it has {_quoted(known)}"
                    )
                if rpc != known[rpc.name]:
                    return (
                        f"servable '{servable}' answers method '{service.name}/{rpc.name}' as {_signature(rpc)}, but "
                        f"{item} has it as {_signature(known[rpc.name])}: generate their modules from one proto file"
                    )
        return ""

    def unanswered(self, answered: Mapping[str, Sequence[ReadyService]], replaced: Iterable[ReadyService] = ()) -> str:
        """Which services none of the servables answers, by what each of them does; empty: none.

        Args:
            answered: by the servables' names.
            replaced: what was answered by workers that others are to take the place of.
        """
        names = {service.name for services in answered.values() for service in services}
        with self._lock:
            services, all_known = self._described.services, self._answered
        expected = {service.name for service in replaced} if all_known else services.keys()
        lines = [
            f"Service '{name}' of {item} is answered by no servable: a servable_config.py has to register a handler "
            f"for one of its methods, {_quoted(rpc.name for rpc in each.service.methods)}"
            for name, (item, each) in services.items()
            if name in expected and name not in names
        ]
        if not lines:
            return ""
        instead = [
            f"servable '{servable}' answers {_quoted(service.name for service in services) or 'no service'}"
            for servable, services in answered.items()
        ]
        return "\n".join([*lines, f"Started are: {'; '.join(instead)}"])

    def unlisted(self, answered: Mapping[str, Sequence[ReadyService]]) -> list[str]:
        """Warnings of services that servables answer but clients can't call, since the server wasn't told of them."""
        described = self.described
        known = described.services.keys() | BUILT_IN
        return [
            f"servable '{servable}' answers service '{name}', which clients can't call: parameter "
            "'grpc_servicer_functions' of start_grpc_server does not have it"
            for servable, services in answered.items()
            for name in dict.fromkeys(service.name for service in services)
            if name not in known
        ]


@dataclasses.dataclass(frozen=True)
class _Outcome:
    """Of an attempt to describe what an import path leads to."""

    descriptions: tuple[Description, ...] = ()
    error: str = ""
    missing: bool = False
    lacking: str = ""  # the file of a module that has nothing of the function's name

    def descriptions_of(self, item: ImportPath, directories: Sequence[Path]) -> tuple[Description, ...]:
        """What ``item`` was found to lead to.

        Raises:
            ConfigError: to nothing, or to something else.
        """
        if self.missing:
            raise NotFoundError(_wrong_text(str(item), f"{self.error}{_where(directories)}"))
        if self.error:
            raise _wrong(str(item), self.error)
        return self.descriptions

    def may_be_in(self, directory: Path, module: str) -> bool:
        """Whether it may be in another module of that name, which the directory holds."""
        return bool(self.lacking) and _holds(directory, module) and not Path(self.lacking).is_relative_to(directory)


def _parse(text: str) -> ImportPath:
    module, _, function = text.rpartition(":" if ":" in text else ".")
    if not function.isidentifier() or not all(part.isidentifier() for part in module.split(".")):
        raise _wrong(f"'{text}'", "that is no import path: expected 'module.function' or 'package.module:function'")
    return ImportPath(text, module, function)


def _same(one: Item, other: Item) -> bool:
    one, other = (each.path if isinstance(each, Followed) else each for each in (one, other))
    if isinstance(one, ImportPath) and isinstance(other, ImportPath):
        return (one.module, one.function) == (other.module, other.function)
    return isinstance(one, Given) and isinstance(other, Given) and one.function == other.function


def _describe_given(item: Given) -> tuple[Description, ...]:
    try:
        return tuple(describe(item.function))
    except NotServicerError as error:
        raise _wrong(str(item), str(error)) from error


def _describe_paths(items: Sequence[ImportPath], directories: Sequence[Path]) -> dict[ImportPath, _Outcome]:
    found = _describe_in(items, sys.path, directories)
    # Servables may have modules of one name for services of their own: what the first of them lacks, another may have.
    for directory in directories:
        left = [item for item, outcome in found.items() if outcome.may_be_in(directory, item.module)]
        again = _describe_in(left, [str(directory), *sys.path])
        found.update({item: outcome for item, outcome in again.items() if outcome.descriptions})
    return found


def _describe_in(
    items: Sequence[ImportPath], path: Sequence[str], directories: Sequence[Path] = ()
) -> dict[ImportPath, _Outcome]:
    """What each leads to, looked for in ``path`` and then in ``directories``."""
    by_module: dict[str, list[ImportPath]] = {}
    for item in items:
        by_module.setdefault(item.module, []).append(item)
    found: dict[ImportPath, _Outcome] = {}
    with concurrent.futures.ThreadPoolExecutor(_PROCESSES) as pool:
        outcomes = pool.map(
            lambda module: _ask(
                [*path, *_nearest_first(directories, module)], module, [each.function for each in by_module[module]]
            ),
            by_module,
        )
        for members, results in zip(by_module.values(), outcomes, strict=True):
            found.update(zip(members, results, strict=True))
    return found


def _nearest_first(directories: Sequence[Path], module: str) -> list[str]:
    """Those that have the module before the others, so that what it imports comes from where it lies itself."""
    return [str(directory) for directory in sorted(directories, key=lambda each: not _holds(each, module))]


def _holds(directory: Path, module: str) -> bool:
    top = module.partition(".")[0]
    return (directory / top).is_dir() or (directory / f"{top}.py").is_file()


def _ask(path: Sequence[str], module: str, functions: Sequence[str]) -> list[_Outcome]:
    """Runs `mindserve.server.describe` for the functions of one module."""
    request = json.dumps({"path": path, "module": module, "functions": functions}) + "\n"
    error = ""
    try:
        process = subprocess.run(
            module_command("mindserve.server.describe"),
            input=request.encode(),
            stdout=subprocess.PIPE,
            timeout=_IMPORT_TIMEOUT,
            check=False,
            # Ctrl-C at the terminal is the server's to hear.
            start_new_session=True,
        )
        results = [_decode(result) for result in json.loads(process.stdout)["results"]]
        if len(results) == len(functions):
            return results
    except subprocess.TimeoutExpired:
        error = f"importing its module '{module}' takes more than {_IMPORT_TIMEOUT:g} s"
    except OSError as caught:
        error = f"its module '{module}' can't be imported, no process for it can be started: {caught}"
    except (ValueError, KeyError, TypeError):
        pass  # It ended before it could answer.
    error = error or f"importing its module '{module}' ends the process: status {process.returncode}"
    return [_Outcome(error=error) for _ in functions]


def _decode(result: Any) -> _Outcome:
    match result:
        case list(descriptions):
            return _Outcome(descriptions=tuple(map(Description.from_json, descriptions)))
        case {"error": str(error), "missing": bool(missing), "lacking": str(lacking)}:
            return _Outcome(error=error, missing=missing, lacking=lacking)
    raise ValueError(f"no result of a description: {result!r}")


def _add(services: dict[str, tuple[Item, Description]], item: Item, each: Description) -> None:
    name = each.service.name
    if name in BUILT_IN:
        raise ConfigError(
            f"The item {item} of parameter 'grpc_servicer_functions' is for service '{name}', which the server has by "
            "itself: leave it out"
        )
    if name in services:
        raise ConfigError(
            f"The items {services[name][0]} and {item} of parameter 'grpc_servicer_functions' are for the same "
            f"service '{name}': give one of them"
        )
    services[name] = (item, each)


def _wrong(item: str, found: str) -> ConfigError:
    return ConfigError(_wrong_text(item, found))


def _wrong_text(item: str, found: str) -> str:
    return f"The item {item} of parameter 'grpc_servicer_functions' should be {EXPECTED}, but actually {found}"


def _where(directories: Sequence[Path]) -> str:
    places = ", ".join(f"'{directory}'" for directory in directories)
    return f"; looked for in the start script's sys.path and in the servables' directories: {places}"


def _shown(value: Any) -> str:
    text = value.__name__ if isinstance(value, type) else repr(value)
    return text if len(text) <= 100 else f"{text[:100]}…"


def _quoted(names: Iterable[str]) -> str:
    return ", ".join(f"'{name}'" for name in dict.fromkeys(names))


def _signature(rpc: ReadyRpc) -> str:
    client = "stream " if rpc.client_streaming else ""
    server = "stream " if rpc.server_streaming else ""
    return f"({client}{rpc.input_type}) returns ({server}{rpc.output_type})"


def _field_1(value: bytes) -> bytes:
    """Protobuf's encoding of field 1 with these bytes: an item of a FileDescriptorSet."""
    length, header = len(value), bytearray(b"\x0a")
    while length >= 0x80:
        header.append(length & 0x7F | 0x80)
        length >>= 7
    header.append(length)
    return bytes(header) + value
