"""What a servable declares, as values, and the registration that collects them."""

from __future__ import annotations

import contextlib
import contextvars
import dataclasses
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, Protocol

from mindserve import checks
from mindserve.errors import CallError, ConfigError
from mindserve.register.context import Context

if TYPE_CHECKING:
    from mindserve.register.multiplexing import Multiplexed

METHOD_INPUT = -1


class ModelCaller(Protocol):
    """What runs a model's calls, in a worker."""

    def call(self, arguments: tuple[Any, ...]) -> Any: ...
    async def call_async(self, arguments: tuple[Any, ...]) -> Any: ...


@dataclasses.dataclass(frozen=True, eq=False)
class Model:
    """A model that a servable declares; made by `declare_model`.

    Used as a stage by `add_stage`, and by `call` and `call_async` from whatever Python code runs in the worker.

    Attributes:
        file: its file's path inside the version directory.
        with_batch_dim: the first dimension of its inputs and outputs is the batch's.
        without_batch_dim_inputs: the inputs, counted from 0, that have no batch dimension all the same.
        context: threads and devices; None: the defaults.
    """

    file: str
    with_batch_dim: bool = True
    without_batch_dim_inputs: tuple[int, ...] = ()
    context: Context | None = None

    # Set once: by the worker that has loaded it.
    _caller: list[ModelCaller] = dataclasses.field(default_factory=list, init=False, repr=False)

    def call(self, *args: Any, subgraph: int = 0) -> Any:
        """Runs the model, in one batch with what others want of it at that moment.

        Any thread of a worker may call, once the worker serves: a stage function's, a handler's, one that the servable
        has started. It waits for the result, and lets other threads run meanwhile. In a stage function, and in a
        handler, the deadline of the request counts: what it leaves no time for is not run.

        Args:
            args: the inputs of one instance; or one list or tuple of instances, each a list or tuple of its inputs. An
                input is what a stage function may return: anything with ``__array__``, ``__dlpack__`` or ``asnumpy()``,
                a number, bool, str or bytes. Only its type and its size in bytes must be the model's.
            subgraph: 0: models have only one.

        Returns:
            Of one instance its output, or a tuple of them if the model has several. Of many a list with a tuple of
            outputs for each, also where there is only one. Outputs are arrays that belong to the caller; str or bytes
            for text of one element.

        Raises:
            CallError: the call failed. If any instance of many fails, all do: the text says which is the first.
        """
        return self._ready(subgraph).call(args)

    async def call_async(self, *args: Any, subgraph: int = 0) -> Any:
        """Like `call`, for coroutines: takes no thread while it waits. Any asyncio loop.

        Cancelling the task that awaits it takes back what has not begun.
        """
        return await self._ready(subgraph).call_async(args)

    def bind(self, caller: ModelCaller) -> None:
        """Says who runs its calls; for the worker."""
        self._caller[:] = [caller]

    def _ready(self, subgraph: int) -> ModelCaller:
        checks.check_int("subgraph", subgraph, 0)
        if subgraph != 0:
            raise CallError(
                f"Model({self.file}).call() failed: The model does not have subgraph of index {subgraph}, the subgraph "
                "count of the model is 1",
                "INVALID_ARGUMENT",
            )
        if self._caller:
            return self._caller[0]
        registration = current_registration()
        if registration is not None and self in registration.models:
            raise CallError(f"Model({self.file}).call() failed: the worker does not serve yet", "FAILED_PRECONDITION")
        raise CallError(
            f"Model({self.file}).call() failed: the model is not declared in this process: models are declared by "
            "declare_model in servable_config.py, and run in its workers",
            "FAILED_PRECONDITION",
        )


@dataclasses.dataclass(frozen=True)
class ValueRef:
    """A value that flows in a method: output ``index`` of stage ``stage``, or for `METHOD_INPUT` the method's input."""

    stage: int
    index: int

    def as_native(self) -> tuple[int, int]:
        """As the native engine takes it."""
        return self.stage, self.index


@dataclasses.dataclass(frozen=True)
class Stage:
    """One step of a method.

    Attributes:
        target: the model or the function that it runs.
        inputs: where its inputs come from.
        outputs_count: how many outputs it gives.
        batch_size: of a function: None, it takes one instance's inputs; 0, it takes instances, as many as the server
            likes; n ≥ 1, at most n instances.
        tag: put before the errors of this stage; may be empty.
        timeout: seconds after which a run of its target hangs; None: none does.
    """

    target: Model | Callable[..., Any]
    inputs: tuple[ValueRef, ...]
    outputs_count: int
    batch_size: int | None = None
    tag: str = ""
    timeout: float | None = None


@dataclasses.dataclass(frozen=True)
class Method:
    """A method: its stages run in their order for each instance.

    Attributes:
        name: its name.
        inputs: names of its inputs.
        outputs: names of its outputs.
        stages: in the order in which they run.
        results: where its outputs come from.
        idempotent: to execute a request again does no harm.
        streaming: the last stage's function is a generator of outputs; all results are of that stage.
    """

    name: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    stages: tuple[Stage, ...]
    results: tuple[ValueRef, ...]
    idempotent: bool = True
    streaming: bool = False


@dataclasses.dataclass(frozen=True)
class GrpcFunction:
    """A function that answers a method of a gRPC service.

    Attributes:
        method: name of the RPC.
        function: what answers it.
        service: full name of the service; None: to be searched for.
        idempotent: to execute a call again does no harm.
    """

    method: str
    function: Callable[..., Any]
    service: str | None
    idempotent: bool


