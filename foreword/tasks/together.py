"""Questions of several tasks with heads in the same batches: one pass of the frozen model, then each task's own head."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from foreword.backbone.frozen import FrozenModel
from foreword.backbone.learned import Learned
from foreword.tasks.base import Prediction, Question
from foreword.tasks.headed import HeadTask, Seen, look


@dataclass(frozen=True, eq=False)
class Asked:
    """A question for one of the tasks."""

    task: HeadTask
    learned: Learned
    question: Question


def predict_together(model: FrozenModel, asked: Sequence[Asked], batch_size: int) -> list[Prediction]:
    """Predictions in the order of the questions, equal to what `predict` of each task gives; computed shortest first, so that batches hold few pads."""
    order = sorted(range(len(asked)), key=lambda i: asked[i].question.num_tokens)
    found: dict[int, Prediction] = {}
    for part in _runs(asked, order, batch_size):
        with torch.inference_mode():
            found |= _read(model, asked, part, batch_size)
    return [found[i] for i in range(len(asked))]


def _runs(asked: Sequence[Asked], order: Sequence[int], batch_size: int) -> list[list[int]]:
    """Questions in runs of at most `batch_size` rows, where none has more by itself."""
    runs: list[list[int]] = []
    room = 0
    for index in order:
        size = len(asked[index].question.rows)
        if size > room or not runs:
            runs.append([])
            room = batch_size
        runs[-1].append(index)
        room -= size
    return runs


def _read(model: FrozenModel, asked: Sequence[Asked], part: Sequence[int], batch_size: int) -> dict[int, Prediction]:
    rows = [row for i in part for row in asked[i].question.rows]
    tokens = [asked[i].learned.tokens for i in part for _ in asked[i].question.rows]
    pieces = [look(model, tokens[at : at + batch_size], rows[at : at + batch_size]) for at in range(0, len(rows), batch_size)]
    seen, groups, begin = Seen.joined(pieces), dict[int, list[int]](), 0
    places: dict[int, range] = {}
    for i in part:
        groups.setdefault(id(asked[i].learned), []).append(i)
        places[i] = range(begin, begin + len(asked[i].question.rows))
        begin = places[i].stop
    found: dict[int, Prediction] = {}
    for members in groups.values():
        one = asked[members[0]]
        mine = seen.of([place for i in members for place in places[i]])
        answers = one.task.read(one.learned.needed_head(), [asked[i].question for i in members], mine)
        found |= dict(zip(members, answers, strict=True))
    return found
