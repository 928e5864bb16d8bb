"""The cases of interop.proto, called with grpcio; prints what came of each as JSON.

grpcio_client.py <directory of the generated modules> [--calls] <host:port> [<file of the authority's certificate>
[<file of a certificate of its own> <file of that one's key>]]

With --calls it makes those that its standard input has instead, as JSON (tests/interop_support.py), in their order.
"""

import base64
import json
import os
import pathlib
import queue
import random
import sys
import threading
import time

sys.path.insert(0, sys.argv[1])

import grpc
from interop_pb2 import (
    CancelledRequest,
    EchoReply,
    EchoRequest,
    Line,
    Number,
    RangeRequest,
)
from interop_pb2_grpc import InteropStub

PATIENCE = 60
OPTIONS = [("grpc.max_receive_message_length", 100 << 20), ("grpc.max_send_message_length", 100 << 20)]
# Another key in each run, though the server goes on.
RUN = f"grpcio-{os.getpid()}-{time.time_ns()}"
METADATA = [
    *(("x-initial", "one"), ("x-initial", "two"), ("x-initial-bin", b"\x00\x01\xff")),
    *(("x-trailing", "three"), ("x-trailing", "four"), ("x-trailing-bin", b"\xff\x00\n")),
    ("request_id", "interop-17"),
]


def pattern(size):
    return random.Random(size).randbytes(size)


def code_of(call):
    return call.code().value[0]


