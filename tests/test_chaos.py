"""The account of `make chaos` finds what has gone wrong: it gets what a run leaves, with one thing amiss each time."""

from __future__ import annotations

import dataclasses
import pathlib
from typing import Any

import numpy as np
import pytest

from chaos import accounting, calls
from chaos.accounting import Tolerance
from chaos.events import Excuses, Fault
from chaos.ledger import Ended, Entry, Ledger, LedgerWriter, Sent, read_ledger
from chaos.report import Report, Table, make_tables
from chaos.resources import Process, Snapshot
from chaos.work import STREAMS, TELL, UNARY, Method, WorkCall

LIMITS = ("max_enqueued_requests",)
MIB = 1 << 20


def entry(*ended: Ended, cancelled_at: float | None = None, **sent: Any) -> Entry:
    """A request at 10.0 s, and its ends."""
    values = {"number": 7, "at": 10.0, "transport": "TCP", "servable": "add", "method": "add", "pattern": "burst"}
    return Entry(Sent(**{**values, "instances": 1, "timeout": None, **sent}), cancelled_at, list(ended))


def ledger(*entries: Entry, killed: bool = False) -> Ledger:
    return Ledger("001-TCP", killed, {made.sent.number: made for made in entries})


def status(code: str, at: float = 10.5, details: str = "") -> Ended:
    return Ended(at, "status", code, details)


RIGHT = Ended(10.5, "right")


def fault(excuses: Excuses, servable: str = "add", began: float = 10.2, ended: float = 11.0) -> Fault:
    return Fault("kill", servable, "SIGKILL", excuses, began, ended)


def outcome(made: Entry, *faults: Fault, killed: bool = False) -> str:
    """The request's outcome; "offence" only together with a complaint, which says which request it was."""
    account = accounting.account_requests([ledger(made, killed=killed)], faults, LIMITS)
    ((found, count),) = account.total.items()
    assert count == 1
    assert (found == "offence") == bool(account.offences)
    assert all("request 7 (TCP, " in offence for offence in account.offences)
    return found


# -- requests ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("made", "expected"),
    [
        (entry(RIGHT), "right"),
        (entry(), "offence"),
        (entry(RIGHT, RIGHT), "offence"),
        (entry(RIGHT, status("CANCELLED")), "offence"),
        (entry(Ended(10.5, "wrong", details="instance 0 of 1: {}")), "offence"),
        (entry(status("INTERNAL")), "offence"),
        (entry(status("UNKNOWN")), "offence"),
        (entry(status("CANCELLED")), "offence"),
        (entry(status("CANCELLED"), cancelled_at=10.4), "cancelled"),
        (entry(RIGHT, cancelled_at=10.4), "right"),
        (entry(status("UNAVAILABLE"), cancelled_at=10.4), "offence"),
        (entry(status("DEADLINE_EXCEEDED")), "offence"),
        (entry(status("DEADLINE_EXCEEDED"), timeout=0.6), "offence"),
        (entry(status("DEADLINE_EXCEEDED"), timeout=0.5), "too late"),
        (
            entry(status("DEADLINE_EXCEEDED", details="refused by refuse_late: it comes in 1 ms"), timeout=9.0),
            "too late",
        ),
        (entry(status("DEADLINE_EXCEEDED", details="refused by refuse_late: it comes in 1 ms")), "offence"),
        (entry(status("RESOURCE_EXHAUSTED", details="memory")), "offence"),
        (entry(status("RESOURCE_EXHAUSTED", details="over max_enqueued_requests (150)")), "refused"),
        (entry(status("UNAVAILABLE")), "offence"),
        (entry(status("UNAVAILABLE"), servable="risky", method="die"), "unavailable"),
        (entry(status("UNAVAILABLE"), servable="risky", method="risky"), "offence"),
    ],
)
def test_outcomes_without_faults(made: Entry, expected: str) -> None:
    assert outcome(made) == expected


def test_a_killed_client_need_not_know_the_end() -> None:
    assert outcome(entry(), killed=True) == "client killed"
    assert outcome(entry(RIGHT), killed=True) == "right"
    assert outcome(entry(Ended(10.5, "wrong")), killed=True) == "offence"


