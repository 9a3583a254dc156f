"""What tests of head tasks share: a random head, and a short training that must lower the loss."""

from __future__ import annotations

import tiny
import tiny_encoders
import torch

from foreword.backbone.adapter_state import AdapterState
from foreword.backbone.frozen_model import FrozenModel
from foreword.prompts.head import Head
from foreword.tasks.base import Example, LengthBudget, Prediction, Task, budget_for
from foreword.tasks.evaluation_loop import predictions

FAMILIES = ("llama", "bert")


def tiny_model(family: str) -> FrozenModel:
    return tiny_encoders.frozen(family) if family in tiny_encoders.TINY else tiny.frozen(family)


def ready(task: Task, family: str, budget: int | None = None) -> tuple[Task, FrozenModel, LengthBudget, AdapterState]:
    """A task on a tiny model with a random head, reading at most `budget` tokens."""
    model = tiny_model(family)
    task_for_model = task.for_model(model.info, None)
    assert task_for_model.head is not None
    length_budget = budget_for(None, model.info)
    return (
        task_for_model,
        model,
        length_budget if budget is None else LengthBudget(0, budget),
        AdapterState(None, Head(task_for_model.head, model.shape.hidden, seed=3)),
    )


def answers(
    task: Task, model: FrozenModel, length_budget: LengthBudget, adapter_state: AdapterState, rows: list[Example], batch_size: int
) -> list[Prediction]:
    eval_features = [task.eval_feature(row, model.info, length_budget, truncate=False)[0] for row in rows]
    return predictions(task, model, adapter_state, eval_features, batch_size)


def gradient(task: Task, model: FrozenModel, length_budget: LengthBudget, adapter_state: AdapterState, rows: list[Example]) -> torch.Tensor:
    """The gradient of the head's weights for the mean loss of examples."""
    train_features = [train_feature for row in rows for train_feature in task.train_features(row, model.info, length_budget)[0]]
    costs = task.losses(model, adapter_state, train_features)
    assert len(costs.losses) == sum(costs.sizes) and len(costs.sizes) == len(train_features)
    (found,) = torch.autograd.grad(costs.losses.mean(), [adapter_state.needed_head().weight])
    return found
