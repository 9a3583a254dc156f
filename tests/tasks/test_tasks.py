"""Tasks: what is an answer, what it scores, and what cannot be."""

from __future__ import annotations

import pytest
import tiny
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from foreword.backbone.adapter_state import AdapterState
from foreword.backbone.batch import collate
from foreword.errors import AdapterError, DataError, UsageError
from foreword.methods import recipe
from foreword.prompts.template import Row, Template
from foreword.task_kinds import TASK_KINDS
from foreword.tasks.base import EvalFeature, Prediction, TrainFeature, budget_for
from foreword.tasks.classify import Classify
from foreword.tasks.evaluation_loop import EvalSet, evaluate, losses
from foreword.tasks.generate import Generate
from foreword.tasks.metrics import base as metrics
from foreword.tasks.metrics.label_metrics import macro_f1
from foreword.tasks.registry import kind_of, task_from_dict
from foreword.tasks.template_task import for_site

PLAIN = Template.parse("{text}\nLabel: {answer}")


def test_label_scores_are_mean_log_probabilities_of_the_words() -> None:
    """Checked against one plain forward pass of the base model per label."""
    model, task = tiny.frozen("llama"), Classify(("no", "yes indeed", "perhaps"), template=PLAIN)
    eval_feature, _ = task.eval_row({"text": "a film"}, model.info, budget_for(recipe("p-tuning-v2"), model.info), truncate=False)
    scores = task.scores(model, None, [eval_feature])[0]
    for index, ids in enumerate(task.answer_ids(model.info)):
        whole = torch.tensor([[*eval_feature.ids, *ids]])
        logits = model.network(input_ids=whole).logits[0].log_softmax(-1)
        steps = range(len(eval_feature.ids) - 1, whole.shape[1] - 1)
        expected = sum(float(logits[i, whole[0, i + 1]]) for i in steps) / len(ids)
        assert float(scores[index]) == pytest.approx(expected, abs=1e-4)


def test_one_piece_labels_take_one_forward_and_agree() -> None:
    model = tiny.frozen("llama")
    short = Classify(("a", "b"), template=Template.parse("{text}{answer}"))
    assert [len(ids) for ids in short.answer_ids(model.info)] == [1, 1]
    row, _ = short.eval_row({"text": "film "}, model.info, budget_for(recipe("p-tuning-v2"), model.info), truncate=False)
    fast = short.scores(model, None, [row, row])
    long = torch.tensor([[-losses_of(short, row, index) for index in (0, 1)]])
    assert torch.allclose(fast, long.expand(2, -1), atol=1e-4)


def losses_of(task: Classify, row: Row, index: int) -> float:
    model = tiny.frozen("llama")
    ids = task.answer_ids(model.info)[index]
    train_feature = Row((*row.ids, *ids), row.at, (-100,) * len(row.ids) + tuple(ids), (0.0,) * len(row.ids) + (1.0,) * len(ids))
    return next(iter(losses(task, model, AdapterState(), [TrainFeature((train_feature,))], 1)))


def test_a_prior_is_subtracted() -> None:
    model, task = tiny.frozen("llama"), Classify(("no", "yes"), template=PLAIN)
    row, _ = task.eval_row({"text": "a film"}, model.info, budget_for(recipe("p-tuning-v2"), model.info), truncate=False)
    shifted = Classify(("no", "yes"), template=PLAIN, prior=(-1.0, -2.0))
    assert torch.allclose(shifted.scores(model, None, [row]), task.scores(model, None, [row]) + torch.tensor([1.0, 2.0]))
    calibrated = task.calibrated(model, None, 0)
    blank = [PLAIN.render({"text": text}, model.tokenizer, 0) for text in ("", "N/A", "[MASK]")]
    assert calibrated.scores(model, None, blank).softmax(1).mean(0).tolist() == pytest.approx([0.5, 0.5], abs=0.1)


