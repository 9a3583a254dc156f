"""Pooling: answers of tasks that generate no text. Tasks with heads share batches, whatever their tasks; label words go task by task."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from foreword.backbone.frozen_model import FrozenModel
from foreword.errors import ForewordError
from foreword.serving.loaded_task import LoadedTask
from foreword.serving.request import Answer, Done, Event, Failed, Request
from foreword.serving.request_check import check_request, unreadable
from foreword.tasks.base import EvalFeature, Prediction
from foreword.tasks.evaluation_loop import predictions
from foreword.tasks.head_task import HeadTask
from foreword.tasks.multi_task_batch import Asked, predict_together

BATCH = 32


@dataclass(frozen=True, eq=False)
class PoolingRequest:
    """A request and its task, which is in memory."""

    request: Request
    task: LoadedTask
    emit: Callable[[Event], None]


def pool(model: FrozenModel, items: Sequence[PoolingRequest]) -> None:
    """Answer all; an invalid request, or an error in one task, does not affect others."""
    ready = [(item, eval_feature) for item in items if (eval_feature := _eval_feature(item)) is not None]
    mixed = [(item, eval_feature) for item, eval_feature in ready if isinstance(item.task.task, HeadTask) and item.task.model is model]
    if len({item.task.key for item, _ in mixed}) > 1 and _mixed(model, mixed):
        ready = [pair for pair in ready if pair not in mixed]
    by_task: dict[LoadedTask, list[tuple[PoolingRequest, EvalFeature]]] = {}
    for pair in ready:
        by_task.setdefault(pair[0].task, []).append(pair)
    for task, pairs in by_task.items():
        try:
            found = predictions(task.task, task.model, task.adapter_state, [eval_feature for _, eval_feature in pairs], BATCH)
        except Exception as error:  # an error in one task must not stop the engine
            for item, _ in pairs:
                item.emit(Failed("engine", f"the step failed ({type(error).__name__}: {error})."))
            continue
        _emit(pairs, found)


def _eval_feature(item: PoolingRequest) -> EvalFeature | None:
    task = item.task
    try:
        check_request(item.request, task.model.info)
        return task.task.eval_feature(item.request.example, task.model.info, task.length_budget, truncate=item.request.truncate)[0]
    except ForewordError as error:
        item.emit(Failed("request", error.request_message))
    except Exception as error:  # whatever an example holds, it is nobody else's trouble
        item.emit(Failed("request", str(unreadable(error))))
    return None


def _mixed(model: FrozenModel, pairs: Sequence[tuple[PoolingRequest, EvalFeature]]) -> bool:
    """Answer several tasks in the same batches; False if that failed, so that each is tried alone."""
    asked = [
        Asked(item.task.task, item.task.adapter_state, eval_feature) for item, eval_feature in pairs if isinstance(item.task.task, HeadTask)
    ]
    try:
        found = predict_together(model, asked, BATCH)
    except Exception:  # answering each task alone shows which one it was
        return False
    _emit(pairs, found)
    return True


def _emit(pairs: Sequence[tuple[PoolingRequest, EvalFeature]], found: Sequence[Prediction]) -> None:
    for (item, eval_feature), each in zip(pairs, found, strict=True):
        item.emit(Answer(each.text, each.value, each.scores))
        item.emit(Done("stop", sum(len(row.ids) for row in eval_feature.rows), 0))