@pytest.mark.parametrize(
    ("made", "excuse", "expected"),
    [
        (entry(status("UNAVAILABLE")), fault("everything"), "unavailable"),
        # Others live, or the fault was elsewhere, or not yet, or long over.
        (entry(status("UNAVAILABLE")), fault("nothing"), "offence"),
        (entry(status("UNAVAILABLE")), fault("unrepeatable"), "offence"),
        (entry(status("UNAVAILABLE")), fault("everything", servable="half"), "offence"),
        (entry(status("UNAVAILABLE", at=10.1)), fault("everything"), "offence"),
        (entry(status("UNAVAILABLE", at=12.1), at=11.9), fault("everything"), "offence"),
        # The client had to wait for it, since the fault or since it asked.
        (entry(status("UNAVAILABLE", at=11.3)), fault("everything", ended=12.0), "offence"),
        (entry(status("UNAVAILABLE", at=11.3), at=10.9), fault("everything", ended=12.0), "unavailable"),
        (
            entry(status("UNAVAILABLE", details="It may have been executed"), servable="once", method="once"),
            fault("unrepeatable", servable="once"),
            "unavailable",
        ),
        (entry(status("UNAVAILABLE"), servable="once", method="once"), fault("begun", servable="once"), "offence"),
        (entry(status("UNAVAILABLE"), servable="once", method="once"), fault("nothing", servable="once"), "offence"),
        (entry(status("INTERNAL")), fault("everything"), "offence"),
        (entry(), fault("everything"), "offence"),
    ],
)
def test_what_a_fault_excuses(made: Entry, excuse: Fault, expected: str) -> None:
    assert outcome(made, excuse) == expected


BEGUN = "request 7: the worker died. Its handler may have begun, and its method is not idempotent"
ANSWERED = "request 7: the worker died. A part of the answer had been sent"


@pytest.mark.parametrize(
    ("servable", "method", "details", "excuse", "expected"),
    [
        ("work", "Note", BEGUN, fault("begun", servable="work"), "unavailable"),
        ("work", "Note", BEGUN, fault("unrepeatable", servable="work"), "unavailable"),
        ("work", "Note", BEGUN, fault("nothing", servable="work"), "offence"),
        ("work", "Note", BEGUN, fault("begun", servable="front"), "offence"),
        # There was another worker, to which it could have gone.
        ("work", "Note", "and there is no other", fault("begun", servable="work"), "offence"),
        ("work", "Echo", BEGUN, fault("begun", servable="work"), "offence"),
        ("work", "Echo", ANSWERED, fault("unrepeatable", servable="work"), "offence"),
        ("work", "Echo", "", fault("everything", servable="work"), "unavailable"),
        ("work", "Talk", BEGUN, fault("begun", servable="work"), "unavailable"),
        ("work", "Talk", ANSWERED, fault("begun", servable="work"), "unavailable"),
        # Before anything was sent it goes to another worker.
        ("work", "Count", BEGUN, fault("begun", servable="work"), "offence"),
        ("work", "Count", ANSWERED, fault("begun", servable="work"), "unavailable"),
        ("work", "tell", ANSWERED, fault("unrepeatable", servable="work"), "unavailable"),
        # What is called in its turn counts too.
        ("front", "ComposeCount", ANSWERED, fault("begun", servable="work"), "unavailable"),
        ("front", "ComposeCount", ANSWERED, fault("begun", servable="half"), "offence"),
        ("front", "Compose", BEGUN, fault("begun", servable="work"), "offence"),
        ("front", "Compose", "", fault("everything", servable="half"), "unavailable"),
        ("front", "Compose", "", fault("everything", servable="once"), "offence"),
        ("work", "Die", BEGUN, fault("nothing"), "unavailable"),
    ],
)
def test_what_a_fault_excuses_of_users_calls(
    servable: str, method: str, details: str, excuse: Fault, expected: str
) -> None:
    made = entry(status("UNAVAILABLE", details=details), servable=servable, method=method)
    assert outcome(made, excuse) == expected


