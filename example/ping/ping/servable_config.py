"""The servable "ping": a class written for grpcio's asyncio server, registered as it is."""

import asyncio
import logging

import test_service_pb2
import test_service_pb2_grpc

from mindserve.server import register

HOUR = 3600
log = logging.getLogger(__name__)


@register.grpc_service
class Pinged(test_service_pb2_grpc.TestServiceServicer):
    async def Ping(self, request, context):
        if request.no_reply:
            await self._hang("Ping")
        return test_service_pb2.PingReply()

    async def PingTimeout(self, request, context):
        await self._hang("PingTimeout")
        return test_service_pb2.PingTimeoutReply()

    async def _hang(self, method):
        try:
            await asyncio.sleep(HOUR)
        except asyncio.CancelledError:
            # The client's deadline has passed, or it has given up: what works for it ends here.
            log.warning("%s: nobody waits any more", method)
            raise
