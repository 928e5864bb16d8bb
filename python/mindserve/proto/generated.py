"""Modules that the compilers of protobuf and grpcio generate of users' proto files."""

from __future__ import annotations

import importlib
import sys

_SUFFIX = "_grpc"


def import_beside(module: str) -> None:
    """Imports ``x_pb2`` of an ``x_pb2_grpc``, so that the services of ``x.proto`` are known.

    The latter imports only modules of the messages that its methods take and give: not ``x_pb2``, if they are all of
    other files. Does nothing if there is no such module, or if it can't be imported.
    """
    name = module.removesuffix(_SUFFIX)
    if name == module or not name.endswith("_pb2") or name in sys.modules:
        return
    try:
        importlib.import_module(name)
    except Exception:
        # Whoever needs its services says that they are not known.
        return
