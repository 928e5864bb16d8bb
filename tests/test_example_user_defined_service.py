"""example/user_defined_service: the programs of Ray Serve's documentation against MindServe."""

from __future__ import annotations

import contextlib
import http.server
import io
import pathlib
import re
import threading
import uuid
from collections.abc import Iterator
from typing import Any

import grpc
import numpy as np
import onnxruntime
import pytest
from PIL import Image

from example_process import EXAMPLE, ask, load_script, logs_of, serving

HERE = EXAMPLE / "user_defined_service"
IMAGES = EXAMPLE / "resnet50" / "images"
GREETED = ["status code: StatusCode.OK", "greeting: Hello foo from bar", "num: 60"]


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    return tmp_path_factory.mktemp("user_defined_service")


@pytest.fixture(scope="module")
def address(directory: pathlib.Path) -> Iterator[str]:
    with serving("user_defined_service", directory) as at:
        yield at


@pytest.fixture(scope="module")
def protos(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The module of the example's messages."""
    directory = tmp_path_factory.mktemp("stubs")
    load_script(EXAMPLE / "generate_stubs.py").generate(HERE / "user_defined_protos.proto", [directory])
    return load_script(directory / "user_defined_protos_pb2.py")


def part(name: str, address: str, *options: object) -> list[str]:
    """The lines that the client prints for one of its parts."""
    title, *lines = ask("user_defined_service", "--address", address, *options, name).splitlines()
    assert title == f"-- {name}"
    return lines


def test_call(address: str) -> None:
    assert part("call", address) == GREETED


def test_call_without_application_where_only_one_answers(tmp_path: pathlib.Path) -> None:
    with serving("user_defined_service", tmp_path, "app1") as alone:
        assert part("call", alone, "--application", "") == GREETED
        # The program that shows an error then has none to show.
        assert part("errors", alone) == ["greeting: Hello foo from bar"]


def test_health(address: str) -> None:
    servables = ["app1", "app2", "context", "data_preprocessor", "image_downloader"]
    assert part("health", address) == [f"Applications: {servables}", "Health: success"]


def test_metadata(address: str) -> None:
    greeting, *trailing = part("metadata", address)
    assert greeting == "greeting: Method2 called model, loading model: 999"
    assert "trailing metadata key: request_id, value 123" in trailing


def test_streaming(address: str) -> None:
    assert part("streaming", address) == [f"greeting: {i}: Hello foo from bar, num: {60 + i}" for i in range(10)]


def test_client_streaming(address: str) -> None:
    assert part("client_streaming", address) == ["greeting: Hello foo, bar, baz, num: 3"]


def test_bidirectional_streaming(address: str) -> None:
    expected = [f"greeting: Hello {name}, num: {2 * num}" for num, name in enumerate(("foo", "bar", "baz"))]
    assert part("bidirectional_streaming", address) == expected


def test_errors(address: str) -> None:
    """Two servables answer the service, and the request doesn't say which is meant."""
    code, details = part("errors", address)
    assert code == "status code: StatusCode.NOT_FOUND"
    assert details.startswith("details: Application metadata not set")
    assert "app1" in details
    assert "context" in details


def test_context(address: str) -> None:
    name = f"somebody {uuid.uuid4()}"
    lines = part("context", address, "--name", name)
    metadata = [line for line in lines if line.startswith("trailing metadata")]
    assert [line for line in lines if line not in metadata] == [
        "status code: StatusCode.INVALID_ARGUMENT",
        f"details: {name} not found, adding to nums.",
        f"greeting: Hello {name} from bar, num: 30",
        "status code: StatusCode.OK",
        # They come, as tests/test_interop.py shows; but grpcio's client keeps the details of OK to itself.
        "details: ",
    ]
    values = [re.fullmatch(r"trailing metadata key: (\S+), value (.*)", line).groups() for line in metadata]
    assert [value for key, value in values if key == "num"] == ["0", "30"]
    # Of the failed call, too.
    ids = [value for key, value in values if key == "request_id"]
    assert len(set(ids)) == 2
    assert all(ids)


def test_everything_at_once(address: str) -> None:
    printed = ask("user_defined_service", "--address", address, "--name", f"{uuid.uuid4()}")
    assert re.findall(r"^-- (\w+)$", printed, re.MULTILINE) == [
        *("call", "health", "metadata", "streaming", "client_streaming", "bidirectional_streaming"),
        *("composition", "errors", "context"),
    ]


def classify(address: str, protos: Any, **request: str) -> Any:
    with grpc.insecure_channel(address) as channel:
        method = channel.unary_unary(
            "/userdefinedprotos.ImageClassificationService/Predict",
            request_serializer=protos.ImageData.SerializeToString,
            response_deserializer=protos.ImageClass.FromString,
        )
        return method(protos.ImageData(**request), timeout=120)


def probabilities(picture: bytes) -> np.ndarray:
    """The classifier's file, run directly on what ImageNet's usual preparation makes of a picture."""
    image = Image.open(io.BytesIO(picture)).convert("RGB")
    scale = 256 / min(image.size)
    image = image.resize((max(256, round(image.width * scale)), max(256, round(image.height * scale))))
    left, top = (image.width - 224) // 2, (image.height - 224) // 2
    pixels = np.asarray(image, np.float32)[top : top + 224, left : left + 224] / 255
    pixels = (pixels - np.array([0.485, 0.456, 0.406], np.float32)) / np.array([0.229, 0.224, 0.225], np.float32)
    session = onnxruntime.InferenceSession(
        str(HERE / "app2" / "1" / "classifier.onnx"), providers=["CPUExecutionProvider"]
    )
    (scores,) = session.run(None, {session.get_inputs()[0].name: pixels.transpose(2, 0, 1)[np.newaxis]})
    return scores.ravel()


def assert_five_best(response: Any, picture: bytes) -> None:
    scores = probabilities(picture)
    best = [int(name.removeprefix("class ")) for name in response.classes]
    np.testing.assert_allclose(response.probabilities, np.sort(scores)[::-1][:5], rtol=1e-4)
    np.testing.assert_allclose(scores[best], response.probabilities, rtol=1e-4)
    assert len(set(best)) == 5


def test_composition(address: str, protos: Any) -> None:
    lines = part("composition", address)
    assert len(lines) == 6
    assert lines[0] == lines[3] == "status code: StatusCode.OK"
    for line, file in ((lines[1:3], "waves.jpg"), (lines[4:], "sunset.jpg")):
        classes, values = (text.partition(": ")[2] for text in line)
        response = protos.ImageClass(
            classes=re.findall(r"class \d+", classes), probabilities=map(float, values.strip("[]").split(","))
        )
        assert_five_best(response, (IMAGES / file).read_bytes())


def test_classes_of_many_pictures(address: str, protos: Any) -> None:
    noise = np.random.default_rng(3)
    with load_script(HERE / "image_server.py").serving_images(IMAGES) as url:
        assert_five_best(classify(address, protos, url=f"{url}/waves.jpg"), (IMAGES / "waves.jpg").read_bytes())
    pictures: dict[str, bytes] = {}
    for size in ((224, 224), (31, 400), (640, 480)):
        file = io.BytesIO()
        Image.fromarray(noise.integers(0, 255, (*size[::-1], 3), np.uint8)).save(file, "PNG")
        pictures[f"/{size[0]}.png"] = file.getvalue()
    with web_server(pictures) as url:
        for path, picture in pictures.items():
            assert_five_best(classify(address, protos, url=url + path), picture)


@contextlib.contextmanager
def web_server(contents: dict[str, bytes]) -> Iterator[str]:
    """Serves contents by their paths; gives the address."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200 if self.path in contents else 404)
            self.end_headers()
            self.wfile.write(contents.get(self.path, b""))

        def log_message(self, *arguments: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


def test_what_is_no_image_is_the_client_s_error(address: str, protos: Any) -> None:
    with web_server({"/text": b"no picture"}) as url:
        for wrong, text in (
            (f"{url}/text", "no picture.jpg is no image to classify"),
            (f"{url}/nothing", "HTTP Error 404"),
            (f"file://{IMAGES}/waves.jpg", "only http and https are fetched"),
        ):
            with pytest.raises(grpc.RpcError) as error:
                classify(address, protos, url=wrong, filename="no picture.jpg")
            assert error.value.code() is grpc.StatusCode.INVALID_ARGUMENT
            assert text in error.value.details()


def test_each_model_is_loaded_when_it_is_asked_for(address: str, protos: Any) -> None:
    with grpc.insecure_channel(address) as channel:
        method = channel.unary_unary(
            "/userdefinedprotos.UserDefinedService/Multiplexing",
            request_serializer=protos.UserDefinedMessage2.SerializeToString,
            response_deserializer=protos.UserDefinedResponse2.FromString,
        )
        for model in ("1", "2", "1", "a name"):
            metadata = (("application", "app1"), ("multiplexed_model_id", model))
            response = method(protos.UserDefinedMessage2(), metadata=metadata, timeout=60)
            assert response.greeting == f"Method2 called model, loading model: {model}"


def test_an_application_that_is_not_there(address: str, protos: Any) -> None:
    with grpc.insecure_channel(address) as channel, pytest.raises(grpc.RpcError) as error:
        channel.unary_unary("/userdefinedprotos.UserDefinedService/Multiplexing")(
            b"", metadata=(("application", "app9"),), timeout=60
        )
    assert error.value.code() is grpc.StatusCode.NOT_FOUND
    assert "app9" in error.value.details()


def test_a_method_that_the_servable_lacks(address: str) -> None:
    with grpc.insecure_channel(address) as channel, pytest.raises(grpc.RpcError) as error:
        channel.unary_unary("/userdefinedprotos.UserDefinedService/Multiplexing")(
            b"", metadata=(("application", "context"),), timeout=60
        )
    assert error.value.code() is grpc.StatusCode.UNIMPLEMENTED


def test_what_the_server_logs(address: str, directory: pathlib.Path) -> None:
    part("call", address)
    assert "[ERROR]" not in logs_of(directory)
