"""A task's head: one linear layer on the frozen model's last states, trained and saved with the prompt."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import torch
from jaxtyping import Float
from torch import Tensor, nn


@dataclass(frozen=True)
class HeadSpec:
    """`outputs` logits for each state; heads of causal models have no bias, as in transformers."""

    outputs: int
    bias: bool = True


@final
class Head(nn.Module):
    """logits = W·(x / scale) + b in fp32, W [C, H].

    `scale` [H] is the RMS of each number of real states, so that one learning rate fits every model; `bake` folds it into W.
    """

    scale: Tensor

    def __init__(self, spec: HeadSpec, hidden: int, *, seed: int = 0) -> None:
        super().__init__()
        self.spec = spec
        generator = torch.Generator().manual_seed(seed)
        self.weight = nn.Parameter(torch.randn(spec.outputs, hidden, generator=generator) * hidden**-0.5)
        self.bias = nn.Parameter(torch.zeros(spec.outputs)) if spec.bias else None
        self.register_buffer("scale", torch.ones(hidden))

    def forward(self, states: Float[Tensor, "*N H"]) -> Float[Tensor, "*N C"]:
        return nn.functional.linear(states.float() / self.scale, self.weight, self.bias)

    @torch.no_grad()
    def measure(self, states: Float[Tensor, "N H"]) -> None:
        """Set the scale from real states; channels that hardly vary are not amplified."""
        rms = states.float().square().mean(0).sqrt()
        self.scale.copy_(rms.clamp_min(float(rms.mean()) / 100).clamp_min(1e-6))

    @torch.no_grad()
    def bake(self) -> dict[str, Tensor]:
        """Plain `weight` [C, H] and `bias` [C] on raw states, as they are saved."""
        baked = {"weight": (self.weight / self.scale).detach().clone()}
        return baked if self.bias is None else {**baked, "bias": self.bias.detach().clone()}

    @classmethod
    def read(cls, baked: dict[str, Tensor]) -> Head:
        """The head of baked weights, with a scale of one."""
        weight, bias = baked["weight"], baked.get("bias")
        head = cls(HeadSpec(weight.shape[0], bias is not None), weight.shape[1])
        with torch.no_grad():
            head.weight.copy_(weight)
            if head.bias is not None and bias is not None:
                head.bias.copy_(bias)
        return head.requires_grad_(False)
