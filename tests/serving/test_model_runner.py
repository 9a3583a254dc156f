"""Steps over the paged cache give what greedy generation gives: mixed prompts, prompts in chunks beside running sequences, every kind of attention."""

from __future__ import annotations

import pytest
import tiny
import torch
from contract.given import prompt, spec

from foreword.backbone.attention import paged_attention
from foreword.backbone.batch import collate
from foreword.backbone.frozen_model import FrozenModel
from foreword.backbone.generation.greedy_search import generate
from foreword.backbone.kv_cache import PagedKVCache
from foreword.prompts.template import Row
from foreword.prompts.tokens import EmbeddingPrefix, KVPrefix
from foreword.serving.detokenizer import Detokenizer
from foreword.serving.model_runner import Chunk, ModelRunner
from foreword.serving.request import Request
from foreword.serving.sampling import SamplingParams
from foreword.serving.sampling_state import SamplingState
from foreword.serving.sequence import Sequence
from foreword.serving.slot_table import PrefixSlots, SlotTable
from foreword.serving.stop_strings import StopStrings
from foreword.specs import Window

FAMILIES = ["llama", "llama-grouped", "gpt2", "gemma3_text", "gemma2", "gpt_oss", "mistral"]
STEPS = 12


def kv(model: FrozenModel, length: int, seed: int, window: Window = "pinned") -> KVPrefix:
    made = spec("p-tuning-v2", length, window=window)
    tokens = prompt(model, made, seed)()
    assert isinstance(tokens, KVPrefix)
    return tokens


class Line:
    """Sequences over one cache whose slots are handed out one after another, in an order that mixes them."""

    def __init__(self, model: FrozenModel) -> None:
        self.model, self.runner = model, ModelRunner(PagedKVCache(model.shape, 2000, model.dtype, model.device))
        self._next = 1
        self._prefixes: dict[int, PrefixSlots] = {}

    def slots(self, count: int) -> tuple[int, ...]:
        self._next += count
        return tuple(range(self._next - count, self._next))[::-1]

    def sequence(self, row: Row, tokens: KVPrefix | EmbeddingPrefix | None) -> Sequence:
        sequence = Sequence(
            request=Request("r", None, {}),
            task=None,
            model=self.model,
            prompt=row,
            num_prompt_tokens=0,
            max_tokens=STEPS,
            eos_tokens=frozenset(),
            sampling=SamplingState(SamplingParams(), row.ids),
            detokenizer=Detokenizer(self.model.tokenizer.decode, StopStrings(()), strip=False),
            emit=lambda _: None,
        )
        if isinstance(tokens, EmbeddingPrefix):
            sequence.soft = tokens
        if isinstance(tokens, KVPrefix):
            if id(tokens) not in self._prefixes:
                self._prefixes[id(tokens)] = made = PrefixSlots(self.slots(tokens.length), pinned=tokens.window == "pinned")
                self.runner.cache.put(torch.tensor(made.slots), tokens)
            sequence.table = SlotTable(self._prefixes[id(tokens)])
        return sequence

    def step(self, parts: list[tuple[Sequence, int]]) -> None:
        """So many more inputs of each sequence; those that are read to the end get their next token."""
        chunks = [Chunk(each, each.num_computed, min(each.num_computed + count, len(each.inputs))) for each, count in parts]
        for chunk in chunks:
            missing = chunk.sequence.table.first + chunk.end - chunk.sequence.table.length
            chunk.sequence.table.extend(self.slots(max(missing, 0)))
        logits = iter(self.runner.run(chunks))
        for chunk in chunks:
            chunk.sequence.num_computed = chunk.end
            if chunk.last:
                chunk.sequence.append(int(next(logits).argmax()))


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("window", ["pinned", "model"])
@pytest.mark.parametrize("chunk", [1, 3, 100])
def test_steps_are_greedy_generation(family: str, window: Window, chunk: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(paged_attention, "MAX_QUERIES", 5)
    monkeypatch.setattr(paged_attention, "MIN_SHARED", 3)
    monkeypatch.setattr(paged_attention, "SHORT", 2)
    model = tiny.frozen(family)
    first, second = kv(model, 3, 1, window), kv(model, 5, 2, window)
    soft = prompt(model, spec("prompt-tuning", 2), 3)()
    assert isinstance(soft, EmbeddingPrefix)
    rows = [Row((1, 40, 41)), Row((1, 42, 43, 44, 45, 46, 47)), Row((1, 50)), Row((1, 51, 52, 53), (1, 4)), Row((1, 54, 55)), Row((1, 56))]
    tokens = [first, second, None, soft, first, first]
    expected = [generate(model, collate([row]), [each], max_new_tokens=STEPS, stop=())[0] for row, each in zip(rows, tokens, strict=True)]
    line = Line(model)
    sequences = [line.sequence(row, each) for row, each in zip(rows, tokens, strict=True)]
    waiting = list(sequences)
    while any(len(each.tokens) < STEPS for each in sequences):
        begun = sequences[: len(sequences) - len(waiting) + 2]  # two more join at a time
        waiting = sequences[len(begun) :]
        line.step([(each, 1 if each.tokens else chunk) for each in begun if len(each.tokens) < STEPS])
    assert [each.tokens for each in sequences] == expected


def test_a_sequence_reads_what_another_stores_in_the_same_step() -> None:
    model = tiny.frozen("llama-grouped")
    ids = (1, *range(40, 60))
    expected = generate(model, collate([Row((*ids, 70, 71))]), None, max_new_tokens=3, stop=())[0]
    line = Line(model)
    first, second = line.sequence(Row((*ids, 72)), None), line.sequence(Row((*ids, 70, 71)), None)
    shared = line.slots(len(ids))
    first.table.extend(shared)
    second.table.extend(shared)
    second.num_computed = len(ids)
    line.step([(first, 100), (second, 100)])
    for _ in range(2):
        line.step([(first, 1), (second, 1)])
    assert second.tokens == expected


def test_logits_are_computed_where_they_are_needed() -> None:
    model = tiny.frozen("llama")
    line = Line(model)
    whole, part, asked = (line.sequence(Row((1, 40, 41, 42)), None) for _ in range(3))
    asked.next_prompt_logits = 1
    for each in (whole, part, asked):
        each.table.extend(line.slots(4))
    logits = line.runner.run([Chunk(whole, 0, 4), Chunk(part, 0, 2), Chunk(asked, 0, 3)])
    assert len(logits) == 1 + 0 + 2
    asked.num_computed = 3
    assert torch.allclose(line.runner.run([Chunk(asked, 3, 4)])[-1], logits[0], atol=1e-5)
