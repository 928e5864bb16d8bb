"""Starting and stopping the REST server: addresses, orders, a second time, handover, config files."""

from __future__ import annotations

import json
import os
import pathlib
import signal
import socket
import subprocess
import sys
import threading
from typing import Any

import pytest
import requests

from conftest import ECHO_SERVABLE, Servables, StartScript, pid_of, wait_gone
from e2e_support import until
from mindserve.client import Client
from rest_support import Rest, serving_rest
from test_handover import Serve, serve  # noqa: F401


def error_script(*calls: str) -> str:
    """Prints the error of each call, or what it gives."""
    return "\n".join(
        [
            "import socket",
            "from mindserve import server",
            "taken = socket.create_server(('127.0.0.1', 0))",
            "TAKEN = f'127.0.0.1:{taken.getsockname()[1]}'",
            "def show(call):",
            "    try:",
            "        print(call(), flush=True)",
            "    except RuntimeError as error:",
            "        print(type(error).__name__, error, flush=True)",
            *(f"show(lambda: {call})" for call in calls),
            "server.stop()",
        ]
    )


def lines_of(start_script: StartScript, *calls: str) -> list[str]:
    process = start_script(error_script(*calls))
    lines = [process.line() for _ in calls]
    assert process.wait() == 0, process.errors()
    return lines


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("127.0.0.1", "ConfigError The format of the RESTful server address '127.0.0.1' is illegal"),
        ("localhost", "ConfigError The format of the RESTful server address 'localhost' is illegal"),
        (":5500", "ConfigError The format of the RESTful server address ':5500' is illegal"),
        ("a b:1", "ConfigError The format of the RESTful server address 'a b:1' is illegal"),
        ("127.0.0.1:x", "ConfigError The format of the RESTful server address '127.0.0.1:x' is illegal"),
        ("[::1:5500", "ConfigError The format of the RESTful server address '[::1:5500' is illegal"),
        (
            "127.0.0.1:65536",
            "ConfigError The port of the RESTful server address '127.0.0.1:65536' is out of legal range [1 ~ 65535]",
        ),
        (
            "127.0.0.1:-1",
            "ConfigError The port of the RESTful server address '127.0.0.1:-1' is out of legal range [1 ~ 65535]",
        ),
        ("unix:/tmp/s", "ConfigError RESTful server does not support binding to unix domain socket"),
        ("", "ConfigError Parameter 'address' should not be empty str"),
    ],
)
def test_addresses_that_are_none(address: str, expected: str) -> None:
    from mindserve import server

    with pytest.raises(RuntimeError) as caught:
        server.start_restful_server(address)
    assert f"{type(caught.value).__name__} {caught.value}".startswith(expected)


def test_parameters_that_are_wrong() -> None:
    from mindserve import server

    for options, text in (
        ({"max_msg_mb_size": 0}, "Parameter 'max_msg_mb_size' should be in range [1,512], but actually 0"),
        ({"ssl_config": 1}, "Parameter 'ssl_config' should be SSLConfig, but actually <class 'int'>"),
        ({"limits": 1}, "Parameter 'limits' should be Limits, but actually <class 'int'>"),
    ):
        with pytest.raises(RuntimeError) as caught:
            server.start_restful_server("127.0.0.1:0", **options)  # type: ignore[arg-type]
        assert str(caught.value) == text


def test_starts_that_fail(start_script: StartScript) -> None:
    lines = lines_of(
        start_script,
        "server.start_restful_server(TAKEN)",
        "server.start_restful_server('no.such.host.invalid:0')",
        "server.start_restful_server('127.0.0.1:0')",
        "server.start_restful_server('127.0.0.1:0')",
    )
    text = "StartError Serving Error: RESTful server start failed, bind to the socket address "
    assert lines[0].startswith(f"{text}127.0.0.1:")
    assert " failed: Address already in use" in lines[0]
    assert lines[1].startswith(f"{text}no.such.host.invalid:0 failed: ")
    assert lines[2].startswith("127.0.0.1:")
    assert lines[3] == "StartError Serving Error: RESTful server is already running"


def test_nothing_else_may_listen_there(start_script: StartScript, tmp_path: pathlib.Path) -> None:
    with serving_rest(tmp_path) as rest:
        lines = lines_of(start_script, f"server.start_restful_server({rest.address!r})")
        assert f"bind to the socket address {rest.address} failed" in lines[0]


