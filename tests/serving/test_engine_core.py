"""Served = predicted: any arrivals, lengths, cancellations and evictions, mixed tasks, token for token in fp32."""

from __future__ import annotations

import contextlib
from dataclasses import replace

import pytest
import tiny
from hypothesis import given, settings
from hypothesis import strategies as st
from serving.given import TASKS, TEXTS, example, loaded, predicted

from foreword.errors import CapacityError
from foreword.serving.adapter_cache import AdapterKey
from foreword.serving.engine_core import EngineCore
from foreword.serving.request import Answer, Done, Event, Failed, Request, Token
from foreword.serving.sampling import SamplingParams


def submit(core: EngineCore, request: Request, key: str | None = "prefix") -> list[Event]:
    """Add a request whose task is in memory; its events, as they come."""
    events: list[Event] = []
    if key is not None:
        core.install(loaded("llama", key))
    core.add(request, None if key is None else AdapterKey(key, "1"), events.append)
    return events


def text_of(events: list[Event]) -> str:
    return "".join(event.text for event in events if isinstance(event, Token | Answer))


def run(core: EngineCore, family: str, asked: list[tuple[str, str]], arrivals: list[int], cancelled: set[int]) -> list[list[Event]]:
    """Requests join at their steps; cancelled ones leave two steps later."""
    events: list[list[Event]] = [[] for _ in asked]
    for step in range(400):
        for index, (name, text) in enumerate(asked):
            if arrivals[index] == step:
                core.add(Request(f"r{index}", name, example(name, text)), AdapterKey(name, "1"), events[index].append)
            if index in cancelled and arrivals[index] + 2 == step:
                core.cancel(f"r{index}")
        for key in core.scheduler.missing_tasks:
            with contextlib.suppress(CapacityError):  # somebody must leave first
                core.install(loaded(family, key.task))
        if not core.scheduler.waiting and not core.running and step > max(arrivals, default=0) + 2:
            break
        core.step()
        core.check()
    assert not core.scheduler.waiting and not core.running
    return events


@pytest.mark.parametrize("family", ["llama", "gemma3_text", "gpt2", "gemma2"])
@settings(max_examples=8, deadline=None, derandomize=True, database=None)
@given(data=st.data())
def test_served_is_predicted(family: str, data: st.DataObject) -> None:
    asked = data.draw(st.lists(st.tuples(st.sampled_from(sorted(TASKS)), st.sampled_from(TEXTS)), min_size=1, max_size=8))
    arrivals = [data.draw(st.integers(0, 12)) for _ in asked]
    cancelled = data.draw(st.sets(st.integers(0, len(asked) - 1), max_size=2))
    events = run(EngineCore(tiny.frozen(family), max_sequences=3), family, asked, arrivals, cancelled)
    for index, (name, text) in enumerate(asked):
        end = events[index][-1]
        assert isinstance(end, Done), end
        if end.reason == "cancelled":
            assert index in cancelled and predicted(family, name, text).startswith(text_of(events[index]))
        else:
            assert text_of(events[index]) == predicted(family, name, text)


def test_prefixes_are_stored_once_and_leave_for_others() -> None:
    core = EngineCore(tiny.frozen("llama"), max_sequences=4, adapter_bytes=loaded("llama", "longer").num_bytes + 1)
    asked = [("prefix", "a film"), ("prefix", "x"), ("longer", "x"), ("prefix", "a film")]
    events = run(core, "llama", asked, [0, 0, 0, 30], set())
    for (name, text), each in zip(asked, events, strict=True):
        assert text_of(each) == predicted("llama", name, text)
    assert core.runner.kv_pool.capacity <= 9 and len(list(core.adapters.cache)) == 1


