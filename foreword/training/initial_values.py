"""Set-up of a training run: the prompt from its initialiser, the head scaled to real states, LoRA or a copy of the weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from foreword.adapters.peft_lora import read_lora
from foreword.adapters.peft_prompt import read_numbers
from foreword.backbone.batch import collate
from foreword.backbone.frozen_model import FrozenModel
from foreword.backbone.model_info import ModelInfo
from foreword.backbone.weights import weight_adapters
from foreword.errors import UsageError
from foreword.families.registry import check_site
from foreword.methods import WRITTEN
from foreword.prompts import init
from foreword.prompts.head import Head, HeadSpec
from foreword.prompts.init import Material
from foreword.prompts.soft_prompt import SoftPrompt
from foreword.prompts.template import Row
from foreword.recipe import Recipe
from foreword.specs import PromptSpec
from foreword.tasks.base import Task, TrainFeature
from foreword.training.plan import TrainPlan
from foreword.training.trainable_module import TrainableModule

_PROBES = 16  # training features whose states give a head its scale


def task_for_model(task: Task, recipe: Recipe, info: ModelInfo) -> Task:
    """The task as this model reads it with what the recipe trains.

    Raises ModelError for a model that does not support this site or task, UsageError if nothing would be trained.
    """
    check_site(recipe.prompt, info.shape)
    found = task.for_model(info, recipe.prompt)
    if recipe.method in WRITTEN and found.head is not None:
        raise UsageError(
            f"method '{recipe.method}' is a written prompt, but a '{task.kind}' task has a head, which must be trained; use head-only."
        )
    if not recipe.trains and found.head is None:
        raise UsageError(f"method '{recipe.method}' trains nothing of task '{task.kind}', which has no head; evaluate it as it is.")
    return found


def check_options(plan: TrainPlan, task: Task) -> None:
    """Raise UsageError for an option of the plan that would do nothing for this task."""
    if plan.dampening and task.head is not None:
        raise UsageError(
            f"dampening is {plan.dampening}, but a '{task.kind}' task has a head, which reads a text and predicts none of its tokens; "
            "leave it at 0."
        )
    if plan.calibrate_prior and not task.has_prior:
        raise UsageError(
            f"calibrate_prior is set, but a '{task.kind}' task scores no labels by their words, so there is no prior to subtract; leave it out."
        )


def resolve_lora(recipe: Recipe, base: FrozenModel) -> tuple[Recipe, dict[str, Tensor] | None]:
    """A recipe whose LoRA starts from a saved one takes over that one's rank, scale and targets; and the saved numbers."""
    if recipe.lora is None or recipe.lora.path is None:
        return recipe, None
    spec, tensors = read_lora(recipe.lora.path, base)
    asked = recipe.lora
    return replace(recipe, lora=replace(spec, path=asked.path, frozen=asked.frozen, dropout=asked.dropout)), tensors


def setup_training(
    base: FrozenModel,
    recipe: Recipe,
    task: Task,
    material: Material,
    train_features: Sequence[TrainFeature],
    seed: int,
    lora: Mapping[str, Tensor] | None = None,
) -> tuple[FrozenModel, TrainableModule]:
    """The model with the recipe's weights, and all trained parameters at their initial values; `lora` holds the tensors of a saved LoRA.

    Initialisers use the model with LoRA: a fresh one changes nothing yet, a saved one does.
    """
    model, weight_adapter = weight_adapters.apply(base, recipe, tensors=lora, seed=seed)
    prompt = _prompt(model, recipe.prompt, material, seed) if recipe.prompt else None
    head = _head(model, task.head, train_features, seed) if task.head else None
    return model, TrainableModule(recipe, prompt, head, weight_adapter)


def _prompt(model: FrozenModel, spec: PromptSpec, material: Material, seed: int) -> SoftPrompt:
    given = read_numbers(Path(spec.init.path), model.info) if spec.init.path else None
    first = init.initial_values(spec, model, material, seed=seed, given=given)
    return SoftPrompt(spec, model.shape, first.origin, first.scale, seed=seed).to(model.device)


@torch.no_grad()
def _head(model: FrozenModel, spec: HeadSpec, train_features: Sequence[TrainFeature], seed: int) -> Head:
    head = Head(spec, model.shape.states, seed=seed).to(model.device)
    rows = [row for train_feature in train_features[:_PROBES] for row in train_feature.rows]
    batch = collate([Row(row.ids, types=row.types) for row in rows], pad=model.tokenizer.pad).to(model.device)
    head.measure(model.hidden(batch)[batch.mask])
    return head
