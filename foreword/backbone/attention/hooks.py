"""Hooks that are passed through a forward pass as the keyword `foreword` to every attention of the model."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from torch import Tensor, nn


@runtime_checkable
class AttentionHook(Protocol):
    """Changes the keys, values and mask that attentions read."""

    def extend(self, module: nn.Module, key: Tensor, value: Tensor, mask: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Keys, values and mask for this attention."""
        ...


@runtime_checkable
class AttentionBackend(Protocol):
    """Computes plain attention itself, where a model runs over SDPA."""

    def attention(self, module: nn.Module, query: Tensor, key: Tensor, value: Tensor, scaling: float | None) -> Tensor:
        """softmax(q·kᵀ·scaling)·v over all keys of this attention, [B, T, A, D]."""
        ...