def test_a_prefix_that_never_fits_is_refused() -> None:
    core, events = EngineCore(tiny.frozen("llama"), adapter_bytes=10), list[Event]()
    core.add(Request("r", "prefix", {"input": "x"}), AdapterKey("prefix", "1"), events.append)
    with pytest.raises(CapacityError):
        core.install(loaded("llama", "prefix"))
    core.scheduler.fail_waiting(AdapterKey("prefix", "1"), Failed("capacity", "the budget is in use"))
    assert events == [Failed("capacity", "the budget is in use")] and not core.scheduler.waiting


def test_a_task_that_is_not_in_memory_holds_nobody_up() -> None:
    core, slow = EngineCore(tiny.frozen("llama")), list[Event]()
    core.add(Request("s", "longer", {"input": "x"}), AdapterKey("longer", "1"), slow.append)
    quick = submit(core, Request("q", "prefix", {"input": "x"}))
    while core.has_work:
        core.step()
    assert text_of(quick) == predicted("llama", "prefix", "x") and not slow and core.scheduler.missing_tasks == [AdapterKey("longer", "1")]


def test_a_replaced_version_serves_its_requests_to_the_end() -> None:
    core = EngineCore(tiny.frozen("llama"))
    old = submit(core, Request("o", "prefix", {"input": "a film"}))
    core.step()
    core.retire(AdapterKey("prefix", "1"))
    core.install(replace(loaded("llama", "longer"), key=AdapterKey("prefix", "2")))
    new = list[Event]()
    core.add(Request("n", "prefix", {"input": "a film"}), AdapterKey("prefix", "2"), new.append)
    while core.has_work:
        core.step()
    core.check()
    assert text_of(old) == predicted("llama", "prefix", "a film") and text_of(new) == predicted("llama", "longer", "a film")
    assert set(core.adapters.tasks) == {AdapterKey("prefix", "2")}


def test_a_mistake_fails_its_own_request_alone() -> None:
    core = EngineCore(tiny.frozen("llama"))
    wrong = submit(core, Request("w", "prefix", {"text": "x"}))
    right = submit(core, Request("r", "prefix", {"input": "x"}))
    while core.has_work:
        core.step()
    assert wrong == [
        Failed("request", "the template needs the column 'input', but the example has text; rename a column or change the template.")
    ]
    assert text_of(right) == predicted("llama", "prefix", "x")


def test_a_fault_in_a_step_fails_its_requests_and_the_engine_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    core = EngineCore(tiny.frozen("llama"))
    first = submit(core, Request("a", "prefix", {"input": "x"}))
    core.step()
    with monkeypatch.context() as patch:
        patch.setattr(core.runner, "decode", lambda *given: 1 / 0)
        core.step()
    assert first[-1] == Failed("engine", "the step failed (ZeroDivisionError: division by zero).")
    core.check()
    second = submit(core, Request("b", "prefix", {"input": "x"}))
    while core.has_work:
        core.step()
    assert text_of(second) == predicted("llama", "prefix", "x")


def test_stop_strings_are_never_sent() -> None:
    whole = predicted("llama", "prefix", "a film")
    assert len(whole) > 6
    stop, core = whole[3:5], EngineCore(tiny.frozen("llama"))
    events = submit(core, Request("r", "prefix", {"input": "a film"}, SamplingParams(stop=(stop,))))
    while core.has_work:
        core.step()
    assert text_of(events) == whole[: whole.find(stop)].rstrip()
    assert isinstance(events[-1], Done) and events[-1].reason == "stop"


def test_the_model_itself_goes_on_from_a_text() -> None:
    core = EngineCore(tiny.frozen("llama"))
    events = submit(core, Request("r", None, {"text": "a film"}, SamplingParams(max_tokens=5, logprobs=2)), None)
    while core.has_work:
        core.step()
    tokens = [event for event in events if isinstance(event, Token)]
    assert isinstance(events[-1], Done) and events[-1].completion_tokens == 5
    assert all(event.logprob is not None and len(event.top) == 2 and max(event.top.values()) == event.logprob for event in tokens[:5])
