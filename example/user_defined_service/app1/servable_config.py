"""The servable "app1": answers every method of userdefinedprotos.UserDefinedService."""

import asyncio

from user_defined_protos_pb2 import UserDefinedResponse, UserDefinedResponse2

from mindserve.server import register


@register.grpc_service("userdefinedprotos.UserDefinedService")
class UserDefined:
    def __call__(self, user_message):
        greeting = f"Hello {user_message.name} from {user_message.origin}"
        return UserDefinedResponse(greeting=greeting, num=user_message.num * 2)

    @register.multiplexed(max_num_models_per_worker=1)
    async def get_model(self, model_id):
        """Stands for what takes long: it happens once for each model, until another one takes its place."""
        return f"loading model: {model_id}"

    async def Multiplexing(self, user_message):
        model = await self.get_model(register.get_multiplexed_model_id())
        return UserDefinedResponse2(greeting=f"Method2 called model, {model}")

    async def Streaming(self, user_message):
        for i in range(10):
            greeting = f"{i}: Hello {user_message.name} from {user_message.origin}"
            yield UserDefinedResponse(greeting=greeting, num=user_message.num * 2 + i)
            await asyncio.sleep(0.1)

    def ClientStreaming(self, user_messages):
        names, total = [], 0
        for user_message in user_messages:
            names.append(user_message.name)
            total += user_message.num
        return UserDefinedResponse(greeting=f"Hello {', '.join(names)}", num=total)

    async def BidirectionalStreaming(self, user_messages):
        async for user_message in user_messages:
            yield UserDefinedResponse(greeting=f"Hello {user_message.name}", num=user_message.num * 2)
