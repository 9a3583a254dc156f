"""Re-parameterisations: modules that turn their own parameters into a displacement [P, W] from the initial values, in units of the RMS of the model's own values."""

from __future__ import annotations

from typing import final

import torch
from jaxtyping import Float
from torch import Tensor, nn

from foreword.specs import Reparam


@final
class Direct(nn.Module):
    """A free table, the displacement itself."""

    def __init__(self, length: int, width: int) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.zeros(length, width))

    def forward(self) -> Float[Tensor, "P W"]:
        return self.table


@final
class MLP(nn.Module):
    """Li & Liang 2021, §4.3: e [P, H'] → tanh(e·A) → ·B, shared by all virtual tokens. Differs: B starts at zero, so training starts at the initial values."""

    def __init__(self, length: int, width: int, hidden: int) -> None:
        super().__init__()
        self.embedding = nn.Parameter(torch.randn(length, hidden))
        self.inner = nn.Linear(hidden, hidden)
        self.outer = nn.Linear(hidden, width)
        _zero(self.outer)

    def forward(self) -> Float[Tensor, "P W"]:
        return self.outer(torch.tanh(self.inner(self.embedding)))


@final
class LSTM(nn.Module):
    """Liu et al. 2021, §3: e [P, H'] → bidirectional LSTM → ReLU MLP, so that neighbouring soft tokens depend on each other. Differs as MLP does."""

    def __init__(self, length: int, width: int, hidden: int, layers: int) -> None:
        super().__init__()
        self.embedding = nn.Parameter(torch.randn(length, hidden))
        self.lstm = nn.LSTM(hidden, (hidden + 1) // 2, layers, bidirectional=True, batch_first=True)
        self.inner = nn.Linear(2 * ((hidden + 1) // 2), hidden)
        self.outer = nn.Linear(hidden, width)
        self._centre()
        _zero(self.outer)

    @torch.no_grad()
    def _centre(self) -> None:
        """Let the ReLU see mean 0 and RMS 1 over the virtual tokens; torch's biases are larger than the differences between them, and all would move alike."""
        seen = self.lstm(self.embedding[None])[0][0] @ self.inner.weight.T
        if len(seen) > 1:
            size = (seen - seen.mean(0)).square().mean().sqrt()
            self.inner.weight.div_(size)
            self.inner.bias.copy_(-seen.mean(0) / size)

    def forward(self) -> Float[Tensor, "P W"]:
        states, _ = self.lstm(self.embedding[None])
        return self.outer(torch.relu(self.inner(states[0])))


def _zero(layer: nn.Linear) -> None:
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)


def build(spec: Reparam, length: int, width: int) -> nn.Module:
    """The module that a `Reparam` names."""
    if spec.kind == "mlp":
        return MLP(length, width, spec.hidden)
    if spec.kind == "lstm":
        return LSTM(length, width, spec.hidden, spec.layers)
    return Direct(length, width)
