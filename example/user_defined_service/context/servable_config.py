"""The servable "context": UserDefinedService/__call__ with codes, details and trailing metadata of its own."""

import threading

import grpc
from user_defined_protos_pb2 import UserDefinedResponse

from mindserve.server import register


@register.grpc_service("userdefinedprotos.UserDefinedService")
class Counting:
    def __init__(self):
        self.nums = {}
        # Several threads may be in __call__ at a time.
        self.lock = threading.Lock()

    def __call__(self, user_message, grpc_context):
        name = user_message.name
        with self.lock:
            found = name in self.nums
            num = self.nums.get(name, 0)
            self.nums[name] = num + user_message.num
        if found:
            grpc_context.set_code(grpc.StatusCode.OK)
            grpc_context.set_details(f"{name} found.")
        else:
            # With a code like this the client gets no message, whatever is returned.
            grpc_context.set_code(grpc.StatusCode.INVALID_ARGUMENT)
            grpc_context.set_details(f"{name} not found, adding to nums.")
        grpc_context.set_trailing_metadata([("num", str(num))])
        return UserDefinedResponse(greeting=f"Hello {name} from {user_message.origin}", num=num)
