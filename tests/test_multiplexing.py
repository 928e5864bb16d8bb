"""Models loaded on demand."""

from __future__ import annotations

import asyncio
import gc
import inspect
import threading
import time
import traceback
from typing import Any

import pytest

from answering_support import eventually
from mindserve.errors import ConfigError
from mindserve.register.request import current
from mindserve.register.values import Registration
from mindserve.server import register
from mindserve.worker.multiplexing import announce_models


class Model:
    def __init__(self, name: str, ended: list[str] | None = None) -> None:
        self.name = name
        self.ended = ended

    def __del__(self) -> None:
        if self.ended is not None:
            self.ended.append(self.name)


class Loads:
    """What was loaded, and loaders."""

    def __init__(self) -> None:
        self.loaded: list[str] = []
        self.ended: list[str] = []
        self.release = threading.Event()
        self.release.set()

    def plain(self, limit: int) -> Any:
        @register.multiplexed(max_num_models_per_worker=limit)
        def get_model(model_id: str) -> Model:
            """Loads."""
            self.loaded.append(model_id)
            assert self.release.wait(60)
            if model_id.startswith("bad"):
                raise ValueError(f"{model_id} can't be loaded")
            return Model(model_id, self.ended)

        return get_model

    def later(self, limit: int) -> Any:
        @register.multiplexed(max_num_models_per_worker=limit)
        async def get_model(model_id: str) -> Model:
            self.loaded.append(model_id)
            while not self.release.is_set():
                await asyncio.sleep(0.001)
            if model_id.startswith("bad"):
                raise ValueError(f"{model_id} can't be loaded")
            return Model(model_id, self.ended)

        return get_model


@pytest.fixture
def loads() -> Loads:
    return Loads()


def test_the_least_recently_used_goes(loads: Loads) -> None:
    get_model = loads.plain(2)
    for name in ("a", "b", "a", "c", "a", "b"):
        assert get_model(name).name == name
    assert loads.loaded == ["a", "b", "c", "b"]
    assert loads.ended == ["b", "c"]
    assert get_model.__name__ == "get_model"
    assert get_model.__doc__ == "Loads."


def test_the_least_recently_used_goes_for_coroutines_too(loads: Loads) -> None:
    get_model = loads.later(2)

    async def use() -> None:
        for name in ("a", "b", "a", "c", "a", "b"):
            assert (await get_model(name)).name == name

    asyncio.run(use())
    assert loads.loaded == ["a", "b", "c", "b"]
    assert loads.ended == ["b", "c"]


def test_a_model_that_is_used_ends_when_it_is_not(loads: Loads) -> None:
    get_model = loads.plain(1)
    first = get_model("a")
    get_model("b")
    assert loads.ended == []
    assert first.name == "a"
    del first
    assert loads.ended == ["a"]


def test_the_old_goes_before_the_new_comes(loads: Loads) -> None:
    get_model = loads.plain(1)
    get_model("a")
    loads.release.clear()
    thread = threading.Thread(target=get_model, args=("b",))
    thread.start()
    eventually(lambda: loads.loaded == ["a", "b"])
    assert loads.ended == ["a"]
    loads.release.set()
    thread.join(60)


def test_threads_share_one_load(loads: Loads) -> None:
    get_model = loads.plain(1)
    loads.release.clear()
    models: list[Model] = []
    threads = [threading.Thread(target=lambda: models.append(get_model("a"))) for _ in range(8)]
    for thread in threads:
        thread.start()
    eventually(lambda: loads.loaded)
    loads.release.set()
    for thread in threads:
        thread.join(60)
    assert loads.loaded == ["a"]
    assert len(models) == 8
    assert len({id(model) for model in models}) == 1


def test_tasks_share_one_load(loads: Loads) -> None:
    get_model = loads.later(1)

    async def use() -> None:
        assert len(set(await asyncio.gather(*(get_model("a") for _ in range(8))))) == 1

    asyncio.run(use())
    assert loads.loaded == ["a"]