@pytest.mark.parametrize(
    ("labels", "words", "error", "message"),
    [
        (("only",), (), DataError, "labels only came, but a classifier needs at least two different ones; check the label column."),
        (("a", "a"), (), DataError, "labels a, a came, but a classifier needs at least two different ones; check the label column."),
        (("a", "b"), ("x",), UsageError, "1 label words came for 2 labels; give one word for each."),
    ],
)
def test_labels_that_cannot_be(labels: tuple[str, ...], words: tuple[str, ...], error: type[Exception], message: str) -> None:
    with pytest.raises(error) as caught:
        Classify(labels, words=words)
    assert str(caught.value) == message


def test_unknown_labels_and_words_that_read_the_same() -> None:
    model = tiny.frozen("llama")
    with pytest.raises(DataError) as caught:
        Classify(("no", "yes")).answer({"label": "maybe"}, model.info)
    assert str(caught.value) == "label 'maybe' is not one of no, yes; correct the data, or train with this label."
    with pytest.raises(UsageError) as caught:
        Classify(("no", "yes"), words=("x", "x")).answer_ids(model.info)
    assert str(caught.value) == "label words x, x are not distinct tokens for tiny-llama; give other words."


def test_outputs_end_with_the_end_token() -> None:
    model = tiny.frozen("llama")
    assert Generate().answer({"output": "x"}, model.info)[-1] == model.tokenizer.eos
    with pytest.raises(DataError) as caught:
        Generate().answer({"output": "  "}, model.info)
    assert str(caught.value) == "an example has an empty 'output'; remove the row or fill it."


def test_a_text_that_is_too_long_is_refused_or_cut() -> None:
    model, task = tiny.frozen("llama"), for_site(Classify(("no", "yes")), recipe("prompt-tuning", length=4))
    length_budget = budget_for(recipe("prompt-tuning", length=4), model.info, 24)
    example = {"text": "word " * 80, "label": "yes"}
    full = task.template.render(example, model.tokenizer, 4).num_tokens
    with pytest.raises(DataError) as caught:
        task.eval_row(example, model.info, length_budget, truncate=False)
    assert str(caught.value) == (
        f"a text needs {full} tokens with its template and answer, but 28 fit in tiny-llama; shorten it, or pass --truncate."
    )
    row, cut = task.eval_row(example, model.info, length_budget, truncate=True)
    assert cut and row.num_tokens <= 28
    train_feature, cut = task.train_row(example, model.info, length_budget)
    assert cut and train_feature.num_tokens <= 28 and train_feature.labels[-1] == task.answer(example, model.info)[-1]


def test_a_prompt_longer_than_the_model_is_refused() -> None:
    model = tiny.frozen("llama")
    with pytest.raises(UsageError) as caught:
        budget_for(recipe("p-tuning-v2", length=model.shape.positions), model.info)
    positions = model.shape.positions
    assert str(caught.value) == (
        f"{positions} virtual tokens and a text of at least 8 tokens need more than the {positions} positions of tiny-llama; use fewer."
    )


def test_tasks_read_back_and_refuse_unknown_keys() -> None:
    for task in (Classify(("a", "b"), words=("x", "y"), prior=(0.1, 0.2)), Generate(max_new_tokens=3, description="d")):
        assert task_from_dict(task.to_dict()) == task
    with pytest.raises(AdapterError) as caught:
        task_from_dict({"kind": "dance"})
    assert str(caught.value) == f"task kind 'dance' is not known; this version has {', '.join(TASK_KINDS)}."
    with pytest.raises(AdapterError) as caught:
        task_from_dict({**Generate().to_dict(), "beams": 3})
    assert str(caught.value) == "task 'generate' has no key 'beams'; it was written by another version or by hand."
    with pytest.raises(UsageError, match="the data has columns a, b, but a task needs"):
        kind_of(["a", "b"])


def test_templates_follow_the_site() -> None:
    task = Classify(("a", "b"), template=Template.parse("{bos}{text} is {answer}"))
    assert for_site(task, recipe("prompt-tuning")).template.source == "{bos}{soft}{text} is {answer}"
    assert for_site(Classify(("a", "b")), recipe("prefix-tuning")).template.source == "{text}\nLabel: {answer}"


