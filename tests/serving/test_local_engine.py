"""The engine in this process: a real store, a real thread, many clients of one event loop."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from serving.given import TASKS, TEXTS, adapter, example, predicted, store

from foreword.errors import AdapterError, CapacityError, ModelError, ServingError
from foreword.serving.engine import Engine
from foreword.serving.local_engine import LocalEngine
from foreword.serving.request import Answer, Done, Event, Failed, Request, Token
from foreword.serving.sampling import SamplingParams

LONG = SamplingParams(max_tokens=60)


def live(work: Coroutine[Any, Any, None]) -> None:
    """Run to the end, or fail after a time nobody needs."""
    asyncio.run(asyncio.wait_for(work, 60))


async def answer(engine: LocalEngine, name: str, task: str | None, text: str, sampling: SamplingParams | None = None) -> list[Event]:
    given = example(task, text) if task in TASKS else {"text": text}
    return [event async for event in engine.submit(Request(name, task, given, sampling or SamplingParams()))]


def text_of(events: list[Event]) -> str:
    return "".join(event.text for event in events if isinstance(event, Token | Answer))


@pytest.fixture(scope="module")
def prompts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return store(tmp_path_factory.mktemp("prompts"))


@settings(max_examples=6, deadline=None, derandomize=True, database=None)
@given(data=st.data())
def test_served_is_predicted(prompts: Path, data: st.DataObject) -> None:
    asked = data.draw(st.lists(st.tuples(st.sampled_from(sorted(TASKS)), st.sampled_from(TEXTS)), min_size=1, max_size=12))
    pauses = [data.draw(st.sampled_from([0.0, 0.0, 0.004])) for _ in asked]
    budget = data.draw(st.sampled_from([1 << 24, 120_000]))  # the second holds a few tasks and sequences at a time

    async def client(engine: LocalEngine, index: int) -> None:
        task, text = asked[index]
        await asyncio.sleep(pauses[index] * index)
        assert text_of(await answer(engine, str(index), task, text)) == predicted("llama", task, text)

    async def all_clients() -> None:
        async with LocalEngine(tiny.frozen("llama"), str(prompts), max_sequences=3, memory_bytes=budget) as engine:
            assert isinstance(engine, Engine)
            await asyncio.gather(*(client(engine, index) for index in range(len(asked))))
            engine.core.check()
            assert engine.stats().running == engine.stats().waiting == 0

    live(all_clients())


def test_the_base_weights_stay_as_they_are_to_the_bit(prompts: Path) -> None:
    """Tasks of every kind, LoRA among them, in memory for a few at a time; every third client leaves early."""
    model = tiny.build("llama")
    before = {name: tensor.clone() for name, tensor in model.network.state_dict().items()}

    async def client(engine: LocalEngine, index: int, task: str) -> None:
        events = engine.submit(Request(str(index), task, example(task, TEXTS[index % len(TEXTS)])))
        if index % 3 == 0:
            await anext(events)
            await events.aclose()  # type: ignore[attr-defined]
        else:
            assert isinstance([event async for event in events][-1], Done)

    async def soak() -> None:
        async with LocalEngine(model, str(prompts), max_sequences=4, memory_bytes=100_000) as engine:
            await asyncio.gather(*(client(engine, index, task) for index, task in enumerate(sorted(TASKS) * 6)))
            assert engine.stats().evictions_total > 0

    live(soak())
    after = model.network.state_dict()
    assert before.keys() == after.keys() and all(torch.equal(tensor, after[name]) for name, tensor in before.items())


def test_cards_say_where_a_task_is(prompts: Path) -> None:
    async def look() -> None:
        async with LocalEngine(tiny.frozen("llama"), str(prompts)) as engine:
            assert [(card.name, card.state) for card in engine.tasks()] == [(name, "known") for name in sorted(TASKS)]
            card = await engine.load("label")
            assert (card.state, card.kind, card.columns, card.base) == ("resident", "classify", ("input",), tiny.frozen("llama").name)
            assert engine.card("label") == card and engine.card("absent") is None
            assert card.root == str(prompts / "label") and len(card.digest) == 16
            await engine.unload("label")
            assert {card.state for card in engine.tasks()} == {"known"}
            with pytest.raises(AdapterError) as caught:
                await engine.unload("absent")
            assert str(caught.value) == "The task 'absent' does not exist."

    live(look())


def test_a_client_that_leaves_frees_its_place(prompts: Path) -> None:
    async def leave() -> None:
        async with LocalEngine(tiny.frozen("llama"), str(prompts), max_sequences=1) as engine:
            events = engine.submit(Request("long", "prefix", {"input": "x"}, LONG))
            assert isinstance(await anext(events), Token)
            await events.aclose()  # type: ignore[attr-defined]
            assert text_of(await answer(engine, "next", "longer", "x")) == predicted("llama", "longer", "x")
            assert engine.stats().running == 0

    live(leave())


def test_a_replaced_adapter_is_served_anew_and_drops_nothing(tmp_path: Path) -> None:
    folder = store(tmp_path / "prompts")

    async def replace() -> None:
        async with LocalEngine(tiny.frozen("llama"), str(folder), max_sequences=8, watch=0.01) as engine:
            old = predicted("llama", "prefix", "a film")
            assert text_of(await answer(engine, "before", "prefix", "a film")) == old
            under_way = engine.submit(Request("under way", "prefix", {"input": "a film"}))
            assert isinstance(first := await anext(under_way), Token)
            adapter("llama", "prefix", 77).save(folder / "prefix", overwrite=True)
            shutil.rmtree(folder / "longer")
            new = predicted("llama", "prefix", "a film", 77)
            assert new != old
            for index in range(1000):  # until the watch has seen it
                found = text_of(await answer(engine, f"after {index}", "prefix", "a film"))
                assert found in (old, new)
                if found == new:
                    break
            assert first.text + text_of([event async for event in under_way]) == old
            assert await answer(engine, "gone", "longer", "x") == [Failed("task", "The task 'longer' does not exist.")]
            engine.core.check()
            assert [key.task for key in engine.core.adapters.tasks] == ["prefix"]

    live(replace())


def test_a_broken_adapter_fails_its_own_requests_alone(tmp_path: Path) -> None:
    folder = store(tmp_path / "prompts")
    weights = folder / "longer" / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-40])
    (folder / "label" / "foreword.json").write_text("{")
    adapter("gpt2", "prefix").save(folder / "foreign")

    async def submit() -> None:
        async with LocalEngine(tiny.frozen("llama"), str(folder)) as engine:
            names = ["longer", "label", "foreign", "absent", "../prefix", "prefix"]
            short, torn, foreign, absent, path, right = await asyncio.gather(*(answer(engine, name, name, "x") for name in names))
            assert text_of(right) == predicted("llama", "prefix", "x")
            for events, word in ((short, "but 3192 were saved"), (torn, "foreword.json that is not valid JSON"), (foreign, "was trained")):
                assert len(events) == 1 and isinstance(events[0], Failed) and events[0].kind == "task" and word in events[0].message
            assert absent == [Failed("task", "The task 'absent' does not exist.")]
            assert path == [Failed("task", "The task '../prefix' does not exist.")]
            problems = {card.name for card in engine.tasks() if card.problem}
            assert problems == {"longer", "label", "foreign"}
            with pytest.raises(AdapterError):
                await engine.load("longer")

    live(submit())


def test_limits_are_said(prompts: Path) -> None:
    async def fill() -> None:
        async with LocalEngine(tiny.frozen("llama"), str(prompts), max_sequences=1, max_waiting=1, memory_bytes=100_000) as engine:
            first = engine.submit(Request("1", "prefix", {"input": "x"}, LONG))
            assert isinstance(await anext(first), Token)
            engine.submit(Request("2", "prefix", {"input": "x"}))
            assert await answer(engine, "3", "prefix", "x") == [
                Failed("capacity", "2 requests are running or waiting, and this engine accepts no more; try again later.")
            ]
            await first.aclose()  # type: ignore[attr-defined]
        async with LocalEngine(tiny.frozen("llama"), str(prompts), memory_bytes=10) as engine:
            (failed,) = await answer(engine, "1", "prefix", "x")
            assert isinstance(failed, Failed) and failed.kind == "capacity" and "of the engine's 10 are in use" in failed.message
            with pytest.raises(CapacityError):
                await engine.load("prefix")

    live(fill())


def test_closing_lets_requests_end_and_takes_no_more(prompts: Path) -> None:
    async def close() -> None:
        engine = LocalEngine(tiny.frozen("llama"), str(prompts))
        await engine.start()
        events = engine.submit(Request("1", "prefix", {"input": "x"}))
        closing = asyncio.create_task(engine.close(drain_seconds=50))
        await asyncio.sleep(0)
        assert [type(event) for event in await answer(engine, "2", "prefix", "x")] == [Failed]
        assert text_of([event async for event in events]) == predicted("llama", "prefix", "x")
        await closing
        assert not engine.healthy

    live(close())


def test_starting_and_closing_again_is_fine(prompts: Path) -> None:
    refused = Failed("capacity", "the engine is shutting down and accepts no more requests; use another server, or try again later.")

    async def twice() -> None:
        engine = LocalEngine(tiny.frozen("llama"), str(prompts))
        assert isinstance(engine, Engine) and engine.info is tiny.frozen("llama").info
        assert await answer(engine, "1", "prefix", "x") == [Failed("engine", "the engine is not running; start it first.")]
        await engine.start()
        await engine.start()
        assert engine.healthy and text_of(await answer(engine, "1", "prefix", "x")) == predicted("llama", "prefix", "x")
        await engine.close()
        await engine.close()
        assert not engine.healthy and await answer(engine, "1", "prefix", "x") == [refused]
        for work in (lambda: engine.load("prefix"), engine.start):
            with pytest.raises(ServingError) as caught:
                await work()
            assert str(caught.value) == "the engine is closed and accepts no more requests; use a new one."

    live(twice())


def test_an_engine_that_never_ran_is_closed(prompts: Path) -> None:
    async def close() -> None:
        engine = LocalEngine(tiny.frozen("llama"), str(prompts))
        await engine.close()
        await engine.close()
        assert not engine.healthy

    live(close())


def test_an_engine_that_breaks_tells_all_its_clients(prompts: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def fail() -> None:
        engine = LocalEngine(tiny.frozen("llama"), str(prompts))
        await engine.start()
        monkeypatch.setattr(engine.core, "step", lambda: 1 / 0)
        assert await answer(engine, "1", "prefix", "x") == [
            Failed("engine", "the engine has stopped (ZeroDivisionError: division by zero); restart it.")
        ]
        assert not engine.healthy
        await engine.close()

    live(fail())


def test_the_base_model_answers_too(prompts: Path) -> None:
    async def submit() -> None:
        async with LocalEngine(tiny.frozen("llama"), str(prompts)) as engine:
            events = await answer(engine, "1", None, "a film", SamplingParams(max_tokens=3))
            assert events[-1] == Done("length", 6, 3) or isinstance(events[-1], Done)

    live(submit())


@given(st.permutations(["start", "start", "close"]))
@settings(max_examples=6, deadline=None)
def test_starts_and_closes_at_once_leave_no_thread(order: list[str]) -> None:
    async def scene() -> None:
        engine = LocalEngine(tiny.frozen("llama"), str(Path(__file__).parent / "no store here"), watch=0.2)
        await asyncio.gather(*(getattr(engine, name)() for name in order), return_exceptions=True)
        await engine.close()
        assert not engine.healthy and not engine.thread.alive

    asyncio.run(scene())


def test_two_starts_at_once_start_once(prompts: Path) -> None:
    async def scene() -> bool:
        engine = LocalEngine(tiny.frozen("llama"), str(prompts))
        await asyncio.gather(engine.start(), engine.start())
        healthy = engine.healthy
        await engine.close()
        return healthy

    assert asyncio.run(scene())


def test_tasks_are_loaded_by_a_running_engine_only(prompts: Path) -> None:
    async def scene() -> None:
        engine = LocalEngine(tiny.frozen("llama"), str(prompts))
        for call in (engine.load, engine.unload):
            with pytest.raises(ServingError, match="the engine is not running; start it first."):
                await call("a")
        await engine.close()

    asyncio.run(scene())


def test_a_model_on_several_devices_is_refused(prompts: Path) -> None:
    """As `device_map` leaves it where a layer is on disk."""
    model = tiny.build("llama")
    model.network.get_submodule("model.layers.1").to("meta")
    with pytest.raises(ModelError) as caught:
        LocalEngine(model, str(prompts))
    assert str(caught.value) == (
        "tiny-llama is spread over cpu, meta, but an engine needs it on one device; load it without device_map, or on a device that holds it whole."
    )
