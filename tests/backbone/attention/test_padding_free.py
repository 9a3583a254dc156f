"""Batches without their pads: layers get real tokens alone, and every answer and gradient is that of rows side by side."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

import pytest
import tiny
import tiny_encoders
import torch
from contract import given, given_encoders
from torch import Tensor

from foreword.backbone import frozen_model
from foreword.backbone.attention.padding_free import remove_padding
from foreword.backbone.batch import Batch, collate
from foreword.backbone.frozen_model import FrozenModel
from foreword.methods import METHODS
from foreword.prompts.soft_prompt import SoftPrompt
from foreword.prompts.template import Row

LENGTHS = (3, 24, 9, 5)
WINDOW: dict[str, dict[str, Any]] = {
    "gemma3_text": {"sliding_window": 64},
    "modernbert": {"local_attention": 64},
}  # none ends within these rows
CAUSAL = ("llama", "gpt2", "gpt_bigcode", "opt", "qwen3_moe", "gemma3_text")
ENCODERS = ("bert", "roberta", "distilbert", "albert", "electra", "modernbert")
METHOD = ("prompt-tuning", "p-tuning-v2")


def causal(name: str) -> FrozenModel:
    return tiny.build(name, **WINDOW.get(name, {}))


def encoder(name: str) -> FrozenModel:
    return tiny_encoders.build(name, **WINDOW.get(name, {}))


def batch_of(model: FrozenModel, soft: SoftPrompt | None, side: Any = "left") -> Batch:
    """Rows of very different lengths; the last two tokens of each have labels."""
    at = 4 if soft is not None and soft.spec.site == "input" else 0
    rows = []
    for seed, length in enumerate(LENGTHS):
        ids = given.words(length, seed)
        rows.append(given.labelled(ids, (0,) * at, (*(-100,) * (length - 2), *ids[-2:])))
    return collate(rows, pad=model.tokenizer.pad or 0, side=side)


@contextmanager
def watched(*, without: bool = False) -> Iterator[list[Any]]:
    """What becomes of the inputs of each pass; `without`, pads stay."""
    met: list[Any] = []

    def noted(network: Any, shape: Any, inputs: dict[str, Any], mask: Tensor) -> Any:
        found = (inputs, None) if without else remove_padding(network, shape, inputs, mask)
        met.append(found)
        return found

    with patch.object(frozen_model, "remove_padding", noted):
        yield met


def both(soft: SoftPrompt, look: Callable[[Any], Tensor]) -> tuple[list[Tensor], list[Any]]:
    """What is seen, and the gradient that it gives the prompt: without pads, then side by side."""
    found, met = [], []
    for without in (False, True):
        soft.zero_grad()
        with watched(without=without) as noted:
            seen = look(soft())
        (seen.float().square().mean() + seen.float().sum() * 0.01).backward()
        gradients = torch.cat([p.grad.flatten() for p in soft.parameters() if p.grad is not None])
        found += [seen.detach(), gradients / gradients.abs().max()]
        met += noted
    return found, met


def agree(found: list[Tensor], met: list[Any], soft: SoftPrompt) -> None:
    (inputs, flat), (_, none) = met
    real = sum(LENGTHS) + len(LENGTHS) * (4 if soft.spec.site == "input" else 0)
    assert flat is not None and none is None
    assert next(iter(inputs.values())).shape[:2] == (1, real), "nothing but real tokens goes through the layers"
    assert given.distance(found[0], found[2]) < given.TOLERANCE and given.distance(found[1], found[3]) < given.TOLERANCE


@pytest.mark.parametrize("method", METHOD)
@pytest.mark.parametrize("name", CAUSAL)
def test_logits_and_gradients_are_those_of_rows_side_by_side(name: str, method: str) -> None:
    model = causal(name)
    soft = given.prompt(model, given.spec(method))
    batch = batch_of(model, soft)
    found, met = both(soft, lambda read: model.predicting(batch, read, batch.labels >= 0))
    agree(found, met, soft)
    assert found[0].shape == (2 * len(LENGTHS), model.shape.vocabulary)


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("method", METHOD)
@pytest.mark.parametrize("name", [*ENCODERS, "gemma3_text"])
def test_states_and_gradients_are_those_of_rows_side_by_side(name: str, method: str, side: str) -> None:
    model = encoder(name) if name in ENCODERS else causal(name)
    soft = given.prompt(model, given.spec(method))
    batch = batch_of(model, soft, side)
    found, met = both(soft, lambda read: model.hidden(batch, read)[batch.mask])
    agree(found, met, soft)
    assert found[0].shape == (sum(LENGTHS), model.shape.hidden)


@pytest.mark.parametrize("method", METHODS)
def test_pads_are_removed_from_rows_with_prompts_of_their_own(method: str) -> None:
    model = causal("llama")
    soft = given.prompt(model, given.spec(method))
    at = (0,) * 4 if soft.spec.site == "input" else ()
    rows = [Row(given.words(length, length), at if index % 2 else ()) for index, length in enumerate(LENGTHS)]
    batch = collate(rows, pad=model.tokenizer.pad or 0)
    with torch.no_grad():
        reads = [soft() if index % 2 else None for index in range(len(rows))]
        with watched() as met:
            together = model.hidden(batch, reads)
        assert met[0][1] is not None
        for b, (row, read) in enumerate(zip(rows, reads, strict=True)):
            assert given.distance(together[b][batch.mask[b]], model.hidden(collate([row]), read)[0]) < given.TOLERANCE


def test_pads_are_removed_from_checkpointed_layers_too() -> None:
    model = encoder("bert")
    soft = given.prompt(model, given.spec("p-tuning-v2"))
    batch = batch_of(model, soft)
    gradients = []
    for on in (False, True):
        soft.zero_grad()
        with model.gradient_checkpointing(on):
            model.hidden(batch, soft())[batch.mask].square().mean().backward()
        gradients.append(torch.cat([p.grad.flatten() for p in soft.parameters() if p.grad is not None]))
    assert torch.equal(*gradients)


@pytest.mark.parametrize(
    ("model", "lengths", "why"),
    [
        (lambda: causal("llama"), (24, 24, 23), "hardly a pad"),
        (lambda: tiny.frozen("gemma3_text"), LENGTHS, "a sliding window ends within the rows"),
        (lambda: tiny_encoders.frozen("modernbert"), LENGTHS, "a local attention ends within the rows"),
        (lambda: tiny.frozen("gemma2"), LENGTHS, "its attention caps scores, which SDPA cannot"),
        (lambda: tiny_encoders.frozen("mpnet"), LENGTHS, "its attention is its own"),
    ],
)
def test_pads_stay_where_a_pass_without_them_would_not_do(model: Callable[[], FrozenModel], lengths: tuple[int, ...], why: str) -> None:
    made = model()
    rows = [given_encoders.text("bert", length) if made.shape.kind == "encoder" else Row(given.words(length)) for length in lengths]
    with torch.no_grad(), watched() as met:
        made.hidden(collate([Row(row.ids) for row in rows], pad=made.tokenizer.pad or 0))
    assert [flat for _, flat in met] == [None], why
