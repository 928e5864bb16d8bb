"""What `server.stats()` says after known traffic."""

import dataclasses
import json
import os
import pathlib
import signal
from typing import Any

import grpc
import numpy as np
import pytest

from certificates import Files
from conftest import ServerProcess, add_model, wait_gone
from e2e_support import Served, serving, until
from mindserve import server
from mindserve.errors import MindserveError, StartError
from mindserve.server.statistics import Histogram

CONFIG = """
import numpy as np
from mindserve.server import register

model = register.declare_model("add.onnx", "ONNX")


@register.register_method(output_names=["y"])
def add(x1, x2):
    return register.add_stage(model, x1, x2, outputs_count=1)


def checked(x):
    if x < 0:
        raise ValueError("negative")
    return x


@register.register_method(output_names=["y"])
def check(x):
    return register.add_stage(checked, x, outputs_count=1)
"""

# Prints the statistics whenever it is asked to.
LISTEN = """
import json, sys
for line in sys.stdin:
    print(json.dumps(server.stats().as_dict()), flush=True)
"""


def stats_of(process: ServerProcess) -> dict[str, Any]:
    process.tell("stats")
    stats: dict[str, Any] = json.loads(process.line())
    return stats


def only(items: list[dict[str, Any]], **wanted: Any) -> dict[str, Any]:
    """The one item with these values."""
    found = [item for item in items if all(item[name] == value for name, value in wanted.items())]
    assert len(found) == 1, items
    return found[0]


@pytest.fixture
def served(tmp_path: pathlib.Path) -> Any:
    limits = "'127.0.0.1:0', limits=server.Limits(max_instances_per_request=100, max_msg_mb_size=1)"
    with serving(
        tmp_path / "server", "sums", CONFIG, {"add.onnx": add_model(("n", 2))}, listen=limits, after=LISTEN
    ) as running:
        yield running


def test_what_was_served_is_counted(served: Served) -> None:
    pair = {"x1": np.ones(2, np.float32), "x2": np.ones(2, np.float32)}
    for _ in range(3):
        assert len(served.client("add").infer([pair] * 10)) == 10
    assert "error" in served.client("check").infer([{"x": 1}, {"x": -1}])[1]
    stats = stats_of(served.process)

    assert stats["requests"] == stats["replies"] == 4
    assert stats["errors"] == stats["in_flight"] == stats["enqueued_bytes"] == 0
    assert 1 <= stats["connections"] <= stats["connections_accepted"]
    assert set(stats["refused"].values()) == {0}
    limits = {field.name for field in dataclasses.fields(server.Limits)}
    assert set(stats["refused"]) <= limits | {"quarantine", "rate", "max_in_flight", "token_queue"}
    add = only(stats["methods"], servable="sums", method="add")
    assert (add["version"], add["ended"], add["with_errors"], add["instances"]) == (1, {"OK": 3}, 0, 30)
    # Two float32 an instance and input, and one output of as many.
    assert add["bytes_in"] > 3 * 10 * 2 * 8
    assert 3 * 10 * 8 < add["bytes_out"] < add["bytes_in"]
    assert add["latency"]["count"] == 3
    assert add["latency"]["sum"] > 0
    check = only(stats["methods"], servable="sums", method="check")
    assert (check["ended"], check["with_errors"], check["instances"]) == ({"OK": 1}, 1, 2)
    assert (add["errors"], check["errors"]) == ({}, {"FAILED": 1})

    (worker,) = stats["workers"]
    assert (worker["servable"], worker["version"], worker["device_id"]) == ("sums", 1, 0)
    assert worker["pid"] in served.process.workers()
    assert worker["ready"] is True
    assert (worker["restarts"], worker["requests"], worker["in_flight"]) == (0, 4, 0)
    model = only(worker["stages"], kind="model", name="add.onnx")
    assert (model["instances"], model["failed"], model["expired"]) == (30, 0, 0)
    assert 1 <= model["batches"] <= 30
    assert sum(count for _, count in model["batch_sizes"]["buckets"]) == model["batches"] == model["run"]["count"]
    assert model["queue"]["count"] == 30
    function = only(worker["stages"], kind="function", name="sums.checked")
    assert (function["instances"], function["failed"]) == (2, 1)
    assert stats["certificates"] == []


def test_what_was_refused_is_counted_by_its_limit(served: Served) -> None:
    client = served.client("check")
    assert "max_instances_per_request" in client.infer([{"x": 1}] * 101)["error"]
    assert "max_msg_mb_size" in client.infer({"x": np.zeros(1 << 20, np.float32)})["error"]
    assert "servable is not available" in served.client("check", "unknown").infer({"x": 1})["error"]
    with grpc.insecure_channel(served.address) as channel:
        call = channel.unary_unary("/no.such.Service/Method")
        with pytest.raises(grpc.RpcError):
            call(b"")
    stats = stats_of(served.process)
    assert stats["refused"]["max_instances_per_request"] == stats["refused"]["max_msg_mb_size"] == 1
    assert (stats["requests"], stats["replies"], stats["errors"]) == (4, 1, 3)
    assert only(stats["methods"], path="")["ended"] == {"UNIMPLEMENTED": 1}
    predict = only(stats["methods"], path="/mindspore.serving.proto.MSService/Predict", servable="")
    assert (predict["ended"], predict["with_errors"]) == ({"OK": 1, "RESOURCE_EXHAUSTED": 2}, 1)
    assert predict["errors"] == {"SERVABLE_UNAVAILABLE": 1}


def test_a_restart_is_counted_and_the_methods_go_on(served: Served) -> None:
    client = served.client("check")
    assert client.infer({"x": 1}) == [{"y": 1}]
    (first,) = served.process.workers()
    os.kill(first, signal.SIGKILL)
    wait_gone([first])
    until(lambda: client.infer({"x": 1}) == [{"y": 1}])
    # The gateway gives the successor work a moment before its supervisor writes down that it is ready.
    until(lambda: stats_of(served.process)["workers"][0]["ready"])
    (worker,) = stats_of(served.process)["workers"]
    assert worker["restarts"] == 1
    assert worker["pid"] != first
    assert only(worker["stages"], name="sums.checked")["instances"] == worker["requests"] >= 1
    check = only(stats_of(served.process)["methods"], method="check")
    assert check["ended"]["OK"] >= 2


def test_when_certificates_expire(tmp_path: pathlib.Path, own_files: Files) -> None:
    tls = f"server.SSLConfig({str(own_files.server)!r}, {str(own_files.server_key)!r})"
    listen = f"[server.Listener('127.0.0.1:0'), server.Listener('127.0.0.1:0', {tls})]"
    with serving(
        tmp_path / "server", "sums", CONFIG, {"add.onnx": add_model(("n", 2))}, listen=listen, after=LISTEN
    ) as running:
        (certificate,) = stats_of(running.process)["certificates"]
        assert certificate["address"] == running.addresses[1]
        assert certificate["file"] == str(own_files.server)
        assert certificate["expires"].startswith("20")


def test_without_a_server_there_are_none() -> None:
    with pytest.raises(StartError, match="no server runs in this process") as caught:
        server.stats()
    assert isinstance(caught.value, MindserveError)


def test_histograms_tell_means_and_quantiles() -> None:
    histogram = Histogram(4, 10.0, ((1.0, 2), (3.0, 1), (5.0, 1)))
    assert histogram.mean == 2.5
    assert [histogram.quantile(q) for q in (0, 0.5, 0.75, 1)] == [1.0, 1.0, 3.0, 5.0]
    assert Histogram(0, 0.0, ()).mean == Histogram(0, 0.0, ()).quantile(0.5) == 0.0
