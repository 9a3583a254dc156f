"""Default learning rates: by trained part, and by task and kind of base model where runs on real data found a better one."""

from __future__ import annotations

from collections.abc import Mapping

from foreword.recipe import Recipe
from foreword.shape import Kind
from foreword.specs import PromptSpec

# Of soft prompts, by site and by whether a network makes them, relative to the RMS of the model's own values at this site (sweeps on
# Gemma-3-270M, LOG.md). A network moves all virtual tokens together, and moves further as its last layer grows from zero, so it wants a smaller
# first step than a free table; most of all before every layer. The others are AdamW's own: a head's inputs are scaled to RMS 1, so one rate
# fits every model; LoRA's and full fine-tuning's are those of their papers' small-data settings, for runs of a few hundred steps.
RATES: Mapping[str, float] = {
    "input/direct": 0.03,
    "input/network": 0.02,
    "kv/direct": 0.03,
    "kv/network": 0.005,
    "lora": 5e-4,
    "full": 3e-5,
    "head": 0.003,
    "head-only": 0.003,
}

# Where rates were searched on real data, the one with the best validation loss (benchmarks/nlu.py, LOG.md): by task and kind of base model.
FITTED: Mapping[tuple[str, Kind], Mapping[str, float]] = {
    ("tag", "causal"): {"kv/direct": 0.09, "lora": 1.5e-3, "head-only": 0.009},
    ("tag", "encoder"): {"kv/direct": 0.09, "lora": 1.5e-3, "full": 9e-5, "head-only": 0.009},
    ("classify-head", "encoder"): {"input/direct": 0.09, "lora": 1.5e-3, "head-only": 0.009},
}


def prompt_part(spec: PromptSpec) -> str:
    """The name of a soft prompt here: its site, and whether a network makes it."""
    return f"{spec.site}/{'direct' if spec.reparam.kind == 'direct' else 'network'}"


def main_part(recipe: Recipe) -> str:
    """The part that a plan's learning rate is for: the prompt if there is one, else trained weights, else the head."""
    if recipe.prompt:
        return prompt_part(recipe.prompt)
    return "full" if recipe.full else "lora" if recipe.trains else "head-only"


def rate_of(part: str, task: str, kind: Kind) -> float:
    """The rate of one part, for a task (by its kind) on a kind of base model."""
    return FITTED.get((task, kind), {}).get(part, RATES[part])
