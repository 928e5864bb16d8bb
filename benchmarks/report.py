"""Results: as tables, as a JSON file, and in the documentation."""

from __future__ import annotations

import json
import re
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

# A column: its heading, the key of its figure in a row, and how that is written.
Column = tuple[str, str, str]

FIGURES: list[Column] = [
    ("req/s", "rate", ",.0f"),
    ("ratio", "rate_ratio", ".2f"),
    ("CPU µs/req", "cpu_us", ",.1f"),
    ("ratio", "cpu_ratio", ".2f"),
    ("p50 µs", "p50_us", ",.0f"),
    ("ratio", "p50_ratio", ".2f"),
]


@dataclass(frozen=True)
class Panel:
    """One diagram of a plot."""

    key: str
    label: str
    log: bool = True


@dataclass(frozen=True)
class Plot:
    """What a plot shows: each of ``panels`` over the rows' "x", a line for each of their servers."""

    x_label: str
    panels: list[Panel]
    log: bool = True


@dataclass(frozen=True)
class Section:
    """A table, and perhaps a plot.

    Attributes:
        columns: of the table.
        rows: figures by their keys; "x" where there is a plot, and None for what a row doesn't have.
        made: how it was measured.
        plot: None: no plot.
    """

    columns: list[Column]
    rows: list[dict[str, Any]]
    made: str
    plot: Plot | None = None

    def table(self) -> str:
        """As Markdown."""
        lines = [[heading for heading, _, _ in self.columns], ["---"] * len(self.columns)]
        for row in self.rows:
            lines.append([_cell(row[key], how) for _, key, how in self.columns])
        return "\n".join(f"| {' | '.join(line)} |" for line in lines)


@dataclass
class Results:
    """What was measured on one machine."""

    machine: str
    sections: dict[str, Section] = field(default_factory=dict)

    def write(self, file: Path) -> None:
        """As JSON; `read` reads it."""
        file.write_text(json.dumps(asdict(self), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")

    @classmethod
    def read(cls, file: Path) -> Results:
        """From a file of `write`."""
        document = json.loads(file.read_text(encoding="utf-8"))
        return cls(document["machine"], {name: _section(value) for name, value in document["sections"].items()})

    def blocks(self) -> dict[str, str]:
        """What belongs between the marks of a page, by their names."""
        blocks = {name: f"{section.table()}\n\n{section.made}" for name, section in self.sections.items()}
        return {"machine": self.machine, **blocks}


def fill(page: str, blocks: dict[str, str]) -> str:
    """The page with each block between its marks, ``<!-- figures: NAME -->`` and ``<!-- end -->``.

    Raises:
        ValueError: the page has no place for a block.
    """
    for name, block in blocks.items():
        mark = f"<!-- figures: {name} -->\n"
        pattern = re.compile(f"{re.escape(mark)}.*?<!-- end -->\n", re.DOTALL)
        filled = f"{mark}\n{block}\n\n<!-- end -->\n"
        page, count = pattern.subn(lambda _, filled=filled: filled, page)
        if count != 1:
            raise ValueError(f"the page has {count} times '{mark.strip()}'")
    return page


def _section(value: dict[str, Any]) -> Section:
    plot = value.pop("plot")
    if plot is not None:
        plot = Plot(**{**plot, "panels": [Panel(**panel) for panel in plot["panels"]]})
    value["columns"] = [tuple(column) for column in value["columns"]]
    return Section(**value, plot=plot)


def _cell(value: Any, how: str) -> str:
    return "–" if value is None else format(value, how)
