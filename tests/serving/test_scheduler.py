"""The scheduler alone: turns of tenants, chunks of prompts, places and memory. No model runs."""

from __future__ import annotations

import tiny
from serving.given import example, loaded

from foreword.serving.adapter_cache import AdapterKey
from foreword.serving.engine_core import EngineCore
from foreword.serving.request import Done, Event, Failed, Request
from foreword.serving.sampling import SamplingParams
from foreword.serving.scheduler import MAX_POOLING, Scheduler, SchedulerOutput


def scheduler(*names: str, max_sequences: int = 2, chunk: int = 2048, tokens: int | None = None) -> Scheduler:
    """A scheduler with these tasks in memory, chunks of at most so many tokens, and memory for so many."""
    core = EngineCore(tiny.frozen("llama"), max_sequences=max_sequences, prefix_caching=False)
    for name in names:
        core.install(loaded("llama", name))
    if tokens is not None:
        core.kv.budget.total = tokens * core.kv.cache.slot_bytes
    core.scheduler.chunk_budget.most = chunk
    return core.scheduler


def add(to: Scheduler, request_id: str, name: str | None = None, text: str = "x", tenant: str = "") -> list[Event]:
    events: list[Event] = []
    given = {"text": text} if name is None else example(name, text)
    to.add(Request(request_id, name, given, SamplingParams(max_tokens=60), tenant=tenant), name and AdapterKey(name, "1"), events.append)
    return events


def run(made: Scheduler) -> SchedulerOutput:
    """One step, as if the model had run: every sequence that was read gets a token."""
    output = made.schedule()
    for chunk in output.chunks:
        last = chunk.last
        made.kv.computed(chunk.sequence, chunk.end)
        if last:
            chunk.sequence.append(40)
    return output


def ids(output: SchedulerOutput) -> list[tuple[str, int]]:
    return [(chunk.sequence.request.id, chunk.num_tokens) for chunk in output.chunks]


def test_requests_join_in_order_as_far_as_places_go_and_a_missing_task_holds_nobody_up() -> None:
    made = scheduler("prefix")
    for request_id, name in (("missing", "longer"), ("a", "prefix"), ("b", "prefix"), ("c", "prefix")):
        add(made, request_id, name)
    assert [name for name, _ in ids(run(made))] == ["a", "b"]
    assert {entry.request.id for entry in made.waiting} == {"missing", "c"} and made.missing_tasks == [AdapterKey("longer", "1")]
    assert [entry.refs for entry in made.adapters.cache] == [{"a", "b"}]
    assert ids(run(made)) == [("a", 1), ("b", 1)] and made.has_work


def test_prompts_are_read_in_chunks_one_after_another_beside_running_sequences() -> None:
    made = scheduler(chunk=8, max_sequences=4)
    add(made, "short", text="abc")
    assert ids(run(made)) == [("short", 4)]
    add(made, "long", text="a" * 15)
    add(made, "next", text="b" * 9)
    steps = [ids(run(made)) for _ in range(4)]
    assert steps[:3] == [[("short", 1), ("long", 8)], [("short", 1), ("long", 8)], [("short", 1), ("long", 1), ("next", 8)]]
    assert steps[3] == [("short", 1), ("long", 1), ("next", 2)]


def test_tenants_take_turns_whatever_each_has_asked_for() -> None:
    made = scheduler(chunk=8, max_sequences=8)
    for index in range(4):
        add(made, f"many {index}", text="a" * 31, tenant="a")
    run(made)
    add(made, "one", text="b" * 15, tenant="b")
    read = [name for _ in range(4) for name, count in ids(run(made)) if count > 1]
    assert read.count("one") == 2  # every second chunk until it is read, not after the 128 tokens that came before


def test_a_tenant_that_was_away_claims_no_more_than_its_turn() -> None:
    made = scheduler(chunk=8, max_sequences=8)
    add(made, "b", text="b", tenant="b")
    run(made)
    made.release(made.running[0])
    for index in range(4):
        add(made, f"a {index}", text="a" * 31, tenant="a")
    for _ in range(8):
        run(made)
    for index in range(4):
        add(made, f"b {index}", text="b" * 31, tenant="b")
    for _ in range(8):
        run(made)
    assert abs(made._served["a"] - made._served["b"]) <= 16  # a chunk, and what runs beside it


def test_a_tenant_with_all_places_gives_one_up_for_another() -> None:
    made = scheduler(max_sequences=3)
    for index in range(5):
        add(made, f"a {index}", tenant="a")
    run(made)
    add(made, "b 0", tenant="b")
    assert {name for name, _ in ids(run(made))} == {"a 0", "a 1", "b 0"} and made.num_preemptions == 1
    for _ in range(5):
        run(made)
    assert made.num_preemptions == 1  # two to one is as even as it gets
    made.cancel_waiting("a 2")
    assert {entry.request.id for entry in made.waiting} == {"a 3", "a 4"}


def test_the_sequence_that_began_last_is_preempted_and_goes_on_first() -> None:
    made = scheduler(max_sequences=4, tokens=64)
    for name in ("a", "b", "c"):
        add(made, name, text="x" * 14)  # with the opening token 15 of the 16 of a block
    run(made)
    run(made)
    assert [sequence.request.id for sequence in made.running] == ["a", "b", "c"]
    run(made)
    assert [sequence.request.id for sequence in made.running] == ["a", "b"] and made.num_preemptions == 1
    add(made, "d", text="x")
    made.release(made.running[0])
    output = run(made)
    assert ids(output)[:2] == [("b", 1), ("c", 17)]


def test_tasks_that_generate_no_text_go_to_pooling_in_turns() -> None:
    made = scheduler("label", max_sequences=1)
    for index in range(MAX_POOLING + 1):
        add(made, f"a{index}", "label", tenant="a")
    add(made, "b", "label", tenant="b")
    output = made.schedule()
    assert (
        len(output.pooling) == MAX_POOLING and [item.request.id for item in output.pooling[:3]] == ["a0", "b", "a1"] and not output.chunks
    )
    assert [entry.request.id for entry in made.waiting] == [f"a{MAX_POOLING - 1}", f"a{MAX_POOLING}"]


def test_a_request_that_cannot_be_read_fails_alone() -> None:
    made = scheduler("prefix")
    events: list[Event] = []
    made.add(Request("wrong", "prefix", {"text": "x"}), AdapterKey("prefix", "1"), events.append)
    add(made, "right", "prefix")
    assert [name for name, _ in ids(run(made))] == ["right"] and not len(made.waiting)
    assert [type(event) for event in events] == [Failed]


def test_waiting_requests_are_cancelled_failed_and_renamed() -> None:
    made = scheduler()
    cancelled, failed, renamed = add(made, "a", "prefix"), add(made, "b", "longer"), add(made, "c", "prefix")
    made.cancel_waiting("a")
    made.waiting.fail(AdapterKey("longer", "1"), Failed("task", "it is broken"))
    made.waiting.rename(AdapterKey("prefix", "1"), AdapterKey("prefix", "2"))
    assert cancelled == [Done("cancelled", 0, 0)] and failed == [Failed("task", "it is broken")] and renamed == []
    assert made.missing_tasks == [AdapterKey("prefix", "2")] and not made.has_work
