"""Law: generated. Greedy text in a batch = one by one = step by step without a cache; without a prompt it is transformers' own."""

from __future__ import annotations

import pytest
import tiny
import torch
from contract.given import row_for, stock, tokens, words
from contract.laws import law

from foreword.backbone.batch import collate
from foreword.backbone.frozen_model import FrozenModel
from foreword.backbone.generation.greedy_search import generate, steps
from foreword.methods import METHODS
from foreword.prompts.template import Row
from foreword.prompts.tokens import VirtualTokens

NEW = 10  # with the texts below, further than any window


@torch.no_grad()
def most_likely(model: FrozenModel, row: Row, read: VirtualTokens | None, new: list[int]) -> list[int]:
    """The most likely token at each place of `new`, read behind the row in one pass without a cache: `new` itself, if it is greedy."""
    whole = Row((*row.ids, *new[:-1]), row.at)
    return model.forward(collate([whole]), read)[0, len(row.ids) - 1 :].argmax(-1).tolist()


@law("generated")
def test_generation_in_a_batch_is_greedy_for_every_row(method: str, name: str) -> None:
    model = tiny.frozen(name)
    reads = [tokens(name, method, 4), None, tokens(name, method, 7, window="model"), tokens(name, "prompt-tuning", 2)]
    rows = [row_for(read, (tiny.BOS, *words(count, count))) for read, count in zip(reads, (2, 9, 5, 3), strict=True)]
    together = generate(model, collate(rows), reads, max_new_tokens=NEW, stop=())
    assert [len(new) for new in together] == [NEW] * 4
    for row, read, new in zip(rows, reads, together, strict=True):
        assert most_likely(model, row, read, new) == new
    assert generate(model, collate(rows[:1]), reads[0], max_new_tokens=NEW, stop=()) == together[:1]


def test_a_prompt_changes_what_is_said() -> None:
    """Else the law above would prove little."""
    reads = [None, *(tokens("llama", method) for method in METHODS)]
    said = [generate(tiny.frozen("llama"), collate([row_for(read, words(5))]), read, max_new_tokens=NEW, stop=()) for read in reads]
    assert len({tuple(new) for (new,) in said}) == len(said)


@pytest.mark.parametrize("name", tiny.TINY)
def test_generation_without_a_prompt_is_transformers_own(name: str) -> None:
    rows = [Row((tiny.BOS, *words(count, count))) for count in (3, 11, 6)]
    batch = collate(rows, pad=tiny.PAD)
    inputs = {"input_ids": batch.ids, "attention_mask": batch.mask.long()}
    truth = stock(name).generate(**inputs, max_new_tokens=NEW, do_sample=False, eos_token_id=None, pad_token_id=tiny.PAD)
    assert generate(tiny.frozen(name), batch, None, max_new_tokens=NEW, stop=()) == truth[:, batch.ids.shape[1] :].tolist()


def test_a_row_ends_before_its_stop_token_while_others_go_on() -> None:
    model, read = tiny.frozen("gemma3_text"), tokens("gemma3_text", "prefix-tuning")
    batch = collate([Row((tiny.BOS, *words(count, count))) for count in (4, 7)])
    free = generate(model, batch, read, max_new_tokens=NEW, stop=())
    cut = next(i for i, token in enumerate(free[0]) if i and token not in free[1])
    stopped = generate(model, batch, read, max_new_tokens=NEW, stop=[free[0][cut]])
    assert stopped == [free[0][: free[0].index(free[0][cut])], free[1]]
    assert generate(model, batch, read, max_new_tokens=NEW, stop={free[0][0], free[1][0]}) == [[], []]
    assert len(list(steps(model, batch, read, max_new_tokens=3, stop=()))) == 3


def test_rows_padded_on_the_right_are_an_error() -> None:
    batch = collate([Row(words(2)), Row(words(5))], side="right")
    with pytest.raises(AssertionError, match="rows must end in their last column: collate them on the left"):
        generate(tiny.frozen("llama"), batch, None, max_new_tokens=1, stop=())
