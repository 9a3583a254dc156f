"""Laws of whole tasks that were trained, over every method and task on one family of each kind: frozen, saved, alone."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from contract.triples import JOBS, RECIPES, frozen, near, supported

from foreword.adapters.adapter import Adapter
from foreword.backbone.frozen_model import FrozenModel
from foreword.backbone.loading.load_model import load
from foreword.evaluation.evaluate import Reader
from foreword.methods import METHODS, WRITTEN
from foreword.task_kinds import TASK_KINDS
from foreword.training.loop import fit
from foreword.training.plan import TrainPlan

PLAN = TrainPlan(steps=2, batch_size=3, eval_every=2, tracker="none")
Bases = dict[tuple[str, str | None], FrozenModel]


def triples() -> list[tuple[str, str, str]]:
    """All of soft prompts. Of the baselines each task once, so that each of them also meets each kind of model, and each task."""
    found, others = [], [method for method in RECIPES if method not in METHODS]
    for method in RECIPES:
        for number, kind in enumerate(TASK_KINDS):
            names = [name for of, task, name in supported() if (of, task) == (method, kind) and of not in WRITTEN]
            if names and method in others:
                names = [names[(number + others.index(method)) % len(names)]]
            found += [(method, kind, name) for name in names]
    return found


TRAINED = triples()


def test_every_two_that_go_together_are_met() -> None:
    for pair in ((0, 1), (0, 2), (1, 2)):
        assert {tuple(triple[i] for i in pair) for triple in TRAINED} == {
            tuple(triple[i] for i in pair) for triple in supported() if triple[0] not in WRITTEN
        }


@pytest.fixture(scope="module")
def bases(tmp_path_factory: pytest.TempPathFactory) -> Bases:
    """Shared tiny models as recipes want them: plain, or quantised while they are read."""
    found: Bases = {}
    for method, _, name in TRAINED:
        quantize = RECIPES[method].quantize
        if (name, quantize) not in found:
            model = frozen(name)
            if quantize:
                folder = tmp_path_factory.mktemp(name)
                model.network.save_pretrained(folder)
                model.tokenizer.inner.save_pretrained(folder)
                model = load(folder, quantize=quantize, device="cpu")
            found[name, quantize] = model
    return found


@pytest.mark.parametrize(("method", "kind", "name"), TRAINED)
def test_training_keeps_the_base_and_what_is_saved_says_the_same(method: str, kind: str, name: str, bases: Bases, tmp_path: Path) -> None:
    model, job = bases[name, RECIPES[method].quantize], JOBS[kind]
    before = {key: value.clone() for key, value in model.network.state_dict().items()}
    marks = [(p.data_ptr(), p._version) for p in model.network.parameters()]
    made = fit(model, RECIPES[method], job.task, job.examples, job.examples[:1], PLAN, out=tmp_path / "a").adapter
    assert all(torch.equal(value, before[key]) for key, value in model.network.state_dict().items())
    assert [(p.data_ptr(), p._version) for p in model.network.parameters()] == marks, "nobody wrote to a weight, not even the same number"
    assert not any(p.requires_grad or p.grad is not None for p in model.network.parameters())
    kept = Adapter.load(tmp_path / "a")
    assert kept.task == made.task and kept.recipe == made.recipe and kept.tensors.keys() == made.tensors.keys()
    assert all(torch.equal(tensor, made.tensors[key]) for key, tensor in kept.tensors.items())
    alone, together = Reader.of(model, made).predict(job.examples, batch_size=1), Reader.of(model, kept).predict(job.examples)
    near(alone, together)
