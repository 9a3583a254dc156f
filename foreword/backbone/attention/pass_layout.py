"""The columns of the caller's tokens and of a prompt's virtual tokens in one forward pass."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from foreword.backbone import merge_virtual_tokens
from foreword.shape import ModelShape, Part


@dataclass(frozen=True)
class PassLayout:
    """By part of the model: the query column [B, T] of each of the caller's tokens, and the key column [B, P] of each embedding of a prompt.

    -1 at pads, at tokens that the part does not read, and where a row has fewer virtual tokens.
    """

    tokens: Mapping[Part, Int[Tensor, "B T"]]
    embeddings: Mapping[Part, Int[Tensor, "B P"]]

    @classmethod
    def empty(cls, shape: ModelShape) -> PassLayout:
        """The layout of a pass without a batch of the caller."""
        none = torch.zeros(1, 0, dtype=torch.long)
        return cls(dict.fromkeys(shape.parts, none), dict.fromkeys(shape.parts, none))


def one_stack(mask: Bool[Tensor, "B T"], at: Int[Tensor, "B P"]) -> PassLayout:
    """The layout of a model of one stack, which reads all tokens."""
    soft, text = merge_virtual_tokens.columns(at, mask.shape[1])
    return PassLayout({"self": text.where(mask, -1)}, {"self": _in_order(soft, at)})


def two_stacks(mask: Bool[Tensor, "B T"], at: Int[Tensor, "B P"], answer: Bool[Tensor, "B T"], opening: int) -> PassLayout:
    """The layout of an encoder–decoder: pads and `answer` are taken out of the source, whose columns are also the keys of cross-attention;
    `opening` tokens stand before the answer.
    """
    source = mask & ~answer
    soft, text = merge_virtual_tokens.columns(at, mask.shape[1])
    kept = torch.zeros(len(mask), mask.shape[1] + at.shape[1], dtype=torch.bool, device=mask.device)
    kept = kept.scatter(1, text, source).scatter(1, soft, at >= 0)
    packed = kept.long().cumsum(1) - 1
    read, soft = packed.gather(1, text).where(source, -1), _in_order(packed.gather(1, soft), at)
    generated = (answer.long().cumsum(1) - 1 + opening).where(answer, -1)
    return PassLayout(
        {"encoder": read, "decoder": generated, "cross": generated}, {"encoder": soft, "cross": soft, "decoder": torch.full_like(soft, -1)}
    )


def _in_order(columns: Int[Tensor, "B P"], at: Int[Tensor, "B P"]) -> Int[Tensor, "B P"]:
    """A row's columns from its first virtual token on; absent ones, which a batch has in front, come last as -1."""
    count = (at >= 0).sum(1, keepdim=True)
    index = torch.arange(at.shape[1], device=at.device) + at.shape[1] - count
    return columns.gather(1, index.clamp_max(max(at.shape[1] - 1, 0))).where(index < at.shape[1], -1)
