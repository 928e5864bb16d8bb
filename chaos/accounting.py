"""The verdict: every request has one end that is proper for what happened, and the server is as it was."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from chaos.calls import DEADLY, INSTANCES_PER_REQUEST
from chaos.events import Fault
from chaos.ledger import Ended, Entry, Ledger
from chaos.resources import Process, Snapshot
from chaos.work import INNER, MARKED, NOTE, STREAMS, TELL

Outcome = Literal["right", "refused", "too late", "unavailable", "cancelled", "client killed", "offence"]
OUTCOMES: tuple[Outcome, ...] = (
    *("right", "refused", "too late", "unavailable", "cancelled", "client killed", "offence"),
)

# What the times below are multiplied by, on a machine of whose cores others take much.
_SLACK = float(os.environ.get("CHAOS_SLACK", "1"))
# Seconds within which a servable without workers must refuse a request, and serve again.
AT_ONCE = 1.0 * _SLACK
SERVED_AGAIN = 3.0 * _SLACK
# Seconds by which a call may end before its deadline: on a machine that has more to do than cores, the server may read
# a call a while after it has looked at its clock.
_EARLY = 0.02 * _SLACK
# What stands in a refusal of what can't be in time.
_HOPELESS = ("refused by refuse_late", "can have run")
# Seconds by which a request may end after its fault is seen to be over.
_SEEN_LATE = 1.0 * _SLACK
# Codes that are always a failure of the server.
_NEVER = frozenset({"INTERNAL", "UNKNOWN", "DATA_LOSS", "UNIMPLEMENTED", "INVALID_ARGUMENT", "ABORTED"})
# Methods that must not be executed again. They leave a mark when they are.
_UNREPEATABLE = frozenset({("once", "once"), *((method.servable, method.name) for method in MARKED)})
# Streams that may go to another worker until something of them was sent.
_STREAMED = frozenset((method.servable, method.name) for method in (*STREAMS, TELL) if method not in MARKED)
# The servables that methods call in their turn: what they end with, the methods do.
_CALLED = {"Compose": ("half", "work"), "ComposePlain": ("half", "work"), "ComposeCount": ("work",)}
# What stands in UNAVAILABLE of a call that could have gone to another worker: once it has begun, or has answered.
_BEGUN = ("may have begun", "may have been executed")
_ANSWERED = "A part of the answer had been sent"
_MIB = 1 << 20


@dataclass(frozen=True)
class Tolerance:
    """How much more memory may be held in the end than after warming up.

    Attributes:
        own_bytes: of a process: the heaps of Python and of the C library keep pages for reuse, and which thread's keeps
            how many is chance.
        shared_bytes: in all: an arena keeps its peak, which is near the most that was enqueued at one time, and that
            was not the same before and after.
        threads: of a process: a model gets one of its own when a run of it first takes long.
    """

    own_bytes: int
    shared_bytes: int
    threads: int


@dataclass
class Account:
    """What came of the requests.

    Attributes:
        outcomes: how many requests had which outcome, by transport.
        methods: likewise, by servable and method.
        offences: what must not have happened, in words.
    """

    outcomes: dict[str, Counter[Outcome]] = field(default_factory=dict)
    methods: dict[tuple[str, str], Counter[Outcome]] = field(default_factory=dict)
    offences: list[str] = field(default_factory=list)

    @property
    def total(self) -> Counter[Outcome]:
        """Over all transports."""
        return sum(self.outcomes.values(), Counter())


def account_requests(ledgers: Iterable[Ledger], faults: Sequence[Fault], limits: Iterable[str]) -> Account:
    """Every request's outcome.

    Args:
        ledgers: of all client processes.
        faults: that there were.
        limits: names of the limits, of which one must stand in a refusal.
    """
    account = Account()
    names = tuple(limits)
    for ledger in ledgers:
        for entry in ledger.entries.values():
            outcome, complaint = _judge(entry, ledger.killed, faults, names)
            account.outcomes.setdefault(entry.sent.transport, Counter())[outcome] += 1
            account.methods.setdefault((entry.sent.servable, entry.sent.method), Counter())[outcome] += 1
            if complaint:
                account.offences.append(f"{_describe(entry)} of {ledger.name}: {complaint}")
    return account


def check_executions(ledgers: Iterable[Ledger], marks: Iterable[int]) -> list[str]:
    """Offences: an instance that was executed twice, one that was answered and never executed.

    Args:
        ledgers: of all client processes.
        marks: the instances that were executed, by their numbers, as often as they were.
    """
    executed = Counter(marks)
    twice = [number for number, count in executed.items() if count > 1]
    offences = [f"instance {number} was executed {executed[number]} times" for number in twice]
    for ledger in ledgers:
        for number, entry in ledger.entries.items():
            sent = entry.sent
            if (sent.servable, sent.method) not in _UNREPEATABLE or not any(
                ended.kind == "right" for ended in entry.ended
            ):
                continue
            first = number * INSTANCES_PER_REQUEST
            instances = sent.instances if sent.servable == "once" else 1
            missing = [mark for mark in range(first, first + instances) if mark not in executed]
            if missing:
                offences.append(f"{_describe(entry)} of {ledger.name}: answered, instance {missing[0]} not executed")
    return offences


def check_begun(ledgers: Sequence[Ledger], faults: Iterable[Fault], threads: int) -> list[str]:
    """Offences: more calls were lost with a worker than it can have begun.

    Args:
        ledgers: of all client processes.
        faults: that there were.
        threads: that a worker has for plain handlers.
    """
    offences = []
    for fault in faults:
        if fault.excuses != "begun" or fault.servable != NOTE.servable:
            continue
        lost = sum(
            fault.began <= ended.at <= fault.ended + _SEEN_LATE
            for ledger in ledgers
            for entry in ledger.entries.values()
            if entry.sent.method == NOTE.name
            for ended in entry.ended
            if ended.code == "UNAVAILABLE"
        )
        if lost > threads:
            offences.append(
                f"{fault.kind}: {lost} calls of {NOTE.name} were lost with a worker of {threads} handler threads"
            )
    return offences


def check_streams(notes: Iterable[str], alive: Iterable[int]) -> list[str]:
    """Offences: a stream's handler that has not ended, in a worker that lives, though nothing is under way.

    Args:
        notes: of the handlers, in their order: "begin METHOD PID NUMBER" and "end METHOD PID NUMBER" among others.
        alive: process ids of the workers.
    """
    begun: Counter[tuple[str, int]] = Counter()
    for what, *values in (note.split() for note in notes):
        if what in ("begin", "end"):
            begun[values[0], int(values[1])] += 1 if what == "begin" else -1
    living = set(alive)
    return [
        f"{count} handlers of {method} have not ended in worker {pid}"
        for (method, pid), count in begun.items()
        if count and pid in living
    ]


def check_recoveries(ledgers: Sequence[Ledger], faults: Iterable[Fault]) -> tuple[dict[str, list[float]], list[str]]:
    """How soon servables whose workers were all killed answered again, by servable; and offences."""
    seconds: dict[str, list[float]] = {}
    offences = []
    for fault in faults:
        if fault.excuses != "everything":
            continue
        ends = [
            ended.at - fault.began
            for ledger in ledgers
            for entry in ledger.entries.values()
            if entry.sent.servable == fault.servable and fault.began < entry.sent.at
            for ended in entry.ended
            if ended.kind == "right"
        ]
        if not ends:
            offences.append(f"{fault.kind}: {fault.servable} was not served again")
            continue
        seconds.setdefault(fault.servable, []).append(min(ends))
        if min(ends) > SERVED_AGAIN:
            offences.append(
                f"{fault.kind}: {fault.servable} was served again after {min(ends):.2f} s, not within {SERVED_AGAIN} s"
            )
    return seconds, offences


def check_counts(ledgers: Iterable[Ledger], notes: Iterable[str], stats: Mapping[str, Any]) -> list[str]:
    """Offences in what the server counted, now that nothing is under way.

    Args:
        ledgers: of all client processes.
        notes: of handlers that call others: "call METHOD" before they do, "done METHOD" when that was answered.
        stats: `mindserve.server.stats`.
    """
    offences = [
        f"the server still counts {name}: {stats[name]}"
        for name in ("in_flight", "enqueued_bytes", "connections")
        if stats[name]
    ]
    offences += [f"a worker still holds instances: {worker}" for worker in stats["workers"] if worker["in_flight"]]
    if stats["requests"] != stats["replies"] + stats["errors"]:
        offences.append(
            f"the server counts {stats['requests']} requests, {stats['replies']} replies and {stats['errors']} errors"
        )
    ended: dict[tuple[str, str], Counter[str]] = {}
    inner = {name: Counter[str]() for name in INNER}
    for method in stats["methods"]:
        called = ended.setdefault((method["servable"], method["method"]), Counter())
        inner.get(method["method"], called).update(method["ended"])
        bad = {code: count for code, count in method["ended"].items() if code in _NEVER}
        bad |= {
            code: count for code, count in method["errors"].items() if code not in _ERRORS.get(method["method"], ())
        }
        if bad:
            offences.append(f"the server counts for {method['servable']}.{method['method']}: {bad}")
    noted = Counter(notes)
    # Calls that came while nothing served them are counted without a servable, also those that handlers make.
    unserved = ended.pop(("", ""), Counter())
    refused_inner = sum(noted[f"call {name}"] - counted.total() for name, counted in inner.items())
    for name, counted in inner.items():
        made, answered = noted[f"call {name}"], noted[f"done {name}"]
        # A handler may end, or its worker die, before what it has noted leaves it, or what was answered reaches it.
        if counted.total() > made or counted["OK"] < answered:
            offences.append(
                f"the server counts {counted.total()} calls of {name} and answers {counted['OK']}, handlers have made"
                f" {made} and got {answered}"
            )
    return offences + _join(ledgers, ended, unserved.total(), refused_inner)


def compare(before: Snapshot, after: Snapshot, tolerance: Tolerance) -> list[str]:
    """Offences: what the server holds more than it did, or less of what it must hold."""
    offences = []
    for role in dict.fromkeys((*before.roles, *after.roles)):
        old, new = before.of(role), after.of(role)
        if len(old) != len(new):
            offences.append(f"{len(new)} processes of {role}, there were {len(old)}")
            continue
        most = _most_descriptors(old)
        for kind, count in _most_descriptors(new).items():
            if count > most.get(kind, 0):
                offences.append(f"{role} has {count} descriptors of the kind '{kind}', it had {most.get(kind, 0)}")
        threads = [max(process.threads for process in processes) for processes in (old, new)]
        if threads[1] > threads[0] + tolerance.threads:
            offences.append(f"{role} has {threads[1]} threads, it had {threads[0]}")
        own = [max(process.own_bytes for process in processes) for processes in (old, new)]
        if own[1] > own[0] + tolerance.own_bytes:
            offences.append(f"{role} has {own[1] / _MIB:.1f} MiB of its own, it had {own[0] / _MIB:.1f} MiB")
    shared = [sum(process.shared_bytes for process in snapshot.processes) for snapshot in (before, after)]
    if shared[1] > shared[0] + tolerance.shared_bytes:
        offences.append(f"{shared[1] / _MIB:.1f} MiB of memory are shared, it was {shared[0] / _MIB:.1f} MiB")
    left = Counter(after.files) - Counter(before.files)
    offences += [f"a file is left behind: {file}" for file in left.elements()]
    return offences


# Errors within replies that the load provokes, by the method.
_ERRORS = {"look_up": ("INVALID_INPUT",)}


def _judge(entry: Entry, killed: bool, faults: Sequence[Fault], limits: tuple[str, ...]) -> tuple[Outcome, str]:
    """The request's outcome, and what is wrong with it."""
    if not entry.ended:
        return ("client killed", "") if killed else ("offence", "it has no outcome")
    if len(entry.ended) > 1:
        return "offence", f"it has {len(entry.ended)} outcomes: {entry.ended}"
    (ended,) = entry.ended
    if ended.kind == "right":
        return "right", ""
    if ended.kind == "wrong":
        return "offence", f"wrong answer: {ended.details}"
    outcome = _proper(entry, ended, faults, limits)
    if outcome is not None:
        return outcome, ""
    seconds = ended.at - entry.sent.at
    return "offence", f"improper {ended.code} after {seconds:.3f} s: {ended.details}"


