"""A run minimises what its objective says: a second one, defined here, trains, is evaluated and resumes without any other code."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import pytest
import tiny
import torch
from torch import Tensor
from training.train_features import LABELS, PLAN, TASK, examples, spec

from foreword.adapters.adapter import Adapter
from foreword.backbone.adapter_state import AdapterState
from foreword.backbone.batch import collate
from foreword.backbone.frozen_model import FrozenModel
from foreword.errors import TrainingError
from foreword.tasks.base import Example, LengthBudget, Losses, Task, TrainFeature, budget_for
from foreword.tasks.classify import Classify
from foreword.tasks.evaluation_loop import EvalSet
from foreword.tasks.metrics.base import Score, mean
from foreword.training.loop import fit
from foreword.training.objective import Objective, TaskLoss, TrainSet

TOP = 8
TEACHER = Classify(LABELS, template="Is this review good? yes or no. It was great, it was terrible. {text}\nLabel: {answer}")


@dataclass(frozen=True)
class DistilFeature(TrainFeature):
    """A row that the student reads, with the teacher's `TOP` likeliest tokens at each answer token, and their log-probabilities."""

    tokens: Tensor = torch.empty(0)
    logs: Tensor = torch.empty(0)


@dataclass(frozen=True)
class Distil(Objective):
    """KL between the model that reads a written prompt, whose logits were stored beforehand, and the model that reads a soft one."""

    stored: Mapping[str, tuple[Tensor, Tensor]]
    kind: ClassVar[str] = "distil-top-k"

    def train_set(
        self, task: Task, model: FrozenModel, length_budget: LengthBudget, examples: Sequence[Example], dampening: float
    ) -> TrainSet:
        plain = TaskLoss().train_set(task, model, length_budget, examples, dampening)
        found = [
            DistilFeature(feature.rows, feature.target, feature.weight, *self.stored[example["text"]])
            for example, feature in zip(examples, plain.features, strict=True)
        ]
        return TrainSet(found, plain.cut)

    def losses(self, task: Task, model: FrozenModel, adapter_state: AdapterState, features: Sequence[TrainFeature]) -> Losses:
        batch = collate([feature.rows[0] for feature in features], pad=model.tokenizer.pad)
        select = batch.labels >= 0
        logs = model.predicting(batch, adapter_state.tokens, select).float().log_softmax(-1)
        teachers = [feature for feature in features if isinstance(feature, DistilFeature)]
        theirs = torch.cat([feature.logs for feature in teachers])
        ours = logs.gather(1, torch.cat([feature.tokens for feature in teachers]))
        return Losses((theirs.exp() * (theirs - ours)).sum(1), batch.weights[select], select.sum(1).tolist())

    def monitor(self, task: Task, scores: Mapping[str, Score]) -> float:
        return -scores["kl"].value

    def evaluate(
        self, task: Task, model: FrozenModel, adapter_state: AdapterState, eval_set: EvalSet, *, batch_size: int
    ) -> dict[str, Score]:
        scores = super().evaluate(task, model, adapter_state, eval_set, batch_size=batch_size)
        # The validation texts are among those whose logits are stored; their features are made in the same order.
        features = self.train_set(task, model, budget_for(spec("p-tuning-v2"), model.info), examples(8, 100), 0.0).features
        with torch.no_grad():
            found = self.losses(task, model, adapter_state, features)
        return {**scores, "kl": mean(found.losses.tolist())}

    def to_dict(self) -> dict[str, Any]:
        return {"kind": self.kind, "top": TOP}


@torch.no_grad()
def stored(model: FrozenModel, rows: Sequence[Example]) -> dict[str, tuple[Tensor, Tensor]]:
    """The teacher's likeliest tokens at the answer of each text."""
    found = {}
    for row in rows:
        batch = collate([TEACHER.train_row(row, model.info, budget_for(None, model.info))[0]], pad=model.tokenizer.pad)
        logs = model.predicting(batch, None, batch.labels >= 0).float().log_softmax(-1).topk(TOP)
        found[row["text"]] = (logs.indices, logs.values)
    return found


def distil(model: FrozenModel) -> Distil:
    return Distil(stored(model, [*examples(16), *examples(8, 100)]))


def test_another_objective_is_minimised_and_chooses_the_best() -> None:
    model, losses = tiny.build("llama"), []
    plan = replace(PLAN, steps=40, learning_rate=0.3, eval_every=10, patience=9)

    def listen(event: dict[str, Any]) -> None:
        if event["event"] == "step":
            losses.append(event["loss"])

    result = fit(model, spec("p-tuning-v2"), TASK, examples(16), examples(8, 100), plan, objective=distil(model), listener=listen)
    assert sum(losses[-5:]) < 0.7 * sum(losses[:5])
    kls = [entry["kl"] for entry in result.history]
    assert set(result.scores) == {"accuracy", "macro_f1", "loss", "kl"}
    assert result.scores["kl"].value == pytest.approx(min(kls), abs=1e-5) and kls[-1] < kls[0]


def test_it_is_not_the_task_s_loss_that_fell() -> None:
    """With both objectives on the same run, the numbers differ from the first step on."""
    model = tiny.build("llama")
    given = (model, spec("p-tuning-v2"), TASK, examples(16), examples(8, 100), PLAN)
    default, plain, other = fit(*given), fit(*given, objective=TaskLoss()), fit(*given, objective=distil(model))
    assert torch.equal(default.adapter.flat, plain.adapter.flat) and not torch.equal(default.adapter.flat, other.adapter.flat)


@pytest.mark.parametrize("checkpointing", [False, True])
def test_killed_and_resumed_is_never_killed(checkpointing: bool, tmp_path: Path) -> None:
    model, plan = tiny.build("llama"), replace(PLAN, gradient_checkpointing=checkpointing)
    given = (model, spec("p-tuning-v2", dropout=0.1), TASK, examples(16), examples(8, 100), plan)
    whole = fit(*given, objective=distil(model), out=tmp_path / "whole")

    class Killed(BaseException):
        pass

    def kill(event: dict[str, Any]) -> None:
        if event["event"] == "step" and event["step"] == 5:
            raise Killed

    with pytest.raises(Killed):
        fit(*given, objective=distil(model), out=tmp_path / "cut", listener=kill)
    torch.manual_seed(123)  # whatever happened in between
    resumed = fit(*given, objective=distil(model), out=tmp_path / "cut", resume=True)
    assert torch.equal(whole.adapter.flat, resumed.adapter.flat)
    assert whole.history == resumed.history
    assert torch.equal(Adapter.load(tmp_path / "cut").flat, whole.adapter.flat)


def test_resuming_with_another_objective_is_refused(tmp_path: Path) -> None:
    model, out = tiny.build("llama"), tmp_path / "adapter"
    given = (model, spec("p-tuning-v2"), TASK, examples(16), examples(8, 100), PLAN)
    fit(*given, out=out)
    with pytest.raises(TrainingError) as caught:
        fit(*given, out=out, objective=distil(model), resume=True)
    assert str(caught.value) == (
        f"the checkpoint in '{out}.run' was made with another objective ({{'kind': 'task-loss'}}, now {{'kind': 'distil-top-k', 'top': 8}}); "
        "repeat the options of that run, or train without --resume."
    )
