"""example/iris: a pipeline of scikit-learn that is trained when the server starts, asked by gRPC and by HTTP."""

import contextlib
import json
import os
import pathlib
import re
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator

import numpy as np
import pytest
import requests

from example_process import EXAMPLE, ask, load_script, serving
from mindserve.auth.hashing import hash_secret
from mindserve.auth.keys import ClientKey, Keys, save_keys
from mindserve.client import Client

CLASSES = ["Iris-setosa", "Iris-versicolor", "Iris-virginica"]


@pytest.fixture(scope="module")
def addresses(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, str]]:
    with serving("iris", tmp_path_factory.mktemp("iris"), "--rest-address", "127.0.0.1:0") as at:
        grpc, url = at.split(" and ")
        yield grpc, url


def test_by_grpc(addresses: tuple[str, str]) -> None:
    printed = ask("iris", "--address", addresses[0]).splitlines()
    found = [re.fullmatch(r"\(.*\): (\S+) \((0\.\d+|1\.000)\)", line) for line in printed]
    assert [match and match[1] for match in found] == CLASSES
    assert all(match and float(match[2]) > 0.9 for match in found)


def test_by_http(addresses: tuple[str, str]) -> None:
    printed = ask("iris", "--url", addresses[1], script="rest_client.py").splitlines()
    assert [line.partition(": ")[0] for line in printed] == CLASSES
    probabilities = [float(line.partition(": ")[2]) for line in printed]
    assert sum(probabilities) == pytest.approx(1, abs=1e-3)
    assert probabilities[2] > 0.9


def test_both_give_what_the_pipeline_gives(addresses: tuple[str, str]) -> None:
    """For all flowers that it has learned from."""
    import pandas as pd
    from sklearn.datasets import load_iris

    script = load_script(EXAMPLE / "iris" / "prepare_model.py")
    data = load_iris().data
    expected = script.train().predict_proba(pd.DataFrame(data, columns=script.FEATURES))
    instances = [dict(zip(script.FEATURES, map(float, row), strict=True)) for row in data]
    with Client(addresses[0], "iris", "predict") as client:
        by_grpc = client.infer(instances)
    assert isinstance(by_grpc, list)
    np.testing.assert_array_equal([each["prediction"] for each in by_grpc], expected)
    answer = requests.post(f"{addresses[1]}/model/iris:predict", json={"instances": instances}, timeout=60)
    by_http = answer.json()["instances"]
    # JSON's numbers are float32 on the way.
    np.testing.assert_allclose([each["prediction"] for each in by_http], expected, atol=1e-3)
    assert all(each["predicted_class"] == CLASSES for each in by_http)


@pytest.mark.parametrize("value", ["wide", [1.0, 2.0], {"b64": "AAAA"}, -1, 1e30])
def test_flowers_that_are_none_fail_alone(addresses: tuple[str, str], value: object) -> None:
    good = {"f1": 1, "f2": 2.7, "f3": 5.3, "f4": 1.9}
    body = json.dumps({"instances": [good, {**good, "f4": value}, good]})
    first, wrong, last = requests.post(f"{addresses[1]}/model/iris:predict", data=body, timeout=60).json()["instances"]
    assert wrong["error_msg"].startswith("Preprocess Failed: Call Function 'iris.to_row' Failed: f4 is ")
    assert first == last
    assert first["predicted_class"] == CLASSES


@pytest.mark.parametrize(("value", "shown"), [("NaN", "nan"), ("-Infinity", "-inf"), (-1, "-1.0"), (1e30, "1.00")])
def test_flowers_that_are_none_are_the_clients_error(addresses: tuple[str, str], value: object, shown: str) -> None:
    """Of which scikit-learn would have raised something."""
    body = {"data": {"f1": 1, "f2": 2.7, "f3": 5.3, "f4": value}}
    answer = requests.post(f"{addresses[1]}/js/predict", json=body, timeout=60)
    assert answer.status_code == 400, answer.text
    assert f"f4 is {shown}" in answer.json()["error_msg"]
    assert "expected one number of cm, from 0 to 1000" in answer.json()["error_msg"]


