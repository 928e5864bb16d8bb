"""One client's many instances don't make another one wait for all of them."""

from __future__ import annotations

import pathlib

from e2e_support import PREAMBLE, serving
from test_e2e_stats import LISTEN, only, stats_of

CONFIG = (
    PREAMBLE
    + """
import time


@method()
def slow(x):
    time.sleep(0.004)
    return x


@method()
def fast(x):
    return x
"""
)


def test_slow_functions_are_handed_few_instances_at_a_time(tmp_path: pathlib.Path) -> None:
    """Clients take turns by what is handed over: with 32 at a time another one would wait for that long."""
    with serving(tmp_path, "fair", CONFIG, after=LISTEN) as served:
        for method in ("slow", "fast"):
            values = [result["y"].item() for result in served.ask(method, *({"x": number} for number in range(200)))]
            assert values == list(range(200))
        (worker,) = stats_of(served.process)["workers"]
        slow = only(worker["stages"], name="fair.slow")
        assert slow["instances"] == slow["batches"] == 200
        # What takes no time goes by many; it may take some, now and then.
        assert only(worker["stages"], name="fair.fast")["batches"] < 100


def test_a_huge_request_is_answered_beside_small_ones(tmp_path: pathlib.Path) -> None:
    with serving(tmp_path, "fair", CONFIG) as served:
        count = 60_000
        huge = served.client("fast").infer_async([{"x": number} for number in range(count)], timeout=120)
        small = 0
        while not huge.done() or small == 0:
            assert served.value("fast", x=small).tolist() == [small]
            small += 1
        results = huge.result()
        assert [result["y"].item() for result in results] == list(range(count))
