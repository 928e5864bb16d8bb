"""Models loaded on demand, of which each worker keeps the latest few."""

from __future__ import annotations

import collections
import concurrent.futures
import contextlib
import enum
import functools
import inspect
import logging
import threading
import time
import types
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar, overload

from mindserve import checks
from mindserve.errors import ConfigError
from mindserve.register.request import Request, current
from mindserve.register.values import current_registration, function_name

if TYPE_CHECKING:
    import asyncio

DEFAULT_MAX_MODELS = 3

Announce = Callable[[str, bool], None]

_Loader = TypeVar("_Loader", bound=Callable[..., Any])

_log = logging.getLogger("mindserve.multiplexing")


@overload
def multiplexed(loader: _Loader, /) -> _Loader: ...
@overload
def multiplexed(*, max_num_models_per_worker: int = DEFAULT_MAX_MODELS) -> Callable[[_Loader], _Loader]: ...
def multiplexed(loader: Any = None, /, *, max_num_models_per_worker: int = DEFAULT_MAX_MODELS) -> Any:
    """Makes a function that loads a model by its id give the one that is loaded already, if it is.

    Each worker keeps so many models of each decorated function, or of a method for each object. Before a further one is
    loaded the least recently used is dropped: its ``__del__`` runs when nothing uses it any more; one that is a
    coroutine is awaited. Who asks for a model that is being loaded waits for that load. What it raises they all get,
    and the next who asks loads anew. The gateway prefers workers that hold the model which the request's
    ``multiplexed_model_id`` names.

    Args:
        loader: a function or method, plain or a coroutine, that takes the model's id, a str that is not empty, and
            returns the model.
        max_num_models_per_worker: how many models to keep, >= 1; those that are being loaded count. Default 3.

    Returns:
        A function like ``loader``, or without it a decorator that gives one.

    Raises:
        ConfigError: a wrong parameter, or what can't be such a function.
    """
    checks.check_int("max_num_models_per_worker", max_num_models_per_worker, 1)
    if loader is not None:
        return _declare(loader, max_num_models_per_worker)
    return lambda function: _declare(function, max_num_models_per_worker)


def _declare(loader: Any, limit: int) -> Multiplexed:
    if not callable(loader) or isinstance(loader, type):
        raise ConfigError(f"'multiplexed' decorates functions and methods, but actually {type(loader)}")
    if inspect.isasyncgenfunction(loader) or inspect.isgeneratorfunction(loader):
        raise ConfigError(f"'multiplexed' decorates what returns a model, {function_name(loader)} is a generator")
    declared = Multiplexed(loader, limit)
    registration = current_registration()
    if registration is not None:
        registration.multiplexed.append(declared)
    return declared


class Multiplexed:
    """A loader with its models, or as a class's attribute with those of each object.

    Attributes:
        announce: told of each model that comes, with True, and goes, with False. Called under a lock: it must be quick
            and must not load models itself. Any thread.
    """

    def __init__(self, loader: Callable[..., Any], limit: int) -> None:
        functools.update_wrapper(self, loader)
        self.announce: Announce = _nobody_listens
        self._loader = loader
        self._limit = limit
        self._name = function_name(loader)
        self._own = _make(self, loader)

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    def __call__(self, model_id: str) -> Any:
        return self._own(model_id)

    def __get__(self, instance: Any, owner: type | None = None) -> Any:
        if instance is None:
            return self
        try:
            own = instance.__dict__
        except AttributeError:
            raise TypeError(
                f"'multiplexed' needs a place for its models in the object, which '{type(instance).__name__}' has not: "
                "leave out its __slots__"
            ) from None
        # From now on the object's own attribute comes before this one. Of two threads that come here one has its way.
        return own.setdefault(self._name, _make(self, self._loader.__get__(instance)))


def _make(owner: Multiplexed, load: Callable[[str], Any]) -> Callable[[str], Any]:
    cache = _Cache(owner)
    if inspect.iscoroutinefunction(owner._loader):
        # A coroutine function itself, so that whoever looks sees one.
        return functools.partial(_get_async, cache, load)
    return functools.partial(_get, cache, load)


class _Claim(enum.Enum):
    """What `_Cache.claim` found."""

    THERE = enum.auto()  # or on its way: the future is the model's
    LOAD = enum.auto()  # for the caller to do, who then sets the future
    FULL = enum.auto()  # of models that are being loaded: the future is another's, after which to ask again


class _Future(concurrent.futures.Future[Any]):
    """A model that is there or on its way. Any thread."""

    def __init__(self) -> None:
        super().__init__()
        self._lock = threading.Lock()
        self._asleep: dict[asyncio.AbstractEventLoop, set[asyncio.Future[None]]] = {}
        self._raised_at: types.TracebackType | None = None
        # No method of this object, which would keep itself, and the model with it, when nobody uses it any more.
        self.add_done_callback(_wake)

    def set_exception(self, exception: BaseException | None) -> None:
        self._raised_at = None if exception is None else exception.__traceback__
        super().set_exception(exception)

    async def over(self) -> None:
        """Waits until it is done. Of a coroutine that gives up nothing is left here, however long the load takes."""
        import asyncio  # by whom it runs; others do without it

        loop = asyncio.get_running_loop()
        with self._lock:
            if self.done():
                return
            asleep = self._asleep.setdefault(loop, set())
        # Whoever wakes them does so in this loop, and not before this one is among them.
        woken: asyncio.Future[None] = loop.create_future()
        asleep.add(woken)
        try:
            await woken
        finally:
            asleep.discard(woken)

    def model(self) -> Any:
        """The model, of one that is done. Raises what its load raised."""
        error = self.exception()
        if error is None:
            return self.result()
        try:
            # With the stack of the load alone, else that would grow with each who raises it.
            raise error.with_traceback(self._raised_at)
        finally:
            del error


