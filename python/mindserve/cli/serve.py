"""``mindserve run`` and ``mindserve start``: servers in the foreground."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
from typing import TYPE_CHECKING, Annotated

import typer

from mindserve.cli.common import check_auth, extend_import_path, follow_functions, show_error
from mindserve.errors import MindserveError

if TYPE_CHECKING:
    from mindserve.configfile import Draft
    from mindserve.configfile.settings import ServerSettings

_AsJson = Annotated[bool, typer.Option("--json", help="Print where it listens as one line of JSON.")]


def run(
    config: Annotated[
        str, typer.Argument(help="A config file, YAML or JSON.", metavar="CONFIG.YAML", show_default=False)
    ],
    as_json: _AsJson = False,
) -> None:
    """Serve what a config file says, until SIGINT (Ctrl-C) or SIGTERM.

    What can stand in the file: mindserve validate --schema. The file is read once; after a change, mindserve handover
    starts a new server from it in the place of this one, without losing a call.
    """
    from mindserve import configfile

    draft = configfile.draft(config)
    extend_import_path(os.path.dirname(os.path.abspath(config)), ".")
    _serve(draft, as_json)


def start(
    servable: Annotated[
        list[str],
        typer.Option(
            "--servable",
            "-s",
            metavar="DIR[/NAME]",
            help="A servable's directory, or one with several servables in it, which are all served. May be repeated.",
            show_default=False,
        ),
    ],
    grpc_port: Annotated[
        int | None,
        typer.Option(help="Answer on this port of 127.0.0.1; 0 takes a free one. Default: 9000.", metavar="PORT"),
    ] = None,
    grpc_address: Annotated[
        list[str] | None,
        typer.Option(
            help="Answer here instead: 0.0.0.0:9000, [::]:9000 or unix:path. May be repeated.", metavar="ADDRESS"
        ),
    ] = None,
    grpc_servicer_functions: Annotated[
        list[str] | None,
        typer.Option(
            help="Import path of a generated function, user_pb2_grpc.add_UserServicer_to_server, for a service of your"
            " own. May be repeated.",
            metavar="PATH",
        ),
    ] = None,
    rest_port: Annotated[
        int | None,
        typer.Option(help="Answer HTTP with JSON too, on this port of 127.0.0.1; 0 takes a free one.", metavar="PORT"),
    ] = None,
    rest_address: Annotated[
        str | None, typer.Option(help="Answer HTTP with JSON here instead: 0.0.0.0:5501.", metavar="ADDRESS")
    ] = None,
    device_ids: Annotated[
        str | None, typer.Option(help="Devices, each of which gets a worker: 0,1,2. Default: 0.", metavar="IDS")
    ] = None,
    device_type: Annotated[
        str | None, typer.Option(help="CPU, GPU or Ascend. Default: the best that is there.", metavar="TYPE")
    ] = None,
    version_number: Annotated[
        int | None, typer.Option(help="Version to serve. Default: 0, the newest.", metavar="N")
    ] = None,
    servable_option: Annotated[
        list[str] | None,
        typer.Option(
            help="Any other option of a servable, for all of them: max_batch_size=8. May be repeated.",
            metavar="NAME=VALUE",
        ),
    ] = None,
    limit: Annotated[
        list[str] | None,
        typer.Option(help="A limit of the server: drain_timeout=5. May be repeated.", metavar="NAME=VALUE"),
    ] = None,
    tls_cert: Annotated[str | None, typer.Option(help="The server's certificate, for TLS.", metavar="FILE")] = None,
    tls_key: Annotated[str | None, typer.Option(help="The key of --tls-cert.", metavar="FILE")] = None,
    tls_ca: Annotated[
        str | None,
        typer.Option(
            help="Authorities that clients' certificates must come from: clients must show one.", metavar="FILE"
        ),
    ] = None,
    auth: Annotated[
        str | None,
        typer.Option(
            help="Ask clients for tokens: the keys file, which mindserve keys manages. What else there is to tokens a "
            "config file's section auth has.",
            metavar="FILE",
        ),
    ] = None,
    as_json: _AsJson = False,
) -> None:
    """Serve the servables of one or more directories, until SIGINT (Ctrl-C) or SIGTERM.

    Only on this machine, 127.0.0.1:9000, unless told otherwise. For different options for different servables:
    mindserve run.
    """
    from mindserve.cli.start_options import StartOptions, as_config

    options = StartOptions(
        servables=servable,
        grpc_port=grpc_port,
        grpc_addresses=grpc_address or [],
        grpc_servicer_functions=grpc_servicer_functions or [],
        rest_port=rest_port,
        rest_address=rest_address,
        servable_options={"device_ids": device_ids, "device_type": device_type, "version_number": version_number},
        more_servable_options=servable_option or [],
        limits=limit or [],
        auth=auth,
        tls={"certificate": tls_cert, "private_key": tls_key, "custom_ca": tls_ca},
    )
    extend_import_path(".")
    _serve(as_config(options), as_json)


def _serve(draft: Draft, as_json: bool) -> None:
    """Starts what the file says and returns; the process then lives until the server has stopped."""
    from mindserve import server
    from mindserve.configfile.check import check_certificates, check_directories

    # All that can be found before anything is started. Warnings come with the start.
    missing = check_directories(draft)
    wrong_certificates, _ = check_certificates(draft)
    wrong_auth, _ = check_auth(draft)
    functions, wrong_functions = follow_functions(draft, missing)
    settings = draft.finish([*missing, *wrong_certificates, *wrong_auth, *wrong_functions]).settings
    listeners = settings.grpc.all_listeners()
    services = {"grpc_servicer_functions": functions} if functions else {}
    limits, auth = settings.all_limits(), settings.auth
    try:
        server.start_servables(settings.servables)
        for split in settings.traffic:
            server.set_traffic(split.name, split.variations, split.sticky, split.mirrors)
        bound = server.start_grpc_server(listeners, limits=limits, auth=auth, **services)  # type: ignore[arg-type]
        rest = _start_rest(settings)
    except MindserveError as error:
        # First: what stops may be asked why.
        show_error(str(error))
        server.stop()
        raise typer.Exit(1) from None
    except BaseException:
        server.stop()
        raise
    if as_json:
        names = list(dict.fromkeys(servable.servable_name for servable in settings.servables))
        said = {"pid": os.getpid(), "addresses": bound, "servables": names}
        lines = [json.dumps({**said, "rest": rest} if rest else said)]
    else:
        lines = [
            f"Listening on {address}{' (TLS)' if listener.ssl_config else ''}"
            for address, listener in zip(bound, listeners, strict=True)
        ]
        if rest:
            lines.append(f"Listening on {rest}")
    with contextlib.suppress(OSError):  # nobody reads it: no reason not to serve
        print(*lines, sep="\n", flush=True)


def _start_rest(settings: ServerSettings) -> str:
    """Starts to answer HTTP, if it is to be answered. Returns the URL; empty if not."""
    from mindserve import server

    rest = settings.rest
    if rest is None:
        return ""
    listener = rest.listener()
    limits = dataclasses.replace(settings.limits, max_msg_mb_size=rest.max_msg_mb_size)
    bound = server.start_restful_server(
        listener.address, rest.max_msg_mb_size, listener.ssl_config, limits=limits, auth=settings.auth
    )
    return f"{'https' if listener.ssl_config else 'http'}://{bound}"
