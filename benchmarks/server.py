"""Serves servables on one address: ``python server.py DIRECTORY ADDRESS NAME...``."""

from __future__ import annotations

import sys

from mindserve import server


def main() -> None:
    """Start and return; the server lives on until SIGTERM."""
    directory, address, *names = sys.argv[1:]
    server.start_servables([server.ServableStartConfig(directory, name) for name in names])
    server.start_grpc_server(address)


if __name__ == "__main__":
    main()
