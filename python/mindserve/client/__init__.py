"""The client: sends instances to a method of a servable, and gets one result or one error for each.

>>> from mindserve.client import Client
>>> with Client("localhost:5500", "add", "add_common") as client:  # doctest: +SKIP
...     client.infer([{"x1": x1, "x2": x2}])
"""

from mindserve.client.aio import AsyncClient, AsyncResultStream
from mindserve.client.client import Client, PendingResults, ResultStream
from mindserve.client.results import Failure, ResultList
from mindserve.client.ssl_config import SSLConfig

__all__ = [
    "AsyncClient",
    "AsyncResultStream",
    "Client",
    "Failure",
    "PendingResults",
    "ResultList",
    "ResultStream",
    "SSLConfig",
]
