"""Knowledge probing: candidates of one and of several tokens, soft tokens anywhere, what it learns, what cannot be."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import tiny
import torch
from tasks.heads import tiny_model

from foreword.adapters.adapter import Adapter
from foreword.backbone.adapter_state import AdapterState
from foreword.errors import DataError, ModelError, UsageError
from foreword.evaluation.evaluate import Reader
from foreword.methods import recipe
from foreword.tasks.base import Prediction, budget_for
from foreword.tasks.knowledge_probe import Probe
from foreword.tasks.registry import kind_of, task_from_dict
from foreword.training.loop import fit
from foreword.training.plan import TrainPlan

TASK = Probe(("Paris", "a film", "no"), template="The capital of {subject} is {answer}")


def test_candidates_are_ranked_by_their_mean_log_probability() -> None:
    model = tiny.frozen("llama")
    eval_feature, _ = TASK.eval_feature({"subject": "France"}, model.info, budget_for(None, model.info), truncate=False)
    found = next(iter(TASK.predict(model, AdapterState(), [eval_feature], 1)))
    ids = eval_feature.rows[0].ids
    for candidate, pieces in zip(TASK.candidates, TASK.answer_ids(model.info), strict=True):
        logits = model.network(input_ids=torch.tensor([[*ids, *pieces]])).logits[0].log_softmax(-1)
        mean = sum(float(logits[len(ids) - 1 + i, piece]) for i, piece in enumerate(pieces)) / len(pieces)
        assert found.losses[candidate] == pytest.approx(-mean, abs=1e-4)
    assert list(found.losses.values()) == sorted(found.losses.values()) and found.text == next(iter(found.scores))
    assert len({len(pieces) for pieces in TASK.answer_ids(model.info)}) > 1


def test_soft_tokens_stand_anywhere() -> None:
    model, spec = tiny.frozen("llama"), recipe("p-tuning", length=5)
    task = Probe(("Paris", "no"), template="{soft:2}The capital of {subject}{soft:3} is {answer}").for_model(model.info, spec)
    row = task.eval_feature({"subject": "France"}, model.info, budget_for(spec, model.info), truncate=False)[0].rows[0]
    assert row.at[:2] == (1, 1) and row.at[2:] == (len(row.ids) - len(model.tokenizer.encode(" is")),) * 3
    plain = Probe(("Paris", "no")).for_model(model.info, recipe("p-tuning-v2", length=5))
    assert plain.to_dict()["template"] == "{subject} {answer}"


def test_precision_at_one_and_the_mean_reciprocal_rank() -> None:
    found = [Prediction("a", {"a": 0.5, "b": 0.3, "c": 0.2}), Prediction("c", {"c": 0.5, "a": 0.3, "b": 0.2})]
    scores = TASK.score(found, ["a", "b"])
    assert scores["p_at_1"].value == 0.5 and scores["mrr"].value == pytest.approx((1 + 1 / 3) / 2) and list(scores)[0] == TASK.metric


def test_candidates_come_from_the_data() -> None:
    assert Probe.of([{"subject": "x", "answer": "b"}, {"subject": "y", "answer": "a"}]).candidates == ("a", "b")
    assert kind_of(["subject", "answer"]) == "probe"


def test_what_cannot_be() -> None:
    model = tiny.frozen("llama")
    with pytest.raises(DataError) as caught:
        TASK.train_features({"subject": "x", "answer": "Rome"}, model.info, budget_for(None, model.info))
    assert (
        str(caught.value)
        == "answer 'Rome' is not one of the 3 candidates (Paris, a film, no); correct the data, or train with this answer."
    )
    with pytest.raises(DataError) as caught:
        Probe(("Paris",))
    assert str(caught.value) == "candidates Paris came, but probing needs at least two different ones; check the answer column."
    with pytest.raises(ModelError) as caught:
        TASK.for_model(tiny_model("bert").info, None)
    assert str(caught.value) == (
        "task 'probe' needs a model that writes words, but tiny-bert is an encoder; use a task with a head, or a causal model."
    )
    with pytest.raises(UsageError) as caught:
        Probe(("", "a"), template="x{answer}").answer_ids(model.info)
    assert str(caught.value) == "candidate '' has no tokens of its own for tiny-llama; leave it out."


def test_it_reads_back() -> None:
    for task in (TASK, Probe(("a", "b"), template="{soft:3}{subject}{answer}", description="d")):
        assert task_from_dict(json.loads(json.dumps(task.to_dict()))) == task


def facts(count: int, start: int = 0) -> list[dict[str, str]]:
    return [{"subject": ("good", "bad")[i % 2] + f" film {i}", "answer": ("yes", "no, never")[i % 2]} for i in range(start, start + count)]


def test_it_learns_and_is_saved(tmp_path: Path) -> None:
    plan = TrainPlan(steps=20, batch_size=8, eval_every=10, eval_examples=8, tracker="none")
    task, model = Probe.of(facts(4), template="{subject}{soft} {answer}"), tiny.frozen("llama")
    before = Reader.plain(model, Probe.of(facts(4), template="{subject} {answer}")).evaluate(facts(8, 100))[0]["loss"].value
    result = fit(model, recipe("p-tuning", length=3), task, facts(32), facts(8, 100), plan, out=tmp_path / "a")
    assert result.scores["loss"].value < before - 0.3, result.scores
    reader = Reader.of(model, Adapter.load(tmp_path / "a"))
    assert reader.evaluate(facts(8, 100))[0]["mrr"].value == pytest.approx(result.scores["mrr"].value)
