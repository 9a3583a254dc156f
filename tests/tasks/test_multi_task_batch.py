"""Questions of many tasks in the same batches are answered as each task answers alone."""

from __future__ import annotations

import pytest
import torch
from contract.given import prompt, spec
from contract.triples import HEADED, JOBS, frozen
from hypothesis import given, settings
from hypothesis import strategies as st

from foreword.backbone.adapter_state import AdapterState
from foreword.backbone.frozen_model import FrozenModel
from foreword.prompts.head import Head
from foreword.tasks.base import Prediction, budget_for
from foreword.tasks.head_task import HeadTask
from foreword.tasks.multi_task_batch import Asked, predict_together

METHODS = {"prompt-tuning": 3, "p-tuning-v2": 5, "none": 0}


def asked_of(model: FrozenModel, kind: str, method: str) -> list[Asked]:
    """All examples of a task under one prompt and a head of its own."""
    made = spec(method, METHODS[method]) if METHODS[method] else None
    task = JOBS[kind].task.for_model(model.info, made)
    assert isinstance(task, HeadTask) and task.head is not None
    tokens = prompt(model, made, 3)() if made else None
    adapter_state = AdapterState(tokens, Head(task.head, model.shape.hidden, seed=len(kind)).requires_grad_(False))
    length_budget = budget_for(made, model.info)
    return [
        Asked(task, adapter_state, task.eval_feature(example, model.info, length_budget, truncate=False)[0])
        for example in JOBS[kind].examples
    ]


def alone(model: FrozenModel, one: Asked) -> Prediction:
    return next(iter(one.task.predict(model, one.adapter_state, [one.eval_feature], 8)))


@pytest.mark.parametrize("name", ["bert", "llama"])
@settings(max_examples=8, deadline=None, derandomize=True, database=None)
@given(data=st.data())
def test_together_is_alone(name: str, data: st.DataObject) -> None:
    model = frozen(name)
    pairs = data.draw(st.lists(st.tuples(st.sampled_from(HEADED), st.sampled_from(sorted(METHODS))), min_size=1, max_size=4, unique=True))
    asked = data.draw(st.permutations([one for pair in pairs for one in asked_of(model, *pair)]))
    found = predict_together(model, asked, data.draw(st.sampled_from([1, 3, 64])))
    for one, each in zip(asked, found, strict=True):
        expected = alone(model, one)
        assert each.text == expected.text or one.task.kind == "regress"
        numbers = [torch.tensor(list(p.scores.values()) or [p.value if isinstance(p.value, float) else 0.0]) for p in (each, expected)]
        assert torch.allclose(*numbers, atol=1e-4)
