"""The cases of interop.proto, called with grpclib; prints what came of each as JSON.

grpclib_client.py <directory of the generated modules> [--calls] <host:port> [<file of the authority's certificate>
[<file of a certificate of its own> <file of that one's key>]]

With --calls it makes those that its standard input has instead, as JSON (tests/interop_support.py), in their order.
"""

import asyncio
import base64
import json
import os
import random
import ssl
import sys
import time

sys.path.insert(0, sys.argv[1])

from grpclib.client import Channel, StreamStreamMethod, UnaryUnaryMethod
from grpclib.const import Status
from grpclib.encoding.base import CodecBase, StatusDetailsCodecBase
from grpclib.exceptions import GRPCError, StreamTerminatedError
from interop_grpc import InteropStub
from interop_pb2 import (
    CancelledRequest,
    EchoReply,
    EchoRequest,
    Line,
    Number,
    RangeRequest,
)

PATIENCE = 60
# Another key in each run, though the server goes on.
RUN = f"grpclib-{os.getpid()}-{time.time_ns()}"
METADATA = [
    *(("x-initial", "one"), ("x-initial", "two"), ("x-initial-bin", b"\x00\x01\xff")),
    *(("x-trailing", "three"), ("x-trailing", "four"), ("x-trailing-bin", b"\xff\x00\n")),
    ("request_id", "interop-17"),
]


class RawDetails(StatusDetailsCodecBase):
    """grpc-status-details-bin as it comes: the usual codec wants googleapis-common-protos."""

    def encode(self, status, message, details):
        raise NotImplementedError

    def decode(self, status, message, data):
        return data


class AsItIs(CodecBase):
    """Messages that are bytes."""

    __content_subtype__ = "proto"

    def encode(self, message, message_type):
        return message

    def decode(self, data, message_type):
        return data


class Call:
    """What came of a call; used as a context around it, which takes its error."""

    def __init__(self, stream):
        self._context = stream
        self.code = None
        self.text = None
        self.status_details = None

    async def __aenter__(self):
        self.stream = await self._context.__aenter__()
        return self

    async def __aexit__(self, kind, error, trace):
        try:
            await self._context.__aexit__(kind, error, trace)
        except (GRPCError, TimeoutError, asyncio.TimeoutError) as late:  # Two classes before Python 3.11.
            # What the library makes of the end of the stream says more than what a read met.
            error = late
        if error is None:
            self.code = Status.OK
        elif isinstance(error, GRPCError):
            self.code, self.text, self.status_details = error.status, error.message, error.details
        elif isinstance(error, TimeoutError | asyncio.TimeoutError):
            # The library gives up by itself when the deadline has passed.
            self.code = Status.DEADLINE_EXCEEDED
        else:
            return False
        return True


def pattern(size):
    return random.Random(size).randbytes(size)


