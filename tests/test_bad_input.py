"""Files, disks and memory that are not as they should be: one clear error each, and no harm to what runs."""

from __future__ import annotations

import ast
import os
import pathlib
import re
import resource
import signal

import onnx
import pytest

from conftest import ADD_SERVABLE, ECHO_SERVABLE, Servables, ServerProcess, StartScript, add_model, pid_of
from e2e_support import until, varint
from mindserve.client import Client
from mindserve.proto import messages
from sanitizers import needs_limited_addresses, needs_no_descriptors

# Starts what is right, listens, and then tries what is wrong; goes on afterwards.
SCRIPT = """
import sys
from mindserve import server
directory = {directory!r}
server.start_servables(server.ServableStartConfig(directory, "echo"))
print(server.start_grpc_server("127.0.0.1:0")[0], flush=True)
try:
    server.start_servables(server.ServableStartConfig(directory, "bad", {options}))
    print("started", flush=True)
except RuntimeError as error:
    print(repr(str(error)), flush=True)
"""


def attempt(servables: Servables, start_script: StartScript, options: str = "") -> tuple[ServerProcess, str, str]:
    """The process, its address, and how the start of the bad one went; the good one is served all along."""
    servables.add("echo", ECHO_SERVABLE)
    server = start_script(SCRIPT.format(directory=str(servables.directory), options=options))
    address = server.line()
    text = server.line()
    is_well(address)
    return server, address, text


def good_one(servables: Servables, start_script: StartScript) -> tuple[ServerProcess, str]:
    """A server with nothing bad about it, and its address."""
    servables.add("echo", ECHO_SERVABLE)
    server = start_script(
        "from mindserve import server\n"
        f"server.start_servables(server.ServableStartConfig({str(servables.directory)!r}, 'echo'))\n"
        "print(server.start_grpc_server('127.0.0.1:0')[0], flush=True)\n"
    )
    return server, server.line()


def is_well(address: str) -> None:
    with Client(address, "echo", "same") as client:
        assert client.infer({"x": "text"}, timeout=60) == [{"x": "text"}]


def ends(server: ServerProcess) -> None:
    server.send(signal.SIGTERM)
    assert server.wait() == 0, server.errors()


# -- models ------------------------------------------------------------------------------------------------------------


def later_opset() -> bytes:
    model = add_model()
    model.opset_import[0].version = 999
    return model.SerializeToString()


def later_format() -> bytes:
    model = add_model()
    model.ir_version = 99
    return model.SerializeToString()


def unknown_operator() -> bytes:
    model = add_model()
    model.graph.node[0].op_type = "NoSuchOperator"
    return model.SerializeToString()


def data_elsewhere() -> bytes:
    """Its weights are in a file outside of the version's directory."""
    model = add_model()
    weights = model.graph.initializer.add(name="x1", data_type=onnx.TensorProto.FLOAT, dims=[2, 2])
    weights.data_location = onnx.TensorProto.EXTERNAL
    weights.external_data.add(key="location", value="../../../../../../etc/passwd")
    return model.SerializeToString()


