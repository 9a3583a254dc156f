"""Attention over a part of the keys, with the log-sum-exp of its scores, and the merge of two parts into the attention over both.

    m = log(exp(m₁) + exp(m₂)),  o = exp(m₁ - m)·o₁ + exp(m₂ - m)·o₂

Hydragen (arXiv:2402.05099) and FlashInfer's cascade (arXiv:2501.01005) share prefixes this way.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

KERNEL_DEVICE = "cpu"  # where SDPA's own kernel returns the log-sum-exp too


def attention_with_lse(
    query: Float[Tensor, "B K R D"],
    key: Float[Tensor, "B K N D"],
    value: Float[Tensor, "B K N D"],
    mask: Float[Tensor, "B 1 R N"] | Float[Tensor, "B 1 1 N"] | None,
    scaling: float,
) -> tuple[Float[Tensor, "B K R D"], Float[Tensor, "B K R"]]:
    """softmax(q·kᵀ·scaling + mask)·v and the log-sum-exp of the scores, in fp32. Every query must see at least one key."""
    if query.device.type == KERNEL_DEVICE:
        bias = None if mask is None else mask.to(query.dtype).expand(-1, -1, query.shape[2], -1)
        return torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(query, key, value, 0.0, False, attn_mask=bias, scale=scaling)
    scores = torch.matmul(query, key.transpose(2, 3)).float() * scaling
    scores = scores if mask is None else scores + mask.float()
    return torch.matmul(scores.softmax(-1).to(value.dtype), value), scores.logsumexp(-1)


def merge(
    first: tuple[Float[Tensor, "B K R D"], Float[Tensor, "B K R"]], second: tuple[Float[Tensor, "B K R D"], Float[Tensor, "B K R"]]
) -> Float[Tensor, "B K R D"]:
    """The attention over the keys of both parts."""
    share = torch.sigmoid(second[1].float() - first[1].float())[..., None]  # exp(m₂ - m)
    return torch.lerp(first[0].float(), second[0].float(), share).to(first[0].dtype)
