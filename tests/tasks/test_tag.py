"""Tagging: which token speaks for a word, mended entities, what it learns, what cannot be."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from tasks.heads import FAMILIES, answers, gradient, ready, tiny_model

from foreword.errors import DataError, UsageError
from foreword.evaluation.evaluate import Reader
from foreword.methods import recipe
from foreword.tasks.base import LengthBudget, Prediction, budget_for
from foreword.tasks.registry import task_from_dict
from foreword.tasks.tag import Tag
from foreword.training.loop import fit
from foreword.training.plan import TrainPlan

POS = Tag(("ADJ", "DET", "NOUN"))
NER = Tag(("O", "B-LOC", "B-PER", "I-LOC", "I-PER"))
ROW = {"tokens": json.dumps(["a", "horrible", "film"]), "tags": json.dumps(["DET", "ADJ", "NOUN"])}


@pytest.mark.parametrize("family", FAMILIES)
def test_one_token_of_each_word_speaks(family: str) -> None:
    task, model, length_budget, _ = ready(POS, family)
    row = task.train_features(ROW, model.info, length_budget)[0][0].rows[0]
    marked = [place for place, label in enumerate(row.labels) if label >= 0]
    assert [row.labels[place] for place in marked] == [1, 0, 2]
    pieces = model.tokenizer.words(["a", "horrible", "film"], 99).spans
    assert sum(word == 1 for word, _ in pieces) > 1, "the word in the middle has several pieces"
    for word, place in enumerate(marked):
        same = [i for i, (owner, _) in enumerate(pieces) if owner == word]
        assert place == (same[0] if family == "bert" else same[-1])


@pytest.mark.parametrize("family", FAMILIES)
def test_predictions_are_the_heads_at_those_tokens_and_alone_as_in_a_batch(family: str) -> None:
    task, model, length_budget, adapter_state = ready(POS, family)
    rows = [ROW, {"tokens": "good"}, {"tokens": "it was a great joy"}]
    found = answers(task, model, length_budget, adapter_state, rows, 3)
    assert [len(p.value) for p in found] == [3, 1, 5]
    assert found == [answers(task, model, length_budget, adapter_state, [row], 1)[0] for row in rows]
    row = task.eval_feature(ROW, model.info, length_budget, truncate=False)[0].rows[0]
    states = model.network.base_model(input_ids=torch.tensor([row.ids])).last_hidden_state[0]
    marked = [place for place, label in enumerate(row.labels) if label >= 0]
    assert found[0].value == [task.labels[i] for i in adapter_state.needed_head()(states[marked]).argmax(1).tolist()]  # type: ignore[attr-defined]
    assert found[0].text == " ".join(found[0].value)


def test_every_word_counts_once_in_the_loss() -> None:
    task, model, length_budget, adapter_state = ready(POS, "bert")
    train_feature = task.train_features(ROW, model.info, length_budget)[0][0]
    assert train_feature.weight == 3.0 and task.losses(model, adapter_state, [train_feature, train_feature]).sizes == [3, 3]
    assert gradient(task, model, length_budget, adapter_state, [ROW]).abs().sum() > 0


def test_entities_are_mended() -> None:
    assert NER.metric == "entity_f1" and POS.metric == "token_accuracy"
    scores = NER.score([Prediction("", value=["B-PER", "I-PER", "O"])], ['["I-PER", "I-PER", "O"]'])
    assert (scores["entity_f1"].value, scores["token_accuracy"].value) == (1.0, 1.0)
    assert list(scores)[0] == "entity_f1" and list(POS.score([Prediction("", value=["DET"])], ["DET"])) == ["token_accuracy"]
    task, model, length_budget, _ = ready(NER, "bert")
    row = task.train_features({"tokens": "in Paris", "tags": "O I-LOC"}, model.info, length_budget)[0][0].rows[0]
    assert [label for label in row.labels if label >= 0] == [0, 1]


@pytest.mark.parametrize("family", FAMILIES)
def test_predicted_entities_are_well_formed(family: str) -> None:
    task, model, length_budget, adapter_state = ready(Tag(("O", "I-LOC", "B-LOC")), family)
    for found in answers(task, model, length_budget, adapter_state, [{"tokens": "the capital of France is Paris it was great"}], 1):
        for before, tag in zip(["O", *found.value], found.value, strict=False):
            assert tag != "I-LOC" or before in ("B-LOC", "I-LOC")


def test_labels_come_from_the_data() -> None:
    assert Tag.of([ROW]).labels == ("ADJ", "DET", "NOUN")
    iob1 = [{"tokens": "Ann saw Rome", "tags": "I-PER O I-LOC"}, {"tokens": "a b", "tags": "I-PER I-PER"}]
    assert Tag.of(iob1).labels == ("O", "B-LOC", "B-PER", "I-PER")


def test_words_that_do_not_fit_are_refused_or_counted_as_wrong() -> None:
    task, model, _, adapter_state = ready(POS, "bert")
    length_budget = LengthBudget(0, 12)
    row = {"tokens": json.dumps(["film"] * 30), "tags": json.dumps(["NOUN"] * 30)}
    full = len(model.tokenizer.words(["film"] * 30, 1000).ids)
    with pytest.raises(DataError) as caught:
        task.eval_feature(row, model.info, length_budget, truncate=False)
    assert (
        str(caught.value) == f"a text needs {full} tokens with its virtual tokens, but 12 fit in tiny-bert; shorten it, or pass --truncate."
    )
    eval_feature, cut = task.eval_feature(row, model.info, length_budget, truncate=True)
    train_features, cut_too = task.train_features(row, model.info, length_budget)
    found = next(iter(task.predict(model, adapter_state, [eval_feature], 1)))
    read = eval_feature.notes[0]
    assert cut and cut_too and 0 < read < 30 and train_features[0].weight == read
    assert len(found.value) == 30 and found.value.count("?") == 30 - read
    assert task.score([found], [row["tags"]])["token_accuracy"].value <= read / 30


def test_bad_examples_get_one_sentence() -> None:
    task, model, length_budget, _ = ready(NER, "bert")
    cases = {
        "'a b' has 2 words but 3 tags; give each word one tag.": {"tokens": "a b", "tags": "O O O"},
        "tag 'B-ORG' is not one of O, B-LOC, B-PER, I-LOC, I-PER; correct the data, or train with this tag.": {
            "tokens": "a",
            "tags": "B-ORG",
        },
        "tag 'NOUN' is not one of O, B-LOC, B-PER, I-LOC, I-PER; correct the data, or train with this tag.": {
            "tokens": "a",
            "tags": "NOUN",
        },
        "an example has no words in 'tokens'; fill it or remove the row.": {"tokens": "[]", "tags": "[]"},
        "an example has an empty word in 'tokens'; fill it or remove the row.": {"tokens": '["a", ""]', "tags": "O O"},
        "'tokens' is ['a', 'b'], which is no JSON list of texts; write [\"like\", \"this\"].": {"tokens": "['a', 'b']", "tags": "O O"},
        "the task needs the column 'tags', but the example has tokens; rename a column, or map it with --columns.": {"tokens": "a"},
        "word 2 of 'a \u200b' is '\u200b', which has no token of its own for tiny-bert; replace it, or join it with the next.": {
            "tokens": '["a", "\u200b"]',
            "tags": "O O",
        },
    }
    for message, row in cases.items():
        with pytest.raises(DataError) as caught:
            task.train_features(row, model.info, length_budget)
        assert str(caught.value) == message


def test_taggers_that_cannot_be() -> None:
    with pytest.raises(DataError) as caught:
        Tag(("NOUN",))
    assert str(caught.value) == "tags NOUN came, but a tagger needs at least two different ones; check the tags column."
    with pytest.raises(UsageError) as caught:
        Tag(("A", "B"), piece="middle")
    assert str(caught.value) == "piece 'middle' is not known; choose one of auto, first, last."


def test_it_reads_back() -> None:
    for task in (POS, NER, Tag(("a", "b"), piece="last", description="d")):
        assert task_from_dict(json.loads(json.dumps(task.to_dict()))) == task


def sentences(count: int, start: int = 0) -> list[dict[str, str]]:
    """A word's tag is told by the word: numbers, films and what they are."""
    rows = [([("good", "bad")[i % 2], "film", str(i)], ["ADJ", "NOUN", "NUM"]) for i in range(start, start + count)]
    return [{"tokens": json.dumps(tokens), "tags": json.dumps(tags)} for tokens, tags in rows]


@pytest.mark.parametrize("family", FAMILIES)
def test_it_learns_and_is_saved(family: str, tmp_path: Path) -> None:
    plan = TrainPlan(steps=40, batch_size=8, eval_every=20, eval_examples=8, learning_rate=0.03, tracker="none")
    result = fit(
        tiny_model(family),
        recipe("p-tuning-v2", length=3),
        Tag.of(sentences(4)),
        sentences(32),
        sentences(8, 100),
        plan,
        out=tmp_path / "a",
    )
    assert result.scores["token_accuracy"].value > 0.6, result.scores
    from foreword.adapters.adapter import Adapter

    reader = Reader.of(tiny_model(family), Adapter.load(tmp_path / "a"))
    assert reader.evaluate(sentences(8, 100))[0]["token_accuracy"] == result.scores["token_accuracy"]
    assert len(reader.predict([{"tokens": "bad film 7"}])[0].value) == 3


def test_positions_leave_room_for_soft_tokens() -> None:
    model = tiny_model("bert")
    spec = recipe("prompt-tuning", length=4)
    task = POS.for_model(model.info, spec)
    row = task.eval_feature(ROW, model.info, budget_for(spec, model.info), truncate=False)[0].rows[0]
    assert row.at == (1,) * 4
