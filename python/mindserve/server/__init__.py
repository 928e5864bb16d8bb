"""Serves models: starts servables and the servers that answer for them.

A start script calls `start_servables`, `start_grpc_server` and `start_restful_server`, in any order, and returns; the
server goes on until SIGINT, SIGTERM or `stop`::

    from mindserve import server

    server.start_servables(server.ServableStartConfig("servables", "add"))
    server.start_grpc_server("127.0.0.1:5500")
"""

from mindserve.config import AuthConfig, Limits, Listener, ServableStartConfig
from mindserve.server import master, register
from mindserve.server.start import (
    clear_traffic,
    handover,
    reload,
    set_traffic,
    start_grpc_server,
    start_restful_server,
    start_servables,
    stats,
    stop,
    traffic,
)
from mindserve.tls import SSLConfig
from mindserve.traffic import Mirror, Split, Variation

__all__ = [
    "AuthConfig",
    "Limits",
    "Listener",
    "Mirror",
    "SSLConfig",
    "ServableStartConfig",
    "Split",
    "Variation",
    "clear_traffic",
    "handover",
    "master",
    "register",
    "reload",
    "set_traffic",
    "start_grpc_server",
    "start_restful_server",
    "start_servables",
    "stats",
    "stop",
    "traffic",
]
