"""example/resnet50: pictures in, classes out; compared with ONNX Runtime on the same model."""

import io
import pathlib
import re
from collections.abc import Iterator

import numpy as np
import onnxruntime
import pytest
from PIL import Image

from example_process import EXAMPLE, ask, load_script, serving
from mindserve.client import Client

HERE = EXAMPLE / "resnet50"
PICTURES = sorted((HERE / "images").iterdir())


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with serving("resnet50", tmp_path_factory.mktemp("resnet50")) as at:
        yield at


def test_the_graph_takes_any_batch(tmp_path: pathlib.Path) -> None:
    load_script(HERE / "prepare_model.py").prepare(tmp_path)
    session = onnxruntime.InferenceSession(str(tmp_path / "1" / "resnet50.onnx"), providers=["CPUExecutionProvider"])
    (taken,) = session.get_inputs()
    assert taken.shape[1:] == [3, 224, 224]
    for batch in (1, 3):
        (scores,) = session.run(None, {taken.name: np.zeros((batch, 3, 224, 224), np.float32)})
        assert scores.shape == (batch, 1000)
        np.testing.assert_allclose(scores.sum(axis=1), 1, rtol=1e-4)


def test_a_file_that_is_there_is_left_alone(tmp_path: pathlib.Path) -> None:
    (tmp_path / "1").mkdir()
    (tmp_path / "1" / "resnet50.onnx").write_bytes(b"trained")
    load_script(HERE / "prepare_model.py").prepare(tmp_path)
    assert (tmp_path / "1" / "resnet50.onnx").read_bytes() == b"trained"


def test_the_client_classifies_the_pictures(address: str) -> None:
    printed = ask("resnet50", "--address", address)
    assert printed.count("classify_top") == 2
    for picture in PICTURES:
        top1, top5 = re.findall(rf"^  {re.escape(picture.name)}: (.*)$", printed, re.MULTILINE)
        assert re.fullmatch(r"\{'label': 'class \d+'\}", top1)
        assert len(re.findall(r"class \d+", top5)) == 5


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF"])
@pytest.mark.parametrize("size", [(224, 224), (31, 400), (640, 480)])
def test_pictures_of_any_kind_and_size(address: str, kind: str, size: tuple[int, int]) -> None:
    file = io.BytesIO()
    Image.new("RGB", size, (200, 30, 90)).save(file, kind)
    with Client(address, "resnet50", "classify_top5") as client:
        (answer,) = client.infer({"image": file.getvalue()})
    assert len(answer["label"].split(";")) == 5
    assert answer["score"].shape == (5,)
    assert answer["score"].dtype == np.float32
    assert (np.diff(answer["score"]) <= 0).all()


def test_what_is_no_picture_fails_alone(address: str) -> None:
    instances = [{"image": PICTURES[0].read_bytes()}, {"image": b"no picture"}]
    with Client(address, "resnet50", "classify_top1") as client:
        right, wrong = client.infer(instances)
    assert right["label"].startswith("class ")
    assert "Call Function 'resnet50.preprocess' Failed" in wrong["error"]
