"""From a relative learning rate to each parameter's own: how far does one sign step move the prompt?"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from foreword.prompts.soft_prompt import SoftPrompt


def gain(prompt: SoftPrompt, *, step: float = 1e-4, seed: int = 0) -> float:
    """RMS movement of the displacement per unit of an Adam-like (sign) step on all parameters, along a random direction of loss.

    1 for a direct table. For an MLP it grows with the width: 5e-5 through Li & Liang's network moves keys and values as 5e-3 does directly,
    which is why published rates differ a hundredfold and agree here.
    """
    parameters = [p for p in prompt.reparam.parameters() if p.requires_grad]
    generator = torch.Generator().manual_seed(seed)
    before = prompt.reparam()
    pull = torch.randn(before.shape, generator=generator).to(before.device)
    gradients = torch.autograd.grad((before * pull).sum(), parameters, allow_unused=True)
    with torch.no_grad():
        before = before.clone()  # a direct table is its own parameter
        saved = [p.clone() for p in parameters]
        _move(parameters, gradients, step)
        moved = (prompt.reparam() - before).square().mean().sqrt().item() / step
        for parameter, old in zip(parameters, saved, strict=True):
            parameter.copy_(old)
    return moved


def _move(parameters: list[nn.Parameter], gradients: tuple[Tensor | None, ...], step: float) -> None:
    for parameter, gradient in zip(parameters, gradients, strict=True):
        if gradient is not None:
            parameter.add_(gradient.sign(), alpha=-step)


def absolute_rate(prompt: SoftPrompt, relative: float) -> float:
    """The optimiser's learning rate at which one step moves the prompt by `relative` of its target's RMS."""
    return relative / max(gain(prompt), 1e-6)
