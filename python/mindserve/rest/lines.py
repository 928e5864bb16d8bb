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
    try:
        await stream.begun()
        if stream.ended is not None and stream.ended.code and not stream.pending:
            raise error_of(stream.ended)
        await exchange.begin(200, NDJSON, initial_headers(stream.initial))
        error: HttpError | None = None
        try:
            async for batch in stream.batches():
                long = sum(map(len, batch)) > INLINE_BYTES
                lines = await exchange.context.run(long, decode, batch)
                await exchange.write(b"\n".join(lines) + b"\n")
            if stream.ended is not None and stream.ended.code:
                error = error_of(stream.ended)
        except HttpError as failed:
            error = failed
        await exchange.end(b"" if error is None else exchange.error_body(error) + b"\n")
    finally:
        stream.cancel()
