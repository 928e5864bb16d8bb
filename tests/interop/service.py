"""The service of interop.proto, as one writes it for grpcio's asyncio server.

The reference server and the servable use this same class: what differs between their answers is the server's doing.
"""

import asyncio
import collections

import grpc
import interop_pb2
import interop_pb2_grpc

# What a client sends under the first name comes back under the second, in the initial or the trailing metadata.
INITIAL = {"x-initial": "x-initial", "x-initial-bin": "x-initial-bin"}
TRAILING = {"x-trailing": "x-trailing", "x-trailing-bin": "x-trailing-bin", "x-status-bin": "grpc-status-details-bin"}
CODES = {code.value[0]: code for code in grpc.StatusCode}


class Interop(interop_pb2_grpc.InteropServicer):
    def __init__(self):
        self._cancelled = collections.defaultdict(asyncio.Event)

    async def Echo(self, request, context):
        await self._metadata(context)
        try:
            if request.wait:
                await asyncio.sleep(request.wait)
        except asyncio.CancelledError:
            self._cancelled[request.key].set()
            raise
        if request.code:
            await context.abort(CODES[request.code], request.details)
        context.set_details(request.details)
        return interop_pb2.EchoReply(text=request.text, payload=request.payload)

    async def Range(self, request, context):
        await self._metadata(context)
        padding = bytes(request.padding)
        number = 0
        try:
            while request.count < 0 or number < request.count:
                yield interop_pb2.Number(value=number, padding=padding)
                number += 1
                if request.count < 0:
                    # For whoever waits for its end.
                    await asyncio.sleep(0.001)
        except (asyncio.CancelledError, GeneratorExit):
            self._cancelled[request.key].set()
            raise

    async def Sum(self, requests, context):
        await self._metadata(context)
        total = 0
        async for number in requests:
            total += number.value
        return interop_pb2.Number(value=total)

    async def Chat(self, requests, context):
        await self._metadata(context)
        async for line in requests:
            if line.code:
                await context.abort(CODES[line.code], f"because of {line.text}")
            yield interop_pb2.Line(text=line.text.upper(), payload=line.payload[::-1])

    async def Cancelled(self, request, context):
        await self._cancelled[request.key].wait()
        return interop_pb2.CancelledReply(cancelled=True)

    async def _metadata(self, context):
        sent = context.invocation_metadata()
        if ("x-compress", "gzip") in sent:
            context.set_compression(grpc.Compression.Gzip)
        initial = [(INITIAL[key], value) for key, value in sent if key in INITIAL]
        if initial:
            await context.send_initial_metadata(initial)
        trailing = self.trailing(sent)
        if trailing:
            context.set_trailing_metadata(trailing)

    def trailing(self, sent):
        return [(TRAILING[key], value) for key, value in sent if key in TRAILING]
