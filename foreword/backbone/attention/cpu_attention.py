"""Attention for training on a CPU: SDPA's backward is slow there for bf16 and for shared key/value heads (see LOG.md)."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor

_LARGEST = 1 << 20  # queries × keys above which the scores would cost more memory than the time is worth


def suits(query: Tensor, key: Tensor) -> bool:
    """Whether this function is faster: on a CPU, with gradients, not too long, and not in fp32 with as many key/value heads as query heads."""
    if query.device.type != "cpu" or not torch.is_grad_enabled() or query.shape[2] * key.shape[2] > _LARGEST:
        return False
    return query.dtype != torch.float32 or query.shape[1] != key.shape[1]


def attention(
    query: Float[Tensor, "B A T D"],
    key: Float[Tensor, "B K S D"],
    value: Float[Tensor, "B K S O"],
    mask: Bool[Tensor, "#B 1 #T S"],
    scaling: float | None,
    bias: Float[Tensor, "#B A T S"] | None = None,
) -> Float[Tensor, "B T A O"]:
    """softmax(q·kᵀ·scaling)·v with the A query heads of a key/value head packed into its rows, so keys are never repeated; softmax in fp32.

    `bias` is added to the scores of each query head. A query that sees no key gets zeros, as SDPA gives it.
    """
    batch, heads, length, _ = query.shape
    weights = attention_weights(query, key, mask, scaling, bias).to(query.dtype).view(batch, key.shape[1], -1, key.shape[2])
    found = torch.matmul(weights, value).view(batch, heads, length, -1)
    return found.masked_fill(~mask.any(3, keepdim=True), 0.0).transpose(1, 2)


def attention_weights(
    query: Float[Tensor, "B A T D"],
    key: Float[Tensor, "B K S D"],
    mask: Bool[Tensor, "#B 1 #T S"],
    scaling: float | None,
    bias: Float[Tensor, "#B A T S"] | None = None,
) -> Float[Tensor, "B A T S"]:
    """softmax(q·kᵀ·scaling) in fp32."""
    batch, heads, length, dim = query.shape
    packed = query.reshape(batch, key.shape[1], -1, dim)
    if packed.dtype == torch.float16:  # products of large states overflow there, and softmax makes NaN of two infinities
        packed, key = packed.float(), key.float()
    scores = torch.matmul(packed, key.transpose(2, 3)).float() * (dim**-0.5 if scaling is None else scaling)
    scores = scores.view(batch, heads, length, -1)
    scores = (scores if bias is None else scores + bias.float()).masked_fill(~mask, torch.finfo(torch.float32).min)
    return scores.softmax(-1)
