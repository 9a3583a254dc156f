"""Regression: numbers in their own units, what it learns, what cannot be."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tasks.heads import FAMILIES, answers, ready, tiny_model

from foreword.adapters.adapter import Adapter
from foreword.errors import DataError, UsageError
from foreword.evaluation.evaluate import Reader
from foreword.methods import named
from foreword.tasks.registry import task_from_dict
from foreword.tasks.regress import Regress
from foreword.training.loop import fit
from foreword.training.plan import TrainPlan

ROWS = [{"text": "a joy", "label": "1"}, {"text": "a dull mess", "label": "5.0"}, {"text": "great", "label": "3"}]


def test_center_and_spread_are_those_of_the_labels() -> None:
    task = Regress.of(ROWS, pair=False, description="d")
    assert (task.center, task.spread, task.description) == (3.0, pytest.approx((8 / 3) ** 0.5), "d")


@pytest.mark.parametrize("family", FAMILIES)
def test_answers_and_losses_are_in_units_of_the_spread(family: str) -> None:
    plain, model, length_budget, adapter_state = ready(Regress(), family)
    scaled, *_ = ready(Regress(center=100.0, spread=10.0), family)
    before, after = (answers(task, model, length_budget, adapter_state, ROWS, 2) for task in (plain, scaled))
    assert [p.value for p in after] == pytest.approx([100 + 10 * p.value for p in before], rel=1e-5)
    assert [p.text for p in after] == [f"{p.value:.4g}" for p in after]
    train_features = [scaled.train_features({**ROWS[0], "label": "120"}, model.info, length_budget)[0][0]]
    assert train_features[0].target == (2.0,)
    assert float(scaled.losses(model, adapter_state, train_features).losses[0].detach()) == pytest.approx(
        (before[0].value - 2) ** 2 / 2, rel=1e-4
    )


def test_two_texts_are_read_as_a_pair() -> None:
    task, model, length_budget, _ = ready(Regress(pair=True), "bert")
    row = task.eval_feature({"text": "one", "text_b": "two"}, model.info, length_budget, truncate=False)[0].rows[0]
    assert list(row.ids) == model.tokenizer.inner("one", "two")["input_ids"] and max(row.types) == 1


def test_what_cannot_be() -> None:
    task, model, length_budget, _ = ready(Regress(), "bert")
    for label in ("good", "nan", ""):
        with pytest.raises(DataError) as caught:
            task.train_features({"text": "x", "label": label}, model.info, length_budget)
        assert str(caught.value) == f"'label' is '{label}', but regression needs a finite number; correct the data, or classify instead."
    with pytest.raises(DataError) as caught:
        Regress.of([ROWS[0], ROWS[0]])
    assert str(caught.value) == "all 2 labels are the same number, so there is nothing to learn; check the label column."
    with pytest.raises(UsageError) as caught:
        Regress(spread=0.0)
    assert str(caught.value) == "center 0.0 and spread 0.0 came, but both must be numbers and spread above 0."


def test_it_reads_back() -> None:
    for task in (Regress(), Regress(1.5, 2.5, pair=True, pooling="mean", bias=False, description="d")):
        assert task_from_dict(json.loads(json.dumps(task.to_dict()))) == task


def stars(count: int, start: int = 0) -> list[dict[str, str]]:
    return [{"text": f"film {i} " + ("bad", "great")[i % 2], "label": str(100 + 10 * (i % 2))} for i in range(start, start + count)]


@pytest.mark.parametrize("family", FAMILIES)
def test_it_learns_and_is_saved(family: str, tmp_path: Path) -> None:
    plan = TrainPlan(steps=30, batch_size=8, eval_every=10, eval_examples=8, learning_rate=0.05, tracker="none")
    result = fit(tiny_model(family), named("head-only"), Regress.of(stars(32)), stars(32), stars(8, 100), plan, out=tmp_path / "a")
    assert list(result.scores)[0] == "pearson" and result.scores["pearson"].value > 0.8, result.scores
    reader = Reader.of(tiny_model(family), Adapter.load(tmp_path / "a"))
    assert reader.evaluate(stars(8, 100))[0]["mse"].value == pytest.approx(result.scores["mse"].value, rel=1e-4)
    assert 80 < reader.predict(stars(1))[0].value < 130
