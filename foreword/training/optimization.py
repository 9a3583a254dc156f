"""The optimiser and the schedule of its learning rates."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch

from foreword.training.plan import TrainPlan


def adamw(parameter_groups: list[dict[str, Any]], weight_decay: float) -> torch.optim.AdamW:
    """AdamW in one pass over memory where torch has it; in several it is a third of a step of full fine-tuning (LOG.md)."""
    fused = all(parameter.device.type in ("cpu", "cuda") for group in parameter_groups for parameter in group["params"])
    return torch.optim.AdamW(parameter_groups, weight_decay=weight_decay, fused=fused or None)


def cosine_schedule_with_warmup(step: int, plan: TrainPlan) -> float:
    """The factor of every learning rate: linear warm-up over a share of the steps, then cosine to zero; a function of the step alone."""
    warmup_steps = max(1, round(plan.warmup * plan.steps))
    if step < warmup_steps:
        return (step + 1) / warmup_steps
    return 0.5 * (1 + math.cos(math.pi * (step - warmup_steps) / max(1, plan.steps - warmup_steps)))


def set_learning_rates(optimizer: torch.optim.Optimizer, rates: Sequence[float], factor: float) -> None:
    """Give each parameter group its own rate times the schedule's factor."""
    for group, rate in zip(optimizer.param_groups, rates, strict=True):
        group["lr"] = rate * factor