def test_every_request_is_in_the_account() -> None:
    ledgers = [
        ledger(entry(RIGHT, number=1), entry(status("INTERNAL"), number=2)),
        ledger(entry(number=3, transport="Unix"), entry(RIGHT, number=4), killed=True),
    ]
    account = accounting.account_requests(ledgers, [], LIMITS)
    assert account.outcomes == {"TCP": {"right": 2, "offence": 1}, "Unix": {"client killed": 1}}
    (offence,) = account.offences
    assert "request 2 (" in offence
    assert "INTERNAL" in offence


# -- executions --------------------------------------------------------------------------------------------------------

TWO_OF_ONCE = entry(RIGHT, servable="once", method="once", instances=2)


@pytest.mark.parametrize(
    ("made", "marks", "complaints"),
    [
        (TWO_OF_ONCE, [70000, 70001], []),
        (TWO_OF_ONCE, [70000, 70001, 70000], ["instance 70000 was executed 2 times"]),
        (TWO_OF_ONCE, [70000], ["instance 70001 not executed"]),
        (dataclasses.replace(TWO_OF_ONCE, ended=[status("UNAVAILABLE")]), [70000], []),
        (dataclasses.replace(TWO_OF_ONCE, ended=[status("UNAVAILABLE")]), [], []),
        (dataclasses.replace(TWO_OF_ONCE, ended=[status("UNAVAILABLE")]), [70001] * 3, ["executed 3 times"]),
        (entry(RIGHT), [], []),
        # A call of a user's handler is one, however many messages come back.
        (entry(RIGHT, servable="work", method="Talk", instances=5), [70000], []),
        (entry(RIGHT, servable="work", method="Note"), [70000] * 2, ["executed 2 times"]),
        (entry(RIGHT, servable="work", method="Note"), [], ["instance 70000 not executed"]),
        (entry(status("UNAVAILABLE"), servable="work", method="Note"), [70000] * 2, ["executed 2 times"]),
        (entry(RIGHT, servable="work", method="Echo"), [], []),
    ],
)
def test_executions(made: Entry, marks: list[int], complaints: list[str]) -> None:
    offences = accounting.check_executions([ledger(made)], marks)
    assert len(offences) == len(complaints)
    assert all(complaint in offence for complaint, offence in zip(complaints, offences, strict=True))


def lost_notes(count: int, method: str = "Note", at: float = 10.5) -> Ledger:
    return ledger(
        *(entry(status("UNAVAILABLE", at), servable="work", method=method, number=number) for number in range(count))
    )


@pytest.mark.parametrize(
    ("lost", "excuses", "complaints"),
    [
        (lost_notes(4), "begun", 0),
        (lost_notes(5), "begun", 1),
        # It may not be over, or there was no other; a handler of another kind; another time.
        (lost_notes(5), "unrepeatable", 0),
        (lost_notes(5), "everything", 0),
        (lost_notes(5, "NoteAsync"), "begun", 0),
        (lost_notes(5, at=15.0), "begun", 0),
    ],
)
def test_no_more_calls_are_lost_than_a_worker_can_have_begun(lost: Ledger, excuses: Excuses, complaints: int) -> None:
    found = accounting.check_begun([lost], [fault(excuses, servable="work"), fault("begun", servable="add")], 4)
    assert len(found) == complaints
    assert all("5 calls of Note were lost with a worker of 4 handler threads" in offence for offence in found)


@pytest.mark.parametrize(
    ("notes", "complaint"),
    [
        (["begin Count 11 7", "call InnerEcho", "end Count 11 7"], ""),
        (["begin Count 11 7", "begin Count 12 8", "end Count 11 7"], "1 handlers of Count have not ended in worker 12"),
        # It has died with it.
        (["begin Count 13 7"], ""),
        (["begin Talk 11 0", "begin Count 11 0", "end Count 11 0"], "1 handlers of Talk have not ended in worker 11"),
    ],
)
def test_streams_that_have_not_ended(notes: list[str], complaint: str) -> None:
    assert accounting.check_streams(notes, [11, 12]) == ([complaint] if complaint else [])


