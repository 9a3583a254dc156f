"""The prefix cache: the tree of blocks alone, and answers of requests that share texts."""

from __future__ import annotations

import contextlib
from functools import cache

import pytest
import tiny
from contract.given import prompt, spec
from hypothesis import given, settings
from hypothesis import strategies as st

from foreword.adapters.adapter import Adapter
from foreword.adapters.safetensors_file import KEY
from foreword.errors import CapacityError
from foreword.evaluation.evaluate import Reader
from foreword.recipe import Recipe
from foreword.serving.adapter_cache import AdapterKey
from foreword.serving.engine_core import EngineCore
from foreword.serving.loaded_task import LoadedTask
from foreword.serving.prefix_cache import BLOCK_SIZE, Block, PrefixCache
from foreword.serving.request import Event, Request, Token
from foreword.tasks.generate import Generate

ARTICLE = "the town council met on monday to talk about the bridge. " * 2
OTHER = "the town council met on monday, and nobody came at all but a dog."
KINDS = {"behind": ("prompt-tuning", "{input}\n{soft}:{answer}"), "before": ("p-tuning-v2", "{input}\n:{answer}")}


@cache
def adapter(family: str, kind: str, number: int) -> Adapter:
    method, template = KINDS[kind]
    model, made = tiny.frozen(family), spec(method, 2 + number % 2)
    task = Generate(template, max_new_tokens=5)
    tensors = {KEY: prompt(model, made, number).bake()}
    return Adapter(Recipe.of(made), model.shape, tensors, task.to_dict(), model.name, model.fingerprint, model.tokenizer_fingerprint)


@cache
def predicted(family: str, kind: str, number: int, text: str) -> str:
    return Reader.of(tiny.frozen(family), adapter(family, kind, number)).predict([{"input": text}])[0].text


def serve(core: EngineCore, family: str, asked: list[tuple[str, int, str]], *, at_once: bool) -> list[str]:
    events: list[list[Event]] = [[] for _ in asked]
    for index, (kind, number, text) in enumerate(asked):
        key = AdapterKey(f"{kind}{number}", "1")
        core.add(Request(str(index), key.task, {"input": text}), key, events[index].append)
        while not at_once and (core.has_work or core.scheduler.missing_tasks):
            step(core, family)
    while core.has_work or core.scheduler.missing_tasks:
        step(core, family)
    return ["".join(event.text for event in each if isinstance(event, Token)) for each in events]


def step(core: EngineCore, family: str) -> None:
    for key in core.scheduler.missing_tasks:
        with contextlib.suppress(CapacityError):
            core.install(LoadedTask.of(core.model, adapter(family, key.task[:6], int(key.task[6:])), key))
    core.step()
    core.check()


@pytest.mark.parametrize("family", ["llama", "gemma3_text", "gpt2"])
@settings(max_examples=6, deadline=None, derandomize=True, database=None)
@given(data=st.data())
def test_answers_are_those_of_texts_that_are_not_shared(family: str, data: st.DataObject) -> None:
    one = st.tuples(st.sampled_from(sorted(KINDS)), st.integers(0, 2), st.sampled_from([ARTICLE, ARTICLE[:70], OTHER, "x"]))
    asked = data.draw(st.lists(one, min_size=2, max_size=8))
    tokens = data.draw(st.sampled_from([4000, 400, 200]))  # that fit in memory: the least holds one article and little more
    core = EngineCore(tiny.frozen(family), max_sequences=3, prefix_caching=data.draw(st.booleans()))
    core.kv.budget.total = tokens * core.kv.cache.slot_bytes
    core.scheduler.chunk_budget.most = data.draw(st.sampled_from([7, 40, 2048]))
    found = serve(core, family, asked, at_once=data.draw(st.booleans()))
    assert found == [predicted(family, *each) for each in asked]


