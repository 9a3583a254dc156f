"""What may travel through a forward pass as the keyword `foreword`, and is handed to every attention of the model."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from torch import Tensor, nn


@runtime_checkable
class AttentionHook(Protocol):
    """Changes what attentions read."""

    def extend(self, module: nn.Module, key: Tensor, value: Tensor, mask: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Keys, values and mask as this attention is to see them."""
        ...


@runtime_checkable
class AttentionBackend(Protocol):
    """Computes plain attention itself, where a model runs over SDPA."""

    def attention(self, module: nn.Module, query: Tensor, key: Tensor, value: Tensor, scaling: float | None) -> Tensor:
        """softmax(q·kᵀ·scaling)·v over everything this attention is to see, [B, T, A, D]."""
        ...
