"""On a causal model a leading input-level prompt is a KV prefix: one forward pass over everything before the example's own text."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor
from transformers import DynamicCache

from foreword.backbone.batch import Batch, collate
from foreword.backbone.frozen_model import FrozenModel
from foreword.errors import ModelError
from foreword.families.registry import family_of
from foreword.prompts.template import Row
from foreword.prompts.tokens import EmbeddingPrefix, KVPrefix, unflatten_kv
from foreword.shape import ModelShape


def read_cache(cache: DynamicCache, shape: ModelShape, *, skip: int = 0) -> Float[Tensor, "N W"]:
    """The keys and values of a one-row cache as the flat form, without the first `skip` tokens."""
    parts = []
    for layer in cache.layers[: shape.num_layers]:
        pair = torch.stack([layer.keys[0], layer.values[0]])[:, :, skip:]  # type: ignore[index]  # a filled layer; [2, K, N, D]
        parts.append(pair.permute(2, 0, 1, 3).reshape(pair.shape[2], -1))
    return torch.cat(parts, dim=1)


@torch.no_grad()
def compile_prompt(model: FrozenModel, prompt: EmbeddingPrefix, row: Row) -> tuple[KVPrefix, int]:
    """The KV prefix of everything in `row` up to its last soft token, and how many of the row's text tokens it includes.

    The prefix holds those text tokens too (BOS, the attention sink, above all) and follows the model's sliding window, as they did.
    Raises ModelError on models that are not causal and on families without keys and values per head. The caller sees to it that `row` starts with constants only.
    """
    family = family_of(model.shape.family)
    if model.shape.kind != "causal":
        raise ModelError(
            f"a prompt of {family.title} cannot be converted to keys and values: its first states depend on the text after them; use the prompt as it is."
        )
    if "kv" not in family.sites:
        raise ModelError(f"a prompt of {family.title} cannot be converted to keys and values: {family.why_not}; use the prompt as it is.")
    swallowed = row.at[-1]
    head = Row(row.ids[:swallowed], row.at)
    batch = collate([head]) if head.ids else _only_soft(len(head.at))
    ready = model.prepare(batch, prompt)
    cache = DynamicCache()
    model.network(**ready.inputs, past_key_values=cache, use_cache=True, logits_to_keep=1)
    flat = read_cache(cache, model.shape)
    return unflatten_kv(flat, range(model.shape.num_layers), model.shape.kv, "model"), swallowed


def _only_soft(length: int) -> Batch:
    """A batch of one row that has soft tokens and no text."""
    empty = torch.zeros(1, 0, dtype=torch.long)
    return Batch(empty, empty.bool(), torch.zeros(1, length, dtype=torch.long), empty, empty.float(), empty)


def without_head(row: Row, swallowed: int) -> Row:
    """The rest of a row after its compiled beginning."""
    return Row(row.ids[swallowed:], (), row.labels[swallowed:], row.weights[swallowed:])
