"""The interface of attention observers, and what they get."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Float, Int
from torch import Tensor

from foreword.shape import Part


@dataclass(frozen=True)
class AttentionCall:
    """One attention of one forward pass, with N queries and S keys, virtual tokens among them; all tensors are detached.

    Args:
        slot: The attention's index in `ModelShape.kv`. ALBERT's layers share one, so a pass meets it several times.
        part: Which part of the model it belongs to.
        query, key, value: As the attention uses them: rotated, and with the prefix in front.
        output: The weighted values of each head.
        tokens: The query of each of the caller's tokens; -1 at pads and at tokens that this part does not read.
        virtual: The key of each virtual token; -1 where a row has fewer, or none in this attention.
        compute_weights: Gives `weights`.
    """

    slot: int
    part: Part
    query: Float[Tensor, "B A N D"]
    key: Float[Tensor, "B K S D"]
    value: Float[Tensor, "B K S O"]
    output: Float[Tensor, "B N A O"]
    tokens: Int[Tensor, "B T"]
    virtual: Int[Tensor, "B P"]
    compute_weights: Callable[[], Float[Tensor, "B A N S"]]

    @cached_property
    def weights(self) -> Float[Tensor, "B A N S"]:
        """The attention's probabilities; those of a query sum to 1, less what an attention sink of the model takes."""
        with torch.no_grad():
            return self.compute_weights().detach()


class AttentionObserver:
    """Looks at forward passes (`observers=` of `FrozenModel`), one at a time; this one does nothing."""

    def begin(self, virtual_tokens: int, attentions: int) -> None:
        """A pass begins: the number of virtual tokens of its longest prompt, and of attentions of the model."""

    def masked(self, slot: int) -> Collection[int]:
        """The virtual tokens that are masked for all queries of this attention."""
        return ()

    def observe(self, call: AttentionCall) -> None:
        """An attention has run; once for each, whatever gradient checkpointing computes again."""
