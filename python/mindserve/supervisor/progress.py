"""Shows how far a start is: one line for each worker on a terminal, nothing elsewhere (the log tells the outcome)."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING

from mindserve.supervisor.job import Outcome, Progress, StartJob

if TYPE_CHECKING:
    from rich.table import Table

# Seconds between looks at the job while the display is up; rich draws by itself.
_INTERVAL = 0.2
_STYLES = {None: "cyan", Outcome.READY: "green", Outcome.FAILED: "red", Outcome.ENDED: "yellow"}


def wait_with_progress(job: StartJob) -> None:
    """Waits until ``job`` has ended, showing its progress if stderr is a terminal."""
    if not sys.stderr.isatty():
        while not job.wait(_INTERVAL * 5):
            pass  # In slices, so that a signal's handler runs in between.
        return

    from rich.console import Console
    from rich.live import Live

    def draw() -> Table:
        return render(job.progress(), time.monotonic())

    with Live(get_renderable=draw, console=Console(stderr=True), refresh_per_second=5, transient=False) as live:
        while not job.wait(_INTERVAL):
            pass
        live.refresh()


def render(progress: list[Progress], now: float) -> Table:
    """The display at time ``now`` of ``time.monotonic``."""
    from rich.table import Table
    from rich.text import Text

    table = Table.grid(padding=(0, 2))
    for line in progress:
        seconds = (line.ended if line.ended is not None else now) - line.begun
        # As Text: what it says may look like markup.
        table.add_row(Text(line.worker), Text(line.phase, _STYLES[line.outcome]), f"{seconds:.1f} s")
    return table
