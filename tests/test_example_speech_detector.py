"""example/speech_detector: what is streamed back equals the model's file run directly."""

from __future__ import annotations

import concurrent.futures
import pathlib
import wave
from collections.abc import Iterator, Sequence
from typing import Any

import grpc
import numpy as np
import onnxruntime
import pytest

from example_process import EXAMPLE, ask, load_script, serving

HERE = EXAMPLE / "speech_detector"
audio = load_script(HERE / "audio.py")

START, END, WINDOW = 1, 2, 3


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with serving("speech_detector", tmp_path_factory.mktemp("speech_detector")) as at:
        yield at


@pytest.fixture(scope="module")
def messages(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The module of the example's messages."""
    directory = tmp_path_factory.mktemp("stubs")
    load_script(EXAMPLE / "generate_stubs.py").generate(HERE / "speech_detector.proto", [directory])
    return load_script(directory / "speech_detector_pb2.py")


@pytest.fixture(scope="module")
def session() -> onnxruntime.InferenceSession:
    """The package's file, run as the package runs it."""
    options = onnxruntime.SessionOptions()
    options.inter_op_num_threads = options.intra_op_num_threads = 1
    options.log_severity_level = 3
    file = load_script(HERE / "prepare_model.py").model_file()
    return onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])


def direct(session: onnxruntime.InferenceSession, samples: np.ndarray) -> list[tuple[int, int, float]]:
    """Kind, sample and probability of each event, as the package's VADIterator has them.

    Its arithmetic, window by window, without torch; ``current`` counts the samples up to a window's end.
    """
    count = len(samples)
    samples = np.pad(samples, (0, -count % 512)).astype(np.float32) / 32768
    state, context = np.zeros((2, 1, 128), np.float32), np.zeros((1, 64), np.float32)
    events: list[tuple[int, int, float]] = []
    triggered, temp_end = False, 0
    for current in range(512, len(samples) + 1, 512):
        window = np.concatenate([context, samples[np.newaxis, current - 512 : current]], axis=1)
        output, state = session.run(None, {"input": window, "state": state, "sr": np.array(16000, dtype="int64")})
        context = window[:, -64:]
        probability = output.item()
        events.append((WINDOW, current - 512, probability))
        if probability >= 0.5 and temp_end:
            temp_end = 0
        if probability >= 0.5 and not triggered:
            triggered = True
            events.append((START, max(0, int(current - 480 - 512)), probability))
        elif probability < 0.5 - 0.15 and triggered:
            temp_end = temp_end or current
            if current - temp_end >= 1600:
                events.append((END, int(temp_end + 480 - 512), probability))
                temp_end, triggered = 0, False
    return [*events, (END, count, 0.0)] if triggered else events


def detect(
    address: str, messages: Any, samples: np.ndarray, sizes: Sequence[int] = (320,), windows: bool = True
) -> list[tuple[int, int, float]]:
    """The events that the server sends for samples that come in pieces of these sizes in bytes, in turn."""

    def pieces() -> Iterator[Any]:
        content, begin, number = samples.astype("<i2").tobytes(), 0, 0
        while begin < len(content):
            end = begin + sizes[number % len(sizes)]
            yield messages.Audio(samples=content[begin:end], windows=windows)
            begin, number = end, number + 1

    with grpc.insecure_channel(address) as channel:
        method = channel.stream_stream(
            "/speechdetector.SpeechDetector/Detect",
            request_serializer=messages.Audio.SerializeToString,
            response_deserializer=messages.Event.FromString,
        )
        return [(event.kind, event.sample, event.probability) for event in method(pieces(), timeout=120)]


def test_the_client_finds_speech_where_it_is(address: str, session: onnxruntime.InferenceSession) -> None:
    expected = [event for event in direct(session, audio.sample()) if event[0] != WINDOW]
    assert [kind for kind, _, _ in expected] == [START, END, START, END]
    # Speech was put there from second 1 to 3 and from 4 to 5.5.
    np.testing.assert_allclose([sample / audio.RATE for _, sample, _ in expected], [1, 3, 4, 5.5], atol=0.2)
    lines = ask("speech_detector", "--address", address).splitlines()
    words = {START: "begins", END: "ends"}
    assert lines == [f"speech {words[kind]} at {sample / audio.RATE:.2f} s" for kind, sample, _ in expected]


