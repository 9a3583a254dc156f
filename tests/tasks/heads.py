"""What tests of head tasks share: a random head, and a short training that must lower the loss."""

from __future__ import annotations

import tiny
import tiny_encoders
import torch

from foreword.backbone.frozen import FrozenModel
from foreword.backbone.learned import Learned
from foreword.prompts.head import Head
from foreword.tasks.base import Example, Prediction, Reading, Task, reading
from foreword.tasks.judge import predictions

FAMILIES = ("llama", "bert")


def tiny_model(family: str) -> FrozenModel:
    return tiny_encoders.frozen(family) if family in tiny_encoders.TINY else tiny.frozen(family)


def ready(task: Task, family: str, budget: int | None = None) -> tuple[Task, FrozenModel, Reading, Learned]:
    """A task on a tiny model with a random head, reading at most `budget` tokens."""
    model = tiny_model(family)
    suited = task.suited(model, None)
    assert suited.head is not None
    how = reading(None, model)
    return suited, model, how if budget is None else Reading(0, budget), Learned(None, Head(suited.head, model.shape.hidden, seed=3))


def answers(task: Task, model: FrozenModel, how: Reading, learned: Learned, rows: list[Example], batch_size: int) -> list[Prediction]:
    questions = [task.ask(row, model, how, truncate=False)[0] for row in rows]
    return predictions(task, model, learned, questions, batch_size)


def gradient(task: Task, model: FrozenModel, how: Reading, learned: Learned, rows: list[Example]) -> torch.Tensor:
    """The gradient of the head's weights for the mean loss of examples."""
    lessons = [lesson for row in rows for lesson in task.lessons(row, model, how)[0]]
    costs = task.losses(model, learned, lessons)
    assert len(costs.losses) == sum(costs.sizes) and len(costs.sizes) == len(lessons)
    (found,) = torch.autograd.grad(costs.losses.mean(), [learned.needed_head().weight])
    return found
