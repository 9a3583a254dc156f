"""Greedy generation, step by step, over transformers' own cache; any mix of prompts in one left-padded batch."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import replace

import torch
from transformers import DynamicCache

from foreword.backbone.attention import Attachment
from foreword.backbone.batch import Batch
from foreword.backbone.frozen import FrozenModel, Tokens
from foreword.errors import DataError


def steps(model: FrozenModel, batch: Batch, tokens: Tokens, *, max_new_tokens: int, stop: Collection[int]) -> Iterator[list[int | None]]:
    """Yield the next token of each row, None for rows that have stopped (the stop token itself is not yielded).

    Raises DataError for a row without any token.
    """
    with torch.inference_mode():  # around the work only: a generator's caller keeps its own mode
        ready = model.prepare(batch, tokens)
    if not bool(ready.mask.any(1).all()):
        raise DataError(
            "a row holds no token, so there is nothing to go on from; put {bos} or words into the template, or drop empty texts."
        )
    assert bool(ready.mask[:, -1].all()), "rows must end in their last column: collate them on the left"
    inputs, mask = ready.inputs, ready.mask
    positions = inputs["position_ids"][:, -1:]
    attachment: Attachment | None = inputs.get("foreword")
    cache = DynamicCache(config=model.network.config)
    # An index, not the slice that a plain 1 makes: on a CPU a sliced batch meets the output matrix as B copies of it (see LOG.md).
    last = torch.tensor([-1], device=model.device)
    alive = torch.ones(len(mask), dtype=torch.bool)
    stops = torch.tensor(sorted(stop), dtype=torch.long)
    for _ in range(max_new_tokens):
        with torch.inference_mode():
            chosen = model.network(**inputs, past_key_values=cache, use_cache=True, logits_to_keep=last).logits[:, -1].argmax(-1)
        alive &= ~torch.isin(chosen.cpu(), stops)
        if not bool(alive.any()):
            return
        yield [int(token) if live else None for token, live in zip(chosen.tolist(), alive.tolist(), strict=True)]
        mask = torch.cat([mask, mask.new_ones(len(mask), 1)], 1)
        positions = positions + 1
        inputs = {"input_ids": chosen[:, None], "attention_mask": mask.long(), "position_ids": positions}
        if attachment is not None:
            inputs["foreword"] = replace(attachment, positions=positions)


def generate(model: FrozenModel, batch: Batch, tokens: Tokens, *, max_new_tokens: int, stop: Collection[int]) -> list[list[int]]:
    """All new tokens of each row."""
    found: list[list[int]] = [[] for _ in range(len(batch.ids))]
    for step in steps(model, batch, tokens, max_new_tokens=max_new_tokens, stop=stop):
        for row, token in zip(found, step, strict=True):
            if token is not None:
                row.append(token)
    return found