def _proper(entry: Entry, ended: Ended, faults: Sequence[Fault], limits: tuple[str, ...]) -> Outcome | None:
    """The outcome that a status is; None if it is not proper for what happened."""
    sent = entry.sent
    if ended.code == "CANCELLED" and entry.cancelled_at is not None:
        return "cancelled"
    if ended.code == "DEADLINE_EXCEEDED" and sent.timeout is not None:
        passed = ended.at - sent.at >= sent.timeout - _EARLY
        return "too late" if passed or any(text in ended.details for text in _HOPELESS) else None
    if ended.code == "RESOURCE_EXHAUSTED" and any(name in ended.details for name in limits):
        return "refused"
    if ended.code == "UNAVAILABLE":
        if sent.method in DEADLY:
            return "unavailable"
        if any(_excuses(fault, entry, ended) for fault in faults):
            return "unavailable"
    return None


def _excuses(fault: Fault, entry: Entry, ended: Ended) -> bool:
    """Whether the fault makes UNAVAILABLE a proper end."""
    sent = entry.sent
    if fault.servable not in (sent.servable, *_CALLED.get(sent.method, ())):
        return False
    if not fault.began <= ended.at <= fault.ended + _SEEN_LATE:
        return False
    if fault.excuses == "everything":
        return ended.at - max(sent.at, fault.began) <= AT_ONCE
    if fault.excuses == "nothing":
        return False
    method = (sent.servable, sent.method)
    if method in _STREAMED:
        return _ANSWERED in ended.details
    return method in _UNREPEATABLE and any(text in ended.details for text in (*_BEGUN, _ANSWERED))


