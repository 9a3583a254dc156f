"""From a relative learning rate to each parameter's own: how far does one sign step move the prompt?"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from foreword.prompts.soft_prompt import SoftPrompt
from foreword.recipe import Recipe
from foreword.specs import PromptSpec, Site

# Relative steps by site and re-parameterisation, from sweeps on Gemma-3-270M (LOG.md). A network moves all virtual tokens together, and moves
# further as its last layer grows from zero, so it wants a smaller first step than a free table; most of all before every layer.
RATES: dict[Site, dict[str, float]] = {
    "input": {"direct": 0.03, "mlp": 0.02, "lstm": 0.02},
    "kv": {"direct": 0.03, "mlp": 0.005, "lstm": 0.005},
}

# AdamW's own rates for what is not a prompt. A head's inputs are scaled to RMS 1, so one rate fits every model; LoRA's and full fine-tuning's
# are those of their papers' small-data settings, for runs of a few hundred steps.
HEAD_RATE = 0.003
LORA_RATE = 5e-4
FULL_RATE = 3e-5


def weights_rate(recipe: Recipe) -> float:
    """The rate of trained weights when a plan names none."""
    return FULL_RATE if recipe.full else LORA_RATE


def default_rate(spec: PromptSpec) -> float:
    """The relative learning rate of a plan that names none."""
    return RATES[spec.site][spec.reparam.kind]


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
