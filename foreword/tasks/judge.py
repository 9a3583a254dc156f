"""Scores of what was learned on examples: predictions against targets, and the loss of the right answer."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch

from foreword.backbone.frozen import FrozenModel
from foreword.backbone.learned import Learned
from foreword.tasks import metrics
from foreword.tasks.base import Example, Lesson, Prediction, Question, Reading, Task
from foreword.tasks.headed import HeadTask
from foreword.tasks.metrics import Score
from foreword.tasks.placed import of_each

Tick = Callable[[int], None]
Found = TypeVar("Found")


@dataclass(frozen=True)
class Exam:
    """Examples rendered once: questions to predict, lessons (with answers) for the loss, targets, and how many texts were cut."""

    questions: list[Question]
    lessons: list[Lesson]
    targets: list[str]
    cut: int

    @classmethod
    def prepare(cls, task: Task, model: FrozenModel, how: Reading, examples: Sequence[Example], *, truncate: bool) -> Exam:
        room = max(of_each(examples, lambda example: task.answer_length(example, model)), default=0)
        asked = of_each(examples, lambda example: task.ask(example, model, how, truncate=truncate, room=room))
        taught = of_each(examples, lambda example: task.lessons(example, model, how))
        return cls(
            [question for question, _ in asked],
            [lesson for lessons, _ in taught for lesson in lessons],
            [example[task.target] for example in examples],
            sum(cut for _, cut in asked),
        )

    def paired(self) -> list[tuple[Question, list[Lesson]]] | None:
        """Each question with its lessons, where these stand on its own rows; None where an answer stands in the row, too."""
        left, found = iter(self.lessons), []
        for question in self.questions:
            mine, rows = [], []
            while len(rows) < len(question.rows) and (lesson := next(left, None)) is not None:
                mine.append(lesson)
                rows += lesson.rows
            if [(row.ids, row.at, row.types) for row in rows] != [(row.ids, row.at, row.types) for row in question.rows]:
                return None
            found.append((question, mine))
        return found


def predictions(
    task: Task, model: FrozenModel, learned: Learned, questions: Sequence[Question], batch_size: int, tick: Tick | None = None
) -> list[Prediction]:
    """Predictions in the order of the questions."""
    return _in_order(questions, lambda order: task.predict(model, learned, [questions[i] for i in order], batch_size), tick)


def judge(task: Task, model: FrozenModel, learned: Learned, exam: Exam, *, batch_size: int, tick: Tick | None = None) -> dict[str, Score]:
    """The task's metrics, and `loss`: mean nats per labelled token of a lesson, averaged over lessons."""
    if isinstance(task, HeadTask) and (asked := exam.paired()) is not None:
        both = _in_order(exam.questions, lambda order: task.judged(model, learned, [asked[i] for i in order], batch_size), tick)
        answers, costs = [answer for answer, _ in both], [cost for _, its in both for cost in its]
    else:
        answers = predictions(task, model, learned, exam.questions, batch_size, tick)
        if all(answer.losses for answer in answers):  # labels were all scored already: no second pass
            costs = [answer.losses[target] for answer, target in zip(answers, exam.targets, strict=True)]
        else:
            costs = list(losses(task, model, learned, exam.lessons, batch_size))
    return {**task.score(answers, exam.targets), "loss": metrics.mean(costs)}


def losses(task: Task, model: FrozenModel, learned: Learned, lessons: Sequence[Lesson], batch_size: int) -> Iterator[float]:
    """Mean loss of each lesson, shortest first."""
    order = _by_length(lessons)
    for begin in range(0, len(order), batch_size):
        with torch.inference_mode():  # around the work only: a generator's caller keeps its own mode
            costs = task.losses(model, learned, [lessons[i] for i in order[begin : begin + batch_size]])
            found = [float(part.mean()) for part in costs.losses.cpu().split(costs.sizes)]
        yield from found


def _in_order(questions: Sequence[Question], answer: Callable[[list[int]], Iterator[Found]], tick: Tick | None) -> list[Found]:
    """What is found for each question, computed shortest first so that batches hold few pads."""
    order = _by_length(questions)
    found: dict[int, Found] = {}
    for index, one in zip(order, answer(order), strict=True):
        found[index] = one
        if tick is not None:
            tick(1)
    return [found[i] for i in range(len(questions))]


def _by_length(things: Sequence[Lesson] | Sequence[Question]) -> list[int]:
    return sorted(range(len(things)), key=lambda i: things[i].num_tokens)
