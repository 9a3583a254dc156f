"""Law: windows. Beyond a sliding window a prefix fades as the model's own tokens do ("model"), or stays ("pinned")."""

from __future__ import annotations

from dataclasses import replace

import pytest
import tiny
import torch
from contract.given import TOLERANCE, distance, reference, stock, tokens, words
from contract.laws import law
from torch import Tensor
from transformers import DynamicCache

from foreword.backbone.batch import collate
from foreword.prompts.template import Row
from foreword.prompts.tokens import KVPrefix

FAR = 40  # tokens: further than windows of 6 reach through three layers
LENGTHS = [3, tiny.WINDOW, 2 * tiny.WINDOW]


def prefix(name: str, method: str, length: int) -> KVPrefix:
    read = tokens(name, method, length)
    assert isinstance(read, KVPrefix)
    return read


def band(count: int, window: int | None, length: int) -> Tensor:
    """Additive mask [1, 1, T, P+T]: causal, within the window, and the whole prefix always."""
    distances = torch.arange(count)[:, None] - torch.arange(count)
    seen = (distances >= 0) & (distances < (window or count))
    whole = torch.cat([torch.ones(count, length, dtype=torch.bool), seen], 1)
    return torch.zeros(whole.shape).masked_fill(~whole, torch.finfo(torch.float32).min)[None, None]


@torch.no_grad()
def pinned_reference(name: str, ids: tuple[int, ...], read: KVPrefix) -> Tensor:
    """Stock transformers with a filled cache and masks drawn by hand."""
    network = stock(name)
    full, sliding = (band(len(ids), window, read.length) for window in (None, tiny.WINDOW))
    windows = {layer.window for layer in tiny.frozen(name).shape.kv}
    mask = {"full_attention": full, "sliding_attention": sliding} if None in windows else sliding
    cache = DynamicCache([(read.keys[i][None], read.values[i][None]) for i in sorted(read.keys)])
    positions = torch.arange(len(ids))[None] + read.length
    return network(torch.tensor([ids]), attention_mask=mask, position_ids=positions, past_key_values=cache).logits[0]


@pytest.mark.parametrize("length", LENGTHS)
@law("windows")
def test_a_fading_prefix_equals_the_models_own_cache(method: str, name: str, length: int) -> None:
    read, row = replace(prefix(name, method, length), window="model"), Row(words(FAR))
    ours = tiny.frozen(name).forward(collate([row]), read)[0]
    assert distance(ours, reference(name, row, read)) < TOLERANCE


@pytest.mark.parametrize("length", LENGTHS)
@law("windows")
def test_a_pinned_prefix_is_seen_by_every_token(method: str, name: str, length: int) -> None:
    read, row = prefix(name, method, length), Row(words(FAR))
    ours = tiny.frozen(name).forward(collate([row]), read)[0]
    assert distance(ours, pinned_reference(name, row.ids, read)) < TOLERANCE


@law("windows")
def test_far_behind_the_window_only_a_pinned_prefix_has_effect(method: str, name: str) -> None:
    """One sliding layer has the prefix, all others are bare; text far away feels it only if it is pinned, or through layers without a window."""
    model, read = tiny.frozen(name), prefix(name, method, 4)
    sliding = [i for i, layer in enumerate(model.shape.kv) if layer.window is not None]
    last = sliding[-1]
    one = KVPrefix({last: read.keys[last]}, {last: read.values[last]}, "pinned")
    other = KVPrefix({last: -read.keys[last]}, {last: -read.values[last]}, "pinned")
    batch = collate([Row(words(FAR))])
    pinned, pinned_other, fading, fading_other = (
        model.forward(batch, read)[0, -1] for read in (one, other, replace(one, window="model"), replace(other, window="model"))
    )
    assert distance(pinned, pinned_other) > 0.01
    if last == model.shape.num_layers - 1:
        assert torch.equal(fading, fading_other)
