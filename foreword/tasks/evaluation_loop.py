"""Evaluation on examples: predictions against targets, and the loss of the right answer."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch

from foreword.backbone.adapter_state import AdapterState
from foreword.backbone.frozen_model import FrozenModel
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
    """Examples rendered once: features to predict, features with the answer for the loss (`num_losses` of them for each example), targets, and how
    many texts were truncated."""

    eval_features: list[EvalFeature]
    train_features: list[TrainFeature]
    num_losses: list[int]
    targets: list[str]
    cut: int

    @classmethod
    def prepare(cls, task: Task, info: ModelInfo, length_budget: LengthBudget, examples: Sequence[Example], *, truncate: bool) -> EvalSet:
        max_answer_tokens = max(map_rows(examples, lambda example: task.answer_length(example, info)), default=0)
        asked = map_rows(
            examples,
            lambda example: task.eval_feature(example, info, length_budget, truncate=truncate, max_answer_tokens=max_answer_tokens),
        )
        answered = [features for features, _ in map_rows(examples, lambda example: task.train_features(example, info, length_budget))]
        return cls(
            [eval_feature for eval_feature, _ in asked],
            [train_feature for train_features in answered for train_feature in train_features],
            [len(train_features) for train_features in answered],
            [example[task.target] for example in examples],
            sum(cut for _, cut in asked),
        )

    def paired(self) -> list[tuple[EvalFeature, list[TrainFeature]]] | None:
        """Each eval feature with its train features, where these have the same rows; None if the row contains the answer."""
        left, found = iter(self.train_features), []
        for eval_feature in self.eval_features:
            own, rows = [], []
            while len(rows) < len(eval_feature.rows) and (train_feature := next(left, None)) is not None:
                own.append(train_feature)
                rows += train_feature.rows
            if [(row.ids, row.at, row.types) for row in rows] != [(row.ids, row.at, row.types) for row in eval_feature.rows]:
                return None
            found.append((eval_feature, own))
        return found


def predictions(
    task: Task,
    model: FrozenModel,
    adapter_state: AdapterState,
    eval_features: Sequence[EvalFeature],
    batch_size: int,
    tick: Tick | None = None,
) -> list[Prediction]:
    """Predictions in the order of the eval features."""
    return _in_order(eval_features, lambda order: task.predict(model, adapter_state, [eval_features[i] for i in order], batch_size), tick)


@dataclass(frozen=True)
class Evaluation:
    """Scores, and the values behind them: for each example, in order, its prediction and its losses (several where a text has several windows)."""

    scores: dict[str, Score]
    predictions: list[Prediction]
    losses: list[list[float]]


def evaluate(
    task: Task, model: FrozenModel, adapter_state: AdapterState, eval_set: EvalSet, *, batch_size: int, tick: Tick | None = None
) -> dict[str, Score]:
    """The task's metrics, and `loss`: mean nats per labelled token of a train feature, averaged over train features."""
    return evaluate_examples(task, model, adapter_state, eval_set, batch_size=batch_size, tick=tick).scores


def evaluate_examples(
    task: Task, model: FrozenModel, adapter_state: AdapterState, eval_set: EvalSet, *, batch_size: int, tick: Tick | None = None
) -> Evaluation:
    """As `evaluate`, with the prediction and the losses of every example; no text is read again for them."""
    if isinstance(task, HeadTask) and (paired := eval_set.paired()) is not None:
        both = _in_order(
            eval_set.eval_features,
            lambda order: task.predict_with_losses(model, adapter_state, [paired[i] for i in order], batch_size),
            tick,
        )
        predicted, by_example = [prediction for prediction, _ in both], [found for _, found in both]
        summed = [loss for found in by_example for loss in found]
    else:
        predicted = predictions(task, model, adapter_state, eval_set.eval_features, batch_size, tick)
        if all(prediction.losses for prediction in predicted):  # labels were all scored already: no second pass
            summed = [prediction.losses[target] for prediction, target in zip(predicted, eval_set.targets, strict=True)]
            by_example = [[loss] for loss in summed]
        else:
            summed = list(losses(task, model, adapter_state, eval_set.train_features, batch_size))
            by_example = _by_example(summed, eval_set)
    scores = {**task.score(predicted, eval_set.targets), "loss": metrics.mean(summed)}
    return Evaluation(scores, predicted, by_example)


def _by_example(shortest_first: list[float], eval_set: EvalSet) -> list[list[float]]:
    """The losses of each example, from the result of `losses`."""
    placed = dict(zip(_by_length(eval_set.train_features), shortest_first, strict=True))
    in_order = iter([placed[i] for i in range(len(placed))])
    return [[next(in_order) for _ in range(count)] for count in eval_set.num_losses]


def losses(
    task: Task, model: FrozenModel, adapter_state: AdapterState, train_features: Sequence[TrainFeature], batch_size: int
) -> Iterator[float]:
    """Mean loss of each train feature, shortest first."""
    order = _by_length(train_features)
    for begin in range(0, len(order), batch_size):
        with torch.inference_mode():  # around the computation only, so that the caller of the generator keeps its own mode
            batch = task.losses(model, adapter_state, [train_features[i] for i in order[begin : begin + batch_size]])
            found = [float(part.mean()) for part in batch.losses.cpu().split(batch.sizes)]
        yield from found


def _in_order(eval_features: Sequence[EvalFeature], answer: Callable[[list[int]], Iterator[Found]], tick: Tick | None) -> list[Found]:
    """The results of eval features, computed shortest first so that batches have few pads."""
    order = _by_length(eval_features)
    found: dict[int, Found] = {}
    for index, one in zip(order, answer(order), strict=True):
        found[index] = one
        if tick is not None:
            tick(1)
    return [found[i] for i in range(len(eval_features))]


def _by_length(things: Sequence[TrainFeature] | Sequence[EvalFeature]) -> list[int]:
    return sorted(range(len(things)), key=lambda i: things[i].num_tokens)
