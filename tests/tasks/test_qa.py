"""Question answering: windows over long contexts, no answer, offsets, what it learns, what cannot be."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tasks.heads import FAMILIES, answers, gradient, ready, tiny_model

from foreword.adapters.adapter import Adapter
from foreword.errors import DataError, UsageError
from foreword.evaluation.evaluate import Reader
from foreword.methods import recipe
from foreword.tasks.base import LengthBudget, Prediction
from foreword.tasks.data.squad_answers import Answer, checked_answers, parse_answers
from foreword.tasks.doc_stride import windows
from foreword.tasks.head_task import read_inputs
from foreword.tasks.qa import QA
from foreword.tasks.registry import task_from_dict
from foreword.training.loop import fit
from foreword.training.plan import TrainPlan

CONTEXT = "The capital of France is Paris and the film is a joy to watch."
ROW = {"question": "What is the capital of France?", "context": CONTEXT, "answers": '["Paris"]'}
LONG = {"question": "What is it?", "context": "a dull mess of a film " * 12 + "is great " + "on and on " * 12, "answers": "great"}


@pytest.mark.parametrize("family", FAMILIES)
def test_targets_mark_the_answer(family: str) -> None:
    task, model, length_budget, _ = ready(QA(), family)
    (train_feature,) = task.train_features(ROW, model.info, length_budget)[0]
    begin, end = (int(place) for place in train_feature.target)
    assert model.tokenizer.decode(train_feature.rows[0].ids[begin : end + 1]).strip().lower().replace(" ", "") == "paris"
    assert train_feature.rows[0].labels[begin] == 0 == train_feature.rows[0].labels[end]


@pytest.mark.parametrize("family", FAMILIES)
def test_windows_hold_the_question_and_together_the_whole_context(family: str) -> None:
    model = tiny_model(family)
    whole = model.tokenizer.pair(LONG["question"], LONG["context"], 1 << 30)
    inside = [span for span, text in zip(whole.spans, whole.text, strict=True) if text == 1]
    question = [token for token, text in zip(whole.ids, whole.text, strict=True) if text == 0]
    parts = windows(LONG["question"], LONG["context"], model.info, LengthBudget(3, 44), 8)
    assert len(parts) > 2 and all(part.row.num_tokens <= 44 and len(part.row.at) == 3 for part in parts)
    assert all(set(question) <= set(part.row.ids) for part in parts)
    for before, after in zip(parts, parts[1:], strict=False):
        assert before.spans[-8:] == after.spans[:8]
    joined = [*parts[0].spans, *(span for part in parts[1:] for span in part.spans[8:])]
    assert joined == inside
    (alone,) = windows(ROW["question"], CONTEXT, model.info, LengthBudget(0, 1000), 8)
    plain = model.tokenizer.pair(ROW["question"], CONTEXT, 1 << 30)
    assert alone.row.ids[: len(plain.ids)] == plain.ids and alone.row.types[: len(plain.types)] == plain.types
    assert alone.null == (0 if family == "bert" else len(alone.row.ids) - 1)


def test_a_window_without_the_whole_answer_teaches_that_it_is_not_there() -> None:
    task, model, _, _ = ready(QA(overlap=8), "bert")
    train_features, cut = task.train_features(LONG, model.info, LengthBudget(0, 44))
    null = [train_feature.target == (0.0, 0.0) for train_feature in train_features]
    assert not cut and 0 < null.count(False) < len(null)


@pytest.mark.parametrize("family", FAMILIES)
def test_answers_are_spans_of_the_context_and_alone_as_in_a_batch(family: str) -> None:
    task, model, length_budget, adapter_state = ready(QA(overlap=8, max_answer=4), family, 44)
    found = answers(task, model, length_budget, adapter_state, [ROW, LONG, ROW], 3)
    assert [p.text for p in found] == [answers(task, model, length_budget, adapter_state, [row], 1)[0].text for row in (ROW, LONG, ROW)]
    for p, row in zip(found, (ROW, LONG, ROW), strict=True):
        start = p.value["start"]
        assert p.text and row["context"][start : start + len(p.text)] == p.text == p.value["answer"]
        assert len(model.tokenizer.encode(p.text)) <= 6


def test_the_best_span_by_trying_all() -> None:
    task, model, length_budget, adapter_state = ready(QA(max_answer=3), "bert")
    question = task.eval_feature(ROW, model.info, length_budget, truncate=False)[0]
    (window,) = question.notes[1]
    logits = adapter_state.needed_head()(read_inputs(model, adapter_state.tokens, [window.row]).states)[0].detach()
    tried = {
        (float(logits[i, 0] + logits[j, 1] - logits[0].sum()), i, j)
        for i in range(window.begin, window.end)
        for j in range(i, min(i + 3, window.end))
    }
    odds, first, last = max(tried)
    found = next(iter(task.predict(model, adapter_state, [question], 1)))
    assert found.value["log_odds"] == pytest.approx(odds, abs=1e-5)
    assert found.text == CONTEXT[window.spans[first - window.begin][0] : window.spans[last - window.begin][1]].strip()


def test_the_threshold_decides_whether_there_is_an_answer() -> None:
    for threshold, empty in ((1e9, True), (-1e9, False)):
        task, model, length_budget, adapter_state = ready(QA(unanswerable=True, threshold=threshold), "bert")
        (found,) = answers(task, model, length_budget, adapter_state, [ROW], 1)
        assert (found.text == "") is empty and (found.value["start"] is None) is empty


@pytest.mark.parametrize("family", FAMILIES)
def test_gradients_reach_the_head_from_every_window(family: str) -> None:
    task, model, length_budget, adapter_state = ready(QA(unanswerable=True, overlap=8), family, 44)
    found = gradient(task, model, length_budget, adapter_state, [ROW, LONG, {**ROW, "answers": "[]"}])
    assert found.isfinite().all() and found.abs().sum() > 0


def test_answers_are_read_as_data_sets_write_them() -> None:
    assert parse_answers("") == parse_answers("[]") == parse_answers('{"text": [], "answer_start": []}') == []
    assert parse_answers(" Paris ") == [Answer("Paris")]
    assert parse_answers('["Paris", "Paris, France"]') == [Answer("Paris"), Answer("Paris, France")]
    both = [Answer("Paris", 3), Answer("Paris", 9)]
    assert parse_answers('{"text": ["Paris", "Paris"], "answer_start": [3, 9]}') == both
    assert parse_answers('[{"text": "Paris", "answer_start": 3}, {"text": "Paris", "answer_start": 9}]') == both
    assert checked_answers({**ROW, "answers": '{"text": ["is"], "answer_start": [44]}'}) == [(44, 46)]
    assert checked_answers({**ROW, "answers": '{"text": [" Paris "], "answer_start": [24]}'}) == [(25, 30)]


def test_bad_examples_get_one_sentence() -> None:
    task, model, length_budget, _ = ready(QA(), "bert")
    bad = '\'answers\' is {}, which is no JSON list of texts; write ["Paris"], or {{"text": ["Paris"], "answer_start": [17]}}.'
    cases = {
        "the answer 'Rome' to 'What is the capital of France?' is not in its context; correct it, or leave it empty where there is none.": {
            "answers": "Rome"
        },
        "the answer 'Paris' to 'What is the capital of France?' is said to begin at 4, but 'capit' stands there; correct answer_start or leave it out.": {
            "answers": '{"text": ["Paris"], "answer_start": [4]}'
        },
        "the question 'What is the capital of France?' has no answer, but this task is for questions that have one; remove it, or set unanswerable.": {
            "answers": ""
        },
        bad.format("['Paris']"): {"answers": "['Paris']"},
        bad.format('{"text": ["Paris"], "answer_start": []}'): {"answers": '{"text": ["Paris"], "answer_start": []}'},
        bad.format('[" "]'): {"answers": '[" "]'},
        "the question 'What is the capital of France?' or its context is empty; fill both, or remove the row.": {
            "context": "",
            "answers": "",
        },
    }
    for message, change in cases.items():
        with pytest.raises(DataError) as caught:
            (QA(unanswerable=True) if "context" in change else task).train_features({**ROW, **change}, model.info, length_budget)
        assert str(caught.value) == message
    with pytest.raises(DataError) as caught:
        task.eval_feature({**ROW, "question": "what " * 50}, model.info, LengthBudget(0, 44), truncate=True)
    assert str(caught.value) == (
        "the question 'what what what what what what what what…' leaves room for 0 tokens of its context in tiny-bert, but 16 are needed; shorten it or the prompt."
    )
    with pytest.raises(UsageError) as caught:
        QA(max_answer=0)
    assert str(caught.value) == "overlap 128 and max_answer 0 came, but they must be at least 0 and 1."


def test_scores_and_labels_come_from_the_data() -> None:
    task = QA.of([ROW, {**ROW, "answers": "[]"}])
    assert task.unanswerable and not QA.of([ROW]).unanswerable
    scores = task.score([Prediction("paris!"), Prediction("")], ['["Paris"]', "[]"])
    assert list(scores) == ["f1", "exact_match"] and scores["f1"].value == scores["exact_match"].value == 1.0


def test_it_reads_back() -> None:
    for task in (QA(), QA(unanswerable=True, threshold=-1.5, overlap=3, max_answer=5, description="d")):
        assert task_from_dict(json.loads(json.dumps(task.to_dict()))) == task


def facts(count: int, start: int = 0) -> list[dict[str, str]]:
    """The answer is always the word behind "is"."""
    rows = [("good", "bad", "maybe", "dull")[i % 4] for i in range(start, start + count)]
    return [{"question": "What is it?", "context": f"The film {i} is {word} to watch", "answers": word} for i, word in enumerate(rows)]


@pytest.mark.parametrize("family", FAMILIES)
def test_it_learns_and_is_saved(family: str, tmp_path: Path) -> None:
    plan = TrainPlan(steps=30, batch_size=8, eval_every=15, eval_examples=8, learning_rate=0.03, tracker="none")
    result = fit(tiny_model(family), recipe("p-tuning-v2", length=3), QA(), facts(32), facts(8, 100), plan, out=tmp_path / "a")
    assert result.scores["loss"].value < 2.0, result.scores
    reader = Reader.of(tiny_model(family), Adapter.load(tmp_path / "a"))
    assert reader.evaluate(facts(8, 100))[0]["f1"] == result.scores["f1"]
    assert reader.predict(facts(1))[0].text in facts(1)[0]["context"]
