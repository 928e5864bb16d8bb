"""What a run has shown: as tables, as a JSON file, and in the documentation."""

from __future__ import annotations

import json
import statistics
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import asdict, dataclass
from pathlib import Path

from chaos.accounting import OUTCOMES, Account, Outcome
from chaos.calls import instance_number
from chaos.events import Fault
from chaos.ledger import Ledger
from chaos.resources import Snapshot
from chaos.work import DIE, MARKED, STREAMS, TELL, UNARY

_MIB = 1 << 20


@dataclass(frozen=True)
class Table:
    """Headings and rows, all as text."""

    columns: Sequence[str]
    rows: Sequence[Sequence[str]]

    def markdown(self) -> str:
        """For a page."""
        lines = [self.columns, ["---"] * len(self.columns), *self.rows]
        return "\n".join(f"| {' | '.join(line)} |" for line in lines)

    def text(self) -> str:
        """For a terminal: the first column to the left, the others to the right."""
        lines = [self.columns, *self.rows]
        widths = [max(len(line[place]) for line in lines) for place in range(len(self.columns))]
        return "\n".join(
            "  ".join(cell.rjust(width) if place else cell.ljust(width) for place, (cell, width) in cells).rstrip()
            for cells in (enumerate(zip(line, widths, strict=True)) for line in lines)
        )


@dataclass(frozen=True)
class Report:
    """A run.

    Attributes:
        made: how and when, in a sentence.
        tables: by their names.
        offences: what must not have happened, in words; none: all is well.
    """

    made: str
    tables: Mapping[str, Table]
    offences: Sequence[str]

    def write_json(self, path: Path) -> None:
        """All of it."""
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(asdict(self), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")

    def fill(self, page: str) -> str:
        """The page with the tables between their marks, ``<!-- figures: NAME -->`` and ``<!-- end -->``.

        Raises:
            ValueError: the page has no place for one.
        """
        return fill(page, {"made": self.made, **{name: table.markdown() for name, table in self.tables.items()}})


def fill(page: str, blocks: Mapping[str, str]) -> str:
    """The page with each block between its marks, ``<!-- figures: NAME -->`` and ``<!-- end -->``.

    Raises:
        ValueError: the page has no place for one.
    """
    for name, block in blocks.items():
        mark = f"<!-- figures: {name} -->\n"
        begin, found, rest = page.partition(mark)
        _, ended, rest = rest.partition("<!-- end -->\n")
        if not found or not ended or mark in rest:
            raise ValueError(f"the page has no place for figures, or several: '{mark.strip()}'")
        page = f"{begin}{mark}\n{block}\n\n<!-- end -->\n{rest}"
    return page


def make_tables(
    ledgers: Iterable[Ledger],
    account: Account,
    faults: Iterable[Fault],
    recoveries: Mapping[str, Sequence[float]],
    marks: Iterable[int],
    before: Snapshot,
    after: Snapshot,
) -> dict[str, Table]:
    """All tables of a run; `marks` are those of `accounting.check_executions`."""
    ledgers = list(ledgers)
    return {
        "requests": _requests(account),
        "work": _work(ledgers, account, frozenset(marks)),
        "faults": _faults(faults),
        "recoveries": _recoveries(recoveries),
        "latencies": _latencies(ledgers),
        "resources": _resources(before, after),
    }


def _requests(account: Account) -> Table:
    rows = [*sorted(account.outcomes.items()), ("all", account.total)]
    return Table(
        ["requests by", *OUTCOMES, "sent"],
        [[name, *(f"{counts[outcome]:,}" for outcome in OUTCOMES), f"{counts.total():,}"] for name, counts in rows],
    )


def _work(ledgers: Iterable[Ledger], account: Account, marks: Set[int]) -> Table:
    """Users' handlers and streams."""
    messages: Counter[str] = Counter()
    begun: Counter[str] = Counter()
    for ledger in ledgers:
        for number, entry in ledger.entries.items():
            for ended in entry.ended:
                messages[entry.sent.method] += ended.messages
                begun[entry.sent.method] += ended.code == "UNAVAILABLE" and instance_number(number, 0) in marks
    rows = []
    for method in (*UNARY, *STREAMS, TELL, DIE):
        counts = account.methods.get((method.servable, method.name), Counter[Outcome]())
        cells = [*(counts[outcome] for outcome in OUTCOMES), counts.total(), messages[method.name]]
        marked = f"{begun[method.name]:,}" if method in MARKED else ""
        rows.append([f"{method.servable}.{method.name}", *(f"{cell:,}" for cell in cells), marked])
    return Table(["calls of", *OUTCOMES, "sent", "messages, in order", "unavailable and begun"], rows)


def _faults(faults: Iterable[Fault]) -> Table:
    seconds: dict[str, list[float]] = {}
    for fault in faults:
        seconds.setdefault(fault.kind, []).append(fault.seconds)
    return Table(
        ["fault", "times", "all as before after, median s", "longest s"],
        [
            [kind, f"{len(values)}", f"{statistics.median(values):.2f}", f"{max(values):.2f}"]
            for kind, values in sorted(seconds.items())
        ],
    )


def _recoveries(recoveries: Mapping[str, Sequence[float]]) -> Table:
    return Table(
        ["all workers killed of", "times", "served again after, median s", "longest s"],
        [
            [servable, f"{len(values)}", f"{statistics.median(values):.2f}", f"{max(values):.2f}"]
            for servable, values in sorted(recoveries.items())
        ],
    )


def _latencies(ledgers: Iterable[Ledger]) -> Table:
    milliseconds: dict[str, list[float]] = {}
    for ledger in ledgers:
        for entry in ledger.entries.values():
            for ended in entry.ended:
                if ended.kind == "right":
                    milliseconds.setdefault(entry.sent.pattern, []).append((ended.at - entry.sent.at) * 1e3)
    rows = []
    for pattern, values in sorted(milliseconds.items()):
        values.sort()
        shares = [values[min(len(values) - 1, int(len(values) * share))] for share in (0.5, 0.99)]
        rows.append([pattern, f"{len(values):,}", *(f"{value:,.1f}" for value in (*shares, values[-1]))])
    return Table(["load", "right answers", "median ms", "p99 ms", "longest ms"], rows)


def _resources(before: Snapshot, after: Snapshot) -> Table:
    rows = []
    for role in dict.fromkeys((*before.roles, *after.roles)):
        cells = []
        for snapshot in (before, after):
            found = snapshot.of(role)
            cells.append(
                (
                    f"{len(found)}",
                    f"{max((sum(process.descriptors.values()) for process in found), default=0)}",
                    f"{max((process.threads for process in found), default=0)}",
                    f"{max((process.own_bytes for process in found), default=0) / _MIB:.1f}",
                )
            )
        rows.append([role, *(f"{old} → {new}" for old, new in zip(*cells, strict=True))])
    shared = [sum(process.shared_bytes for process in snapshot.processes) / _MIB for snapshot in (before, after)]
    rows.append(["shared memory, all", "", "", "", f"{shared[0]:.1f} → {shared[1]:.1f}"])
    return Table(["of", "processes", "descriptors of one", "threads of one", "own memory of one, MiB"], rows)
