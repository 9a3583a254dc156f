"""Greedy generation, step by step, over transformers' own cache; any mix of prompts in one batch."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from transformers import LogitsProcessorList, NoBadWordsLogitsProcessor

from foreword.backbone.attention.kv_prefix import PrefixAttachment
from foreword.backbone.batch import Batch
from foreword.backbone.frozen_model import FrozenModel
from foreword.backbone.model_inputs import ModelInputs, Tokens
from foreword.errors import DataError

Advance = Callable[[dict[str, Any], Any, Tensor], dict[str, Any]]


def steps(model: FrozenModel, batch: Batch, tokens: Tokens, *, max_new_tokens: int, stop: Collection[int]) -> Iterator[list[int | None]]:
    """Yield the next token of each row, None for rows that have stopped (the stop token itself is not yielded).

    Raises DataError for a row without any token.
    """
    with torch.inference_mode():  # around the computation only, so that the caller of the generator keeps its own mode
        ready = model.prepare(batch, tokens)
    advance, inputs = _answering(model) if model.shape.kind == "encoder-decoder" else _continuing(model, ready), ready.inputs
    alive = torch.ones(len(ready.mask), dtype=torch.bool)
    stops = torch.tensor(sorted(stop), dtype=torch.long)
    never = _never(model)
    generated = torch.empty(len(alive), 0, dtype=torch.long, device=model.device)
    for _ in range(max_new_tokens):
        with torch.inference_mode():
            out = model.network(**inputs, use_cache=True)
            chosen = never(generated, out.logits[:, -1]).argmax(-1)  # type: ignore[arg-type]  # outputs are typed as optional
        alive &= ~torch.isin(chosen.cpu(), stops)
        if not bool(alive.any()):
            return
        yield [int(token) if live else None for token, live in zip(chosen.tolist(), alive.tolist(), strict=True)]
        generated = torch.cat([generated, chosen[:, None]], 1)
        inputs = advance(inputs, out, chosen[:, None])


def _continuing(model: FrozenModel, ready: ModelInputs) -> Advance:
    """The next inputs of a causal model: one token, one position and one more column in the mask."""
    if not bool(ready.mask.any(1).all()):
        raise DataError("a row has no token to continue from; put {bos} or words into the template, or remove empty texts.")
    assert bool(ready.mask[:, -1].all()), "rows must end in their last column: collate them on the left"
    # An index, not the slice that a plain 1 makes: on a CPU a sliced batch meets the output matrix as B copies of it (see LOG.md).
    ready.inputs["logits_to_keep"] = torch.tensor([-1], device=model.device)

    def advance(inputs: dict[str, Any], out: Any, chosen: Tensor) -> dict[str, Any]:
        mask, positions = inputs["attention_mask"], inputs["position_ids"][:, -1:] + 1
        after = {
            "input_ids": chosen,
            "attention_mask": torch.cat([mask, mask.new_ones(len(mask), 1)], 1),
            "position_ids": positions,
            "past_key_values": out.past_key_values,
            "logits_to_keep": inputs["logits_to_keep"],
        }
        attachment: PrefixAttachment | None = inputs.get("foreword")
        return after if attachment is None else {**after, "foreword": replace(attachment, positions=positions)}

    return advance


def _answering(model: FrozenModel) -> Advance:
    """The next inputs of an encoder–decoder: the encoder's outputs are kept."""

    def advance(inputs: dict[str, Any], out: Any, chosen: Tensor) -> dict[str, Any]:
        return {
            "decoder_input_ids": chosen,
            "encoder_outputs": (out.encoder_last_hidden_state,),
            "past_key_values": out.past_key_values,
            **{name: inputs[name] for name in ("attention_mask", "foreword") if name in inputs},
        }

    return advance


def _never(model: FrozenModel) -> LogitsProcessorList:
    """Tokens that a checkpoint never generates (Marian's pad)."""
    bad = model.network.generation_config.bad_words_ids  # type: ignore[union-attr]  # typed as optional; models that write have one
    return LogitsProcessorList([NoBadWordsLogitsProcessor(bad)] if bad else [])


def generate(model: FrozenModel, batch: Batch, tokens: Tokens, *, max_new_tokens: int, stop: Collection[int]) -> list[list[int]]:
    """All new tokens of each row."""
    found: list[list[int]] = [[] for _ in range(len(batch.ids))]
    for step in steps(model, batch, tokens, max_new_tokens=max_new_tokens, stop=stop):
        for row, token in zip(found, step, strict=True):
            if token is not None:
                row.append(token)
    return found
