"""Requests whose answers are given whole: tasks with heads share batches, whatever their tasks; label words go task by task."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from foreword.backbone.frozen import FrozenModel
from foreword.errors import ForewordError
from foreword.serving.request import Answer, Done, Event, Failed, Request
from foreword.serving.resident import Resident
from foreword.tasks.base import Prediction, Question
from foreword.tasks.headed import HeadTask
from foreword.tasks.judge import predictions
from foreword.tasks.together import Asked, predict_together

BATCH = 32


@dataclass(frozen=True, eq=False)
class Whole:
    """A request and its task, which is in memory."""

    request: Request
    task: Resident
    emit: Callable[[Event], None]


def answer(model: FrozenModel, items: Sequence[Whole]) -> None:
    """Answer all; a request that cannot be read, or a fault in one task, fails no other."""
    ready = [(item, question) for item in items if (question := _question(item)) is not None]
    mixed = [(item, question) for item, question in ready if isinstance(item.task.task, HeadTask) and item.task.model is model]
    if len({item.task.key for item, _ in mixed}) > 1 and _mixed(model, mixed):
        ready = [pair for pair in ready if pair not in mixed]
    by_task: dict[Resident, list[tuple[Whole, Question]]] = {}
    for pair in ready:
        by_task.setdefault(pair[0].task, []).append(pair)
    for task, pairs in by_task.items():
        try:
            found = predictions(task.task, task.model, task.learned, [question for _, question in pairs], BATCH)
        except Exception as error:  # a fault in one task must not stop the engine
            for item, _ in pairs:
                item.emit(Failed("engine", f"the step failed ({type(error).__name__}: {error})."))
            continue
        _tell(pairs, found)


def _question(item: Whole) -> Question | None:
    task = item.task
    try:
        return task.task.ask(item.request.example, task.model, task.how, truncate=item.request.truncate)[0]
    except ForewordError as error:
        item.emit(Failed("request", str(error)))
        return None


def _mixed(model: FrozenModel, pairs: Sequence[tuple[Whole, Question]]) -> bool:
    """Answer several tasks in the same batches; False where that failed, so that each is tried by itself."""
    asked = [Asked(item.task.task, item.task.learned, question) for item, question in pairs if isinstance(item.task.task, HeadTask)]
    try:
        found = predict_together(model, asked, BATCH)
    except Exception:  # which task it was shows when each is answered alone
        return False
    _tell(pairs, found)
    return True


def _tell(pairs: Sequence[tuple[Whole, Question]], found: Sequence[Prediction]) -> None:
    for (item, question), each in zip(pairs, found, strict=True):
        item.emit(Answer(each.text, each.value, each.scores))
        item.emit(Done("stop", sum(len(row.ids) for row in question.rows), 0))