def cut() -> bytes:
    whole = add_model().SerializeToString()
    return whole[: len(whole) // 2]


MODELS = {
    "missing": None,
    "empty": b"",
    "text": b"this is no model\n" * 100,
    "zeros": bytes(4096),
    "cut": cut(),
    "a pointer of Git LFS": b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 132735\n",
    "of a later opset": later_opset(),
    "of a later format": later_format(),
    "with an unknown operator": unknown_operator(),
    "with its data elsewhere": data_elsewhere(),
}
MODEL_ERRORS = {
    "missing": "add.onnx' not exist",
    "empty": "the file is empty",
    "text": "it has 1700 bytes: is it another format, or cut off?",
    "zeros": "it has 4096 bytes: is it another format, or cut off?",
    "cut": "is it another format, or cut off?",
    "a pointer of Git LFS": "It is a pointer of Git LFS: 'git lfs pull' fetches the model",
    "of a later opset": "version number: 1: the model is of opset 999 of ai.onnx, and ONNX Runtime knows ",
    "of a later format": "version number: 1: the model is of version 99 of the ONNX format, and ONNX Runtime knows ",
    "with an unknown operator": 'device CPU: This is an invalid model. In Node, ("", NoSuchOperator, ',
    "with its data elsewhere": "device CPU: External data path validation failed for initializer: x1",
}


@pytest.mark.parametrize("what", MODELS)
def test_model_files(servables: Servables, start_script: StartScript, what: str) -> None:
    directory = servables.add("bad", ADD_SERVABLE, versions=(1,))
    path = directory / "1" / "add.onnx"
    content = MODELS[what]
    if content is None:
        path.unlink()
    else:
        path.write_bytes(content)
    server, _, text = attempt(servables, start_script)
    text = str(ast.literal_eval(text))
    error, _, log = text.partition("\nIts log is ")
    assert error.count("Load model") == 1
    assert "Load model failed, servable directory: " in error
    assert "add.onnx" in error
    assert MODEL_ERRORS[what] in error
    assert "/onnxruntime_src/" not in text
    assert "Traceback" not in log
    ends(server)


@pytest.mark.parametrize("what", ["directory", "fifo", "loop"])
def test_model_files_that_are_none(servables: Servables, start_script: StartScript, what: str) -> None:
    """What would hang or confuse who opens it."""
    directory = servables.add("bad", ADD_SERVABLE, versions=(1,))
    path = directory / "1" / "add.onnx"
    path.unlink()
    {"directory": path.mkdir, "fifo": lambda: os.mkfifo(path), "loop": lambda: path.symlink_to(path)}[what]()
    server, _, text = attempt(servables, start_script)
    assert "Load model failed, servable directory: " in text
    assert f"model file '{path}' is no regular file" in text
    ends(server)


def test_a_model_whose_graph_is_none(servables: Servables, start_script: StartScript) -> None:
    """Well-formed, and yet the graph refers to what is not there."""
    directory = servables.add("bad", ADD_SERVABLE, versions=(1,))
    model = add_model()
    model.graph.node[0].input[0] = "nowhere"
    onnx.save(model, directory / "1" / "add.onnx")
    server, _, text = attempt(servables, start_script)
    assert "Load model failed, servable directory: " in text
    ends(server)


# -- servable_config.py ------------------------------------------------------------------------------------------------


CONFIGS = {
    "that raises": ("raise ValueError('my own text')\n", "", "ValueError: my own text"),
    "that raises a RuntimeError": (
        "raise RuntimeError('outer')\n",
        "",
        "failed: RuntimeError: outer; while importing file",
    ),
    "that registers badly": (
        "from mindserve.server import register\nregister.declare_model(1, 'ONNX')\n",
        "",
        "failed: Parameter ",
    ),
    "that declares nothing": ("x = 1\n", "", "There is no method registered for servable 'bad'"),
    "that hangs": (
        "import threading\nthreading.Event().wait()\n",
        "start_timeout=8",
        "not ready within the start_timeout of 8 s: it was still importing servable_config.py",
    ),
    "that spins": ("while True:\n    pass\n", "start_timeout=1", "not ready within the start_timeout of 1 s"),
    "that is no Python": ("def f(:\n", "", "SyntaxError"),
    "that is no text": ("\0\0\0", "", "null bytes"),
    "that ends the process": (
        "import os\nos._exit(3)\n",
        "",
        "exited with status 3 while importing servable_config.py",
    ),
    "that exits": ("import sys\nsys.exit('my own text')\n", "", "SystemExit: my own text"),
    "that raises what is no Exception": (
        "raise BaseException('my own text')\n",
        "",
        "failed: BaseException: my own text; while importing file",
    ),
    "that forgets itself": (
        "import sys\ndel sys.modules['servable_config']\nraise ValueError('my own text')\n",
        "",
        "failed: ValueError: my own text; while importing file",
    ),
    "that leaves no descriptors": (
        "import resource\nresource.setrlimit(resource.RLIMIT_NOFILE, (10, 10))\n" + ECHO_SERVABLE,
        "",
        "Too many open files",
    ),
    "that leaves no shared memory": (
        "import resource\nresource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))\n" + ECHO_SERVABLE,
        "",
        "bytes: ftruncate: File too large",
    ),
    "that interrupts": ("raise KeyboardInterrupt\n", "", "was ended by SIGINT"),
    "whose error has no text": (
        "class Mute(Exception):\n    def __str__(self):\n        raise self\nraise Mute\n",
        "",
        "Mute: its text raises Mute; while importing file",
    ),
    "whose error goes on and on": (
        "raise ValueError('A' * 10_000_000)\n",
        "",
        "AAA... (10000000 characters); while importing file",
    ),
    "whose error is no text": ("raise ValueError('\\udcff')\n", "", "ValueError: "),
    "that crashes": ("import ctypes\nctypes.string_at(0)\n", "", "was ended by SIGSEGV"),
    "that closes what is not its own": (
        "import os\nos.closerange(3, 1000)\n" + ECHO_SERVABLE,
        "start_timeout=20",
        "while importing servable_config.py",
    ),
    "that recurses": ("def f():\n    f()\nf()\n", "", "RecursionError"),
}


@pytest.mark.parametrize("what", CONFIGS)
def test_configs(servables: Servables, start_script: StartScript, what: str) -> None:
    config, options, expected = CONFIGS[what]
    servables.add("bad", config)
    server, address, text = attempt(servables, start_script, options)
    assert expected in text
    is_well(address)
    ends(server)


def test_a_config_that_prints(servables: Servables, start_script: StartScript) -> None:
    """A megabyte to stdout, by Python and by the system: in its log, and not where the server's own output goes."""
    servables.add("bad", "import os\nprint('p' * (1 << 20))\nos.write(1, b'by the system\\n')\n" + ECHO_SERVABLE)
    server, address, text = attempt(servables, start_script)
    assert text == "started"
    (log,) = (server.cwd / "serving_logs").glob("log_bad_*.log")
    assert "p" * (1 << 20) in until(log.read_text, lambda said: "by the system" in said)
    with Client(address, "bad", "same") as client:
        assert client.infer({"x": "text"}, timeout=60) == [{"x": "text"}]
    ends(server)


ODD = {
    "closes stdout": "import os\nos.close(1)\nos.close(2)\n",
    "has no stdout": "import sys\nsys.stdout = sys.stderr = None\n",
    "reads stdin": "import sys\nassert sys.stdin.read() == ''\n",
    "goes elsewhere": "import os\nos.chdir('/')\n",
    "ignores signals": (
        "import signal\nfor each in (signal.SIGINT, signal.SIGTERM):\n    signal.signal(each, signal.SIG_IGN)\n"
    ),
    "imports itself": "import servable_config\n",
    "has a child": "import os\nos.fork()\n",
    "has a child that exits": "import os\nif os.fork() == 0:\n    raise SystemExit(5)\n",
}


@pytest.mark.parametrize("what", ODD)
def test_a_config_that(servables: Servables, start_script: StartScript, what: str) -> None:
    """It is served all the same, and ends when it is to."""
    servables.add("bad", ODD[what] + ECHO_SERVABLE)
    server, address, text = attempt(servables, start_script)
    assert text == "started"
    with Client(address, "bad", "same") as client:
        for _ in range(3):
            assert client.infer({"x": "text"}, timeout=60) == [{"x": "text"}]
    ends(server)
    assert "is started again" not in server.errors()


def test_a_config_that_starts_threads(servables: Servables, start_script: StartScript) -> None:
    """Also such as never end: the worker is served, and ends when it is to."""
    threads = "import threading\nfor _ in range(50):\n    threading.Thread(target=threading.Event().wait).start()\n"
    servables.add("bad", threads + ECHO_SERVABLE)
    server, address, text = attempt(servables, start_script)
    assert text == "started"
    with Client(address, "bad", "same") as client:
        assert client.infer({"x": "text"}, timeout=60) == [{"x": "text"}]
    ends(server)


# -- lengths -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [2**31 - 1, 2**31, 2**32 - 1, 2**63, 2**64 - 1])
def test_lengths_within_a_message(servables: Servables, start_script: StartScript, size: int) -> None:
    """Each length field of a request claims what is not there."""
    import grpc

    from mindserve.proto import PREDICT

    server, address = good_one(servables, start_script)
    spec = messages.ServableSpec(name="echo", method_name="same").SerializeToString()
    route = b"\x0a" + bytes([len(spec)]) + spec
    claim = varint(size)
    item = b"\x0a\x01x\x12" + claim
    bodies = [
        b"\x0a" + claim,
        route + b"\x12" + claim,
        route + b"\x12\x08\x0a" + claim,
        route + b"\x12" + bytes([len(item) + 2]) + b"\x0a" + bytes([len(item)]) + item,
    ]
    with grpc.insecure_channel(address) as channel:
        for body in bodies:
            try:
                reply = messages.PredictReply.FromString(channel.unary_unary(PREDICT)(body, timeout=60))
            except grpc.RpcError as error:
                assert error.code() is grpc.StatusCode.INVALID_ARGUMENT  # type: ignore[attr-defined]
            else:
                assert reply.error_msg[0].error_code != 0
    is_well(address)
    ends(server)


def test_a_hundred_thousand_instances_and_one_more(servables: Servables, start_script: StartScript) -> None:
    server, address = good_one(servables, start_script)
    with Client(address, "echo", "same") as client:
        answer = client.infer([{"x": 1}] * 100_000, timeout=240)
        assert answer == [{"x": 1}] * 100_000
        refused = client.infer([{"x": 1}] * 100_001, timeout=240)
        assert isinstance(refused, dict)
        assert "max_instances_per_request" in refused["error"]
        none = client.infer([], timeout=60)
        assert none == {"error": "Request Servable(echo) method(same), instances count is 0, expected at least one"}
    is_well(address)
    ends(server)


# -- disks and memory --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stream", ["stdout", "stderr"])
def test_a_disk_that_is_full_for_logs(
    servables: Servables, start_script: StartScript, tmp_path: pathlib.Path, stream: str
) -> None:
    """Whatever is written to the master's and to the worker's log fails: nobody is served the worse for it."""
    say = f"print('a line', file=sys.{stream}, flush=True)"
    noisy = ECHO_SERVABLE.replace("def echo(x):\n", f"def echo(x):\n    {say}\n")
    servables.add("echo", f"import sys\n{say}\n{noisy}")
    logs = tmp_path / "run0" / "serving_logs"
    script = f"""
    import os, sys
    full = os.open("/dev/full", os.O_WRONLY)
    os.dup2(full, 2)
    os.mkdir({str(logs)!r})
    os.symlink("/dev/full", {str(logs / "log_echo_device0_version1.log")!r})
    from mindserve import server
    server.start_servables(server.ServableStartConfig({str(servables.directory)!r}, "echo"))
    print(server.start_grpc_server("127.0.0.1:0")[0], flush=True)
    """
    server = start_script(script, GLOG_v="0")
    address = server.line()
    with Client(address, "echo", "same") as client, Client(address, "echo", "worker_pid") as other:
        for _ in range(20):
            assert client.infer({"x": "text"}, timeout=60) == [{"x": "text"}]
        # The one that takes its place finds it no better.
        before = pid_of(other.infer({"x": "text"}, timeout=60))
        os.kill(before, signal.SIGKILL)
        until(lambda: pid_of(other.infer({"x": "text"}, timeout=60)), lambda pid: pid not in (0, before))
        assert client.infer({"x": "text"}, timeout=60) == [{"x": "text"}]
    assert os.readlink(logs / "log_echo_device0_version1.log") == "/dev/full"
    server.send(signal.SIGTERM)
    # 120: Python's own at the end of any program whose stderr takes no more.
    assert server.wait() in (0, 120)


@pytest.mark.parametrize("what", ["file for a directory", "directory for a file", "FIFO that nobody reads"])
def test_logs_that_can_not_be_written(servables: Servables, start_script: StartScript, what: str) -> None:
    """The start fails, saying why, and can be tried again."""
    servables.add("echo", ECHO_SERVABLE)
    log = "serving_logs/log_echo_device0_version1.log"
    make, remove, expected = {
        "file for a directory": (
            "open('serving_logs', 'x').close()",
            "os.remove('serving_logs')",
            "logs go to a directory of this name, and there is something else",
        ),
        "directory for a file": (f"os.makedirs({log!r})", f"os.rmdir({log!r})", "Is a directory"),
        "FIFO that nobody reads": (
            f"os.mkdir('serving_logs'); os.mkfifo({log!r})",
            f"os.remove({log!r})",
            "a FIFO that nobody reads",
        ),
    }[what]
    server = start_script(
        f"""
        import os
        from mindserve import server
        {make}
        config = server.ServableStartConfig({str(servables.directory)!r}, "echo")
        try:
            server.start_servables(config)
        except RuntimeError as error:
            print(error, flush=True)
        {remove}
        server.start_servables(config)
        print(server.start_grpc_server("127.0.0.1:0")[0], flush=True)
        """
    )
    text = server.line()
    assert "can't be started" in text
    assert f"its log can't be written: {expected}" in text
    is_well(server.line())
    ends(server)


def test_no_directory_for_temporary_files(servables: Servables, start_script: StartScript) -> None:
    """As where all disks are full: there is no admin socket, and all else is as ever."""
    servables.add("echo", ECHO_SERVABLE)
    server = start_script(
        f"""
        import tempfile
        from mindserve import server
        def find_none():
            raise FileNotFoundError(2, "No usable temporary directory found")
        tempfile.gettempdir = find_none
        server.start_servables(server.ServableStartConfig({str(servables.directory)!r}, "echo"))
        print(server.start_grpc_server("127.0.0.1:0")[0], flush=True)
        """,
        TMPDIR=str(servables.directory / "none"),
        XDG_RUNTIME_DIR="",
    )
    is_well(server.line())
    assert "there is no admin socket" in server.errors()
    ends(server)


def test_a_server_that_can_not_be_made_does_not_keep_its_process(
    start_script: StartScript, tmp_path: pathlib.Path
) -> None:
    """The last of its parts fails: those before it end."""
    server = start_script(
        f"""
        from mindserve import server
        from mindserve.server import core
        def fail(server):
            raise OSError("no thread left")
        core.AdminSocket = fail
        server.start_grpc_server("unix:{tmp_path}/sock")
        """
    )
    assert server.wait() == 1
    assert "no thread left" in server.errors()


@pytest.mark.parametrize(
    ("limit", "left", "reason"),
    [
        pytest.param(resource.RLIMIT_NOFILE, 1, "Too many open files", marks=needs_no_descriptors),
        (resource.RLIMIT_FSIZE, 1 << 20, "bytes: ftruncate: File too large"),
    ],
    ids=["descriptors", "shared memory"],
)
def test_a_worker_that_dies_while_nothing_is_left(
    servables: Servables, start_script: StartScript, limit: int, left: int, reason: str
) -> None:
    """There is no other in its place until there is something again, and then there is; the server goes on."""
    server, address = good_one(servables, start_script)
    with Client(address, "echo", "worker_pid") as client:
        before = pid_of(client.infer({"x": 1}, timeout=60))
        _, hard = was = resource.prlimit(server.pid, limit)
        resource.prlimit(server.pid, limit, (left, hard))
        os.kill(before, signal.SIGKILL)
        until(lambda: reason in server.errors())
        assert "error" in client.infer({"x": 1}, timeout=60)
        resource.prlimit(server.pid, limit, was)
        until(lambda: pid_of(client.infer({"x": 1}, timeout=60)), lambda pid: pid not in (0, before))
    is_well(address)
    ends(server)


@pytest.mark.parametrize(
    ("limit", "left", "reason", "advice"),
    [
        ("RLIMIT_FSIZE", 1 << 20, "ftruncate: File too large", "raise it (ulimit -f, LimitFSIZE=)"),
        pytest.param(
            "RLIMIT_AS",
            3 << 30,
            "mmap: Cannot allocate memory",
            "raise it (ulimit -v, LimitAS=)",
            marks=needs_limited_addresses,
        ),
    ],
    ids=["size of files", "addresses"],
)
def test_no_shared_memory_left(
    servables: Servables, start_script: StartScript, limit: str, left: int, reason: str, advice: str
) -> None:
    """The start fails, with what was wanted and what to do, leaves nothing, and can be tried again."""
    servables.add("echo", ECHO_SERVABLE)
    server = start_script(
        f"""
        import resource, sys
        from mindserve import server
        from mindserve.errors import StartError
        def attempt():
            try:
                server.start_servables(server.ServableStartConfig({str(servables.directory)!r}, "echo"))
                return server.start_grpc_server("127.0.0.1:0")[0]
            except StartError as error:
                return repr(str(error))
        _, hard = resource.getrlimit(resource.{limit})
        resource.setrlimit(resource.{limit}, ({left}, hard))
        print(attempt(), flush=True)
        sys.stdin.readline()
        resource.setrlimit(resource.{limit}, (hard, hard))
        print(attempt(), flush=True)
        sys.stdin.readline()
        server.stop()
        """
    )
    text = server.line()
    wanted = re.search(rf"shared memory of (\d+) bytes: {reason}", text)
    assert wanted is not None
    assert int(wanted[1]) > left
    assert "What is reserved there are addresses" in text
    assert f"{limit} is {left} bytes: {advice}" in text
    assert server.workers() == []
    server.tell("once more")
    is_well(server.line())
    server.tell("end")
    assert server.wait() == 0, server.errors()
