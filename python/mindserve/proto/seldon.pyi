from collections.abc import Iterable, Mapping
from typing import Any

import grpc
import grpc.aio
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.internal.containers import RepeatedCompositeFieldContainer
from google.protobuf.message import Message

class ClassificationRequestMeta(Message):
    puid: str
    def __init__(self, *, puid: str = "") -> None: ...

class ClassificationRequest(Message):
    @property
    def meta(self) -> ClassificationRequestMeta: ...
    @property
    def data(self) -> AnyMessage: ...
    def __init__(
        self,
        *,
        meta: ClassificationRequestMeta | Mapping[str, str] | None = None,
        data: AnyMessage | Mapping[str, str | bytes] | None = None,
    ) -> None: ...

class ClassificationReplyMeta(Message):
    puid: str
    modelName: str
    variation: str
    def __init__(self, *, puid: str = "", modelName: str = "", variation: str = "") -> None: ...

class ClassificationResult(Message):
    prediction: float
    predictedClass: str
    confidence: float
    def __init__(self, *, prediction: float = 0, predictedClass: str = "", confidence: float = 0) -> None: ...

class ClassificationReply(Message):
    @property
    def meta(self) -> ClassificationReplyMeta: ...
    @property
    def predictions(self) -> RepeatedCompositeFieldContainer[ClassificationResult]: ...
    @property
    def custom(self) -> AnyMessage: ...
    def __init__(
        self,
        *,
        meta: ClassificationReplyMeta | Mapping[str, str] | None = None,
        predictions: Iterable[ClassificationResult] = (),
        custom: AnyMessage | Mapping[str, str | bytes] | None = None,
    ) -> None: ...

# Which kind of multi-callable it is depends on the channel.
class ClassifierStub:
    Predict: Any
    def __init__(self, channel: grpc.Channel | grpc.aio.Channel) -> None: ...