def test_the_readme_shows_what_the_client_prints(session: onnxruntime.InferenceSession) -> None:
    shown = (HERE / "README.md").read_text(encoding="utf-8")
    for _, sample, _ in (event for event in direct(session, audio.sample()) if event[0] != WINDOW):
        assert f" at {sample / audio.RATE:.2f} s\n" in shown


def test_the_client_reads_a_file(address: str, session: onnxruntime.InferenceSession, tmp_path: pathlib.Path) -> None:
    # It ends in the middle of speech.
    samples = audio.sample(5)[: audio.RATE * 2 + 100]
    with wave.open(str(tmp_path / "speech.wav"), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(audio.RATE)
        file.writeframes(samples.tobytes())
    begin, end = (event for event in direct(session, samples) if event[0] != WINDOW)
    assert end == (END, len(samples), 0.0)
    assert ask("speech_detector", "--address", address, tmp_path / "speech.wav").splitlines() == [
        f"speech begins at {begin[1] / audio.RATE:.2f} s",
        f"speech ends at {end[1] / audio.RATE:.2f} s",
    ]


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("sizes", [(640,), (1, 2047, 3), (1 << 20,)], ids=["20 ms", "odd sizes", "all at once"])
def test_every_probability_equals_the_model_s(
    address: str, messages: Any, session: onnxruntime.InferenceSession, seed: int, sizes: tuple[int, ...]
) -> None:
    samples = audio.sample(seed)[:-77]
    got, expected = detect(address, messages, samples, sizes), direct(session, samples)
    assert [event[:2] for event in got] == [event[:2] for event in expected]
    np.testing.assert_allclose([event[2] for event in got], [event[2] for event in expected], rtol=0, atol=1e-6)


def test_streams_do_not_share_their_state(address: str, messages: Any, session: onnxruntime.InferenceSession) -> None:
    """Several at a time, each other audio."""
    several = [audio.sample(seed)[seed * 1000 :] for seed in range(6)]
    with concurrent.futures.ThreadPoolExecutor(len(several)) as pool:
        answers = list(pool.map(lambda samples: detect(address, messages, samples), several))
    for samples, got in zip(several, answers, strict=True):
        expected = direct(session, samples)
        assert [event[:2] for event in got] == [event[:2] for event in expected]
        np.testing.assert_allclose([event[2] for event in got], [event[2] for event in expected], rtol=0, atol=1e-6)


def test_events_come_while_audio_goes_on(address: str, messages: Any) -> None:
    """Speech's beginning is there before the client has sent its end."""
    samples = audio.sample()
    begun = concurrent.futures.Future[int]()

    def pieces() -> Iterator[Any]:
        yield messages.Audio(samples=samples[: 2 * audio.RATE].astype("<i2").tobytes())
        assert begun.result(60) > 0
        yield messages.Audio(samples=samples[2 * audio.RATE :].astype("<i2").tobytes())

    with grpc.insecure_channel(address) as channel:
        method = channel.stream_stream(
            "/speechdetector.SpeechDetector/Detect",
            request_serializer=messages.Audio.SerializeToString,
            response_deserializer=messages.Event.FromString,
        )
        events = method(pieces(), timeout=120)
        first = next(events)
        begun.set_result(first.sample)
        assert [first.kind, *(event.kind for event in events)] == [START, END, START, END]


def test_windows_come_only_when_they_are_wanted(address: str, messages: Any) -> None:
    assert {kind for kind, _, _ in detect(address, messages, audio.sample(), windows=False)} == {START, END}


def test_silence_and_nothing(address: str, messages: Any) -> None:
    assert detect(address, messages, np.zeros(16000, np.int16), windows=False) == []
    assert detect(address, messages, np.zeros(0, np.int16)) == []


def test_half_a_sample_is_the_client_s_error(address: str, messages: Any) -> None:
    with grpc.insecure_channel(address) as channel:
        method = channel.stream_stream("/speechdetector.SpeechDetector/Detect")
        with pytest.raises(grpc.RpcError) as error:
            list(method(iter([messages.Audio(samples=b"123").SerializeToString()]), timeout=60))
    assert error.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert "the audio ends within a sample" in error.value.details()
