import handlers

from mindserve.server import register

for handler in (handlers.Greet, handlers.GreetAsync, handlers.Count, handlers.CountAsync, handlers.Echo):
    register.grpc_method(handler)
