"""The scheduler alone: order of arrival, limits, and requests that hold nobody up. No model runs."""

from __future__ import annotations

import tiny
from serving.given import example, loaded

from foreword.serving.adapter_cache import AdapterKey
from foreword.serving.engine_core import EngineCore
from foreword.serving.request import Done, Event, Failed, Request
from foreword.serving.scheduler import MAX_POOLING, Scheduler


def scheduler(*names: str, max_sequences: int = 2) -> Scheduler:
    """A scheduler with these tasks in memory."""
    core = EngineCore(tiny.frozen("llama"), max_sequences=max_sequences)
    for name in names:
        core.install(loaded("llama", name))
    return core.scheduler


def add(to: Scheduler, request_id: str, name: str, text: str = "x") -> list[Event]:
    events: list[Event] = []
    to.add(Request(request_id, name, example(name, text)), AdapterKey(name, "1"), events.append)
    return events


def test_requests_join_in_order_as_far_as_rows_go_and_a_missing_task_holds_nobody_up() -> None:
    made = scheduler("prefix")
    for request_id, name in (("missing", "longer"), ("a", "prefix"), ("b", "prefix"), ("c", "prefix")):
        add(made, request_id, name)
    output = made.schedule()
    assert [sequence.request.id for sequence in output.prefill] == ["a", "b"] and output.decode == []
    assert [entry.request.id for entry in made.waiting] == ["missing", "c"] and made.missing_tasks == [AdapterKey("longer", "1")]
    assert [entry.refs for entry in made.adapters] == [{"a", "b"}]
    made.running.extend(output.prefill)
    again = made.schedule()
    assert again.prefill == [] and again.decode == output.prefill and made.has_work


def test_a_prefill_is_of_bounded_size() -> None:
    made = scheduler("prefix", max_sequences=200)
    for index in range(200):
        add(made, str(index), "prefix", "one two three four five six")
    output = made.schedule()
    longest = max(sequence.prompt.num_tokens for sequence in output.prefill)
    assert 4096 - longest < longest * len(output.prefill) <= 4096 and len(output.prefill) + len(made.waiting) == 200


def test_tasks_that_generate_no_text_go_to_pooling_and_those_with_own_weights_to_their_engine() -> None:
    made = scheduler("label", "lora", max_sequences=1)
    for index in range(MAX_POOLING + 1):
        add(made, f"p{index}", "label")
    add(made, "own", "lora")
    output = made.schedule()
    assert len(output.pooling) == MAX_POOLING and [entry.request.id for entry in output.forwarded] == ["own"] and output.prefill == []
    assert [entry.request.id for entry in made.waiting] == [f"p{MAX_POOLING}"]


def test_a_request_that_cannot_be_read_fails_alone() -> None:
    made = scheduler("prefix")
    events: list[Event] = []
    made.add(Request("wrong", "prefix", {"text": "x"}), AdapterKey("prefix", "1"), events.append)
    add(made, "right", "prefix")
    assert [sequence.request.id for sequence in made.schedule().prefill] == ["right"] and not made.waiting
    assert [type(event) for event in events] == [Failed]


def test_waiting_requests_are_cancelled_failed_and_renamed() -> None:
    made = scheduler()
    cancelled, failed, renamed = add(made, "a", "prefix"), add(made, "b", "longer"), add(made, "c", "prefix")
    made.cancel_waiting("a")
    made.fail_waiting(AdapterKey("longer", "1"), Failed("task", "it is broken"))
    made.rename(AdapterKey("prefix", "1"), AdapterKey("prefix", "2"))
    assert cancelled == [Done("cancelled", 0, 0)] and failed == [Failed("task", "it is broken")] and renamed == []
    assert made.missing_tasks == [AdapterKey("prefix", "2")] and not made.has_work
