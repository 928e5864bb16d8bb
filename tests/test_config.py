"""What a server is told: parameters, directories, limits, levels of logs, and the control protocol's lines."""

from __future__ import annotations

import asyncio
import contextvars
import dataclasses
import json
import logging
import os
import pathlib
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import mindserve
from conftest import PACKAGE, Servables
from mindserve import control, logs, server
from mindserve.config import Limits, Listener, ServableStartConfig, check_servable_directory, find_version
from mindserve.errors import ConfigError, MindserveError, StartError, UnsupportedError
from mindserve.server.servables import make_specs, resolve
from mindserve.supervisor.restart import RestartPolicy, describe_exit


def test_errors_are_runtime_errors() -> None:
    for error in (ConfigError, StartError, UnsupportedError):
        assert issubclass(error, MindserveError)
        assert issubclass(error, RuntimeError)
    assert mindserve.__version__


# -- ServableStartConfig -----------------------------------------------------------------------------------------------


def test_servable_start_config_defaults(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    config = ServableStartConfig("servables", "add")
    assert config.servable_directory == str(tmp_path / "servables")
    assert config.device_ids == (0,)
    assert config.version_number == 0
    assert config.device_type is None
    assert config.num_parallel_workers == 0
    assert config.dec_key is None
    assert config.dec_mode == "AES-GCM"
    assert config.start_timeout == 600
    assert config.heartbeat_timeout == 10
    assert config.max_batch_size == 32
    assert config.max_queue_delay_us == 0
    assert config.hot_reload is True
    assert config.refuse_late is False
    assert (config.handler_threads, config.send_tracebacks) == (32, True)


@pytest.mark.parametrize(("given", "kept"), [("cpu", "CPU"), ("Gpu", "GPU"), ("ASCEND", "Ascend"), ("None", None)])
def test_device_type_in_any_case(given: str, kept: str | None) -> None:
    assert ServableStartConfig("d", "n", device_type=given).device_type == kept


@pytest.mark.parametrize(("given", "kept"), [(2, (2,)), ((0, 1), (0, 1)), ([3, 1], (3, 1)), ((), (0,))])
def test_device_ids(given: Any, kept: tuple[int, ...]) -> None:
    assert ServableStartConfig("d", "n", given).device_ids == kept


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"servable_directory": 1}, "Parameter 'servable_directory' should be str, but actually <class 'int'>"),
        ({"servable_directory": ""}, "Parameter 'servable_directory' should not be empty str"),
        ({"servable_name": False}, "Parameter 'servable_name' should be str, but actually <class 'bool'>"),
        ({"servable_name": ""}, "Parameter 'servable_name' should not be empty str"),
        ({"servable_name": "../x"}, "Parameter 'servable_name' should be the name of a directory"),
        ({"servable_name": ".."}, "Parameter 'servable_name' should be the name of a directory"),
        (
            {"device_ids": "1"},
            "Parameter 'device_ids' should be int or tuple/list of int, but actually <class 'str'>",
        ),
        ({"device_ids": True}, "Parameter 'device_ids' should be int or tuple/list of int, but actually"),
        ({"device_ids": -1}, "The item value '-1' in parameter 'device_ids' should be >= 0"),
        ({"device_ids": [0, "1"]}, "The item of parameter 'device_ids' should be int, but actually <class 'str'>"),
        ({"device_ids": [0, 0]}, "The item value '0' in parameter 'device_ids' should not be repeated"),
        ({"version_number": False}, "Parameter 'version_number' should be int, but actually <class 'bool'>"),
        ({"version_number": -1}, "Parameter 'version_number' should be >= 0, but actually -1"),
        ({"device_type": 123}, "Parameter 'device_type' should be str, but actually <class 'int'>"),
        ({"device_type": ""}, "Parameter 'device_type' should not be empty str"),
        (
            {"device_type": "TPU"},
            "Unsupported device type 'TPU', only support 'Ascend', 'GPU', 'CPU' and None, case ignored",
        ),
        ({"num_parallel_workers": "1"}, "Parameter 'num_parallel_workers' should be int, but actually"),
        ({"num_parallel_workers": 65}, "Parameter 'num_parallel_workers' should be in range [0,64], but actually 65"),
        (
            {"num_parallel_workers": -(10**5000)},
            "Parameter 'num_parallel_workers' should be in range [0,64], but actually an int of 16610 bits",
        ),
        ({"device_ids": -(10**5000)}, "The item value 'an int of 16610 bits' in parameter 'device_ids' should be >= 0"),
        ({"num_parallel_workers": -1}, "Parameter 'num_parallel_workers' should be in range [0,64]"),
        ({"num_parallel_workers": 1}, "Parameter 'num_parallel_workers' > 0 is not supported by this version"),
        ({"dec_key": "key"}, "Parameter 'dec_key' should be bytes, but actually <class 'str'>"),
        ({"dec_key": b"key"}, "comes in a later version"),
        ({"dec_mode": 1}, "Parameter 'dec_mode' should be str, but actually <class 'int'>"),
        ({"dec_mode": "AES-CTR"}, "Parameter 'dec_mode' should be 'AES-GCM' or 'AES-CBC', but actually 'AES-CTR'"),
        ({"start_timeout": 0}, "Parameter 'start_timeout' should be > 0 seconds, but actually 0"),
        ({"start_timeout": float("nan")}, "Parameter 'start_timeout' should be > 0 seconds, but actually nan"),
        ({"heartbeat_timeout": 1}, "Parameter 'heartbeat_timeout' should be > 1 seconds, but actually 1"),
        ({"start_timeout": "1"}, "Parameter 'start_timeout' should be int or float, but actually <class 'str'>"),
        ({"max_enqueued_requests": -1}, "Parameter 'max_enqueued_requests' should be in range [0,"),
        ({"max_enqueued_bytes": "1"}, "Parameter 'max_enqueued_bytes' should be int"),
        ({"max_batch_size": 0}, "Parameter 'max_batch_size' should be in range [1,"),
        ({"hot_reload": 1}, "Parameter 'hot_reload' should be bool, but actually <class 'int'>"),
        ({"refuse_late": 1}, "Parameter 'refuse_late' should be bool"),
        ({"handler_threads": 0}, "Parameter 'handler_threads' should be in range [1,1024], but actually 0"),
        ({"handler_threads": 1025}, "Parameter 'handler_threads' should be in range [1,1024], but actually 1025"),
        ({"send_tracebacks": 1}, "Parameter 'send_tracebacks' should be bool"),
        ({"max_queue_delay_us": -1}, "Parameter 'max_queue_delay_us' should be in range [0,"),
    ],
)
def test_wrong_servable_start_configs(arguments: dict[str, Any], text: str) -> None:
    with pytest.raises(RuntimeError) as error:
        ServableStartConfig(**{"servable_directory": "d", "servable_name": "n", **arguments})
    assert text in str(error.value)


