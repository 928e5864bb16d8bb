"""Handlers of a user's own service, of every kind; what must not be executed twice leaves a mark first."""

import asyncio
import contextlib
import os
import signal
import time

from work_pb2 import Answer

from mindserve.server import register

# Opened for appending, so that workers don't overwrite each other's lines.
_FLAGS = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
_marks = os.open(os.environ["CHAOS_MARKS"], _FLAGS, 0o600)
_notes = os.open(os.environ["CHAOS_NOTES"], _FLAGS, 0o600)
_pid = os.getpid()


def mark(request):
    """Before anything else is done for it: one line for each execution."""
    os.write(_marks, b"%d\n" % request.mark)


@contextlib.contextmanager
def noted(what, number):
    """A stream, from its beginning to its end, however that comes."""
    os.write(_notes, b"begin %s %d %d\n" % (what, _pid, number))
    try:
        yield
    finally:
        os.write(_notes, b"end %s %d %d\n" % (what, _pid, number))


def turned(request, place=0):
    """What a right answer is."""
    return Answer(number=request.number, place=place, data=request.data[::-1])


@register.grpc_method(idempotent=True)
def Echo(request):
    """On a thread."""
    return turned(request)


@register.grpc_method(idempotent=True)
async def EchoAsync(request):
    """On the event loop."""
    await asyncio.sleep(0.02)
    return turned(request)


@register.grpc_method
def Note(request):
    """On a thread, never twice."""
    mark(request)
    time.sleep(0.005)
    return turned(request)


@register.grpc_method
async def NoteAsync(request):
    """On the event loop, never twice."""
    mark(request)
    await asyncio.sleep(0.02)
    return turned(request)


@register.grpc_method
async def Sum(requests):
    """The places of all, never twice."""
    total, last = 0, None
    async for request in requests:
        if last is None:
            mark(request)
        total, last = total + request.place, request
    return turned(last, total)


@register.grpc_method(idempotent=True)
def Count(request):
    """As fast as its client reads."""
    with noted(b"Count", request.number):
        for place in range(request.count):
            yield turned(request, place)


@register.grpc_method
async def Talk(requests):
    """An answer to each, never twice."""
    first = True
    with noted(b"Talk", 0):
        async for request in requests:
            if first:
                mark(request)
            first = False
            await asyncio.sleep(0.005)
            yield turned(request, request.place)


@register.grpc_method
def Die(request):
    """As a crash in native code would."""
    mark(request)
    os.kill(_pid, signal.SIGKILL)
    return turned(request)


@register.grpc_method(idempotent=True)
def InnerEcho(request):
    """For other servables."""
    return turned(request)


@register.grpc_method(idempotent=True)
async def InnerCount(request):
    """For other servables."""
    with noted(b"InnerCount", request.number):
        for place in range(request.count):
            yield turned(request, place)
            await asyncio.sleep(0.005)


async def places(number, count):
    """One after the other, for a while."""
    with noted(b"tell", number.item()):
        for place in range(count.item()):
            yield number, place
            await asyncio.sleep(0.005)


@register.register_method(output_names=["number", "place"], streaming=True)
def tell(number, count):
    """What `infer_stream` gets."""
    return register.add_stage(places, number, count, outputs_count=2)