# -- recoveries --------------------------------------------------------------------------------------------------------


def test_recoveries() -> None:
    began = fault("everything")
    served = [entry(RIGHT), entry(Ended(11.2, "right"), number=8, at=10.3), entry(status("UNAVAILABLE"), number=9)]
    # What was sent before the fault may have been answered before it.
    seconds, offences = accounting.check_recoveries([ledger(*served)], [began, fault("unrepeatable")])
    assert seconds == {"add": [pytest.approx(1.0)]}
    assert not offences
    _, offences = accounting.check_recoveries([ledger(entry(Ended(13.3, "right"), at=11.0))], [began])
    assert "add was served again after 3.10 s" in offences[0]
    _, offences = accounting.check_recoveries([ledger(entry(RIGHT, at=10.3, servable="half"))], [began])
    assert "add was not served again" in offences[0]


# -- what the server counts --------------------------------------------------------------------------------------------


def stats(ended: dict[str, int], **changed: Any) -> dict[str, Any]:
    method = {"servable": "add", "method": "add", "ended": ended, "errors": changed.pop("errors", {})}
    worker = {"servable": "add", "pid": 1, "in_flight": changed.pop("worker_in_flight", 0)}
    total, right = sum(ended.values()), ended.get("OK", 0)
    counts = {"requests": total, "replies": right, "errors": total - right, "connections": 0}
    held = {"in_flight": 0, "enqueued_bytes": 0, "methods": [method], "workers": [worker]}
    return {**counts, **held, **changed}


CLIENTS = [
    ledger(entry(RIGHT, number=1), entry(status("CANCELLED"), number=2, cancelled_at=10.1)),
    ledger(entry(number=3), entry(status("UNAVAILABLE"), number=4), killed=True),
]


@pytest.mark.parametrize(
    ("counted", "complaint"),
    [
        (stats({"OK": 1, "UNAVAILABLE": 1}), ""),
        (stats({"OK": 3, "UNAVAILABLE": 1}), ""),
        (stats({"OK": 1, "UNAVAILABLE": 1, "CANCELLED": 2}), ""),
        (stats({"OK": 1, "UNAVAILABLE": 1}, in_flight=1), "in_flight: 1"),
        (stats({"OK": 1, "UNAVAILABLE": 1}, enqueued_bytes=10), "enqueued_bytes: 10"),
        (stats({"OK": 1, "UNAVAILABLE": 1}, connections=2), "connections: 2"),
        (stats({"OK": 1, "UNAVAILABLE": 1}, worker_in_flight=3), "a worker still holds instances"),
        (stats({"OK": 1, "UNAVAILABLE": 1}, requests=3), "3 requests, 1 replies and 1 errors"),
        (stats({"OK": 1, "UNAVAILABLE": 1}, errors={"SYSTEM_ERROR": 1}), "{'SYSTEM_ERROR': 1}"),
        (stats({"OK": 1, "UNAVAILABLE": 1, "INTERNAL": 1}), "{'INTERNAL': 1}"),
        (stats({"OK": 1}), "1 calls of add.add that ended"),
        (stats({"OK": 3, "UNAVAILABLE": 2}), "5 calls of add.add that ended"),
        (stats({"OK": 4}), "4 answers of add.add, its clients got 1 and gave 2 requests up"),
        (stats({"UNAVAILABLE": 3}), "0 answers of add.add, its clients got 1"),
    ],
)
def test_counts(counted: dict[str, Any], complaint: str) -> None:
    offences = accounting.check_counts(CLIENTS, [], counted)
    assert len(offences) == bool(complaint)
    assert all(complaint in offence for offence in offences)


NOTES = ["call InnerEcho", "done InnerEcho", "call InnerEcho", "begin Count 11 7"]