def test_what_the_server_says_of_itself(addresses: tuple[str, str], tmp_path: pathlib.Path) -> None:
    document = requests.get(f"{addresses[1]}/openapi.json", timeout=60).json()
    body = document["paths"]["/model/iris:predict"]["post"]["requestBody"]["content"]["application/json"]
    assert list(body["example"]["instances"][0]) == ["f1", "f2", "f3", "f4"]
    answer = requests.post(f"{addresses[1]}/model/iris:predict", json=body["example"], timeout=60).json()
    assert answer["instances"][0]["predicted_class"] == CLASSES


def test_as_seldons_document_shows_it(tmp_path: pathlib.Path) -> None:
    """A token for key and secret, the call by gRPC with it, and the same by HTTP."""
    keys = tmp_path / "keys.yaml"
    save_keys(Keys({"iris-client": ClientKey(key="iris-client", secrets=(hash_secret("theirs"),))}), str(keys))
    with serving("iris", tmp_path, "--rest-address", "127.0.0.1:0", "--keys", keys) as at:
        rpc, url = at.split(" and ")
        ports = ("--host", "127.0.0.1", "--rpc-port", rpc.rpartition(":")[2], "--http-port", url.rpartition(":")[2])
        printed = ask("iris", *ports, "--key", "iris-client", "--secret", "theirs", script="iris_rpc_client.py")
        assert re.findall(r'predictedClass: "(.*)"', printed) == CLASSES
        assert re.findall(r'(puid|modelName|variation): "(.*)"', printed) == [
            ("puid", "12345"),
            ("modelName", "model_iris"),
            ("variation", "default"),
        ]
        assert "custom {" in printed

        asked = {"consumer_key": "iris-client", "consumer_secret": "theirs"}
        token = requests.get(f"{url}/token", params=asked, timeout=60).json()["access_token"]
        body = '{"data":{"f1":1,"f2":2.7,"f3":5.3,"f4":1.9}}'
        assert requests.post(f"{url}/js/predict", data=body, timeout=60).status_code == 401
        answer = requests.post(f"{url}/js/predict", data=body, headers={"oauth_token": token}, timeout=60)
        assert answer.status_code == 200, answer.text
        reply = answer.json()
        assert list(reply) == ["meta", "predictions", "custom"]
        assert re.fullmatch("[0-9a-f]{40}", reply["meta"].pop("puid"))
        assert reply["meta"] == {"modelName": "model_iris", "variation": "default"}
        assert [each["predictedClass"] for each in reply["predictions"]] == CLASSES
        assert reply["predictions"][2]["prediction"] > 0.9
        assert all(each["prediction"] == each["confidence"] for each in reply["predictions"])
        assert reply["custom"] is None

        shown = ("--url", url, "--key", "iris-client", "--secret", "theirs")
        printed = json.loads(ask("iris", "--seldon", *shown, script="rest_client.py"))
        assert printed["predictions"] == reply["predictions"]
        printed = ask("iris", *shown, script="rest_client.py").splitlines()
        assert [line.partition(": ")[0] for line in printed] == CLASSES


def test_by_http_without_the_token_that_is_asked_for(tmp_path: pathlib.Path) -> None:
    keys = tmp_path / "keys.yaml"
    save_keys(Keys({"iris-client": ClientKey(key="iris-client", secrets=(hash_secret("theirs"),))}), str(keys))
    with serving("iris", tmp_path, "--rest-address", "127.0.0.1:0", "--keys", keys) as at:
        url = at.split(" and ")[1]
        with pytest.raises(AssertionError, match=r"401: .*the request carries no token"):
            ask("iris", "--url", url, script="rest_client.py")
        with pytest.raises(AssertionError, match=r"failed to get a token: .*invalid_client"):
            ask("iris", "--url", url, "--key", "iris-client", "--secret", "wrong", script="rest_client.py")


