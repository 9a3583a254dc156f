"""Scores of a prompt on examples: predictions against targets, and the loss of the right answer."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch

from foreword.backbone.batch import collate
from foreword.backbone.frozen import FrozenModel
from foreword.prompts.template import Row
from foreword.prompts.tokens import VirtualTokens
from foreword.tasks import metrics
from foreword.tasks.base import Example, Prediction, Reading, Task, token_losses
from foreword.tasks.metrics import Score

Tick = Callable[[int], None]


@dataclass(frozen=True)
class Exam:
    """Examples rendered once: questions to predict, lessons (with answers) for the loss, targets, and how many texts were cut."""

    questions: list[Row]
    lessons: list[Row]
    targets: list[str]
    cut: int

    @classmethod
    def prepare(cls, task: Task, model: FrozenModel, how: Reading, examples: Sequence[Example], *, truncate: bool) -> Exam:
        room = max((len(task.answer(example, model)) for example in examples), default=0)
        asked = [task.question(example, model, how, truncate=truncate, room=room) for example in examples]
        taught = [task.lesson(example, model, how) for example in examples]
        return cls(
            [row for row, _ in asked],
            [row for row, _ in taught],
            [example[task.target] for example in examples],
            sum(cut for _, cut in asked),
        )


def predictions(
    task: Task, model: FrozenModel, tokens: VirtualTokens | None, rows: Sequence[Row], batch_size: int, tick: Tick | None = None
) -> list[Prediction]:
    """Predictions in the order of the rows, computed shortest first so that batches hold few pads."""
    found: dict[int, Prediction] = {}
    for index, prediction in zip(
        _by_length(rows), task.predict(model, tokens, [rows[i] for i in _by_length(rows)], batch_size), strict=True
    ):
        found[index] = prediction
        if tick is not None:
            tick(1)
    return [found[i] for i in range(len(rows))]


def judge(
    task: Task, model: FrozenModel, tokens: VirtualTokens | None, exam: Exam, *, batch_size: int, tick: Tick | None = None
) -> dict[str, Score]:
    """The task's metrics, and `loss`: mean nats per answer token, averaged over examples."""
    answers = predictions(task, model, tokens, exam.questions, batch_size, tick)
    if all(answer.losses for answer in answers):  # labels were all scored already: no second pass
        costs = [answer.losses[target] for answer, target in zip(answers, exam.targets, strict=True)]
    else:
        costs = list(losses(model, tokens, exam.lessons, batch_size))
    return {**task.score(answers, exam.targets), "loss": metrics.mean(costs)}


@torch.inference_mode()
def losses(model: FrozenModel, tokens: VirtualTokens | None, lessons: Sequence[Row], batch_size: int) -> Iterator[float]:
    """Mean nats per labelled token of each row, shortest first."""
    order = _by_length(lessons)
    for begin in range(0, len(order), batch_size):
        rows = [lessons[i] for i in order[begin : begin + batch_size]]
        batch = collate(rows, pad=model.tokenizer.pad)
        each = token_losses(model, batch, tokens).cpu().split((batch.labels >= 0).sum(1).tolist())
        yield from (float(part.mean()) for part in each)


def _by_length(rows: Sequence[Row]) -> list[int]:
    return sorted(range(len(rows)), key=lambda i: rows[i].num_tokens)
