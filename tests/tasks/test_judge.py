"""Answers and losses of a task with a head come from one pass, and are those of two."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from contract.triples import HEADED, JOBS, frozen

from foreword.backbone.frozen import FrozenModel
from foreword.backbone.learned import Learned
from foreword.prompts.head import Head
from foreword.tasks.base import Task, reading
from foreword.tasks.headed import HeadTask
from foreword.tasks.judge import Exam, judge, losses, predictions


def prepared(kind: str, name: str) -> tuple[HeadTask, FrozenModel, Learned, Exam]:
    model = frozen(name)
    task: Task = JOBS[kind].task.suited(model, None)
    assert isinstance(task, HeadTask) and task.head is not None
    learned = Learned(None, Head(task.head, model.shape.hidden, seed=3).requires_grad_(False))
    return task, model, learned, Exam.prepare(task, model, reading(None, model), JOBS[kind].examples, truncate=False)


@pytest.mark.parametrize("name", ["bert", "llama"])
@pytest.mark.parametrize("kind", HEADED)
@pytest.mark.parametrize("batch_size", [1, 3, 64])
def test_one_pass_says_what_two_say(kind: str, name: str, batch_size: int) -> None:
    task, model, learned, exam = prepared(kind, name)
    found = judge(task, model, learned, exam, batch_size=batch_size)
    apart = list(losses(task, model, learned, exam.lessons, batch_size))
    assert found["loss"].value == pytest.approx(sum(apart) / len(apart), abs=1e-4) and found["loss"].n == len(apart)
    expected = task.score(predictions(task, model, learned, exam.questions, batch_size), exam.targets)
    assert {key: score.value for key, score in found.items() if key != "loss"} == {
        key: pytest.approx(score.value, abs=1e-4) for key, score in expected.items()
    }


@pytest.mark.parametrize("kind", HEADED)
def test_every_row_is_read_once(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    task, model, learned, exam = prepared(kind, "bert")
    read: list[int] = []
    hidden = FrozenModel.hidden

    def counting(self: FrozenModel, batch, tokens=None) -> torch.Tensor:
        read.append(len(batch.ids))
        return hidden(self, batch, tokens)

    monkeypatch.setattr(FrozenModel, "hidden", counting)
    ticks: list[int] = []
    judge(task, model, learned, exam, batch_size=2, tick=ticks.append)
    assert sum(read) == sum(len(question.rows) for question in exam.questions)
    assert sum(ticks) == len(exam.questions)


def test_rows_that_differ_are_read_apart() -> None:
    task, model, learned, exam = prepared("tag", "bert")
    other = replace(exam.lessons[0], rows=(replace(exam.lessons[0].rows[0], ids=exam.lessons[0].rows[0].ids[::-1]),))
    exam = replace(exam, lessons=[other, *exam.lessons[1:]])
    assert exam.paired() is None and replace(exam, lessons=[]).paired() is None
    apart = list(losses(task, model, learned, exam.lessons, 4))
    assert judge(task, model, learned, exam, batch_size=4)["loss"].value == pytest.approx(sum(apart) / len(apart))