def test_the_key_is_not_shown() -> None:
    with pytest.raises(UnsupportedError) as error:
        ServableStartConfig("d", "n", dec_key=b"secret")
    assert "secret" not in str(error.value)
    (field,) = (field for field in dataclasses.fields(ServableStartConfig) if field.name == "dec_key")
    assert not field.repr


@pytest.mark.parametrize(
    "make",
    [
        lambda text: ServableStartConfig("servables", text),
        lambda text: ServableStartConfig(text, "add"),
        lambda text: Listener(f"unix:{text}"),
    ],
)
def test_names_of_files_that_are_no_text(make: Callable[[str], object]) -> None:
    """Bytes that are no UTF-8 come from the command line as lone surrogates."""
    with pytest.raises(ConfigError, match=r"Parameter '\w+' should be UTF-8, but actually '(unix:)?a\\udcff'"):
        make("a\udcff")


# -- directories and versions ------------------------------------------------------------------------------------------


def test_missing_directories_and_files(servables: Servables) -> None:
    servables.add("add", "")
    directory = str(servables.directory)
    check_servable_directory(ServableStartConfig(directory, "add"))
    with pytest.raises(ConfigError, match=f"Check servable config failed, directory '{directory}_not' not exist"):
        check_servable_directory(ServableStartConfig(directory + "_not", "add"))
    with pytest.raises(ConfigError, match=f"Check servable config failed, directory '{directory}/sub' not exist"):
        check_servable_directory(ServableStartConfig(directory, "sub"))
    (servables.directory / "add" / "servable_config.py").unlink()
    with pytest.raises(ConfigError, match=r"Check servable config failed, file '.*/add/servable_config.py' not exist"):
        check_servable_directory(ServableStartConfig(directory, "add"))


