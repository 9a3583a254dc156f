"""Errors in the engine's thread: they fail the requests concerned, their neighbours go on, and nobody waits for an answer that cannot come."""

from __future__ import annotations

import asyncio
import re
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tiny
from serving.given import predicted, store
from serving.test_local_engine import LONG, answer, live, text_of

from foreword.errors import ForewordError, ServingError
from foreword.serving.adapter_cache import AdapterKey
from foreword.serving.engine_thread import STOPPED
from foreword.serving.loaded_task import LoadedTask
from foreword.serving.local_engine import LocalEngine
from foreword.serving.request import END, Done, Event, Failed, Request, Token
from foreword.serving.sampling import SamplingParams
from foreword.tasks.classify import Classify
from foreword.tasks.generate import Generate
from foreword.tasks.head_classify import HeadClassify

ERRORS = (MemoryError("no more"), RuntimeError("out of memory"), OSError("bad disk"), TypeError("odd"), RecursionError("deep"))


@pytest.fixture(scope="module")
def prompts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return store(tmp_path_factory.mktemp("prompts"))


def name_of(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}"


async def works(engine: LocalEngine, name: str = "prefix") -> None:
    """The engine answers as ever, and its counts agree."""
    assert engine.healthy
    assert text_of(await answer(engine, f"works {name}", name, "a film")) == predicted("llama", name, "a film")
    await asyncio.wrap_future(engine.thread.call(engine.core.check))
    assert engine.stats().running == engine.stats().waiting == 0


def raising(
    error: BaseException, real: Callable[..., Any], times: int, concerned: Callable[..., bool] = lambda *_: True
) -> Callable[..., Any]:
    """A function that raises so many times before it does its work."""
    left = [times]

    def function(*given: Any, **named: Any) -> Any:
        if left[0] and concerned(*given):
            left[0] -= 1
            raise error
        return real(*given, **named)

    return function


