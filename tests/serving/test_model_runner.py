"""Steps over the shared pool and the rows of the KV cache give what greedy generation gives, for mixed prompts, on every kind of attention."""

from __future__ import annotations

import pytest
import tiny
import torch
from contract.given import prompt, spec

from foreword.backbone.batch import collate
from foreword.backbone.frozen_model import FrozenModel
from foreword.backbone.generation.greedy_search import generate
from foreword.prompts.template import Row
from foreword.prompts.tokens import EmbeddingPrefix, KVPrefix
from foreword.serving.model_runner import ModelRunner
from foreword.serving.slot_table import SlotTable
from foreword.specs import Window

FAMILIES = ["llama", "llama-grouped", "gpt2", "gemma3_text", "gemma2", "gpt_oss", "mistral"]
STEPS = 12


def kv(model: FrozenModel, length: int, seed: int, window: Window = "pinned") -> KVPrefix:
    made = spec("p-tuning-v2", length, window=window)
    tokens = prompt(model, made, seed)()
    assert isinstance(tokens, KVPrefix)
    return tokens


def served(runner: ModelRunner, rows: list[Row], tokens: list[KVPrefix | EmbeddingPrefix | None], steps: int) -> list[list[int]]:
    """Greedy tokens, all sequences at once; equal prefixes are stored once."""
    tables: dict[int, SlotTable] = {}
    for each in tokens:
        if isinstance(each, KVPrefix) and id(each) not in tables:
            begin, count = runner.kv_pool.capacity, each.length
            runner.kv_pool.resize(begin + count)
            runner.kv_pool.put(torch.arange(begin, begin + count), each)
            tables[id(each)] = SlotTable(tuple(range(begin, begin + count)), tuple(range(count)), (each.window == "pinned",) * count)
    shared = [tables.get(id(each), SlotTable()) for each in tokens]
    soft = [each if isinstance(each, EmbeddingPrefix) else None for each in tokens]
    logits, counts, offset = runner.prefill(rows, soft, shared, 0)
    found = [[int(token)] for token in logits.argmax(-1)]
    context, starts = runner.context(shared), torch.tensor(counts)
    for _ in range(steps - 1):
        runner.reserve(int(starts.max()) + 1)
        logits = runner.decode(torch.tensor([row[-1] for row in found]), context, starts, torch.tensor(offset))
        starts = starts + 1
        for row, token in zip(found, logits.argmax(-1).tolist(), strict=True):
            row.append(token)
    return found


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("window", ["pinned", "model"])
def test_steps_are_greedy_generation(family: str, window: Window) -> None:
    model = tiny.frozen(family)
    first, second = kv(model, 3, 1, window), kv(model, 5, 2, window)
    made = spec("prompt-tuning", 2)
    soft = prompt(model, made, 3)()
    assert isinstance(soft, EmbeddingPrefix)
    rows = [Row((1, 40, 41)), Row((1, 42, 43, 44, 45, 46, 47)), Row((1, 50)), Row((1, 51, 52, 53), (1, 4)), Row((1, 54, 55))]
    tokens = [first, second, None, soft, first]
    expected = [generate(model, collate([row]), [each], max_new_tokens=STEPS, stop=())[0] for row, each in zip(rows, tokens, strict=True)]
    assert served(ModelRunner(model, max_sequences=8, length=4), rows, tokens, STEPS) == expected


def test_rows_of_one_task_read_it_together() -> None:
    model = tiny.frozen("llama-grouped")
    shared = kv(model, 4, 1)
    rows = [Row((1, 40 + i, 41, *range(42, 42 + i))) for i in range(4)]
    expected = [generate(model, collate([row]), shared, max_new_tokens=STEPS, stop=())[0] for row in rows]
    runner = ModelRunner(model, max_sequences=8, length=64)
    assert served(runner, rows, [shared] * 4, STEPS) == expected
    assert runner.kv_pool.capacity == 4


def test_a_sequence_may_move() -> None:
    model = tiny.frozen("llama")
    rows = [Row((1, 40, 41, 42)), Row((1, 43, 44))]
    runner = ModelRunner(model, max_sequences=4, length=32)
    logits, counts, offset = runner.prefill(rows, [None, None], [SlotTable(), SlotTable()], 0)
    expected = runner.decode(logits.argmax(-1), None, torch.tensor(counts), torch.tensor(offset))[1]
    runner.kv_cache.move(1, 0, counts[1])
    moved = runner.decode(logits.argmax(-1)[1:], None, torch.tensor(counts[1:]), torch.tensor(offset[1:]))[0]
    assert torch.allclose(moved, expected, atol=1e-5)