def test_find_version(servables: Servables) -> None:
    servable = servables.add("add", "")
    directory = str(servables.directory)
    assert find_version(directory, "add", 0) is None
    for name in ("0", "-1", "01", "1.5", "x", "٣", "2", "10", "9"):
        (servable / name).mkdir()
    (servable / "11").write_text("no directory")
    assert find_version(directory, "add", 0) == 10
    assert find_version(directory, "add", 2) == 2
    assert find_version(directory, "add", 1) is None
    assert find_version(directory, "add", 11) is None
    assert find_version(directory, "nothing", 0) is None


def test_a_worker_for_each_device_once(servables: Servables) -> None:
    servable = servables.add("add", "")
    for version in ("1", "2"):
        (servable / version).mkdir()
    directory = str(servables.directory)
    specs = make_specs(
        [
            resolve(ServableStartConfig(directory, "add", (1, 3))),
            resolve(ServableStartConfig(directory, "add", (3, 2), version_number=2)),
            resolve(ServableStartConfig(directory, "add", 1, version_number=1)),
        ],
        running=0,
    )
    assert [spec.key for spec in specs] == [("add", 2, 1), ("add", 2, 3), ("add", 2, 2), ("add", 1, 1)]
    assert specs[0].log_path == pathlib.Path.cwd() / "serving_logs" / "log_add_device1_version2.log"
    assert {spec.parameters.intra_op_threads for spec in specs} == {max(1, len(os.sched_getaffinity(0)) // 4)}


def test_a_worker_is_told_how_to_run_handlers(servables: Servables) -> None:
    servables.add("add", "")
    config = ServableStartConfig(str(servables.directory), "add", handler_threads=3, send_tracebacks=False)
    (spec,) = make_specs([resolve(config)], running=0, internal_address="unix:/run/internal")
    parameters = spec.parameters
    assert (parameters.handler_threads, parameters.send_tracebacks) == (3, False)
    assert parameters.internal_address == "unix:/run/internal"


def test_a_worker_may_wait_for_the_slowest_of_those_it_starts_with(servables: Servables) -> None:
    servables.add("add", "")
    directory = str(servables.directory)
    specs = make_specs(
        [
            resolve(ServableStartConfig(directory, "add", version_number=1, start_timeout=5)),
            resolve(ServableStartConfig(directory, "add", version_number=2, start_timeout=7000)),
        ],
        running=0,
    )
    assert [spec.start_timeout for spec in specs] == [5, 7000]
    assert all(spec.parameters.handshake_timeout > 7000 for spec in specs)


def test_a_servable_without_version_directories(servables: Servables) -> None:
    servables.add("add", "")
    directory = str(servables.directory)
    (spec,) = make_specs([resolve(ServableStartConfig(directory, "add"))], running=0)
    assert (spec.parameters.version, spec.parameters.version_asked) == (1, 0)
    (spec,) = make_specs([resolve(ServableStartConfig(directory, "add", version_number=2))], running=0)
    assert (spec.parameters.version, spec.parameters.version_asked) == (2, 2)


# -- the functions of a start script, as far as no server is needed ----------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ((1,), "Parameter 'servable_configs' should be ServableStartConfig or tuple/list of ServableStartConfig"),
        (((),), "Parameter 'servable_configs' should not be empty"),
        (((1,),), "The item of parameter 'servable_configs' should be ServableStartConfig, but actually"),
        (
            ([ServableStartConfig("a", "n", max_enqueued_bytes=5), ServableStartConfig("a", "n", [1])],),
            "Parameter 'max_enqueued_bytes' of servable name n is different in multiple configurations: 5 and 0",
        ),
        (
            ([ServableStartConfig("a", "n"), ServableStartConfig("b", "n")],),
            "The servable directory of servable name n is different in multiple configurations",
        ),
        ((ServableStartConfig("a", "n"), 1), "Parameter 'enable_lite' should be bool, but actually <class 'int'>"),
        ((ServableStartConfig("a", "n"), True), "Parameter 'enable_lite' is not supported by this version"),
    ],
)
def test_wrong_arguments_of_start_servables(arguments: tuple[Any, ...], text: str) -> None:
    with pytest.raises(RuntimeError) as error:
        server.start_servables(*arguments)
    assert text in str(error.value)


