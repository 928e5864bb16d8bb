"""``mindserve infer``."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mindserve.files import read_file

if TYPE_CHECKING:
    from mindserve.client import SSLConfig

# Bytes. The servers of this package take tokens of 8 KiB.
_MAX_TOKEN_FILE = 64 * 1024


def infer(
    address: Annotated[str, typer.Argument(help="host:port, [IPv6]:port or unix:path.", show_default=False)],
    servable: Annotated[str, typer.Argument(help="The servable.", show_default=False)],
    method: Annotated[str, typer.Argument(help="Its method.", show_default=False)],
    instance: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[NAME=VALUE... | JSON...]",
            help="Inputs by name, which make one instance together; or instances as JSON objects, or lists of them.",
            show_default=False,
        ),
    ] = None,
    file: Annotated[
        str | None,
        typer.Option(
            "--file",
            "-f",
            metavar="FILE",
            help="Instances from a file: JSON objects, or lists of them. - is standard input, and the default where no"
            " instances are given.",
        ),
    ] = None,
    version: Annotated[int, typer.Option(help="The servable's version; 0: the newest.", min=0, metavar="N")] = 0,
    timeout: Annotated[
        float | None, typer.Option(help="Seconds until the call is given up. Default: never.", metavar="SECONDS")
    ] = None,
    metadata: Annotated[
        list[str] | None, typer.Option(help="Goes with the call. May be repeated.", metavar="NAME=VALUE")
    ] = None,
    token_file: Annotated[
        str | None,
        typer.Option(help="A token for the call, in a file: other users see what a command line says.", metavar="FILE"),
    ] = None,
    stream: Annotated[
        bool,
        typer.Option("--stream", help="For methods that stream: prints each item as it comes. One instance only."),
    ] = False,
    tls: Annotated[bool, typer.Option("--tls", help="By TLS. The other TLS options imply it.")] = False,
    tls_ca: Annotated[
        str | None, typer.Option(help="Authorities that the server's certificate may come from.", metavar="FILE")
    ] = None,
    tls_cert: Annotated[str | None, typer.Option(help="The client's own certificate.", metavar="FILE")] = None,
    tls_key: Annotated[str | None, typer.Option(help="The key of --tls-cert.", metavar="FILE")] = None,
    tls_server_name: Annotated[
        str | None, typer.Option(help="The name that the server's certificate must bear.", metavar="NAME")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the results as one line of JSON.")] = False,
) -> None:
    """Send instances to a method of a servable, and print the results.

    A VALUE is JSON, or else text; @FILE takes a file: a .npy file is an array, any other one bytes. In JSON, lists are
    arrays: of int64, float64, bool or text. {"dtype": "float32", "data": [[1, 2]]} gives another type, {"dtype":
    "bytes", "data": "aGVsbG8="} bytes in base64, and "@FILE.npy" an array from a file.

    Status 1 if the call, or any instance, has failed.
    """
    from mindserve.cli.instances import read_instances
    from mindserve.client import Client, SSLConfig

    given = {"custom_ca": tls_ca, "certificate": tls_cert, "private_key": tls_key, "server_name": tls_server_name}
    ssl_config: SSLConfig | None = SSLConfig(**given) if tls or any(given.values()) else None
    instances = read_instances(instance or [], file)
    if stream and len(instances) != 1:
        raise typer.BadParameter(f"one instance should be given, but actually {len(instances)}", param_hint="--stream")
    pairs = [*_metadata(metadata or []), *_token(token_file)]
    with Client(address, servable, method, version, ssl_config) as client:
        if stream:
            well = _print_stream(client.infer_stream(instances[0], timeout=timeout, metadata=pairs), as_json)
        else:
            well = _print_results(client.infer(instances, timeout=timeout, metadata=pairs), as_json)
    if not well:
        raise typer.Exit(1)


def _print_results(results: Any, as_json: bool) -> bool:
    """Whether nothing has failed."""
    from mindserve.cli.results import as_plain, show

    whole_failed = isinstance(results, dict)
    if as_json:
        typer.echo(json.dumps(as_plain(results), ensure_ascii=False))
    elif whole_failed:
        typer.echo(f"Error: {results['error']}", err=True)
    else:
        for number, result in enumerate(results):
            if len(results) > 1:
                typer.echo(f"instance {number}")
            show(result, typer.echo)
    return not whole_failed and not any(_failed(result) for result in results)


def _print_stream(items: Iterable[dict[str, Any]], as_json: bool) -> bool:
    """Whether nothing has failed. An item that has is the last."""
    from mindserve.cli.results import as_plain, show

    well = True
    for number, item in enumerate(items):
        well = well and not _failed(item)
        if as_json:
            typer.echo(json.dumps(as_plain(item), ensure_ascii=False))
        elif _failed(item):
            typer.echo(f"Error: {item['error']}", err=True)
        else:
            typer.echo(f"item {number}")
            show(item, typer.echo)
    return well


def _failed(result: dict[str, Any]) -> bool:
    return result.keys() == {"error"} and isinstance(result["error"], str)


def _metadata(given: list[str]) -> list[tuple[str, str | bytes]]:
    pairs: list[tuple[str, str | bytes]] = []
    for pair in given:
        name, equals, value = pair.partition("=")
        if not equals:
            raise typer.BadParameter(f"'{name}' should be NAME=VALUE", param_hint="--metadata")
        pairs.append((name, value.encode() if name.endswith("-bin") else value))
    return pairs


def _token(path: str | None) -> list[tuple[str, str | bytes]]:
    """As metadata. The errors have nothing of what is in the file."""
    if path is None:
        return []
    try:
        token = read_file(path, _MAX_TOKEN_FILE)[0].strip()
    except OSError as error:
        raise typer.BadParameter(f"'{path}' can't be read: {error.strerror}", param_hint="--token-file") from error
    if not token or not token.isascii() or len(token.split()) != 1:
        raise typer.BadParameter(f"'{path}' should hold one token, a word of ASCII", param_hint="--token-file")
    return [("authorization", f"Bearer {token.decode()}")]
