"""The servable "speech_detector": audio in, beginnings and ends of speech out, by the package silero-vad's model."""

import grpc
import numpy as np
from speech_detector_pb2 import Event

from mindserve.server import register

RATE = 16_000
# The model looks at so many samples at a time, and at the last few of those before them.
WINDOW = 512
CONTEXT = 64
# Speech begins at this probability and ends when a lower one lasts for as many samples; each end is moved outwards.
THRESHOLD = 0.5
END_THRESHOLD = THRESHOLD - 0.15
SILENCE = RATE // 10
PADDING = RATE * 30 // 1000

# Its second input has the batch in its second dimension: each window is a run of its own.
model = register.declare_model(model_file="silero_vad.onnx", model_format="ONNX", with_batch_dim=False)
rate = np.array(RATE, np.int64)


class Speech:
    """What is known of one stream's audio so far."""

    def __init__(self):
        self._state = np.zeros((2, 1, 128), np.float32)
        self._context = np.zeros(CONTEXT, np.float32)
        self._speaks = False
        self._silent_since = None
        self._windows = 0

    async def next_window(self, samples, with_probability):
        """The events of WINDOW further samples, int16."""
        samples = samples.astype(np.float32) / 32768
        inputs = np.concatenate([self._context, samples])[np.newaxis]
        output, self._state = await model.call_async(inputs, self._state, rate)
        self._context = samples[-CONTEXT:]

        probability = float(output[0, 0])
        begin = self._windows * WINDOW
        self._windows += 1
        events = [Event(kind=Event.WINDOW, sample=begin, probability=probability)] if with_probability else []
        if probability >= THRESHOLD:
            self._silent_since = None
            if not self._speaks:
                self._speaks = True
                events.append(Event(kind=Event.START, sample=max(0, begin - PADDING), probability=probability))
        elif probability < END_THRESHOLD and self._speaks:
            if self._silent_since is None:
                self._silent_since = begin
            if begin - self._silent_since >= SILENCE:
                events.append(Event(kind=Event.END, sample=self._silent_since + PADDING, probability=probability))
                self._speaks, self._silent_since = False, None
        return events

    def end(self, count):
        """The events that are due when the audio ends after so many samples."""
        return [Event(kind=Event.END, sample=count)] if self._speaks else []


@register.grpc_method(service="speechdetector.SpeechDetector")
async def Detect(chunks, grpc_context):
    speech = Speech()
    pending = bytearray()
    count, with_probability = 0, None
    size = WINDOW * 2
    async for chunk in chunks:
        if with_probability is None:
            with_probability = chunk.windows
        pending += chunk.samples
        while len(pending) >= size:
            window = np.frombuffer(bytes(pending[:size]), "<i2")
            del pending[:size]
            count += WINDOW
            for event in await speech.next_window(window, with_probability):
                yield event
    if len(pending) % 2:
        grpc_context.abort(grpc.StatusCode.INVALID_ARGUMENT, "the audio ends within a sample: each has two bytes")
    if pending:
        rest = np.frombuffer(bytes(pending), "<i2")
        count += len(rest)
        for event in await speech.next_window(np.pad(rest, (0, WINDOW - len(rest))), with_probability):
            yield event
    for event in speech.end(count):
        yield event