def test_reload_without_a_server() -> None:
    with pytest.raises(RuntimeError, match="Parameter 'servable_name' should be str"):
        server.reload(5)  # type: ignore[arg-type]
    with pytest.raises(RuntimeError, match="no server runs in this process"):
        server.reload("add")


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"address": 1}, "Parameter 'address' should be str, but actually <class 'int'>"),
        ({"address": ""}, "Parameter 'address' should not be empty str"),
        ({"address": []}, "Parameter 'address' should not be an empty list"),
        (
            {"address": ["127.0.0.1:0"]},
            "The item of parameter 'address' should be Listener, but actually <class 'str'>",
        ),
        ({"max_msg_mb_size": "1"}, "Parameter 'max_msg_mb_size' should be int, but actually <class 'str'>"),
        ({"max_msg_mb_size": 0}, "Parameter 'max_msg_mb_size' should be in range [1,512]"),
        ({"max_msg_mb_size": 513}, "Parameter 'max_msg_mb_size' should be in range [1,512]"),
        ({"ssl_config": "x"}, "Parameter 'ssl_config' should be SSLConfig, but actually <class 'str'>"),
        ({"limits": {}}, "Parameter 'limits' should be Limits, but actually <class 'dict'>"),
        (
            {"limits": Limits(max_msg_mb_size=5), "max_msg_mb_size": 6},
            "Parameter 'max_msg_mb_size' 6 is different from that of parameter 'limits', 5",
        ),
        (
            {"address": [Listener("127.0.0.1:0")], "ssl_config": server.SSLConfig("c", "k")},
            "Parameter 'ssl_config' belongs to each Listener",
        ),
    ],
)
def test_wrong_arguments_of_start_grpc_server(arguments: dict[str, Any], text: str) -> None:
    with pytest.raises(RuntimeError) as error:
        server.start_grpc_server(**{"address": "127.0.0.1:0", **arguments})
    assert text in str(error.value)


def test_stop_without_a_server() -> None:
    server.stop()
    server.stop()


def test_the_master_is_there_with_the_server() -> None:
    script = "from mindserve import server; server.master.context.set_max_enqueued_requests(5)"
    subprocess.run([sys.executable, "-c", script], check=True, env={**os.environ, "PYTHONPATH": str(PACKAGE)})


def test_set_max_enqueued_requests_checks() -> None:
    from mindserve.server.master import context

    with pytest.raises(RuntimeError, match="Parameter 'max_enqueued_requests' should be in range"):
        context.set_max_enqueued_requests(0)
    with pytest.raises(RuntimeError, match="Parameter 'max_enqueued_requests' should be int, but actually"):
        context.set_max_enqueued_requests("1")  # type: ignore[arg-type]


def test_register_is_importable_as_a_module() -> None:
    from mindserve.server.register import Context

    assert Context is server.register.Context


# -- limits ------------------------------------------------------------------------------------------------------------


def test_limits_as_native() -> None:
    limits = Limits(header_timeout=0.0001, drain_timeout=1.5, body_idle_timeout=5, max_connections=3)
    native = limits.as_native()
    assert native == {"header_timeout": 1, "drain_timeout": 1500, "body_idle_timeout": 5000, "max_connections": 3}
    assert all(type(value) is int for value in native.values())
    assert Limits().as_native() == {}


def test_a_limit_of_zero_seconds_is_none() -> None:
    assert Limits(drain_timeout=0).as_native() == {"drain_timeout": 0}


@pytest.mark.parametrize(
    ("limits", "text"),
    [
        ({"max_msg_mb_size": 513}, "Parameter 'max_msg_mb_size' should be in range [1,512]"),
        ({"max_connections": 0}, "Parameter 'max_connections' should be in range [1,"),
        ({"max_connections_per_peer": -1}, "Parameter 'max_connections_per_peer' should be in range [0,"),
        ({"max_enqueued_bytes": 1.5}, "Parameter 'max_enqueued_bytes' should be int, but actually <class 'float'>"),
        ({"header_timeout": 0}, "Parameter 'header_timeout' should be > 0 seconds, but actually 0"),
        ({"drain_timeout": -1}, "Parameter 'drain_timeout' should be >= 0 seconds, but actually -1"),
        ({"default_deadline": "1"}, "Parameter 'default_deadline' should be int or float, but actually <class 'str'>"),
    ],
)
def test_wrong_limits(limits: dict[str, Any], text: str) -> None:
    with pytest.raises(RuntimeError) as error:
        Limits(**limits)
    assert text in str(error.value)


def test_wrong_listeners() -> None:
    with pytest.raises(ConfigError, match="Parameter 'address' should be str, but actually"):
        Listener(1)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=r"Parameter 'mode' should be in range \[0,511\]"):
        Listener("unix:x", mode=0o1000)


