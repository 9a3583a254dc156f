"""Hooks that are passed through a forward pass as the keyword `foreword` to every attention of the model."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, runtime_checkable

from torch import Tensor, nn

Attend = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]  # query, key, value, mask


@runtime_checkable
class AttentionHook(Protocol):
    """Changes the keys, values and mask that attentions read."""

    def extend(self, module: nn.Module, key: Tensor, value: Tensor, mask: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Keys, values and mask for this attention."""
        ...


@runtime_checkable
class AttentionBackend(Protocol):
    """Computes attention itself."""

    def attention(
        self, module: nn.Module, query: Tensor, key: Tensor, value: Tensor, scaling: float | None, attend: Attend | None
    ) -> Tensor:
        """Attention over all keys of this module, [B, T, A, D]: plain softmax(q·kᵀ·scaling)·v, or `attend` where the family has its own."""
        ...
