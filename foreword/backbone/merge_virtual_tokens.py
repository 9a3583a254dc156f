"""Merging virtual tokens into a batch: pure functions on tensors. `merge` inserts them, the `text` columns leave them out again."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor


@dataclass(frozen=True)
class Merged:
    """The sequence the base model sees, N = T + P columns: `text` [B, T] gives the column of each of the caller's tokens."""

    embeds: Float[Tensor, "B N E"]
    mask: Bool[Tensor, "B N"]
    text: Int[Tensor, "B T"]


def merge(text: Float[Tensor, "B T E"], mask: Bool[Tensor, "B T"], soft: Float[Tensor, "B P E"], at: Int[Tensor, "B P"]) -> Merged:
    """Put soft token j before text column at[j]; -1 is an absent soft token and becomes a pad in front."""
    soft_at, text_at = columns(at, text.shape[1])
    order = torch.cat([soft_at, text_at], 1).argsort(1)  # the inverse permutation: the source of each column
    both = torch.cat([soft.to(text.dtype), text], 1)
    embeds = both.gather(1, order[:, :, None].expand(-1, -1, both.shape[2]))
    return Merged(embeds, torch.cat([at >= 0, mask], 1).gather(1, order), text_at)


def columns(at: Int[Tensor, "B P"], width: int) -> tuple[Int[Tensor, "B P"], Int[Tensor, "B T"]]:
    """The column of each soft token and of each of `width` text tokens once both are merged."""
    place = at.clamp_min(0)
    text = torch.arange(width, device=at.device).expand(len(at), -1)
    return place + torch.arange(at.shape[1], device=at.device), text + (place[:, :, None] <= text[:, None, :]).sum(1)


def positions(mask: Bool[Tensor, "B N"], start: Int[Tensor, " B"]) -> Int[Tensor, "B N"]:
    """Position ids that count real tokens only, from `start` (the length of a kv prefix)."""
    return (mask.long().cumsum(1) - 1).clamp_min(0) + start[:, None]