class Cases:
    def __init__(self, channel):
        self._channel = channel
        self._stub = InteropStub(channel)

    async def _echo(self, request, metadata=None, timeout=PATIENCE):
        async with Call(self._stub.Echo.open(timeout=timeout, metadata=metadata)) as call:
            call.reply = None
            await call.stream.send_message(request)
            call.reply = await call.stream.recv_message()
            await call.stream.recv_trailing_metadata()
        return call

    async def _was_cancelled(self, key):
        return (await self._stub.Cancelled(CancelledRequest(key=key), timeout=PATIENCE)).cancelled

    async def _range(self, request, each):
        async with Call(self._stub.Range.open(timeout=PATIENCE)) as call:
            await call.stream.send_message(request)
            async for number in call.stream:
                each(number)
        return call.code

    async def _sum(self, count):
        async with Call(self._stub.Sum.open(timeout=PATIENCE)) as call:
            for value in range(count):
                await call.stream.send_message(Number(value=value))
            if not count:
                await call.stream.send_request()
            await call.stream.end()
            total = await call.stream.recv_message()
        return {"sum": total.value} if call.code is Status.OK else {"failed": call.code}

    async def _chat(self, lines, each):
        """Sends a line when the one before has been answered."""
        async with Call(self._stub.Chat.open(timeout=PATIENCE)) as call:
            for line in lines:
                await call.stream.send_message(line)
                answer = await call.stream.recv_message()
                if answer is None:
                    # Its end: the context raises the status.
                    break
                each(answer)
            else:
                await call.stream.end()
                assert await call.stream.recv_message() is None
        return call

    async def _with_metadata(self, request):
        call = await self._echo(request, METADATA)
        initial, trailing = call.stream.initial_metadata, call.stream.trailing_metadata

        def text(metadata, key):
            """Clients may send several values of a name as one, with commas between."""
            return ", ".join(metadata.getall(key, []))

        def binary(metadata, key):
            return ", ".join(value.hex() for value in metadata.getall(key, []))

        return {
            "code": call.code,
            "initial": text(initial, "x-initial"),
            "initial_bin": binary(initial, "x-initial-bin"),
            "trailing": text(trailing, "x-trailing"),
            "trailing_bin": binary(trailing, "x-trailing-bin"),
            "request_id": text(trailing, "request_id"),
        }

    async def _raw(self, path):
        try:
            await UnaryUnaryMethod(self._channel, path, EchoRequest, EchoReply)(EchoRequest(), timeout=PATIENCE)
        except GRPCError as error:
            return {"code": error.status}
        return {"code": 0}

    async def unary(self):
        call = await self._echo(EchoRequest(text="grüße ✓"))
        return {"code": call.code, "text": call.reply.text}

    async def unary_empty(self):
        call = await self._echo(EchoRequest())
        return {"code": call.code, "text": call.reply.text, "bytes": len(call.reply.payload)}

    async def unary_large(self):
        payload = pattern(32 << 20)
        call = await self._echo(EchoRequest(payload=payload))
        return {"code": call.code, "equal": call.reply.payload == payload}

    async def server_streaming(self):
        values = []
        code = await self._range(RangeRequest(count=5000), lambda number: values.append(number.value))
        return {"code": code, "count": len(values), "ordered": values == list(range(len(values)))}

    async def server_streaming_empty(self):
        values = []
        code = await self._range(RangeRequest(), values.append)
        return {"code": code, "count": len(values)}

    async def server_streaming_large(self):
        sizes = []
        request = RangeRequest(count=4, padding=(4 << 20) + 3)
        code = await self._range(request, lambda number: sizes.append(len(number.padding)))
        return {"code": code, "sizes": sizes}

    async def client_streaming(self):
        return await self._sum(5000)

    async def client_streaming_empty(self):
        return await self._sum(0)

    async def both_ways(self):
        texts = []
        call = await self._chat([Line(text=text) for text in ("one", "two", "three")], lambda line: texts.append(line))
        return {"code": call.code, "lines": [line.text for line in texts]}

    async def both_ways_large(self):
        payloads = [pattern(times * (1 << 20) + times) for times in (1, 2, 3)]
        answers = []
        call = await self._chat(
            [Line(payload=payload) for payload in payloads], lambda line: answers.append(line.payload[::-1])
        )
        return {"code": call.code, "count": len(answers), "equal": answers == payloads}

    async def both_ways_ended_by_the_server(self):
        texts = []
        lines = [Line(text="one"), Line(text="two", code=9), Line()]
        call = await self._chat(lines, lambda line: texts.append(line.text))
        return {"code": call.code, "details": call.text, "lines": texts}

    async def metadata(self):
        return await self._with_metadata(EchoRequest())

    async def metadata_of_an_error(self):
        return await self._with_metadata(EchoRequest(code=5))

    async def error_details(self):
        call = await self._echo(EchoRequest(code=9, details="50 % off: naïve ✗\nsecond line"))
        return {"code": call.code, "details": call.text}

    async def status_details(self):
        sent = bytes.fromhex("08091203626164")
        call = await self._echo(EchoRequest(code=9, details="bad"), [("x-status-bin", sent)])
        return {"code": call.code, "details": call.text, "equal": call.status_details == sent}

    async def every_code(self):
        return {"codes": [(await self._echo(EchoRequest(code=code))).code for code in range(1, 17)]}

    async def deadline(self):
        begin, key = time.monotonic(), f"{RUN}-deadline"
        call = await self._echo(EchoRequest(wait=60, key=key), timeout=0.5)
        soon = time.monotonic() - begin < 20
        return {"code": call.code, "soon": soon, "cancelled": await self._was_cancelled(key)}

    async def cancel(self):
        key = f"{RUN}-cancel"
        async with Call(self._stub.Range.open(timeout=PATIENCE)) as call:
            await call.stream.send_message(RangeRequest(count=-1, key=key))
            for _ in range(3):
                await call.stream.recv_message()
            await call.stream.cancel()
        # The library tells the server and has no status of its own for it.
        return {"code": Status.CANCELLED, "cancelled": await self._was_cancelled(key)}

    async def unknown_method(self):
        return await self._raw("/interop.Interop/Nothing")

    async def unknown_service(self):
        return await self._raw("/interop.Nothing/Echo")

    async def concurrent(self):
        texts = [f"number {number}" for number in range(200)]
        calls = await asyncio.gather(*(self._echo(EchoRequest(text=text)) for text in texts))
        return {"right": sum(call.reply.text == text for call, text in zip(calls, texts, strict=True) if call.reply)}