@pytest.mark.parametrize("bad", [False, True], ids=["loaded", "failed"])
def test_of_who_gives_up_nothing_is_left(loads: Loads, bad: bool) -> None:
    """However long the load takes, of which there is one; those that still wait are not disturbed."""
    loads.release.clear()
    get_model = loads.later(1)
    name = "bad" if bad else "a"

    async def use() -> list[Any]:
        async def ask(asked: str) -> Any:
            return (await get_model(asked)).name

        patient = [asyncio.create_task(ask(name)) for _ in range(3)]
        await asyncio.sleep(0)
        known: list[int] = []
        for _ in range(3):
            # One model is being loaded, for which some wait, and others for its place.
            impatient = [asyncio.create_task(ask(asked)) for asked in (name, "other") for _ in range(500)]
            await asyncio.sleep(0.01)
            for each in impatient:
                each.cancel()
            assert all(
                isinstance(each, asyncio.CancelledError)
                for each in await asyncio.gather(*impatient, return_exceptions=True)
            )
            del impatient, each
            gc.collect()
            known.append(len(gc.get_objects()))
        assert known[2] < known[0] + 500
        loads.release.set()
        return await asyncio.gather(*patient, return_exceptions=True)

    assert list(map(str, asyncio.run(use()))) == (["bad can't be loaded"] if bad else ["a"]) * 3
    assert loads.loaded == [name]


def test_a_loop_may_end_while_it_waits(loads: Loads) -> None:
    """Another's load is for whoever still waits."""
    loads.release.clear()
    get_model = loads.later(1)

    async def use(seconds: float) -> Any:
        return await asyncio.wait_for(get_model("a"), seconds)

    loaded: list[Any] = []
    thread = threading.Thread(target=lambda: loaded.append(asyncio.run(use(60)).name))
    thread.start()
    eventually(lambda: loads.loaded == ["a"])
    with pytest.raises(asyncio.TimeoutError):
        asyncio.run(use(0.01))
    loads.release.set()
    thread.join()
    assert loaded == ["a"]
    gc.collect()
    assert asyncio.run(use(60)).name == "a"
    assert loads.loaded == ["a"]


def test_the_stack_of_a_load_that_failed_does_not_grow(loads: Loads) -> None:
    """With those who are told of it."""
    loads.release.clear()
    get_model = loads.later(1)
    depths: list[int] = []

    async def ask() -> None:
        try:
            await get_model("bad")
        except ValueError as error:
            depths.append(len(traceback.extract_tb(error.__traceback__)))

    async def use() -> None:
        asking = [asyncio.create_task(ask()) for _ in range(20)]
        await asyncio.sleep(0)
        loads.release.set()
        await asyncio.gather(*asking)

    asyncio.run(use())
    assert len(set(depths)) == 1
    assert len(depths) == 20


def test_who_asked_first_may_give_up(loads: Loads) -> None:
    get_model = loads.later(1)
    loads.release.clear()

    async def use() -> None:
        first, second = (asyncio.create_task(get_model("a")) for _ in range(2))
        while not loads.loaded:
            await asyncio.sleep(0)
        first.cancel()
        with pytest.raises(asyncio.CancelledError):
            await first
        loads.release.set()
        assert (await second).name == "a"

    asyncio.run(use())
    assert loads.loaded == ["a"]


def test_a_load_that_fails_fails_those_who_wait_and_is_not_kept(loads: Loads) -> None:
    get_model = loads.plain(1)
    loads.release.clear()
    errors: list[str] = []

    def ask() -> None:
        try:
            get_model("bad")
        except ValueError as error:
            errors.append(str(error))

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    eventually(lambda: loads.loaded)
    # All of them are in line: what they wait for isn't there.
    eventually(lambda: len(get_model._own.args[0]._models["bad"]._waiters) == 3)
    loads.release.set()
    for thread in threads:
        thread.join(60)
    assert errors == ["bad can't be loaded"] * 4
    assert loads.loaded == ["bad"]
    with pytest.raises(ValueError, match="bad can't"):
        get_model("bad")
    assert loads.loaded == ["bad", "bad"]


