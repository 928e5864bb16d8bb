"""The cases (a) to (o): what a request costs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
from calls import Call, add
from classifier import classifier_cases
from json_bodies import measure_json
from load import Load, Pattern, Running
from models import LARGE, SMALL
from python_client import measure_client
from report import FIGURES, Column, Section
from resnet50 import measure_resnet50
from rounds import Case, Timing, measure
from servers import Servers
from services import measure_open_streams, measure_streams, measure_unary
from splits import measure_split

NAMES = "abcdefghijklmno"

_COLUMNS: list[Column] = [
    ("case", "case", ""),
    ("connections x calls", "pattern", ""),
    ("server", "server", ""),
    *FIGURES,
]


def run_cases(names: str, servers: Servers, resnet50: Path | None, timing: Timing) -> Iterator[tuple[str, Section]]:
    """Measures the cases of these names. Those under h2load take turns with each other, too.

    Args:
        names: letters of `NAMES`.
        servers: starts what is needed.
        resnet50: the model of case (e), which cannot be without.
        timing: how often and how long.
    """
    groups = {name: build(servers) for name, build in _UNDER_H2LOAD.items() if name in names}
    if groups:
        rows = measure("cases", [case for cases in groups.values() for case in cases], timing)
        for name, cases in groups.items():
            titles = [case.fields["case"] for case in cases]
            yield name, Section(_COLUMNS, [row for row in rows if row["case"] in titles], timing.made)
    if "e" in names:
        assert resnet50 is not None
        yield "e", measure_resnet50(servers, resnet50, timing)
    if "g" in names:
        yield "g", measure_client(servers, timing)
    for name, measure_service in (("h", measure_unary), ("i", measure_streams), ("j", measure_open_streams)):
        if name in names:
            yield name, measure_service(servers, timing)
    if "k" in names:
        yield "k", measure_json(timing)
    if "o" in names:
        yield "o", measure_split(servers, timing)


def small_add(servers: Servers, server: Running) -> list[Load]:
    """The small add, for the do-nothing server and this one."""
    load = servers.load("mindserve", server, add())
    return [servers.ceiling(load), load]


def _small_add(servers: Servers) -> list[Case]:
    title = {"case": "(a) small add"}
    loads = _with_grpcio(servers)
    # grpcio's server refuses calls when 1,000 wait, so it stays out of the last.
    return [
        Case(title, Pattern(4, 16), loads),
        Case(title, Pattern(64, 1), loads),
        Case(title, Pattern(256, 4), loads[:2]),
    ]


def _one_at_a_time(servers: Servers) -> list[Case]:
    return [Case({"case": "(b) one at a time"}, Pattern(1, 1), _with_grpcio(servers))]


def _large(servers: Servers) -> list[Case]:
    value = np.ones(LARGE, np.float32)
    call = Call("bench", "take_head", [{"x": value}], [value[:SMALL]])
    served = servers.mindserve("large")
    cases = []
    for kind, server in (("TCP", served.tcp), ("Unix socket", served.unix)):
        load = servers.load("mindserve", server, call)
        loads = [servers.ceiling(load), load]
        cases += [Case({"case": f"(c) 602 KB, {kind}"}, pattern, loads) for pattern in (Pattern(1, 1), Pattern(4, 16))]
    return cases


def _python_stage(servers: Servers) -> list[Case]:
    server = servers.mindserve("small").tcp
    one = servers.load("per instance", server, add(method="add_cast"))
    many = servers.load("as a batch", server, add(method="add_cast_batch"))
    return [Case({"case": "(d) Python stage"}, Pattern(4, 16), [servers.ceiling(one), one, many])]


def _tls(servers: Servers) -> list[Case]:
    served = servers.mindserve("small")
    loads = [servers.load(name, server, add()) for name, server in (("plain", served.tcp), ("TLS", served.tls))]
    return [Case({"case": "(f) TLS"}, pattern, loads) for pattern in (Pattern(4, 16), Pattern(64, 1))]


def _http(servers: Servers) -> list[Case]:
    served = servers.mindserve("small")
    ones = [[1.0, 2.0], [3.0, 4.0]]
    loads = [
        servers.load("gRPC", served.tcp, add()),
        servers.load_json("HTTP, JSON", served.rest, "/model/bench:add_common", [{"x1": ones, "x2": ones}]),
    ]
    # HTTP/1.1 has one request at a time on each connection.
    return [
        Case({"case": "(l) small add by HTTP"}, pattern, loads)
        for pattern in (Pattern(1, 1), Pattern(16, 1), Pattern(64, 1))
    ]


def _tokens(servers: Servers) -> list[Case]:
    # The header itself costs as much with both: what is compared is the check.
    asks = servers.with_token()
    ignores = replace(servers.mindserve("small").tcp, token=asks.token)
    loads = [servers.load(name, server, add()) for name, server in (("not asked for", ignores), ("asked for", asks))]
    return [
        Case({"case": "(m) small add with a token"}, pattern, loads) for pattern in (Pattern(4, 16), Pattern(64, 1))
    ]


def _with_grpcio(servers: Servers) -> list[Load]:
    return [*small_add(servers, servers.mindserve("small").tcp), servers.load("grpcio", servers.grpcio(), add())]


_UNDER_H2LOAD: dict[str, Callable[[Servers], list[Case]]] = {
    "a": _small_add,
    "b": _one_at_a_time,
    "c": _large,
    "d": _python_stage,
    "f": _tls,
    "l": _http,
    "m": _tokens,
    "n": classifier_cases,
}
