"""Served = predicted: any arrivals, lengths, cancellations and evictions, mixed tasks, token for token in fp32."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence as Seq
from dataclasses import replace

import pytest
import tiny
from hypothesis import given, settings
from hypothesis import strategies as st
from serving.given import TASKS, TEXTS, example, loaded, predicted
from torch import Tensor

from foreword.errors import CapacityError
from foreword.serving.adapter_cache import AdapterKey
from foreword.serving.engine_core import EngineCore
from foreword.serving.model_runner import Chunk
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
    """Requests of two tenants join at their steps; cancelled ones leave two steps later."""
    events: list[list[Event]] = [[] for _ in asked]
    for step in range(1000):
        for index, (name, text) in enumerate(asked):
            if arrivals[index] == step:
                request = Request(f"r{index}", name, example(name, text), tenant="ab"[index % 2])
                core.add(request, AdapterKey(name, "1"), events[index].append)
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
    core = EngineCore(tiny.frozen(family), max_sequences=3, prefix_caching=data.draw(st.booleans()))
    core.kv.budget.total = (
        data.draw(st.sampled_from([4000, 150])) * core.kv.cache.slot_bytes
    )  # tokens; the second makes sequences wait and be preempted
    core.scheduler.chunk_budget.most = data.draw(st.sampled_from([3, 20, 2048]))
    events = run(core, family, asked, arrivals, cancelled)
    for index, (name, text) in enumerate(asked):
        end = events[index][-1]
        assert isinstance(end, Done), end
        if end.reason == "cancelled":
            assert index in cancelled and predicted(family, name, text).startswith(text_of(events[index]))
        else:
            assert text_of(events[index]) == predicted(family, name, text)


def test_prefixes_are_stored_once_and_leave_for_others() -> None:
    slot_bytes = EngineCore(tiny.frozen("llama")).kv.cache.slot_bytes
    core = EngineCore(tiny.frozen("llama"), max_sequences=4, memory_bytes=loaded("llama", "longer").num_bytes + 32 * slot_bytes)
    asked = [("prefix", "a film"), ("prefix", "x"), ("longer", "x"), ("prefix", "a film")]
    events = run(core, "llama", asked, [0, 0, 0, 30], set())
    for (name, text), each in zip(asked, events, strict=True):
        assert text_of(each) == predicted("llama", name, text)
    assert core.adapters.num_evictions >= 2 and len(list(core.adapters.cache)) == 1


def test_a_prefix_that_never_fits_is_refused() -> None:
    core, events = EngineCore(tiny.frozen("llama"), memory_bytes=10), list[Event]()
    core.add(Request("r", "prefix", {"input": "x"}), AdapterKey("prefix", "1"), events.append)
    with pytest.raises(CapacityError):
        core.install(loaded("llama", "prefix"))
    core.scheduler.waiting.fail(AdapterKey("prefix", "1"), Failed("capacity", "the budget is in use"))
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


def test_a_step_that_fails_is_tried_again_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    core = EngineCore(tiny.frozen("llama"))
    poison, good = submit(core, Request("p", "prefix", {"input": "x"})), submit(core, Request("g", "prefix", {"input": "a film"}))
    late = submit(core, Request("l", "longer", {"input": "x"}), "longer")
    core.step()
    run_chunks = core.runner.run

    def failing(chunks: Seq[Chunk]) -> Tensor:
        if any(chunk.sequence.request.id == "p" and chunk.sequence.tokens for chunk in chunks):
            raise ZeroDivisionError("division by zero")
        return run_chunks(chunks)

    monkeypatch.setattr(core.runner, "run", failing)
    while core.has_work:
        core.step()
        core.check()
    assert poison[-1] == Failed("engine", "the step failed (ZeroDivisionError: division by zero).")
    assert sum(isinstance(event, Done | Failed) for event in poison) == 1
    assert text_of(good) == predicted("llama", "prefix", "a film") and text_of(late) == predicted("llama", "longer", "x")


def test_an_engine_goes_on_after_a_fault_of_everything(monkeypatch: pytest.MonkeyPatch) -> None:
    core = EngineCore(tiny.frozen("llama"))
    first = [submit(core, Request(str(index), "lora", {"input": "x"}), "lora") for index in range(3)]
    with monkeypatch.context() as patch:
        patch.setattr(core.runner, "run", lambda *given: 1 / 0)
        while core.has_work:
            core.step()
            core.check()
    assert first == [[Failed("engine", "the step failed (ZeroDivisionError: division by zero).")]] * 3
    second = submit(core, Request("b", "lora", {"input": "x"}), "lora")
    while core.has_work:
        core.step()
    core.check()
    assert text_of(second) == predicted("llama", "lora", "x")


def test_a_request_that_fits_nowhere_fails_alone_and_says_why() -> None:
    core = EngineCore(tiny.frozen("llama"))
    core.kv.budget.total = 48 * core.kv.cache.slot_bytes
    long = submit(core, Request("l", None, {"text": "one two three four five six seven eight"}, SamplingParams(max_tokens=40)), None)
    short = submit(core, Request("s", None, {"text": "x"}, SamplingParams(max_tokens=40)), None)
    while core.has_work:
        core.step()
        core.check()
    assert isinstance(long[-1], Failed) and long[-1].kind == "capacity" and sum(isinstance(event, Token) for event in long) < 40
    assert long[-1].message.endswith("(all of it holds 48 tokens); shorten the request, or give the engine more memory.")
    assert isinstance(short[-1], Done) and sum(event.text != "" for event in short if isinstance(event, Token)) <= 40


def test_preempted_sequences_are_computed_again() -> None:
    core = EngineCore(tiny.frozen("llama"), prefix_caching=False)
    core.kv.budget.total = 64 * core.kv.cache.slot_bytes
    asked = [Request(str(index), None, {"text": "x" * (1 + index)}, SamplingParams(max_tokens=24)) for index in range(4)]
    events = [submit(core, request, None) for request in asked]
    while core.has_work:
        core.step()
        core.check()
    assert core.scheduler.num_preemptions > 0 and core.kv.budget.used == 0
    for request, each in zip(asked, events, strict=True):
        alone = submit(other := EngineCore(tiny.frozen("llama")), request, None)
        while other.has_work:
            other.step()
        assert each == alone and isinstance(each[-1], Done)


def test_a_cancelled_request_that_was_preempted_leaves_nothing() -> None:
    core = EngineCore(tiny.frozen("llama"), prefix_caching=False)
    events = [submit(core, Request(str(index), "prefix", {"input": "x"})) for index in range(2)]
    core.step()
    core.scheduler._preempt(core.scheduler.running[-1])
    core.check()
    core.cancel("1")
    while core.has_work:
        core.step()
    core.check()
    assert (
        isinstance(events[1][-1], Done) and events[1][-1].reason == "cancelled" and text_of(events[0]) == predicted("llama", "prefix", "x")
    )


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