class Readme:
    """The README's commands, run in a copy of the example; but for the ports, which are what the server took.

    Args:
        folder: where the copy is made.
    """

    def __init__(self, folder: pathlib.Path) -> None:
        self.folder = folder / "iris"
        shutil.copytree(EXAMPLE / "iris", self.folder)
        shutil.copy(EXAMPLE / "generate_stubs.py", folder)
        text = (EXAMPLE / "iris" / "README.md").read_text(encoding="utf-8")
        self.commands = [line.strip().partition("   #")[0].strip() for line in re.findall(r"(?m)^    .*$", text)]
        self.secret = ""
        self._grpc = self._url = ""
        path = f"{pathlib.Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        self._environment = {**os.environ, "PATH": path, "no_proxy": "127.0.0.1,localhost"}

    def find(self, begin: str, occurrence: int = 0) -> str:
        return [command for command in self.commands if command.startswith(begin)][occurrence]

    @contextlib.contextmanager
    def serving(self, command: str) -> Iterator[None]:
        options = ("--address", "127.0.0.1:0", "--rest-address", "127.0.0.1:0")
        with (self.folder / "errors.txt").open("wb") as errors:
            process = subprocess.Popen(
                [*shlex.split(command), *options],
                cwd=self.folder,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
            )
        assert process.stdout is not None
        try:
            said = next((line for line in process.stdout if " is served at " in line), None)
            assert said is not None, (self.folder / "errors.txt").read_text()
            self._grpc, self._url = said.split(" is served at ")[1].strip().split(" and ")
            yield
            process.send_signal(signal.SIGINT)
            assert process.wait(60) == 0
        finally:
            process.kill()
            process.wait()
            process.stdout.close()

    def run(self, *lines: str) -> str:
        """What lines for a shell print."""
        ports = {"5500": self._grpc.rpartition(":")[2], "5501": self._url.rpartition(":")[2]}
        # As `foreign_environment` for that program.
        curl = 'curl() { LD_PRELOAD= command curl "$@"; }'
        script = "\n".join(["set -e", curl, *lines]).replace("SECRET", self.secret)
        script = re.sub(r"127\.0\.0\.1:(5500|5501)", lambda found: f"127.0.0.1:{ports[found[1]]}", script)
        # Clients that are not told where: at the ports that servers take by default.
        script = script.replace("serving_client.py", f"serving_client.py --address {self._grpc}")
        script = script.replace("rest_client.py", f"rest_client.py --url {self._url}")
        http, rpc = ports["5501"], ports["5500"]
        script = script.replace("iris_rpc_client.py", f"iris_rpc_client.py --http-port {http} --rpc-port {rpc}")
        done = subprocess.run(
            ["sh", "-c", script],
            cwd=self.folder,
            env=self._environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == 0, f"{script}\n{done.stderr}"
        return done.stdout


@pytest.fixture
def readme(tmp_path: pathlib.Path) -> Readme:
    return Readme(tmp_path)


needs_curl = pytest.mark.skipif(not shutil.which("curl") and not os.environ.get("CI"), reason="curl is not installed")


@needs_curl
def test_the_readmes_first_commands(readme: Readme) -> None:
    with readme.serving(readme.find("python serving_server.py")):
        assert re.findall(r"Iris-\w+", readme.run(readme.find("python serving_client.py"))) == CLASSES
        assert re.findall(r"Iris-\w+", readme.run(readme.find("python rest_client.py"))) == CLASSES
        reply = json.loads(readme.run(readme.find("curl http://127.0.0.1:5501/model/iris:predict")))
        assert reply["instances"][0]["predicted_class"] == CLASSES


@needs_curl
def test_the_readmes_commands_with_tokens(readme: Readme) -> None:
    added = readme.run(readme.find("mindserve keys add"))
    secrets = [line.rpartition(" ")[2] for line in added.splitlines() if "secret" in line.lower()]
    assert secrets, added
    readme.secret = secrets[0]
    with readme.serving(readme.find("python serving_server.py --keys")):
        printed = readme.run(readme.find("python iris_rpc_client.py"))
        assert re.findall(r'predictedClass: "(.*)"', printed) == CLASSES
        by_seldon = json.loads(readme.run(readme.find("python rest_client.py --seldon")))
        assert [each["predictedClass"] for each in by_seldon["predictions"]] == CLASSES
        assert re.findall(r"Iris-\w+", readme.run(readme.find("python rest_client.py --key"))) == CLASSES
        by_curl = json.loads(readme.run(readme.find("TOKEN="), readme.find("curl http://127.0.0.1:5501/js/predict")))
        assert by_curl["predictions"] == by_seldon["predictions"]