def test_streamed_pieces_join_to_the_answer() -> None:
    model, task = tiny.frozen("gpt2"), Generate(template=Template.parse("{input}:{answer}"), max_new_tokens=12)
    row = task.template.render({"input": "say it"}, model.tokenizer, 0)
    assert "".join(task.stream(model, None, row)).strip() == next(iter(task.predict(model, AdapterState(), [EvalFeature((row,))], 1))).text


def test_scores_follow_the_order_of_the_examples() -> None:
    model, task = tiny.frozen("llama"), Classify(("no", "yes"), template=PLAIN)
    rows = [{"text": "w " * (20 - i), "label": ("no", "yes")[i % 2]} for i in range(7)]
    eval_set = EvalSet.prepare(task, model.info, budget_for(recipe("p-tuning-v2"), model.info), rows, truncate=False)
    one = [next(iter(task.predict(model, AdapterState(), [row], 1))).text for row in eval_set.eval_features]
    expected = sum(a == b["label"] for a, b in zip(one, rows, strict=True)) / 7
    assert evaluate(task, model, AdapterState(), eval_set, batch_size=3)["accuracy"].value == pytest.approx(expected)


def test_metrics_by_hand() -> None:
    score = metrics.mean([1.0, 0.0, 1.0, 1.0])
    assert score.value == 0.75 and score.stderr == pytest.approx(0.25) and score.n == 4
    assert metrics.accuracy(["a", "b"], ["a", "a"]).value == 0.5
    assert macro_f1(["a", "b", "b"], ["a", "a", "b"]).value == pytest.approx(2 / 3)
    assert metrics.exact_match([" a "], ["a"]).value == 1.0
    assert metrics.rouge_l(["the cat sat"], ["the cat sat down"]).value == pytest.approx(6 / 7)
    with pytest.raises(DataError) as caught:
        metrics.mean([])
    assert str(caught.value) == "a metric needs at least one example, but none came; give data that is not empty."


@settings(deadline=None, max_examples=25)
@given(st.lists(st.sampled_from("abc"), min_size=2, max_size=20))
def test_perfect_answers_score_one(targets: list[str]) -> None:
    task = Classify(("a", "b", "c"))
    scores = task.score([Prediction(t) for t in targets], targets)
    assert scores["accuracy"].value == 1.0 and scores["macro_f1"].value == pytest.approx(1.0)


def test_collated_lessons_keep_weights() -> None:
    model, task = tiny.frozen("llama"), for_site(Classify(("no", "yes")), recipe("prompt-tuning", length=2))
    row, _ = task.train_row(
        {"text": "x y", "label": "yes"}, model.info, budget_for(recipe("prompt-tuning", length=2), model.info), dampening=0.25
    )
    batch = collate([row])
    assert set(batch.weights[0].tolist()) <= {0.0, 0.25, 1.0} and 0.25 in batch.weights[0].tolist()
    assert int((batch.labels >= 0).sum()) == len(row.ids) - 1  # all but the very first token, which nothing predicts


def test_the_loss_of_a_classifier_needs_no_second_pass() -> None:
    model = tiny.frozen("llama")
    for labels, prior in ((("a", "b"), ()), (("no", "yes indeed"), (-0.3, -1.2))):
        task = Classify(labels, template=PLAIN, prior=prior)
        rows = [{"text": "w " * (3 + i), "label": labels[i % 2]} for i in range(5)]
        eval_set = EvalSet.prepare(task, model.info, budget_for(recipe("p-tuning-v2"), model.info), rows, truncate=False)
        loss = evaluate(task, model, AdapterState(), eval_set, batch_size=2)["loss"].value
        assert loss == pytest.approx(sum(losses(task, model, AdapterState(), eval_set.train_features, 2)) / 5, abs=1e-4)
