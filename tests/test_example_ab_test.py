"""example/ab_test: two trained models behind one name, counted by who asks and by who answers."""

import json
import pathlib
import re
import subprocess
import sys
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import onnxruntime
import pytest
import requests

from example_process import EXAMPLE, ask, load_script, running
from mindserve.client import Client


class Served(NamedTuple):
    process: subprocess.Popen[str]
    grpc: str
    url: str

    def traffic(self, *arguments: object) -> str:
        return self.command("traffic", *arguments, "--pid", self.process.pid)

    def command(self, *arguments: object) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "mindserve", *map(str, arguments)],
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def told(self, **calls: int) -> None:
        """Reads what the server prints until it has told of so many calls of each variation."""
        missing = {name: f" {count} calls, 0 with errors, p99 " for name, count in calls.items()}
        for line in self.process.stdout:
            name = line.partition(" (version ")[0]
            if name in missing and missing[name] in line:
                del missing[name]
            if not missing:
                return
        pytest.fail(f"it has ended before it told of {missing}")


@pytest.fixture
def served(tmp_path: pathlib.Path) -> Iterator[Served]:
    with running("ab_test", tmp_path, "--rest-address", "127.0.0.1:0", "--every", 0.1) as (process, at):
        grpc, url = at.split(" and ")
        yield Served(process, grpc, url)


def answers(printed: str) -> dict[str, tuple[int, float]]:
    """Of what the client prints: how many answers of each variation, and how many in a hundred were right."""
    found = re.findall(r"^  (\w+): (\d+) answers, ([\d.]+)% of them right$", printed, re.MULTILINE)
    return {name: (int(count), float(right)) for name, count, right in found}


def users(printed: str) -> dict[str, int]:
    return {name: int(count) for name, count in re.findall(r"^  (\w.*): (\d+) users$", printed, re.MULTILINE)}


def test_the_models_are_what_was_trained() -> None:
    script = load_script(EXAMPLE / "ab_test" / "prepare_model.py")
    pictures, _ = script.held_out()
    for train in (script.train_linear, script.train_network):
        classifier = train(*script.learned())
        session = onnxruntime.InferenceSession(script.to_onnx(classifier).SerializeToString())
        digit, probabilities = session.run(None, {"picture": pictures.astype(np.float32)})
        np.testing.assert_array_equal(digit, classifier.predict(pictures / script.WHITE))
        np.testing.assert_allclose(probabilities, classifier.predict_proba(pictures / script.WHITE), atol=1e-4)


def test_weights_users_and_counts(served: Served) -> None:
    def client(*options: object) -> str:
        return ask("ab_test", "--url", served.url, *options)

    printed = client()
    said = answers(printed)
    assert {name: count for name, (count, _) in said.items()} == {"linear": 320, "network": 80}
    assert 80 < said["linear"][1] < said["network"][1], "the network is the better one"
    homes = users(printed)
    assert sum(homes.values()) == 40
    assert homes["linear"] > homes["network"] > 0, "no user has met both"
    counted = {"linear": 320 + 3 * homes["linear"], "network": 80 + 3 * homes["network"]}
    served.told(**counted)

    # While it runs, without a restart: only from linear to network do users move.
    (split,) = json.loads(served.traffic("set", "digits", "linear=0.5", "network=0.5", "--json"))["traffic"]
    assert (split["sticky"], [each["weight"] for each in split["variations"]]) == ("user", [0.5, 0.5])
    printed = client()
    assert {name: count for name, (count, _) in answers(printed).items()} == {"linear": 200, "network": 200}
    moved = users(printed)
    assert moved["network"] > homes["network"]
    served.traffic("set", "digits", "linear=0")
    assert [*answers(client("--pictures", 10, "--users", 1))] == ["network"]
    counted["linear"] += 200 + 3 * moved["linear"]
    counted["network"] += 200 + 3 * moved["network"] + 10 + 3
    served.told(network=counted["network"])
    shown = served.traffic("show")
    assert "linear: 0 of the calls, servable 'digits' version 1" in shown
    rows = json.loads(served.command("status", "--once", "--json", served.process.pid))["stats"]["methods"]
    ended = {row["variation"]: row["ended"] for row in rows if row["split"] == "digits" and row["ended"]}
    assert ended == {name: {"OK": count} for name, count in counted.items()}


def test_a_call_for_a_version_and_one_that_is_wrong(served: Served) -> None:
    script = load_script(EXAMPLE / "ab_test" / "prepare_model.py")
    pictures, digits = script.held_out()
    right = []
    for version in (1, 2):
        instances = [{"picture": picture.astype(np.float32)} for picture in pictures]
        with Client(served.grpc, "digits", "predict", version_number=version) as client:
            results = client.infer(instances, timeout=60)
        right.append(np.mean([result["digit"] for result in results] == digits))
    assert 0.8 < right[0] < right[1]
    body = {"instances": [{"picture": pictures[0].tolist()}]}
    answer = requests.post(f"{served.url}/model/digits/version/1:predict", json=body, timeout=60)
    assert answer.json()["instances"][0]["digit"] == digits[0]
    assert "mindserve-variation" not in answer.headers
    assert requests.post(f"{served.url}/model/digits:predict", json=body, timeout=60).headers["mindserve-variation"]
    for wrong in ([0.0] * 63, "seven"):
        both = {"instances": [{"picture": wrong}, *body["instances"]]}
        first, second = requests.post(f"{served.url}/model/digits:predict", json=both, timeout=60).json()["instances"]
        assert first["error_msg"].startswith("Given model input 0")
        assert second["digit"] == digits[0]
