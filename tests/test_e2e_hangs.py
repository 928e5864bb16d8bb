"""Stages that go beyond their timeouts: the worker says which and where, and is replaced."""

from __future__ import annotations

import pathlib

import grpc
import numpy as np
import pytest

from e2e_support import PREAMBLE, onnx_models, request, serving, status_of, tensor, until

CONFIG = (
    PREAMBLE
    + '''
import ctypes
import os
import threading

add = register.declare_model("add.onnx", "ONNX")


def hang(how):
    if how == "sleeping":
        threading.Event().wait()
    if how == "holding the GIL":
        ctypes.PyDLL(None).pause()
    return "on time"


@register.register_method(output_names=["y"])
def patient(how):
    return register.add_stage(hang, how, outputs_count=1, timeout=3600)


@register.register_method(output_names=["y"])
def impatient(how):
    return register.add_stage(hang, how, outputs_count=1, timeout=2)


@method("x", batch_size=4, timeout=5)
def third_time(instances):
    """Each call takes its time; all of them together take longer than one may."""
    threading.Event().wait(2)
    if len(instances) > 1:
        raise ValueError("one at a time, please")
    return [x for (x,) in instances]


@method()
def pid(x):
    return os.getpid()


@register.register_method(output_names=["y"])
def sums(x1, x2):
    return register.add_stage(add, x1, x2, outputs_count=1, timeout=60)
'''
)


def log_in(folder: pathlib.Path) -> str:
    (log,) = (folder / "run" / "serving_logs").iterdir()
    return log.read_text()


@pytest.mark.parametrize("how", ["sleeping", "holding the GIL"])
def test_a_worker_whose_stage_hangs_is_replaced(tmp_path: pathlib.Path, how: str) -> None:
    with serving(tmp_path, "hangs", CONFIG, {"add.onnx": onnx_models().add()}) as served:
        assert served.value("impatient", how="not at all") == "on time"
        first = served.value("pid", x=0)
        call = request("hangs", "patient", {"how": tensor(how)}).SerializeToString()
        code, _ = status_of(lambda: served.raw(call))
        assert code is grpc.StatusCode.UNAVAILABLE
        until(
            lambda: served.client("pid").infer({"x": 0}, timeout=60),
            lambda result: isinstance(result, list) and result[0]["y"] != first,
        )
        log = log_in(tmp_path)
        assert "[ERROR] " in log
        assert "servable 'hangs': function 'hangs.hang' has run for longer than its timeout of 2000 ms" in log
        assert "it executes call " in log
        assert "(method 'patient', connection " in log
        assert "this process ends with status 71" in log
        # The stack: what hangs, and where.
        assert 'servable_config.py", line ' in log
        assert " in hang\n" in log
        until(served.process.errors, lambda text: "exited with status 71: a stage went beyond its timeout" in text)


def test_the_timeout_counts_for_each_call(tmp_path: pathlib.Path) -> None:
    with serving(tmp_path, "hangs", CONFIG, {"add.onnx": onnx_models().add()}) as served:
        first = served.value("pid", x=0)
        results = served.ask("third_time", {"x": 1}, {"x": 2}, {"x": 3})
        assert [result["y"].item() for result in results] == [1, 2, 3]
        ones = np.ones((2, 2), np.float32)
        assert (served.value("sums", x1=ones, x2=ones) == 2).all()
        assert served.value("pid", x=0) == first
