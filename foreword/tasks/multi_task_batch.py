"""Eval features of several tasks with heads in the same batches: one pass of the frozen model, then each task's own head."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from foreword.backbone.adapter_state import AdapterState
from foreword.backbone.frozen_model import FrozenModel
from foreword.tasks.base import EvalFeature, Prediction
from foreword.tasks.head_task import HeadInputs, HeadTask, read_inputs


@dataclass(frozen=True, eq=False)
class Asked:
    """An eval feature of one of the tasks."""

    task: HeadTask
    adapter_state: AdapterState
    eval_feature: EvalFeature


def predict_together(model: FrozenModel, asked: Sequence[Asked], batch_size: int) -> list[Prediction]:
    """Predictions in the order of what is asked, equal to what `predict` of each task gives; computed shortest first, so that batches have few pads."""
    order = sorted(range(len(asked)), key=lambda i: asked[i].eval_feature.num_tokens)
    found: dict[int, Prediction] = {}
    for part in _runs(asked, order, batch_size):
        with torch.inference_mode():
            found |= _read(model, asked, part, batch_size)
    return [found[i] for i in range(len(asked))]


def _runs(asked: Sequence[Asked], order: Sequence[int], batch_size: int) -> list[list[int]]:
    """Eval features in runs of at most `batch_size` rows, where none has more by itself."""
    runs: list[list[int]] = []
    free_rows = 0
    for index in order:
        size = len(asked[index].eval_feature.rows)
        if size > free_rows or not runs:
            runs.append([])
            free_rows = batch_size
        runs[-1].append(index)
        free_rows -= size
    return runs


def _read(model: FrozenModel, asked: Sequence[Asked], part: Sequence[int], batch_size: int) -> dict[int, Prediction]:
    rows = [row for i in part for row in asked[i].eval_feature.rows]
    tokens = [asked[i].adapter_state.tokens for i in part for _ in asked[i].eval_feature.rows]
    parts = [read_inputs(model, tokens[at : at + batch_size], rows[at : at + batch_size]) for at in range(0, len(rows), batch_size)]
    inputs, groups, begin = HeadInputs.concatenate(parts), dict[int, list[int]](), 0
    places: dict[int, range] = {}
    for i in part:
        groups.setdefault(id(asked[i].adapter_state), []).append(i)
        places[i] = range(begin, begin + len(asked[i].eval_feature.rows))
        begin = places[i].stop
    found: dict[int, Prediction] = {}
    for members in groups.values():
        one = asked[members[0]]
        mine = inputs.select([place for i in members for place in places[i]])
        answers = one.task.head_predictions(one.adapter_state.needed_head(), [asked[i].eval_feature for i in members], mine)
        found |= dict(zip(members, answers, strict=True))
    return found
