"""Answers as newline-delimited JSON: a line for each message, sent when it is there."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from mindserve.rest.calls import Ended, Stream
from mindserve.rest.http import INLINE_BYTES, NDJSON, Exchange, HttpError
from mindserve.rest.metadata import initial_headers


async def answer_lines(
    exchange: Exchange,
    stream: Stream,
    decode: Callable[[Sequence[bytes]], Sequence[bytes]],
    error_of: Callable[[Ended], HttpError],
) -> None:
    """Sends what comes. An error before the first message is an ordinary one; later it is the last line.

    Args:
        exchange: is answered.
        stream: the call, just begun; it is given up if the answer can't be sent.
        decode: the lines of messages; may raise `HttpError`.
        error_of: the error for a call that did not end well.

    Raises:
        HttpError: the call has failed before its first message.
        ClientGone: nobody waits for the answer.
    """
    exchange.release()
    try:
        await stream.begun()
        if stream.ended is not None and stream.ended.code and not stream.pending:
            raise error_of(stream.ended)
        await exchange.begin(200, NDJSON, initial_headers(stream.initial))
        error: HttpError | None = None
        try:
            async for batch in stream.batches():
                await exchange.write(await _text(exchange, batch, decode))
                exchange.hold(0)
            if stream.ended is not None and stream.ended.code:
                error = error_of(stream.ended)
        except HttpError as failed:
            error = failed.with_traceback(None)  # which has what was to be sent
        await exchange.end(b"" if error is None else exchange.error_body(error) + b"\n")
    finally:
        stream.cancel()


async def _text(exchange: Exchange, batch: list[bytes], decode: Callable[[Sequence[bytes]], Sequence[bytes]]) -> bytes:
    """The lines of messages, which are taken from their list: while the client takes the lines they alone are held.

    Raises:
        HttpError: there is no room for them, or they have none.
    """
    messages = tuple(batch)
    batch.clear()
    size = sum(map(len, messages))
    exchange.hold(size)
    lines = await exchange.context.run(size > INLINE_BYTES, decode, messages)
    text = b"\n".join(lines) + b"\n"
    exchange.hold(len(text))
    return text