@pytest.mark.parametrize("error", ERRORS, ids=name_of)
def test_an_error_while_a_task_is_read_fails_those_who_wait_for_it(
    prompts: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    passes = not isinstance(error, TypeError | RecursionError)  # else the folder is at fault
    read = raising(error, LoadedTask.of, 1, lambda model, adapter, key: key.task == "longer")
    monkeypatch.setattr(LoadedTask, "of", read)
    cure = "try again later" if passes else "save it again or retrain"
    message = f"adapter '{prompts}/longer' could not be loaded ({name_of(error)}); {cure}."

    async def scene() -> None:
        async with LocalEngine(tiny.frozen("llama"), str(prompts)) as engine:
            beside, wrong = await asyncio.gather(answer(engine, "1", "prefix", "x"), answer(engine, "2", "longer", "x"))
            assert wrong == [Failed("engine" if passes else "task", message)]
            assert text_of(beside) == predicted("llama", "prefix", "x")
            await works(engine, "longer" if passes else "prefix")
            card = engine.card("longer")
            assert card is not None and card.problem == (None if passes else message)

    live(scene())


@pytest.mark.parametrize("error", ERRORS, ids=name_of)
def test_a_load_that_fails_raises_an_error_of_foreword(prompts: Path, monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    monkeypatch.setattr(LoadedTask, "of", raising(error, LoadedTask.of, 1))

    async def scene() -> None:
        async with LocalEngine(tiny.frozen("llama"), str(prompts)) as engine:
            with pytest.raises(ForewordError, match="could not be loaded"):
                await engine.load("longer")
            assert (await engine.load("longer")).state == "resident"
            await works(engine)

    live(scene())


def test_an_error_while_a_task_is_installed_fails_those_who_wait_for_it(prompts: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def scene() -> None:
        async with LocalEngine(tiny.frozen("llama"), str(prompts)) as engine:
            install = raising(MemoryError("no more"), engine.core.install, 2, lambda task: task.key.task == "longer")
            monkeypatch.setattr(engine.core, "install", install)
            beside, wrong = await asyncio.gather(answer(engine, "1", "prefix", "x"), answer(engine, "2", "longer", "x"))
            assert wrong == [Failed("engine", "the task 'longer' was not loaded (MemoryError: no more).")]
            assert text_of(beside) == predicted("llama", "prefix", "x")
            with pytest.raises(MemoryError):
                await engine.load("longer")
            await works(engine, "longer")

    live(scene())


@pytest.mark.parametrize(("name", "kind"), [("longer", Generate), ("label", Classify), ("head", HeadClassify)])
@pytest.mark.parametrize("error", ERRORS, ids=name_of)
def test_an_error_while_an_input_is_read_fails_its_request(
    prompts: Path, monkeypatch: pytest.MonkeyPatch, name: str, kind: type[Any], error: Exception
) -> None:
    monkeypatch.setattr(
        kind,
        "eval_feature",
        raising(error, kind.eval_feature, 1, lambda _, example, *more: "fail" in example.values() or "fail" in example),
    )

    async def scene() -> None:
        async with LocalEngine(tiny.frozen("llama"), str(prompts)) as engine:
            await engine.load(name)
            beside, same, wrong = await asyncio.gather(
                answer(engine, "1", "prefix", "x"), answer(engine, "2", name, "x"), answer(engine, "3", name, "fail")
            )
            assert wrong == [Failed("request", f"the request cannot be read ({name_of(error)}); give plain texts and whole numbers.")]
            assert (text_of(beside), text_of(same)) == (predicted("llama", "prefix", "x"), predicted("llama", name, "x"))
            await works(engine)

    live(scene())


def test_an_error_that_leaves_a_step_fails_what_had_begun(prompts: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def scene() -> None:
        async with LocalEngine(tiny.frozen("llama"), str(prompts), max_sequences=2) as engine:
            begun = [engine.submit(Request(name, "prefix", {"input": "x"}, LONG)) for name in ("1", "2")]
            for each in begun:
                assert isinstance(await anext(each), Token)
            waiting = asyncio.create_task(answer(engine, "3", "prefix", "a film"))
            await asyncio.sleep(0)
            await asyncio.wrap_future(engine.thread.call(lambda: None))
            monkeypatch.setattr(engine.core, "step", raising(KeyError("lost"), engine.core.step, 1))
            for each in begun:
                assert [event async for event in each][-1] == Failed("engine", "the step failed (KeyError: 'lost').")
            assert text_of(await waiting) == predicted("llama", "prefix", "a film")
            await works(engine)

    live(scene())


def test_a_core_that_is_not_whole_after_an_error_ends_the_thread(prompts: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def scene() -> None:
        async with LocalEngine(tiny.frozen("llama"), str(prompts)) as engine:

            def lose() -> None:
                engine.core.adapters.tasks[AdapterKey("ghost", "1")] = engine.core.adapters.tasks[AdapterKey("ghost", "1")]

            monkeypatch.setattr(engine.core, "check", raising(AssertionError("a slot is free twice"), engine.core.check, 1))
            with pytest.raises(KeyError):
                await asyncio.wrap_future(engine.thread.call(lose))
            (failed,) = await answer(engine, "1", "prefix", "x")
            assert failed == Failed("engine", "the engine has stopped (AssertionError: a slot is free twice); restart it.")
            assert not engine.healthy

    live(scene())


def stop_thread() -> None:
    raise SystemExit("enough")


@pytest.mark.parametrize("end", ["fault", "close"])
def test_whoever_waits_when_the_thread_ends_gets_an_error_at_once(prompts: Path, monkeypatch: pytest.MonkeyPatch, end: str) -> None:
    """A load whose disk does not answer, a call in the queue, a request that grows and one that waits for its task."""
    disk, inside, hold = threading.Event(), threading.Event(), threading.Event()

    async def scene() -> None:
        engine = LocalEngine(tiny.frozen("llama"), str(prompts))
        await engine.start()
        await engine.load("prefix")
        load = engine.registry.store.load
        monkeypatch.setattr(engine.registry.store, "load", lambda name: (disk.wait(60), load(name))[1])
        requests = [asyncio.create_task(answer(engine, "1", "prefix", "x", LONG)), asyncio.create_task(answer(engine, "2", "longer", "x"))]
        loads = [asyncio.create_task(engine.load(name)) for name in ("longer", "label")]
        await asyncio.sleep(0.05)
        engine.thread.call(lambda: (inside.set(), hold.wait(60)))
        await asyncio.to_thread(inside.wait)
        if end == "fault":
            engine.thread.call(stop_thread)
            unloading = asyncio.create_task(engine.unload("prefix"))
            closing, problem = None, "the engine has stopped (SystemExit: enough); restart it."
        else:
            closing, problem = asyncio.create_task(engine.close()), STOPPED
            await asyncio.sleep(0.05)
            unloading = asyncio.create_task(engine.unload("prefix"))
        await asyncio.sleep(0.05)
        hold.set()
        waiting: list[asyncio.Task[Any]] = [*loads, unloading]
        for error in await asyncio.wait_for(asyncio.gather(*waiting, return_exceptions=True), 20):
            assert isinstance(error, ServingError) and str(error) == problem
        ends = [(await asyncio.wait_for(each, 20))[-1] for each in requests]
        assert ends == [Failed("engine", problem)] * 2 if end == "fault" else all(isinstance(each, END) for each in ends)
        with pytest.raises(ServingError, match=re.escape(problem)):
            await engine.load("prefix")
        disk.set()
        await engine.close()
        assert not engine.healthy
        assert closing is None or await closing is None

    live(scene())


def test_closing_waits_for_no_disk(prompts: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    disk = threading.Event()
    monkeypatch.setattr("foreword.serving.adapter_loader.CLOSE_SECONDS", 0.1)

    async def scene() -> None:
        engine = LocalEngine(tiny.frozen("llama"), str(prompts))
        await engine.start()
        monkeypatch.setattr(engine.registry.store, "load", lambda _: disk.wait(60))
        loads = [asyncio.create_task(engine.load(name)) for name in ("longer", "label", "prefix")]
        request = asyncio.create_task(answer(engine, "1", "lora", "x"))
        await asyncio.sleep(0.05)
        await asyncio.gather(engine.close(), engine.close())
        assert not disk.is_set() and await request == [Done("cancelled", 0, 0)]
        for error in await asyncio.gather(*loads, return_exceptions=True):
            assert isinstance(error, ServingError)
        disk.set()

    live(scene())


def test_a_load_waits_for_no_step(prompts: Path) -> None:
    """A task that there is room for is in place before any request that comes after its load."""
    inside, hold = threading.Event(), threading.Event()

    def wait(*_: object) -> None:
        inside.set()
        hold.wait(60)

    async def scene() -> None:
        async with LocalEngine(tiny.frozen("llama"), str(prompts)) as engine:
            hook = engine.model.network.register_forward_pre_hook(wait)
            growing = asyncio.create_task(answer(engine, "1", None, "a film", SamplingParams(max_tokens=2)))
            await asyncio.to_thread(inside.wait)
            cards = [await engine.load(name) for name in ("longer", "prefix")]
            assert [card.state for card in cards] == ["resident"] * 2 and not hold.is_set()
            late = asyncio.create_task(answer(engine, "2", "longer", "x"))
            await asyncio.sleep(0.01)
            hook.remove()
            hold.set()
            await growing
            assert text_of(await late) == predicted("llama", "longer", "x") and engine.stats().loads_total == 2
            assert engine.stats().resident == 2 and not engine.thread.installing
            await works(engine)

    live(scene())


MISTAKES: list[tuple[str, dict[str, Any], str]] = [
    ("prefix", {"input": "x", "more": None}, "the column 'more' is of type NoneType, but a task reads texts; give a text."),
    ("head", {"text": "x", "text_b": 7}, "the column 'text_b' is of type int, but a task reads texts; give a text."),
    ("label", {"input": "x", "more": ["a"]}, "the column 'more' is of type list, but a task reads texts; give a text."),
    (
        "head",
        {"text": "a \ud800"},
        "the column 'text' has half of a character (a lone surrogate) at position 2, which no tokenizer reads; give whole characters.",
    ),
]


def test_what_no_task_can_read_is_refused_and_neighbours_go_on(prompts: Path) -> None:
    async def collect(engine: LocalEngine, index: int, name: str, columns: dict[str, Any]) -> list[Event]:
        return [event async for event in engine.submit(Request(f"wrong {index}", name, columns))]

    async def scene() -> None:
        async with LocalEngine(tiny.frozen("llama"), str(prompts)) as engine:
            wrong = [collect(engine, index, name, columns) for index, (name, columns, _) in enumerate(MISTAKES)]
            beside, *found = await asyncio.gather(answer(engine, "1", "prefix", "x"), *wrong)
            assert found == [[Failed("request", message)] for *_, message in MISTAKES]
            assert text_of(beside) == predicted("llama", "prefix", "x")
            for token in (320, -1, True, 1 << 70):
                events = [event async for event in engine.submit(Request("ids", None, {}, ids=(3, token)))]
                message = f"the text has the token {token!r}, but the tokens of tiny-llama are from 0 to 319; give those."
                assert events == [Failed("request", message)]
            await works(engine)

    live(scene())