START = """
import sys
from mindserve import server
echo = server.ServableStartConfig({directory!r}, "echo")
for line in sys.stdin:
    try:
        print(eval(line), flush=True)
    except RuntimeError as error:
        print(error, flush=True)
"""

SERVABLES, REST, GRPC = (
    "server.start_servables(echo)",
    "server.start_restful_server('127.0.0.1:0')",
    "server.start_grpc_server('127.0.0.1:0')[0]",
)


@pytest.mark.parametrize(
    "order",
    [(SERVABLES, REST), (REST, SERVABLES), (REST, GRPC, SERVABLES), (SERVABLES, REST, GRPC), (GRPC, REST, SERVABLES)],
)
def test_in_any_order_and_again(servables: Servables, start_script: StartScript, order: tuple[str, ...]) -> None:
    servables.add("echo", ECHO_SERVABLE)
    process = start_script(START.replace("{directory!r}", repr(str(servables.directory))))
    for _ in range(2):
        said = {}
        for call in order:
            process.tell(call)
            said[call] = process.line()
        rest = Rest(process, said[REST])
        assert rest.get("/healthz/ready").json() == {"status": "ready"}
        assert rest.ask("/model/echo:same", {"x": "text"}) == [{"x": "text"}]
        if GRPC in order:
            with Client(said[GRPC], "echo", "worker_pid") as client:
                assert [pid_of(client.infer({"x": 1}))] == process.workers()
        process.tell("server.stop()")
        assert process.line() == "None"
        with pytest.raises(requests.ConnectionError):
            rest.get("/healthz/live")
        rest.close()
    assert "[ERROR]" not in process.errors()
    assert "Traceback" not in process.errors()


@pytest.mark.parametrize("host", ["localhost", "[::1]", "0.0.0.0", "[::]"])
def test_hosts(tmp_path: pathlib.Path, host: str) -> None:
    if not _has_ipv6() and host.startswith("["):
        pytest.skip("no IPv6 here")
    with serving_rest(tmp_path, listen=f"'{host}:0'") as rest:
        assert rest.address.startswith(f"{host}:")
        port = rest.address.rpartition(":")[2]
        reached = {"0.0.0.0": ["127.0.0.1"], "[::]": ["127.0.0.1", "[::1]"]}.get(host, [host])
        if host == "localhost":
            found = {each[4][0] for each in socket.getaddrinfo(host, 0, type=socket.SOCK_STREAM)}
            reached = [f"[{each}]" if ":" in str(each) else str(each) for each in found]
        for each in reached:
            assert rest.session.get(f"http://{each}:{port}/healthz/live", timeout=60).status_code == 200


def _has_ipv6() -> bool:
    try:
        with socket.create_server(("::1", 0), family=socket.AF_INET6):
            return True
    except OSError:
        return False


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signals_end_it(servables: Servables, tmp_path: pathlib.Path, number: signal.Signals) -> None:
    servables.add("echo", ECHO_SERVABLE)
    with serving_rest(tmp_path, "echo") as rest:
        workers = rest.process.workers()
        rest.process.send(number)
        assert rest.process.wait() == 0, rest.process.errors()
        wait_gone(workers)


