"""Serves models: starts servables and the servers that answer for them.

A start script calls `start_servables`, `start_grpc_server` and `start_restful_server`, in any order, and returns; the
server goes on until SIGINT, SIGTERM or `stop`::

    from mindserve import server

    server.start_servables(server.ServableStartConfig("servables", "add"))
    server.start_grpc_server("127.0.0.1:5500")
"""

from mindserve.config import Limits, Listener, ServableStartConfig
from mindserve.server import master, register
from mindserve.server.start import (
    handover,
    reload,
    start_grpc_server,
    start_restful_server,
    start_servables,
    stats,
    stop,
)
from mindserve.tls import SSLConfig

__all__ = [
    "Limits",
    "Listener",
    "SSLConfig",
    "ServableStartConfig",
    "handover",
    "master",
    "register",
    "reload",
    "start_grpc_server",
    "start_restful_server",
    "start_servables",
    "stats",
    "stop",
]