def _wake(future: concurrent.futures.Future[Any]) -> None:
    assert isinstance(future, _Future)
    with future._lock:
        everybody, future._asleep = future._asleep, {}
    for loop, asleep in everybody.items():
        with contextlib.suppress(RuntimeError):  # the loop is closed, and all who waited there are gone
            loop.call_soon_threadsafe(_wake_all, asleep)


def _wake_all(asleep: set[asyncio.Future[None]]) -> None:
    for each in asleep:
        if not each.done():
            each.set_result(None)


class _Cache:
    """Models by their ids, the least recently used first. Any thread."""

    def __init__(self, owner: Multiplexed) -> None:
        self._owner = owner
        self._lock = threading.Lock()
        self._models: collections.OrderedDict[str, _Future] = collections.OrderedDict()

    def claim(self, model_id: str) -> tuple[_Claim, _Future, list[Any]]:
        """What to do for a model, its future, and for `_Claim.LOAD` the models to let go before."""
        if not isinstance(model_id, str):
            raise TypeError(f"The model id should be a str, but actually {type(model_id)}")
        if not model_id:
            raise ValueError("The model id should not be empty: the request's metadata has no 'multiplexed_model_id'?")
        dropped: list[Any] = []
        with self._lock:
            future = self._models.get(model_id)
            if future is not None:
                self._models.move_to_end(model_id)
                return _Claim.THERE, future, dropped
            while len(self._models) >= self._owner._limit:
                oldest = next((name for name, each in self._models.items() if each.done()), None)
                if oldest is None:
                    return _Claim.FULL, next(iter(self._models.values())), dropped
                dropped.append(self._models.pop(oldest).result())
                # Under the lock, so that it doesn't come after the announcement of a new load.
                self._owner.announce(oldest, False)
            future = _Future()
            # From now on who waits for it and gives up doesn't cancel it.
            future.set_running_or_notify_cancel()
            self._models[model_id] = future
        return _Claim.LOAD, future, dropped

    def loaded(self, model_id: str, model: Any) -> None:
        with self._lock:
            future = self._models[model_id]
        self._owner.announce(model_id, True)
        # Only now may it be dropped again.
        future.set_result(model)

    def failed(self, model_id: str, error: BaseException) -> None:
        with self._lock:
            future = self._models.pop(model_id)
        future.set_exception(error)


def _get(cache: _Cache, load: Callable[[str], Any], model_id: str) -> Any:
    while True:
        claim, future, dropped = cache.claim(model_id)
        if claim is not _Claim.LOAD:
            concurrent.futures.wait([future], _seconds_left())
            if not future.done():
                raise TimeoutError(f"model '{model_id}' was not loaded before the request's deadline")
            if claim is _Claim.THERE:
                return future.model()
            continue
        asking = current.set(_for_everybody())
        try:
            dropped.clear()
            model = load(model_id)
        except BaseException as error:
            cache.failed(model_id, error)
            raise
        finally:
            current.reset(asking)
        cache.loaded(model_id, model)
        return model


async def _get_async(cache: _Cache, load: Callable[[str], Any], model_id: str) -> Any:
    import asyncio  # by whom it runs; others do without it

    while True:
        claim, future, dropped = cache.claim(model_id)
        if claim is _Claim.LOAD:
            # A task of its own: if the one who asked first gives up, the others still wait for it.
            task = asyncio.get_running_loop().create_task(_load_async(cache, load, model_id, dropped))
            _loads.add(task)
            task.add_done_callback(_loads.discard)
            del dropped
        await future.over()
        if claim is not _Claim.FULL:  # else it is for those who asked for that model
            return future.model()


async def _load_async(cache: _Cache, load: Callable[[str], Any], model_id: str, dropped: list[Any]) -> None:
    import asyncio

    current.set(_for_everybody())
    try:
        for model in dropped:
            if inspect.iscoroutinefunction(getattr(type(model), "__del__", None)):
                await _end_model(model)
        model = None
        if dropped:
            # What a model does at its end may take time, which the event loop hasn't.
            await asyncio.get_running_loop().run_in_executor(None, dropped.clear)
        model = await load(model_id)
    except asyncio.CancelledError:
        cache.failed(model_id, RuntimeError(f"the loading of model '{model_id}' was cancelled"))
        raise
    except BaseException as error:
        cache.failed(model_id, error)
        if not isinstance(error, Exception):
            raise
    else:
        cache.loaded(model_id, model)


async def _end_model(model: Any) -> None:
    try:
        await model.__del__()
    except Exception:
        _log.exception("a model that was dropped raised in its __del__")


class _Loading:
    """What a model is loaded for: as the request that asked first, but with no end, since others wait for it, too."""

    deadline: float | None = None
    parent = ""
    cancelled = False

    def __init__(self, first: Request) -> None:
        self.request_id = first.request_id
        self.model_id = first.model_id
        self.client = first.client
        self.depth = first.depth


def _for_everybody() -> _Loading | None:
    first = current.get()
    return None if first is None else _Loading(first)


def _seconds_left() -> float | None:
    """Until the deadline of the request that is being handled; None: any time."""
    request = current.get()
    if request is None or request.deadline is None:
        return None
    return max(0.0, request.deadline - time.monotonic())


def _nobody_listens(model_id: str, loaded: bool) -> None:
    pass


# The event loop itself holds its tasks only weakly.
_loads: set[asyncio.Task[None]] = set()
