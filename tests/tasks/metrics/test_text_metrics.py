"""Metrics of texts: known values, sacrebleu's own numbers, and errors that mean something."""

from __future__ import annotations

import numpy as np
import pytest
from sacrebleu import corpus_bleu, corpus_chrf

from foreword.errors import DataError
from foreword.tasks.metrics import text_metrics

TARGETS = ["the cat sat on the mat today", "a dog ran through the park", "nobody saw the old ship leave", "it rained all day long here"] * 5
PREDICTED = ["the cat sat on a mat today", "a dog ran in the park", "no one saw an old ship leave", "it rained all day long here"] * 5


def test_rouge_by_hand() -> None:
    scores = text_metrics.rouge(["the cat sat"], ["the cat sat down"])
    assert scores["rouge_1"].value == pytest.approx(2 * 1.0 * 0.75 / 1.75)
    assert scores["rouge_2"].value == pytest.approx(2 * 1.0 * (2 / 3) / (1 + 2 / 3))
    assert scores["rouge_l"].value == scores["rouge_1"].value


def test_corpus_scores_are_sacrebleus() -> None:
    assert text_metrics.bleu(PREDICTED, TARGETS).value == pytest.approx(corpus_bleu(PREDICTED, [TARGETS]).score)
    assert text_metrics.chrf(PREDICTED, TARGETS).value == pytest.approx(corpus_chrf(PREDICTED, [TARGETS]).score)
    assert text_metrics.bleu(TARGETS, TARGETS).value == pytest.approx(100)
    assert text_metrics.bleu(TARGETS, TARGETS).stderr == pytest.approx(0, abs=1e-9)


def test_the_error_is_that_of_drawing_other_sentences() -> None:
    """Against scores of corpora drawn by hand."""
    random = np.random.default_rng(1)
    for ours, theirs in ((text_metrics.bleu, corpus_bleu), (text_metrics.chrf, corpus_chrf)):
        drawn = []
        for _ in range(100):
            index = random.integers(0, len(TARGETS), len(TARGETS))
            drawn.append(theirs([PREDICTED[i] for i in index], [[TARGETS[i] for i in index]]).score)
        score = ours(PREDICTED, TARGETS)
        assert score.n == 20 and score.stderr == pytest.approx(np.std(drawn), rel=0.35) and score.stderr > 0
        assert ours(PREDICTED, TARGETS) == score, "the same draws every time"
        assert ours(PREDICTED[:1], TARGETS[:1]).stderr == 0


def test_all_of_them() -> None:
    scores = text_metrics.texts(PREDICTED, TARGETS)
    assert list(scores) == ["rouge_1", "rouge_2", "rouge_l", "bleu", "chrf", "exact_match"]
    assert scores["exact_match"].value == 0.25


def test_nothing_to_score() -> None:
    with pytest.raises(DataError) as caught:
        text_metrics.bleu([], [])
    assert str(caught.value) == "a metric needs at least one example, but none came; give data that is not empty."
