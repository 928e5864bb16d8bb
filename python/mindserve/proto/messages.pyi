from collections.abc import Iterable, MutableMapping
from typing import Final

from google.protobuf.internal.containers import RepeatedCompositeFieldContainer, RepeatedScalarFieldContainer
from google.protobuf.message import Message

DATA_TYPES: Final[dict[str, int]]

class ServableSpec(Message):
    name: str
    method_name: str
    version_number: int
    def __init__(self, *, name: str = "", method_name: str = "", version_number: int = 0) -> None: ...

class TensorShape(Message):
    @property
    def dims(self) -> RepeatedScalarFieldContainer[int]: ...
    def __init__(self, *, dims: Iterable[int] = ()) -> None: ...

class Tensor(Message):
    dtype: int
    data: bytes
    @property
    def shape(self) -> TensorShape: ...
    @property
    def bytes_val(self) -> RepeatedScalarFieldContainer[bytes]: ...
    def __init__(
        self, *, shape: TensorShape | None = None, dtype: int = 0, data: bytes = b"", bytes_val: Iterable[bytes] = ()
    ) -> None: ...

class Instance(Message):
    @property
    def items(self) -> MutableMapping[str, Tensor]: ...

class ErrorMsg(Message):
    error_code: int
    error_msg: bytes
    def __init__(self, *, error_code: int = 0, error_msg: bytes = b"") -> None: ...

class PredictRequest(Message):
    @property
    def servable_spec(self) -> ServableSpec: ...
    @property
    def instances(self) -> RepeatedCompositeFieldContainer[Instance]: ...
    def __init__(self, *, servable_spec: ServableSpec | None = None, instances: Iterable[Instance] = ()) -> None: ...

class PredictReply(Message):
    @property
    def servable_spec(self) -> ServableSpec: ...
    @property
    def instances(self) -> RepeatedCompositeFieldContainer[Instance]: ...
    @property
    def error_msg(self) -> RepeatedCompositeFieldContainer[ErrorMsg]: ...
    def __init__(
        self,
        *,
        servable_spec: ServableSpec | None = None,
        instances: Iterable[Instance] = (),
        error_msg: Iterable[ErrorMsg] = (),
    ) -> None: ...
