"""Serves the servable "speech_detector" until Ctrl-C."""

import argparse
import pathlib
import sys

import prepare_model

from mindserve import server

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

from generate_stubs import generate  # noqa: E402


def start():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--address", default="127.0.0.1:9000", help="host:port or unix:path (default: %(default)s)")
    args = parser.parse_args()

    prepare_model.prepare()
    generate(HERE / "speech_detector.proto", [HERE, HERE / "speech_detector"])
    server.start_servables(server.ServableStartConfig(str(HERE), "speech_detector"))
    (address,) = server.start_grpc_server(
        address=args.address, grpc_servicer_functions=["speech_detector_pb2_grpc.add_SpeechDetectorServicer_to_server"]
    )
    print(f"speech_detector is served at {address}", flush=True)


if __name__ == "__main__":
    start()
