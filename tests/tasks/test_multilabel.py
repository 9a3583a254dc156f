"""Multi-label classification: each label for itself, what it learns, what cannot be."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from tasks.heads import FAMILIES, answers, ready, tiny_model

from foreword.adapters.adapter import Adapter
from foreword.errors import DataError, UsageError
from foreword.evaluation.evaluate import Reader
from foreword.methods import named
from foreword.tasks.base import Prediction
from foreword.tasks.multilabel import MultiLabel
from foreword.tasks.registry import task_from_dict
from foreword.training.loop import fit
from foreword.training.plan import TrainPlan

TASK = MultiLabel(("drama", "fun", "war"))
ROWS = [{"text": "a joy", "label": "fun"}, {"text": "a mess", "label": '["war", "drama"]'}, {"text": "on and on", "label": ""}]


def test_labels_are_read_from_lists_and_from_bars() -> None:
    assert MultiLabel.of([*ROWS, {"text": "x", "label": "fun | war"}]).labels == ("drama", "fun", "war")
    task, model, length_budget, _ = ready(TASK, "bert")
    assert [task.train_features(row, model.info, length_budget)[0][0].target for row in ROWS] == [
        (0.0, 1.0, 0.0),
        (1.0, 0.0, 1.0),
        (0.0, 0.0, 0.0),
    ]


@pytest.mark.parametrize("family", FAMILIES)
def test_each_label_has_a_probability_of_its_own(family: str) -> None:
    task, model, length_budget, adapter_state = ready(TASK, family)
    found = answers(task, model, length_budget, adapter_state, ROWS, 3)
    for p, row in zip(found, ROWS, strict=True):
        assert answers(task, model, length_budget, adapter_state, [row], 1)[0].scores == pytest.approx(p.scores, abs=1e-5)
        assert p.value == [label for label, share in p.scores.items() if share >= 0.5] and p.text == "|".join(p.value)
    train_features = [task.train_features(row, model.info, length_budget)[0][0] for row in ROWS]
    shares = torch.tensor([list(p.scores.values()) for p in found])
    meant = torch.tensor([train_feature.target for train_feature in train_features])
    expected = torch.nn.functional.binary_cross_entropy(shares, meant, reduction="none").mean(1)
    assert torch.allclose(task.losses(model, adapter_state, train_features).losses, expected, atol=1e-4)


def test_scores_compare_sets() -> None:
    found = [Prediction("fun", value=["fun"]), Prediction("", value=[])]
    scores = TASK.score(found, ["fun|war", "[]"])
    assert list(scores)[0] == TASK.metric and scores["subset_accuracy"].value == 0.5 and scores["micro_f1"].value == pytest.approx(2 / 3)


def test_what_cannot_be() -> None:
    task, model, length_budget, _ = ready(TASK, "bert")
    with pytest.raises(DataError) as caught:
        task.train_features({"text": "x", "label": "fun|sad"}, model.info, length_budget)
    assert str(caught.value) == "label 'sad' is not one of drama, fun, war; correct the data, or train with this label."
    with pytest.raises(DataError) as caught:
        MultiLabel(())
    assert str(caught.value) == "labels none came, but they must be different and at least one; check the label column."
    with pytest.raises(UsageError) as caught:
        MultiLabel(("a",), threshold=1.0)
    assert str(caught.value) == "threshold is 1.0, but it must be a probability between 0 and 1."


def test_it_reads_back() -> None:
    for task in (TASK, MultiLabel(("a", "b"), threshold=0.3, pair=True, pooling="mean", bias=False, description="d")):
        assert task_from_dict(json.loads(json.dumps(task.to_dict()))) == task


def films(count: int, start: int = 0) -> list[dict[str, str]]:
    kinds = [("good", ["fun"]), ("bad", ["war"]), ("good bad", ["fun", "war"]), ("film", [])]
    return [{"text": f"{i} " + kinds[i % 4][0], "label": json.dumps(kinds[i % 4][1])} for i in range(start, start + count)]


@pytest.mark.parametrize("family", FAMILIES)
def test_it_learns_and_is_saved(family: str, tmp_path: Path) -> None:
    plan = TrainPlan(steps=30, batch_size=8, eval_every=10, eval_examples=8, learning_rate=0.05, tracker="none")
    task = MultiLabel.of(films(4), pooling="mean")
    result = fit(tiny_model(family), named("head-only"), task, films(32), films(8, 100), plan, out=tmp_path / "a")
    assert result.scores["micro_f1"].value > 0.75, result.scores
    reader = Reader.of(tiny_model(family), Adapter.load(tmp_path / "a"))
    assert reader.evaluate(films(8, 100))[0]["micro_f1"] == result.scores["micro_f1"]
