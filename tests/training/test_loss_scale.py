"""Training in float16: small gradients survive, large ones cost a step and not the run, and a resumed run has the same scale."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import pytest
import tiny
import torch
from training.train_features import PLAN, TASK, examples, spec

from foreword.backbone.adapter_state import AdapterState
from foreword.backbone.frozen_model import FrozenModel
from foreword.errors import DivergedError
from foreword.tasks.base import Example, LengthBudget, Losses, Task, TrainFeature
from foreword.training.loop import fit
from foreword.training.loss_scale import LossScale
from foreword.training.objective import Objective, TaskLoss, TrainSet


@dataclass(frozen=True)
class Times(Objective):
    """The task's loss times a number."""

    factor: float
    kind: ClassVar[str] = "times"

    def train_set(self, task: Task, model: FrozenModel, length_budget: LengthBudget, rows: Sequence[Example], dampening: float) -> TrainSet:
        return TaskLoss().train_set(task, model, length_budget, rows, dampening)

    def losses(self, task: Task, model: FrozenModel, adapter_state: AdapterState, features: Sequence[TrainFeature]) -> Losses:
        found = task.losses(model, adapter_state, features)
        return replace(found, losses=found.losses * self.factor)

    def to_dict(self) -> dict[str, Any]:
        return {"kind": self.kind, "factor": self.factor}


def half(dtype: torch.dtype = torch.float16) -> FrozenModel:
    model = tiny.build("llama")
    model.network.to(dtype)
    return model


def run(model: FrozenModel, factor: float, **changes: Any) -> list[dict[str, Any]]:
    events: list[dict[str, Any]] = []
    plan = replace(PLAN, **changes.pop("plan", {}))
    fit(
        model, spec("prefix-tuning"), TASK, examples(16), examples(8, 100), plan, objective=Times(factor), listener=events.append, **changes
    )
    return events


def of(events: list[dict[str, Any]], kind: str, name: str) -> list[Any]:
    return [event[name] for event in events if event["event"] == kind]


@pytest.mark.parametrize("factor", [1.0, 1e-6])
def test_small_gradients_are_those_of_float32(factor: float) -> None:
    exact, found = (of(run(half(dtype), factor), "step", "gradient") for dtype in (torch.float32, torch.float16))
    assert found[0] > 0 and found[0] == pytest.approx(exact[0], rel=0.02)


def test_gradients_that_are_not_finite_skip_their_step_and_halve_the_scale() -> None:
    events = run(half(), 1000.0, plan={"steps": 24, "learning_rate": 0.3})
    scales, steps = (of(events, "skipped", name) for name in ("loss_scale", "step"))
    assert 0 < len(steps) < 12 and scales == [2.0 ** (11 - i) for i in range(len(steps))]
    losses, gradients = (of(events, "step", name) for name in ("loss", "gradient"))
    assert [number for number, gradient in enumerate(gradients, 1) if gradient is None] == steps
    assert sum(losses[-4:]) < sum(losses[:4])
    assert not of(run(half(torch.bfloat16), 1000.0), "skipped", "step"), "only float16 has a scale"


def test_a_run_whose_gradients_are_never_finite_ends() -> None:
    with pytest.raises(DivergedError) as caught:
        run(half(), 1e12, plan={"steps": 40})
    assert str(caught.value) == (
        "the gradients of step 13 are not finite in float16, even with a loss scale of 1; train again with --dtype bfloat16 or float32."
    )


@pytest.mark.parametrize("killed_after", [3, 5])
def test_killed_and_resumed_is_never_killed(killed_after: int, tmp_path: Path) -> None:
    class Killed(BaseException):
        pass

    def kill(event: dict[str, Any]) -> None:
        if event["event"] == "step" and event["step"] == killed_after:
            raise Killed

    given = (spec("p-tuning", dropout=0.1) if killed_after == 3 else spec("prefix-tuning"), TASK, examples(16), examples(8, 100), PLAN)
    whole = fit(half(), *given, objective=Times(1000.0)).adapter
    with pytest.raises(Killed):
        fit(half(), *given, objective=Times(1000.0), out=tmp_path / "a", listener=kill)
    resumed = fit(half(), *given, objective=Times(1000.0), out=tmp_path / "a", resume=True).adapter
    assert all(torch.equal(tensor, resumed.tensors[name]) for name, tensor in whole.tensors.items())


def test_the_scale_grows_after_many_finite_steps() -> None:
    scale = LossScale(True)
    for step in range(200):
        assert scale.accepts(1.0, step)
    assert scale.state() == {"value": 2.0**13, "finite_steps": 0}
    assert not scale.accepts(float("nan"), 200) and scale.state() == {"value": 2.0**12, "finite_steps": 0}
    off = LossScale(False)
    assert off.accepts(float("inf"), 0) and off.value == 1.0