@dataclasses.dataclass(frozen=True)
class GrpcService:
    """A class whose methods answer those of gRPC services.

    Attributes:
        type: the class; made once in each worker.
        service: full name of the service; None: to be searched for.
        idempotent: names of the RPCs that may be executed again.
    """

    type: type
    service: str | None
    idempotent: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class GrpcDriver:
    """What answers the built-in service's Predict: a function, or a class with ``__call__``, made once."""

    target: Callable[..., Any]


@dataclasses.dataclass(frozen=True)
class Classifier:
    """How the Classifier is answered, as `register.classifier` has it."""

    method: str | None = None
    output: str | None = None
    classes: tuple[str, ...] | None = None
    model_name: str | None = None
    mapping: Callable[..., Any] | None = None
    custom: type | None = None


@dataclasses.dataclass(frozen=True)
class DataHandler:
    """What makes a method's inputs of a message that the Classifier is sent.

    Attributes:
        type: the message's class.
        function: takes a message; or a class with ``getData``; None: its fields are the inputs.
        fields: names of those that are; None: all.
    """

    type: type
    function: Callable[..., Any] | None
    fields: tuple[str, ...] | None


@dataclasses.dataclass
class _Use:
    """How a model or function was used by the first stage that did; the others must do the same."""

    inputs_count: int
    outputs_count: int
    batched: bool


def function_name(function: Callable[..., Any]) -> str:
    """The name of a stage function in messages."""
    return getattr(function, "__name__", None) or type(function).__name__


class Registration:
    """What one servable has declared so far. Belongs to the load of its ``servable_config.py``; not thread-safe.

    Attributes:
        servable_name: name of the servable; in messages.
        models: in the order of their declaration.
        methods: by name, in the order of their registration.
        grpc_functions: in the order of their declaration, as the following.
        grpc_services: classes that answer gRPC services.
        driver: what answers the built-in service's Predict; None: nothing does.
        multiplexed: the loaders of models on demand.
        classifier: how the Classifier is answered; None: by what is evident, if there are data handlers.
        data_handlers: of the Classifier's messages, by their types' full names.
    """

    def __init__(self, servable_name: str) -> None:
        self.servable_name = servable_name
        self.models: list[Model] = []
        self.methods: dict[str, Method] = {}
        self.grpc_functions: list[GrpcFunction] = []
        self.grpc_services: list[GrpcService] = []
        self.driver: GrpcDriver | None = None
        self.multiplexed: list[Multiplexed] = []
        self.classifier: Classifier | None = None
        self.data_handlers: dict[str, DataHandler] = {}
        self._uses: dict[int, _Use] = {}

    @contextlib.contextmanager
    def collecting(self) -> Iterator[None]:
        """Inside, what this thread declares comes to this registration."""
        token = _current.set(self)
        try:
            yield
        finally:
            _current.reset(token)

    def add_model(self, model: Model) -> None:
        if any(model.file == known.file for known in self.models):
            raise ConfigError(f"model file '{model.file}' has already been used, servable name: {self.servable_name}")
        self.models.append(model)

    def add_method(self, method: Method) -> None:
        if method.name in self.methods:
            raise ConfigError(f"Method {method.name} has been registered more than once.")
        for stage in method.stages:
            self._check_use(stage)
        self.methods[method.name] = method

    def add_driver(self, driver: GrpcDriver) -> None:
        if self.driver is not None:
            raise ConfigError(
                f"'{function_name(driver.target)}' is a second driver, the servable has "
                f"'{function_name(self.driver.target)}' already"
            )
        self.driver = driver

    @property
    def has_grpc_handlers(self) -> bool:
        """Whether anything answers methods of gRPC services."""
        return bool(self.grpc_functions or self.grpc_services or self.driver)

    @property
    def answers_classifier(self) -> bool:
        """Whether it takes the Classifier's messages."""
        return self.classifier is not None or bool(self.data_handlers)

    def function_label(self, function: Callable[..., Any]) -> str:
        """A function's name with its servable's."""
        return f"{self.servable_name}.{function_name(function)}"

    def _check_use(self, stage: Stage) -> None:
        use = _Use(len(stage.inputs), stage.outputs_count, stage.batch_size is not None)
        # By identity: the stages of this registration's methods keep their targets alive.
        known = self._uses.setdefault(id(stage.target), use)
        for what, count, old in (
            ("inputs", use.inputs_count, known.inputs_count),
            ("outputs", use.outputs_count, known.outputs_count),
        ):
            if count == old:
                continue
            if isinstance(stage.target, Model):
                raise ConfigError(
                    f"RegisterInputOutputInfo failed, {what} count {count} not match old count {old}, "
                    f"model file: '{stage.target.file}'"
                )
            raise ConfigError(
                f"'{self.function_label(stage.target)}' {what} count {count} not match last registered count {old}"
            )
        if use.batched != known.batched and not isinstance(stage.target, Model):
            raise ConfigError(
                f"'{self.function_label(stage.target)}' parameter 'batch_size' in multiple 'add_stage' should be "
                "enabled or disabled consistently"
            )


def current_registration() -> Registration | None:
    """The registration that is collecting in this thread; None outside the load of a servable."""
    return _current.get()


_current: contextvars.ContextVar[Registration | None] = contextvars.ContextVar("registration", default=None)
