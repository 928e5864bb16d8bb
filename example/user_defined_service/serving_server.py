"""Serves services of one's own until Ctrl-C: app1, context and app2, or those of them that are named."""

import argparse
import pathlib
import sys

import prepare_model

from mindserve import server

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

from generate_stubs import generate  # noqa: E402

# Each application: its servables, and the function that adds the service that it answers.
USER_DEFINED = "user_defined_protos_pb2_grpc.add_UserDefinedServiceServicer_to_server"
IMAGE_CLASSIFICATION = "user_defined_protos_pb2_grpc.add_ImageClassificationServiceServicer_to_server"
APPLICATIONS = {
    "app1": (["app1"], USER_DEFINED),
    "context": (["context"], USER_DEFINED),
    "app2": (["app2", "image_downloader", "data_preprocessor"], IMAGE_CLASSIFICATION),
}


def start():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--address", default="127.0.0.1:9000", help="host:port or unix:path (default: %(default)s)")
    parser.add_argument("applications", nargs="*", metavar="APPLICATION", help=f"of {', '.join(APPLICATIONS)}")
    args = parser.parse_args()
    applications = args.applications or list(APPLICATIONS)
    if unknown := set(applications) - set(APPLICATIONS):
        parser.error(f"no such application: {', '.join(sorted(unknown))}")

    # The modules of the protos are for this process and the client, and for the servables that use them.
    generate(HERE / "user_defined_protos.proto", [HERE, *(HERE / name for name in APPLICATIONS)])
    if "app2" in applications:
        prepare_model.prepare()
    servables = [name for application in applications for name in APPLICATIONS[application][0]]
    server.start_servables([server.ServableStartConfig(str(HERE), name) for name in servables])
    functions = sorted({APPLICATIONS[application][1] for application in applications})
    (address,) = server.start_grpc_server(address=args.address, grpc_servicer_functions=functions)
    print(f"{', '.join(applications)} is served at {address}", flush=True)


if __name__ == "__main__":
    start()
