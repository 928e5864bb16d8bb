"""HTTP with JSON: a REST server in front of the gateway, in the same process.

uvicorn reads and writes HTTP, on an event loop in a thread of its own; `RestServer` owns that thread and the sockets.
What a request asks for becomes a call into the gateway, which answers it as it would over gRPC.
"""
