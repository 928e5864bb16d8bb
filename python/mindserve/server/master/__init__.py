"""Names that MindSpore Serving's users import from ``server.master``."""

from mindserve.server.master import context
from mindserve.server.start import start_grpc_server, start_restful_server, start_servables, stop

__all__ = ["context", "start_grpc_server", "start_restful_server", "start_servables", "stop"]
