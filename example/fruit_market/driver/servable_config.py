"""The servable "driver": asks the market what fruit costs, for ray.serve.PredictAPIsService/Predict."""

import asyncio
import struct

import grpc

from mindserve.errors import CallError
from mindserve.server import register

market = register.get_servable("fruit_market", method="check_price")


@register.driver
async def buy(input, grpc_context):
    """The total as a float32 of this machine's byte order; the market is asked for each kind of fruit at once."""
    try:
        basket = [(fruit, int(amount)) for fruit, amount in input.items()]
        answers = await asyncio.gather(*(market.call_async(fruit=fruit, amount=amount) for fruit, amount in basket))
    except (ValueError, CallError) as error:
        grpc_context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(error))
    return struct.pack("f", sum(answer["price"].item() for answer in answers))
