"""Classification by a head: what it reads, that it learns, what cannot be."""

from __future__ import annotations

from pathlib import Path

import pytest
import tiny
import tiny_encoders
import torch
from training.train_features import LABELS, PLAN, examples

from foreword.adapters.adapter import Adapter
from foreword.backbone.adapter_state import AdapterState
from foreword.errors import DataError, UsageError
from foreword.evaluation.evaluate import Reader
from foreword.methods import METHODS, recipe
from foreword.prompts.head import Head, HeadSpec
from foreword.recipe import Recipe
from foreword.tasks.base import EvalFeature, budget_for
from foreword.tasks.head_classify import HeadClassify
from foreword.tasks.head_task import HeadInputs, pool
from foreword.tasks.registry import task_from_dict
from foreword.training.loop import fit

TASK = HeadClassify(LABELS)


def test_pooling_never_sees_pads() -> None:
    mask = torch.tensor([[False, True, True], [True, True, False]])
    inputs = HeadInputs(torch.arange(12.0).view(2, 3, 2), mask, torch.zeros(2, 3).long())
    assert pool(inputs, "first").tolist() == [[2, 3], [6, 7]]
    assert pool(inputs, "last").tolist() == [[4, 5], [8, 9]]
    assert pool(inputs, "mean").tolist() == [[3, 4], [7, 8]]


def test_a_baked_head_gives_the_same_logits() -> None:
    head = Head(HeadSpec(3), 8, seed=1)
    states = torch.randn(16, 8) * torch.logspace(-2, 2, 8)
    head.measure(states)
    baked = Head.read(head.bake())
    assert torch.allclose(head(states), baked(states), atol=1e-5)
    assert (states / head.scale).square().mean(0).sqrt()[3:].tolist() == pytest.approx([1.0] * 5, rel=1e-4)
    assert not any(parameter.requires_grad for parameter in baked.parameters())


def test_what_a_head_reads_on_a_causal_model_is_the_last_state_of_the_plain_network() -> None:
    model = tiny.frozen("llama")
    task = TASK.for_model(model.info, None)
    eval_feature, cut = task.eval_feature({"text": "a film"}, model.info, budget_for(None, model.info), truncate=False)
    ids = eval_feature.rows[0].ids
    assert not cut and ids[0] == model.tokenizer.bos
    head = Head(HeadSpec(2, bias=False), model.shape.hidden)
    answer = next(iter(task.predict(model, AdapterState(None, head), [eval_feature], 1)))
    states = model.network.base_model(input_ids=torch.tensor([ids])).last_hidden_state[0, -1]
    expected = head(states).softmax(-1).tolist()
    assert [answer.scores[label] for label in LABELS] == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("method", [*METHODS, "head-only"])
@pytest.mark.parametrize("family", ["llama", "bert"])
def test_a_head_learns_and_is_saved(method: str, family: str, tmp_path: Path) -> None:
    model = tiny.frozen(family) if family == "llama" else tiny_encoders.frozen(family)
    what = Recipe("head-only") if method == "head-only" else Recipe.of(recipe(method, length=3))
    result = fit(model, what, TASK, examples(32), examples(8, 100), PLAN, out=tmp_path / "a")
    assert result.history[-1]["loss"] < 1.5
    assert {"head.weight"} <= set(result.adapter.tensors)
    again = Reader.of(model, Adapter.load(tmp_path / "a"))
    scores, _ = again.evaluate(examples(8, 100))
    assert scores["loss"].value == pytest.approx(result.scores["loss"].value, abs=1e-5)
    assert again.predict([{"text": "a good film"}])[0].text in LABELS


def test_two_texts_are_read_in_the_tokenizers_own_way() -> None:
    model = tiny_encoders.frozen("bert")
    task = HeadClassify(LABELS, pair=True)
    row = task.eval_feature({"text": "one", "text_b": "two"}, model.info, budget_for(None, model.info), truncate=False)[0].rows[0]
    inner = model.tokenizer.inner("one", "two", return_token_type_ids=True)
    assert list(row.ids) == inner["input_ids"] and list(row.types) == inner["token_type_ids"]


def test_what_cannot_be_is_refused() -> None:
    model = tiny.frozen("llama")
    length_budget = budget_for(None, model.info)
    with pytest.raises(DataError) as caught:
        TASK.train_features({"text": "x", "label": "maybe"}, model.info, length_budget)
    assert str(caught.value) == "label 'maybe' is not one of no, yes; correct the data, or train with this label."
    with pytest.raises(DataError) as caught:
        HeadClassify(LABELS, pair=True).eval_feature({"text": "x"}, model.info, length_budget, truncate=False)
    assert str(caught.value) == "the task needs the column 'text_b', but the example has text; rename a column, or map it with --columns."
    with pytest.raises(UsageError) as caught:
        HeadClassify(LABELS, pooling="sum")
    assert str(caught.value) == "pooling 'sum' is not known; choose one of auto, first, last, mean."
    long = {"text": "word " * 4000}
    needed = len(model.tokenizer.inner(long["text"])["input_ids"])
    with pytest.raises(DataError) as caught:
        TASK.eval_feature(long, model.info, length_budget, truncate=False)
    assert str(caught.value) == (
        f"a text needs {needed} tokens with its virtual tokens, but {length_budget.max_tokens} fit in {model.name}; shorten it, or pass --truncate."
    )
    assert TASK.eval_feature(long, model.info, length_budget, truncate=True)[1]


def test_it_reads_back() -> None:
    for task in (TASK, HeadClassify(("a", "b", "c"), pair=True, pooling="mean", bias=False, description="d")):
        assert task_from_dict(task.to_dict()) == task
    assert isinstance(EvalFeature(()), EvalFeature)