@pytest.mark.parametrize(
    ("ended", "complaint"),
    [
        ({"OK": 1}, ""),
        ({"OK": 2}, ""),
        ({"OK": 1, "CANCELLED": 1}, ""),
        ({"UNAVAILABLE": 1}, "1 calls of InnerEcho and answers 0, handlers have made 2 and got 1"),
        ({"OK": 2, "UNAVAILABLE": 1}, "3 calls of InnerEcho and answers 2, handlers have made 2 and got 1"),
        ({"OK": 1, "INTERNAL": 1}, "{'INTERNAL': 1}"),
    ],
)
def test_counts_of_what_servables_call(ended: dict[str, int], complaint: str) -> None:
    counted = stats({"OK": 1, "UNAVAILABLE": 1})
    counted["methods"].append({"servable": "work", "method": "InnerEcho", "ended": ended, "errors": {}})
    offences = accounting.check_counts(CLIENTS, NOTES, counted)
    assert len(offences) == bool(complaint)
    assert all(complaint in offence for offence in offences)


def unserved(ended: dict[str, int], calls: dict[str, int]) -> dict[str, Any]:
    """What is counted when the server has answered `calls`, and `ended` while nothing served them."""
    counted = stats(calls)
    counted["methods"].append({"servable": "", "method": "", "ended": ended, "errors": {}})
    total = sum(ended.values())
    return {**counted, "requests": counted["requests"] + total, "errors": counted["errors"] + total}


@pytest.mark.parametrize(
    ("ended", "notes", "complaint"),
    [
        # Four were sent, two of them reached the server for certain.
        ({"UNAVAILABLE": 3}, [], ""),
        ({"UNAVAILABLE": 4}, [], "counts 5 calls, its clients sent 4 and know the end of 2, its handlers made 0"),
        ({"UNAVAILABLE": 5}, ["call InnerEcho", "call InnerEcho"], ""),
        ({"UNAVAILABLE": 6}, ["call InnerEcho", "call InnerEcho"], "its handlers made 2"),
    ],
)
def test_counts_of_calls_that_nothing_served(ended: dict[str, int], notes: list[str], complaint: str) -> None:
    offences = accounting.check_counts(CLIENTS, notes, unserved(ended, {"OK": 1}))
    assert len(offences) == bool(complaint)
    assert all(complaint in offence for offence in offences)


# -- resources ---------------------------------------------------------------------------------------------------------

MASTER = Process("master", {"socket": 5, "memfd:requests": 2}, 6, 30 * MIB, 10 * MIB)
WORKER = Process("add", {"socket": 2, "pipe": 1}, 4, 40 * MIB, 5 * MIB)
BEFORE = Snapshot((MASTER, WORKER, WORKER), ("/run/socket",))
TOLERANCE = Tolerance(own_bytes=8 * MIB, shared_bytes=16 * MIB, threads=1)


def changed(role: str = "master", **values: Any) -> Snapshot:
    """`BEFORE` with one process of this role changed."""
    processes = list(BEFORE.processes)
    place = [process.role for process in processes].index(role)
    processes[place] = dataclasses.replace(processes[place], **values)
    return dataclasses.replace(BEFORE, processes=tuple(processes))


@pytest.mark.parametrize(
    ("after", "complaint"),
    [
        (BEFORE, ""),
        (changed(descriptors={"socket": 4, "memfd:requests": 2}), ""),
        (changed(descriptors={"socket": 6, "memfd:requests": 2}), "master has 6 descriptors of the kind 'socket'"),
        (changed(descriptors={"socket": 5, "memfd:requests": 2, "pipe": 1}), "it had 0"),
        (changed("add", descriptors={"socket": 2, "pipe": 2}), "add has 2 descriptors of the kind 'pipe'"),
        (changed(threads=7), ""),
        (changed(threads=8), "master has 8 threads, it had 6"),
        (changed("add", threads=3), ""),
        (changed(own_bytes=38 * MIB), ""),
        (changed(own_bytes=39 * MIB), "master has 39.0 MiB of its own, it had 30.0 MiB"),
        (changed("add", own_bytes=49 * MIB), "add has 49.0 MiB of its own"),
        (changed("add", shared_bytes=21 * MIB), ""),
        (changed("add", shared_bytes=22 * MIB), "37.0 MiB of memory are shared, it was 20.0 MiB"),
        (dataclasses.replace(BEFORE, processes=(MASTER, WORKER)), "1 processes of add, there were 2"),
        (dataclasses.replace(BEFORE, processes=(*BEFORE.processes, WORKER)), "3 processes of add, there were 2"),
        (
            dataclasses.replace(BEFORE, processes=(*BEFORE.processes, dataclasses.replace(WORKER, role="unknown"))),
            "1 processes of unknown, there were 0",
        ),
        (dataclasses.replace(BEFORE, files=("/run/socket", "/tmp/x")), "a file is left behind: /tmp/x"),
        (dataclasses.replace(BEFORE, files=("/run/socket",) * 2), "a file is left behind: /run/socket"),
    ],
)
def test_resources(after: Snapshot, complaint: str) -> None:
    offences = accounting.compare(BEFORE, after, TOLERANCE)
    assert len(offences) == bool(complaint)
    assert all(complaint in offence for offence in offences)