def test_a_coroutines_load_that_fails(loads: Loads) -> None:
    get_model = loads.later(1)

    async def use() -> None:
        results = await asyncio.gather(*(get_model("bad") for _ in range(4)), return_exceptions=True)
        assert [str(result) for result in results] == ["bad can't be loaded"] * 4
        assert (await get_model("a")).name == "a"

    asyncio.run(use())
    assert loads.loaded == ["bad", "a"]


def test_no_more_than_so_many_are_loaded_at_once(loads: Loads) -> None:
    get_model = loads.plain(2)
    loads.release.clear()
    threads = [threading.Thread(target=get_model, args=(name,)) for name in ("a", "b", "c")]
    for thread in threads[:2]:
        thread.start()
    eventually(lambda: sorted(loads.loaded) == ["a", "b"])
    threads[2].start()
    loads.release.set()
    for thread in threads:
        thread.join(60)
    assert sorted(loads.loaded[:2]) == ["a", "b"]
    assert loads.loaded[2] == "c"

    later = loads.later(2)

    async def use() -> None:
        models = await asyncio.gather(*(later(name) for name in "defgh"))
        assert [model.name for model in models] == list("defgh")

    asyncio.run(use())


def test_who_waits_for_a_load_waits_no_longer_than_its_request(loads: Loads) -> None:
    class Late:
        request_id, model_id, deadline = "1", "a", time.monotonic() - 1

    get_model = loads.plain(1)
    loads.release.clear()
    thread = threading.Thread(target=get_model, args=("a",))
    thread.start()
    eventually(lambda: loads.loaded)
    token = current.set(Late())
    try:
        with pytest.raises(TimeoutError, match="model 'a' was not loaded before the request's deadline"):
            get_model("a")
        # Nor does it wait for its turn any longer.
        with pytest.raises(TimeoutError, match="model 'b' was not loaded before the request's deadline"):
            get_model("b")
    finally:
        current.reset(token)
        loads.release.set()
        thread.join(60)


class Asking:
    """A request that asks for a model, and may be over soon."""

    request_id, model_id, deadline, client, depth, parent, cancelled = "id7", "a", 5.0, 9, 2, "f00", True


def seen() -> tuple[Any, ...]:
    request: Any = current.get()
    return (
        *(request.request_id, request.model_id, request.client, request.depth),
        *(request.deadline, request.parent, request.cancelled),
    )


def test_a_load_is_for_everybody_who_waits_for_it() -> None:
    expected = ("id7", "a", 9, 2, None, "", False)

    @register.multiplexed
    def plain(model_id: str) -> tuple[Any, ...]:
        return seen()

    @register.multiplexed
    async def later(model_id: str) -> tuple[Any, ...]:
        return seen()

    token = current.set(Asking())
    try:
        assert plain("a") == expected
        assert asyncio.run(later("a")) == expected
        assert isinstance(current.get(), Asking)
    finally:
        current.reset(token)
    with pytest.raises(AttributeError):
        plain("b")  # no request at all


def test_who_waits_for_a_place_does_not_care_what_becomes_of_the_other(loads: Loads, caplog: Any) -> None:
    get_model = loads.later(1)
    loads.release.clear()

    async def use() -> None:
        bad, good = (asyncio.create_task(get_model(name)) for name in ("bad", "good"))
        while not loads.loaded:
            await asyncio.sleep(0)
        loads.release.set()
        with pytest.raises(ValueError, match="bad can't be loaded"):
            await bad
        assert (await good).name == "good"

    asyncio.run(use())
    gc.collect()
    assert caplog.records == []


class Service:
    def __init__(self) -> None:
        self.loaded: list[str] = []

    @register.multiplexed
    def plain(self, model_id: str) -> str:
        self.loaded.append(model_id)
        return f"model {model_id}"

    @register.multiplexed(max_num_models_per_worker=1)
    async def later(self, model_id: str) -> str:
        self.loaded.append(model_id)
        return f"model {model_id}"


