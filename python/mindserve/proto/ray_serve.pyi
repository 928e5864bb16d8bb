from collections.abc import Iterable, Mapping, MutableMapping
from typing import Any

import grpc
import grpc.aio
from google.protobuf.internal.containers import RepeatedScalarFieldContainer
from google.protobuf.message import Message

class PredictRequest(Message):
    @property
    def input(self) -> MutableMapping[str, bytes]: ...
    def __init__(self, *, input: Mapping[str, bytes] = ...) -> None: ...

class PredictResponse(Message):
    prediction: bytes
    def __init__(self, *, prediction: bytes = b"") -> None: ...

class ListApplicationsRequest(Message):
    def __init__(self) -> None: ...

class ListApplicationsResponse(Message):
    @property
    def application_names(self) -> RepeatedScalarFieldContainer[str]: ...
    def __init__(self, *, application_names: Iterable[str] = ()) -> None: ...

class HealthzRequest(Message):
    def __init__(self) -> None: ...

class HealthzResponse(Message):
    message: str
    def __init__(self, *, message: str = "") -> None: ...

# Which kind of multi-callable it is depends on the channel.
class PredictAPIsServiceStub:
    Predict: Any
    def __init__(self, channel: grpc.Channel | grpc.aio.Channel) -> None: ...

class RayServeAPIServiceStub:
    ListApplications: Any
    Healthz: Any
    def __init__(self, channel: grpc.Channel | grpc.aio.Channel) -> None: ...
