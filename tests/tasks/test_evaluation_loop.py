"""Answers and losses of a task with a head come from one pass, and are those of two."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from contract.triples import HEADED, JOBS, frozen

from foreword.backbone.adapter_state import AdapterState
from foreword.backbone.frozen_model import FrozenModel
from foreword.prompts.head import Head
from foreword.tasks.base import Task, budget_for
from foreword.tasks.evaluation_loop import EvalSet, evaluate, losses, predictions
from foreword.tasks.head_task import HeadTask


def prepared(kind: str, name: str) -> tuple[HeadTask, FrozenModel, AdapterState, EvalSet]:
    model = frozen(name)
    task: Task = JOBS[kind].task.for_model(model.info, None)
    assert isinstance(task, HeadTask) and task.head is not None
    adapter_state = AdapterState(None, Head(task.head, model.shape.hidden, seed=3).requires_grad_(False))
    return task, model, adapter_state, EvalSet.prepare(task, model.info, budget_for(None, model.info), JOBS[kind].examples, truncate=False)


@pytest.mark.parametrize("name", ["bert", "llama"])
@pytest.mark.parametrize("kind", HEADED)
@pytest.mark.parametrize("batch_size", [1, 3, 64])
def test_one_pass_says_what_two_say(kind: str, name: str, batch_size: int) -> None:
    task, model, adapter_state, eval_set = prepared(kind, name)
    found = evaluate(task, model, adapter_state, eval_set, batch_size=batch_size)
    apart = list(losses(task, model, adapter_state, eval_set.train_features, batch_size))
    assert found["loss"].value == pytest.approx(sum(apart) / len(apart), abs=1e-4) and found["loss"].n == len(apart)
    expected = task.score(predictions(task, model, adapter_state, eval_set.eval_features, batch_size), eval_set.targets)
    assert {key: score.value for key, score in found.items() if key != "loss"} == {
        key: pytest.approx(score.value, abs=1e-4) for key, score in expected.items()
    }


@pytest.mark.parametrize("kind", HEADED)
def test_every_row_is_read_once(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    task, model, adapter_state, eval_set = prepared(kind, "bert")
    read: list[int] = []
    hidden = FrozenModel.hidden

    def counting(self: FrozenModel, batch, tokens=None) -> torch.Tensor:
        read.append(len(batch.ids))
        return hidden(self, batch, tokens)

    monkeypatch.setattr(FrozenModel, "hidden", counting)
    ticks: list[int] = []
    evaluate(task, model, adapter_state, eval_set, batch_size=2, tick=ticks.append)
    assert sum(read) == sum(len(eval_feature.rows) for eval_feature in eval_set.eval_features)
    assert sum(ticks) == len(eval_set.eval_features)


def test_rows_that_differ_are_read_apart() -> None:
    task, model, adapter_state, eval_set = prepared("tag", "bert")
    other = replace(
        eval_set.train_features[0], rows=(replace(eval_set.train_features[0].rows[0], ids=eval_set.train_features[0].rows[0].ids[::-1]),)
    )
    eval_set = replace(eval_set, train_features=[other, *eval_set.train_features[1:]])
    assert eval_set.paired() is None and replace(eval_set, train_features=[]).paired() is None
    apart = list(losses(task, model, adapter_state, eval_set.train_features, 4))
    assert evaluate(task, model, adapter_state, eval_set, batch_size=4)["loss"].value == pytest.approx(sum(apart) / len(apart))
