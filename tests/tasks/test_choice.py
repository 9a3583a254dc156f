"""Multiple choice: choices against each other, what it learns, what cannot be."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from tasks.heads import FAMILIES, answers, gradient, ready, tiny_model

from foreword.adapters.adapter import Adapter
from foreword.errors import DataError
from foreword.evaluation.evaluate import Reader
from foreword.methods import recipe
from foreword.tasks.base import LengthBudget, Prediction
from foreword.tasks.choice import Choice
from foreword.tasks.registry import task_from_dict
from foreword.training.loop import fit
from foreword.training.plan import TrainPlan

TWO = {"question": "Is it good?", "choices": '["yes", "no, it is a mess"]', "label": "yes"}
THREE = {"question": "The capital of France", "choices": '["Paris", "a film", "maybe"]', "label": "2"}


@pytest.mark.parametrize("family", FAMILIES)
def test_shares_are_a_softmax_over_the_choices_and_alone_as_in_a_batch(family: str) -> None:
    task, model, length_budget, adapter_state = ready(Choice(pooling="first" if family == "bert" else "auto"), family)
    found = answers(task, model, length_budget, adapter_state, [TWO, THREE], 2)
    for p, row in zip(found, (TWO, THREE), strict=True):
        (alone,) = answers(task, model, length_budget, adapter_state, [row], 1)
        assert list(p.scores) == json.loads(row["choices"]) and p.scores == pytest.approx(alone.scores, abs=1e-5)
        assert (
            sum(p.scores.values()) == pytest.approx(1.0)
            and p.value == {"label": p.text, "index": list(p.scores).index(p.text)}
            and p.text == max(p.scores, key=p.scores.__getitem__)
        )
    rows = task.eval_feature(TWO, model.info, length_budget, truncate=False)[0].rows
    place = 0 if family == "bert" else -1
    inputs = [
        {"input_ids": torch.tensor([row.ids]), **({"token_type_ids": torch.tensor([row.types])} if family == "bert" else {})}
        for row in rows
    ]
    states = torch.stack([model.network.base_model(**given).last_hidden_state[0, place] for given in inputs])
    expected = adapter_state.needed_head()(states)[:, 0].softmax(0).tolist()
    assert list(found[0].scores.values()) == pytest.approx(expected, abs=1e-5)


def test_one_loss_an_example_and_a_gradient_that_is_a_number() -> None:
    task, model, length_budget, adapter_state = ready(Choice(), "bert")
    train_features = [task.train_features(row, model.info, length_budget)[0][0] for row in (TWO, THREE)]
    assert [len(train_feature.rows) for train_feature in train_features] == [2, 3] and [
        train_feature.target for train_feature in train_features
    ] == [(0.0,), (2.0,)]
    assert task.losses(model, adapter_state, train_features).sizes == [1, 1]
    assert gradient(task, model, length_budget, adapter_state, [TWO, THREE]).isfinite().all()


def test_labels_are_texts_or_numbers() -> None:
    task = Choice()
    found = [
        Prediction("yes", {"yes": 0.6, "no": 0.4}, value={"label": "yes", "index": 0}),
        Prediction("b", {"a": 0.1, "b": 0.9}, value={"label": "b", "index": 1}),
    ]
    assert task.score(found, ["yes", "0"])["accuracy"].value == 0.5
    assert task.score(found, ["0", "b"])["accuracy"].value == 1.0


def test_bad_examples_get_one_sentence() -> None:
    task, model, length_budget, _ = ready(Choice(), "bert")
    cases = {
        "label '3' is neither one of Paris, a film, maybe nor the number of one, counted from 0; correct the data.": {"label": "3"},
        "the question 'The capital of France' has the choices Paris, but it needs at least two different ones; correct the data.": {
            "choices": '["Paris"]'
        },
        "the question 'The capital of France' has the choices Paris, Paris, but it needs at least two different ones; correct the data.": {
            "choices": '["Paris", "Paris"]'
        },
        '\'choices\' is Paris, which is no JSON list of texts; write ["like", "this"].': {"choices": "Paris"},
    }
    for message, change in cases.items():
        with pytest.raises(DataError) as caught:
            task.train_features({**THREE, **change}, model.info, length_budget)
        assert str(caught.value) == message
    long = {**THREE, "question": "film " * 60}
    full = len(model.tokenizer.pair(long["question"], "Paris", 1 << 30).ids)
    with pytest.raises(DataError) as caught:
        task.eval_feature(long, model.info, LengthBudget(0, 20), truncate=False)
    assert (
        str(caught.value) == f"a text needs {full} tokens with its virtual tokens, but 20 fit in tiny-bert; shorten it, or pass --truncate."
    )
    assert (
        task.eval_feature(long, model.info, LengthBudget(0, 20), truncate=True)[1]
        and task.train_features(long, model.info, LengthBudget(0, 20))[1]
    )


def test_it_reads_back() -> None:
    for task in (Choice(), Choice(pooling="mean", description="d")):
        assert task_from_dict(json.loads(json.dumps(task.to_dict()))) == task


def riddles(count: int, start: int = 0) -> list[dict[str, str]]:
    """The good one is right, wherever it stands."""
    rows = [(["good", "bad"], 0) if i % 2 else (["bad", "good"], 1) for i in range(start, start + count)]
    return [{"question": f"film {i}", "choices": json.dumps(choices), "label": str(right)} for i, (choices, right) in enumerate(rows)]


@pytest.mark.parametrize("family", FAMILIES)
def test_it_learns_and_is_saved(family: str, tmp_path: Path) -> None:
    plan = TrainPlan(steps=20, batch_size=8, eval_every=10, eval_examples=8, learning_rate=0.03, tracker="none")
    result = fit(tiny_model(family), recipe("p-tuning-v2", length=3), Choice(), riddles(32), riddles(8, 100), plan, out=tmp_path / "a")
    assert result.scores["accuracy"].value == 1.0, result.scores
    reader = Reader.of(tiny_model(family), Adapter.load(tmp_path / "a"))
    assert reader.evaluate(riddles(8, 100))[0]["accuracy"].value == 1.0
    assert reader.predict(riddles(1))[0].text == "good"