class Calls:
    """Makes calls of messages that are bytes."""

    def __init__(self, channel):
        self._channel = channel

    async def make(self, given):
        assert not given["compression"], "the library can't compress"
        messages = []
        kind = StreamStreamMethod if given["streams"] else UnaryUnaryMethod
        method = kind(self._channel, given["path"], None, None)
        call = Call(method.open(timeout=given["timeout"], metadata=[tuple(each) for each in given["metadata"]]))
        try:
            async with call:
                for request in given["requests"]:
                    await call.stream.send_message(base64.b64decode(request))
                await call.stream.end()
                async for message in call.stream:
                    messages.append(message)
                    if len(messages) == given["take"]:
                        await call.stream.cancel()
                        break
        except (OSError, StreamTerminatedError) as error:
            # Its way to say that there is no connection, which other makes have a status for.
            return {"code": Status.UNAVAILABLE, "details": str(error), "messages": [], "metadata": []}
        trailing = call.stream.trailing_metadata or {}
        return {
            # The library has no status for what it has cancelled itself.
            "code": Status.CANCELLED if messages and len(messages) == given["take"] else call.code,
            "details": call.text or "",
            "messages": [base64.b64encode(message).decode() for message in messages],
            "metadata": [[name, value] for name, value in trailing.items() if isinstance(value, str)],
        }


async def main():
    target, *files = (each for each in sys.argv[2:] if each != "--calls")
    host, _, port = target.rpartition(":")
    security = ssl.create_default_context(cafile=files[0]) if files else None
    if security:
        security.set_alpn_protocols(["h2"])
        if files[1:]:
            security.load_cert_chain(*files[1:])
    if "--calls" in sys.argv:
        async with Channel(host, int(port), ssl=security, codec=AsItIs()) as channel:
            calls = Calls(channel)
            results = [await calls.make(call) for call in json.load(sys.stdin)]
        print(json.dumps(results, default=lambda status: status.value))
        return
    results = {}
    async with Channel(host, int(port), ssl=security, status_details_codec=RawDetails()) as channel:
        cases = Cases(channel)
        for name in (name for name in vars(Cases) if not name.startswith("_")):
            try:
                results[name] = await getattr(cases, name)()
            except Exception as error:
                results[name] = {"failed": f"{type(error).__name__}: {error}"}
    print(json.dumps(results, default=lambda status: status.value))


if __name__ == "__main__":
    asyncio.run(main())