def test_status_and_readiness(servables: Servables, tmp_path: pathlib.Path) -> None:
    servables.add("echo", ECHO_SERVABLE)
    servables.add("another", ECHO_SERVABLE)
    with serving_rest(tmp_path) as rest:
        assert rest.get("/healthz/live").json() == {"status": "live"}
        answer = rest.get("/healthz/ready")
        assert (answer.status_code, answer.json(), answer.headers["retry-after"]) == (503, {"status": "not ready"}, "1")
        assert rest.get("/servables").json() == {"servables": []}
    (tmp_path / "second").mkdir()
    (tmp_path / "second" / "servables").symlink_to(servables.directory)
    with serving_rest(tmp_path / "second", "echo", "another") as rest:
        for path in ("/healthz/ready", "/healthz"):
            assert rest.get(path).json() == {"status": "ready"}
        shown = rest.get("/servables").json()["servables"]
        assert [each["name"] for each in shown] == ["another", "echo"]
        assert rest.get("/servables/echo").json() == shown[1]
        assert shown[1] == {
            "name": "echo",
            "ready": True,
            "versions": [
                {
                    "version": 1,
                    "ready": True,
                    "workers": 1,
                    "methods": [
                        {
                            "name": name,
                            "path": f"/model/echo/version/1:{name}",
                            "inputs": ["x"],
                            "outputs": [output],
                            "streaming": False,
                            "input_types": {},
                            "output_types": {},
                        }
                        for name, output in (("same", "x"), ("worker_pid", "pid"))
                    ],
                    "services": [],
                }
            ],
        }
        answer = rest.get("/servables/none")
        assert (answer.status_code, answer.json()) == (
            404,
            {"error_msg": "there is no servable 'none'; there are: 'another', 'echo'"},
        )
        # Ended by SIGTERM, its worker is not started again.
        for pid in rest.process.workers():
            os.kill(pid, signal.SIGTERM)
        until(lambda: rest.get("/healthz/ready").status_code, lambda status: status == 503)
        until(lambda: rest.get("/servables/echo").status_code, lambda status: status == 404)
        answer = rest.post("/model/echo:same", {"instances": [{"x": "text"}]})
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
        assert list(answer.json()) == ["error_msg"]


HANDOVER = """
import sys
from mindserve import server
server.start_servables(server.ServableStartConfig({directory!r}, "echo"))
print({listen}, flush=True)
"""


@pytest.mark.parametrize(
    "listen", ["server.start_restful_server('127.0.0.1:0')", "server.start_grpc_server('127.0.0.1:0')[0], " + REST]
)
def test_nothing_is_lost_in_a_handover(serve: Serve, servables: Servables, listen: str) -> None:  # noqa: F811
    """Clients that come anew for each request, and one that keeps its connection."""
    servables.add("echo", ECHO_SERVABLE)
    script = HANDOVER.replace("{directory!r}", repr(str(servables.directory))).replace("{listen}", listen)
    served = serve(script)
    url = f"http://{served.addresses[-1]}/model/echo:worker_pid"
    seen: list[Any] = []
    stop = threading.Event()

    def ask(session: Any) -> None:
        while not stop.is_set():
            try:
                seen.append(session.post(url, data=b'{"instances": [{"x": 1}]}', timeout=60).json())
            except Exception as error:
                seen.append(repr(error))

    with requests.Session() as keeping:
        threads = [threading.Thread(target=ask, args=(each,)) for each in (requests, keeping)]
        for thread in threads:
            thread.start()
        try:
            until(lambda: len(seen) > 20)
            served.hand_over()
            count = len(seen)
            until(lambda: len(seen) > count + 20)
            assert served.process.wait() == 0
            count = len(seen)
            until(lambda: len(seen) > count + 20)
        finally:
            stop.set()
            for thread in threads:
                thread.join()
    wrong = [each for each in seen if not isinstance(each, dict) or "instances" not in each]
    assert not wrong, (wrong[:3], served.process.errors())
    assert len({each["instances"][0]["pid"] for each in seen}) == 2


def test_the_command_line(servables: Servables, tmp_path: pathlib.Path) -> None:
    servables.add("echo", ECHO_SERVABLE)
    config = tmp_path / "config.yaml"
    config.write_text(
        f"servables: [{{directory: {servables.directory}, name: echo}}]\n"
        "grpc: {address: '127.0.0.1:0'}\nrest: {address: '127.0.0.1:0', max_msg_mb_size: 1}\n"
    )
    for command in (
        ["run", str(config), "--json"],
        ["start", "-s", str(servables.directory), "--grpc-port=0", "--rest-port=0", "--json"],
        ["start", "-s", str(servables.directory), "--grpc-port=0", "--rest-address=127.0.0.1:0", "--json"],
    ):
        process = subprocess.Popen(
            [sys.executable, "-m", "mindserve", *command], cwd=tmp_path, stdout=subprocess.PIPE, text=True
        )
        try:
            assert process.stdout is not None
            said = json.loads(process.stdout.readline())
            answer = requests.post(f"{said['rest']}/model/echo:same", data=b'{"instances": [{"x": "a"}]}', timeout=60)
            assert answer.json() == {"instances": [{"x": "a"}]}
            process.send_signal(signal.SIGTERM)
            assert process.wait(60) == 0
        finally:
            process.kill()
            process.communicate()
