"""Scores of what was learned on examples: predictions against targets, and the loss of the right answer."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch

from foreword.backbone.adapter_state import AdapterState
from foreword.backbone.frozen import FrozenModel
from foreword.backbone.model_info import ModelInfo
from foreword.tasks.base import EvalFeature, Example, LengthBudget, Prediction, Task, TrainFeature
from foreword.tasks.data.row_origin import map_rows
from foreword.tasks.head_task import HeadTask
from foreword.tasks.metrics import base as metrics
from foreword.tasks.metrics.base import Score

Tick = Callable[[int], None]
Found = TypeVar("Found")


@dataclass(frozen=True)
class EvalSet:
    """Examples rendered once: questions to predict, lessons (with answers) for the loss, targets, and how many texts were cut."""

    eval_features: list[EvalFeature]
    train_features: list[TrainFeature]
    targets: list[str]
    cut: int

    @classmethod
    def prepare(cls, task: Task, info: ModelInfo, length_budget: LengthBudget, examples: Sequence[Example], *, truncate: bool) -> EvalSet:
        room = max(map_rows(examples, lambda example: task.answer_length(example, info)), default=0)
        asked = map_rows(examples, lambda example: task.eval_feature(example, info, length_budget, truncate=truncate, room=room))
        taught = map_rows(examples, lambda example: task.train_features(example, info, length_budget))
        return cls(
            [eval_feature for eval_feature, _ in asked],
            [train_feature for train_features, _ in taught for train_feature in train_features],
            [example[task.target] for example in examples],
            sum(cut for _, cut in asked),
        )

    def paired(self) -> list[tuple[EvalFeature, list[TrainFeature]]] | None:
        """Each question with its lessons, where these stand on its own rows; None where an answer stands in the row, too."""
        left, found = iter(self.train_features), []
        for eval_feature in self.eval_features:
            mine, rows = [], []
            while len(rows) < len(eval_feature.rows) and (train_feature := next(left, None)) is not None:
                mine.append(train_feature)
                rows += train_feature.rows
            if [(row.ids, row.at, row.types) for row in rows] != [(row.ids, row.at, row.types) for row in eval_feature.rows]:
                return None
            found.append((eval_feature, mine))
        return found


def predictions(
    task: Task,
    model: FrozenModel,
    adapter_state: AdapterState,
    eval_features: Sequence[EvalFeature],
    batch_size: int,
    tick: Tick | None = None,
) -> list[Prediction]:
    """Predictions in the order of the questions."""
    return _in_order(eval_features, lambda order: task.predict(model, adapter_state, [eval_features[i] for i in order], batch_size), tick)


def evaluate(
    task: Task, model: FrozenModel, adapter_state: AdapterState, eval_set: EvalSet, *, batch_size: int, tick: Tick | None = None
) -> dict[str, Score]:
    """The task's metrics, and `loss`: mean nats per labelled token of a lesson, averaged over lessons."""
    if isinstance(task, HeadTask) and (asked := eval_set.paired()) is not None:
        both = _in_order(
            eval_set.eval_features,
            lambda order: task.predict_with_losses(model, adapter_state, [asked[i] for i in order], batch_size),
            tick,
        )
        answers, costs = [answer for answer, _ in both], [cost for _, its in both for cost in its]
    else:
        answers = predictions(task, model, adapter_state, eval_set.eval_features, batch_size, tick)
        if all(answer.losses for answer in answers):  # labels were all scored already: no second pass
            costs = [answer.losses[target] for answer, target in zip(answers, eval_set.targets, strict=True)]
        else:
            costs = list(losses(task, model, adapter_state, eval_set.train_features, batch_size))
    return {**task.score(answers, eval_set.targets), "loss": metrics.mean(costs)}


def losses(
    task: Task, model: FrozenModel, adapter_state: AdapterState, train_features: Sequence[TrainFeature], batch_size: int
) -> Iterator[float]:
    """Mean loss of each lesson, shortest first."""
    order = _by_length(train_features)
    for begin in range(0, len(order), batch_size):
        with torch.inference_mode():  # around the work only: a generator's caller keeps its own mode
            costs = task.losses(model, adapter_state, [train_features[i] for i in order[begin : begin + batch_size]])
            found = [float(part.mean()) for part in costs.losses.cpu().split(costs.sizes)]
        yield from found


def _in_order(eval_features: Sequence[EvalFeature], answer: Callable[[list[int]], Iterator[Found]], tick: Tick | None) -> list[Found]:
    """What is found for each question, computed shortest first so that batches hold few pads."""
    order = _by_length(eval_features)
    found: dict[int, Found] = {}
    for index, one in zip(order, answer(order), strict=True):
        found[index] = one
        if tick is not None:
            tick(1)
    return [found[i] for i in range(len(eval_features))]


def _by_length(things: Sequence[TrainFeature] | Sequence[EvalFeature]) -> list[int]:
    return sorted(range(len(things)), key=lambda i: things[i].num_tokens)
