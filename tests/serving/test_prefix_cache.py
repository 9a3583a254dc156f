"""Texts that are read once: the books alone, and answers of requests that share them."""

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
from foreword.serving.prefix_cache import BLOCK_SIZE, PrefixCache
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
            finish_all(core, family)
    while core.has_work or core.scheduler.missing_tasks:
        finish_all(core, family)
    return ["".join(event.text for event in each if isinstance(event, Token)) for each in events]


def finish_all(core: EngineCore, family: str) -> None:
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
    budget = data.draw(st.sampled_from([1 << 20, 40_000, 0]))
    prefixes = data.draw(st.sampled_from([1 << 20, 3_000]))
    core = EngineCore(tiny.frozen(family), max_sequences=3, prefix_cache_bytes=budget, adapter_bytes=prefixes)
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
        core = EngineCore(model, max_sequences=8, prefix_cache_bytes=0)
        assert serve(core, "llama", asked, at_once=True) == found == [predicted("llama", *each) for each in asked]
    finally:
        hook.remove()
    assert together < sum(read) / 3


def test_a_text_is_kept_from_its_second_time_on_and_leaves_for_others() -> None:
    core = EngineCore(tiny.frozen("llama"), prefix_cache_bytes=sum(kv.width for kv in tiny.frozen("llama").shape.kv) * 4 * BLOCK_SIZE * 7)
    for turn, (text, hits) in enumerate([(ARTICLE, 0), (ARTICLE, 1), (ARTICLE, 2), (OTHER, 3), (OTHER, 3), (OTHER, 4)]):
        found = serve(core, "llama", [("behind", 0, text)], at_once=True)
        assert found == [predicted("llama", "behind", 0, text)] and core.cached_prefill.num_hits <= hits, turn
    assert 0 < core.cached_prefill.cache.num_tokens <= 7 * BLOCK_SIZE


def test_texts_behind_a_prefix_leave_with_it() -> None:
    core = EngineCore(tiny.frozen("llama"))
    serve(core, "llama", [("before", 0, ARTICLE)] * 3, at_once=True)
    assert core.cached_prefill.cache.num_tokens > 0
    core.retire(AdapterKey("before0", "1"))
    core.check()
    assert core.cached_prefill.cache.num_tokens == 0 and not core.adapters.tasks


def test_the_books_refuse_nothing_that_is_read() -> None:
    cache = PrefixCache(3 * BLOCK_SIZE)
    ids = tuple(range(5 * BLOCK_SIZE))
    assert cache.num_repeated(None, ids) == 0 and cache.num_repeated(None, ids[: 2 * BLOCK_SIZE]) == 2
    first = cache.add(None, [], ids[: 2 * BLOCK_SIZE], range(2 * BLOCK_SIZE))
    cache.acquire(first, "a")
    assert cache.match(None, ids) == first and cache.match(AdapterKey("a", "1"), ids) == []
    assert cache.evict(2) is None and cache.evict(1) == []
    cache.release(first, "a")
    assert cache.evict(2) == [first[1].slots]  # the end of a text before its beginning
    assert cache.match(None, ids) == first[:1]
    cache.check()