def _join(
    ledgers: Iterable[Ledger], counted: Mapping[tuple[str, str], Counter[str]], unserved: int, inner: int
) -> list[str]:
    """Offences: more or fewer calls at the server than the clients can have made.

    Args:
        ledgers: of all client processes.
        counted: calls at the server, by servable and method, then by how they ended.
        unserved: calls at the server of which it is not known whose they were.
        inner: calls that handlers may have made besides, and which may be among those.
    """
    made: dict[tuple[str, str], _Made] = {}
    for ledger in ledgers:
        for entry in ledger.entries.values():
            made.setdefault((entry.sent.servable, entry.sent.method), _Made()).add(entry)
    offences = []
    for name in sorted({*made, *counted}):
        server, clients = counted.get(name, Counter[str]()), made.get(name, _Made())
        calls, answers, method = server.total(), server["OK"], ".".join(name)
        if not clients.reached - unserved <= calls <= clients.sent:
            offences.append(
                f"the server counts {calls} calls of {method} that ended {dict(server)} and {unserved} of nobody, its"
                f" clients sent {clients.sent} and know the end of {clients.reached}"
            )
        if not clients.right <= answers <= clients.right + clients.given_up:
            offences.append(
                f"the server counts {answers} answers of {method}, its clients got {clients.right} and gave"
                f" {clients.given_up} requests up"
            )
    calls = unserved + sum(server.total() for server in counted.values())
    sent, reached = (sum(getattr(clients, what) for clients in made.values()) for what in ("sent", "reached"))
    if not offences and not reached <= calls <= sent + inner:
        offences.append(
            f"the server counts {calls} calls, its clients sent {sent} and know the end of {reached}, its handlers"
            f" made {inner} that are not counted as theirs"
        )
    return offences


@dataclass
class _Made:
    """Calls of one method, as clients know them."""

    sent: int = 0
    reached: int = 0
    right: int = 0
    given_up: int = 0

    def add(self, entry: Entry) -> None:
        codes = {ended.code for ended in entry.ended}
        self.sent += 1
        self.right += "OK" in codes
        # These may have ended before they left their client, or with an answer that it did not wait for.
        left = bool(codes) and not codes & {"CANCELLED", "DEADLINE_EXCEEDED"}
        self.reached += left
        self.given_up += not left


def _most_descriptors(processes: Iterable[Process]) -> Mapping[str, int]:
    most: dict[str, int] = {}
    for process in processes:
        for kind, count in process.descriptors.items():
            most[kind] = max(count, most.get(kind, 0))
    return most


def _describe(entry: Entry) -> str:
    sent = entry.sent
    return f"request {sent.number} ({sent.transport}, {sent.servable}.{sent.method}, {sent.pattern}, at {sent.at:.3f})"
