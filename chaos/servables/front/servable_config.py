"""Handlers that call other servables: a model's, and another user's service."""

import asyncio
import os

import grpc
import numpy as np
from work_pb2 import Answer, Ask

from mindserve.errors import CallError
from mindserve.server import register

half = register.get_servable("half", method="inner_half")
echo = register.get_servable("work", method="chaos_load.Work/InnerEcho")
count = register.get_servable("work", method="chaos_load.Work/InnerCount")
# Opened for appending, so that workers don't overwrite each other's lines.
_notes = os.open(os.environ["CHAOS_NOTES"], os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)


def note(what, method):
    """What the server counts of these calls is compared with."""
    os.write(_notes, b"%s %s\n" % (what, method))


def inputs(request):
    """For `half`."""
    return {"x1": np.array([request.number], np.int64), "x2": np.array([len(request.data)], np.int64)}


def inner(request):
    """For `work`."""
    return Ask(number=request.number, count=request.count, data=request.data)


def joined(halved, echoed):
    """One answer of two."""
    return Answer(number=echoed.number, place=halved["y"].item(), data=echoed.data)


async def called(handle, method, *request, **values):
    """Asynchronously."""
    note(b"call", method)
    result = await handle.call_async(*request, **values)
    note(b"done", method)
    return result


@register.grpc_method(idempotent=True)
async def Compose(request, grpc_context):
    """Two at once; what fails there fails here, in the same way."""
    calls = called(half, b"inner_half", **inputs(request)), called(echo, b"InnerEcho", inner(request))
    try:
        halved, echoed = await asyncio.gather(*calls)
    except CallError as error:
        await grpc_context.abort(grpc.StatusCode[error.code or "INTERNAL"], str(error))
    return joined(halved, echoed)


@register.grpc_method(idempotent=True)
def ComposePlain(request, grpc_context):
    """One after the other, on a thread."""
    try:
        note(b"call", b"inner_half")
        halved = half.call(**inputs(request))
        note(b"done", b"inner_half")
        note(b"call", b"InnerEcho")
        echoed = echo.call(inner(request))
        note(b"done", b"InnerEcho")
    except CallError as error:
        grpc_context.abort(grpc.StatusCode[error.code or "INTERNAL"], str(error))
    return joined(halved, echoed)


@register.grpc_method(idempotent=True)
async def ComposeCount(request, grpc_context):
    """Passes another servable's stream on."""
    note(b"call", b"InnerCount")
    try:
        async for answer in count.stream_async(inner(request)):
            yield Answer(number=answer.number, place=answer.place, data=answer.data)
    except CallError as error:
        await grpc_context.abort(grpc.StatusCode[error.code or "INTERNAL"], str(error))
    note(b"done", b"InnerCount")
