"""Every request gets exactly one end, whatever raises on the way: also of tasks with weights of their own."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import tiny
from hypothesis import given, settings
from hypothesis import strategies as st
from serving.given import TEXTS, example, loaded, predicted
from torch import Tensor

from foreword.backbone.kv_cache import PagedKVCache
from foreword.prompts.tokens import KVPrefix
from foreword.serving.adapter_cache import AdapterKey
from foreword.serving.engine_core import EngineCore
from foreword.serving.request import END, Answer, Done, Event, Failed, Request, Token

NAMES = ("prefix", "longer", "suffix", "lora", "lora-too", "head")


@contextmanager
def failing(passes: set[int]) -> Iterator[None]:
    """Let forward passes with these numbers raise, whichever of the models they are of."""
    numbers = iter(range(1 << 30))

    def fail(*_: object) -> None:
        if next(numbers) in passes:
            raise RuntimeError("no luck")

    networks = [tiny.frozen("llama").network, *(loaded("llama", name).model.network for name in ("lora", "lora-too"))]
    hooks = [network.base_model.register_forward_pre_hook(fail) for network in networks]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


@pytest.fixture
def core() -> EngineCore:
    core = EngineCore(tiny.frozen("llama"), max_sequences=3)
    for name in NAMES:
        core.install(loaded("llama", name))
    return core


def ends(events: list[Event]) -> list[Event]:
    return [event for event in events if isinstance(event, END)]


def text_of(events: list[Event]) -> str:
    return "".join(event.text for event in events if isinstance(event, Token | Answer))


@settings(max_examples=10, deadline=None, derandomize=True, database=None)
@given(data=st.data())
def test_each_request_ends_once(data: st.DataObject) -> None:
    asked = data.draw(st.lists(st.tuples(st.sampled_from(NAMES), st.sampled_from(TEXTS)), min_size=1, max_size=10))
    arrivals = [data.draw(st.integers(0, 8)) for _ in asked]
    cancelled = data.draw(st.sets(st.integers(0, len(asked) - 1), max_size=2))
    passes = data.draw(st.sets(st.integers(0, 30), max_size=4))
    core, events = EngineCore(tiny.frozen("llama"), max_sequences=3), [list[Event]() for _ in asked]
    for name in NAMES:
        core.install(loaded("llama", name))
    with failing(passes):
        for step in range(300):
            for index, (name, text) in enumerate(asked):
                if arrivals[index] == step:
                    core.add(Request(str(index), name, example(name, text)), AdapterKey(name, "1"), events[index].append)
                if index in cancelled and arrivals[index] + 2 == step:
                    core.cancel(str(index))
            if not core.has_work and step > max(arrivals) + 2:
                break
            core.step()
            core.check()
    assert not core.has_work and not core.running
    for (name, text), each in zip(asked, events, strict=True):
        assert len(ends(each)) == 1 and isinstance(each[-1], END)
        if isinstance(each[-1], Done) and each[-1].reason != "cancelled":
            assert text_of(each) == predicted("llama", name, text)


@pytest.mark.parametrize("name", ["prefix", "lora"])
def test_an_error_after_the_model_fails_one_request_alone(core: EngineCore, name: str) -> None:
    """Two requests end in the same step; what is done with the token of a third raises."""
    events: dict[str, list[Event]] = {request_id: [] for request_id in ("first", "third", "second")}
    length = len([event for event in first_run(core, name) if isinstance(event, Token)])

    def emit(event: Event) -> None:
        events["third"].append(event)
        if len(events["third"]) == length:  # in the step in which the others end
            raise OSError("no more paper")

    for request_id, each in events.items():
        core.add(Request(request_id, name, example(name, "x")), AdapterKey(name, "1"), emit if request_id == "third" else each.append)
    while core.has_work:
        core.step()
        core.check()
    for request_id in ("first", "second"):
        assert text_of(events[request_id]) == predicted("llama", name, "x")
        assert [type(event) for event in ends(events[request_id])] == [Done]
    assert ends(events["third"])[-1:] == [Failed("engine", "the step failed (OSError: no more paper).")]


@pytest.mark.parametrize("name", ["prefix", "lora"])
def test_an_install_that_fails_leaves_nothing_behind(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    core, put, left = EngineCore(tiny.frozen("llama")), PagedKVCache.put, [1]

    def fail_once(cache: PagedKVCache, slots: Tensor, prefix: KVPrefix) -> None:
        if left and left.pop():
            raise MemoryError("no more")
        put(cache, slots, prefix)

    monkeypatch.setattr(PagedKVCache, "put", fail_once)
    with pytest.raises(MemoryError):
        core.install(loaded("llama", name))
    core.check()
    assert not core.adapters.tasks and not core.adapters.cache.num_bytes and not core.kv.budget.used
    core.install(loaded("llama", name))
    assert text_of(first_run(core, name)) == predicted("llama", name, "x")
    core.check()


def first_run(core: EngineCore, name: str) -> list[Event]:
    events = list[Event]()
    core.add(Request("alone", name, example(name, "x")), AdapterKey(name, "1"), events.append)
    while core.has_work:
        core.step()
    return events
