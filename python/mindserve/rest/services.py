"""``POST /{package.Service}/{Method}``: users' RPCs, with messages in protobuf's JSON mapping.

A server's stream of messages is a line of JSON each (NDJSON), and so is a client's. The messages are made of the
descriptors that the server has of its services: no generated module is imported.
"""

from __future__ import annotations

import dataclasses
import io
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from google.protobuf import descriptor_pool, json_format, message_factory
from google.protobuf.message import DecodeError, Message

from mindserve.control import ReadyRpc
from mindserve.rest.calls import CANCELLED, Ended
from mindserve.rest.context import ServedService
from mindserve.rest.http import INLINE_BYTES, Exchange, HttpError
from mindserve.rest.lines import answer_lines
from mindserve.rest.message_json import fill_message, make_pool, parse_json
from mindserve.rest.metadata import error_of, headers_of, make_call
from mindserve.rest.split_names import meant_names

if TYPE_CHECKING:
    from mindserve._native import ClientIdentity


class Rpc:
    """A method of a service, and how its messages are turned into JSON and back. Thread-safe."""

    def __init__(self, service: str, rpc: ReadyRpc, pool: descriptor_pool.DescriptorPool) -> None:
        self.path = f"/{service}/{rpc.name}"
        self.client_streaming = rpc.client_streaming
        self.server_streaming = rpc.server_streaming
        self._pool = pool
        self._input = message_factory.GetMessageClass(pool.FindMessageTypeByName(rpc.input_type))
        self._output = message_factory.GetMessageClass(pool.FindMessageTypeByName(rpc.output_type))

    def encode(self, body: bytes, most: int) -> list[bytes]:
        """The messages of a request.

        Raises:
            HttpError: it has others, or more lines than ``most``.
        """
        if not self.client_streaming:
            return [self._encode(body, "")]
        messages: list[bytes] = []
        for number, line in enumerate(io.BytesIO(body), 1):
            if number > most:  # empty ones count too: a body may be nothing but these
                text = f"the body has more lines than max_instances_per_request {most} allows"
                raise HttpError(413, text, "RESOURCE_EXHAUSTED")
            if not line.isspace():
                messages.append(self._encode(line, f"line {number}: "))
        return messages

    def _encode(self, text: bytes, where: str) -> bytes:
        message = self._input()
        try:
            return fill_message(message, parse_json(text), self._pool)
        except ValueError as error:
            reason = f"{where}the body is no {message.DESCRIPTOR.full_name} in JSON: {error}"
            raise HttpError(400, reason, "INVALID_ARGUMENT") from None

    def decode(self, messages: Iterable[bytes]) -> list[bytes]:
        """JSON of the answers, a line each.

        Raises:
            HttpError: they have no JSON.
        """
        return [self.decode_one(message) for message in messages]

    def decode_one(self, data: bytes) -> bytes:
        """JSON of an answer.

        Raises:
            HttpError: it has none.
        """
        try:
            message: Message = self._output.FromString(data)
            text: str = json_format.MessageToJson(message, indent=None, ensure_ascii=False, descriptor_pool=self._pool)
        except (DecodeError, json_format.Error, TypeError, ValueError, RecursionError) as error:
            name = self._output.DESCRIPTOR.full_name
            raise HttpError(500, f"the answer is no {name} that has a JSON form: {error}", "INTERNAL") from None
        return text.encode()


@dataclasses.dataclass(frozen=True)
class _Rpcs:
    """Those of `services`, by their paths."""

    services: Sequence[ServedService]
    by_path: Mapping[str, Rpc]
    names: frozenset[str]


class ServiceRoutes:
    """The routes of users' services, as the server has them at the time. Only for the event loop."""

    def __init__(self, services: Callable[[], Sequence[ServedService]]) -> None:
        self._services = services
        self._rpcs = _Rpcs((), {}, frozenset())

    def find(self, path: str) -> Rpc | None:
        """The RPC of a path.

        Raises:
            HttpError: its service is known, or looks like one, but the RPC is not.
        """
        services = self._services()
        if services is not self._rpcs.services:
            self._rpcs = _make_rpcs(services)
        rpc = self._rpcs.by_path.get(path)
        if rpc is not None:
            return rpc
        service, slash, method = path[1:].partition("/")
        if service in self._rpcs.names:
            known = ", ".join(
                f"'{each[len(service) + 2 :]}'" for each in self._rpcs.by_path if each.startswith(f"/{service}/")
            )
            raise HttpError(404, f"service '{service}' has no method '{method[:80]}'; it has {known}", "NOT_FOUND")
        if slash and "." in service and "/" not in method:
            known = ", ".join(f"'{name}'" for name in sorted(self._rpcs.names)) or "none"
            raise HttpError(404, f"there is no service '{service[:80]}'; there are: {known}", "NOT_FOUND")
        return None


def _make_rpcs(services: Sequence[ServedService]) -> _Rpcs:
    by_path: dict[str, Rpc] = {}
    for each in services:
        pool = make_pool(each.files)
        for method in each.service.methods:
            rpc = Rpc(each.service.name, method, pool)
            by_path[rpc.path] = rpc
    return _Rpcs(services, by_path, frozenset(each.service.name for each in services))


async def call_rpc(exchange: Exchange, rpc: Rpc) -> None:
    """Answers a request for an RPC.

    Raises:
        HttpError: what is wrong with it, or how the call ended.
        ClientGone: nobody waits for the answer.
    """
    exchange.rpc_errors = True
    if exchange.method != "POST":
        wrong = f"{rpc.path} takes POST, but actually {exchange.method}"
        raise HttpError(405, wrong, "UNIMPLEMENTED", [(b"allow", b"POST")])
    if exchange.identity is not None:
        _permit(exchange, rpc, exchange.identity)
    calls = exchange.context.calls
    # Neither the body nor what is made of it is kept while the client takes the answer.
    messages = await _encode(exchange, rpc)
    if rpc.server_streaming:
        stream = calls.stream(make_call(exchange, rpc.path, messages))
        messages.clear()
        await answer_lines(exchange, stream, rpc.decode, _rpc_error)
        return
    ended = await calls.unary(make_call(exchange, rpc.path, messages))
    messages.clear()
    if ended.code:
        raise _rpc_error(ended)
    await exchange.answer_call(ended, rpc.decode_one, headers_of(ended))


async def _encode(exchange: Exchange, rpc: Rpc) -> list[bytes]:
    body = await exchange.body()
    context = exchange.context
    return await context.run(len(body) > INLINE_BYTES, rpc.encode, body, context.max_messages)


def _permit(exchange: Exchange, rpc: Rpc, identity: ClientIdentity) -> None:
    """Refuses what the gateway would, before the body comes.

    Raises:
        HttpError: 403: the client may not call what the request names; or nobody who answers, where it names nobody.
    """
    if named := exchange.headers.get(b"application"):
        exchange.permit(named.decode("latin-1"))
        return
    service = rpc.path[1:].partition("/")[0]
    backend = exchange.context.backend
    answering = {each.servable for each in backend.versions() if each.ready and service in each.services}
    meant = meant_names(answering, backend.splits().values())
    if meant and not any(map(identity.may_call, meant)):
        raise HttpError(403, identity.denial_of_all(f"service '{service}'"), "PERMISSION_DENIED")


def _rpc_error(ended: Ended) -> HttpError:
    if ended.code == CANCELLED and not ended.details:
        ended.details = "the call was cancelled"
    return error_of(ended)
