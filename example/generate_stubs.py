"""Makes the Python modules of a .proto file, where `python -m grpc_tools.protoc` would put them.

    python generate_stubs.py <file.proto> [<directory>...]

Each directory (by default the file's own) gets <file>_pb2.py and <file>_pb2_grpc.py: a client's, and that of every
servable that answers or calls the services, since a worker imports from its servable's directory. They aren't kept in
the repository, because they only work with the versions of protobuf and grpcio that they are made for: the examples'
servers make them at each start.
"""

import importlib.util
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile


def generate(proto: pathlib.Path, directories: list[pathlib.Path]) -> None:
    """Writes the modules; what is there and right already isn't touched."""
    if importlib.util.find_spec("grpc_tools") is None:
        names = [f"{proto.stem}_pb2.py", f"{proto.stem}_pb2_grpc.py"]
        if all((directory / name).exists() for directory in directories for name in names):
            return
        raise SystemExit(f"what makes Python modules of {proto.name} is missing: pip install grpcio-tools")
    with tempfile.TemporaryDirectory() as made:
        command = [sys.executable, "-m", "grpc_tools.protoc", f"-I{proto.parent}"]
        done = subprocess.run([*command, f"--python_out={made}", f"--grpc_python_out={made}", proto.name], check=False)
        if done.returncode:
            raise SystemExit(f"{proto} could not be compiled")
        for module in pathlib.Path(made).iterdir():
            for directory in directories:
                _replace(module, directory / module.name)


def _replace(source: pathlib.Path, target: pathlib.Path) -> None:
    if target.exists() and target.read_bytes() == source.read_bytes():
        return
    # Several servers may start at once: the file appears whole or not at all.
    part = target.with_name(f".{target.name}.{os.getpid()}")
    shutil.copyfile(source, part)
    part.replace(target)


if __name__ == "__main__":
    file = pathlib.Path(sys.argv[1]).resolve()
    generate(file, [pathlib.Path(directory) for directory in sys.argv[2:]] or [file.parent])
