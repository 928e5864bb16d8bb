"""``POST /model/N[/version/V]:method``: Predict with JSON, as MindSpore Serving has it.

Methods that stream answer with a result on each line.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from mindserve import native
from mindserve.proto import PREDICT, PREDICT_STREAM
from mindserve.rest.calls import Ended
from mindserve.rest.http import INLINE_BYTES, BodyTooLarge, Exchange, HttpError
from mindserve.rest.lines import answer_lines
from mindserve.rest.metadata import error_of, headers_of, make_call

PREFIX = "/model"
_MAX_VERSION = 2**63 - 1
_EXPECTED = "expected /model/{servable}[/version/{version}]:{method}"
# Around a reply's results. An error of the whole reply ends with a quote and a brace.
_LIST_BEGINS, _LIST_ENDS = b'{"instances":[', b"]}"
# What the conversion of a body finds wrong, by the codes of its errors: MindSpore Serving has a text for the first.
_WRONG = {"INVALID_ARGUMENT": 200, "OUT_OF_RANGE": 400, "RESOURCE_EXHAUSTED": 503}


@dataclasses.dataclass(frozen=True)
class Route:
    """What a path names; version 0: the newest."""

    servable: str
    method: str
    version: int


def parse_path(path: str) -> Route:
    """The servable, method and version that a path names.

    Raises:
        HttpError: it is no such path.
    """
    if path != PREFIX and not path.startswith(PREFIX + "/"):
        raise known_error(f"please check url, the keyword:[model] must contain; {_EXPECTED}")
    target, colon, method = path[len(PREFIX) + 1 :].rpartition(":")
    if not colon or not method or "/" in method:
        raise known_error(f"please check url, the keyword:[service method] must contain. {_EXPECTED}")
    servable, slash, rest = target.partition("/")
    if not servable:
        raise known_error(f"please check url, the keyword:[model] must contain a servable's name; {_EXPECTED}")
    if not slash:
        return Route(servable, method, 0)
    keyword, _, digits = rest.partition("/")
    if keyword != "version":
        raise HttpError(404, f"please check url, '{rest[:80]}' is not known; {_EXPECTED}", "NOT_FOUND")
    version = int(digits) if digits.isascii() and digits.isdecimal() and len(digits) < 20 else 0
    if not 1 <= version <= _MAX_VERSION:
        raise known_error(
            f"please check url, version number range failed: expected 1 to {_MAX_VERSION}, but actually '{digits[:80]}'"
        )
    return Route(servable, method, version)


def known_error(text: str) -> HttpError:
    """The error with a text of MindSpore Serving's, whose clients look for the text, not for the status."""
    return HttpError(200, text, "INVALID_ARGUMENT")


async def predict(exchange: Exchange) -> None:
    """Answers a request for a servable's method.

    Raises:
        HttpError: what is wrong with it.
        ClientGone: nobody waits for the answer.
    """
    if exchange.method != "POST":
        raise known_error(f"http message only support POST right now, but actually {exchange.method}")
    route = parse_path(exchange.path)
    exchange.permit(route.servable)
    calls = exchange.context.calls
    # Neither the body nor what is made of it is kept while the client takes the answer.
    messages = [await _encode(exchange, route)]
    if exchange.context.backend.streams(route.servable, route.method, route.version):
        stream = calls.stream(make_call(exchange, PREDICT_STREAM, messages))
        messages.clear()
        await answer_lines(exchange, stream, _lines, _predict_error)
        return
    ended = await calls.unary(make_call(exchange, PREDICT, messages))
    messages.clear()
    if ended.code:
        raise _predict_error(ended)
    await exchange.answer_call(ended, native.load().predict_reply_to_json, headers_of(ended))


async def _encode(exchange: Exchange, route: Route) -> bytes:
    """The body as a PredictRequest."""
    try:
        body = await exchange.body()
    except BodyTooLarge as error:
        raise known_error(error.text) from None
    core = native.load()
    try:
        return await exchange.context.run(
            len(body) > INLINE_BYTES,
            core.predict_request_from_json,
            body,
            route.servable,
            route.method,
            route.version,
        )
    except core.NativeError as error:
        raise HttpError(_WRONG.get(error.code, 500), str(error), error.code) from None


def _predict_error(ended: Ended) -> HttpError:
    failed = error_of(ended)
    if failed.status == 429 and not any(name == b"retry-after" for name, _ in failed.headers):
        failed.status = 413  # waiting does not help: it is this request that is too large
    return failed


def _lines(replies: Sequence[bytes]) -> list[bytes]:
    """Each reply's one result, or its error, without what makes it a list."""
    core = native.load()
    try:
        return [
            core.predict_reply_to_json(reply).removeprefix(_LIST_BEGINS).removesuffix(_LIST_ENDS) for reply in replies
        ]
    except core.NativeError as error:
        raise HttpError(500, str(error), error.code) from None