# -- ledgers -----------------------------------------------------------------------------------------------------------


def test_ledgers_are_read_as_they_were_written(tmp_path: pathlib.Path) -> None:
    sent = [entry(number=number, timeout=number / 2 or None).sent for number in range(3)]
    with LedgerWriter(tmp_path / "a.ledger") as writer:
        for request in sent:
            writer.sent(request)
        writer.cancelled(1)
        writer.ended(1, status("CANCELLED"))
        writer.ended(2, RIGHT)
        writer.ended(2, RIGHT)
        # Before it is closed: a process that is killed doesn't.
        read = read_ledger(tmp_path / "a.ledger", killed=True)
    assert (read.name, read.killed) == ("a", True)
    assert [made.sent for made in read.entries.values()] == sent
    assert [made.ended for made in read.entries.values()] == [[], [status("CANCELLED")], [RIGHT, RIGHT]]
    assert [made.cancelled_at is None for made in read.entries.values()] == [True, False, True]


def test_ledgers_that_no_writer_has_written(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "a.ledger"
    with LedgerWriter(path) as writer:
        writer.ended(1, RIGHT)
    with pytest.raises(ValueError, match="request 1 was ended, and never sent"):
        read_ledger(path, killed=False)
    path.unlink()
    with LedgerWriter(path) as writer:
        writer.sent(entry().sent)
        writer.sent(entry().sent)
    with pytest.raises(ValueError, match="request 7 was sent twice"):
        read_ledger(path, killed=False)


# -- calls -------------------------------------------------------------------------------------------------------------


def answers(call: WorkCall, number: int = 0) -> list[tuple[int, int, bytes]]:
    """What a right servable answers."""
    turned = call.data[::-1]
    if call.method.server_streams:
        return [(number or call.number, place, turned) for place in range(call.count)]
    place = sum(range(call.count)) if call.method.client_streams else 0
    return [
        (number or call.number, call.number // 2 + len(turned) if call.method.service == "Front" else place, turned)
    ]


@pytest.mark.parametrize("method", [*UNARY, *STREAMS, TELL], ids=lambda method: method.name)
def test_answers_of_users_services(method: Method) -> None:
    call = WorkCall(12, method, 3 if method in (*STREAMS, TELL) else 1, b"abc")
    right = answers(call)
    assert [call.complaint(place, *answer) for place, answer in enumerate(right)] == [""] * call.answers
    assert "one too many" in call.complaint(call.answers, *right[-1])
    number, place, data = right[0]
    assert "of call 13" in call.complaint(0, 13, place, data)
    # A gap, a double, another order.
    assert "it has the place" in call.complaint(0, number, place + 1, data)
    assert "3 bytes that are not" in call.complaint(0, number, place, b"abc")
    if call.answers > 1:
        assert "it has the place 0, expected 1" in call.complaint(1, *right[0])


@pytest.mark.parametrize("make", [*calls.EVERYDAY.values(), calls.look_up])
def test_an_answer_to_another_request_is_wrong(make: Any) -> None:
    call, other = make(12, 3), make(13, 3)
    assert call.complaint(call.expected) == ""
    assert "instance 0 of 3: " in call.complaint(other.expected)
    assert "instance 1 of 3: " in call.complaint([call.expected[place] for place in (0, 2, 1)])
    assert "2 results for 3 instances" in call.complaint(call.expected[:2])
    assert "instance 2 of 3: {'error': 'x'}" in call.complaint([*call.expected[:2], {"error": "x"}])


def test_types_and_names_of_values_count() -> None:
    call = calls.add(1)
    (expected,) = call.expected
    assert call.complaint([{"y": expected["y"].astype(np.int32)}])
    assert call.complaint([{"z": expected["y"]}])
    assert call.complaint([{**expected, "z": expected["y"]}])


def test_a_bad_instance_must_fail_and_the_others_not() -> None:
    call = calls.look_up(1, 3, bad=1)
    good = [call.expected[0], {"error": "indices element out of data bounds"}, call.expected[2]]
    assert call.complaint(good) == ""
    assert "instance 1 of 3: " in call.complaint([good[0], good[0], good[2]])
    assert "instance 1 of 3: " in call.complaint([good[0], {"error": "another"}, good[2]])
    assert "instance 0 of 3: " in call.complaint([good[1], good[1], good[2]])


# -- reports -----------------------------------------------------------------------------------------------------------


def test_tables_of_a_run_go_into_the_page() -> None:
    ledgers = [*CLIENTS]
    account = accounting.account_requests(ledgers, [], LIMITS)
    tables = make_tables(
        ledgers, account, [fault("everything")], {"add": [0.5, 1.5, 1.0]}, [], BEFORE, changed(threads=9)
    )
    report = Report("Made here.", tables, [])
    names = ["made", *tables]
    page = report.fill("".join(f"a\n<!-- figures: {name} -->\nold\n<!-- end -->\nz\n" for name in names))
    assert "old" not in page
    assert "\nMade here.\n" in page
    assert "| kill | 1 | 0.80 | 0.80 |" in page
    assert "| add | 3 | 1.00 | 1.50 |" in page
    assert "| all | 1 | 0 | 0 | 0 | 1 | 1 | 1 | 4 |" in page
    assert "| master | 1 → 1 | 7 → 7 | 6 → 9 | 30.0 → 30.0 |" in page
    assert report.fill(page) == page


def test_the_table_of_users_calls() -> None:
    ledgers = [
        ledger(
            entry(Ended(10.5, "right", messages=3), servable="work", method="Talk", number=1),
            entry(Ended(10.5, "status", "UNAVAILABLE", BEGUN, 2), servable="work", method="Talk", number=2),
            entry(Ended(10.5, "status", "UNAVAILABLE", BEGUN, 0), servable="work", method="Talk", number=3),
        )
    ]
    account = accounting.account_requests(ledgers, [fault("begun", servable="work")], LIMITS)
    marks = [10000, 20000]
    table = make_tables(ledgers, account, [fault("begun")], {}, marks, BEFORE, BEFORE)["work"]
    (row,) = (row for row in table.rows if row[0] == "work.Talk")
    assert dict(zip(table.columns, row, strict=True)) == {
        "calls of": "work.Talk",
        "right": "1",
        "refused": "0",
        "too late": "0",
        "unavailable": "2",
        "cancelled": "0",
        "client killed": "0",
        "offence": "0",
        "sent": "3",
        "messages, in order": "5",
        "unavailable and begun": "1",
    }


@pytest.mark.parametrize("page", ["", "<!-- figures: made -->\n", "<!-- figures: made -->\n<!-- end -->\n" * 2])
def test_a_page_without_places_for_tables(page: str) -> None:
    with pytest.raises(ValueError, match="<!-- figures: made -->"):
        Report("Made here.", {}, []).fill(page)


def test_tables_line_up_on_a_terminal() -> None:
    assert Table(["name", "count"], [["a", "1"], ["longer", "10,000"]]).text().splitlines() == [
        "name     count",
        "a            1",
        "longer  10,000",
    ]
