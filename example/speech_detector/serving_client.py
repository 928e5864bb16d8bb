"""Has speech found in a WAV file; without one, in seven seconds of vowels and silence that are made by rule."""

import argparse
import pathlib

import audio
import grpc
from speech_detector_pb2 import Audio, Event
from speech_detector_pb2_grpc import SpeechDetectorStub

# As it comes from a microphone: 20 ms at a time.
CHUNK = audio.RATE // 50


def chunks(samples):
    for begin in range(0, len(samples), CHUNK):
        yield Audio(samples=samples[begin : begin + CHUNK].astype("<i2").tobytes())


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--address", default="127.0.0.1:9000", help="host:port or unix:path (default: %(default)s)")
    parser.add_argument("file", nargs="?", type=pathlib.Path, help="16 kHz, mono, 16 bits")
    args = parser.parse_args()

    samples = audio.read_wav(args.file) if args.file else audio.sample()
    with grpc.insecure_channel(args.address) as channel:
        for event in SpeechDetectorStub(channel).Detect(chunks(samples)):
            what = "begins" if event.kind == Event.START else "ends"
            print(f"speech {what} at {event.sample / audio.RATE:.2f} s")


if __name__ == "__main__":
    main()
