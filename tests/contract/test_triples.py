"""Every triple of method, task and family is supported, or refused in one sentence; together they are all there are."""

from __future__ import annotations

from itertools import product

import pytest
from contract.laws import MODELS
from contract.triples import JOBS, NAMES, ONE, RECIPES, attempt, frozen, supported, why_not

from foreword.errors import ForewordError, UsageError
from foreword.families.registry import FAMILIES
from foreword.methods import BASELINES, METHODS, WRITTEN
from foreword.task_kinds import TASK_KINDS
from foreword.training.loop import fit


def test_nothing_is_left_out() -> None:
    assert set(JOBS) == set(TASK_KINDS) and set(RECIPES) >= {*METHODS, *BASELINES}
    assert {MODELS[kind][name][0] for kind in MODELS for name in MODELS[kind] if name in NAMES} == set(FAMILIES)
    assert set(ONE) == set(MODELS) and all(ONE[kind] in MODELS[kind] for kind in ONE)


@pytest.mark.parametrize("kind", TASK_KINDS)
@pytest.mark.parametrize("method", RECIPES)
def test_every_triple_is_supported_or_refused(method: str, kind: str) -> None:
    for name in NAMES:
        try:
            attempt(method, kind, name)
        except ForewordError as error:
            assert str(error) == why_not(method, kind, name), name
        else:
            assert why_not(method, kind, name) is None, name


def test_a_task_a_method_and_a_family_are_each_supported_somewhere() -> None:
    triples = [triple for triple in product(RECIPES, TASK_KINDS, NAMES) if why_not(*triple) is None]
    assert {method for method, _, _ in triples} == set(RECIPES)
    assert {kind for _, kind, _ in triples} == set(TASK_KINDS) == {kind for _, kind, _ in supported()}
    assert {name for _, _, name in triples} == set(NAMES)


@pytest.mark.parametrize("kind", TASK_KINDS)
@pytest.mark.parametrize("method", WRITTEN)
def test_a_written_prompt_is_never_trained(method: str, kind: str) -> None:
    name = ONE["encoder-decoder" if kind == "seq2seq" else "causal"]
    job = JOBS[kind]
    with pytest.raises(UsageError) as caught:
        fit(frozen(name), RECIPES[method], job.task, job.examples, job.examples)
    assert str(caught.value) == (
        f"method '{method}' trains nothing of task '{kind}', which has no head; evaluate it as it is."
        if job.task.head is None
        else f"method '{method}' is a written prompt, but a '{kind}' task has a head, which must be trained; use head-only."
    )