def test_many_tasks_read_one_text_once() -> None:
    model = tiny.frozen("llama")
    read: list[int] = []
    hook = model.network.get_input_embeddings().register_forward_hook(lambda _, given, __: read.append(given[0].numel()))
    asked = [("behind", number, ARTICLE) for number in range(8)]
    for each in asked:
        predicted("llama", *each)
    read.clear()
    try:
        core = EngineCore(model, max_sequences=8)
        found = serve(core, "llama", asked, at_once=True)
        together = sum(read)
        read.clear()
        core = EngineCore(model, max_sequences=8, prefix_caching=False)
        assert serve(core, "llama", asked, at_once=True) == found == [predicted("llama", *each) for each in asked]
    finally:
        hook.remove()
    assert together < sum(read) / 3


def test_a_text_stays_after_its_request_and_leaves_for_others() -> None:
    core = EngineCore(tiny.frozen("llama"), max_sequences=1)
    core.kv.budget.total = 200 * core.kv.cache.slot_bytes
    hits = []
    for text in (ARTICLE, ARTICLE, OTHER, OTHER, ARTICLE[::-1], OTHER[::-1], ARTICLE):
        before = core.kv.num_hits
        assert serve(core, "llama", [("behind", 0, text)], at_once=True) == [predicted("llama", "behind", 0, text)]
        hits.append(core.kv.num_hits - before)
    article = len(tiny.frozen("llama").tokenizer.encode(ARTICLE)) // BLOCK_SIZE * BLOCK_SIZE
    assert hits[:2] == [0, article] and 0 < hits[3] < article and hits[6] < article  # evicted meanwhile
    assert 0 < core.kv.texts.num_tokens <= 200


def test_texts_behind_a_prefix_leave_with_it() -> None:
    core = EngineCore(tiny.frozen("llama"))
    serve(core, "llama", [("before", 0, ARTICLE)] * 3, at_once=True)
    assert core.kv.texts.num_tokens > 0
    core.retire(AdapterKey("before0", "1"))
    core.check()
    assert core.kv.texts.num_tokens == core.kv.budget.used == 0 and not core.adapters.tasks


def chain(made: PrefixCache, ids: tuple[int, ...], first_slot: int) -> list[Block]:
    """The blocks of a text, computed, each in slots of its own."""
    blocks: list[Block] = []
    for begin in range(0, len(ids), BLOCK_SIZE):
        slots = tuple(range(first_slot + begin, first_slot + begin + BLOCK_SIZE))
        blocks.append(made.add(None, blocks[-1] if blocks else None, ids[begin : begin + BLOCK_SIZE], slots))
        blocks[-1].computed = True
    return blocks


def test_what_is_read_stays_and_the_end_of_a_text_leaves_before_its_beginning() -> None:
    made, ids = PrefixCache(), tuple(range(3 * BLOCK_SIZE))
    blocks = chain(made, ids, 0)
    made.check()
    assert made.match(None, ids) == blocks and made.match(AdapterKey("a", "1"), ids) == [] and made.num_unread == 0
    assert made.release(blocks) == [] and made.num_unread == 3
    made.acquire(blocks[:1])
    made.check()
    assert [made.evict(), made.evict()] == [blocks[2].slots, blocks[1].slots] and made.num_unread == 0
    assert made.match(None, ids) == blocks[:1]
    made.release(blocks[:1])
    assert made.evict() == blocks[0].slots and made.num_blocks == 0
    made.check()


def test_the_least_recently_used_text_leaves_first() -> None:
    made = PrefixCache()
    old, new = chain(made, tuple(range(2 * BLOCK_SIZE)), 0), chain(made, tuple(range(100, 100 + 2 * BLOCK_SIZE)), 100)
    made.release(old)
    made.release(new)
    assert [made.evict() for _ in range(4)] == [old[1].slots, old[0].slots, new[1].slots, new[0].slots]


def test_the_same_text_is_kept_once() -> None:
    made, ids = PrefixCache(), tuple(range(BLOCK_SIZE))
    first, second = chain(made, ids, 0), chain(made, ids, 100)
    assert first == second and first[0].refs == 2 and first[0].slots[0] == 0
    made.check()


def test_a_block_that_was_never_computed_leaves_with_its_last_reader() -> None:
    made, ids = PrefixCache(), tuple(range(BLOCK_SIZE))
    block = made.add(None, None, ids, tuple(range(BLOCK_SIZE)))
    made.acquire([block])
    assert made.release([block]) == [] and made.release([block]) == [block.slots]
    made.check()
    assert made.match(None, ids) == []