# -- logs --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("environment", "level"),
    [
        ({}, 1),
        ({"GLOG_v": "3"}, 3),
        ({"GLOG_v": "0", "MS_SUBMODULE_LOG_v": "{SERVING:2}"}, 2),
        ({"GLOG_v": "3", "MS_SUBMODULE_LOG_v": "{MD:0, SERVING: 0}"}, 0),
        ({"GLOG_v": "3", "MS_SUBMODULE_LOG_v": "{MD:0}"}, 3),
        ({"GLOG_v": "many", "MS_SUBMODULE_LOG_v": "{SERVING:9}"}, 1),
    ],
)
def test_level_from_environment(environment: dict[str, str], level: int) -> None:
    assert logs.level_from_environment(environment) == level


def test_native_lines_are_logged(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG, "mindserve"):
        logs.native_sink(2, "100% text")
        logs.native_sink(9, "beyond")
    assert [(record.levelname, record.getMessage()) for record in caplog.records] == [
        ("WARNING", "100% text"),
        ("CRITICAL", "beyond"),
    ]


@pytest.fixture
def own_logging() -> Iterator[None]:
    """For a test that configures the process's logging, which is as before afterwards."""
    root, package = logging.getLogger(), logging.getLogger("mindserve")
    handlers, levels = list(root.handlers), (root.level, package.level)
    # Out of reach of `force`, which closes what it finds.
    root.handlers.clear()
    yield
    root.handlers[:] = handlers
    root.setLevel(levels[0])
    package.setLevel(levels[1])


LINE = r"\[INFO\] \d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{3} "


@pytest.mark.usefixtures("own_logging")
def test_lines_of_a_request_carry_its_id(capsys: pytest.CaptureFixture[str]) -> None:
    request_id = contextvars.ContextVar("request_id", default="")
    logs.configure_worker(request_id.get)
    users = logging.getLogger("users.module")

    async def handle(name: str) -> None:
        request_id.set(name)
        await asyncio.sleep(0)
        users.info("in %s", name)

    async def handle_two() -> None:
        await asyncio.gather(handle("one"), handle("two"))

    users.info("before")
    asyncio.run(handle_two())
    logs.get_logger("worker").info("after")
    lines = capsys.readouterr().err.splitlines()
    ends = ["users.module: before", r"users.module \[one\]: in one", r"users.module \[two\]: in two",
            "mindserve.worker: after"]  # fmt: skip
    for line, end in zip(lines, ends, strict=True):
        assert re.fullmatch(LINE + end, line), line


