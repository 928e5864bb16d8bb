"""The start script: ``python -m chaos.server SERVABLES CERTIFICATES SOCKET``.

Prints "listening on" and its addresses. On the Unix socket ``commands-PID`` it then answers a line with one of JSON:
"stats" with what `mindserve.server.stats` says, "reload" and "handover" when the functions of these names have
returned. Ends with its input.
"""

from __future__ import annotations

import json
import os
import resource
import socket
import sys
import threading
from pathlib import Path

from chaos.certificates import CertificateFiles
from chaos.models import SERVABLES
from mindserve import server
from mindserve.errors import MindserveError

# Workers of each servable.
DEVICES = {
    "add": (0, 1),
    "half": (0, 1),
    "once": (0, 1),
    "sleepy": (0, 1),
    "risky": (0, 1, 2),
    "work": (0, 1),
    "front": (0, 1),
}
# Of each worker, for plain handlers: so few that calls have to wait.
HANDLER_THREADS = 4
# Seconds until a stopped worker is noticed.
HEARTBEAT_TIMEOUT = 2.0
# Those that refuse at once what they can't do in time.
LATE = ("sleepy",)
# So small that the load meets them: of servables, and in all.
MOST = {"sleepy": 100}
MAX_ENQUEUED_REQUESTS = 150
MAX_ENQUEUED_BYTES = 64 << 20
LIMITS = server.Limits(
    max_msg_mb_size=16, max_enqueued_requests=MAX_ENQUEUED_REQUESTS, max_enqueued_bytes=MAX_ENQUEUED_BYTES
)


def main() -> None:
    """Serves until SIGTERM."""
    directory, certificates, unix = sys.argv[1:]
    # Workers that crash would leave files as large as they were.
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    files = CertificateFiles(Path(certificates))
    tls = server.SSLConfig(
        str(files.server), str(files.server_key), str(files.client_authorities), True, crl=str(files.revoked)
    )
    # Before anybody can know that this process is there.
    commands = socket.socket(socket.AF_UNIX)
    commands.bind(f"commands-{os.getpid()}")
    commands.listen()
    server.start_servables(
        [
            server.ServableStartConfig(
                directory,
                name,
                DEVICES[name],
                device_type="CPU",
                heartbeat_timeout=HEARTBEAT_TIMEOUT,
                refuse_late=name in LATE,
                max_enqueued_requests=MOST.get(name, 0),
                handler_threads=HANDLER_THREADS,
            )
            for name in SERVABLES
        ]
    )
    listeners = [
        server.Listener("127.0.0.1:0"), server.Listener(f"unix:{unix}"), server.Listener("127.0.0.1:0", tls)
    ]  # fmt: skip
    services = [f"work_pb2_grpc.add_{service}Servicer_to_server" for service in ("Work", "Front")]
    addresses = server.start_grpc_server(listeners, limits=LIMITS, grpc_servicer_functions=services)
    print("listening on", *addresses, flush=True)
    threading.Thread(target=_stop_with_input, daemon=True).start()
    while True:
        connection, _ = commands.accept()
        with connection, connection.makefile("rw") as stream:
            stream.write(json.dumps(_answer(stream.readline().strip())))


def _stop_with_input() -> None:
    """Whoever started this server holds the other end, of its successors' input too."""
    sys.stdin.read()
    server.stop()
    os._exit(1)


def _answer(command: str) -> object:
    try:
        if command == "stats":
            return server.stats().as_dict()
        if command == "reload":
            server.reload()
            return {}
        if command == "handover":
            return {"pid": server.handover()}
    except MindserveError as error:
        return {"error": str(error)}
    return {"error": f"no command: {command!r}"}


if __name__ == "__main__":
    main()
