"""Law: baked. What is saved is the prompt without its re-parameterisation, and it says the same."""

from __future__ import annotations

import tiny
import torch
from contract.given import distance, prompt, row_for, spec, words
from contract.laws import law

from foreword.backbone.batch import collate
from foreword.prompts.soft_prompt import as_tokens


@law("baked")
def test_baked_equals_unbaked(method: str, name: str) -> None:
    model, made = tiny.frozen(name), spec(method)
    soft = prompt(model, made)
    flat = soft.bake()
    assert flat.shape == (made.length, made.width(model.shape)) and not flat.requires_grad
    assert distance(flat, soft.origin) > 0.01, "the re-parameterisation must add something, or this proves nothing"
    batch = collate([row_for(soft(), words(count)) for count in (5, 9)])
    with torch.no_grad():
        ours, truth = model.forward(batch, as_tokens(flat, made, model.shape)), model.forward(batch, soft())
    assert distance(ours[batch.mask], truth[batch.mask]) < 1e-5
