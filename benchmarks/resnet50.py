"""Case (e): ResNet-50 through the server, and in a bare loop of ONNX Runtime."""

from __future__ import annotations

import os
import statistics
import time
from pathlib import Path

import numpy as np
import onnxruntime as ort
from calls import Call
from load import Pattern
from report import Column, Section
from rounds import Timing, median_ratio, progress
from servers import Served, Servers

_COLUMNS: list[Column] = [
    ("in flight", "flight", ""),
    ("mindserve, images/s", "rate", ",.1f"),
    ("bare loop, images/s", "bare_rate", ",.1f"),
    ("ratio", "rate_ratio", ".3f"),
    ("images/batch", "batch", ".1f"),
    ("CPU ms/image", "cpu_ms", ",.1f"),
]

_IN_FLIGHT = (1, 4, 16)
_IMAGE = np.ones((3, 224, 224), np.float32)


def measure_resnet50(servers: Servers, model: Path, timing: Timing) -> Section:
    """Images a second by images in flight; the loop runs batches of as many, on as many threads."""
    session = _open(model)
    (expected,) = _run(session, 1)
    call = Call("resnet50", "classify", [{"image": _IMAGE}], [expected])
    server = servers.mindserve("resnet50", ["resnet50"])
    load = servers.load("mindserve", server.tcp, call)
    rows = []
    for flight in _IN_FLIGHT:
        bare, served, cpu = [], [], []
        _run(session, flight)
        before = _batches(server)
        for number in range(timing.rounds):
            progress(f"(e) with {flight} in flight: round {number + 1} of {timing.rounds}")
            bare.append(_loop(session, flight, timing.seconds))
            count = max(2 * flight, int(bare[-1] * timing.seconds) // flight * flight)
            sample = load.run(Pattern(1, flight), count)
            served.append(sample.rate)
            cpu.append(sample.cpu_us)
        batches, images = (after - begun for after, begun in zip(_batches(server), before, strict=True))
        rows.append(
            {
                "flight": flight,
                "rate": statistics.median(served),
                "bare_rate": statistics.median(bare),
                "rate_ratio": median_ratio(served, bare),
                "batch": images / batches,
                "cpu_ms": statistics.median(cpu) / 1000,
            }
        )
    return Section(_COLUMNS, rows, timing.made)


def _batches(server: Served) -> tuple[int, int]:
    """How many batches the model has run so far, and with how many images."""
    (worker,) = server.stats()["workers"]
    (model,) = (stage for stage in worker["stages"] if stage["kind"] == "model")
    return model["batches"], model["instances"]


def _open(model: Path) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.intra_op_num_threads = len(os.sched_getaffinity(0))
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return ort.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])


def _run(session: ort.InferenceSession, batch: int) -> np.ndarray:
    images = np.broadcast_to(_IMAGE, (batch, *_IMAGE.shape))
    return np.asarray(session.run(None, {session.get_inputs()[0].name: np.ascontiguousarray(images)})[0])


def _loop(session: ort.InferenceSession, batch: int, seconds: float) -> float:
    """Images a second."""
    name = session.get_inputs()[0].name
    images = np.ascontiguousarray(np.broadcast_to(_IMAGE, (batch, *_IMAGE.shape)))
    start, done = time.perf_counter(), 0
    while time.perf_counter() - start < seconds:
        session.run(None, {name: images})
        done += batch
    return done / (time.perf_counter() - start)
