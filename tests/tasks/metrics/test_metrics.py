"""Metrics against their official implementations and by hand."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from foreword.errors import DataError
from foreword.tasks.data.bio_tags import entities, repaired, scheme_of
from foreword.tasks.metrics.multilabel_metrics import set_scores
from foreword.tasks.metrics.regression_metrics import number_scores
from foreword.tasks.metrics.squad_metrics import answer_scores, normalised
from foreword.tasks.metrics.tag_metrics import entity_scores, token_accuracy

TAGS = ("O", "B-PER", "I-PER", "B-LOC", "I-LOC")
SENTENCES = st.lists(st.lists(st.tuples(st.sampled_from(TAGS), st.sampled_from(TAGS)), min_size=1, max_size=6), min_size=2, max_size=8)


@settings(deadline=None, max_examples=40)
@given(SENTENCES)
def test_entity_scores_are_those_of_seqeval(sentences: list[list[tuple[str, str]]]) -> None:
    from seqeval.metrics import f1_score, precision_score, recall_score

    p, t = ([[pair[side] for pair in sentence] for sentence in sentences] for side in (0, 1))
    found = entity_scores(p, t)
    assert found["entity_f1"].value == pytest.approx(f1_score(t, p, zero_division=0))
    assert found["precision"].value == pytest.approx(precision_score(t, p, zero_division=0))
    assert found["recall"].value == pytest.approx(recall_score(t, p, zero_division=0))
    assert found["entity_f1"].n == len(sentences)


@settings(deadline=None, max_examples=60)
@given(st.lists(st.sampled_from((*TAGS, "E-PER", "S-LOC")), max_size=8))
def test_repair_keeps_the_entities_and_is_done_once(tags: list[str]) -> None:
    for scheme in ("iob2", "iobes", "bilou"):
        mended = repaired(tags, scheme)  # type: ignore[arg-type]
        assert entities(mended) == entities(tags)
        assert repaired(mended, scheme) == mended  # type: ignore[arg-type]


def test_repair_by_hand() -> None:
    assert repaired(["I-PER", "I-PER", "O", "B-LOC", "I-PER"], "iob2") == ["B-PER", "I-PER", "O", "B-LOC", "B-PER"]
    assert repaired(["B-PER", "I-PER", "I-PER", "O", "B-LOC"], "iobes") == ["B-PER", "I-PER", "E-PER", "O", "S-LOC"]
    assert repaired(["B-PER", "L-PER", "U-LOC"], "bilou") == ["B-PER", "L-PER", "U-LOC"]
    assert repaired([], "iob2") == []


def test_the_scheme_is_read_off_the_tags() -> None:
    assert scheme_of(["O", "B-PER", "I-PER"]) == scheme_of(["I-PER", "O"]) == "iob2"
    assert scheme_of(["O", "S-PER"]) == "iobes" and scheme_of(["O", "U-PER", "B-PER"]) == "bilou"
    assert scheme_of(["NOUN", "VERB"]) is scheme_of(["O"]) is scheme_of(["B", "S"]) is scheme_of(["O", "B-PER", "X"]) is None


def test_token_accuracy_counts_words_and_draws_sentences() -> None:
    score = token_accuracy([["a", "b"], ["a", "a", "a", "b"]], [["a", "a"], ["a", "a", "a", "a"]])
    assert score.value == pytest.approx(4 / 6) and score.n == 2 and score.stderr > 0
    same = token_accuracy([["a"], ["b"]], [["a"], ["b"]])
    assert (same.value, same.stderr) == (1.0, 0.0)
    with pytest.raises(DataError) as caught:
        token_accuracy([], [])
    assert str(caught.value) == "a metric needs at least one example, but none came; give data that is not empty."


def test_sentences_without_entities_score_nothing() -> None:
    assert entity_scores([["O"], ["O"]], [["O"], ["O"]])["entity_f1"].value == 0.0


@pytest.mark.parametrize(
    ("text", "plain"),
    [("The Eiffel Tower!", "eiffel tower"), ("an  apple, a day", "apple day"), ("theatre", "theatre"), ("U.S.", "us"), ("the", "")],
)
def test_answers_are_normalised_as_squad_does(text: str, plain: str) -> None:
    assert normalised(text) == plain


def test_answer_scores_by_hand() -> None:
    found = answer_scores(["the Eiffel Tower", "in Paris", "", "x"], [["Eiffel tower"], ["Paris", "Paris, France"], [], []])
    assert found["exact_match"].value == 0.5 and found["f1"].value == pytest.approx((1 + 2 / 3 + 1 + 0) / 4)
    assert answer_scores(["the"], [["a"]])["f1"].value == 1.0  # both are nothing once articles are gone


def test_number_scores_are_those_of_scipy() -> None:
    from scipy.stats import pearsonr, spearmanr

    p, t = [1.0, 2.0, 2.0, 5.0, 3.0], [1.5, 1.0, 2.5, 4.0, 4.0]
    found = number_scores(p, t)
    assert found["pearson"].value == pytest.approx(pearsonr(p, t).statistic)
    assert found["spearman"].value == pytest.approx(spearmanr(p, t).statistic)
    assert found["mse"].value == pytest.approx(sum((a - b) ** 2 for a, b in zip(p, t, strict=True)) / 5)
    assert all(score.stderr > 0 and score.n == 5 for score in found.values())
    assert number_scores([1.0, 1.0], [1.0, 2.0])["pearson"].value == 0.0


def test_set_scores_are_those_of_scikit_learn() -> None:
    from sklearn.metrics import f1_score

    labels = ("a", "b", "c")
    p = [frozenset("a"), frozenset("ab"), frozenset(), frozenset("c")]
    t = [frozenset("a"), frozenset("b"), frozenset("c"), frozenset()]
    binary = [[[int(x in s) for x in labels] for s in side] for side in (p, t)]
    found = set_scores(p, t, labels)
    assert found["micro_f1"].value == pytest.approx(f1_score(binary[1], binary[0], average="micro"))
    assert found["macro_f1"].value == pytest.approx(f1_score(binary[1], binary[0], average="macro", zero_division=0))
    assert found["subset_accuracy"].value == 0.25