@pytest.mark.usefixtures("own_logging")
def test_the_worker_may_say_what_the_request_is(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure_worker(lambda: "x-7")
    logging.getLogger("a").info("text\nmore")
    assert re.fullmatch(LINE + r"a \[x-7\]: text\nmore\n", capsys.readouterr().err)


def test_tail(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "log"
    assert logs.tail(path) == ""
    path.write_text("".join(f"line {i}\n" for i in range(100)))
    assert logs.tail(path, 2) == "line 98\nline 99"
    assert logs.tail(path, 1000, limit=8) == "line 99"


def test_worker_logs_are_private(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "serving_logs" / "log"
    for append, text in ((False, b"a"), (True, b"b"), (False, b"c"), (True, b"d")):
        descriptor = logs.open_worker_log(path, append=append)
        os.write(descriptor, text)
        os.close(descriptor)
    assert path.read_bytes() == b"cd"
    assert path.stat().st_mode & 0o077 == 0
    assert path.parent.stat().st_mode & 0o077 == 0


# -- the control protocol ----------------------------------------------------------------------------------------------

PARAMETERS = control.WorkerParameters(
    servable_directory="/d",
    servable_name="n",
    version=1,
    version_asked=0,
    device_id=2,
    device_type=None,
    intra_op_threads=1,
    max_batch_size=32,
    max_queue_delay_us=0,
    handshake_timeout=660.0,
    refuse_late=True,
    handler_threads=32,
    send_tracebacks=True,
    internal_address="",
)


def test_parameters_round_trip() -> None:
    line = PARAMETERS.encode()
    assert line.count(b"\n") == 1
    assert control.WorkerParameters.decode(line) == PARAMETERS


@pytest.mark.parametrize(
    "event",
    [
        control.Phase("loading\nmodel"),
        control.Ready((control.ReadyMethod("a"), control.ReadyMethod("b", idempotent=False))),
        control.Ready(
            (
                control.ReadyMethod(
                    "a", True, ("x",), ("y", "z"), (None,), (control.TensorType("float32", (-1, 2)), None)
                ),
            )
        ),
        control.Ready(()),
        control.Ready(
            (control.ReadyMethod("/p.S/M"),),
            (control.ReadyService("p.S", (control.ReadyRpc("M", True, False, "p.In", "p.Out"),)),),
        ),
        control.Failed("error é", "trace"),
    ],
)
def test_events_round_trip(event: control.Event) -> None:
    line = control.encode_event(event)
    assert line.count(b"\n") == 1
    assert control.decode_event(line) == event


def test_long_errors_fit_into_a_line() -> None:
    line = control.encode_event(control.Failed("é" * 10**6, "é" * 10**6))
    assert len(line) < control.MAX_LINE_BYTES
    assert control.LineBuffer().feed(line)


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"{",
        b"1",
        b"\xff",
        b"{}",
        b'{"event": "phase"}',
        b'{"event": "ready", "methods": []}',
        b'{"event": "ready", "methods": [1], "services": []}',
        b'{"event": "ready", "methods": [{"name": "a", "idempotent": 1}], "services": []}',
        b'{"event": "ready", "methods": [], "services": [1]}',
        b'{"event": "ready", "methods": [], "services": [{"name": "p.S", "methods": [{"name": "M"}]}]}',
        b"[" * 100_000,
    ],
)
def test_lines_that_are_no_events(line: bytes) -> None:
    with pytest.raises(control.ControlError):
        control.decode_event(line)


def test_every_cut_and_changed_event_is_told() -> None:
    line = control.encode_event(control.Failed("text", "trace")).strip()
    for end in range(len(line)):
        with pytest.raises(control.ControlError):
            control.decode_event(line[:end])
    for place in range(len(line)):
        changed = bytearray(line)
        changed[place] ^= 0x80
        with pytest.raises(control.ControlError):
            control.decode_event(bytes(changed))


def test_parameters_that_are_not_as_expected() -> None:
    with pytest.raises(control.ControlError, match="Worker parameters are not as expected"):
        control.WorkerParameters.decode(json.dumps({"servable_name": "x"}).encode())


def test_line_buffer() -> None:
    buffer = control.LineBuffer()
    assert buffer.feed(b"ab") == []
    assert buffer.feed(b"c\nd\ne") == [b"abc", b"d"]
    assert buffer.feed(b"\n") == [b"e"]
    with pytest.raises(control.ControlError, match="A line of more than"):
        buffer.feed(b"x" * (control.MAX_LINE_BYTES + 1))


# -- restarts ----------------------------------------------------------------------------------------------------------


def test_a_worker_that_was_told_to_end_is_not_restarted() -> None:
    policy = RestartPolicy()
    assert policy.after_death(-2, ready_for=5, answered=True) is None
    assert policy.after_death(-15, ready_for=None, answered=False) is None


def test_a_worker_that_was_ready_is_restarted_at_once() -> None:
    policy = RestartPolicy()
    for ready_for, answered in ((0.1, True), (1.5, False)):
        assert [policy.after_death(-9, ready_for=ready_for, answered=answered) for _ in range(20)] == [0] * 20
    assert policy.after_death(0, ready_for=300, answered=False) == 0


def test_a_worker_that_is_never_ready_is_restarted_later_and_later() -> None:
    policy = RestartPolicy()
    assert [policy.after_death(1, ready_for=None, answered=False) for _ in range(6)] == [5, 10, 20, 40, 60, 60]
    assert policy.after_death(-9, ready_for=100, answered=False) == 0
    assert policy.after_death(1, ready_for=None, answered=False) == 5


def test_a_worker_that_crashes_as_soon_as_it_is_ready_is_restarted_later_and_later() -> None:
    policy = RestartPolicy()
    assert [policy.after_death(-11, ready_for=0.1, answered=False) for _ in range(4)] == [0, 5, 10, 20]
    assert policy.after_death(-11, ready_for=0.1, answered=True) == 0
    assert [policy.after_death(-11, ready_for=0.1, answered=False) for _ in range(3)] == [0, 5, 10]


def test_exits_in_words() -> None:
    assert describe_exit(3) == "exited with status 3"
    assert describe_exit(-9) == "was ended by SIGKILL"
    assert describe_exit(-63) == "was ended by signal 63"