def test_methods_have_a_cache_for_each_object() -> None:
    one, two = Service(), Service()
    assert one.plain("a") == one.plain("a") == two.plain("a") == "model a"
    assert asyncio.run(one.later("b")) == "model b"
    assert asyncio.run(one.later("b")) == "model b"
    assert (one.loaded, two.loaded) == (["a", "b"], ["a"])
    assert inspect.iscoroutinefunction(one.later)
    for name in "cde":
        one.plain(name)
    one.plain("a")
    assert one.loaded == ["a", "b", "c", "d", "e", "a"]


class SlotsService:
    __slots__ = ()

    @register.multiplexed
    def plain(self, model_id: str) -> str:
        return model_id


def test_objects_with_slots_have_no_place_for_models() -> None:
    with pytest.raises(TypeError, match="needs a place for its models in the object"):
        SlotsService().plain("a")


class AsyncEnd:
    def __init__(self, ended: list[str]) -> None:
        self.ended = ended

    async def __del__(self) -> None:
        await asyncio.sleep(0)
        self.ended.append("ended")


@pytest.mark.filterwarnings("ignore:coroutine 'AsyncEnd.__del__' was never awaited")
def test_an_end_that_is_a_coroutine_is_awaited() -> None:
    ended: list[str] = []

    @register.multiplexed(max_num_models_per_worker=1)
    async def get_model(model_id: str) -> Any:
        return AsyncEnd(ended) if model_id == "a" else model_id

    async def use() -> None:
        await get_model("a")
        await get_model("b")
        assert ended == ["ended"]

    asyncio.run(use())
    # Python has it, and nobody awaits it, when the object is gone.
    gc.collect()


class BadEnd:
    async def __del__(self) -> None:
        raise ValueError("at the end")


@pytest.mark.filterwarnings("ignore:coroutine 'BadEnd.__del__' was never awaited")
def test_an_end_that_raises_is_logged(caplog: Any) -> None:
    @register.multiplexed(max_num_models_per_worker=1)
    async def get_model(model_id: str) -> Any:
        return BadEnd() if model_id == "a" else model_id

    async def use() -> None:
        await get_model("a")
        assert await get_model("b") == "b"

    asyncio.run(use())
    assert "ValueError: at the end" in caplog.text
    gc.collect()


def test_the_gateway_is_told_what_is_held(loads: Loads) -> None:
    registration = Registration("kinds")
    with registration.collecting():
        one, two = loads.plain(1), loads.plain(2)
    told: list[tuple[str, bool]] = []
    announce_models(registration.multiplexed, lambda name, held: told.append((name, held)))
    one("a")
    two("a")
    assert told == [("a", True)]
    one("b")
    # The other one still has it.
    assert told == [("a", True), ("b", True)]
    two("b")
    two("c")
    assert told == [("a", True), ("b", True), ("a", False), ("c", True)]
    with pytest.raises(ValueError, match="bad"):
        one("bad")
    assert told[4:] == []  # "b" is still held by the other one


@pytest.mark.parametrize("wrong", [("", ValueError, "should not be empty"), (5, TypeError, "should be a str")])
def test_ids_that_are_none(loads: Loads, wrong: Any) -> None:
    value, error, text = wrong
    with pytest.raises(error, match=text):
        loads.plain(1)(value)
    with pytest.raises(error, match=text):
        asyncio.run(loads.later(1)(value))


def generator(model_id: str) -> Any:
    yield model_id


@pytest.mark.parametrize(
    ("declare", "text"),
    [
        (lambda: register.multiplexed(max_num_models_per_worker=0), "'max_num_models_per_worker' should be >= 1"),
        (lambda: register.multiplexed(max_num_models_per_worker="3"), "'max_num_models_per_worker' should be int"),
        (lambda: register.multiplexed(5), "'multiplexed' decorates functions and methods, but actually <class 'int'>"),
        (lambda: register.multiplexed(Model), "'multiplexed' decorates functions and methods"),
        (lambda: register.multiplexed(generator), "decorates what returns a model, generator is a generator"),
    ],
)
def test_wrong_declarations(declare: Any, text: str) -> None:
    with pytest.raises(ConfigError, match=text):
        declare()
