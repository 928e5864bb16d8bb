"""Draws the plots of the sweeps, as SVG files."""

from __future__ import annotations

from collections.abc import Callable
from math import ceil, floor, log10
from pathlib import Path

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, Locator, LogLocator, NullLocator
from report import Panel, Plot, Section

_COLOURS = {"mindserve": "#0b6e99", "do-nothing": "#8a8a8a", "TCP": "#0b6e99", "TLS": "#c4601d"}
_MARKERS = {"mindserve": "o", "do-nothing": "s", "TCP": "o", "TLS": "^"}
_PANEL_INCHES = (3.5, 2.9)
# Where a logarithmic axis has its lines.
_STEPS = (1.0, 2.0, 5.0)
# For numbers that are powers of ten but for rounding.
_TOLERANCE = 1 + 1e-9
_STYLE = {
    # Text stays text: it is searched and read aloud, and the files stay small.
    "svg.fonttype": "none",
    # The same figures give the same file.
    "svg.hashsalt": "mindserve",
    "font.family": "sans-serif",
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#999999",
    "xtick.color": "#444444",
    "ytick.color": "#444444",
    "grid.color": "#e4e4e4",
}


def draw(section: Section, file: Path) -> None:
    """The section's plot, in the format that the file's name says."""
    plot = section.plot
    assert plot is not None
    with mpl.rc_context(_STYLE):
        width, height = _PANEL_INCHES
        figure = Figure(figsize=(max(width * len(plot.panels), 1.4 * width), height), layout="constrained")
        for number, panel in enumerate(plot.panels):
            axes = figure.add_subplot(1, len(plot.panels), number + 1)
            _draw_panel(axes, section, plot, panel)
        handles, labels = figure.axes[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside upper center", ncols=len(labels), frameon=False)
        figure.savefig(file, facecolor="white", metadata={"Date": None} if file.suffix == ".svg" else None)


def _draw_panel(axes: Axes, section: Section, plot: Plot, panel: Panel) -> None:
    for server in dict.fromkeys(row["server"] for row in section.rows):
        rows = [row for row in section.rows if row["server"] == server]
        style = {"color": _COLOURS[server], "marker": _MARKERS[server], "markersize": 4, "linewidth": 1.4}
        axes.plot([row["x"] for row in rows], [row[panel.key] for row in rows], label=server, **style)
    axes.set_xlabel(plot.x_label)
    axes.set_ylabel(panel.label)
    axes.grid(True)
    axes.set_axisbelow(True)
    if plot.log:
        axes.set_xscale("log")
        low, high = axes.dataLim.intervalx
        _label(axes.xaxis, FixedLocator([row["x"] for row in section.rows]) if high < 10 * low else LogLocator())
    if panel.log:
        axes.set_yscale("log")
        low, high = axes.dataLim.intervaly
        axes.set_ylim(_step(low, floor), _step(high, ceil))
        _label(axes.yaxis, LogLocator(subs=_STEPS if high < 100 * low else (1.0,)))
    else:
        axes.set_ylim(bottom=0)


def _label(axis: Axis, locator: Locator) -> None:
    axis.set_major_locator(locator)
    axis.set_major_formatter(FuncFormatter(lambda value, _: _short(value)))
    axis.set_minor_locator(NullLocator())


def _step(value: float, rounding: Callable[[float], int]) -> float:
    """The next of 1, 2, 5, 10, 20 and so on, down or up: a line that hardly rises must not fill the diagram."""
    decade = 10.0 ** floor(log10(value))
    steps = [step * decade for step in (*_STEPS, 10.0)]
    if rounding is floor:
        return max(step for step in steps if step <= value * _TOLERANCE)
    return min(step for step in steps if step * _TOLERANCE >= value)


def _short(value: float) -> str:
    """With SI's prefixes: 20k."""
    for size, prefix in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= size * (2 - _TOLERANCE):
            return f"{value / size:g}{prefix}"
    return f"{value:g}"
