"""What a server serves, as its REST server shows it."""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterable

from mindserve.auth.authority import Authority
from mindserve.control import ReadyMethod
from mindserve.proto import CLASSIFY
from mindserve.rest.context import Backend, ServedClassifier, ServedMethod, ServedService, ServedVersion
from mindserve.server.services import Described, Services
from mindserve.server.traffic_table import TrafficTable
from mindserve.supervisor import Supervisor


def make_backend(
    supervisor: Supervisor,
    services: Services,
    ready: Callable[[], bool],
    traffic: TrafficTable,
    authority: Authority | None = None,
) -> Backend:
    """What a REST server asks of the parts of a server.

    Args:
        supervisor: knows the workers.
        services: of the users.
        ready: whether requests are taken.
        traffic: which names are split.
        authority: who may call; None: everybody.
    """

    def streams(servable: str, method: str, version: int) -> bool:
        split = None if version else traffic.get(servable)
        if split is None:
            return supervisor.streams(servable, method, version)
        return any(supervisor.streams(each.servable, method, each.version) for each in split.variations if each.weight)

    return Backend(ready, _Shown(services).get, lambda: list_versions(supervisor), authority, traffic.splits, streams)


class _Shown:
    """The users' services in the form of a REST server, made anew only when they have changed."""

    def __init__(self, services: Services) -> None:
        self._services = services
        # Together, for whichever thread looks.
        self._made: tuple[Described | None, tuple[ServedService, ...]] = (None, ())

    def get(self) -> tuple[ServedService, ...]:
        described = self._services.described
        known, shown = self._made
        if known is not described:
            shown = tuple(
                ServedService(each.service, tuple(file.descriptor for file in each.files))
                for _, each in described.services.values()
            )
            self._made = (described, shown)
        return shown


def list_versions(supervisor: Supervisor) -> list[ServedVersion]:
    """All versions of servables that have a worker, or a place for one."""
    methods = supervisor.methods()
    workers: dict[tuple[str, int], int] = {}
    for state in supervisor.states():
        key = (state.servable, state.version)
        if not state.draining:
            workers[key] = workers.get(key, 0) + state.ready
    found: list[ServedVersion] = []
    for (servable, version), count in sorted(workers.items()):
        served = methods.get((servable, version), ())
        paths = dict.fromkeys(
            each.name[1:].partition("/")[0] for each in served if each.name.startswith("/") and not each.streaming_name
        )
        found.append(
            ServedVersion(
                servable,
                version,
                count > 0,
                count,
                tuple(
                    ServedMethod(
                        each.streaming_name or each.name,
                        each.inputs,
                        each.outputs,
                        each.input_types,
                        each.output_types,
                        bool(each.streaming_name),
                    )
                    for each in served
                    if each.streaming_name or not each.name.startswith("/")
                ),
                tuple(paths),
                _classifier(served),
            )
        )
    return found


def _classifier(methods: Iterable[ReadyMethod]) -> ServedClassifier | None:
    method = next((each for each in methods if each.name == CLASSIFY), None)
    return None if method is None else ServedClassifier(method.messages, tuple(map(base64.b64decode, method.files)))