class Cases:
    def __init__(self, channel, compressing):
        self._channel = channel
        self._stub = InteropStub(channel)
        # Only compresses: a channel of its own.
        self._compressing = InteropStub(compressing)

    def _echo(self, request, metadata=None, timeout=PATIENCE, stub=None):
        """The reply, None if there is none, and the call."""
        try:
            return (stub or self._stub).Echo.with_call(request, timeout=timeout, metadata=metadata)
        except grpc.RpcError as error:
            return None, error

    def _was_cancelled(self, key):
        return self._stub.Cancelled(CancelledRequest(key=key), timeout=PATIENCE).cancelled

    def _range(self, request, each):
        call = self._stub.Range(request, timeout=PATIENCE)
        for number in call:
            each(number)
        return code_of(call)

    def _sum(self, count):
        return {"sum": self._stub.Sum((Number(value=value) for value in range(count)), timeout=PATIENCE).value}

    def _chat(self, lines, each):
        """Sends a line when the one before has been answered."""
        answered = queue.Queue()

        def sent():
            for line in lines:
                yield line
                if not answered.get():
                    return

        call = self._stub.Chat(sent(), timeout=PATIENCE)
        try:
            for answer in call:
                each(answer)
                answered.put(True)
        except grpc.RpcError:
            pass
        answered.put(False)
        return call

    def _with_metadata(self, request):
        _, call = self._echo(request, METADATA)
        initial, trailing = call.initial_metadata(), call.trailing_metadata()

        def text(metadata, key):
            """Clients may send several values of a name as one, with commas between."""
            return ", ".join(value for name, value in metadata if name == key)

        def binary(metadata, key):
            return ", ".join(value.hex() for name, value in metadata if name == key)

        return {
            "code": code_of(call),
            "initial": text(initial, "x-initial"),
            "initial_bin": binary(initial, "x-initial-bin"),
            "trailing": text(trailing, "x-trailing"),
            "trailing_bin": binary(trailing, "x-trailing-bin"),
            "request_id": text(trailing, "request_id"),
        }

    def _raw(self, path):
        call = self._channel.unary_unary(path, EchoRequest.SerializeToString, EchoReply.FromString)
        try:
            call(EchoRequest(), timeout=PATIENCE)
        except grpc.RpcError as error:
            return {"code": code_of(error)}
        return {"code": 0}

    def unary(self):
        reply, call = self._echo(EchoRequest(text="grüße ✓"))
        return {"code": code_of(call), "text": reply.text}

    def unary_empty(self):
        reply, call = self._echo(EchoRequest())
        return {"code": code_of(call), "text": reply.text, "bytes": len(reply.payload)}

    def unary_large(self):
        payload = pattern(32 << 20)
        reply, call = self._echo(EchoRequest(payload=payload))
        return {"code": code_of(call), "equal": reply.payload == payload}

    def gzip(self):
        payload = b"interop " * 100_000
        reply, call = self._echo(EchoRequest(payload=payload), [("x-compress", "gzip")], stub=self._compressing)
        return {"code": code_of(call), "equal": reply.payload == payload}

    def server_streaming(self):
        values = []
        code = self._range(RangeRequest(count=5000), lambda number: values.append(number.value))
        return {"code": code, "count": len(values), "ordered": values == list(range(len(values)))}

    def server_streaming_empty(self):
        values = []
        code = self._range(RangeRequest(), values.append)
        return {"code": code, "count": len(values)}

    def server_streaming_large(self):
        sizes = []
        code = self._range(
            RangeRequest(count=4, padding=(4 << 20) + 3), lambda number: sizes.append(len(number.padding))
        )
        return {"code": code, "sizes": sizes}

    def client_streaming(self):
        return self._sum(5000)

    def client_streaming_empty(self):
        return self._sum(0)

    def both_ways(self):
        texts = []
        call = self._chat([Line(text=text) for text in ("one", "two", "three")], lambda line: texts.append(line.text))
        return {"code": code_of(call), "lines": texts}

    def both_ways_large(self):
        payloads = [pattern(times * (1 << 20) + times) for times in (1, 2, 3)]
        answers = []
        call = self._chat(
            [Line(payload=payload) for payload in payloads], lambda line: answers.append(line.payload[::-1])
        )
        return {"code": code_of(call), "count": len(answers), "equal": answers == payloads}

    def both_ways_ended_by_the_server(self):
        texts = []
        lines = [Line(text="one"), Line(text="two", code=9), Line()]
        call = self._chat(lines, lambda line: texts.append(line.text))
        return {"code": code_of(call), "details": call.details(), "lines": texts}

    def metadata(self):
        return self._with_metadata(EchoRequest())

    def metadata_of_an_error(self):
        return self._with_metadata(EchoRequest(code=5))

    def error_details(self):
        _, call = self._echo(EchoRequest(code=9, details="50 % off: naïve ✗\nsecond line"))
        return {"code": code_of(call), "details": call.details()}

    def status_details(self):
        sent = bytes.fromhex("08091203626164")
        _, call = self._echo(EchoRequest(code=9, details="bad"), [("x-status-bin", sent)])
        found = dict(call.trailing_metadata()).get("grpc-status-details-bin")
        return {"code": code_of(call), "details": call.details(), "equal": found == sent}

    def every_code(self):
        return {"codes": [code_of(self._echo(EchoRequest(code=code))[1]) for code in range(1, 17)]}

    def deadline(self):
        begin, key = time.monotonic(), f"{RUN}-deadline"
        _, call = self._echo(EchoRequest(wait=60, key=key), timeout=0.5)
        soon = time.monotonic() - begin < 20
        return {"code": code_of(call), "soon": soon, "cancelled": self._was_cancelled(key)}

    def cancel(self):
        key = f"{RUN}-cancel"
        call = self._stub.Range(RangeRequest(count=-1, key=key), timeout=PATIENCE)
        for _ in range(3):
            next(call)
        call.cancel()
        return {"code": code_of(call), "cancelled": self._was_cancelled(key)}

    def unknown_method(self):
        return self._raw("/interop.Interop/Nothing")

    def unknown_service(self):
        return self._raw("/interop.Nothing/Echo")

    def concurrent(self):
        right = []

        def ask(text):
            reply, _ = self._echo(EchoRequest(text=text))
            if reply is not None and reply.text == text:
                right.append(text)

        threads = [threading.Thread(target=ask, args=(f"number {number}",)) for number in range(200)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return {"right": len(right)}


def open_channel(target, files, compression=None):
    if not files:
        return grpc.insecure_channel(target, OPTIONS, compression)
    authority, own, key = (pathlib.Path(path).read_bytes() if path else None for path in (*files, None, None)[:3])
    return grpc.secure_channel(target, grpc.ssl_channel_credentials(authority, key, own), OPTIONS, compression)


class Calls:
    """Makes calls of messages that are bytes."""

    def __init__(self, channel):
        self._channel = channel

    def make(self, call):
        messages = []
        requests = [base64.b64decode(request) for request in call["requests"]]
        options = {"timeout": call["timeout"], "metadata": [tuple(each) for each in call["metadata"]]}
        if call["compression"]:
            options["compression"] = getattr(grpc.Compression, call["compression"].capitalize())
        try:
            if call["streams"]:
                made = self._channel.stream_stream(call["path"])(iter(requests), **options)
                for message in made:
                    messages.append(message)
                    if len(messages) == call["take"]:
                        made.cancel()
            else:
                message, made = self._channel.unary_unary(call["path"]).with_call(requests[0], **options)
                messages.append(message)
        except grpc.RpcError as error:
            made = error
        return {
            "code": code_of(made),
            "details": made.details() or "",
            "messages": [base64.b64encode(message).decode() for message in messages],
            "metadata": [[name, value] for name, value in made.trailing_metadata() or () if isinstance(value, str)],
        }


def main():
    target, *files = (each for each in sys.argv[2:] if each != "--calls")
    if "--calls" in sys.argv:
        with open_channel(target, files) as channel:
            calls = Calls(channel)
            print(json.dumps([calls.make(call) for call in json.load(sys.stdin)]))
        return
    results = {}
    with open_channel(target, files) as channel, open_channel(target, files, grpc.Compression.Gzip) as compressing:
        cases = Cases(channel, compressing)
        for name in (name for name in vars(Cases) if not name.startswith("_")):
            try:
                results[name] = getattr(cases, name)()
            except Exception as error:
                results[name] = {"failed": f"{type(error).__name__}: {error}"}
    print(json.dumps(results))


if __name__ == "__main__":
    main()
