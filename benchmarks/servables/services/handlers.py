"""The handlers, for MindServe and for grpcio alike."""

from bench_pb2 import Item


def Greet(request):
    """A greeting, and twice the number."""
    return Item(name=f"Hello {request.name}", num=2 * request.num)


async def GreetAsync(request):
    """The same on an event loop."""
    return Item(name=f"Hello {request.name}", num=2 * request.num)


def Count(request):
    """Small messages, one after the other."""
    name = request.name
    for number in range(request.num):
        yield Item(name=name, num=number)


async def CountAsync(request):
    """The same on an event loop."""
    name = request.name
    for number in range(request.num):
        yield Item(name=name, num=number)


async def Echo(requests):
    """Each message back."""
    async for request in requests:
        yield request
